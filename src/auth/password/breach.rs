//! Whether a password has become known elsewhere: a question to a service that knows breaches, in the way of Have I Been
//! Pwned. The service learns the first five hexadecimal digits of a SHA-1, which hundreds of known passwords share.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use reqwest::{Client, StatusCode};
use tokio::{sync::Semaphore, time::timeout};
use url::Url;
use zeroize::Zeroizing;

use super::Password;

/// Digits of a hash that the service gets.
const PREFIX: usize = 5;
/// Digits that it answers for each hash.
const SUFFIX: usize = 35;
/// The largest answer that is read, in bytes. Real ones are some 40 KiB.
const MAX_ANSWER: usize = 256 * 1024;
/// Questions at once. Who comes then is not kept waiting.
const MAX_QUESTIONS: usize = 16;

/// Asks a service that knows breaches.
#[derive(Clone)]
pub struct BreachCheck(Arc<Inner>);

struct Inner {
    url: String,
    client: Client,
    slots: Semaphore,
}

/// Why there was no answer, as the metric names it.
type Failure = &'static str;

impl BreachCheck {
    /// How long a question may take in all.
    pub const TIMEOUT: Duration = Duration::from_millis(500);

    /// Asks at `url`, to which a slash and the five digits are added.
    pub fn new(url: &Url, client: Client) -> BreachCheck {
        let url = url.as_str().trim_end_matches('/').to_owned();
        BreachCheck(Arc::new(Inner { url, client, slots: Semaphore::new(MAX_QUESTIONS) }))
    }

    /// Whether the service knows a password. Nobody is kept out because it did not answer: that shows in a metric.
    pub(super) async fn knows(&self, password: &Password) -> bool {
        let hash = sha1_hex(password);
        let Some((prefix, suffix)) = hash.split_at_checked(PREFIX) else { return false };
        let answer = match self.0.slots.try_acquire() {
            Ok(_slot) => timeout(Self::TIMEOUT, self.ask(prefix)).await.unwrap_or(Err("timeout")),
            Err(_) => Err("busy"),
        };
        match answer.and_then(|answer| find(&answer, suffix)) {
            Ok(known) => known,
            Err(reason) => {
                metrics::counter!("breach_check_failures_total", "reason" => reason).increment(1);
                tracing::warn!(
                    reason,
                    "a new password was accepted without asking whether it was in a breach"
                );
                false
            }
        }
    }

    async fn ask(&self, prefix: &str) -> Result<Vec<u8>, Failure> {
        let request = self.0.client.get(format!("{}/{prefix}", self.0.url));
        // With padding, the length of an answer does not tell which one it is.
        let sent = request.header("add-padding", "true").send().await;
        let mut response = sent.map_err(|_| "unreachable")?;
        if response.status() != StatusCode::OK {
            return Err("status");
        }
        let mut answer = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|_| "unreachable")? {
            if answer.len().saturating_add(piece.len()) > MAX_ANSWER {
                return Err("too_large");
            }
            answer.extend_from_slice(&piece);
        }
        Ok(answer)
    }
}

fn sha1_hex(password: &Password) -> Zeroizing<String> {
    let mut hex = Zeroizing::new(String::new());
    for byte in digest(&SHA1_FOR_LEGACY_USE_ONLY, password.expose().as_bytes()).as_ref() {
        // Writing into a text does not fail.
        let _ = write!(hex, "{byte:02X}");
    }
    hex
}

/// Looks for a hash in an answer: lines of 35 digits, a colon and how often it was seen. Padding was never seen.
fn find(answer: &[u8], suffix: &str) -> Result<bool, Failure> {
    let text = std::str::from_utf8(answer).map_err(|_| "garbage")?;
    let mut known = false;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (hash, count) = line.split_once(':').ok_or("garbage")?;
        let count: u64 = count.parse().map_err(|_| "garbage")?;
        if hash.len() != SUFFIX || !hash.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err("garbage");
        }
        known |= count > 0 && hash.eq_ignore_ascii_case(suffix);
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use secrecy::SecretString;

    /// The example of the service's own documents.
    #[test]
    fn a_known_password_is_found_and_padding_is_not() {
        let hash = sha1_hex(&Password::parse(&SecretString::from("password")).unwrap());
        assert_eq!(*hash, "5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8");
        let suffix = &hash[PREFIX..];
        let other = "0018A45C4D1DEF81644B54AB7F969B88D65";
        assert_eq!(find(format!("{other}:3\r\n{suffix}:10434004\r\n").as_bytes(), suffix), Ok(true));
        assert_eq!(find(format!("{suffix}:0\n{other}:3").as_bytes(), suffix), Ok(false));
        assert_eq!(find(b"", suffix), Ok(false));
        for garbage in ["<html>", "1:1", &format!("{suffix}:many"), suffix, "é:1"] {
            assert_eq!(find(garbage.as_bytes(), suffix), Err("garbage"), "{garbage}");
        }
        assert_eq!(find(b"\xff", suffix), Err("garbage"));
    }

    proptest! {
        #[test]
        fn any_answer_is_judged(answer: Vec<u8>) {
            let _ = find(&answer, "1E4C9B93F3F0682250B6CF8331B7EE68FD8");
        }
    }
}
