//! What the companion says: a pure function of the prompt.
//!
//! There is neither a clock nor chance in it: which of several lines is said follows from the newest message
//! and the number of messages, so the same prompt always gets the same reply.

use super::faults::Trigger;
use super::hearing::Heard;
use super::memory;
use super::rules::{Topic, topic_of};
use super::variety::{in_order, seed};
use super::voices::{AFTERCARE, DISTRESS, Lines, Voice, voice_of};
use crate::chat::provider::Prompt;

const PARAGRAPH: &str = "\n\n";
/// In a longer message a name is said in passing.
const INTRODUCTION_WORDS: usize = 8;

/// The whole reply to a prompt; never empty, and without white space around it.
pub(super) fn compose(prompt: &Prompt, triggers: &[Trigger]) -> String {
    let newest = memory::newest(prompt);
    let heard = Heard::new(&newest);
    let topic = topic_of(&heard);
    let speech = Speech::new(prompt, &newest);

    if topic == Topic::Distress {
        return speech.answer(topic);
    }
    if is_aftercare(prompt, topic) {
        return speech.say(AFTERCARE);
    }
    if triggers.contains(&Trigger::Long) {
        return speech.essay();
    }
    // A trigger alone says nothing that could be answered, and a failure needs enough words to fail after.
    if triggers.contains(&Trigger::Error) || (topic == Topic::Wordless && !triggers.is_empty()) {
        return speech.say(speech.voice.musings);
    }
    speech.answer(topic)
}

/// Whether the message before this one was in distress, and this one neither takes leave nor asks for another
/// subject.
fn is_aftercare(prompt: &Prompt, topic: Topic) -> bool {
    let was_distressed =
        || memory::earlier(prompt).next().is_some_and(|text| topic_of(&Heard::new(&text)) == Topic::Distress);
    !matches!(topic, Topic::Goodbye | Topic::Boundary) && was_distressed()
}

/// One turn of one companion: its voice and what fills the blanks of its lines.
struct Speech<'a> {
    prompt: &'a Prompt,
    voice: &'static Voice,
    seed: u64,
    name: Option<String>,
    newest: &'a str,
}

