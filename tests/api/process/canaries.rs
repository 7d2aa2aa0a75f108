//! Nothing private in any log, error or, readable, in the database: canaries are planted and looked for.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    app::{code_in, message, token_in},
    database::TestDatabase,
    http::{Answer, Call},
    process::Server,
    upstream::{Step, Upstream, bytes, delta, finish, json_answer, stream_head},
};
use secrecy::ExposeSecret as _;

const PASSWORD: &str = "canary-password lighthouse";
const NEW_PASSWORD: &str = "canary-new-password lighthouse";
const WAITING_PASSWORD: &str = "canary-waiting-password lighthouse";
/// Addresses that are not the user's: one that was asked for, one that was given up, and one of a sign-up that waits.
const WANTED: &str = "canary-wanted@example.com";
const GIVEN_UP: &str = "canary-given-up@example.com";
const LAST: &str = "canary-last@example.com";
const WAITING: &str = "canary-waiting@example.com";
const TEXT: &str = "canary-message-text";
const REPLY: &str = "canary-reply-text";
const TITLE: &str = "canary-title";
const NAME: &str = "canary-display-name";
const PROVIDER_KEY: &str = "sk-canary-provider-key";
const QUERY: &str = "canary-query";
/// How long the mail may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// A piece of a persona's prompt.
const PROMPT: &str = "Rules that nothing in the conversation changes";

struct Tour {
    client: reqwest::Client,
    base: String,
    answers: Vec<Answer>,
}

impl Tour {
    async fn call(&mut self, method: &str, path: &str, token: &str, body: Value) -> Value {
        let request = self.client.request(method.parse().unwrap(), format!("{}{path}", self.base));
        let request = if body.is_null() { request } else { request.json(&body) };
        let answer = Call::new(request.bearer_auth(token)).await;
        let json = if answer.header("content-type").contains("json") { answer.json() } else { Value::Null };
        self.answers.push(answer);
        json
    }

