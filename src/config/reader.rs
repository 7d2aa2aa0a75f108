//! Reads typed values out of the layers and collects every fault, so that an operator mends them in one go.

use std::{
    collections::BTreeSet, fmt::Display, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration,
};

use secrecy::SecretString;
use toml::Value;
use url::Url;

use super::{
    Fault,
    layers::{Origin, Setting, Settings},
};
use crate::platform::proxies::Network;

/// Reads settings and remembers which were asked for: what is left over is unknown.
pub struct Reader {
    settings: Settings,
    asked: BTreeSet<String>,
    faults: Vec<Fault>,
}

impl Reader {
    /// Reads from `settings`; `faults` are those that were found on the way.
    pub fn new(settings: Settings, faults: Vec<Fault>) -> Reader {
        Reader { settings, asked: BTreeSet::new(), faults }
    }

    /// Ends reading: names what nobody asked for.
    pub fn finish(mut self) -> Vec<Fault> {
        for (key, setting) in &self.settings {
            if !self.asked.contains(key) {
                self.faults.push(Fault::new(name(key, setting), "is not a setting".into()));
            }
        }
        self.faults
    }

    /// Notes a fault that concerns a setting as a whole.
    pub fn fault(&mut self, key: &str, what: impl Into<String>) {
        let name = self.settings.get(key).map_or_else(|| variable(key), |setting| name(key, setting));
        self.faults.push(Fault::new(name, what.into()));
    }

    /// The names of the tables below `prefix`, such as those of providers.
    pub fn names_below(&self, prefix: &str) -> Vec<String> {
        let below = format!("{prefix}.");
        let names: BTreeSet<&str> = self
            .settings
            .keys()
            .filter_map(|key| key.strip_prefix(&below))
            .filter_map(|rest| rest.split_once('.').map(|(name, _)| name))
            .collect();
        names.into_iter().map(str::to_owned).collect()
    }

    /// The names of the settings right below `prefix`, such as prices by provider.
    pub fn keys_below(&self, prefix: &str) -> Vec<String> {
        let below = format!("{prefix}.");
        let rest = self.settings.keys().filter_map(|key| key.strip_prefix(&below));
        rest.filter(|rest| !rest.contains('.')).map(str::to_owned).collect()
    }

    /// Passes over a table that cannot be understood: what is in it is not to be called unknown.
    pub fn pass_over(&mut self, table: &str) {
        let below = format!("{table}.");
        self.asked.extend(self.settings.keys().filter(|key| key.starts_with(&below)).cloned());
    }

    /// Whether a setting that need not be there says something.
    pub fn has(&mut self, key: &str) -> bool {
        self.ask(key).is_some_and(|setting| setting.value.as_str().is_none_or(|text| !text.trim().is_empty()))
    }

    fn ask(&mut self, key: &str) -> Option<Setting> {
        self.asked.insert(key.to_owned());
        self.settings.get(key).cloned()
    }

    /// A value that is there by default, read by `parse`; the message of a failure shows what was given.
    fn get<T>(&mut self, key: &str, parse: impl Fn(&Value) -> Result<T, String>) -> Option<T> {
        let Some(setting) = self.ask(key) else {
            self.fault(key, "is missing");
            return None;
        };
        match parse(&setting.value) {
            Ok(value) => Some(value),
            Err(expected) => {
                let given = shown(&setting.value);
                self.faults.push(Fault::new(name(key, &setting), format!("is {given}; {expected}")));
                None
            }
        }
    }

    /// Text; may be empty.
    pub fn text(&mut self, key: &str) -> Option<String> {
        self.get(key, |value| {
            value.as_str().map(|text| text.trim().to_owned()).ok_or("text is needed".into())
        })
    }

    /// Text that has to be there.
    pub fn needed_text(&mut self, key: &str) -> Option<String> {
        let text = self.text(key)?;
        if text.is_empty() {
            self.fault(key, "is missing");
            return None;
        }
        Some(text)
    }

    /// Text, or nothing where it is empty.
    pub fn optional_text(&mut self, key: &str) -> Option<Option<String>> {
        self.text(key).map(|text| (!text.is_empty()).then_some(text))
    }

