//! `kill -9` and sessions: what was exchanged and not answered, and what has ended.

use std::time::{Duration, Instant};

use digitalmistress::platform::db::{Db, Error};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use uuid::Uuid;

use crate::support::{
    app::PASSWORD,
    database::TestDatabase,
    process::{Server, run},
};

struct Deployment {
    database: TestDatabase,
    server: Server,
}

impl Deployment {
    /// A server, and somebody who can sign in.
    async fn start() -> Deployment {
        let database = TestDatabase::new().await;
        let server = Self::serve(&database);
        let data = database.dir.path().join("data");
        let env = [
            ("DM_PROFILE", "development"),
            ("DM__SERVER__DATA_DIR", data.to_str().unwrap()),
            ("DM__DATABASE__URL", database.settings.url.expose_secret()),
        ];
        let arguments =
            ["user", "create", "--email", "ann@example.com", "--role", "user", "--password-stdin"];
        let created = run(&arguments, &env, PASSWORD);
        assert!(created.success, "{}", created.stderr);
        Deployment { database, server }
    }

    fn serve(database: &TestDatabase) -> Server {
        let data = database.dir.path().join("data");
        Server::dev(&data, database.settings.url.expose_secret(), &[("DM__LOG__LEVEL", "error")])
    }

    fn kill_and_start_again(&mut self) {
        self.server.kill();
        self.server = Self::serve(&self.database);
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(format!("{}{path}", self.server.base)).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or_default())
    }

    async fn log_in(&self) -> Value {
        let (code, tokens) =
            self.post("/v1/auth/login", json!({"email": "ann@example.com", "password": PASSWORD})).await;
        assert_eq!(code, 200, "{tokens}");
        tokens
    }

    async fn me(&self, tokens: &Value) -> u16 {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let call = client.get(format!("{}/v1/me", self.server.base));
        call.bearer_auth(tokens["access_token"].as_str().unwrap()).send().await.unwrap().status().as_u16()
    }
}

#[tokio::test]
async fn an_exchange_that_a_crash_left_unanswered_is_answered_afterwards() {
    digitalmistress::queries! {
        fn generation(id: Uuid) -> i64 = "SELECT token_gen FROM session WHERE id = $1";
    }
    let mut d = Deployment::start().await;
    let tokens = d.log_in().await;
    let session = Uuid::parse_str(tokens["session"]["id"].as_str().unwrap()).unwrap();
    let body = json!({"refresh_token": tokens["refresh_token"]}).to_string();

    // The request goes out; its answer is read by nobody. Once the exchange is stored, the server dies.
    let address = d.server.base.trim_start_matches("http://").to_owned();
    let mut socket = TcpStream::connect(&address).await.unwrap();
    let request = format!(
        "POST /v1/auth/refresh HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let db =
        Db::open(&d.database.settings, std::sync::Arc::new(digitalmistress::platform::random::SystemRandom))
            .unwrap();
    let started = Instant::now();
    loop {
        let read: Result<i64, Error> = db.read(async |c| generation(session).one(&c).await).await;
        if read.unwrap() == 2 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "nothing was exchanged");
        tokio::task::yield_now().await;
    }
    db.close().await.unwrap();
    d.server.kill();
    drop(socket);
    d.kill_and_start_again();

    let (code, again) = d.post("/v1/auth/refresh", json!({"refresh_token": tokens["refresh_token"]})).await;
    assert_eq!(code, 200, "{again}");
    assert_eq!(d.me(&again).await, 200);
    let (code, next) = d.post("/v1/auth/refresh", json!({"refresh_token": again["refresh_token"]})).await;
    assert_eq!(code, 200, "{next}");
}

/// As in CVE-2026-9802 of Keycloak: what had been revoked worked again after a restart.
#[tokio::test]
async fn what_has_ended_stays_ended_after_a_crash() {
    let mut d = Deployment::start().await;
    let (left, stays) = (d.log_in().await, d.log_in().await);
    let (code, _) = d.post("/v1/auth/logout", json!({"refresh_token": left["refresh_token"]})).await;
    assert_eq!(code, 204);
    d.kill_and_start_again();
    assert_eq!((d.me(&left).await, d.me(&stays).await), (401, 200));
    let (code, problem) = d.post("/v1/auth/refresh", json!({"refresh_token": left["refresh_token"]})).await;
    assert_eq!((code, &problem["code"]), (401, &json!("invalid_grant")));
}
