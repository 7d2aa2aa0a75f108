//! E-mail addresses: as typed, and as the key that decides whether two are the same.

use lettre::Address;
use unicode_normalization::UnicodeNormalization as _;

use crate::platform::problem::Invalid;

/// The longest address (RFC 5321, 4.5.3.1.3, less the angle brackets).
const MAX_LEN: usize = 254;

/// An address that mail can be sent to.
#[derive(Clone, PartialEq, Eq)]
pub struct Email {
    address: String,
    key: String,
}

impl Email {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Email, Invalid> {
        let invalid = || Invalid::new("invalid_format", "This is not an e-mail address.");
        let address: String = text.trim().nfkc().collect();
        if address.len() > MAX_LEN {
            return Err(Invalid::new("too_long", "An e-mail address has at most 254 characters."));
        }
        let (local, domain) = address.rsplit_once('@').ok_or_else(invalid)?;
        let domain = idna::domain_to_ascii_strict(domain).map_err(|_| invalid())?;
        // No top-level domain is a number (RFC 3696, 2): this is an address of the network, or mistyped.
        let top = domain.rsplit('.').next().unwrap_or_default();
        if top.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        // Quoted local parts are legal, rare, and a way to write one mailbox in many forms.
        if !domain.contains('.') || local.contains(['"', '\\', ' ']) || local.chars().any(char::is_control) {
            return Err(invalid());
        }
        let address = format!("{local}@{domain}");
        if address.len() > MAX_LEN || Address::new(local, domain.as_str()).is_err() {
            return Err(invalid());
        }
        let key = format!("{}@{domain}", local.to_lowercase());
        Ok(Email { address, key })
    }

    /// The address as typed, in one Unicode form, its domain in ASCII.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The same for every spelling of one address.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The part before the `@`.
    pub fn local(&self) -> &str {
        self.key.rsplit_once('@').map_or("", |(local, _)| local)
    }

    /// The part after the `@`, in ASCII.
    pub fn domain(&self) -> &str {
        self.key.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_address_have_one_key() {
        for typed in ["Ann@Example.com", "  ann@example.COM ", "ann@ｅｘａｍｐｌｅ.com", "ＡＮＮ@example.com"]
        {
            assert_eq!(Email::parse(typed).map(|email| email.key), Ok("ann@example.com".into()), "{typed}");
        }
        assert_eq!(Email::parse("a@bücher.example").unwrap().key(), "a@xn--bcher-kva.example");
        assert_eq!(Email::parse("a@1.2.3.4.example").unwrap().key(), "a@1.2.3.4.example");
        assert_eq!(Email::parse("Ann@Example.com").unwrap().address(), "Ann@example.com");
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        let long = format!("{}@example.com", "a".repeat(250));
        for typed in [
            "",
            "@",
            "ann",
            "ann@",
            "@example.com",
            "ann@localhost",
            "a b@example.com",
            "\"a b\"@example.com",
            "ann@exa mple.com",
            "ann@example.com\nbcc: bob@example.com",
            "ann@-example.com",
            "ann@example..com",
            "a@b@c.com",
            "ann@[127.0.0.1]",
            "ann@1.2.3.4",
            "ann@１.２.３.４",
            "ann@example.123",
            &long,
        ] {
            assert!(Email::parse(typed).is_err(), "{typed:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_and_a_key_is_its_own_key(text in ".{0,80}") {
            if let Ok(email) = Email::parse(&text) {
                prop_assert!(!email.address().contains(char::is_control));
                prop_assert_eq!(Email::parse(email.key()).map(|again| again.key), Ok(email.key));
            }
        }
    }
}
