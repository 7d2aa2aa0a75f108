//! Hashes of a fixed length.

use aws_lc_rs::{
    digest::{self, SHA256},
    hmac,
};

/// SHA-256.
pub fn sha256(data: &[u8]) -> [u8; 32] {
    copied(digest::digest(&SHA256, data).as_ref())
}

/// HMAC-SHA-256: a hash that only the owner of `key` can make.
pub fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    copied(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref())
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // Writing to a string cannot fail.
        text
    })
}

/// What SHA-256 gives always has 32 bytes. Anything else would be stored as somebody's secret, so there is no way to
/// go on.
fn copied(bytes: &[u8]) -> [u8; 32] {
    bytes.try_into().unwrap_or_else(|_| std::process::abort())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_the_published_ones() {
        // FIPS 180-4 and RFC 4231, test case 2.
        assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(
            hex(&hmac_sha256(b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
