//! Whether a notice was signed with one of our secrets, and lately.
//!
//! `Stripe-Signature: t=UNIX,v1=HEX[,v1=HEX…][,v0=HEX]` is an HMAC-SHA-256 of `t`, a point and the raw body, keyed with the
//! whole secret as text. Only `v1` counts, and any one of them: while a secret is replaced there is one for each. Stripe's own
//! libraries take times in the future and the first of several `t`; here neither passes.

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use crate::platform::{
    digest::{hex, hmac_sha256},
    seal::equal,
};

/// How far a signature's time may be from ours, either way, in seconds.
const TOLERANCE: u64 = 300;
/// The most signatures of one notice that are looked at. Each costs a hash for each secret.
const MAX_SIGNATURES: usize = 16;
/// The most digits of a time.
const MAX_DIGITS: usize = 15;

/// Judges a header's value over a body.
///
/// # Errors
///
/// What is wrong with it, for the log.
pub fn check(
    header: &[u8],
    body: &[u8],
    secrets: &[SecretString],
    now: Timestamp,
) -> Result<(), &'static str> {
    let header = std::str::from_utf8(header).map_err(|_| "the signature's header is not text")?;
    let (time, signatures) = parts(header)?;
    if !is_signed(time, &signatures, body, secrets) {
        return Err("no signature is right");
    }
    let time: i64 = time.parse().map_err(|_| "the signature's time is no number")?;
    if now.as_second().abs_diff(time) > TOLERANCE {
        return Err("the signature's time is too far from ours");
    }
    Ok(())
}

/// The time as it is written, and the signatures that count.
fn parts(header: &str) -> Result<(&str, Vec<&str>), &'static str> {
    let mut time = None;
    let mut signatures = Vec::new();
    for (name, value) in header.split(',').filter_map(|part| part.split_once('=')) {
        match name {
            "t" if time.is_some() => return Err("the signature has two times"),
            "t" => time = Some(value),
            "v1" if signatures.len() == MAX_SIGNATURES => return Err("there are too many signatures"),
            "v1" => signatures.push(value),
            _ => {}
        }
    }
    let time = time.ok_or("the signature has no time")?;
    if time.is_empty() || time.len() > MAX_DIGITS || !time.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err("the signature's time is no number");
    }
    Ok((time, signatures))
}

/// Whether any secret makes any of the signatures. All are compared, whichever is right.
fn is_signed(time: &str, signatures: &[&str], body: &[u8], secrets: &[SecretString]) -> bool {
    let signed = [time.as_bytes(), b".", body].concat();
    let mut found = false;
    // Everybody knows what an empty secret signs.
    for secret in secrets.iter().map(|secret| secret.expose_secret()).filter(|secret| !secret.is_empty()) {
        let expected = hex(&hmac_sha256(secret.as_bytes(), &signed));
        for signature in signatures {
            found |= equal(expected.as_bytes(), signature.as_bytes());
        }
    }
    found
}

