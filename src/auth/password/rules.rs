//! Which passwords are accepted: long enough, and not one that everybody tries.
//!
//! No rules about kinds of characters and no expiry: they make passwords worse (NIST SP 800-63B-4, 3.1.1.2).

use std::sync::LazyLock;

use super::Password;
use crate::{auth::email::Email, platform::problem::Invalid};

/// Common passwords of eight characters and more, lower-case, sorted. Where they come from: docs/third-party.md.
static BLOCKLIST: LazyLock<Vec<&'static str>> =
    LazyLock::new(|| include_str!("blocklist.txt").lines().collect());

/// Words that say nothing here, because they are on the page.
const CONTEXT: &[&str] = &["digitalmistress.ai", "digitalmistress", "digital mistress", "mistress"];
/// What has to remain of a password without the words that say nothing.
const MIN_OWN_CHARACTERS: usize = 8;

/// The rules for a new password.
#[derive(Clone, Copy, Debug)]
pub struct PasswordRules {
    /// The fewest characters (Unicode code points).
    pub min_length: usize,
}

impl PasswordRules {
    /// The most characters.
    pub const MAX_CHARACTERS: usize = 128;

    /// Judges a new password of the owner of `email`, as far as that is possible where the address is not known.
    pub fn check(self, password: &Password, email: Option<&Email>) -> Result<(), Invalid> {
        let typed = password.expose();
        if typed.chars().count() < self.min_length {
            let detail =
                format!("A password has at least {} characters. A sentence is a good one.", self.min_length);
            return Err(Invalid::new("too_short", detail));
        }
        let folded = typed.to_lowercase();
        if BLOCKLIST.binary_search(&folded.trim()).is_ok() || is_one_character(&folded) {
            return Err(Invalid::new("too_common", "This password is one of the first that anybody tries."));
        }
        let own = without_context(&folded, email);
        if own.chars().filter(|c| c.is_alphanumeric()).count() < MIN_OWN_CHARACTERS {
            return Err(Invalid::new(
                "too_guessable",
                "Choose something that is not made of this site or your address.",
            ));
        }
        Ok(())
    }
}

fn is_one_character(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_none_or(|first| characters.all(|c| c == first))
}

fn without_context(folded: &str, email: Option<&Email>) -> String {
    let mut own = folded.to_owned();
    let personal = email.map(|email| [email.key(), email.domain(), email.local()]);
    for word in personal.into_iter().flatten().chain(CONTEXT.iter().copied()).filter(|word| word.len() >= 3) {
        own = own.replace(word, "");
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::SecretString;

    fn check(typed: &str, min_length: usize) -> Result<(), &'static str> {
        let password = Password::parse(&SecretString::from(typed)).map_err(|invalid| invalid.code)?;
        let email = Email::parse("annabel@somewhere.example").unwrap();
        PasswordRules { min_length }.check(&password, Some(&email)).map_err(|invalid| invalid.code)
    }

    #[test]
    fn sentences_and_managers_are_accepted() {
        for typed in [
            "seven quiet lanterns at dusk",
            "пятнадцать-букв",
            "x9#fK2!vQ8@zR4$w",
            "     spaces count too    ",
            &"ab1 ".repeat(32),
        ] {
            assert_eq!(check(typed, 15), Ok(()), "{typed}");
        }
    }

    #[test]
    fn what_is_short_long_common_or_about_us_is_refused() {
        let long = "a1".repeat(65);
        for (typed, code) in [
            ("fourteen chars", "too_short"),
            (&long, "too_long"),
            ("passwordpassword", "too_common"),
            ("PasswordPassword", "too_common"),
            ("qwertyuiopasdfghjkl", "too_common"),
            ("aaaaaaaaaaaaaaaaaaaa", "too_common"),
            ("DigitalMistress.ai!", "too_guessable"),
            ("digitalmistress1234567", "too_guessable"),
            ("annabel@somewhere.example", "too_guessable"),
            ("annabelannabelannabel99", "too_guessable"),
        ] {
            assert_eq!(check(typed, 15), Err(code), "{typed}");
        }
        assert_eq!(check("password1", 8), Err("too_common"));
        assert_eq!(check("ﬁfteen letters!", 15), Ok(()), "one ligature is two letters");
    }

    #[test]
    fn the_blocklist_is_sorted_and_large_enough_for_the_default_length() {
        assert!(BLOCKLIST.is_sorted());
        assert!(BLOCKLIST.iter().filter(|word| word.chars().count() >= 15).count() >= 10_000);
    }
}
