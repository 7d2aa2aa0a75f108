//! The keys that sign access tokens: known before they sign, kept until nothing needs them, and worthless at once in an
//! emergency.

use digitalmistress::auth::{KeyState, Rotation, SigningKey};
use jiff::SignedDuration;
use serde_json::json;

use crate::support::app::{TestApp, part};

const DAY: SignedDuration = SignedDuration::from_hours(24);

/// The key that signed a token.
fn kid(token: &str) -> String {
    part(token, 0)["kid"].as_str().unwrap().to_owned()
}

/// The ids of the published keys, in their order.
async fn published(t: &TestApp) -> Vec<String> {
    let jwks = t.get("/.well-known/jwks.json").await.ok();
    jwks["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn announced(rotation: Rotation) -> SigningKey {
    match rotation {
        Rotation::Announced(key) => key,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_next_key_is_published_before_it_signs_and_the_old_one_after() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let old = kid(&ann.access_token);
    assert_eq!(published(&t).await, std::slice::from_ref(&old));

    let next = announced(t.background.auth.rotate_signing_key().await.unwrap()).kid;
    assert_eq!(published(&t).await, [old.clone(), next.clone()], "the one that signs comes first");
    t.clock.advance(SignedDuration::from_mins(19));
    let ann = ann.refreshed(&t).await;
    assert_eq!(kid(&ann.access_token), old, "it was announced only");

    t.clock.advance(SignedDuration::from_mins(1));
    let after = ann.refreshed(&t).await;
    assert_eq!(kid(&after.access_token), next);
    after.get(&t, "/v1/me").await.ok();
    ann.get(&t, "/v1/me").await.ok(); // Signed with the old key a minute ago.
    assert_eq!(published(&t).await, [next.clone(), old.clone()]);

    // The old key's last token was good for ten minutes; then come twenty more.
    t.clock.advance(SignedDuration::from_mins(29));
    t.background.sweep().await.unwrap();
    assert_eq!(published(&t).await, [next.clone(), old.clone()]);
    t.clock.advance(SignedDuration::from_mins(1));
    assert_eq!(published(&t).await, std::slice::from_ref(&next));
    t.background.sweep().await.unwrap();
    assert_eq!(t.background.auth.signing_keys().await.unwrap().len(), 1, "the row is gone");
    after.refreshed(&t).await.get(&t, "/v1/me").await.ok();
}

#[tokio::test]
async fn housekeeping_announces_the_next_key_in_time_and_only_one() {
    let t = TestApp::start().await;
    t.background.sweep().await.unwrap();
    t.clock.advance(DAY * 30 - SignedDuration::from_mins(21));
    t.background.sweep().await.unwrap();
    assert_eq!(published(&t).await.len(), 1);
    t.clock.advance(SignedDuration::from_mins(1));
    for _ in 0..3 {
        t.background.sweep().await.unwrap();
        assert_eq!(published(&t).await.len(), 2);
    }
    let keys = t.background.auth.signing_keys().await.unwrap();
    assert_eq!(
        keys.iter().map(|key| key.state).collect::<Vec<_>>(),
        [KeyState::Announced, KeyState::Signing]
    );
    t.clock.advance(SignedDuration::from_mins(20));
    let ann = t.sign_up("ann@example.com").await;
    assert_eq!(kid(&ann.access_token), keys[0].kid);
    t.background.sweep().await.unwrap();
    assert_eq!(published(&t).await.len(), 2);
}

#[tokio::test]
async fn a_program_that_slept_through_its_schedule_still_publishes_first() {
    let t = TestApp::start().await;
    let old = published(&t).await.remove(0);
    t.clock.advance(DAY * 400);
    let t = t.restart().await;
    t.background.sweep().await.unwrap();
    assert_eq!(published(&t).await.len(), 2);
    assert_eq!(kid(&t.sign_up("ann@example.com").await.access_token), old);
    t.clock.advance(SignedDuration::from_mins(20));
    assert_ne!(kid(&t.log_in("ann@example.com").await.access_token), old);
}

#[tokio::test]
async fn in_an_emergency_the_old_keys_are_worthless_at_once_and_everywhere() {
    let here = TestApp::start().await;
    let there = here.beside().await;
    let ann = here.sign_up("ann@example.com").await;
    ann.get(&there, "/v1/me").await.ok();
    // Also one that was announced: whoever read one may have read both.
    let next = announced(here.background.auth.rotate_signing_key().await.unwrap()).kid;

    let Rotation::Replaced(new) = here.background.auth.replace_signing_keys().await.unwrap() else {
        panic!()
    };
    // The other instance has not read its keys again and refuses all the same.
    for t in [&here, &there] {
        ann.get(t, "/v1/me").await.problem(401, "unauthenticated");
    }
    assert_eq!(published(&here).await, std::slice::from_ref(&new.kid));

    // The session lives: a refresh gets a token of the new key, which the other instance learns when it sees it.
    let after = ann.refreshed(&here).await;
    assert_eq!(kid(&after.access_token), new.kid);
    there.clock.advance(SignedDuration::from_secs(1));
    after.get(&there, "/v1/me").await.ok();
    assert_eq!(published(&there).await, std::slice::from_ref(&new.kid));

    let keys = here.background.auth.signing_keys().await.unwrap();
    let states: Vec<_> = keys.iter().map(|key| (key.kid.clone(), key.state)).collect();
    let old = kid(&ann.access_token);
    assert_eq!(
        states,
        [(new.kid.clone(), KeyState::Signing), (next, KeyState::Revoked), (old, KeyState::Revoked)]
    );
    here.clock.advance(SignedDuration::from_mins(30));
    here.background.sweep().await.unwrap();
    assert_eq!(here.background.auth.signing_keys().await.unwrap().len(), 1);
}

/// As in Rauthy: what was blocked was known in memory only.
#[tokio::test]
async fn a_revoked_key_stays_revoked_after_a_restart() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    t.background.auth.replace_signing_keys().await.unwrap();
    let t = t.restart().await;
    ann.get(&t, "/v1/me").await.problem(401, "unauthenticated");
    ann.refreshed(&t).await.get(&t, "/v1/me").await.ok();
}

#[tokio::test]
async fn another_instance_follows_without_a_restart() {
    let here = TestApp::start().await;
    let there = here.beside().await;
    let next = announced(here.background.auth.rotate_signing_key().await.unwrap()).kid;
    assert_eq!(published(&there).await.len(), 1);
    there.background.auth.reload_signing_keys().await.unwrap(); // Every few seconds, in the background.
    assert_eq!(published(&there).await, published(&here).await);
    here.clock.advance(SignedDuration::from_mins(20));
    let ann = there.sign_up("ann@example.com").await;
    assert_eq!(kid(&ann.access_token), next);
    ann.get(&here, "/v1/me").await.ok();
}

#[tokio::test]
async fn logout_works_with_a_token_of_a_key_that_is_new_here() {
    let here = TestApp::start().await;
    let there = here.beside().await;
    let ann = here.sign_up("ann@example.com").await;
    here.background.auth.replace_signing_keys().await.unwrap();
    let ann = ann.refreshed(&here).await;
    there.clock.advance(SignedDuration::from_secs(1));
    there.post("/v1/auth/logout", json!({"refresh_token": "x"})).bearer(&ann.access_token).await.status(204);
    ann.get(&here, "/v1/me").await.problem(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_that_rotate_at_once_make_one_key() {
    let here = TestApp::start().await;
    let there = here.beside().await;
    here.clock.advance(DAY * 30);
    for _ in 0..3 {
        let (one, other) = tokio::join!(here.background.sweep(), there.background.sweep());
        one.and(other).unwrap();
        for t in [&here, &there] {
            t.background.auth.reload_signing_keys().await.unwrap();
        }
        assert_eq!(published(&here).await.len(), 2);
        assert_eq!(published(&here).await, published(&there).await);
        here.clock.advance(SignedDuration::from_hours(2));
        let swept = tokio::join!(here.background.sweep(), there.background.sweep());
        swept.0.and(swept.1).unwrap();
        assert_eq!(here.background.auth.signing_keys().await.unwrap().len(), 1);
        here.clock.advance(DAY * 30);
    }
    let auth = &here.background.auth;
    let (one, other) =
        tokio::join!(auth.replace_signing_keys(), there.background.auth.replace_signing_keys());
    one.and(other).unwrap();
    let good = auth.signing_keys().await.unwrap();
    assert_eq!(good.iter().filter(|key| key.state == KeyState::Signing).count(), 1);
    assert_eq!(good.iter().filter(|key| key.state != KeyState::Revoked).count(), 1);
}

#[tokio::test]
async fn a_rotation_that_is_asked_for_twice_changes_nothing_the_second_time() {
    let t = TestApp::start().await;
    let next = announced(t.background.auth.rotate_signing_key().await.unwrap());
    match t.background.auth.rotate_signing_key().await.unwrap() {
        Rotation::Waiting(key) => assert_eq!(key.kid, next.kid),
        other => panic!("{other:?}"),
    }
    assert_eq!(published(&t).await.len(), 2);
}
