//! Whom to tell about a hole, in the form of RFC 9116.

use std::time::Duration;

use axum::{Router, http::header, response::IntoResponse as _, response::Response, routing::get};
use jiff::Timestamp;
use url::Url;

use crate::platform::{problem::Problem, time};

/// How long after a start the page can be relied on. The RFC advises less than a year; a server that nobody has started
/// anew for so long is one that nobody looks after.
const GOOD_FOR: Duration = Duration::from_hours(180 * 24);
/// Where the RFC wants it.
const PATH: &str = "/.well-known/security.txt";

/// The page. Where no contact is set there is none.
pub fn router(contact: Option<&Url>, public_url: &Url, started: Timestamp) -> Router {
    let page = contact.map(|contact| page(contact, public_url, started));
    Router::new().route(PATH, get(move || async move { answer(page) }))
}

fn answer(page: Option<String>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
    ];
    page.map_or_else(|| Problem::not_found().into_response(), |page| (headers, page).into_response())
}

fn page(contact: &Url, public_url: &Url, started: Timestamp) -> String {
    let expires = time::rfc3339(time::after(started, GOOD_FOR));
    let mut page = format!("Contact: {contact}\nExpires: {expires}\nPreferred-Languages: en\n");
    // The RFC wants https here. Only development is anything else.
    if public_url.scheme() == "https" {
        page.push_str("Canonical: ");
        page.push_str(public_url.as_str().trim_end_matches('/'));
        page.push_str(PATH);
        page.push('\n');
    }
    page
}
