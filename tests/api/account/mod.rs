//! The account as its owner sees it.

use serde_json::{Value, json};

use crate::support::{app::TestApp, http::all};

#[tokio::test]
async fn a_patch_changes_what_it_names_and_null_clears() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let patch = async |body: Value| ann.patch(&t, "/v1/me", body).await.ok();

    let all =
        patch(json!({"display_name": "  Ann 😀 ", "locale": "en-GB", "time_zone": "europe/london"})).await;
    assert_eq!((&all["display_name"], &all["locale"]), (&json!("Ann 😀"), &json!("en-GB")));
    assert_eq!(all["time_zone"], "Europe/London");
    let one = patch(json!({"locale": "fr"})).await;
    assert_eq!(
        (&one["display_name"], &one["locale"], &one["time_zone"]),
        (&json!("Ann 😀"), &json!("fr"), &json!("Europe/London"))
    );
    let none = patch(json!({"display_name": null, "locale": null})).await;
    assert_eq!((&none["display_name"], &none["locale"]), (&Value::Null, &Value::Null));
    assert_eq!(patch(json!({})).await, none);
    assert_eq!(ann.get(&t, "/v1/me").await.ok(), none);
}

#[tokio::test]
async fn what_cannot_be_stored_is_refused_and_changes_nothing() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let before = ann.get(&t, "/v1/me").await.ok();
    for (field, value, code) in [
        ("display_name", json!(""), "too_short"),
        ("display_name", json!("   "), "too_short"),
        ("display_name", json!("x".repeat(65)), "too_long"),
        ("display_name", json!("two\nlines"), "invalid_format"),
        ("display_name", json!(7), "wrong_type"),
        ("locale", json!("english please"), "invalid_format"),
        ("locale", json!("e"), "invalid_format"),
        ("time_zone", json!("Mars/Olympus"), "unknown_value"),
        ("time_zone", json!("../../etc/passwd"), "unknown_value"),
    ] {
        ann.patch(&t, "/v1/me", json!({field: value})).await.invalid(&format!("/{field}"), code);
    }
    assert_eq!(ann.get(&t, "/v1/me").await.ok(), before);
}

/// As in CVE-2026-27946 of Zitadel: people could set fields of theirs that are not theirs to set.
#[tokio::test]
async fn what_is_not_ones_own_to_change_is_refused() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    let path = format!("/v1/admin/users/{}", ann.id);
    let before = boss.get(&t, &path).await.ok();
    for (field, value) in [
        ("role", json!("admin")),
        ("plan", json!("premium")),
        ("suspended_at", Value::Null),
        ("suspended_until", Value::Null),
        ("email", json!("new@example.com")),
        ("email_verified", json!(true)),
        ("password_hash", json!("")),
        ("id", json!(boss.id)),
        ("user_id", json!(boss.id)),
        ("created_at", json!("2020-01-01T00:00:00Z")),
        ("mfa_enabled", json!(false)),
        ("age_assurance", json!("operator")),
        ("birth_date", json!("1990-12-31")),
    ] {
        let body = json!({"display_name": "Ann", field: value});
        ann.patch(&t, "/v1/me", body).await.invalid(&format!("/{field}"), "unknown_field");
    }
    assert_eq!(boss.get(&t, &path).await.ok(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_changes_at_once_do_not_undo_each_other() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    for round in 0..10 {
        let (name, locale) = (format!("Ann {round}"), if round % 2 == 0 { "en" } else { "fr" });
        let changes = [json!({"display_name": name}), json!({"locale": locale})];
        for answer in all(changes.map(|change| ann.patch(&t, "/v1/me", change))).await {
            answer.ok();
        }
        let me = ann.get(&t, "/v1/me").await.ok();
        assert_eq!((&me["display_name"], &me["locale"]), (&json!(name), &json!(locale)));
    }
}

#[tokio::test]
async fn a_new_version_of_a_policy_has_to_be_accepted_before_the_chat_goes_on() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    ann.say(&t, "c", "m1", "hello").await.ok();
    let t = t.restart_with(&[("DM__AUTH__POLICIES__TERMS__VERSION", "2027-01-01")]).await;
    ann.say(&t, "c", "m2", "hello again").await.problem(403, "consent_required");
    ann.say(&t, "c", "m1", "hello").await.ok(); // What was paid for is still to be had.

    let current = json!({"document": "terms", "version": "2027-01-01"});
    let old = json!({"document": "terms", "version": "2026-11-01"});
    ann.post(&t, "/v1/me/consents", json!({"consents": [old]})).await.problem(400, "policy_outdated");
    ann.post(&t, "/v1/me/consents", json!({"consents": []})).await.invalid("/consents", "missing");
    let user = ann.post(&t, "/v1/me/consents", json!({"consents": [current]})).await.ok();
    assert_eq!(user["id"], ann.id);
    ann.say(&t, "c", "m2", "hello again").await.ok();
}

#[tokio::test]
async fn policies_name_their_documents_and_where_to_read_them() {
    let t = TestApp::start().await;
    let policies = t.get("/v1/policies").await.ok();
    let documents: Vec<&str> = policies["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|policy| policy["document"].as_str().unwrap())
        .collect();
    assert_eq!(documents, ["privacy", "sensitive-data", "terms"]);
    assert_eq!(policies["data"][2]["url"], "http://localhost:5173/terms");
}
