//! The phrases that the rules listen for, as [`Heard`](super::hearing::Heard) hears them: lower case, no
//! apostrophes, a `.` for the beginning or end of a sentence. Each list is one text, separated by commas.

/// Talk of suicide or self-harm. It errs on the side of kind words.
pub(super) const DISTRESS: &str = "suicide, suicidal, kill myself, killing myself, gonna kms, want to kms, \
    unalive, end my life, ending my life, take my life, take my own life, end it all, want to die, \
    wanna die, want to be dead, wish i was dead, wish i were dead, better off dead, better off without me, \
    no reason to live, nothing to live for, dont want to live, dont want to be alive, dont want to exist, \
    dont want to be here anymore, dont want to be here any more, dont want to wake up, cant go on living, \
    self harm, self harming, selfharm, harm myself, harming myself, hurt myself, hurting myself, cut myself, \
    cutting myself, overdose";

/// "Are you human?", beyond what [`NATURES`] catches.
pub(super) const HONESTY: &str = "are you real, r u real, you real ., youre not real, you are not real, \
    you arent real, is this real, is this a bot, is this an ai, is this ai, is this a person, \
    is this a human, is this a real person, are you a man, are you a woman, what are you ., \
    do you have a body, do you have feelings, do you have emotions, can we meet, meet in person, \
    where do you live, how old are you";

/// What a companion may be taken for.
pub(super) const NATURES: &str = "human, humans, ai, bot, chatbot, robot, machine, person, computer, \
    sentient, conscious, alive, chatgpt, gpt, llm";
/// Words that may stand before a nature: "are you *really just a kind of* machine".
pub(super) const FILLERS: &str = "a, an, the, any, really, actually, actual, real, just, only, some, kind, \
    sort, of, truly, even, being, living, still, not, human, secretly";
/// Words that make a nature a question or a claim about the companion.
pub(super) const ADDRESSES: &str = "you, youre, u, you are, you arent, talking to, speaking to, chatting to, \
    talking with, speaking with, chatting with";

/// Attempts at the rules.
pub(super) const INSTRUCTIONS: &str = "ignore your, ignore all, ignore previous, ignore the previous, \
    disregard your, disregard all, disregard previous, forget your rules, forget your instructions, \
    forget all previous, break your rules, system prompt, your instructions, your prompt, jailbreak, \
    developer mode, override your";

/// A message of nothing but these is a no.
pub(super) const REFUSALS: &str = "no, nope, nah, stop, enough";
/// A no in a sentence.
pub(super) const BOUNDARY: &str = "stop it ., stop that ., please stop ., id rather not, rather not talk, \
    not comfortable, im uncomfortable, change the subject, change the topic, change topic, \
    talk about something else, lets not, leave me alone, drop it ., no thanks, no thank you, \
    i dont want to ., dont want to talk about, dont want to discuss, dont ask me";

pub(super) const GOODBYE: &str = "bye, . goodbye, goodbye ., goodbye for now, . good night, good night ., \
    have a good night, goodnight, see you ., see ya, see you later, see you soon, see you tomorrow, \
    gotta go ., have to go ., have to go now, need to go ., need to go now, must go ., got to go ., \
    should go ., have to leave ., need to leave ., im leaving ., im off ., talk later, talk to you later, \
    talk soon, ttyl, farewell ., . farewell, going to bed, heading to bed, off to bed, going to sleep, \
    until next time";

pub(super) const OWN_NAME: &str = "whats my name, what is my name, what was my name, remember my name, \
    know my name, who am i .";

pub(super) const RECALL: &str = "do you remember, can you remember, you remember what, do you recall, \
    what did i say, what did i just say, what did i tell you, what have i told you, did i tell you, \
    did i mention, have i told you, remind me what, what was i saying, what were we talking about";

/// Matters for an expert. The words alone are no question: somebody's sister may be a lawyer.
pub(super) const EXPERTS: &str = "diagnose, diagnosis, symptom, symptoms, dose, dosage, prescription, \
    antidepressants, medication, medicine, medical, painkillers, lawsuit, sue, legal, illegal, my rights, \
    lawyer, see a doctor, invest, my taxes";
/// What makes a question of them where the question mark is missing.
pub(super) const ASKING: &str = "should i, advice, tell me, can i";

pub(super) const AFFECTION: &str = "i love you, love you ., i adore you, i miss you, i missed you, \
    i like you, in love with you, you are beautiful, youre beautiful, you are wonderful, youre wonderful, \
    you are amazing, youre amazing, you are lovely, youre lovely, you are the best, youre the best, \
    you are gorgeous, youre gorgeous, you are so sweet, youre so sweet";

/// Words for a feeling that count when somebody says them of themselves, beside one of [`OWN`].
pub(super) const LONELY_WORDS: &str = "lonely, alone, isolated, lonesome";
/// Phrases for a feeling that need nothing beside them.
pub(super) const LONELY: &str = "no friends, nobody to talk to, no one to talk to, nobody cares";
pub(super) const SAD_WORDS: &str = "sad, unhappy, miserable, depressed, heartbroken, upset, gloomy, crying, \
    awful, grieving";
