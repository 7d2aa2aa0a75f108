//! What an administrator does with users, and reads of the audit.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::app::{Person, TestApp};

fn path(person: &Person, rest: &str) -> String {
    format!("/v1/admin/users/{}{rest}", person.id)
}

#[tokio::test]
async fn a_user_is_found_by_exact_address_or_id() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    let user = boss.get(&t, &path(&ann, "")).await.ok();
    let mut names: Vec<&str> = user.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "age_assurance",
            "created_at",
            "display_name",
            "email",
            "email_verified",
            "id",
            "locale",
            "mfa_enabled",
            "role",
            "suspended_at",
            "suspended_until",
            "suspension_reason",
            "time_zone"
        ]
    );
    for query in [&ann.id, "ann@example.com", "ANN@Example.com", "%20ann@example.com%20"] {
        let found = boss.get(&t, &format!("/v1/admin/users?query={query}")).await.ok();
        assert_eq!(found, json!({"data": [user], "next_cursor": null}), "{query}");
    }
    for query in ["ann", "%25", "ann@example", "", "nobody@example.com", &boss.id.replace('0', "1"), "%00"] {
        let found = boss.get(&t, &format!("/v1/admin/users?query={query}")).await.ok();
        assert_eq!(found["data"], json!([]), "{query}");
    }
    boss.get(&t, "/v1/admin/users").await.invalid("/query", "missing");
}

#[tokio::test]
async fn who_is_not_there_is_not_found() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    for id in ["00000000-0000-7000-8000-000000000000", "nobody", "%00"] {
        let path = |rest: &str| format!("/v1/admin/users/{id}{rest}");
        boss.get(&t, &path("")).await.problem(404, "not_found");
        boss.post(&t, &path("/suspend"), json!({"reason": "r"})).await.problem(404, "not_found");
        boss.post(&t, &path("/unsuspend"), json!({})).await.problem(404, "not_found");
        boss.post(&t, &path("/revoke-sessions"), json!({})).await.problem(404, "not_found");
        boss.put(&t, &path("/role"), json!({"role": "user"})).await.problem(404, "not_found");
    }
    let audit = boss.get(&t, "/v1/admin/audit?action=user.suspended").await.ok();
    assert_eq!(audit["data"], json!([]));
}

/// As in CVE-2025-62174 of Mastodon: what an operator does to an account must not leave sessions alive.
#[tokio::test]
async fn revoked_sessions_are_over_for_every_kind_of_token() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    let phone = t.log_in("ann@example.com").await;
    let bob = t.sign_up("bob@example.com").await;
    boss.post(&t, &path(&ann, "/revoke-sessions"), json!({})).await.status(204);
    for person in [&ann, &phone] {
        person.get(&t, "/v1/me").await.problem(401, "unauthenticated");
        t.refresh(&person.refresh_token).await.problem(401, "invalid_grant");
    }
    bob.get(&t, "/v1/me").await.ok();
    t.log_in("ann@example.com").await.get(&t, "/v1/me").await.ok();
    boss.post(&t, &path(&boss, "/revoke-sessions"), json!({})).await.status(204);
    boss.get(&t, "/v1/me").await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn roles_are_given_and_taken() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    let role = |role: &str| boss.put(&t, &path(&ann, "/role"), json!({"role": role}));
    assert_eq!(role("admin").await.ok()["role"], "admin");
    assert_eq!(role("admin").await.ok()["role"], "admin");
    ann.get(&t, "/v1/admin/audit").await.ok();
    assert_eq!(role("user").await.ok()["role"], "user");
    ann.get(&t, "/v1/admin/audit").await.problem(403, "forbidden");
    role("owner").await.invalid("/role", "unknown_value");
}

#[tokio::test]
async fn the_last_administrator_stays_one() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    boss.put(&t, &path(&boss, "/role"), json!({"role": "user"})).await.problem(409, "conflict");
    boss.post(&t, &path(&boss, "/suspend"), json!({"reason": "r"})).await.problem(409, "conflict");

    // Somebody who is suspended cannot administer, and counts for nobody.
    let second = t.administrator("second@example.com").await;
    let until = t.now() + SignedDuration::from_mins(5);
    let body = json!({"reason": "r", "until": until.to_string()});
    boss.post(&t, &path(&second, "/suspend"), body).await.ok();
    boss.put(&t, &path(&boss, "/role"), json!({"role": "user"})).await.problem(409, "conflict");
    t.clock.advance(SignedDuration::from_mins(5));
    assert_eq!(boss.put(&t, &path(&boss, "/role"), json!({"role": "user"})).await.ok()["role"], "user");
    boss.get(&t, "/v1/admin/audit").await.problem(403, "forbidden");

    // By command neither.
    use digitalmistress::auth::{Administrator, AuthError, Role, SuspensionForm};
    let (auth, id) = (&t.background.auth, second.id.parse().unwrap());
    let demoted = auth.set_role(Administrator::Command, id, Role::User).await;
    assert!(matches!(demoted, Err(AuthError::LastAdministrator)));
    let form = SuspensionForm { reason: "r".into(), until: None };
    let suspended = auth.suspend(Administrator::Command, id, form).await;
    assert!(matches!(suspended, Err(AuthError::LastAdministrator)));
}

