//! Without a session nothing answers but a short list.

use digitalmistress::app::PUBLIC;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{filled, operations, rows};
use crate::support::{
    app::TestApp,
    http::Call,
    requests::{prepared, with_bodies},
};

/// What anybody may call, written out once more: adding to it takes two places and a reason.
const PUBLIC_OPERATIONS: &[(&str, &str)] = &[
    ("POST", "/v1/auth/signup"),
    ("POST", "/v1/auth/signup/verify"),
    ("POST", "/v1/auth/signup/resend"),
    ("POST", "/v1/auth/login"),
    ("POST", "/v1/auth/refresh"),
    ("POST", "/v1/auth/logout"),
    ("POST", "/v1/auth/password/forgot"),
    ("POST", "/v1/auth/password/reset"),
    ("POST", "/v1/auth/email/undo"),
    ("POST", "/v1/auth/logout-all"),
    ("POST", "/v1/auth/unlock"),
    ("GET", "/v1/policies"),
    ("GET", "/v1/companions"),
    ("GET", "/v1/plans"),
    ("GET", "/v1/webhooks/{provider}"),
    ("POST", "/v1/webhooks/{provider}"),
    ("GET", "/v1/webhooks/{provider}/{secret}"),
    ("POST", "/v1/webhooks/{provider}/{secret}"),
    ("GET", "/.well-known/jwks.json"),
];

/// Pages and documents that anybody may read.
const PUBLIC_PAGES: &[&str] = &[
    "/openapi.json",
    "/docs",
    "/docs/scalar.js",
    "/docs/start.js",
    "/problems/{code}",
    "/.well-known/security.txt",
    "/livez",
    "/readyz",
    "/version",
    "/dev/mailbox",
    "/dev/mailbox/messages",
    "/dev/mailbox/messages/{id}",
    "/dev/checkout",
    "/dev/checkout/manage",
];

#[test]
fn the_public_list_is_what_stands_here_and_every_path_is_written_out() {
    let mut here: Vec<&str> = PUBLIC_OPERATIONS.iter().map(|(_, path)| *path).collect();
    here.extend(PUBLIC_PAGES);
    here.sort_unstable();
    here.dedup();
    let mut there = PUBLIC.0.to_vec();
    there.sort_unstable();
    assert_eq!(there, here);
    assert!(there.iter().all(|path| !path.contains('*')));
}

#[tokio::test]
async fn every_operation_needs_a_session_but_a_short_list() {
    let t = TestApp::start().await;
    let document = t.get("/openapi.json").await.ok();
    let operations = operations(&document);
    assert!(operations.len() > 15);
    for (method, path, operation) in operations {
        let answer = Call::new(t.request(&method, &filled(&path)).json(&json!({}))).await;
        if PUBLIC_OPERATIONS.contains(&(method.as_str(), path.as_str())) {
            assert_ne!(answer.problem_code(), Some("unauthenticated".into()), "{method} {path}");
            assert_eq!(operation["security"], json!([]), "{method} {path}");
        } else {
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            answer.problem(401, "unauthenticated");
            assert_eq!(operation["security"], json!([{"access_token": []}]), "{method} {path}");
        }
    }
}

