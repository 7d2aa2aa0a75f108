//! Cookies of a request.

use axum::http::{HeaderMap, header};

/// The first cookie of this name, however many headers there are. What cannot be read is not there.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(found, value)| (found.trim() == name).then(|| value.trim()))
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
            assert_eq!(cookie(&headers, name), value, "{name}");
        }
    }
}
