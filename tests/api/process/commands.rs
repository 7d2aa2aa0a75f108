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

/// A running server, and what a command beside it needs to know.
fn beside(database: &TestDatabase) -> (Server, Vec<(String, String)>) {
    let data = database.dir.path().join("data");
    let url = database.settings.url.expose_secret();
    let server = Server::dev(&data, url, &[]);
    let env = [
        ("DM_PROFILE", "development"),
        ("DM__SERVER__DATA_DIR", data.to_str().unwrap()),
        ("DM__DATABASE__URL", url),
    ];
    (server, env.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec())
}

fn command(env: &[(String, String)], arguments: &[&str]) -> Ended {
    let env: Vec<(&str, &str)> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    run(arguments, &env, PASSWORD)
}

struct Caller {
    base: String,
    client: reqwest::Client,
}

impl Caller {
    async fn post(&self, path: &str, body: serde_json::Value) -> (u16, serde_json::Value) {
        let answer = self.client.post(format!("{}{path}", self.base)).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn log_in(&self) -> (u16, serde_json::Value) {
        self.post("/v1/auth/login", json!({"email": "ann@example.com", "password": PASSWORD})).await
    }

    async fn get(&self, path: &str, tokens: &serde_json::Value) -> u16 {
        let request = self.client.get(format!("{}{path}", self.base));
        let token = tokens["access_token"].as_str().unwrap();
        request.bearer_auth(token).send().await.unwrap().status().as_u16()
    }
}

/// As in CVE-2025-62174 of Mastodon: what a command does to an account must not leave sessions alive.
#[tokio::test]
async fn an_operator_manages_users_beside_a_running_server() {
    let database = TestDatabase::new().await;
    let (server, env) = beside(&database);
    let created = command(
        &env,
        &["user", "create", "--email", "ann@example.com", "--role", "user", "--password-stdin"],
    );
    assert!(created.success, "{created:?}");
    let id = created.stdout.trim().strip_prefix("created ").unwrap();
    let caller = Caller { base: server.base.clone(), client: reqwest::Client::new() };
    let shown = |ended: Ended| -> serde_json::Value {
        assert!(ended.success, "{ended:?}");
        serde_json::from_str(&ended.stdout).unwrap()
    };

    let user = shown(command(&env, &["user", "show", "ANN@example.com"]));
    assert_eq!(
        (&user["id"], &user["role"], &user["suspended_at"]),
        (&json!(id), &json!("user"), &json!(null))
    );
    let (_, tokens) = caller.log_in().await;
    assert_eq!(caller.get("/v1/me", &tokens).await, 200);

    let user = shown(command(
        &env,
        &[
            "user",
            "suspend",
            "ann@example.com",
            "--reason",
            "a chargeback",
            "--until",
            "2999-01-01T00:00:00Z",
        ],
    ));
    assert_eq!(user["suspension_reason"], "a chargeback");
    assert_eq!(user["suspended_until"], "2999-01-01T00:00:00.000Z");
    assert_eq!(caller.get("/v1/me", &tokens).await, 401);
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    assert_eq!(caller.post("/v1/auth/refresh", refresh).await.0, 401);
    assert_eq!(caller.log_in().await.1["code"], "account_suspended");

    assert_eq!(shown(command(&env, &["user", "unsuspend", id]))["suspended_at"], json!(null));
    let (status, tokens) = caller.log_in().await;
    assert_eq!(status, 200);
    let ended = command(&env, &["user", "revoke-sessions", id]);
    assert!(ended.success && ended.stdout.contains(id), "{ended:?}");
    assert_eq!(caller.get("/v1/me", &tokens).await, 401);

    assert_eq!(shown(command(&env, &["user", "set-role", id, "--role", "admin"]))["role"], "admin");
    let (_, tokens) = caller.log_in().await;
    assert_eq!(caller.get("/v1/admin/audit", &tokens).await, 200);
    for (arguments, complaint) in [
        (&["user", "set-role", id, "--role", "user"][..], "the last administrator"),
        (&["user", "suspend", id, "--reason", "r"], "the last administrator"),
        (&["user", "suspend", id, "--reason", " "], "At least one character"),
        (&["user", "suspend", id, "--reason", "r", "--until", "tomorrow"], "A time looks like"),
        (&["user", "show", "nobody@example.com"], "no such user"),
        (&["user", "show", "nobody"], "no such user"),
    ] {
        let refused = command(&env, arguments);
        assert!(!refused.success && refused.stderr.contains(complaint), "{refused:?}");
    }
    assert_eq!(caller.get("/v1/admin/audit", &tokens).await, 200);

    // What was refused left no entry; what was done did, without anybody's name.
    let request = caller.client.get(format!("{}/v1/admin/audit?subject={id}", server.base));
    let answer = request.bearer_auth(tokens["access_token"].as_str().unwrap()).send().await.unwrap();
    let audit: serde_json::Value = answer.json().await.unwrap();
    let by_command: Vec<&serde_json::Value> = audit["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["details"]["by"] == "command" && entry["actor"].is_null())
        .map(|entry| &entry["action"])
        .collect();
    assert_eq!(
        by_command,
        ["user.role_changed", "user.sessions_revoked", "user.unsuspended", "user.suspended", "user.created"]
    );
}

#[tokio::test]
async fn an_operator_changes_the_signing_key_beside_a_running_server() {
    let database = TestDatabase::new().await;
    let (server, env) = beside(&database);
    let caller = Caller { base: server.base.clone(), client: reqwest::Client::new() };
    command(&env, &["user", "create", "--email", "ann@example.com", "--role", "user", "--password-stdin"]);
    let (_, tokens) = caller.log_in().await;

    let first = command(&env, &["keys", "rotate", "signing"]);
    assert!(first.success && first.stdout.starts_with("announced "), "{first:?}");
    let again = command(&env, &["keys", "rotate", "signing"]);
    assert!(again.success && again.stdout.contains("announced already"), "{again:?}");
    let listed = command(&env, &["keys", "list"]);
    let states: Vec<&str> = listed.stdout.lines().map(|line| line.split(' ').nth(1).unwrap()).collect();
    assert_eq!(states, ["announced", "signing"], "{listed:?}");
    assert_eq!(caller.get("/v1/me", &tokens).await, 200);

    let replaced = command(&env, &["keys", "rotate", "signing", "--now"]);
    assert!(replaced.success && replaced.stdout.contains("every other key is revoked"), "{replaced:?}");
    assert_eq!(caller.get("/v1/me", &tokens).await, 401);
    let listed = command(&env, &["keys", "list"]);
    assert_eq!(listed.stdout.matches(" revoked ").count(), 2 + 2, "state and time of both: {listed:?}");
    let new = listed.stdout.split(' ').next().unwrap();

    // The server reads its keys every few seconds; until then it signs with a key that is worthless.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let published = format!("{}/.well-known/jwks.json", server.base);
    loop {
        let jwks: serde_json::Value =
            caller.client.get(&published).send().await.unwrap().json().await.unwrap();
        if jwks["keys"].as_array().unwrap().len() == 1 && jwks["keys"][0]["kid"] == new {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the server did not notice: {jwks}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    let (status, tokens) = caller.post("/v1/auth/refresh", refresh).await;
    assert_eq!(status, 200, "the session lives");
    assert_eq!(caller.get("/v1/me", &tokens).await, 200);
    for ended in [&first, &again, &replaced, &listed] {
        assert!(!ended.stdout.contains("private"), "{ended:?}");
    }
}

#[test]
fn a_shell_can_complete_every_command_without_any_settings() {
    for shell in ["bash", "zsh", "fish"] {
        let printed = run(&["completions", shell], &[], "");
        assert!(printed.success, "{printed:?}");
        for command in ["backup", "billing", "check-config", "rotate", "set-role"] {
            assert!(printed.stdout.contains(command), "{command} in {shell}");
        }
    }
}
