//! Passwords as they are stored: keyed, and made anew when the parameters or the key lag.

use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, Version, password_hash::phc::PasswordHash};
use digitalmistress::platform::db::Error;
use serde_json::json;

use crate::support::app::{PASSWORD, TestApp};

digitalmistress::queries! {
    fn stored_hash(email_key: str) -> String = "SELECT password_hash FROM app_user WHERE email_key = $1";
    fn set_hash(email_key: str, hash: str) = "UPDATE app_user SET password_hash = $2 WHERE email_key = $1";
}

async fn stored(t: &TestApp, email: &str) -> String {
    let found: Result<String, Error> = t.db().read(async |c| stored_hash(email).one(&c).await).await;
    found.unwrap()
}

#[tokio::test]
async fn a_stored_hash_is_useless_without_the_service_key() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    let stored = stored(&t, "ann@example.com").await;
    let hash = PasswordHash::new(&stored).unwrap();
    let params = Params::try_from(&hash).unwrap();
    assert_eq!(params.keyid().len(), 8, "the key is named: {stored}");
    let mut unkeyed = [0; 32];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(PASSWORD.as_bytes(), &hash.salt.unwrap(), &mut unkeyed)
        .unwrap();
    assert_ne!(hash.hash.unwrap().as_bytes(), unkeyed);
}

#[tokio::test]
async fn a_hash_that_lags_is_replaced_by_the_next_login() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    let current = stored(&t, "ann@example.com").await;
    let old = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8192, 1, 1, None).unwrap())
        .hash_password_with_salt(PASSWORD.as_bytes(), b"sixteen bytes ok")
        .unwrap()
        .to_string();
    t.db()
        .write({
            let old = old.clone();
            async move |c| set_hash("ann@example.com", &old).exec(&c).await
        })
        .await
        .unwrap();

    let wrong = json!({"email": "ann@example.com", "password": "another long enough password"});
    t.post("/v1/auth/login", wrong).await.problem(401, "invalid_credentials");
    assert_eq!(stored(&t, "ann@example.com").await, old, "only the right password shows what to hash");
    t.log_in("ann@example.com").await;
    let renewed = stored(&t, "ann@example.com").await;
    let shape = |hash: &str| hash.split('$').take(4).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(shape(&renewed), shape(&current));
    t.log_in("ann@example.com").await;
    assert_eq!(stored(&t, "ann@example.com").await, renewed, "what does not lag stays");
}

#[tokio::test]
async fn a_restart_keeps_the_key() {
    let t = TestApp::start().await;
    t.sign_up("ann@example.com").await;
    let t = t.restart().await;
    t.log_in("ann@example.com").await;
}