    /// One of a few names.
    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let names = choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        self.get(key, |value| {
            let found = value.as_str().and_then(|text| choices.iter().find(|(name, _)| *name == text.trim()));
            found.map(|(_, choice)| *choice).ok_or_else(|| format!("one of {names} is needed"))
        })
    }

    /// Yes or no.
    pub fn flag(&mut self, key: &str) -> Option<bool> {
        self.get(key, |value| match value {
            Value::Boolean(flag) => Ok(*flag),
            Value::String(text) if text.trim() == "true" => Ok(true),
            Value::String(text) if text.trim() == "false" => Ok(false),
            _ => Err("true or false is needed".into()),
        })
    }

    /// Yes or no; no where it is not there.
    pub fn optional_flag(&mut self, key: &str) -> Option<bool> {
        if !self.settings.contains_key(key) {
            return Some(false);
        }
        self.flag(key)
    }

    /// A whole number within bounds.
    pub fn number<T>(&mut self, key: &str, least: T, most: T) -> Option<T>
    where
        T: TryFrom<i64> + PartialOrd + Display + Copy,
    {
        self.get(key, |value| {
            let number = match value {
                Value::Integer(number) => Some(*number),
                Value::String(text) => text.trim().parse().ok(),
                _ => None,
            };
            let number = number.and_then(|number| T::try_from(number).ok());
            number
                .filter(|number| (least..=most).contains(number))
                .ok_or_else(|| format!("a whole number from {least} to {most} is needed"))
        })
    }

    /// A duration above zero.
    pub fn duration(&mut self, key: &str) -> Option<Duration> {
        let read = |value: &Value| value.as_str().and_then(duration).filter(|duration| !duration.is_zero());
        self.get(key, |value| read(value).ok_or("a duration such as 10m, 45s or 14d is needed".into()))
    }

    /// A duration that may be zero.
    pub fn pause(&mut self, key: &str) -> Option<Duration> {
        let read = |value: &Value| value.as_str().and_then(duration);
        self.get(key, |value| read(value).ok_or("a duration such as 45ms is needed".into()))
    }

    /// A list: in a file as such, or with commas.
    pub fn list(&mut self, key: &str) -> Option<Vec<String>> {
        self.get(key, |value| match value {
            Value::Array(items) => {
                let texts = items.iter().map(|item| item.as_str().map(|text| text.trim().to_owned()));
                texts.collect::<Option<Vec<_>>>().ok_or("a list of texts is needed".into())
            }
            Value::String(text) => Ok(text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty())
                .map(str::to_owned)
                .collect()),
            _ => Err("a list is needed".into()),
        })
    }

    /// An address to listen at.
    pub fn address(&mut self, key: &str) -> Option<SocketAddr> {
        self.parsed(key, "an address such as 127.0.0.1:8080 is needed")
    }

    /// An address to listen at, or nothing where it is empty.
    pub fn optional_address(&mut self, key: &str) -> Option<Option<SocketAddr>> {
        if self.settings.get(key).is_some_and(|setting| setting.value.as_str() == Some("")) {
            self.asked.insert(key.to_owned());
            return Some(None);
        }
        self.address(key).map(Some)
    }

    /// A list of networks.
    pub fn networks(&mut self, key: &str) -> Option<Vec<Network>> {
        let mut networks = Vec::new();
        for text in self.list(key)? {
            if let Ok(network) = text.parse() {
                networks.push(network);
            } else {
                self.fault(
                    key,
                    format!("has “{text}”; a network such as 10.0.0.0/8 or an address is needed"),
                );
                return None;
            }
        }
        Some(networks)
    }

    /// An http or https address without user, query or fragment.
    pub fn url(&mut self, key: &str) -> Option<Url> {
        self.get(key, |value| {
            let url = value.as_str().and_then(|text| Url::parse(text.trim()).ok());
            url.filter(is_plain).ok_or("an address such as https://api.example.com is needed".into())
        })
    }

    /// As [`Reader::url`], but its query may hold `api-version`, which Azure wants. Anything else there may be a key.
    pub fn provider_url(&mut self, key: &str) -> Option<Url> {
        self.get(key, |value| {
            let url = value.as_str().and_then(|text| Url::parse(text.trim()).ok());
            let without_version = |url: &Url| {
                let mut url = url.clone();
                if url.query_pairs().all(|(name, _)| name == "api-version") {
                    url.set_query(None);
                }
                url
            };
            url.filter(|url| is_plain(&without_version(url)))
                .ok_or("an address such as https://api.example.com/v1 is needed".into())
        })
    }

    /// As [`Reader::url`], for a page that people are sent to: it may have a query.
    pub fn page_url(&mut self, key: &str) -> Option<Url> {
        self.get(key, |value| {
            let url = value.as_str().and_then(|text| Url::parse(text.trim()).ok());
            let without_query = |url: &Url| {
                let mut url = url.clone();
                url.set_query(None);
                url
            };
            url.filter(|url| is_plain(&without_query(url)))
                .ok_or("an address such as https://pay.example.com/join is needed".into())
        })
    }

    /// As [`Reader::url`], or nothing where it is empty.
    pub fn optional_url(&mut self, key: &str) -> Option<Option<Url>> {
        if self.settings.get(key).is_some_and(|setting| setting.value.as_str() == Some("")) {
            self.asked.insert(key.to_owned());
            return Some(None);
        }
        self.url(key).map(Some)
    }

    /// Where people can be reached: a mailbox or a page. Nothing where it is empty.
    pub fn contact(&mut self, key: &str) -> Option<Option<Url>> {
        let text = self.optional_text(key)?;
        let Some(text) = text else { return Some(None) };
        let url = Url::parse(&text).ok().filter(|url| match url.scheme() {
            "mailto" => {
                url.path().split_once('@').is_some_and(|(name, host)| !name.is_empty() && !host.is_empty())
            }
            "https" => url.username().is_empty() && url.password().is_none(),
            _ => false,
        });
        if url.is_none() {
            self.fault(key, format!("is “{text}”; mailto:security@example.com or an https page is needed"));
        }
        url.map(Some)
    }

    fn parsed<T: FromStr>(&mut self, key: &str, expected: &str) -> Option<T> {
        self.get(key, |value| {
            value.as_str().and_then(|text| text.trim().parse().ok()).ok_or_else(|| expected.to_owned())
        })
    }

    /// A path, or nothing where it is empty.
    pub fn optional_path(&mut self, key: &str) -> Option<Option<PathBuf>> {
        self.optional_text(key).map(|text| text.map(PathBuf::from))
    }

    /// A secret, given as such or as the path of a file in `KEY_file`. Never shown. `None` where it is empty.
    pub fn secret(&mut self, key: &str) -> Option<Option<SecretString>> {
        let given = self.ask(key);
        let file_key = format!("{key}_file");
        let file = self.ask(&file_key);
        let direct = match given.as_ref().map(|setting| setting.value.as_str()) {
            Some(None) => {
                self.fault(key, "is not text");
                return None;
            }
            Some(Some(text)) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
            None => None,
        };
        match (direct, file) {
            (Some(_), Some(_)) => {
                self.fault(&file_key, format!("and {} are both set", variable(key)));
                None
            }
            (Some(text), None) => Some(Some(SecretString::from(text))),
            (None, Some(file)) => match std::fs::read_to_string(file.value.as_str().unwrap_or_default()) {
                Ok(text) => Some(Some(SecretString::from(text.trim().to_owned()))),
                Err(error) => {
                    self.fault(&file_key, format!("names a file that cannot be read: {error}"));
                    None
                }
            },
            (None, None) => Some(None),
        }
    }
}

