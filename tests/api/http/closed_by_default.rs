//! Without a session nothing answers but a short list.

use digitalmistress::app::PUBLIC;
use serde_json::json;

use super::{filled, operations};
use crate::support::{app::TestApp, http::Call};

/// What anybody may call, written out once more: adding to it takes two places and a reason.
const PUBLIC_OPERATIONS: &[(&str, &str)] = &[
    ("POST", "/v1/auth/signup"),
    ("POST", "/v1/auth/signup/verify"),
    ("POST", "/v1/auth/signup/resend"),
    ("POST", "/v1/auth/login"),
    ("POST", "/v1/auth/refresh"),
    ("POST", "/v1/auth/logout"),
    ("POST", "/v1/auth/unlock"),
    ("GET", "/v1/policies"),
    ("GET", "/v1/companions"),
    ("GET", "/.well-known/jwks.json"),
];

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

#[tokio::test]
async fn the_gate_lets_through_what_the_list_says_and_nothing_else() {
    let t = TestApp::start().await;
    for path in [
        "/openapi.json",
        "/docs",
        "/docs/scalar.js",
        "/docs/start.js",
        "/problems/not_found",
        "/dev/mailbox",
        "/dev/mailbox/messages",
    ] {
        assert_eq!(t.get(path).await.code, 200, "{path}");
    }
    for path in
        ["/v1/authx", "/v1/auth/../me", "/v1/me/", "//v1/me", "/v1/%6de", "/V1/me", "/v1/policies/../me"]
    {
        let answer = t.get(path).await;
        assert!(matches!(answer.code, 401 | 404), "{path}: {}", answer.code);
    }
    assert!(PUBLIC.iter().all(|path| !path.starts_with("/v1/me") && *path != "/v1/*"));
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
