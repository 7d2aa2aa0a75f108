//! Parameters as Stripe's own SDKs write them, in bodies and in queries alike.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What is escaped. Brackets stay as they are, for readability: the server takes both.
const ESCAPED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'[').remove(b']');

/// Parameters in the order in which they were added: `a=1&b[c]=2&d[0]=3`.
#[derive(Clone, Default)]
pub struct Form(String);

impl Form {
    /// Adds a parameter.
    pub fn with(mut self, name: &str, value: &str) -> Form {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(&escaped(name));
        self.0.push('=');
        self.0.push_str(&escaped(value));
        self
    }

    /// Adds a list.
    pub fn with_list(self, name: &str, values: &[&str]) -> Form {
        let numbered = values.iter().enumerate();
        numbered.fold(self, |form, (number, value)| form.with(&format!("{name}[{number}]"), value))
    }

    /// As it is sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn escaped(text: &str) -> Cow<'_, str> {
    utf8_percent_encode(text, ESCAPED).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_written_as_the_sdks_write_them() {
        let form = Form::default()
            .with("metadata[user_id]", "u_1")
            .with_list("expand", &["customer", "refunds"])
            .with("url", "https://a.example/b?c={ID}&d=e+f g~h!i*j(k)l'm")
            .with("note", "café [1]")
            .with("empty", "");
        assert_eq!(
            form.as_str(),
            "metadata[user_id]=u_1&expand[0]=customer&expand[1]=refunds\
             &url=https%3A%2F%2Fa.example%2Fb%3Fc%3D%7BID%7D%26d%3De%2Bf%20g~h%21i%2Aj%28k%29l%27m\
             &note=caf%C3%A9%20[1]&empty="
        );
        assert_eq!(Form::default().as_str(), "");
    }
}
