//! Access tokens as an attacker and as another service see them.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use serde_json::{Value, json};

use crate::support::app::{TestApp, part};

fn with_part(token: &str, index: usize, change: impl Fn(&mut Value)) -> String {
    let mut value = part(token, index);
    change(&mut value);
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts[index] = B64.encode(value.to_string());
    parts.join(".")
}

#[tokio::test]
async fn anybody_can_verify_a_token_with_the_published_key() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let answer = t.get("/.well-known/jwks.json").await;
    assert_eq!(answer.header("cache-control"), "public, max-age=600");
    let jwks = answer.ok();
    let key = &jwks["keys"][0];
    assert_eq!((&key["kty"], &key["crv"], &key["alg"]), (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA")));
    assert!(key.get("d").is_none(), "a private key was published");

    let header = part(&ann.access_token, 0);
    assert_eq!(
        (&header["typ"], &header["alg"], &header["kid"]),
        (&json!("at+jwt"), &json!("EdDSA"), &key["kid"])
    );
    let (signed, signature) = ann.access_token.rsplit_once('.').unwrap();
    UnparsedPublicKey::new(&ED25519, B64.decode(key["x"].as_str().unwrap()).unwrap())
        .verify(signed.as_bytes(), &B64.decode(signature).unwrap())
        .unwrap();

    let claims = part(&ann.access_token, 1);
    let names: Vec<&str> = claims.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["iss", "aud", "sub", "sid", "gen", "jti", "iat", "nbf", "exp", "auth_time", "amr"]);
    assert_eq!(claims["sub"], ann.id);
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
    assert_eq!(claims["amr"], json!(["pwd"]));
    assert!(!claims.to_string().contains("example.com"), "personal data in a token");
}

#[tokio::test]
async fn a_token_that_was_touched_is_refused() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let bob = t.sign_up("bob@example.com").await;
    let token = ann.access_token.as_str();
    let unsigned = |token: String| format!("{}.", token.rsplit_once('.').unwrap().0);
    let signature_of_bob =
        format!("{}.{}", token.rsplit_once('.').unwrap().0, bob.access_token.rsplit_once('.').unwrap().1);
    for forged in [
        String::new(),
        "a.b.c".into(),
        format!("{token}x"),
        signature_of_bob,
        unsigned(token.to_owned()),
        unsigned(with_part(token, 0, |header| header["alg"] = json!("none"))),
        with_part(token, 0, |header| header["alg"] = json!("none")),
        with_part(token, 0, |header| header["alg"] = json!("HS256")),
        with_part(token, 0, |header| header["typ"] = json!("JWT")),
        with_part(token, 0, |header| header["kid"] = json!("another")),
        with_part(token, 0, |header| {
            header.as_object_mut().unwrap().remove("kid");
        }),
        with_part(token, 1, |claims| claims["sub"] = json!(bob.id)),
        with_part(token, 1, |claims| claims["exp"] = json!(i64::MAX)),
        ann.refresh_token.clone(),
    ] {
        t.get("/v1/me").bearer(&forged).await.problem(401, "unauthenticated");
    }
    for header in ["Basic YW5uOng=", "Bearer", &format!("Token {token}"), "bearer  ", "Bearer \u{e9}"] {
        t.get("/v1/me").header("authorization", header).await.problem(401, "unauthenticated");
    }
    t.get("/v1/me").header("authorization", &format!("bEaReR {token}")).await.ok();
}

/// Signed with the published key's bytes as an HMAC secret: works where the algorithm is taken from the header.
#[tokio::test]
async fn the_public_key_is_not_a_secret() {
    let t = TestApp::start().await;
    let ann = t.sign_up("ann@example.com").await;
    let jwks = t.get("/.well-known/jwks.json").await.ok();
    let x = jwks["keys"][0]["x"].as_str().unwrap();
    let token = with_part(&ann.access_token, 0, |header| header["alg"] = json!("HS256"));
    let signed = token.rsplit_once('.').unwrap().0.to_owned();
    for secret in [B64.decode(x).unwrap(), x.as_bytes().to_vec()] {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &secret);
        let signature = B64.encode(aws_lc_rs::hmac::sign(&key, signed.as_bytes()));
        t.get("/v1/me").bearer(&format!("{signed}.{signature}")).await.problem(401, "unauthenticated");
    }
}

/// Another deployment's token, signed with its own key, and one for another audience with ours.
#[tokio::test]
async fn a_token_of_another_deployment_is_refused() {
    let here = TestApp::start().await;
    let there = TestApp::start().await;
    let ann = there.sign_up("ann@example.com").await;
    here.get("/v1/me").bearer(&ann.access_token).await.problem(401, "unauthenticated");

    let moved = TestApp::with(&[]).await;
    let bob = moved.sign_up("bob@example.com").await;
    let moved = moved.restart_with(&[("DM__SERVER__PUBLIC_URL", "http://localhost:2")]).await;
    moved.get("/v1/me").bearer(&bob.access_token).await.problem(401, "unauthenticated");
}

/// Signs whatever it is told to with the deployment's own key: what is refused then is refused for what it says.
struct Forger {
    key: aws_lc_rs::signature::Ed25519KeyPair,
}

