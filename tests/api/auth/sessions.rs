//! Sessions: seen by their user, ended by logout, by their user, by time and by newer ones.

use futures_util::future::join_all;
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use uuid::Uuid;

use crate::support::app::{PASSWORD, Person, TestApp};

#[tokio::test]
async fn a_session_ends_when_it_is_idle_or_old() {
    let t = TestApp::start().await;
    let day = SignedDuration::from_hours(24);
    let idle = t.sign_up("idle@example.com").await;
    t.clock.advance(day * 14);
    t.refresh(&idle.refresh_token).await.problem(401, "invalid_grant");

    let mut busy = t.sign_up("busy@example.com").await;
    for _ in 0..2 {
        t.clock.advance(day * 13);
        busy = busy.refreshed(&t).await;
    }
    t.clock.advance(day * 3);
    let last = t.refresh(&busy.refresh_token).await.ok();
    let end: jiff::Timestamp = last["refresh_expires_at"].as_str().unwrap().parse().unwrap();
    assert!(end.duration_since(t.now()) <= day, "the absolute end does not move");
    t.clock.advance(day);
    t.refresh(last["refresh_token"].as_str().unwrap()).await.problem(401, "invalid_grant");
}

#[tokio::test]
async fn an_access_token_ends_with_its_time_or_its_session() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    t.clock.advance(SignedDuration::from_mins(10));
    ann.get(&t, "/v1/me").await.ok(); // Within the leeway of clocks.
    t.clock.advance(SignedDuration::from_secs(30));
    ann.get(&t, "/v1/me").await.problem(401, "unauthenticated");

    let bob = t.sign_up("bob@example.com").await;
    t.post("/v1/auth/logout", json!({"refresh_token": bob.refresh_token})).await.status(204);
    bob.get(&t, "/v1/me").await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn logout_takes_either_token_expired_or_not_and_never_complains() {
    let t = TestApp::start().await;
    let by_header = t.sign_up("header@example.com").await;
    t.clock.advance(SignedDuration::from_hours(1));
    let logout = t.request("POST", "/v1/auth/logout").bearer_auth(&by_header.access_token);
    assert_eq!(logout.send().await.unwrap().status(), 204);
    t.refresh(&by_header.refresh_token).await.problem(401, "invalid_grant");

    let by_body = t.log_in("header@example.com").await;
    let other = t.log_in("header@example.com").await;
    for _ in 0..2 {
        t.post("/v1/auth/logout", json!({"refresh_token": by_body.refresh_token})).await.status(204);
    }
    by_body.get(&t, "/v1/me").await.problem(401, "unauthenticated");
    other.get(&t, "/v1/me").await.ok(); // Another session of the same user goes on.

    assert_eq!(t.request("POST", "/v1/auth/logout").send().await.unwrap().status(), 204);
    t.post("/v1/auth/logout", json!({"refresh_token": "rubbish"})).bearer("rubbish").await.status(204);
}

#[tokio::test]
async fn sessions_survive_a_restart() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let t = t.restart().await;
    ann.get(&t, "/v1/me").await.ok();
    let next = ann.refreshed(&t).await;
    next.get(&t, "/v1/me").await.ok();
    let t = t.restart().await;
    let again = ann.refreshed(&t).await;
    assert_eq!(again.refresh_token, next.refresh_token, "the window outlives the restart");
    t.refresh(&next.refresh_token).await.ok();
}

/// As in CVE-2026-9802 of Keycloak: what was revoked lived only in memory.
#[tokio::test]
async fn what_has_ended_stays_ended_after_a_restart() {
    let t = TestApp::start().await;
    let left = t.sign_up("left@example.com").await;
    let stolen = t.sign_up("stolen@example.com").await;
    t.post("/v1/auth/logout", json!({"refresh_token": left.refresh_token})).await.status(204);
    let next = stolen.refreshed(&t).await;
    next.get(&t, "/v1/me").await.ok();
    t.clock.advance(SignedDuration::from_secs(11));
    t.refresh(&stolen.refresh_token).await.problem(401, "refresh_token_reused");
    let t = t.restart().await;
    for person in [&left, &stolen, &next] {
        person.get(&t, "/v1/me").await.problem(401, "unauthenticated");
        t.refresh(&person.refresh_token).await.problem(401, "invalid_grant");
    }
}

#[tokio::test]
async fn logout_takes_a_token_that_was_exchanged() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let next = ann.refreshed(&t).await;
    t.post("/v1/auth/logout", json!({"refresh_token": ann.refresh_token})).await.status(204);
    next.get(&t, "/v1/me").await.problem(401, "unauthenticated");
    t.refresh(&next.refresh_token).await.problem(401, "invalid_grant");
    let session = Uuid::parse_str(&ann.session).ok();
    assert_eq!(t.audited("logout").await, [("success".into(), Uuid::parse_str(&ann.id).ok(), session)]);
}

