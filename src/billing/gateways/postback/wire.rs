//! The wire of postbacks: parameters, and the signature over them.
//!
//! What is signed is the text `secret:k=v:k=v…`, keys sorted, hashed once with SHA-256. Such a signature has two weaknesses,
//! and whoever buys sees one, in the address of the checkout:
//!
//! - The text can be cut in more than one way if a value may hold `:`. `a=1:b=2` is two parameters, or one with the value
//!   `1:b=2`, under the same signature.
//! - The hash can be continued. From that of a text follows that of the text, its padding and anything after it, without
//!   the secret. The padding would stand in a value: a byte 0x80, which is not UTF-8 behind what we sign, zeros, and a
//!   length.
//!
//! So nothing is read, and nothing is signed, that has a `:` or a control character in a value or is not UTF-8, and names
//! are plain words. Among what is left a text can be cut in one way only, and no padding has a place in it.

use std::collections::BTreeMap;

use percent_encoding::percent_decode;
use secrecy::{ExposeSecret as _, SecretString};

use crate::platform::{
    digest::{hex, sha256},
    seal::equal,
};

/// The parameter that signs the others.
pub const SIGNATURE: &str = "signature";
/// The largest text of parameters.
const MAX_TEXT: usize = 64 * 1024;
/// The most parameters.
const MAX_PARAMETERS: usize = 64;
/// The longest name, in bytes.
const MAX_NAME: usize = 64;
/// The longest value, in bytes.
const MAX_VALUE: usize = 512;

/// Parameters that can be signed, without their signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// Reads a query string or form, and the signature that it carries. The error says what is wrong with it and nothing
    /// of what it holds.
    pub fn read(text: &[u8]) -> Result<(Parameters, String), &'static str> {
        if text.len() > MAX_TEXT {
            return Err("it is too large");
        }
        let mut parameters = Parameters::default();
        for pair in text.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty()) {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let (name, value) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
            parameters.add(decoded(name)?, decoded(value)?)?;
        }
        let signature = parameters.0.remove(SIGNATURE).ok_or("it has no signature")?;
        Ok((parameters, signature))
    }

    /// Adds a parameter. The error says why it cannot be one.
    pub fn add(&mut self, name: String, value: String) -> Result<(), &'static str> {
        if self.0.len() == MAX_PARAMETERS {
            return Err("it has too many parameters");
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(plain) {
            return Err("a name has characters that names cannot have");
        }
        if value.len() > MAX_VALUE {
            return Err("a value is too long");
        }
        if value.chars().any(|c| c == ':' || c.is_control()) {
            return Err("a value has characters that would make the signature ambiguous");
        }
        // Readers differ on which of two counts.
        if self.0.insert(name, value).is_some() { Err("a parameter is there twice") } else { Ok(()) }
    }

    /// A parameter. One that is there and empty says nothing: providers fill in templates.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The signature under one secret.
    pub fn sign(&self, secret: &SecretString) -> String {
        hex(&sha256(format!("{}:{}", secret.expose_secret(), self.text()).as_bytes()))
    }

    /// Whether a signature was made with one of the secrets. Each is tried, so that the time does not tell which.
    pub fn are_signed(&self, signature: &str, secrets: &[SecretString]) -> bool {
        let matches = |secret| equal(self.sign(secret).as_bytes(), signature.as_bytes());
        secrets.iter().fold(false, |found, secret| matches(secret) | found)
    }

    /// What tells these parameters from all others, whoever signed them.
    pub fn key(&self) -> String {
        hex(&sha256(self.text().as_bytes()))
    }

    /// The parameters as a form, signed.
    pub fn signed_form(&self, secret: &SecretString) -> String {
        let signature = self.sign(secret);
        let pairs = self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs.chain([(SIGNATURE, signature.as_str())]))
            .finish()
    }

    fn text(&self) -> String {
        self.0.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(":")
    }
}