impl Forger {
    async fn of(t: &TestApp) -> Forger {
        use std::sync::Arc;

        use digitalmistress::platform::{
            data_dir::development_master_key,
            db::Error,
            keyring::{Keyring, Service},
            random::SystemRandom,
            seal::{MasterKeys, Place, Sealed},
        };
        use secrecy::ExposeSecret as _;

        digitalmistress::queries! {
            scan fn newest_key() -> Key = "SELECT kid, private_key FROM signing_key ORDER BY number DESC LIMIT 1";
        }
        digitalmistress::record! {
            struct Key {
                kid: String,
                private_key: Sealed,
            }
        }
        let file = t.database.dir.path().join("data").join("master.key");
        let masters = development_master_key(&file, &SystemRandom).unwrap();
        let masters = MasterKeys::parse(masters.expose_secret()).unwrap();
        let keyring =
            Keyring::open(t.db().clone(), masters, Arc::new(SystemRandom), t.clock.clone()).await.unwrap();
        let stored: Result<Key, Error> = t.db().read(async |c| newest_key().one(&c).await).await;
        let Key { kid, private_key } = stored.unwrap();
        let place = Place::new("signing_key.private_key", kid.as_bytes());
        let private = keyring.service(Service::Signing).unwrap().open(place, &private_key).unwrap();
        Forger { key: aws_lc_rs::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&private).unwrap() }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
        format!("{signed}.{}", B64.encode(self.key.sign(signed.as_bytes())))
    }
}

/// As in CVE-2026-55669 and GHSA-wxg7-w2v3-w38g of Zitadel: claims that nobody checked.
#[tokio::test]
async fn a_token_with_our_signature_is_refused_for_what_it_says_or_leaves_out() {
    let t = TestApp::start().await;
    t.clock.stop();
    let ann = t.sign_up("ann@example.com").await;
    let bob = t.sign_up("bob@example.com").await;
    let forger = Forger::of(&t).await;
    let (header, claims) = (part(&ann.access_token, 0), part(&ann.access_token, 1));
    let now = t.now().as_second();
    let accepted = forger.sign(&header, &claims);
    t.get("/v1/me").bearer(&accepted).await.ok(); // The forger can do it.

    let mut forged = Vec::new();
    for name in claims.as_object().unwrap().keys() {
        let mut without = claims.clone();
        without.as_object_mut().unwrap().shift_remove(name);
        forged.push((format!("without {name}"), forger.sign(&header, &without)));
        for wrong in [json!(null), json!({}), json!([1]), json!("x"), json!(true)] {
            let mut with = claims.clone();
            with[name] = wrong.clone();
            forged.push((format!("{name} = {wrong}"), forger.sign(&header, &with)));
        }
    }
    for (name, value) in [
        ("iss", json!("https://evil.example")),
        ("aud", json!("https://evil.example")),
        ("sub", json!(bob.id)),
        ("sid", json!(bob.session)),
        ("gen", json!(2)),
        ("gen", json!(0)),
        ("gen", json!(-1)),
        ("exp", json!(now - 30)),
        ("exp", json!(0)),
        ("exp", json!(1.5)),
        ("nbf", json!(now + 31)),
        ("iat", json!(now + 31)),
    ] {
        let mut with = claims.clone();
        with[name] = value.clone();
        forged.push((format!("{name} = {value}"), forger.sign(&header, &with)));
    }
    let jwk = t.get("/.well-known/jwks.json").await.ok()["keys"][0].clone();
    for (name, value) in [
        ("alg", json!("none")),
        ("alg", json!("HS256")),
        ("alg", json!("ES256")),
        ("typ", json!("JWT")),
        ("typ", json!("rt+jwt")),
        ("typ", json!(null)),
        ("kid", json!("another")),
        ("kid", json!("../../dev/null")),
        ("kid", json!(null)),
        ("jwk", jwk),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
    ] {
        let mut with = header.clone();
        with[name] = value.clone();
        forged.push((format!("{name} = {value}"), forger.sign(&with, &claims)));
    }
    let mut padded = claims.clone();
    padded["more"] = json!("x".repeat(4000));
    forged.push(("too long".into(), forger.sign(&header, &padded)));
    forged.push(("a refresh token".into(), ann.refresh_token.clone()));
    for (what, token) in forged {
        let answer = t.get("/v1/me").bearer(&token).await;
        assert_eq!(answer.code, 401, "{what}: {}", answer.text);
    }
    t.get("/v1/me").bearer(&accepted).await.ok();
}

/// What is remembered of a token is its signature. Time and session are asked anew.
#[tokio::test]
async fn a_token_that_was_accepted_before_is_not_accepted_for_that() {
    let t = TestApp::start().await;
    t.clock.stop();
    let ann = t.sign_up("ann@example.com").await;
    for _ in 0..2 {
        ann.get(&t, "/v1/me").await.ok();
    }
    let bob = t.sign_up("bob@example.com").await;
    bob.get(&t, "/v1/me").await.ok();
    bob.post(&t, "/v1/auth/logout", json!({})).await.status(204);
    bob.get(&t, "/v1/me").await.problem(401, "unauthenticated");

    t.clock.advance(jiff::SignedDuration::from_secs(629));
    ann.get(&t, "/v1/me").await.ok();
    t.clock.advance(jiff::SignedDuration::from_secs(1));
    for _ in 0..2 {
        ann.get(&t, "/v1/me").await.problem(401, "unauthenticated");
    }
}