/// As in CVE-2025-61928 of Better Auth: where there was no session, the user that the request named was believed.
#[tokio::test]
async fn nobody_is_somebody_by_naming_them() {
    let t = TestApp::start().await;
    let document = t.get("/openapi.json").await.ok();
    let boss = t.administrator("boss@example.com").await;
    let mut requests = Vec::new();
    for (method, path, operation) in operations(&document) {
        if operation["requestBody"].is_null() && operation["security"] != json!([]) {
            requests.push((boss.clone(), method, filled(&path), json!({})));
        }
    }
    for (n, operation) in with_bodies(&document).iter().enumerate() {
        let request = prepared(&t, operation, &format!("person{n}")).await;
        if let Some(person) = request.caller {
            requests.push((person, request.method, request.url, request.body));
        }
    }
    assert!(requests.len() > 20, "{}", requests.len());
    for (person, method, path, body) in requests {
        let known = (rows(&t).await, person.get(&t, "/v1/me").await.ok());
        let mut named = body.clone();
        for name in NAMES {
            named[name] = json!(person.id);
        }
        let query: Vec<String> = NAMES.iter().map(|name| format!("{name}={}", person.id)).collect();
        let with_query = t.request(&method, &format!("{path}?{}", query.join("&"))).json(&body);
        let with_body = t.request(&method, &path).json(&named);
        let with_headers = NAMES.iter().fold(t.request(&method, &path).json(&body), |request, name| {
            request.header(format!("x-{}", name.replace('_', "-")), &person.id)
        });
        for request in [with_query, with_body, with_headers] {
            let answer = Call::new(request).await;
            assert_eq!(answer.problem_code().as_deref(), Some("unauthenticated"), "{method} {path}");
        }
        assert_eq!((rows(&t).await, person.get(&t, "/v1/me").await.ok()), known, "{method} {path}");
    }
}

/// What a user is called elsewhere.
const NAMES: [&str; 6] = ["user_id", "userId", "user", "owner_id", "account_id", "sub"];

#[tokio::test]
async fn the_gate_lets_the_public_pages_through() {
    let t = TestApp::with(&[("DM__SERVER__SECURITY_CONTACT", "mailto:security@example.com")]).await;
    t.sign_up("ann@example.com").await;
    let id = t.get("/dev/mailbox").await.text;
    let id = id.split("/dev/mailbox/messages/").nth(1).unwrap().split('"').next().unwrap();
    for path in PUBLIC_PAGES {
        let path = path.replace("{id}", id);
        let answer = t.get(&filled(&path)).await;
        // The pages of the checkout answer only under an address that they made themselves.
        let expected = if path.starts_with("/dev/checkout") { 404 } else { 200 };
        assert_eq!(answer.code, expected, "{path}");
    }
}

/// On a socket of their own: a client would tidy them before they are sent.
#[tokio::test]
async fn no_spelling_of_a_path_gets_around_the_gate() {
    let t = TestApp::start().await;
    for path in [
        "//v1/me",
        "/v1//me",
        "/v1/./me",
        "/v1/auth/../me",
        "/v1/policies/../me",
        "/docs/../v1/me",
        "/v1/auth/%2e%2e/me",
        "/V1/me",
        "/v1/ME",
        "/v1/me/",
        "/v1/me%2f",
        "/v1%2fme",
        "/v1/%6de",
        "/v1/me;/v1/policies",
        "/v1/me%00",
        "/v1/me?/v1/policies",
        "/v1/auth/me",
        "/v1/authx",
        "http://localhost/v1/me",
    ] {
        let answer = raw(&t, path).await;
        assert!(
            answer.starts_with("HTTP/1.1 401 ") || answer.starts_with("HTTP/1.1 404 "),
            "{path}: {answer}"
        );
    }
    assert!(raw(&t, "/v1/policies").await.starts_with("HTTP/1.1 200 "), "the socket works");
    assert!(raw(&t, "/v1/me").await.starts_with("HTTP/1.1 401 "));
}

/// The answer to a request for exactly these bytes.
async fn raw(t: &TestApp, path: &str) -> String {
    let mut socket = TcpStream::connect(t.base.strip_prefix("http://").unwrap()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_route_that_exists_with_another_method_says_so() {
    let t = TestApp::start().await;
    let answer = t.get("/v1/auth/login").await;
    assert_eq!(answer.header("allow"), "POST");
    answer.problem(405, "method_not_allowed");
    let ann = t.sign_up("ann@example.com").await;
    let answer = ann.post(&t, "/v1/me", json!({})).await;
    assert_eq!(answer.header("allow"), "GET,HEAD,PATCH");
    answer.problem(405, "method_not_allowed");
}
