//! Throttles: how often passwords, codes, sign-ups and mails may be tried, whoever asks and however.

use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::{
    app::{PASSWORD, TestApp},
    database::postgres,
    http::{Answer, Call},
};

/// What production has, behind a proxy on this machine, so that a test can call from anywhere.
const LIMITS: &[(&str, &str)] = &[
    ("DM__SERVER__TRUSTED_PROXIES", "127.0.0.1"),
    ("DM__AUTH__THROTTLE__LOGIN_ACCOUNT__BURST", "10"),
    ("DM__AUTH__THROTTLE__LOGIN_ACCOUNT__EVERY", "1m"),
    ("DM__AUTH__THROTTLE__LOGIN_PAIR__BURST", "5"),
    ("DM__AUTH__THROTTLE__LOGIN_PAIR__EVERY", "1m"),
    ("DM__AUTH__THROTTLE__LOGIN_ADDRESS__BURST", "30"),
    ("DM__AUTH__THROTTLE__LOGIN_ADDRESS__EVERY", "3s"),
    ("DM__AUTH__THROTTLE__SIGNUP_ADDRESS__BURST", "5"),
    ("DM__AUTH__THROTTLE__SIGNUP_ADDRESS__EVERY", "20m"),
    ("DM__AUTH__THROTTLE__MAIL_RECIPIENT__BURST", "3"),
    ("DM__AUTH__THROTTLE__MAIL_RECIPIENT__EVERY", "1h"),
    ("DM__AUTH__THROTTLE__MAIL_ADDRESS__BURST", "5"),
    ("DM__AUTH__THROTTLE__MAIL_ADDRESS__EVERY", "1m"),
    ("DM__AUTH__THROTTLE__CODE_ADDRESS__BURST", "20"),
    ("DM__AUTH__THROTTLE__CODE_ADDRESS__EVERY", "6s"),
];

const WRONG: &str = "another long enough password";

fn login(t: &TestApp, from: &str, email: &str, password: &str) -> Call {
    t.post("/v1/auth/login", json!({"email": email, "password": password})).header("x-forwarded-for", from)
}

/// With these limits and a clock that only the test moves: a bucket gets nothing back while the test is busy.
pub async fn limited() -> TestApp {
    let t = TestApp::with(LIMITS).await;
    t.clock.stop();
    t
}

/// The seconds that a refusal says to wait, as a header and in the body.
#[track_caller]
fn wait(answer: Answer) -> i64 {
    let header: i64 = answer.header("retry-after").parse().expect("there is a Retry-After");
    assert_eq!(answer.problem(429, "rate_limited")["retry_after_s"], header);
    header
}

/// Tries until it is refused; says how often it was not, and how long to wait.
async fn until_refused(mut call: impl FnMut(usize) -> Call) -> (usize, i64) {
    for n in 0..1000 {
        let answer = call(n).await;
        if answer.code == 429 {
            return (n, wait(answer));
        }
        assert_eq!(answer.code, 401, "{}", answer.text);
    }
    panic!("it was never refused");
}

