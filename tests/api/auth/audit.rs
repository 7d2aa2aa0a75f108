//! The audit: each change has its entry, nothing private stands in it, and it lets go of what has had its time.

use std::{collections::BTreeMap, fs, path::Path};

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::app::{Person, TestApp};

/// The entries about somebody, newest first.
async fn about(t: &TestApp, reader: &Person, subject: &str) -> Vec<Value> {
    let page = reader.get(t, &format!("/v1/admin/audit?limit=100&subject={subject}")).await.ok();
    page["data"].as_array().unwrap().clone()
}

fn actions(entries: &[Value]) -> Vec<&str> {
    entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_people_do_has_its_entry() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    ann.post(&t, "/v1/me/consents", json!({"consents": t.consents().await})).await.ok();
    t.post("/v1/auth/logout", json!({"refresh_token": ann.refresh_token})).await.status(204);
    let again = t.log_in("ann@example.com").await;
    t.post("/v1/auth/logout", json!({"refresh_token": "x"})).bearer(&again.access_token).await.status(204);
    t.post("/v1/auth/logout", json!({"refresh_token": "x"})).bearer(&again.access_token).await.status(204);

    let entries = about(&t, &boss, &ann.id).await;
    assert_eq!(actions(&entries), ["logout", "login", "logout", "consent.given", "signup"]);
    for entry in &entries {
        assert_eq!((&entry["actor"], &entry["subject"]), (&json!(ann.id), &json!(ann.id)));
        assert_eq!((&entry["outcome"], &entry["address"]), (&json!("success"), &json!("127.0.0.1")));
        assert!(entry["session_id"].is_string());
    }
    let accepted = entries[3]["details"]["accepted"].as_array().unwrap();
    assert!(accepted.contains(&json!("terms 2026-11-01")), "{accepted:?}");
}

