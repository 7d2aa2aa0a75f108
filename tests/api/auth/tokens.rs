//! Access tokens as an attacker and as another service see them.

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as B64};
use serde_json::{Value, json};

use crate::support::app::TestApp;

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&B64.decode(part).unwrap()).unwrap()
}

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