#[tokio::test]
async fn logout_ends_both_sessions_where_two_tokens_are_of_two_people() {
    let t = TestApp::start().await;
    for (path, action) in [("/v1/auth/logout", "logout"), ("/v1/auth/logout-all", "logout_all")] {
        let ann = t.sign_up(&format!("ann.{action}@example.com")).await;
        let bob = t.sign_up(&format!("bob.{action}@example.com")).await;
        let body = json!({"refresh_token": ann.refresh_token});
        t.post(path, body).bearer(&bob.access_token).await.status(204);
        for person in [&ann, &bob] {
            person.get(&t, "/v1/me").await.problem(401, "unauthenticated");
        }
        let about: Vec<_> =
            t.audited(action).await.into_iter().map(|entry| entry.1.unwrap().to_string()).collect();
        assert!(about.len() == 2 && about.contains(&ann.id) && about.contains(&bob.id), "{about:?}");
    }
}

#[tokio::test]
async fn logout_everywhere_ends_all_sessions_of_that_user_by_any_token() {
    let t = TestApp::start().await;
    let bob = t.sign_up("bob@example.com").await;
    let first = t.sign_up("ann@example.com").await;
    for by in ["refresh", "access"] {
        let (one, other) = (t.log_in("ann@example.com").await, t.log_in("ann@example.com").await);
        t.clock.advance(SignedDuration::from_hours(1));
        let answer = match by {
            "refresh" => t.post("/v1/auth/logout-all", json!({"refresh_token": one.refresh_token})).await,
            _ => t.post("/v1/auth/logout-all", json!({})).bearer(&one.access_token).await,
        };
        assert_eq!(answer.header("clear-site-data"), "", "any page could send this call");
        answer.status(204);
        for person in [&first, &one, &other] {
            t.refresh(&person.refresh_token).await.problem(401, "invalid_grant");
        }
    }
    assert_eq!(t.audited("logout_all").await.len(), 2);

    // A session that has ended has no say about the others, and without any token nothing happens.
    let last = t.log_in("ann@example.com").await;
    t.post("/v1/auth/logout-all", json!({"refresh_token": first.refresh_token})).await.status(204);
    t.post("/v1/auth/logout-all", json!({})).bearer(&first.access_token).await.status(204);
    assert_eq!(t.request("POST", "/v1/auth/logout-all").send().await.unwrap().status(), 204);
    last.get(&t, "/v1/me").await.ok();
    t.refresh(&bob.refresh_token).await.ok();
}