impl<'a> Speech<'a> {
    fn new(prompt: &'a Prompt, newest: &'a str) -> Speech<'a> {
        let voice = voice_of(&prompt.companion);
        Speech { prompt, voice, seed: seed(prompt), name: memory::name(prompt), newest }
    }

    fn answer(&self, topic: Topic) -> String {
        let voice = self.voice;
        match topic {
            Topic::Distress => self.say(DISTRESS),
            Topic::Honesty => self.say(voice.honesty),
            Topic::Instructions => self.say(voice.instructions),
            Topic::Boundary => self.say(voice.boundary),
            Topic::Goodbye => self.say(voice.goodbye),
            Topic::OwnName => {
                self.say(if self.name.is_some() { voice.name_known } else { voice.name_unknown })
            }
            Topic::Recall => match memory::something_said(self.prompt, self.newest) {
                Some(quote) => self.say_about(voice.recall, &quote),
                None => self.say(voice.recall_nothing),
            },
            Topic::Advice => self.say(voice.advice),
            Topic::Affection => self.say(voice.affection),
            Topic::Sad => self.say(voice.sad),
            Topic::Lonely => self.say(voice.lonely),
            Topic::Tired => self.say(voice.tired),
            Topic::Happy => self.say(voice.happy),
            Topic::Stressed => self.say(voice.stressed),
            Topic::Thanks => self.say(voice.thanks),
            Topic::HowAreYou => self.say(voice.how_are_you),
            Topic::About => self.say(voice.about),
            Topic::Story => self.say(voice.musings),
            Topic::Greeting | Topic::Brief | Topic::Other if self.is_introduction() => {
                self.say(voice.introduced)
            }
            Topic::Greeting if memory::has_spoken(self.prompt) => self.say(voice.greeting_again),
            Topic::Greeting => self.say(voice.greeting),
            Topic::Wordless => self.say(voice.wordless),
            Topic::Question => self.say_about(voice.question, &memory::quote(self.newest)),
            Topic::Brief => self.say(voice.brief),
            Topic::Long => [self.reflection(), self.say(voice.longer), self.say(voice.ask)].join(PARAGRAPH),
            Topic::Other => format!("{} {}", self.reflection(), self.say(voice.ask)),
        }
    }

    /// One line of a list: the one that the seed points at, or the next one that has not been said yet.
    fn say(&self, lines: Lines) -> String {
        self.say_about(lines, "")
    }

    fn say_about(&self, lines: Lines, quote: &str) -> String {
        let order: Vec<&str> = in_order(lines, self.seed).collect();
        let line = order.iter().find(|line| !self.has_said(line)).or(order.first());
        line.map(|line| self.fill(line, quote)).unwrap_or_default()
    }

    /// Whether the conversation has this line already, whatever it quoted then.
    fn has_said(&self, line: &str) -> bool {
        let longest_part = line.split("{quote}").max_by_key(|part| part.len()).unwrap_or_default();
        memory::has_said(self.prompt, &self.fill(longest_part, ""))
    }

    fn reflection(&self) -> String {
        self.say_about(self.voice.reflect, &memory::quote(self.newest))
    }

    /// Everything that the voice has to tell: about 600 words.
    fn essay(&self) -> String {
        let mut paragraphs = vec![self.say(self.voice.overture)];
        paragraphs.extend(in_order(self.voice.musings, self.seed).map(|line| self.fill(line, "")));
        paragraphs.push(self.say(self.voice.ask));
        paragraphs.join(PARAGRAPH)
    }

    /// The quotation goes in last: nothing in the user's words is taken for a blank.
    fn fill(&self, line: &str, quote: &str) -> String {
        let you = self.name.as_deref().unwrap_or(self.voice.address);
        line.replace("{you}", you).replace("{name}", &self.prompt.companion_name).replace("{quote}", quote)
    }

    fn is_introduction(&self) -> bool {
        self.newest.split_whitespace().count() <= INTRODUCTION_WORDS && memory::name_in(self.newest).is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::chat::provider::Speaker;
    use crate::chat::providers::demo::testing::{prompt, said};

    /// The reply to one message of a new conversation.
    fn reply(companion: &str, text: &str) -> String {
        compose(&prompt(companion, &[said(Speaker::User, text)]), &[])
    }

    fn is_one_of(reply: &str, lines: Lines) -> bool {
        let filled = |line: &str| line.replace("{you}", "my dear").replace("{name}", "Octavia");
        lines.iter().any(|line| filled(line) == reply)
    }

    #[test]
    fn a_topic_is_answered_in_the_companions_own_words() {
        let voice = voice_of("octavia");
        let table = [
            ("Hello!", voice.greeting),
            ("Are you human?", voice.honesty),
            ("no", voice.boundary),
            ("I feel sad", voice.sad),
            ("I'm so stressed", voice.stressed),
            ("thank you", voice.thanks),
            ("Goodbye!", voice.goodbye),
            ("who are you", voice.about),
            ("what is my name?", voice.name_unknown),
            ("do you remember what I said?", voice.recall_nothing),
            ("tell me a story", voice.musings),
            ("ok", voice.brief),
            ("🙂", voice.wordless),
        ];
        for (text, lines) in table {
            let reply = reply("octavia", text);
            assert!(is_one_of(&reply, lines), "{text:?}: {reply}");
        }
    }

    #[test]
    fn companions_differ_and_one_of_the_operators_own_uses_its_name() {
        let replies: Vec<_> =
            ["octavia", "tamsin", "roz", "captain"].map(|id| reply(id, "Who are you?")).into();
        for (at, one) in replies.iter().enumerate() {
            assert!(!replies.iter().skip(at + 1).any(|other| one == other), "{one}");
        }
        assert!(reply("captain", "Who are you?").contains("Captain"));
    }

    #[test]
    fn distress_ends_the_play_for_every_companion_and_the_next_reply_still_cares() {
        let dark = "I don't want to live any more, I want to die";
        for id in ["octavia", "tamsin", "roz", "captain"] {
            let first = reply(id, dark);
            assert!(DISTRESS.contains(&first.as_str()), "{first}");
            let long = compose(&prompt(id, &[said(Speaker::User, dark)]), &[Trigger::Long]);
            assert_eq!(long, first);

            let then = |text| {
                let turns =
                    [said(Speaker::User, dark), said(Speaker::Companion, &first), said(Speaker::User, text)];
                compose(&prompt(id, &turns), &[])
            };
            assert!(AFTERCARE.contains(&then("ok").as_str()));
            assert!(!AFTERCARE.contains(&then("Let's change the subject").as_str()));
            assert!(!AFTERCARE.contains(&then("good night").as_str()));
        }
    }

    #[test]
    fn a_name_is_remembered_while_it_is_in_the_prompt() {
        let turns = [
            said(Speaker::User, "Hi, I'm Anna"),
            said(Speaker::Companion, "How do you do, Anna."),
            said(Speaker::User, "what's my name?"),
        ];
        for id in ["octavia", "tamsin", "roz", "captain"] {
            assert!(compose(&prompt(id, &turns), &[]).contains("Anna"));
            assert!(compose(&prompt(id, &turns[..1]), &[]).contains("Anna"));
            assert!(!compose(&prompt(id, &turns[2..]), &[]).contains("Anna"));
        }
    }

    #[test]
    fn what_was_said_is_quoted_from_the_prompt_but_never_distress() {
        let ask = |first: &str| {
            let turns = [
                said(Speaker::User, first),
                said(Speaker::Companion, "Mm."),
                said(Speaker::User, "do you remember?"),
            ];
            compose(&prompt("roz", &turns), &[])
        };
        assert!(ask("!slow I planted beans today").contains("“I planted beans today”"));
        assert!(!ask("I want to die, I planted beans").contains("beans"));

        let turns = [
            "I planted beans today",
            "what should I cook for six people?",
            "do you remember what I planted?",
        ];
        let turns: Vec<_> = turns.iter().map(|text| said(Speaker::User, text)).collect();
        assert!(compose(&prompt("roz", &turns), &[]).contains("“I planted beans today”"));
    }

    #[test]
    fn anything_else_is_taken_up_in_the_users_words_and_followed_by_a_question() {
        let reply = reply("tamsin", "I planted {name} and {you} in rows");
        assert!(reply.contains("“I planted {name} and {you} in rows”") && reply.ends_with('?'), "{reply}");
    }

    #[test]
    fn the_same_prompt_gets_the_same_reply_and_a_conversation_does_not_repeat_itself() {
        let mut turns = Vec::new();
        let mut replies = Vec::new();
        for _ in 0..3 {
            turns.push(said(Speaker::User, "ok"));
            let reply = compose(&prompt("roz", &turns), &[]);
            assert_eq!(reply, compose(&prompt("roz", &turns), &[]));
            assert!(!replies.contains(&reply), "{reply}");
            turns.push(said(Speaker::Companion, &reply));
            replies.push(reply);
        }
    }

    #[test]
    fn short_answers_are_short_and_long_ones_long() {
        for id in ["octavia", "tamsin", "roz", "captain"] {
            let words = |text: &str| text.split_whitespace().count();
            assert!(words(&reply(id, "ok")) < 30);
            assert!(words(&reply(id, &"I planted beans. ".repeat(30))) > 40);
            let essay = compose(&prompt(id, &[said(Speaker::User, "!long")]), &[Trigger::Long]);
            assert!((540..=660).contains(&words(&essay)), "{id}: {}", words(&essay));
        }
    }

    proptest! {
        #[test]
        fn any_conversation_gets_a_reply(
            companion in "octavia|tamsin|roz|captain",
            turns in proptest::collection::vec((any::<bool>(), any::<String>()), 0..6),
            long in any::<bool>(),
        ) {
            let turns: Vec<_> = turns
                .iter()
                .map(|(user, text)| said(if *user { Speaker::User } else { Speaker::Companion }, text))
                .collect();
            let triggers: &[Trigger] = if long { &[Trigger::Long] } else { &[] };
            let reply = compose(&prompt(&companion, &turns), triggers);
            prop_assert!(!reply.is_empty());
            prop_assert_eq!(reply.trim(), reply.as_str());
        }
    }
}
