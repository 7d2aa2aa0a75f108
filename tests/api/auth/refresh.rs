//! Refresh tokens: exchanged for the next, by two tabs, after a lost answer, and by a thief.

use std::sync::Arc;

use jiff::SignedDuration;
use secrecy::SecretString;
use serde_json::json;
use uuid::Uuid;

use crate::support::{
    app::{Person, TestApp, claims},
    database::postgres,
    http::{Answer, all},
};

fn seconds(seconds: i64) -> SignedDuration {
    SignedDuration::from_secs(seconds)
}

/// Somebody, and a clock that only the test moves.
async fn stopped() -> (TestApp, Person) {
    let t = TestApp::start().await;
    t.clock.stop();
    let ann = t.sign_up("ann@example.com").await;
    (t, ann)
}

fn generation(person: &Person) -> i64 {
    claims(&person.access_token)["gen"].as_i64().unwrap()
}

#[tokio::test]
async fn a_refresh_token_is_exchanged_for_the_next() {
    let (t, ann) = stopped().await;
    let mut person = ann.clone();
    for turn in 2..6 {
        t.clock.advance(seconds(300));
        person = person.refreshed(&t).await;
        assert_eq!((generation(&person), &person.session), (turn, &ann.session));
        person.get(&t, "/v1/me").await.ok();
    }
}

#[tokio::test]
async fn for_ten_seconds_the_same_token_gets_the_same_successor() {
    let (t, ann) = stopped().await;
    let first = ann.refreshed(&t).await;
    first.get(&t, "/v1/me").await.ok();
    ann.get(&t, "/v1/me").await.ok(); // The older access token lives out its ten minutes.
    t.clock.advance(seconds(10));
    let second = ann.refreshed(&t).await;
    assert_eq!(second.refresh_token, first.refresh_token);
    assert_eq!((generation(&first), generation(&second)), (2, 2));
    second.get(&t, "/v1/me").await.ok();
    second.refreshed(&t).await;
}

#[tokio::test]
async fn a_token_that_is_exchanged_too_often_has_to_wait_and_the_session_lives() {
    let (t, ann) = stopped().await;
    let first = ann.refreshed(&t).await;
    for _ in 0..128 {
        assert_eq!(ann.refreshed(&t).await.refresh_token, first.refresh_token);
    }
    t.clock.advance(seconds(4));
    let answer = t.refresh(&ann.refresh_token).await;
    assert_eq!(answer.header("retry-after"), "6");
    answer.problem(429, "rate_limited");
    first.refreshed(&t).await.get(&t, "/v1/me").await.ok();
}

#[tokio::test]
async fn a_client_that_lost_the_answer_gets_another_whenever_it_comes_back() {
    for later in [seconds(1), seconds(11), SignedDuration::from_hours(1), SignedDuration::from_hours(24)] {
        let (t, ann) = stopped().await;
        t.refresh(&ann.refresh_token).await.ok(); // Nobody reads it.
        t.clock.advance(later);
        let again = ann.refreshed(&t).await;
        again.get(&t, "/v1/me").await.ok();
        again.refreshed(&t).await.get(&t, "/v1/me").await.ok();
        let recovered = t.audited("session.refresh_recovered").await;
        assert_eq!(recovered.len(), usize::from(later > seconds(10)), "{later:?}");
    }
}

#[tokio::test]
async fn answers_can_be_lost_again_and_again() {
    let (t, ann) = stopped().await;
    for later in [11, 3, 3_600, 9, 9, 11, 86_400] {
        t.refresh(&ann.refresh_token).await.ok();
        t.clock.advance(seconds(later));
    }
    ann.refreshed(&t).await.get(&t, "/v1/me").await.ok();
    assert_eq!(t.audited("session.reuse_detected").await.len(), 0);
}

