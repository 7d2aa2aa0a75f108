//! Rules that several fields share.

use super::problem::Invalid;

/// Reads a short text of one line, such as a name: trimmed, not empty, of at most `max` characters, and not made to look
/// like something else.
pub fn single_line(text: &str, max: usize) -> Result<String, Invalid> {
    let text = text.trim();
    if text.chars().all(is_invisible) {
        return Err(Invalid::new(
            "too_short",
            "At least one character that can be seen is needed; leave it out or send `null`.",
        ));
    }
    if text.chars().count() > max {
        return Err(Invalid::new("too_long", format!("At most {max} characters are possible.")));
    }
    if text.chars().any(|c| c.is_control() || is_layout(c)) {
        return Err(Invalid::new("invalid_format", "One line without control characters is possible."));
    }
    Ok(text.to_owned())
}

/// What ends a line or turns its direction around without being a control character: line and paragraph separators, and
/// the embeddings, overrides and isolates of Unicode's bidirectional algorithm (UAX #9).
fn is_layout(c: char) -> bool {
    matches!(c, '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// What takes no place on a screen: emoji and some scripts need it between characters, but alone it is nothing.
fn is_invisible(c: char) -> bool {
    c.is_whitespace()
        || matches!(
            c,
            '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}'
        )
        || matches!(c, '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2060}'..='\u{206F}')
        || matches!(c, '\u{FE00}'..='\u{FE0F}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_trimmed_and_judged() {
        assert_eq!(single_line("  Ann's phone 😀 ", 20), Ok("Ann's phone 😀".into()));
        let family = "👩\u{200D}👧 نام\u{200C}ه";
        assert_eq!(single_line(family, 20), Ok(family.into()), "joiners are part of writing");
        assert_eq!(single_line("äöü", 3), Ok("äöü".into()), "characters, not bytes");
        for (text, code) in [
            ("", "too_short"),
            (" \t\n", "too_short"),
            ("four", "too_long"),
            ("a\nb", "invalid_format"),
            ("a\u{2028}b", "invalid_format"),
            ("a\u{202E}b", "invalid_format"),
            ("\u{2067}a", "invalid_format"),
            ("\u{200B}\u{FEFF}", "too_short"),
            ("a\u{0}b", "invalid_format"),
        ] {
            assert_eq!(single_line(text, 3).map_err(|invalid| invalid.code), Err(code), "{text:?}");
        }
    }
}
