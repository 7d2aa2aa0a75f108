//! Headers that every answer carries, and origins that may read it.

use serde_json::json;

use crate::support::{app::TestApp, http::Call};

#[tokio::test]
async fn every_answer_has_the_headers_that_the_contract_promises() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    for answer in [
        t.get("/v1/companions").await,
        t.get("/nothing").await,
        t.get("/v1/me").await,
        ann.get(&t, "/v1/me").await,
        ann.post(&t, "/v1/chat", crate::support::app::message("c", "m", "hello")).await,
        t.post("/v1/auth/login", json!(7)).await,
        t.get("/docs").await,
        Call::new(t.request("OPTIONS", "/v1/me")).await,
    ] {
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"));
        assert_eq!(answer.header("x-request-id").len(), 36);
        assert_eq!(answer.header("server"), "");
        assert_eq!(answer.header("strict-transport-security"), "", "the public URL is http");
        assert!(answer.header("cache-control").contains("no-store"), "{answer:?}");
    }
    let docs = t.get("/docs").await;
    assert!(!docs.header("content-security-policy").contains("script-src 'unsafe"));
}

#[tokio::test]
async fn behind_https_browsers_are_told_to_stay_there() {
    let t = TestApp::with(&[("DM__SERVER__PUBLIC_URL", "https://api.example.com")]).await;
    assert!(t.get("/v1/companions").await.header("strict-transport-security").starts_with("max-age="));
}

#[tokio::test]
async fn a_request_id_is_taken_if_it_is_harmless() {
    let t = TestApp::start().await;
    let id = async |given: &str| t.get("/nothing").header("x-request-id", given).await;
    let answer = id("trace.1234_ABC-z").await;
    assert_eq!(answer.header("x-request-id"), "trace.1234_ABC-z");
    assert_eq!(answer.problem(404, "not_found")["request_id"], "trace.1234_ABC-z");
    for given in ["short", "with space 123", "semi;colon;123", &"x".repeat(65)] {
        assert_eq!(id(given).await.header("x-request-id").len(), 36, "{given}");
    }
}

#[tokio::test]
async fn only_exact_origins_may_call_from_a_browser() {
    let t =
        TestApp::with(&[("DM__SERVER__ALLOWED_ORIGINS", "https://www.example.com, http://localhost:3000")])
            .await;
    let preflight = |origin: &str| {
        Call::new(
            t.request("OPTIONS", "/v1/chat")
                .header("origin", origin)
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization,content-type"),
        )
    };
    for origin in ["https://www.example.com", "http://localhost:3000"] {
        let answer = preflight(origin).await;
        assert_eq!(answer.code, 200);
        assert_eq!(answer.header("access-control-allow-origin"), origin);
        for header in ["authorization", "idempotency-key"] {
            assert!(answer.header("access-control-allow-headers").contains(header), "{header}");
        }
        let read = t.get("/v1/me").header("origin", origin).await;
        assert_eq!(read.header("access-control-allow-origin"), origin);
        assert!(read.header("access-control-expose-headers").contains("x-request-id"));
        assert!(read.header("vary").to_lowercase().contains("origin"));
    }
    for origin in [
        "https://evil.example",
        "https://www.example.com.evil.example",
        "http://www.example.com",
        "null",
        "https://WWW.example.com:444",
    ] {
        assert_eq!(preflight(origin).await.header("access-control-allow-origin"), "", "{origin}");
    }
}

#[tokio::test]
async fn development_answers_to_this_machine_only() {
    let t = TestApp::start().await;
    for host in [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:80",
        "192.168.0.1",
        "[::2]:80",
        "",
        "localhost@evil.example",
    ] {
        t.get("/dev/mailbox").header("host", host).await.problem(403, "forbidden");
    }
    for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:1", "[::1]:8080", "[::1]"] {
        assert_eq!(t.get("/dev/mailbox").header("host", host).await.code, 200, "{host}");
    }
}