/// Two tabs: one lost the answer, that of the other is on its way when the first tries again.
#[tokio::test]
async fn as_long_as_an_answer_may_be_on_its_way_its_tokens_stay_good() {
    let (t, ann) = stopped().await;
    t.refresh(&ann.refresh_token).await.ok();
    t.clock.advance(seconds(9));
    let slow = ann.refreshed(&t).await;
    t.clock.advance(seconds(9));
    t.refresh(&ann.refresh_token).await.ok();
    slow.get(&t, "/v1/me").await.ok();
    slow.refreshed(&t).await.get(&t, "/v1/me").await.ok();
}

/// What was handed out and never used can be only a thief's once its client has got another.
#[tokio::test]
async fn what_was_never_seen_dies_when_another_is_handed_out() {
    let (t, ann) = stopped().await;
    let thief = ann.refreshed(&t).await;
    t.clock.advance(seconds(11));
    let owner = ann.refreshed(&t).await;
    assert_ne!(owner.refresh_token, thief.refresh_token);
    thief.get(&t, "/v1/me").await.problem(401, "unauthenticated");
    owner.get(&t, "/v1/me").await.ok();
    t.refresh(&thief.refresh_token).await.problem(401, "refresh_token_reused");
    owner.get(&t, "/v1/me").await.problem(401, "unauthenticated");
}

/// As in GoTrue: the token before the newest stayed good without a limit.
#[tokio::test]
async fn a_token_that_only_a_thief_can_hold_ends_the_session_and_tells_the_owner() {
    let (t, ann) = stopped().await;
    let other = t.log_in("ann@example.com").await;
    let owner = ann.refreshed(&t).await;
    owner.get(&t, "/v1/me").await.ok();
    t.clock.advance(seconds(11));
    let answers = all((0..20).map(|_| t.refresh(&ann.refresh_token))).await;
    let codes: Vec<String> = answers.iter().filter_map(Answer::problem_code).collect();
    assert_eq!(codes.iter().filter(|code| *code == "refresh_token_reused").count(), 1, "{codes:?}");
    assert_eq!(codes.iter().filter(|code| *code == "invalid_grant").count(), 19, "{codes:?}");

    owner.get(&t, "/v1/me").await.problem(401, "unauthenticated");
    t.refresh(&owner.refresh_token).await.problem(401, "invalid_grant");
    other.get(&t, "/v1/me").await.ok(); // Another session of the same user goes on.
    let (user, session) = (Uuid::parse_str(&ann.id).ok(), Uuid::parse_str(&ann.session).ok());
    assert_eq!(t.audited("session.reuse_detected").await, [("failure".into(), user, session)]);
    let mail = t.mail_to("ann@example.com").await.unwrap();
    assert_eq!(mail.subject, "Your account");
    assert!(mail.text.contains("One of your sessions was ended"));
}

#[tokio::test]
async fn a_token_older_than_the_one_before_the_newest_ends_the_session() {
    let (t, ann) = stopped().await;
    let second = ann.refreshed(&t).await;
    let third = second.refreshed(&t).await;
    t.refresh(&ann.refresh_token).await.problem(401, "refresh_token_reused");
    t.refresh(&third.refresh_token).await.problem(401, "invalid_grant");
}

/// Session ids are no secret. Who knows one must not be able to end the session with it.
#[tokio::test]
async fn an_invented_token_of_a_real_session_does_nothing() {
    use digitalmistress::platform::{random::SystemRandom, seal::DataKey, token::TokenKind};
    use secrecy::ExposeSecret as _;

    let (t, ann) = stopped().await;
    let session = Uuid::parse_str(&ann.session).unwrap();
    let kind = TokenKind { name: "rt", id_len: 16 };
    let key = DataKey::generate("service/hashes".into(), Uuid::nil(), &SystemRandom);
    let invented: [(SecretString, _); 2] = [
        kind.issue(session.as_bytes(), &SystemRandom),
        kind.issue_marked(session.as_bytes(), &key, &SystemRandom),
    ];
    for (token, _) in invented {
        let token = token.expose_secret();
        t.refresh(token).await.problem(401, "invalid_grant");
        t.post("/v1/auth/logout", json!({"refresh_token": token})).await.status(204);
        t.post("/v1/auth/logout-all", json!({"refresh_token": token})).await.status(204);
    }
    ann.get(&t, "/v1/me").await.ok();
    ann.refreshed(&t).await;
}

