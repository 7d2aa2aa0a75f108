//! Bad input of every kind: answered with the problem of the contract, changing nothing, and never with a 500.

use serde_json::{Value, json};

use super::{but, filled, operations, rows};
use crate::support::{
    app::{Person, TestApp},
    http::Call,
    requests::{prepared, refuses, with_bodies},
};

fn send(
    t: &TestApp,
    person: &Person,
    method: &str,
    path: &str,
    content_type: &str,
    body: impl Into<reqwest::Body>,
) -> Call {
    let request = t.request(method, &filled(path)).bearer_auth(&person.access_token);
    Call::new(request.header("content-type", content_type).body(body))
}

#[tokio::test]
async fn bodies_that_are_not_what_they_should_be_are_refused_everywhere() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let boss = t.administrator("boss@example.com").await;
    let document = t.get("/openapi.json").await.ok();
    let before = rows(&t).await;
    for (method, path, operation) in operations(&document) {
        if operation["requestBody"].is_null() {
            continue;
        }
        let what = format!("{method} {path}");
        let caller = if path.starts_with("/v1/admin/") { &boss } else { &ann };
        let call =
            |content_type: &str, body: &[u8]| send(&t, caller, &method, &path, content_type, body.to_vec());
        let json = "application/json";
        for (content_type, body, status, code) in [
            (json, &b"{"[..], 400, "malformed_json"),
            (json, b"not json", 400, "malformed_json"),
            (json, b"{} {}", 400, "malformed_json"),
            (json, b"{}x", 400, "malformed_json"),
            (json, b"{\"a\":1,\"a\":2}", 400, "malformed_json"),
            (json, b"{\"a\":\"\\u0000\"}", 400, "malformed_json"),
            (json, b"{\"a\":\"\xff\"}", 400, "malformed_json"),
            (json, b"\xef\xbb\xbf{}", 400, "malformed_json"),
            (json, "[".repeat(100).as_bytes(), 400, "malformed_json"),
            (json, &format!("{}{}", "[".repeat(33), "]".repeat(33)).into_bytes(), 400, "malformed_json"),
            (json, b"[]", 422, "validation_failed"),
            (json, b"7", 422, "validation_failed"),
            (json, b"\"text\"", 422, "validation_failed"),
            ("text/plain", b"{}", 415, "unsupported_media_type"),
            ("application/x-www-form-urlencoded", b"a=b", 415, "unsupported_media_type"),
            ("application/json; charset=latin1", b"{}", 415, "unsupported_media_type"),
            ("application/jsonp", b"{}", 415, "unsupported_media_type"),
            (json, &vec![b' '; 300 * 1024], 413, "payload_too_large"),
        ] {
            let answer = call(content_type, body).await;
            assert_eq!(
                answer.code,
                status,
                "{what} {content_type} {:?}: {}",
                String::from_utf8_lossy(body).get(..40),
                answer.text
            );
            answer.problem(status, code);
        }
        call(json, b"{}").header("content-encoding", "gzip").await.problem(415, "unsupported_media_type");
        // A body that lies about its length, in pieces.
        let pieces = futures_util::stream::iter((0..400).map(|_| Ok::<_, std::io::Error>(vec![b' '; 1024])));
        let streamed = reqwest::Body::wrap_stream(pieces);
        send(&t, caller, &method, &path, json, streamed).await.problem(413, "payload_too_large");
        if path != "/v1/chat" {
            call(json, &vec![b' '; 64 * 1024 + 1]).await.problem(413, "payload_too_large");
        }
    }
    assert_eq!(rows(&t).await, before);
}

/// Fields in which many texts are within the rules: free text, and what ends something or finds it ended.
const FREE: &[&str] = &[
    "password",
    "new_password",
    "device_name",
    "display_name",
    "title",
    "reason",
    "refresh_token",
    "generation_id",
];
/// A wrong password is written down.
const WRITTEN_OF_REFUSALS: &[&str] = &["audit_event", "password_failure"];

