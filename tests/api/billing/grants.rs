//! Access that an operator gives and takes back.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{is, standing, subscription};
use crate::support::{app::TestApp, postback::SETTINGS};

fn form(plan: &str, ends_at: &str) -> Value {
    json!({"plan": plan, "ends_at": ends_at, "reason": "An apology, ticket 7"})
}

#[tokio::test]
async fn a_grant_gives_a_plan_until_its_end_or_until_it_is_taken_back() {
    let t = TestApp::with(SETTINGS).await;
    let (boss, ann) = (t.administrator("boss@example.com").await, t.sign_up("ann@example.com").await);
    let grants = format!("/v1/admin/users/{}/grants", ann.id);
    let ends_at = format!("{:.3}", t.now() + SignedDuration::from_hours(48));
    let plus = boss.post(&t, &grants, form("plus", &ends_at)).await.status(201);
    assert_eq!((&plus["plan"], &plus["granted_by"]), (&json!("plus"), &json!(boss.id)));
    assert_eq!((&plus["ends_at"], &plus["reason"]), (&json!(ends_at), &json!("An apology, ticket 7")));
    let shown = subscription(&t, &ann).await;
    assert_eq!((&shown["source"], &shown["access_until"]), (&json!("grant"), &json!(ends_at)));
    assert_eq!(shown["will_renew"], false);

    let pro = boss.post(&t, &grants, form("pro", &ends_at)).await.status(201);
    assert_eq!(standing(&t, &ann).await, is("active", "grant", Some("pro")));
    let one = format!("{grants}/{}", pro["id"].as_str().unwrap());
    boss.delete(&t, &one).await.status(204);
    boss.delete(&t, &one).await.status(204);
    assert_eq!(standing(&t, &ann).await, is("active", "grant", Some("plus")));
    t.clock.advance(SignedDuration::from_hours(48));
    let ann = t.log_in("ann@example.com").await;
    assert_eq!(standing(&t, &ann).await, is("inactive", "free", None));
    assert_eq!(t.audited("access.granted").await.len(), 2);
    assert_eq!(t.audited("access.grant_revoked").await.len(), 1);
}

#[tokio::test]
async fn only_an_administrator_gives_and_only_what_there_is() {
    let t = TestApp::start().await;
    let (boss, ann) = (t.administrator("boss@example.com").await, t.sign_up("ann@example.com").await);
    let (grants, later) = (format!("/v1/admin/users/{}/grants", ann.id), "2100-01-01T00:00:00Z");
    ann.post(&t, &grants, form("plus", later)).await.problem(403, "forbidden");
    boss.post(&t, &grants, form("gold", later)).await.invalid("/plan", "unknown_value");
    boss.post(&t, &grants, form("plus", "2020-01-01T00:00:00Z")).await.invalid("/ends_at", "in_past");
    boss.post(&t, &grants, form("plus", "soon")).await.invalid("/ends_at", "invalid_format");
    let nobody = "/v1/admin/users/00000000-0000-0000-0000-000000000000/grants";
    boss.post(&t, nobody, form("plus", later)).await.problem(404, "not_found");
    boss.delete(&t, &format!("{grants}/00000000-0000-0000-0000-000000000000"))
        .await
        .problem(404, "not_found");
    // Somebody else's grant is not hers.
    let given = boss.post(&t, &grants, form("plus", later)).await.status(201);
    let other = format!("/v1/admin/users/{}/grants/{}", boss.id, given["id"].as_str().unwrap());
    boss.delete(&t, &other).await.problem(404, "not_found");
    assert_eq!(standing(&t, &ann).await, is("active", "grant", Some("plus")));
}