#[tokio::test]
async fn what_an_operator_does_has_its_entry_in_the_transaction_of_the_change() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    let path = |rest: &str| format!("/v1/admin/users/{}/{rest}", ann.id);
    boss.post(&t, &path("suspend"), json!({"reason": "canary-reason"})).await.ok();
    boss.post(&t, &path("unsuspend"), json!({})).await.ok();
    boss.post(&t, &path("unsuspend"), json!({})).await.ok(); // Changes nothing, so there is nothing to tell.
    boss.post(&t, &path("revoke-sessions"), json!({})).await.status(204);
    boss.put(&t, &path("role"), json!({"role": "admin"})).await.ok();
    boss.put(&t, &path("role"), json!({"role": "admin"})).await.ok();
    boss.put(&t, &path("role"), json!({"role": "user"})).await.ok();

    let entries = about(&t, &boss, &ann.id).await;
    assert_eq!(
        actions(&entries),
        [
            "user.role_changed",
            "user.role_changed",
            "user.sessions_revoked",
            "user.unsuspended",
            "user.suspended",
            "signup"
        ]
    );
    for entry in &entries[..5] {
        assert_eq!((&entry["actor"], &entry["address"]), (&json!(boss.id), &json!("127.0.0.1")));
    }
    assert_eq!(entries[0]["details"], json!({"role": "user"}));
    assert_eq!(entries[4]["details"], json!({"until": null, "sessions": 1}));
    assert!(!json!(entries).to_string().contains("canary"), "what an operator wrote is in the audit");

    // By a command: nobody's name, and the word.
    let role = &about(&t, &boss, &boss.id).await[0];
    assert_eq!((&role["action"], &role["actor"]), (&json!("user.role_changed"), &Value::Null));
    assert_eq!(role["details"], json!({"by": "command", "role": "admin"}));
    assert_eq!((&role["address"], &role["session_id"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_change_whose_entry_cannot_be_written_does_not_happen() {
    digitalmistress::queries! {
        fn hide() = "ALTER TABLE audit_event RENAME TO hidden";
        fn show() = "ALTER TABLE hidden RENAME TO audit_event";
    }
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    t.db().write(async |c| hide().exec(&c).await).await.unwrap();
    let path = format!("/v1/admin/users/{}", ann.id);
    boss.post(&t, &format!("{path}/suspend"), json!({"reason": "r"})).await.problem(500, "internal");
    boss.post(&t, &format!("{path}/revoke-sessions"), json!({})).await.problem(500, "internal");
    boss.put(&t, &format!("{path}/role"), json!({"role": "admin"})).await.problem(500, "internal");
    t.post("/v1/auth/logout", json!({"refresh_token": ann.refresh_token})).await.problem(500, "internal");
    let keys = t.get("/.well-known/jwks.json").await.ok();
    t.background.auth.replace_signing_keys().await.unwrap_err();
    t.background.auth.rotate_signing_key().await.unwrap_err();
    t.db().write(async |c| show().exec(&c).await).await.unwrap();
    let user = boss.get(&t, &path).await.ok();
    assert_eq!((&user["suspended_at"], &user["role"]), (&Value::Null, &json!("user")));
    ann.get(&t, "/v1/me").await.ok();
    assert_eq!(t.get("/.well-known/jwks.json").await.ok(), keys);
}

#[tokio::test]
async fn signing_keys_have_their_entries() {
    let t = TestApp::start().await;
    t.administrator("boss@example.com").await;
    t.background.auth.rotate_signing_key().await.unwrap();
    t.background.auth.replace_signing_keys().await.unwrap();
    t.clock.advance(SignedDuration::from_hours(30 * 24));
    t.background.sweep().await.unwrap();
    let boss = t.log_in("boss@example.com").await;
    let page = boss.get(&t, "/v1/admin/audit?action=signing_key.rotated").await.ok();
    let details: Vec<&Value> =
        page["data"].as_array().unwrap().iter().map(|entry| &entry["details"]).collect();
    assert_eq!(
        details.iter().map(|details| &details["by"]).collect::<Vec<_>>(),
        ["schedule", "command", "command"]
    );
    assert_eq!(details[1]["revoked_others"], true);
    assert!(details.iter().all(|details| details["kid"].as_str().unwrap().len() == 43));
}

#[tokio::test]
async fn addresses_go_after_thirty_days_and_entries_after_four_hundred() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let day = SignedDuration::from_hours(24);
    let look = async || {
        let boss = t.log_in("boss@example.com").await;
        t.background.sweep().await.unwrap();
        about(&t, &boss, &ann.id).await
    };
    t.administrator("boss@example.com").await;
    t.clock.advance(day * 30 - SignedDuration::from_mins(1));
    assert_eq!(look().await[0]["address"], "127.0.0.1");
    t.clock.advance(SignedDuration::from_mins(2));
    let after = look().await;
    assert_eq!((actions(&after), &after[0]["address"]), (vec!["signup"], &Value::Null));
    t.clock.advance(day * 370 - SignedDuration::from_mins(3));
    assert_eq!(look().await.len(), 1);
    t.clock.advance(SignedDuration::from_mins(3));
    assert_eq!(look().await.len(), 0);
}

#[tokio::test]
async fn how_long_the_audit_keeps_is_a_setting_and_batches_do_not_stop_it() {
    digitalmistress::queries! {
        fn add(id: uuid::Uuid, at: i64) =
            "INSERT INTO audit_event (id, at, action, outcome, address, details)
             VALUES ($1, $2, 'login', 'success', '203.0.113.7', '{}')";
        scan fn left() -> i64 = "SELECT COUNT(*) FROM audit_event";
        scan fn with_address() -> i64 = "SELECT COUNT(*) FROM audit_event WHERE address IS NOT NULL";
    }
    let settings = [("DM__AUTH__AUDIT_ADDRESS_RETENTION", "1d"), ("DM__AUTH__AUDIT_RETENTION", "2d")];
    let t = TestApp::with(&settings).await;
    let now = t.now().as_microsecond();
    t.db()
        .write(async move |c| {
            for n in 0..1200 {
                add(uuid::Uuid::from_u128(n), now).exec(&c).await?;
            }
            Ok::<_, digitalmistress::platform::db::Error>(())
        })
        .await
        .unwrap();
    let count = async || {
        let read = async |c: digitalmistress::platform::db::Conn| {
            Ok::<_, digitalmistress::platform::db::Error>((
                left().one(&c).await?,
                with_address().one(&c).await?,
            ))
        };
        t.db().read(read).await.unwrap()
    };
    assert_eq!(count().await, (1200, 1200));
    t.clock.advance(SignedDuration::from_hours(25));
    t.background.sweep().await.unwrap();
    assert_eq!(count().await, (1200, 0));
    t.clock.advance(SignedDuration::from_hours(24));
    t.background.sweep().await.unwrap();
    assert_eq!(count().await, (0, 0));
}

/// Append-only: besides letting go of what has had its time, no statement of the program changes an entry.
#[test]
fn nothing_in_the_sources_changes_an_entry() {
    fn sources(directory: &Path, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if let Ok(text) = fs::read_to_string(&path) {
                found.insert(path.display().to_string(), text);
            }
        }
    }
    let mut found = BTreeMap::new();
    sources(Path::new("src"), &mut found);
    sources(Path::new("migrations"), &mut found);
    let mut changes = Vec::new();
    for (path, text) in found {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for verb in
            ["UPDATE audit_event", "DELETE FROM audit_event", "TRUNCATE audit_event", "CREATE TRIGGER"]
        {
            changes.extend(
                text.match_indices(verb)
                    .map(|(at, _)| (path.clone(), text[at..].chars().take(70).collect::<String>())),
            );
        }
    }
    let store = "src/auth/audit/store.rs".to_owned();
    assert_eq!(
        changes,
        [
            (
                store.clone(),
                "UPDATE audit_event SET address = NULL WHERE id IN (SELECT id FROM audi".to_owned()
            ),
            (store, "DELETE FROM audit_event WHERE id IN (SELECT id FROM audit_event WHERE ".to_owned()),
        ]
    );
}