/// The header that Stripe would send, for the tests of what reads notices.
#[cfg(test)]
pub fn header(secret: &str, time: i64, body: &[u8]) -> String {
    let signed = [time.to_string().as_bytes(), b".", body].concat();
    format!("t={time},v1={}", hex(&hmac_sha256(secret.as_bytes(), &signed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::digest::sha256;
    use proptest::prelude::*;

    // Signed by both official SDKs (PyPI stripe 16.1.0, npm stripe 23.1.0).
    const SECRET: &str = "whsec_test_secret";
    const OLD_SECRET: &str = "whsec_old_secret";
    const TIME: i64 = 1_760_000_000;
    const BODY: &str = r#"{"id":"evt_1","object":"event","api_version":"2026-10-28.endive","created":1760000000,"type":"customer.subscription.updated","data":{"object":{"id":"sub_1","object":"subscription","customer":"cus_1","status":"active"}}}"#;
    const V1: &str = "3e2167f1dc68bb5efc691201d5ee3d444d33d9461c1fa22bc97f1db41bffd901";
    const OLD_V1: &str = "fea63927a12dc53216f350e4f534f045a8b8b1a1041fc1fffc6733d3de138efe";

    fn judged(header: &str, body: &str, secrets: &[&str], now: i64) -> Result<(), &'static str> {
        let secrets: Vec<_> = secrets.iter().map(|secret| SecretString::from(*secret)).collect();
        check(header.as_bytes(), body.as_bytes(), &secrets, Timestamp::from_second(now).unwrap())
    }

    #[test]
    fn the_measured_vectors_are_right() {
        assert_eq!(BODY.len(), 219);
        assert_eq!(
            hex(&sha256(BODY.as_bytes())),
            "e7b3a1ee6bdcc8726a226288a2940c6a929ec444616360b549f20362d2a87ef9"
        );
        assert_eq!(header(SECRET, TIME, BODY.as_bytes()), format!("t={TIME},v1={V1}"));
        assert_eq!(header(OLD_SECRET, TIME, BODY.as_bytes()), format!("t={TIME},v1={OLD_V1}"));

        let note = "{\"note\":\"café 💜\"}";
        let v1 = "cd554c74ef2a0b155a255eede9fc6592f4af5300b034c3b1231ec8f1401976d6";
        assert_eq!(judged(&format!("t=1760000001,v1={v1}"), note, &[SECRET], TIME), Ok(()));
    }

    #[test]
    fn any_right_signature_of_any_secret_is_enough() {
        for (header, secrets) in [
            (format!("t={TIME},v1={V1}"), &[SECRET][..]),
            (format!("v1={V1},t={TIME}"), &[SECRET]),
            (format!("t={TIME},v1={OLD_V1},v1={V1}"), &[SECRET]),
            (format!("t={TIME},v1={},v1={V1},v0=x,new=1,,=", "0".repeat(64)), &[SECRET]),
            (format!("t={TIME},v1={V1}"), &[OLD_SECRET, SECRET]),
            (format!("t={TIME},v1={OLD_V1}"), &[SECRET, OLD_SECRET]),
            (format!("t={TIME}{},v1={V1}", ",v1=0".repeat(15)), &[SECRET]),
        ] {
            assert_eq!(judged(&header, BODY, secrets, TIME), Ok(()), "{header}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let standard_webhooks = "v1,OzTg4O9YfZvGw1cxRzHK15N8VCZ+qyspwUJepn7B22g=";
        for header in [
            String::new(),
            format!("t={TIME}"),
            format!("v1={V1}"),
            format!("t={TIME},v0={V1}"),
            format!("t={TIME}, v1={V1}"),
            format!("t={TIME},v1={}", V1.to_uppercase()),
            format!("t={TIME},v1={}", &V1[..63]),
            format!("t={TIME},v1={V1}0"),
            format!("t={TIME},v1="),
            format!("t={TIME},v1={OLD_V1}"),
            format!("t={TIME},t={TIME},v1={V1}"),
            format!("t={TIME},t=1,v1={V1}"),
            format!("t=+{TIME},v1={V1}"),
            format!("t=0{TIME},v1={V1}"),
            format!("t=,v1={V1}"),
            format!("t=99999999999999999999,v1={V1}"),
            format!("t={TIME}{},v1={V1}", ",v1=0".repeat(16)),
            format!("t={TIME},{standard_webhooks}"),
        ] {
            assert!(judged(&header, BODY, &[SECRET], TIME).is_err(), "{header}");
        }
        let right = format!("t={TIME},v1={V1}");
        assert!(judged(&right, BODY, &[], TIME).is_err(), "no secret");
        assert!(judged(&right, &BODY.replace("evt_1", "evt_2"), &[SECRET], TIME).is_err(), "another body");
        let unkeyed = header("", TIME, BODY.as_bytes());
        assert!(judged(&unkeyed, BODY, &["", SECRET], TIME).is_err(), "an empty secret");
    }

    #[test]
    fn a_signature_counts_for_five_minutes_either_way() {
        let right = format!("t={TIME},v1={V1}");
        for (now, counts) in [(0, true), (300, true), (301, false), (-300, true), (-301, false)] {
            assert_eq!(judged(&right, BODY, &[SECRET], TIME + now).is_ok(), counts, "{now}");
        }
    }

    proptest! {
        #[test]
        fn one_changed_byte_anywhere_is_noticed(
            body: Vec<u8>, secret in "whsec_[a-zA-Z0-9]{1,40}", part in 0usize..3, at: prop::sample::Index, flip in 1u8..
        ) {
            let now = Timestamp::from_second(TIME).unwrap();
            let mut parts = [header(&secret, TIME, &body).into_bytes(), body, secret.into_bytes()];
            let judge = |[header, body, secret]: &[Vec<u8>; 3]| {
                let secret = SecretString::from(String::from_utf8_lossy(secret).into_owned());
                check(header, body, &[secret], now)
            };
            prop_assert_eq!(judge(&parts), Ok(()));

            let changed = &mut parts[part];
            if !changed.is_empty() {
                let at = at.index(changed.len());
                changed[at] ^= flip;
                prop_assert!(judge(&parts).is_err());
            }
        }

        #[test]
        fn any_header_is_judged(header: Vec<u8>, body: Vec<u8>) {
            let secrets = [SecretString::from(SECRET)];
            prop_assert!(check(&header, &body, &secrets, Timestamp::from_second(TIME).unwrap()).is_err());
        }
    }
}
