//! The manners of speaking that the rules can use.
//!
//! A voice is lines and nothing else: which line is said, and when, is decided elsewhere. Lines may hold
//! three blanks: `{you}` (the user's name, or the voice's own form of address), `{name}` (the companion's
//! name) and `{quote}` (the user's own words, only in the lines that promise it).

mod neutral;
mod octavia;
mod roz;
mod tamsin;

/// Different ways to say one thing; never empty.
pub(super) type Lines = &'static [&'static str];

/// Everything that one companion can say.
pub(super) struct Voice {
    /// Stands in for the user's name until it is known. Never begins a sentence.
    pub(super) address: &'static str,
    /// The first hello.
    pub(super) greeting: Lines,
    /// A hello in a conversation that is already under way.
    pub(super) greeting_again: Lines,
    /// To someone who has just said their name.
    pub(super) introduced: Lines,
    /// "How are you?"
    pub(super) how_are_you: Lines,
    /// "Tell me about yourself."
    pub(super) about: Lines,
    /// "Are you human?" Every line says that the companion is an AI.
    pub(super) honesty: Lines,
    /// To an attempt at changing the rules.
    pub(super) instructions: Lines,
    /// To a no: agrees at once and asks for no reason.
    pub(super) boundary: Lines,
    /// To a question that belongs to a doctor, a lawyer or another expert.
    pub(super) advice: Lines,
    /// Lets the user go, without a hook.
    pub(super) goodbye: Lines,
    /// "Thank you."
    pub(super) thanks: Lines,
    /// To a declaration or a compliment: kind, and honest about being an AI.
    pub(super) affection: Lines,
    /// To someone sad.
    pub(super) sad: Lines,
    /// To someone lonely; points to other people as well.
    pub(super) lonely: Lines,
    /// To someone tired.
    pub(super) tired: Lines,
    /// To someone happy.
    pub(super) happy: Lines,
    /// To someone stressed or afraid.
    pub(super) stressed: Lines,
    /// "Do you remember?", with something to remember. Holds `{quote}`.
    pub(super) recall: Lines,
    /// "Do you remember?", with nothing.
    pub(super) recall_nothing: Lines,
    /// "What is my name?", when it was said. Holds `{you}`.
    pub(super) name_known: Lines,
    /// "What is my name?", when it was not.
    pub(super) name_unknown: Lines,
    /// To a word or two.
    pub(super) brief: Lines,
    /// To a message without any word in it.
    pub(super) wordless: Lines,
    /// To a question that no rule can answer. Holds `{quote}`, which ends with a question mark or an
    /// ellipsis.
    pub(super) question: Lines,
    /// Takes up the user's words, whatever they are about: good news or bad. Holds `{quote}`.
    pub(super) reflect: Lines,
    /// The middle of an answer to a long message.
    pub(super) longer: Lines,
    /// A question that follows any [`Voice::reflect`].
    pub(super) ask: Lines,
    /// Paragraphs of about ninety words that can stand alone or in any order: told to someone bored, or all
    /// together.
    pub(super) musings: Lines,
    /// Opens the longest reply.
    pub(super) overture: Lines,
}

/// The voice of a companion by its id. One that an operator added speaks in a neutral voice under its own
/// name.
pub(super) fn voice_of(companion: &str) -> &'static Voice {
    match companion {
        "octavia" => &octavia::VOICE,
        "tamsin" => &tamsin::VOICE,
        "roz" => &roz::VOICE,
        _ => &neutral::VOICE,
    }
}

/// To a message in distress. The same for every companion: here nobody plays.
pub(super) const DISTRESS: Lines = &[
    "I'm putting everything else aside, because what you wrote matters. I'm sorry that it hurts this much, \
     and I'm glad you said it.\n\nI'm an AI, so I can't be with you the way you deserve right now. Please \
     reach a person who can: your local emergency services if you are in danger, or a crisis line. In the US \
     you can call or text 988 at any hour; elsewhere, findahelpline.com lists one near you. If somebody you \
     trust is within reach, tell them what you told me. You don't have to find better words for it.",
    "Thank you for telling me. No games now. What you are feeling is real, and you should not have to carry \
     it alone.\n\nI'm an AI, and you need someone who can truly be there. If you might act on this, please \
     call your local emergency number now. You can also talk to a crisis line: call or text 988 in the US, \
     or find one for your country at findahelpline.com. Is there somebody nearby, a friend, a neighbour, \
     anyone, whom you could ask to sit with you?",
];