async fn listed(t: &TestApp, person: &Person) -> Vec<Value> {
    person.get(t, "/v1/sessions").await.ok()["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn people_see_their_own_live_sessions() {
    let t = TestApp::start().await;
    t.sign_up("bob@example.com").await;
    let old = t.sign_up("ann@example.com").await;
    t.clock.advance(SignedDuration::from_hours(13 * 24));
    let body = json!({"email": "ann@example.com", "password": PASSWORD, "device_name": "Phone"});
    let phone = Person::from(t.post("/v1/auth/login", body).await.ok());
    let list = listed(&t, &phone).await;
    assert_eq!(list.len(), 2);
    assert_eq!((&list[0]["id"], &list[1]["id"]), (&json!(phone.session), &json!(old.session)));
    assert_eq!((&list[0]["current"], &list[1]["current"]), (&json!(true), &json!(false)));
    assert_eq!((&list[0]["device_name"], &list[0]["address"]), (&json!("Phone"), &json!("127.0.0.0/24")));

    t.clock.advance(SignedDuration::from_hours(25));
    let phone = phone.refreshed(&t).await;
    assert_eq!(listed(&t, &phone).await.len(), 1, "one has ended by itself");
}

#[tokio::test]
async fn when_a_session_was_last_used_is_known_to_the_minute() {
    let t = TestApp::start().await;
    t.clock.stop();
    let ann = t.sign_up("ann@example.com").await;
    let seen = async || listed(&t, &ann).await[0]["last_seen_at"].clone();
    let first = seen().await;
    t.clock.advance(SignedDuration::from_secs(60));
    assert_eq!(seen().await, first);
    t.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(seen().await, digitalmistress::platform::time::rfc3339(t.now()));
}

#[tokio::test]
async fn people_end_their_sessions_after_a_fresh_sign_in() {
    let t = TestApp::start().await;
    let (ann, bob) = (t.sign_up("ann@example.com").await, t.sign_up("bob@example.com").await);
    let other = t.log_in("ann@example.com").await;
    let path = |person: &Person| format!("/v1/sessions/{}", person.session);
    bob.delete(&t, &path(&ann)).await.problem(404, "not_found");
    ann.delete(&t, "/v1/sessions/nonsense").await.problem(404, "not_found");
    ann.delete(&t, &path(&other)).await.status(204);
    ann.delete(&t, &path(&other)).await.problem(404, "not_found");
    other.get(&t, "/v1/me").await.problem(401, "unauthenticated");
    t.refresh(&other.refresh_token).await.problem(401, "invalid_grant");
    assert_eq!(t.audited("session.ended").await.len(), 1);

    // A refresh keeps a session alive; it does not show who is there.
    t.clock.advance(SignedDuration::from_mins(8));
    let ann = ann.refreshed(&t).await;
    t.clock.advance(SignedDuration::from_mins(7));
    ann.delete(&t, &path(&ann)).await.problem(403, "reauthentication_required");
    let ann = t.log_in("ann@example.com").await;
    ann.delete(&t, &path(&ann)).await.status(204);
    ann.get(&t, "/v1/me").await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn tokens_that_we_did_not_make_are_invalid() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let (text, last) = ann.refresh_token.split_at(ann.refresh_token.len() - 1);
    let mistyped = format!("{text}{}", if last == "0" { '1' } else { '0' });
    for token in ["", "x", "dm_rt_AAAA00000000", &mistyped, &ann.access_token, &"a".repeat(5000)] {
        t.refresh(token).await.problem(401, "invalid_grant");
    }
}

/// A failure after the exchange would lose the only refresh token that there is.
#[tokio::test]
async fn a_refresh_that_fails_leaves_the_token_as_it_was() {
    digitalmistress::queries! {
        fn hide() = "ALTER TABLE app_user RENAME COLUMN display_name TO hidden";
        fn show() = "ALTER TABLE app_user RENAME COLUMN hidden TO display_name";
    }
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    t.db().write(async |c| hide().exec(&c).await).await.unwrap();
    t.refresh(&ann.refresh_token).await.problem(500, "internal");
    t.db().write(async |c| show().exec(&c).await).await.unwrap();
    t.refresh(&ann.refresh_token).await.ok();
}

#[tokio::test]
async fn the_oldest_of_more_than_twenty_sessions_ends() {
    let t = TestApp::start().await;
    let first = t.sign_up("ann@example.com").await;
    t.clock.advance(SignedDuration::from_secs(1));
    let second = t.log_in("ann@example.com").await;
    for _ in 0..18 {
        t.clock.advance(SignedDuration::from_secs(1));
        t.log_in("ann@example.com").await;
    }
    first.get(&t, "/v1/me").await.ok();
    t.clock.advance(SignedDuration::from_secs(1));
    let newest = t.log_in("ann@example.com").await;
    first.get(&t, "/v1/me").await.problem(401, "unauthenticated");
    t.refresh(&first.refresh_token).await.problem(401, "invalid_grant");
    second.get(&t, "/v1/me").await.ok();
    newest.get(&t, "/v1/me").await.ok();
    let (user, session) = (Uuid::parse_str(&first.id).ok(), Uuid::parse_str(&first.session).ok());
    assert_eq!(t.audited("session.evicted").await, [("success".into(), user, session)]);
    assert!(t.mail_to("ann@example.com").await.unwrap().text.contains("oldest of your sessions"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_at_once_leave_twenty_sessions() {
    digitalmistress::queries! {
        scan fn sessions() -> i64 = "SELECT COUNT(*) FROM session";
    }
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    for _ in 0..4 {
        join_all((0..6).map(|_| t.log_in("ann@example.com"))).await;
    }
    let left: Result<i64, digitalmistress::platform::db::Error> =
        t.db().read(async |c| sessions().one(&c).await).await;
    assert_eq!(left.unwrap(), 20);
}

/// A request that was begun with a live session and is finished after its end is refused: its body may take half a minute.
#[tokio::test]
async fn a_request_whose_body_comes_after_the_end_of_the_session_changes_nothing() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let body = json!({"display_name": "somebody else"}).to_string();
    let mut late = tokio::net::TcpStream::connect(t.base.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "PATCH /v1/me HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\nexpect: 100-continue\r\n\r\n",
        ann.access_token,
        body.len()
    );
    late.write_all(head.as_bytes()).await.unwrap();
    // The server asks for the body, so it has seen the head.
    let mut asked = [0; 25];
    late.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");

    t.post("/v1/auth/logout", json!({"refresh_token": ann.refresh_token})).await.status(204);
    late.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    late.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    let again = t.log_in("ann@example.com").await;
    assert_eq!(again.get(&t, "/v1/me").await.ok()["display_name"], Value::Null);
}
