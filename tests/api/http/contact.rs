//! Whom to tell about a hole.

use crate::support::app::TestApp;
use jiff::SignedDuration;

const PATH: &str = "/.well-known/security.txt";

#[tokio::test]
async fn whoever_finds_a_hole_is_told_where_to_write() {
    let t = TestApp::with(&[
        ("DM__SERVER__SECURITY_CONTACT", "mailto:security@example.com"),
        ("DM__SERVER__PUBLIC_URL", "https://api.example.com/"),
    ])
    .await;
    let answer = t.get(PATH).await;
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    let expires = "2027-09-06T12:00:0";
    let lines: Vec<&str> = answer.text.lines().collect();
    assert_eq!(lines[0], "Contact: mailto:security@example.com");
    assert!(lines[1].starts_with(&format!("Expires: {expires}")) && lines[1].ends_with('Z'), "{}", lines[1]);
    assert_eq!(
        lines[2..],
        ["Preferred-Languages: en", "Canonical: https://api.example.com/.well-known/security.txt"]
    );
    assert_eq!(answer.code, 200);

    // It is the start that counts: a server that nobody has looked after is not to be relied on.
    t.clock.advance(SignedDuration::from_hours(24));
    assert_eq!(t.get(PATH).await.text, answer.text);
}

#[tokio::test]
async fn where_no_contact_is_set_there_is_no_such_page() {
    TestApp::start().await.get(PATH).await.problem(404, "not_found");
}