#[tokio::test]
async fn fields_that_are_not_what_they_should_be_are_refused_everywhere() {
    let t = TestApp::start().await;
    let document = t.get("/openapi.json").await.ok();
    let long = "x".repeat(20_000);
    let odd: Vec<Value> = vec![
        json!(7),
        json!(-1),
        json!(1e300),
        json!(true),
        json!([]),
        json!({}),
        json!([[]]),
        json!({"a": {"b": []}}),
        json!(""),
        json!(" "),
        json!("\u{1}"),
        json!("\u{202e}\u{feff}"),
        json!("'; DROP TABLE app_user; --"),
        json!("../../etc/passwd"),
        json!("%00"),
        json!("${jndi:ldap://x}"),
        json!("<script>"),
        json!("😀".repeat(5000)),
        json!(long),
    ];
    let mut people = 0;
    for operation in with_bodies(&document) {
        let mut somebody = async || {
            people += 1;
            prepared(&t, &operation, &format!("person{people}")).await
        };
        let mut request = somebody().await;
        for field in request.fields.clone() {
            for value in &odd {
                let before = rows(&t).await;
                let answer = request.with(&t, &field, value).await;
                let shown: String = value.to_string().chars().take(40).collect();
                let what = format!("{} {field} = {shown}: {}", request.name(), answer.text);
                if answer.code >= 400 {
                    assert!(refuses(&answer, &field), "{what}");
                    assert_eq!(
                        but(rows(&t).await, WRITTEN_OF_REFUSALS),
                        but(before, WRITTEN_OF_REFUSALS),
                        "{what}"
                    );
                } else {
                    assert!(answer.code < 300 && value.is_string() && FREE.contains(&&*field), "{what}");
                }
                // A text may be within the rules, or have cost a try: the next value is for somebody else to send.
                if answer.code != 422 {
                    request = somebody().await;
                }
            }
        }
        // Nothing but the field was wrong with what was refused.
        let answer = request.call(&t).await;
        assert!((200..300).contains(&answer.code), "{}: {}", request.name(), answer.text);
        if request.operation != "/v1/chat" {
            request.with(&t, "no_such_field", &json!(1)).await.invalid("/no_such_field", "unknown_field");
        }
    }
}

#[tokio::test]
async fn paths_and_queries_can_be_anything() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    for id in [
        "%00",
        "%ff%fe",
        "..%2f..%2fetc",
        "%F0%9F%98%80",
        "a%20b",
        "'%20OR%201=1--",
        &"x".repeat(5000),
        "%",
        "%zz",
    ] {
        for path in ["/v1/conversations/{id}", "/v1/conversations/{id}/messages"] {
            let answer = ann.get(&t, &path.replace("{id}", id)).await;
            assert!(matches!(answer.code, 400 | 404), "{path} {id}: {}", answer.code);
        }
        let answer = ann.get(&t, &format!("/v1/chat/{id}/stream")).await;
        assert!(matches!(answer.code, 204 | 400 | 404), "{id}: {}", answer.code);
    }
    for query in
        ["limit=", "limit=1e3", "limit=99999999999999999999", "limit=%00", "cursor=%00", "cursor[]=1"]
    {
        let answer = ann.get(&t, &format!("/v1/conversations?{query}")).await;
        assert!(answer.code < 500, "{query}: {}", answer.code);
    }
    ann.get(&t, "/v1/conversations?utm_source=mail").await.ok();
    let endless = ann.get(&t, &format!("/v1/conversations/{}", "x".repeat(65_000))).await;
    assert!(matches!(endless.code, 404 | 414 | 431), "{}", endless.code);
}

#[tokio::test]
async fn a_query_with_a_name_twice_or_too_many_is_refused_everywhere() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let document = t.get("/openapi.json").await.ok();
    let mut routes: Vec<(String, String)> =
        operations(&document).into_iter().map(|(method, path, _)| (method, path)).collect();
    // What a payment provider sends is judged by its gateway.
    routes.retain(|(_, path)| !path.starts_with("/v1/webhooks/"));
    let pages = ["/openapi.json", "/docs", "/docs/scalar.js", "/problems/{code}", "/dev/mailbox", "/nothing"];
    routes.extend(pages.map(|path| ("GET".to_owned(), path.to_owned())));
    let many = |count: usize| (0..count).map(|n| format!("p{n}=1")).collect::<Vec<_>>().join("&");
    let before = rows(&t).await;
    for (method, path) in routes {
        let call =
            |query: &str| send(&t, &ann, &method, &format!("{path}?{query}"), "application/json", "{}");
        for query in ["limit=1&limit=1", "a=1&b=2&%61=3", "a&a", &many(17), &many(5000)] {
            call(query).await.problem(400, "bad_request");
        }
        for query in [&many(16), "&&a=1&&", "utm_source=mail", ""] {
            assert_ne!(
                call(query).await.problem_code(),
                Some("bad_request".into()),
                "{method} {path}?{query}"
            );
        }
    }
    // By the queries that are fine, with an empty body: a conversation was begun, and the session logged out.
    let changed = &["conversation", "session", "audit_event"];
    assert_eq!(but(rows(&t).await, changed), but(before, changed));
}