    /// The text of the newest mail to an address, once it holds `what`.
    async fn mailed(&mut self, email: &str, what: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "the mail did not come");
            let path = format!("/dev/mailbox/messages?to={email}");
            let mails = self.call("GET", &path, "", Value::Null).await;
            match mails["data"][0]["text"].as_str().filter(|text| text.contains(what)) {
                Some(text) => return text.to_owned(),
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// Everything that people and the program do that could leave traces, good and bad. Returns secrets that came up.
async fn tour(server: &Server) -> (Vec<String>, Vec<Answer>) {
    let mut t = Tour { client: reqwest::Client::new(), base: server.base.clone(), answers: Vec::new() };
    let policies = t.call("GET", "/v1/policies", "", Value::Null).await;
    let consents: Value = policies["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|policy| json!({"document": policy["document"], "version": policy["version"]}))
        .collect();
    let email = "canary-address@example.com";
    let signup =
        json!({"email": email, "password": PASSWORD, "birth_date": "1991-02-03", "consents": consents});
    let started = t.call("POST", "/v1/auth/signup", "", signup.clone()).await;
    let code = code_in(&t.mailed(email, "code").await);
    let tokens = t
        .call(
            "POST",
            "/v1/auth/signup/verify",
            "",
            json!({"signup_token": started["signup_token"], "code": code}),
        )
        .await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (access, refresh) = (text(&tokens["access_token"]), text(&tokens["refresh_token"]));
    let mut secrets = vec![text(&started["signup_token"]), code, access.clone(), refresh.clone()];

    t.call("PATCH", "/v1/me", &access, json!({"display_name": NAME})).await;
    t.call("POST", "/v1/conversations", &access, json!({"id": "titled", "title": TITLE})).await;
    for (id, text) in [("m1", TEXT), ("m2", "canary-message-text again"), ("m3", "and once more")] {
        t.call("POST", "/v1/chat", &access, message("c", id, text)).await;
    }
    t.call("POST", "/v1/auth/signup", "", signup.clone()).await;
    let next = t.call("POST", "/v1/auth/refresh", "", json!({"refresh_token": refresh})).await;
    secrets.extend([text(&next["access_token"]), text(&next["refresh_token"])]);

    // Errors of every kind.
    t.call("GET", &format!("/v1/me?{QUERY}={QUERY}"), "canary-not-a-token", Value::Null).await;
    t.call("POST", "/v1/auth/login", "", json!({"email": email, "password": "canary-wrong-password"})).await;
    t.call(
        "POST",
        "/v1/auth/login",
        "",
        json!({"email": email, "password": PASSWORD, "more": "canary-field"}),
    )
    .await;
    t.call("POST", "/v1/auth/refresh", "", json!({"refresh_token": refresh})).await;
    t.call("POST", "/v1/chat", &access, message("c", "m1", "canary-other-text")).await;
    t.call("PATCH", "/v1/me", &access, json!({"display_name": ["canary-list"]})).await;
    t.call("GET", "/v1/conversations/canary-path/messages", &access, Value::Null).await;
    t.call("POST", "/v1/auth/logout", &access, json!({"refresh_token": text(&next["refresh_token"])})).await;
    secrets.extend(credentials(&mut t, email).await);
    secrets.extend(what_waits(&mut t, LAST, signup).await);
    (secrets, t.answers)
}

/// A new password and new addresses. The user's address is [`LAST`] in the end.
async fn credentials(t: &mut Tour, email: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    t.call("POST", "/v1/auth/password/forgot", "", json!({"email": email})).await;
    t.call("POST", "/v1/auth/password/forgot", "", json!({"email": "canary-nobody@example.com"})).await;
    let reset = token_in(&t.mailed(email, "#token=").await, "reset");
    for password in ["canary-short", NEW_PASSWORD] {
        t.call("POST", "/v1/auth/password/reset", "", json!({"token": reset, "password": password})).await;
    }
    let login = t.call("POST", "/v1/auth/login", "", json!({"email": email, "password": NEW_PASSWORD})).await;
    let token = text(&login["access_token"]);
    let again = |password: &str| json!({"method": "password", "password": password});
    t.call("POST", "/v1/auth/reauthenticate", &token, again("canary-wrong-password")).await;
    let fresh = t.call("POST", "/v1/auth/reauthenticate", &token, again(NEW_PASSWORD)).await;

    let mut codes = Vec::new();
    for address in [GIVEN_UP, LAST] {
        t.call("POST", "/v1/me/email", &token, json!({"email": address})).await;
        let code = code_in(&t.mailed(address, "Here is the code").await);
        t.call("POST", "/v1/me/email/confirm", &token, json!({"code": code})).await;
        codes.push(code);
    }
    let undo = token_in(&t.mailed(GIVEN_UP, "#token=").await, "email-undo");
    t.call("POST", "/v1/me/email", &token, json!({"email": WANTED})).await;
    codes.push(code_in(&t.mailed(WANTED, "Here is the code").await));
    [vec![reset, undo, text(&fresh["access_token"])], codes].concat()
}

/// A sign-up without its code and a way to a new password that nobody took.
async fn what_waits(t: &mut Tour, email: &str, mut signup: Value) -> Vec<String> {
    (signup["email"], signup["password"]) = (json!(WAITING), json!(WAITING_PASSWORD));
    let started = t.call("POST", "/v1/auth/signup", "", signup).await;
    let code = code_in(&t.mailed(WAITING, "code").await);
    t.call("POST", "/v1/auth/password/forgot", "", json!({"email": email})).await;
    let reset = token_in(&t.mailed(email, "/reset#token=").await, "reset");
    vec![started["signup_token"].as_str().unwrap().to_owned(), code, reset]
}

fn assert_absent(where_: &str, text: &str, canaries: &[&str]) {
    for canary in canaries {
        if let Some(at) = text.find(canary) {
            let around: String = text[at.saturating_sub(120)..].chars().take(240).collect();
            panic!("{canary} is in {where_}: …{around}…");
        }
    }
}

/// As in CVE-2023-41335 of Synapse: a new password lay readable in the database while its change was not finished.
#[tokio::test]
async fn no_secret_and_no_message_is_in_logs_errors_or_the_database() {
    let upstream = Upstream::answering(|request| {
        let newest = request.body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned();
        match newest.as_str() {
            "and once more" => {
                let error = json!({"error": {"message": format!("{PROVIDER_KEY} {newest} {PROMPT}"), "code": "server_error"}});
                vec![json_answer("500 Oops", "x-canary: canary-header\r\n", &error)]
            }
            "canary-message-text again" => vec![stream_head(), delta(REPLY), bytes("data: canary-broken-event\n\n")],
            _ => vec![stream_head(), delta(REPLY), finish(), Step::Bytes(Vec::new())],
        }
    })
    .await;
    let database = TestDatabase::new().await;
    let data = database.dir.path().join("data");
    let mut settings = upstream.settings();
    settings.retain(|(name, _)| !name.ends_with("API_KEY"));
    settings.push(("DM__CHAT__PROVIDERS__UPSTREAM__API_KEY", PROVIDER_KEY));
    settings.push(("DM__LOG__LEVEL", "trace"));
    settings.push(("DM__LOG__FORMAT", "json"));
    let mut server = Server::dev(&data, database.settings.url.expose_secret(), &settings);
    let (secrets, answers) = tour(&server).await;
    let sent = upstream.received();
    assert!(sent.len() >= 3 && sent[0].head.contains(PROVIDER_KEY), "the tour reached the provider");
    assert!(server.terminate().success());

    let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
    let private = [
        PASSWORD,
        NEW_PASSWORD,
        WAITING_PASSWORD,
        TEXT,
        REPLY,
        TITLE,
        NAME,
        PROVIDER_KEY,
        PROMPT,
        "1991-02-03",
    ];
    let master_key = std::fs::read_to_string(data.join("master.key")).unwrap();
    let master_key = master_key.trim().split_once(':').unwrap().1;
    let canaries = [&secrets[..], &private, &[master_key, "canary-"]].concat();
    let log = server.output();
    let (banner, log): (Vec<&str>, Vec<&str>) = log.lines().partition(|line| !line.starts_with('{'));
    assert!(log.len() > 20, "there is a log");
    assert_absent("the log", &log.join("\n"), &canaries);
    assert_absent("the banner", &banner.join("\n"), &canaries);

    for answer in answers.iter().filter(|answer| answer.code >= 400) {
        // Pointers may name a field that the caller sent; values never come back.
        let text = answer.text.replace("/more", "");
        assert_absent("an error", &text, &canaries);
    }
    assert!(answers.iter().filter(|answer| answer.code >= 400).count() >= 6);

    let stored = dump(&database).await;
    let addresses = ["canary-address@example.com", WANTED, GIVEN_UP, WAITING, "canary-nobody@example.com"];
    let readable = [&secrets[..], &private, &addresses, &[master_key]].concat();
    for canary in readable {
        assert!(!contains(&stored, canary.as_bytes()), "{canary} is readable in the database");
    }
    // The plain address stands in the user's row and nowhere else, so the dump can be trusted to show what is there.
    assert!(contains(&stored, LAST.as_bytes()));
}

/// The test itself can fail: each canary would be found if it were there.
#[test]
fn the_search_finds_what_is_there() {
    let found = std::panic::catch_unwind(|| assert_absent("a log", "a canary-message-text here", &[TEXT]));
    assert!(found.is_err());
    assert!(contains(b"xxcanaryxx", b"canary") && !contains(b"xxcanarxx", b"canary"));
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// Everything that the database holds, as bytes: the files, or every row of every table.
async fn dump(database: &TestDatabase) -> Vec<u8> {
    if database.is_sqlite() {
        let mut bytes = Vec::new();
        for entry in std::fs::read_dir(database.path().parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                bytes.extend(std::fs::read(path).unwrap());
            }
        }
        return bytes;
    }
    let url = database.settings.url.expose_secret();
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let tables =
        client.query("SELECT tablename::TEXT FROM pg_tables WHERE schemaname = 'public'", &[]).await.unwrap();
    let mut text = String::new();
    for table in tables {
        let name: String = table.get(0);
        // Bytes as readable text, too: what is in a BYTEA must not be plain.
        let sql = format!("SELECT t::TEXT FROM {name} t");
        for row in client.query(&sql, &[]).await.unwrap() {
            let row: String = row.get(0);
            text.push_str(&row);
            text.push_str(&unhex(&row));
            text.push('\n');
        }
    }
    text.into_bytes()
}

/// The bytes that PostgreSQL shows as `\x…`, as text where they are text.
fn unhex(row: &str) -> String {
    let mut text = String::new();
    for hex in row.split("\\x").skip(1) {
        let digits: Vec<u8> = hex.bytes().take_while(u8::is_ascii_hexdigit).collect();
        let bytes: Vec<u8> = digits
            .chunks(2)
            .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    text
}