/// An address that leaks nothing when it is shown.
fn is_plain(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

/// The name under which an operator knows a setting: the key in a file of theirs, else the variable that sets it.
fn name(key: &str, setting: &Setting) -> String {
    match &setting.origin {
        Origin::BuiltIn => variable(key),
        Origin::File(path) => format!("{key} ({})", path.display()),
        Origin::Variable(name) => name.clone(),
    }
}

/// The variable that sets a key.
fn variable(key: &str) -> String {
    format!("DM__{}", key.replace('.', "__").to_ascii_uppercase())
}

/// A value as a fault shows it. Of an address only its origin: the rest may be a password or a key.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.trim().is_empty() => "empty".into(),
        Value::String(text) if text.contains("://") => {
            match Url::parse(text.trim()).map(|url| url.origin()) {
                Ok(origin) if origin.is_tuple() => format!("“{}…”", origin.ascii_serialization()),
                _ => "an address that cannot be read".into(),
            }
        }
        Value::String(text) => format!("“{}”", text.chars().take(80).collect::<String>()),
        value => value.to_string(),
    }
}

/// Reads `1h30m`: numbers with units ms, s, m, h, d.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit())?)?;
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let number: u64 = number.parse().ok()?;
        let part = match unit {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number.checked_mul(60)?),
            "h" => Duration::from_secs(number.checked_mul(3600)?),
            "d" => Duration::from_secs(number.checked_mul(86_400)?),
            _ => return None,
        };
        total = total.checked_add(part)?;
        rest = after;
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_units() {
        for (text, seconds) in
            [("10m", 600), ("45s", 45), ("14d", 1_209_600), ("1h30m", 5400), ("0s", 0), (" 2s ", 2)]
        {
            assert_eq!(duration(text), Some(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(duration("1s500ms"), Some(Duration::from_millis(1500)));
        for text in
            ["", "10", "m", "-1s", "1.5s", "1y", "10 m", "99999999999999999999s", "18446744073709551615d"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
