//! Rules that several fields share.

use super::problem::Invalid;

/// Reads a short text of one line, such as a name: trimmed, not empty, of at most `max` characters.
pub fn single_line(text: &str, max: usize) -> Result<String, Invalid> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Invalid::new(
            "too_short",
            "At least one character is needed; leave it out or send `null`.",
        ));
    }
    if text.chars().count() > max {
        return Err(Invalid::new("too_long", format!("At most {max} characters are possible.")));
    }
    // Line and paragraph separators are not control characters and end a line all the same.
    if text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        return Err(Invalid::new("invalid_format", "One line without control characters is possible."));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_trimmed_and_judged() {
        assert_eq!(single_line("  Ann's phone 😀 ", 20), Ok("Ann's phone 😀".into()));
        assert_eq!(single_line("äöü", 3), Ok("äöü".into()), "characters, not bytes");
        for (text, code) in [
            ("", "too_short"),
            (" \t\n", "too_short"),
            ("four", "too_long"),
            ("a\nb", "invalid_format"),
            ("a\u{2028}b", "invalid_format"),
            ("a\u{0}b", "invalid_format"),
        ] {
            assert_eq!(single_line(text, 3).map_err(|invalid| invalid.code), Err(code), "{text:?}");
        }
    }
}
