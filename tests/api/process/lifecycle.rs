//! Start, end, and what the operator reads.

use std::path::Path;

use serde_json::Value;

use crate::support::{
    database::TestDatabase,
    process::{Server, run},
};
use secrecy::ExposeSecret as _;

#[tokio::test]
async fn dev_says_where_everything_is_and_ends_in_order() {
    let database = TestDatabase::new().await;
    let data = database.dir.path().join("data");
    let mut server = Server::dev(&data, database.settings.url.expose_secret(), &[]);
    let output = server.output();
    for line in
        ["API  ", "Docs  ", "Mailbox  ", "Companions  octavia", "signup", "Development helpers are on"]
    {
        assert!(output.contains(line), "no {line}:\n{output}");
    }
    assert_eq!(output.matches("Development helpers").count(), 1);
    assert_eq!(reqwest::get(format!("{}/v1/companions", server.base)).await.unwrap().status(), 200);
    let other_family = server.base.replace("127.0.0.1", "[::1]");
    assert_eq!(reqwest::get(format!("{other_family}/v1/companions")).await.unwrap().status(), 200);

    assert!(server.terminate().success(), "{}", server.output());
    assert!(server.output().contains("ended"));
    if database.is_sqlite() {
        let log = database.path().with_extension("sqlite-wal");
        assert_eq!(std::fs::metadata(log).map(|log| log.len()).unwrap_or(0), 0);
    }
}

#[tokio::test]
async fn the_lines_that_dev_prints_work_as_they_are() {
    let database = TestDatabase::new().await;
    let server = Server::dev(&database.dir.path().join("data"), database.settings.url.expose_secret(), &[]);
    let output = server.output();
    let start = output.lines().position(|line| line.trim().starts_with("EMAIL=")).unwrap();
    let script: String =
        output.lines().skip(start).take(5).map(|line| format!("{}\n", line.trim())).collect();
    let script = format!("set -e\n{script}");
    let ran = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    let printed = String::from_utf8(ran.stdout).unwrap();
    assert!(
        ran.status.success() && printed.contains("text-delta") && printed.contains("[DONE]"),
        "{printed}\n{script}"
    );
}

#[tokio::test]
async fn a_second_server_does_not_touch_the_first_ones_data() {
    let database = TestDatabase::new().await;
    let data = database.dir.path().join("data");
    let url = database.settings.url.expose_secret();
    let _first = Server::dev(&data, url, &[]);
    let second = run(
        &["dev"],
        &[
            ("DM__SERVER__LISTEN", "127.0.0.1:0"),
            ("DM__SERVER__DATA_DIR", data.to_str().unwrap()),
            ("DM__DATABASE__URL", url),
        ],
        "",
    );
    assert!(!second.success);
    assert!(second.stderr.contains("another server is using the data directory"), "{}", second.stderr);
}

/// On PostgreSQL many servers share one database.
#[tokio::test]
async fn a_second_server_on_one_sqlite_file_is_refused_wherever_its_own_data_is() {
    let database = TestDatabase::on_sqlite();
    let dir = database.dir.path();
    let mut first = Server::dev(&dir.join("first"), database.settings.url.expose_secret(), &[]);
    let link = dir.join("link");
    std::os::unix::fs::symlink(dir, &link).unwrap();
    let other_path = dir.join("other.sqlite");
    std::os::unix::fs::symlink(database.path(), &other_path).unwrap();
    let second = |file: &Path| {
        let (data, url) = (dir.join("second"), format!("sqlite:{}", file.display()));
        let settings = [
            ("DM__SERVER__LISTEN", "127.0.0.1:0"),
            ("DM__SERVER__DATA_DIR", data.to_str().unwrap()),
            ("DM__DATABASE__URL", &url),
        ];
        run(&["dev"], &settings, "")
    };
    for file in [database.path(), link.join("test.sqlite"), other_path] {
        let refused = second(&file);
        let named = format!("another server is using the database file {}", file.display());
        assert!(!refused.success && refused.stderr.contains(&named), "{}", refused.stderr);
    }

    // A lock ends with whoever had it, even by `kill -9`; the file that is left behind keeps nobody out.
    first.kill();
    Server::dev(&dir.join("first"), database.settings.url.expose_secret(), &[]);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let ended = run(
        &["dev"],
        &[("DM__SERVER__LISTEN", &address), ("DM__SERVER__DATA_DIR", dir.path().to_str().unwrap())],
        "",
    );
    assert!(!ended.success);
    assert!(ended.stderr.contains(&format!("cannot listen on {address}")), "{}", ended.stderr);
}