/// Each alone would be allowed. Snapshot isolation lets both happen unless they share a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_administrators_who_depose_each_other_at_once_leave_one() {
    let t = TestApp::start().await;
    for round in 0..8 {
        let one = t.administrator(&format!("one{round}@example.com")).await;
        let other = t.administrator(&format!("other{round}@example.com")).await;
        let depose = |by: &Person, whom: &Person| match round % 4 {
            0 => by.put(&t, &path(whom, "/role"), json!({"role": "user"})),
            1 => by.put(&t, &path(by, "/role"), json!({"role": "user"})),
            2 => by.post(&t, &path(whom, "/suspend"), json!({"reason": "r"})),
            _ if by.id == one.id => by.put(&t, &path(by, "/role"), json!({"role": "user"})),
            _ => by.post(&t, &path(whom, "/suspend"), json!({"reason": "r"})),
        };
        let (first, second) = tokio::join!(depose(&one, &other), depose(&other, &one));
        let codes = [first.code, second.code];
        let done = codes.iter().filter(|code| **code == 200).count();
        // Whoever has stepped down may be suspended like anybody.
        assert!(done == 1 || (round % 4 == 3 && done == 2), "round {round}: {codes:?}");
        let active = [&one, &other].map(|person| person.get(&t, "/v1/admin/audit"));
        let active = crate::support::http::all(active).await;
        let left: Vec<bool> = active.iter().map(|answer| answer.code == 200).collect();
        assert_eq!(left.iter().filter(|left| **left).count(), 1, "round {round}");
        // The next round begins with nobody else.
        let stays = if left[0] { &one } else { &other };
        let next = t.administrator(&format!("next{round}@example.com")).await;
        next.put(&t, &path(stays, "/role"), json!({"role": "user"})).await.ok();
        make_user(&t, &next).await;
    }
}

/// Takes the role without any rule.
async fn make_user(t: &TestApp, person: &Person) {
    digitalmistress::queries! {
        fn demote(id: uuid::Uuid) = "UPDATE app_user SET role = 'user' WHERE id = $1";
    }
    let id = person.id.parse().unwrap();
    t.db().write(async move |c| demote(id).exec(&c).await).await.unwrap();
}

#[tokio::test]
async fn the_audit_is_read_in_pages_and_by_selection() {
    let t = TestApp::start().await;
    let boss = t.administrator("boss@example.com").await;
    let ann = t.sign_up("ann@example.com").await;
    for _ in 0..3 {
        t.log_in("ann@example.com").await;
    }
    boss.put(&t, &path(&ann, "/role"), json!({"role": "admin"})).await.ok();
    let all = boss.get(&t, "/v1/admin/audit?limit=100").await.ok();
    assert_eq!(all["next_cursor"], Value::Null);
    let all = all["data"].as_array().unwrap();
    let times: Vec<&str> = all.iter().map(|entry| entry["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");

    for (selection, expected) in [
        (String::new(), all.clone()),
        (format!("subject={}", ann.id), of(all, |entry| entry["subject"] == ann.id)),
        (format!("actor={}", ann.id), of(all, |entry| entry["actor"] == ann.id)),
        ("action=login".into(), of(all, |entry| entry["action"] == "login")),
        (
            format!("subject={}&actor={}&action=user.role_changed", ann.id, boss.id),
            of(all, |entry| entry["action"] == "user.role_changed" && entry["actor"] == boss.id),
        ),
        (format!("actor={}&action=login", boss.id), Vec::new()),
    ] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = boss.get(&t, &format!("/v1/admin/audit?limit=2&{selection}{cursor}")).await.ok();
            assert!(page["data"].as_array().unwrap().len() <= 2);
            found.extend(page["data"].as_array().unwrap().clone());
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(found, expected, "{selection}");
        let ids: BTreeSet<&str> = found.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), found.len());
    }

    let cursor = boss.get(&t, "/v1/admin/audit?limit=1").await.ok()["next_cursor"].clone();
    let cursor = cursor.as_str().unwrap();
    let with = |more: &str| format!("/v1/admin/audit?cursor={cursor}{more}");
    boss.get(&t, &with("&action=login")).await.problem(400, "invalid_cursor");
    boss.get(&t, &with("A")).await.problem(400, "invalid_cursor");
    ann.get(&t, &with("")).await.problem(400, "invalid_cursor");
    boss.get(&t, "/v1/admin/audit?action=everything").await.invalid("/action", "unknown_value");
    boss.get(&t, "/v1/admin/audit?subject=ann").await.invalid("/subject", "invalid_format");
    boss.get(&t, "/v1/admin/audit?actor=").await.invalid("/actor", "invalid_format");
}

fn of(all: &[Value], wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
    all.iter().filter(|entry| wanted(entry)).cloned().collect()
}
