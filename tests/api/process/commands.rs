//! The commands, as an operator types them.

use std::{ffi::OsString, os::unix::ffi::OsStringExt as _};

use serde_json::json;

use crate::support::{
    app::PASSWORD,
    database::TestDatabase,
    process::{Ended, Server, run, run_with},
};
use secrecy::ExposeSecret as _;

#[test]
fn check_config_lists_every_fault_and_says_so_by_its_status() {
    let bad = run(&["check-config"], &[("DM__SERVER__TYPO", "1"), ("DM__LOG__LEVEL", "loud")], "");
    assert!(!bad.success);
    for named in ["DM__SERVER__TYPO", "DM__LOG__LEVEL", "DM__SECURITY__MASTER_KEYS", "DM__CHAT__ROUTE"] {
        assert!(bad.stderr.contains(named), "{named}:\n{}", bad.stderr);
    }
    let good = run(&["check-config", "--profile", "development"], &[], "");
    assert!(good.success && good.stdout.contains("sound"), "{good:?}");
    let by_variable = run(&["check-config"], &[("DM_PROFILE", "development")], "");
    assert!(by_variable.success);
    assert!(!run(&["check-config"], &[("DM_PROFILE", "staging")], "").success);
    let odd =
        run_with(&["check-config"], &[("DM__SERVER__DATA_DIR".into(), OsString::from_vec(vec![0xff]))], "");
    assert!(!odd.success && odd.stderr.contains("DM__SERVER__DATA_DIR is not UTF-8"), "{odd:?}");
    assert!(!run(&["serve", "--profile", "development"], &[], "").success);
    assert!(!run(&["dev", "--profile", "production"], &[], "").success);
}

#[test]
fn openapi_prints_the_document_without_any_settings() {
    let printed = run(&["openapi"], &[], "");
    assert!(printed.success, "{}", printed.stderr);
    assert_eq!(printed.stdout, std::fs::read_to_string("docs/openapi.json").unwrap());
}

#[tokio::test]
async fn migrate_brings_a_schema_up_to_date_and_says_what_it_did() {
    let database = TestDatabase::new().await;
    let env = [
        ("DM_PROFILE", "development"),
        ("DM__SERVER__DATA_DIR", database.dir.path().to_str().unwrap()),
        ("DM__DATABASE__URL", database.settings.url.expose_secret()),
    ];
    let first = run(&["migrate"], &env, "");
    assert!(first.success && first.stdout.contains("applied 0001_platform.sql"), "{first:?}");
    let second = run(&["migrate"], &env, "");
    assert!(second.success && second.stdout.contains("up to date"), "{second:?}");
}

fn create_user(env: &[(&str, &str)], email: &str, role: &str, password: &str) -> Ended {
    run(&["user", "create", "--email", email, "--role", role, "--password-stdin"], env, password)
}

#[tokio::test]
async fn an_operator_creates_users_beside_a_running_server() {
    let database = TestDatabase::new().await;
    let data = database.dir.path().join("data");
    let url = database.settings.url.expose_secret();
    let server = Server::dev(&data, url, &[]);
    let env = [
        ("DM_PROFILE", "development"),
        ("DM__SERVER__DATA_DIR", data.to_str().unwrap()),
        ("DM__DATABASE__URL", url),
    ];

    let created = create_user(&env, "boss@example.com", "admin", &format!("{PASSWORD}\n"));
    assert!(created.success, "{}", created.stderr);
    let id = created.stdout.trim().strip_prefix("created ").unwrap().to_owned();
    for (email, password, complaint) in [
        ("boss@example.com", PASSWORD, "the address is taken"),
        ("other@example.com", "short", "at least 15 characters"),
        ("nobody", PASSWORD, "not an e-mail address"),
    ] {
        let refused = create_user(&env, email, "user", password);
        assert!(!refused.success && refused.stderr.contains(complaint), "{refused:?}");
        assert!(!refused.stderr.contains(password) && !refused.stdout.contains(password));
    }

    // The operator vouches for age and consents, so that user can chat.
    let client = reqwest::Client::new();
    let login = client.post(format!("{}/v1/auth/login", server.base));
    let tokens: serde_json::Value = login
        .json(&json!({"email": "boss@example.com", "password": PASSWORD}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!((&tokens["user"]["id"], &tokens["user"]["role"]), (&json!(id), &json!("admin")));
    assert_eq!(tokens["user"]["age_assurance"], "operator");
    let chat =
        client.post(format!("{}/v1/chat", server.base)).bearer_auth(tokens["access_token"].as_str().unwrap());
    let chat = chat.json(&crate::support::app::message("c", "m1", "hello")).send().await.unwrap();
    assert_eq!(chat.status(), 200);
}

#[tokio::test]
async fn another_master_key_is_refused_by_name() {
    let database = TestDatabase::new().await;
    let (data, url) = (database.dir.path().join("data"), database.settings.url.expose_secret());
    let mut server = Server::dev(&data, url, &[]);
    server.terminate();
    let ended = run(
        &["dev"],
        &[
            ("DM__SERVER__LISTEN", "127.0.0.1:0"),
            ("DM__SERVER__DATA_DIR", data.to_str().unwrap()),
            ("DM__DATABASE__URL", url),
            ("DM__SECURITY__MASTER_KEYS", "other:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ],
        "",
    );
    assert!(!ended.success);
    assert!(ended.stderr.contains("the master keys cannot be used with this database"), "{}", ended.stderr);
}