fn seconds(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

/// As in matrix-authentication-service: a name that nobody has was looked up before the limit, and not limited.
#[tokio::test]
async fn one_address_has_five_tries_at_an_account_and_then_one_a_minute() {
    let t = limited().await;
    t.sign_up("ann@example.com").await;
    for email in ["ann@example.com", "nobody@example.com"] {
        let from = |_| login(&t, "198.51.100.7", email, WRONG);
        assert_eq!(until_refused(from).await, (5, 60), "{email}");
        // It is true, to the second: earlier it does not help.
        t.clock.advance(seconds(59));
        assert_eq!(wait(from(0).await), 1);
        t.clock.advance(seconds(1));
        from(0).await.problem(401, "invalid_credentials");
        wait(from(0).await);
        // The right password is refused like any other: it is not even looked at.
        let before = t.background.auth.passwords_hashed();
        wait(login(&t, "198.51.100.7", email, PASSWORD).await);
        assert_eq!(t.background.auth.passwords_hashed(), before);
        login(&t, "198.51.100.8", email, WRONG).await.problem(401, "invalid_credentials");
    }
}

#[tokio::test]
async fn an_account_has_ten_tries_from_all_addresses_together() {
    let t = limited().await;
    t.sign_up("ann@example.com").await;
    for email in ["ann@example.com", "nobody@example.com"] {
        let refused = until_refused(|n| login(&t, &format!("198.51.100.{n}"), email, WRONG)).await;
        assert_eq!(refused, (10, 60), "{email}");
        // Spelling the address another way is no other account.
        wait(login(&t, "203.0.113.1", &email.to_uppercase(), WRONG).await);
        wait(login(&t, "203.0.113.1", &format!(" {email} "), WRONG).await);
    }
}

/// As in CVE-2026-45364 of Better Auth: another spelling, or another address of the /64, had a fresh bucket.
#[tokio::test]
async fn two_hundred_addresses_of_one_network_and_other_spellings_are_one_address() {
    let t = limited().await;
    let spellings = [
        "2001:DB8:0001:0002:0000:0000:0000:0001",
        "2001:db8:1:2::1",
        "[2001:db8:1:2::1]",
        "[2001:db8:1:2::ffff]:4711",
        "2001:db8:1:2:0:0:198.51.100.7",
    ];
    let mut admitted = 0;
    for n in 0..200 {
        let from = match spellings.get(n) {
            Some(spelling) => (*spelling).to_owned(),
            None => format!("2001:db8:1:2:{:x}:{:x}::{n:x}", n * 7, n * 13),
        };
        let answer = login(&t, &from, &format!("nobody{n}@example.com"), WRONG).await;
        match answer.code {
            401 => admitted += 1,
            _ => assert_eq!(wait(answer), 3),
        }
    }
    assert_eq!(admitted, 30);
    login(&t, "2001:db8:1:3::1", "nobody@example.com", WRONG).await.problem(401, "invalid_credentials");

    let spellings = ["203.0.113.9", "::ffff:203.0.113.9", "::ffff:cb00:7109", "[::FFFF:203.0.113.9]:80"];
    let (tries, _) =
        until_refused(|n| login(&t, spellings[n % 4], &format!("somebody{n}@example.com"), WRONG)).await;
    assert_eq!(tries, 30);
}

#[tokio::test]
async fn a_header_of_somebody_who_is_no_proxy_changes_nothing() {
    let mut limits = LIMITS.to_vec();
    limits[0] = ("DM__SERVER__TRUSTED_PROXIES", "10.0.0.0/8");
    let t = TestApp::with(&limits).await;
    t.clock.stop();
    let (tries, _) = until_refused(|n| login(&t, &format!("198.51.100.{n}"), "ann@example.com", WRONG)).await;
    assert_eq!(tries, 5, "all of them came from one address");
}

#[tokio::test]
async fn a_proxy_cannot_be_made_to_name_another_client() {
    let t = limited().await;
    let (tries, _) = until_refused(|n| {
        login(&t, &format!("203.0.113.{n}, 198.51.100.7"), "ann@example.com", WRONG)
            .header("forwarded", &format!("for=203.0.113.{n}"))
            .header("x-real-ip", &format!("203.0.113.{n}"))
    })
    .await;
    assert_eq!(tries, 5);
}

/// As in CVE-2025-64526 of Strapi: a field of the body was part of the bucket's key.
#[tokio::test]
async fn nothing_that_a_caller_adds_resets_a_limit() {
    let t = limited().await;
    let (tries, _) = until_refused(|n| {
        let body = json!({"email": "ann@example.com", "password": format!("{WRONG} {n}"), "device_name": format!("d{n}")});
        Call::new(t.request("POST", &format!("/v1/auth/login?n={n}")).json(&body))
            .header("x-forwarded-for", "198.51.100.7")
            .header("user-agent", &format!("agent {n}"))
            .header("cookie", &format!("__Host-dm_device={}", "A".repeat(43)))
            .header("x-request-id", &format!("request-{n:04}"))
            .bearer(&format!("token{n}"))
    })
    .await;
    assert_eq!(tries, 5);
    for n in 0..3 {
        let mut body = json!({"email": "ann@example.com", "password": WRONG});
        body[format!("field{n}")] = json!(n);
        let added = t.post("/v1/auth/login", body).header("x-forwarded-for", "198.51.100.7").await;
        added.invalid(&format!("/field{n}"), "unknown_field");
    }
    wait(login(&t, "198.51.100.7", "ann@example.com", WRONG).await);
}

#[tokio::test]
async fn who_signs_in_rightly_is_not_held_up() {
    let t = limited().await;
    t.sign_up("ann@example.com").await;
    for _ in 0..25 {
        login(&t, "198.51.100.7", "ann@example.com", PASSWORD).await.ok();
    }
    // Mistyping now and then neither.
    for _ in 0..3 {
        t.clock.advance(seconds(60));
        login(&t, "198.51.100.7", "ann@example.com", WRONG).await.problem(401, "invalid_credentials");
        login(&t, "198.51.100.7", "ann@example.com", PASSWORD).await.ok();
    }
}

#[tokio::test]
async fn an_account_of_ones_own_does_not_buy_tries_at_another() {
    let t = limited().await;
    t.sign_up("ann@example.com").await;
    t.sign_up("thief@example.com").await;
    let mut admitted = 0;
    for _ in 0..12 {
        login(&t, "198.51.100.7", "thief@example.com", PASSWORD).await;
        admitted += usize::from(login(&t, "198.51.100.7", "ann@example.com", WRONG).await.code == 401);
    }
    assert_eq!(admitted, 5);
    // Nor does it give the address anything back: twelve and five are taken from its thirty.
    let (tries, _) = until_refused(|n| login(&t, "198.51.100.7", &format!("x{n}@example.com"), WRONG)).await;
    assert_eq!(tries, 13);
}

#[tokio::test]
async fn a_device_that_signed_in_before_is_not_kept_out_by_strangers() {
    let t = limited().await;
    t.sign_up("ann@example.com").await;
    t.sign_up("eve@example.com").await;
    let cookie = |answer: &Answer| {
        let set = answer.header("set-cookie").to_owned();
        for part in
            ["__Host-dm_device=", "Path=/", "HttpOnly", "Secure", "SameSite=Strict", "Max-Age=34560000"]
        {
            assert!(set.contains(part), "{set}");
        }
        assert!(!set.contains("Domain"), "{set}");
        set.split(';').next().unwrap().to_owned()
    };
    let anns = cookie(&login(&t, "192.0.2.1", "ann@example.com", PASSWORD).await);
    let eves = cookie(&login(&t, "192.0.2.2", "eve@example.com", PASSWORD).await);
    let again = cookie(&login(&t, "192.0.2.1", "ann@example.com", PASSWORD).header("cookie", &anns).await);
    assert_eq!(again, anns, "another entry would be another bucket");
    let both = cookie(&login(&t, "192.0.2.1", "eve@example.com", PASSWORD).header("cookie", &anns).await);

    until_refused(|n| login(&t, &format!("198.51.100.{n}"), "ann@example.com", WRONG)).await;
    wait(login(&t, "203.0.113.1", "ann@example.com", PASSWORD).await);
    let with = |cookie: &str, from: &str, password| {
        login(&t, from, "ann@example.com", password).header("cookie", cookie)
    };
    with(&format!("a=b; {anns}; c=d"), "203.0.113.1", PASSWORD).await.ok();
    with(&both, "203.0.113.1", PASSWORD).await.ok();

    // One of another account, a made-up one, a changed one: as if there were none.
    let mut changed = anns.clone();
    let last = if changed.pop() == Some('A') { 'B' } else { 'A' };
    changed.insert(30, last);
    for cookie in [&eves, "__Host-dm_device=", &format!("__Host-dm_device={}", "A".repeat(43)), &changed] {
        wait(with(cookie, "203.0.113.2", PASSWORD).await);
    }

    // It buys a bucket and nothing else: that one is empty at last, too, and the address's before it.
    let (tries, _) = until_refused(|n| with(&anns, &format!("203.0.113.{}", 10 + n), WRONG)).await;
    assert_eq!(tries, 10);
    t.get("/v1/me").header("cookie", &anns).await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn one_address_signs_up_five_people_and_then_three_an_hour() {
    let t = limited().await;
    let body = t.signup_body("x@example.com").await;
    let sign_up = |n: usize, from: &str| {
        let mut body = body.clone();
        body["email"] = json!(format!("person{n}@example.com"));
        t.post("/v1/auth/signup", body).header("x-forwarded-for", from)
    };
    for n in 0..5 {
        sign_up(n, "198.51.100.7").await.status(202);
    }
    let before = t.background.auth.passwords_hashed();
    assert_eq!(wait(sign_up(5, "198.51.100.7").await), 1200);
    assert_eq!(t.background.auth.passwords_hashed(), before, "a refusal costs no hash");
    sign_up(5, "198.51.100.8").await.status(202);
    t.clock.advance(seconds(1200));
    sign_up(6, "198.51.100.7").await.status(202);
    wait(sign_up(7, "198.51.100.7").await);
}

#[tokio::test]
async fn nobody_gets_more_than_three_mails_and_then_one_an_hour() {
    let t = limited().await;
    t.sign_up("known@example.com").await;
    t.clock.advance(SignedDuration::from_hours(24));
    let body = t.signup_body("x@example.com").await;
    for email in ["known@example.com", "new@example.com"] {
        let sign_up = |n: usize| {
            let mut body = body.clone();
            body["email"] = json!(email);
            t.post("/v1/auth/signup", body).header("x-forwarded-for", &format!("198.51.100.{n}"))
        };
        let started: Value = sign_up(0).await.status(202);
        for n in 1..3 {
            sign_up(n).await.status(202);
        }
        assert_eq!(wait(sign_up(3).await), 3600, "{email}");
        // A new code is a mail, too.
        t.clock.advance(seconds(60));
        let resend = t.post("/v1/auth/signup/resend", json!({"signup_token": started["signup_token"]}));
        assert_eq!(wait(resend.header("x-forwarded-for", "203.0.113.5").await), 3540);
    }
    t.background.run_due().await.unwrap();
    assert_eq!(t.mailbox.mails(Some("new@example.com")).len(), 3);
}

#[tokio::test]
async fn one_address_tries_twenty_codes_and_then_ten_a_minute() {
    let t = limited().await;
    let verify = json!({"signup_token": "dm_su_x", "code": "12345678"});
    for (path, body, from) in [
        ("/v1/auth/signup/verify", verify, "198.51.100.1"),
        ("/v1/auth/signup/resend", json!({"signup_token": "dm_su_x"}), "198.51.100.2"),
        ("/v1/auth/unlock", json!({"token": "dm_ul_x"}), "198.51.100.3"),
        ("/v1/auth/email/undo", json!({"token": "dm_eu_x"}), "198.51.100.4"),
        ("/v1/auth/password/reset", json!({"token": "dm_pr_x", "password": PASSWORD}), "198.51.100.5"),
    ] {
        let call = || t.post(path, body.clone()).header("x-forwarded-for", from);
        for _ in 0..20 {
            call().await.problem(400, "invalid_code");
        }
        assert_eq!(wait(call().await), 6, "{path}");
        t.clock.advance(seconds(6));
        call().await.problem(400, "invalid_code");
    }
}

/// As in CVE-2026-9798 of Keycloak: one way to try a password was not limited.
#[tokio::test]
async fn every_way_to_try_a_password_takes_from_the_same_bucket() {
    let t = limited().await;
    let ann = t.sign_up("ann@example.com").await;
    let again = json!({"method": "password", "password": WRONG});
    let change = json!({"current_password": WRONG, "new_password": "nine loud lanterns at dawn"});
    let ways = [("/v1/auth/reauthenticate", again), ("/v1/me/password", change)];
    for (path, body) in &ways {
        let call = || ann.post(&t, path, body.clone()).header("x-forwarded-for", "198.51.100.7");
        login(&t, "198.51.100.7", "ann@example.com", WRONG).await.problem(401, "invalid_credentials");
        for _ in 0..4 {
            call().await.problem(401, "invalid_credentials");
        }
        wait(call().await);
        wait(login(&t, "198.51.100.7", "ann@example.com", PASSWORD).await);
        t.clock.advance(seconds(300));
    }
    // Right ones are not counted there either.
    for _ in 0..7 {
        let right = json!({"method": "password", "password": PASSWORD});
        let call = ann.post(&t, "/v1/auth/reauthenticate", right).header("x-forwarded-for", "198.51.100.8");
        assert_eq!(call.await.code, 200);
    }
}

#[tokio::test]
async fn asking_for_a_new_password_is_limited_alike_for_everybody() {
    let t = limited().await;
    t.sign_up("ann@example.com").await;
    t.clock.advance(SignedDuration::from_hours(24));
    for email in ["ann@example.com", "nobody@example.com"] {
        let forgot = |n: usize| {
            let call = t.post("/v1/auth/password/forgot", json!({"email": email}));
            call.header("x-forwarded-for", &format!("198.51.100.{n}"))
        };
        for n in 0..3 {
            forgot(n).await.status(202);
        }
        assert_eq!(wait(forgot(3).await), 3600, "{email}");
    }
    let forgot = |n: usize| {
        let call = t.post("/v1/auth/password/forgot", json!({"email": format!("x{n}@example.com")}));
        call.header("x-forwarded-for", "203.0.113.7")
    };
    for n in 0..5 {
        forgot(n).await.status(202);
    }
    assert_eq!(wait(forgot(5).await), 60);
}

/// As in Rauthy: what was blocked was known in memory only.
#[tokio::test]
async fn a_restart_fills_no_bucket() {
    let t = limited().await;
    let (tries, _) = until_refused(|_| login(&t, "198.51.100.7", "ann@example.com", WRONG)).await;
    assert_eq!(tries, 5);
    let t = t.restart().await;
    wait(login(&t, "198.51.100.7", "ann@example.com", WRONG).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_share_the_buckets() {
    if postgres().is_none() {
        return; // A SQLite file has one instance.
    }
    let t = limited().await;
    let other = t.beside().await;
    let calls = (0..20).map(|n| login([&t, &other][n % 2], "198.51.100.7", "ann@example.com", WRONG));
    let answers = crate::support::http::all(calls).await;
    let admitted = answers.iter().filter(|answer| answer.code == 401).count();
    assert_eq!(admitted, 5, "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tries_at_once_take_no_more_than_there_is() {
    let t = limited().await;
    let calls = (0..40).map(|_| login(&t, "198.51.100.7", "ann@example.com", WRONG));
    let answers = crate::support::http::all(calls).await;
    assert_eq!(answers.iter().filter(|answer| answer.code == 401).count(), 5);
    for answer in answers.into_iter().filter(|answer| answer.code != 401) {
        wait(answer);
    }
    // Who was refused by the pair's bucket has not emptied the others.
    let (tries, _) = until_refused(|n| login(&t, &format!("203.0.113.{n}"), "ann@example.com", WRONG)).await;
    assert_eq!(tries, 5, "the account had ten");
}

#[tokio::test]
async fn a_developer_signs_up_many_people_by_hand() {
    let t = TestApp::start().await;
    for n in 0..15 {
        t.sign_up(&format!("person{n}@example.com")).await;
    }
    for n in 0..40 {
        t.log_in(&format!("person{}@example.com", n % 15)).await;
    }
}

#[tokio::test]
async fn the_table_tells_nothing_about_anybody() {
    digitalmistress::queries! {
        scan fn keys() -> Vec<u8> = "SELECT key FROM throttle";
        scan fn full() -> i64 = "SELECT COUNT(*) FROM throttle";
    }
    let t = limited().await;
    t.sign_up("ann@example.com").await;
    login(&t, "198.51.100.7", "ann@example.com", WRONG).await;
    let keys: Result<Vec<Vec<u8>>, digitalmistress::platform::db::Error> =
        t.db().read_slow(async |c| keys().all(&c).await).await;
    let keys = keys.unwrap();
    assert!(keys.len() >= 7 && keys.iter().all(|key| key.len() == 32));
    // Buckets that are full again are not kept.
    t.clock.advance(SignedDuration::from_hours(24));
    t.background.sweep().await.unwrap();
    let left: Result<i64, digitalmistress::platform::db::Error> =
        t.db().read_slow(async |c| full().one(&c).await).await;
    assert_eq!(left.unwrap(), 0);
}
