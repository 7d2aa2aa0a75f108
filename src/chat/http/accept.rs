//! Which form of a reply a caller accepts.

use axum::http::{HeaderMap, header};

use crate::platform::problem::{Code, Problem};

/// The forms of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is made.
    Stream,
    /// When it is whole.
    Json,
}

impl Form {
    /// The form that the caller accepts best; a stream if it does not care.
    pub(super) fn accepted(headers: &HeaderMap) -> Result<Form, Problem> {
        let accept: Vec<&str> =
            headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        let accept = accept.join(",");
        if accept.trim().is_empty() {
            return Ok(Form::Stream);
        }
        let stream = quality(&accept, "text/event-stream");
        let json = quality(&accept, "application/json");
        match (stream, json) {
            (0, 0) => {
                Err(Problem::new(Code::NotAcceptable, "Accept `text/event-stream` or `application/json`."))
            }
            _ if json > stream => Ok(Form::Json),
            _ => Ok(Form::Stream),
        }
    }
}

/// How much a media type is wanted, in thousandths (RFC 9110, 12.5.1). The most specific range decides.
fn quality(accept: &str, wanted: &str) -> u32 {
    let kind = wanted.split('/').next().unwrap_or_default();
    let mut best = (0, 0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let specificity = match name.as_str() {
            name if name == wanted => 3,
            name if name.strip_suffix("/*") == Some(kind) => 2,
            "*/*" => 1,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
        if specificity > best.0 {
            best = (specificity, weight);
        }
    }
    best.1
}

fn thousandths(q: &str) -> u32 {
    let (whole, fraction) = q.split_once('.').unwrap_or((q, ""));
    let fraction = format!("{fraction:0<3}");
    match (whole.trim(), fraction.get(..3).and_then(|digits| digits.parse::<u32>().ok())) {
        ("1", _) => 1000,
        ("0", Some(digits)) => digits,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_accepted_form_is_chosen() {
        for (accept, form) in [
            (None, Some(Form::Stream)),
            (Some("*/*"), Some(Form::Stream)),
            (Some("text/event-stream"), Some(Form::Stream)),
            (Some("application/json"), Some(Form::Json)),
            (Some("application/*"), Some(Form::Json)),
            (Some("Application/JSON; charset=utf-8"), Some(Form::Json)),
            (Some("application/json, text/event-stream"), Some(Form::Stream)),
            (Some("application/json, */*;q=0.8"), Some(Form::Json)),
            (Some("application/json;q=0.5, text/event-stream;q=0.4"), Some(Form::Json)),
            (Some("application/json, text/plain, */*"), Some(Form::Stream)),
            (Some("text/event-stream;q=0, application/json"), Some(Form::Json)),
            (Some("text/html"), None),
            (Some("*/*;q=0"), None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(Form::accepted(&headers).ok(), form, "{accept:?}");
        }
    }
}