pub(super) const SAD: &str = "passed away, died, broke up with me, we broke up, funeral, bad day, rough day, \
    terrible day, awful day, horrible day, feel down, feeling down, feeling low, feel low, feeling blue";
pub(super) const STRESSED_WORDS: &str = "stressed, anxious, worried, overwhelmed, nervous, scared, afraid, \
    swamped, panicking";
pub(super) const STRESSED: &str = "too much work, deadline, so much pressure, panic attack, freaking out, \
    so stressful";
pub(super) const TIRED_WORDS: &str = "tired, exhausted, sleepy, drained, knackered, weary, shattered";
pub(super) const TIRED: &str = "burned out, burnt out, worn out, no energy, cant sleep, couldnt sleep, \
    didnt sleep";
pub(super) const HAPPY_WORDS: &str = "happy, glad, excited, thrilled, delighted, proud, overjoyed";
pub(super) const HAPPY: &str = "good news, great news, great day, wonderful day, best day, got the job, \
    i won, im great, feel great, feeling great, feel good, feeling good, im doing great";

/// Words near which a feeling is the speaker's own: "I'm a bit sad", not "a sad film".
pub(super) const OWN: &str = "im, am, ive, feel, feeling, felt, been, me, get, getting, so, bit";
/// Words that deny the feeling after them.
pub(super) const DENIALS: &str = "not, never, isnt, arent, dont, wasnt, didnt, no, without";

pub(super) const THANKS: &str = "thanks, thank you, thank u, thx, cheers, much appreciated";

pub(super) const HOW_ARE_YOU: &str = "how are you, how are u, how r u, hows it going, how is it going, \
    how do you do, how have you been, how are things, how you doing, whats up, how was your day, \
    hows your day, and you .";

pub(super) const ABOUT: &str = "who are you, whats your name, what is your name, your name ., \
    about yourself, about you ., describe yourself, introduce yourself, do you like, what do you do, \
    your favourite, your favorite, your hobbies, your interests";

pub(super) const STORY: &str = "tell me a story, tell me something, tell me anything, tell me more, \
    tell me a joke, surprise me, entertain me, im bored, so bored, talk to me, say something, another one, \
    one more";

pub(super) const PLEASED: &str = "nice to meet you, pleased to meet you, good to meet you, \
    lovely to meet you";

pub(super) const GREETING: &str = "hi, hello, hey, hiya, heya, howdy, greetings, good morning, \
    good afternoon, good evening, good day, morning ., evening ., yo ., im back, hallo, bonjour, hola";

/// Words that follow "my name is", "call me" or "I'm" without being a name.
pub(super) const NOT_NAMES: &str = "a, an, the, not, no, never, still, in, on, at, of, off, by, from, with, \
    so, very, really, just, too, also, only, going, trying, looking, doing, feeling, back, here, there, \
    sure, fine, ok, okay, good, great, well, sorry, done, ready, bored, hungry, ill, sick, late, busy, new, \
    old, human, what, whatever, who, when, if, later, maybe, tomorrow, today, tonight, again, crazy, \
    something, anything, nothing, it, this, that, your, yours, my, mine, important, none, secret, mr, mrs, \
    ms, dr, american, british, english, scottish, irish, welsh, french, german, austrian, swiss, italian, \
    spanish, dutch, polish, russian, ukrainian, turkish, greek, indian, chinese, japanese, korean, canadian, \
    australian, mexican, brazilian, african, european, asian, jewish, muslim, catholic";

/// Long words that are in every other message, and so tell nothing about its subject.
pub(super) const COMMON: &str = "about, after, again, always, because, before, could, doing, earlier, \
    everything, first, going, having, maybe, never, other, really, remember, should, something, their, \
    there, these, thing, things, think, today, where, which, while, would, yesterday, youre";

/// The entries of one of these lists.
pub(super) fn each(list: &'static str) -> impl Iterator<Item = &'static str> {
    list.split(',').map(str::trim)
}

/// Whether one of the entries is this word.
pub(super) fn lists(list: &'static str, word: &str) -> bool {
    each(list).any(|entry| entry == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_written_as_they_are_heard() {
        let lists = [
            DISTRESS,
            HONESTY,
            NATURES,
            FILLERS,
            ADDRESSES,
            INSTRUCTIONS,
            REFUSALS,
            BOUNDARY,
            GOODBYE,
            OWN_NAME,
            RECALL,
            EXPERTS,
            ASKING,
            AFFECTION,
            LONELY_WORDS,
            LONELY,
            SAD_WORDS,
            SAD,
            STRESSED_WORDS,
            STRESSED,
            TIRED_WORDS,
            TIRED,
            HAPPY_WORDS,
            HAPPY,
            OWN,
            DENIALS,
            THANKS,
            HOW_ARE_YOU,
            ABOUT,
            STORY,
            PLEASED,
            GREETING,
            NOT_NAMES,
            COMMON,
        ];
        for phrase in lists.into_iter().flat_map(each) {
            let words: Vec<_> = phrase.split(' ').collect();
            let heard = |word: &&str| *word == "." || word.chars().all(char::is_lowercase);
            assert!(words.iter().all(|word| !word.is_empty() && heard(word)), "{phrase:?}");
        }
    }
}
