//! Pages that people look at.

use digitalmistress::platform::problem::Code;
use serde_json::json;

use crate::support::app::TestApp;

#[tokio::test]
async fn the_mailbox_shows_mails_without_running_them() {
    let t = TestApp::start().await;
    let mut body = t.signup_body("ann@example.com").await;
    body["email"] = json!("\u{3c}b\u{3e}bold@example.com");
    t.post("/v1/auth/signup", body).await.invalid("/email", "invalid_format");
    t.sign_up("ann@example.com").await;
    t.sign_up("bob@example.com").await;

    let all = t.get("/dev/mailbox/messages").await.ok();
    let to: Vec<&str> =
        all["data"].as_array().unwrap().iter().map(|mail| mail["to"].as_str().unwrap()).collect();
    assert_eq!(to, ["bob@example.com", "ann@example.com"], "newest first");
    let anns = t.get("/dev/mailbox/messages?to=ANN@example.com").await.ok();
    assert_eq!(anns["data"].as_array().unwrap().len(), 1);
    let names: Vec<&str> = anns["data"][0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["to", "subject", "text", "html", "created_at"]);

    let page = t.get("/dev/mailbox").await;
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.text.contains("ann@example.com") && page.text.contains("bob@example.com"));
    assert!(!page.header("content-security-policy").contains("script-src"));
    let frame = page.text.split("src=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let html = t.get(&frame).await;
    assert!(html.header("content-security-policy").starts_with("sandbox"));
    assert!(html.text.contains("Here is the code"));
    t.get("/dev/mailbox/messages/01999999-9999-7999-8999-999999999999").await.problem(404, "not_found");
}

#[tokio::test]
async fn every_code_has_a_page_and_the_page_has_every_code() {
    let t = TestApp::start().await;
    for code in Code::ALL {
        let page = t.get(&format!("/problems/{}", code.as_str())).await.ok();
        assert_eq!(page["code"], code.as_str());
        assert!(!page["remedy"].as_str().unwrap().is_empty());
    }
    t.get("/problems/no_such_code").await.problem(404, "not_found");
    super::document::assert_golden("docs/errors.md", &digitalmistress::openapi::errors_page());
}

#[tokio::test]
async fn the_documentation_comes_from_here_alone() {
    let t = TestApp::start().await;
    let page = t.get("/docs").await;
    assert!(!page.text.contains("http://") && !page.text.contains("https://"), "{}", page.text);
    for script in ["/docs/scalar.js", "/docs/start.js"] {
        assert!(page.text.contains(script));
        assert!(t.get(script).await.header("content-type").starts_with("text/javascript"));
    }
    let policy = page.header("content-security-policy");
    assert!(policy.contains("script-src 'self';") && policy.contains("connect-src 'self'"), "{policy}");
}
