//! Cookies: read from a request, set for a browser.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};

/// The cookies of this name, however many headers there are. One that is no text is not ours; one beside it may be.
pub fn cookies<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| str::from_utf8(pair).ok()?.split_once('='))
        .filter(move |(found, _)| found.trim() == name)
        .map(|(_, value)| value.trim())
}

/// Sets a cookie that no script can read and that goes to this host alone, from pages of the same site. `None` if no header
/// can carry the value.
pub fn set_cookie(name: &str, value: &str, max_age: Duration) -> Option<HeaderValue> {
    let seconds = max_age.as_secs();
    let text = format!("{name}={value}; HttpOnly; Secure; SameSite=Strict; Path=/; Max-Age={seconds}");
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let lines = ["a=1; __Host-b=x=y ; c", "xb=no;d=2"];
        let headers: HeaderMap =
            lines.into_iter().map(|line| (header::COOKIE, HeaderValue::from_static(line))).collect();
        for (name, value) in
            [("a", Some("1")), ("__Host-b", Some("x=y")), ("b", None), ("c", None), ("d", Some("2"))]
        {
            assert_eq!(cookies(&headers, name).next(), value, "{name}");
        }
    }
}