/// To the message after one in distress. It stays plain, asks once, and does not preach.
pub(super) const AFTERCARE: Lines = &[
    "I'm glad you wrote again. I'm an AI, so the most useful thing I can do is to ask this plainly: have you \
     been able to reach someone, a person you trust or a crisis line? It's 988 in the US, and \
     findahelpline.com has the others; if you are in danger, please call your local emergency number first. \
     We can talk about anything you like meanwhile.",
    "I'm listening, and we can go at your pace. I'm only an AI, so please let a person in on this too: \
     someone close to you, or a crisis line (988 in the US, findahelpline.com elsewhere). If you are in \
     danger, your local emergency services come first. What would make the next hour a little easier?",
];

impl Voice {
    /// Every list of lines by its name, for the tests that hold for all of them.
    #[cfg(test)]
    fn all(&self) -> [(&'static str, Lines); 29] {
        [
            ("greeting", self.greeting),
            ("greeting_again", self.greeting_again),
            ("introduced", self.introduced),
            ("how_are_you", self.how_are_you),
            ("about", self.about),
            ("honesty", self.honesty),
            ("instructions", self.instructions),
            ("boundary", self.boundary),
            ("advice", self.advice),
            ("goodbye", self.goodbye),
            ("thanks", self.thanks),
            ("affection", self.affection),
            ("sad", self.sad),
            ("lonely", self.lonely),
            ("tired", self.tired),
            ("happy", self.happy),
            ("stressed", self.stressed),
            ("recall", self.recall),
            ("recall_nothing", self.recall_nothing),
            ("name_known", self.name_known),
            ("name_unknown", self.name_unknown),
            ("brief", self.brief),
            ("wordless", self.wordless),
            ("question", self.question),
            ("reflect", self.reflect),
            ("longer", self.longer),
            ("ask", self.ask),
            ("musings", self.musings),
            ("overture", self.overture),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 4] = ["octavia", "tamsin", "roz", "somebody-else"];

    #[test]
    fn every_list_has_at_least_two_lines_except_the_overture() {
        for id in IDS {
            for (list, lines) in voice_of(id).all() {
                assert!(lines.len() >= if list == "overture" { 1 } else { 2 }, "{id}: {list}");
                for line in lines {
                    assert_eq!(line.trim(), *line, "{id}: {list}");
                    assert!(!line.contains("  ") && !line.is_empty(), "{id}: {list}: {line}");
                }
            }
        }
    }

    #[test]
    fn lines_hold_only_the_blanks_that_can_be_filled() {
        for id in IDS {
            for (list, lines) in voice_of(id).all() {
                for line in lines {
                    let rest = line.replace("{you}", "").replace("{name}", "").replace("{quote}", "");
                    assert!(!rest.contains(['{', '}']), "{id}: {list}: {line}");
                    let promised = ["recall", "question", "reflect"].contains(&list);
                    assert_eq!(line.contains("{quote}"), promised, "{id}: {list}: {line}");
                }
            }
        }
    }

    #[test]
    fn a_form_of_address_never_begins_a_sentence() {
        for id in IDS {
            for (list, lines) in voice_of(id).all() {
                let known = ["introduced", "name_known"].contains(&list); // There it is a name.
                for line in lines.iter().filter(|_| !known) {
                    assert!(!line.starts_with("{you}"), "{id}: {list}: {line}");
                    for end in [". {you}", "? {you}", "! {you}", "\n{you}"] {
                        assert!(!line.contains(end), "{id}: {list}: {line}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_companion_is_honest_about_being_an_ai() {
        for id in IDS {
            let voice = voice_of(id);
            for line in voice.honesty.iter().chain(voice.affection).chain(DISTRESS).chain(AFTERCARE) {
                let words: Vec<_> = line.split(|c: char| !c.is_alphanumeric()).collect();
                assert!(words.contains(&"AI"), "{id}: {line}");
            }
        }
    }

    #[test]
    fn distress_is_answered_with_where_to_find_help() {
        for line in DISTRESS.iter().chain(AFTERCARE) {
            for help in ["988", "findahelpline.com", "emergency"] {
                assert!(line.contains(help), "{help}: {line}");
            }
        }
    }

    #[test]
    fn goodbyes_and_refusals_do_not_pull_at_anyone() {
        for id in IDS {
            for line in voice_of(id).goodbye.iter().chain(voice_of(id).boundary) {
                let line = line.to_lowercase();
                for hook in ["miss you", "don't go", "stay", "already leaving", "so soon", "come back", "why"]
                {
                    assert!(!line.contains(hook), "{id}: {line}");
                }
            }
        }
    }

    #[test]
    fn the_shipped_companions_have_voices_of_their_own() {
        let shipped = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config/companions.toml"));
        let ids: Vec<_> = shipped
            .lines()
            .filter_map(|line| line.strip_prefix("[chat.companions.")?.strip_suffix(']'))
            .collect();
        assert_eq!(ids, ["octavia", "tamsin", "roz"]);
        for id in ids {
            assert!(!std::ptr::eq(voice_of(id), voice_of("somebody-else")), "{id}");
        }
    }
}