#[tokio::test]
async fn successors_are_sealed_for_the_window_and_then_forgotten() {
    digitalmistress::queries! {
        scan fn sealed() -> i64 = "SELECT COUNT(*) FROM session WHERE sealed_succ IS NOT NULL AND prev_used_at IS NOT NULL";
    }
    let (t, ann) = stopped().await;
    let count = async || {
        let count: Result<i64, digitalmistress::platform::db::Error> =
            t.db().read_slow(async |c| sealed().one(&c).await).await;
        count.unwrap()
    };
    let touched = ann.refreshed(&t).await;
    let swept = t.log_in("ann@example.com").await;
    swept.refreshed(&t).await;
    assert_eq!(count().await, 2);
    t.background.sweep().await.unwrap();
    assert_eq!(count().await, 2, "the window is open");
    t.clock.advance(seconds(61));
    touched.get(&t, "/v1/me").await.ok();
    assert_eq!(count().await, 1, "the next request forgets");
    t.background.sweep().await.unwrap();
    assert_eq!(count().await, 0);
    // Nobody has shown to have it, so it is another one.
    swept.refreshed(&t).await;
}

/// As in GHSA-pw9m-5jxm-xr6h of Better Auth: parallel use of one token made several successors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_refreshes_at_once_all_get_one_successor() {
    let t = Arc::new(TestApp::start().await);
    at_once(&[t]).await;
}

/// As in CVE-2026-1035 of Keycloak: check and mark were not one step. Here across two instances.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_refreshes_at_once_on_two_instances_all_get_one_successor() {
    if postgres().is_none() {
        return; // A SQLite file belongs to one instance.
    }
    let one = TestApp::start().await;
    let other = one.beside().await;
    at_once(&[Arc::new(one), Arc::new(other)]).await;
}

async fn at_once(instances: &[Arc<TestApp>]) {
    instances[0].clock.stop();
    let ann = instances[0].sign_up("ann@example.com").await;
    for t in instances {
        t.connect(100 / instances.len()).await;
    }
    let calls = (0..100).map(|n| {
        let t = &instances[n % instances.len()];
        t.refresh(&ann.refresh_token)
    });
    let people: Vec<Person> = all(calls).await.into_iter().map(|answer| Person::from(answer.ok())).collect();
    for (n, person) in people.iter().enumerate() {
        assert_eq!(person.refresh_token, people[0].refresh_token);
        assert_eq!(generation(person), 2);
        person.get(&instances[n % instances.len()], "/v1/me").await.ok();
    }
    people[0].refreshed(&instances[0]).await.get(instances.last().unwrap(), "/v1/me").await.ok();
    assert_eq!(instances[0].audited("session.reuse_detected").await.len(), 0);
}

/// The first request of a refresh is what tells a lost answer from a theft: as many at once as there may be, it is noted
/// before any is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_use_and_a_late_exchange_at_once_never_both_win() {
    for _ in 0..10 {
        let (t, ann) = stopped().await;
        let holder = ann.refreshed(&t).await;
        t.clock.advance(seconds(11));
        let uses = all((0..8).map(|_| holder.get(&t, "/v1/me")));
        let (uses, late) = tokio::join!(uses, IntoFuture::into_future(t.refresh(&ann.refresh_token)));
        let used = uses.iter().any(|answer| answer.code == 200);
        // Whoever was answered was there before the exchange, which then saw it.
        assert_ne!(used, late.code == 200, "{}", late.text);
        holder.get(&t, "/v1/me").await.problem(401, "unauthenticated");
    }
}