/// Production on this machine, with everything that it insists on.
fn production(database: &TestDatabase) -> Vec<(String, String)> {
    let data = database.dir.path().join("data").display().to_string();
    [
        ("DM__SERVER__LISTEN", "127.0.0.1:0"),
        ("DM__SERVER__PUBLIC_URL", "https://api.example.com"),
        ("DM__SERVER__FRONTEND_URL", "https://www.example.com"),
        ("DM__SERVER__DATA_DIR", &data),
        ("DM__DATABASE__URL", database.settings.url.expose_secret()),
        ("DM__SECURITY__MASTER_KEYS", "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
        ("DM__CHAT__ROUTE", "main"),
        ("DM__CHAT__PROVIDERS__MAIN__KIND", "openai"),
        ("DM__CHAT__PROVIDERS__MAIN__BASE_URL", "http://127.0.0.1:1/v1"),
        ("DM__CHAT__PROVIDERS__MAIN__MODEL", "m"),
        ("DM__CHAT__PROVIDERS__MAIN__CONTEXT_TOKENS", "8192"),
        ("DM__CHAT__PROVIDERS__MAIN__MAX_OUTPUT_TOKENS", "1024"),
        ("DM__MAIL__SMTP_URL", "smtp://127.0.0.1:1"),
        ("DM__MAIL__FROM", "Example <no-reply@example.com>"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

fn borrowed(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[tokio::test]
async fn serve_starts_with_sound_settings_and_logs_json() {
    let database = TestDatabase::new().await;
    let env = production(&database);
    if !database.is_sqlite() {
        // PostgreSQL is migrated by a command of its own.
        let refused = run(&["serve"], &borrowed(&env), "");
        assert!(!refused.success && refused.stderr.contains("pending"), "{}", refused.stderr);
        assert!(run(&["migrate"], &borrowed(&env), "").success);
    }
    let mut server = Server::start(&["serve"], &borrowed(&env), |line| {
        let event: Value = serde_json::from_str(line).ok()?;
        (event["message"] == "ready").then(|| format!("http://{}", event["address"].as_str().unwrap()))
    });
    let client = reqwest::Client::new();
    let answer =
        client.get(format!("{}/v1/me?token=canary-query", server.base)).header("host", "api.example.com");
    let answer = answer.header("x-request-id", "seen-by-the-operator").send().await.unwrap();
    assert_eq!(answer.status(), 401);
    assert!(answer.headers().contains_key("strict-transport-security"));
    for path in ["/dev/mailbox", "/dev/mailbox/messages"] {
        assert_eq!(
            client.get(format!("{}{path}", server.base)).send().await.unwrap().status(),
            404,
            "{path}"
        );
    }
    assert!(server.terminate().success(), "{}", server.output());

    let output = server.output();
    let events: Vec<Value> = output.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let request =
        events.iter().find(|event| event["message"] == "request" && event["status"] == 401).unwrap();
    assert_eq!((&request["route"], &request["method"]), (&"/v1/me".into(), &"GET".into()));
    assert_eq!(request["span"]["id"], "seen-by-the-operator");
    assert!(request["timestamp"].is_string() && request["level"] == "INFO");
    assert!(!output.contains("canary-query"), "a query string was logged");
}

#[tokio::test]
async fn metrics_are_served_on_a_listener_of_their_own() {
    let database = TestDatabase::new().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let server = Server::dev(
        &database.dir.path().join("data"),
        database.settings.url.expose_secret(),
        &[("DM__SERVER__METRICS_LISTEN", &free)],
    );
    reqwest::get(format!("{}/v1/companions", server.base)).await.unwrap();
    let invented = reqwest::Client::new().request("BREW".parse().unwrap(), format!("{}/v1/me", server.base));
    invented.send().await.unwrap();
    let text = reqwest::get(format!("http://{free}/metrics")).await.unwrap().text().await.unwrap();
    for name in ["http_request_seconds", "db_closure_seconds"] {
        assert!(text.contains(name), "{name} is not there:\n{text}");
    }
    assert!(text.contains("route=\"/v1/companions\""));
    assert!(text.contains("method=\"other\"") && !text.contains("BREW"), "a caller chose a label:\n{text}");
    assert_eq!(reqwest::get(format!("{}/metrics", server.base)).await.unwrap().status(), 404);
}