/// Decodes one name or value of a form. Unlike the usual decoder it puts nothing in the place of what is not UTF-8.
fn decoded(text: &[u8]) -> Result<String, &'static str> {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    match percent_decode(&spaced).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err("it is not UTF-8"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        let mut parameters = Parameters::default();
        for (name, value) in pairs {
            parameters.add((*name).to_owned(), (*value).to_owned()).unwrap();
        }
        parameters
    }

    #[test]
    fn the_signature_is_the_published_one() {
        // printf 'S3cret:event=cancel:note=a b=c:sale_id=s-1' | sha256sum
        let signed = parameters(&[("sale_id", "s-1"), ("event", "cancel"), ("note", "a b=c")]);
        let secret = SecretString::from("S3cret");
        let signature = "49fb9143fc5f4a8518aca4ccb7f8694742e0edaefdea557b52bb2766d7748bb4";
        assert_eq!(signed.sign(&secret), signature);
        assert!(signed.are_signed(signature, &["old".into(), secret.clone()]));
        assert!(signed.are_signed(signature, &[secret.clone(), "new".into()]));
        for wrong in ["", "00", &signature.to_uppercase(), &format!("{signature}0")] {
            assert!(!signed.are_signed(wrong, std::slice::from_ref(&secret)), "{wrong}");
        }
        assert!(!signed.are_signed(signature, &["old".into()]) && !signed.are_signed(signature, &[]));
    }

    #[test]
    fn forms_are_read_strictly() {
        let (read, signature) = Parameters::read(b"b=2+%C3%BC%3d&&a=&signature=ab").unwrap();
        assert_eq!((read.get("a"), read.get("b"), signature.as_str()), (None, Some("2 ü="), "ab"));
        assert_eq!(read, parameters(&[("a", ""), ("b", "2 ü=")]));

        let many = |count: usize| (0..count).map(|n| format!("p{n}=1&")).collect::<String>();
        let long = "v".repeat(MAX_VALUE);
        assert!(Parameters::read(format!("{}signature=x", many(63)).as_bytes()).is_ok());
        assert!(Parameters::read(format!("a={long}&signature=x").as_bytes()).is_ok());
        for (text, complaint) in [
            ("", "no signature"),
            ("a=1", "no signature"),
            ("a=1&a=1&signature=x", "twice"),
            ("a=1&%61=2&signature=x", "twice"),
            ("signature=x&signature=y", "twice"),
            ("A=1&signature=x", "name"),
            ("=1&signature=x", "name"),
            ("a-b=1&signature=x", "name"),
            ("a%3Ab=1&signature=x", "name"),
            ("a%3Db=1&signature=x", "name"),
            (&format!("{}=1&signature=x", "n".repeat(65)), "name"),
            ("a=1:b&signature=x", "ambiguous"),
            ("a=1%3ab&signature=x", "ambiguous"),
            ("a=%00&signature=x", "ambiguous"),
            ("a=1%0A&signature=x", "ambiguous"),
            ("a=%7F&signature=x", "ambiguous"),
            ("a=%C2%80&signature=x", "ambiguous"),
            ("a=%80&signature=x", "UTF-8"),
            ("a=%C3&signature=x", "UTF-8"),
            (&format!("a={long}v&signature=x"), "too long"),
            (&format!("{}signature=x", many(64)), "too many"),
            (&format!("signature=x{}", "&".repeat(MAX_TEXT)), "too large"),
        ] {
            let error = Parameters::read(text.as_bytes()).unwrap_err();
            assert!(error.contains(complaint), "{text:.80}: {error}");
        }
    }

    /// Pairs as somebody would sign who does not look at them.
    fn carelessly_signed(secret: &str, pairs: &[(&str, &str)]) -> String {
        let mut pairs = pairs.to_vec();
        pairs.sort_unstable();
        let text: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        hex(&sha256(format!("{secret}:{}", text.join(":")).as_bytes()))
    }

    fn form(pairs: &[(&str, &str)], signature: &str) -> String {
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .append_pair(SIGNATURE, signature)
            .finish()
    }

    #[test]
    fn a_signed_text_is_not_cut_anew() {
        // The expiry of a sale becomes that of another one: the sale that it was about vanishes into a note.
        let genuine = [("at", "1"), ("event", "expiry"), ("note", "x"), ("sale_id", "mine")];
        let forged = [("at", "1"), ("event", "expiry"), ("note", "x:sale_id=mine")];
        let signature = carelessly_signed("secret", &genuine);
        assert_eq!(signature, carelessly_signed("secret", &forged), "the attack is real");
        assert_eq!(signature, parameters(&genuine).sign(&"secret".into()));

        assert!(Parameters::read(form(&genuine, &signature).as_bytes()).is_ok());
        let refused = Parameters::read(form(&forged, &signature).as_bytes()).unwrap_err();
        assert!(refused.contains("ambiguous"), "{refused}");
    }

    proptest! {
        #[test]
        fn one_text_has_one_reading(
            one in prop::collection::btree_map("[ab_]{1,2}", "[ab=_ ]{0,6}", 0..4),
            other in prop::collection::btree_map("[ab_]{1,2}", "[ab=_ ]{0,6}", 0..4),
        ) {
            let (one, other) = (Parameters(one), Parameters(other));
            prop_assert_eq!(one == other, one.text() == other.text());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = Parameters::read(&bytes);
        }

        #[test]
        fn what_is_sent_is_what_is_read(
            pairs in prop::collection::btree_map("[a-z0-9_]{1,8}", "[^:\\p{Cc}]{0,20}", 0..8),
        ) {
            let (sent, secret) = (Parameters(pairs), SecretString::from("secret"));
            prop_assume!(!sent.0.contains_key(SIGNATURE));
            let (read, signature) = Parameters::read(sent.signed_form(&secret).as_bytes()).unwrap();
            prop_assert!(read.are_signed(&signature, &[secret]));
            prop_assert_eq!(read, sent);
        }
    }
}
