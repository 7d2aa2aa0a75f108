//! `kill -9` under load: what was acknowledged is there, what was not is whole or absent, and nothing disagrees.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use digitalmistress::platform::db::{Db, Error};
use serde_json::{Value, json};

use crate::support::{
    app::{PASSWORD, message},
    database::TestDatabase,
    process::{Server, run},
};
use secrecy::ExposeSecret as _;

/// Runs in the suite; `make soak` asks for more by `DM_TEST_KILLS`.
const KILLS: usize = 50;
const WRITERS: usize = 8;
/// How long the first acknowledgement of a round may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What clients were told, by conversation: the ids and texts of messages and their replies, in order.
type Ledger = Arc<Mutex<BTreeMap<String, Vec<(String, String)>>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_acknowledged_is_lost() {
    let kills = std::env::var("DM_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let database = TestDatabase::new().await;
    let data = database.dir.path().join("data");
    let url = database.settings.url.expose_secret();
    let settings = [
        ("DM__CHAT__FREE_MESSAGES_PER_DAY", "1000000"),
        ("DM__CHAT__GENERATIONS_PER_USER", "100"),
        ("DM__LOG__LEVEL", "error"),
    ];
    let mut server = Server::dev(&data, url, &settings);
    let env = [
        ("DM_PROFILE", "development"),
        ("DM__SERVER__DATA_DIR", data.to_str().unwrap()),
        ("DM__DATABASE__URL", url),
    ];
    let created = run(
        &["user", "create", "--email", "ann@example.com", "--role", "user", "--password-stdin"],
        &env,
        PASSWORD,
    );
    assert!(created.success, "{}", created.stderr);

    let ledger: Ledger = Arc::default();
    let mut acknowledged = 0;
    for round in 0..kills {
        let token = log_in(&server.base).await;
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (base, token, ledger) = (server.base.clone(), token.clone(), ledger.clone());
                tokio::spawn(write(base, token, format!("c{writer}"), round, ledger))
            })
            .collect();
        // Later than the first commits, however slow the machine is, and spread over the whole of a turn.
        let deadline = Instant::now() + PATIENCE;
        while turns(&ledger) <= acknowledged {
            assert!(Instant::now() < deadline, "nothing is acknowledged:\n{}", server.output());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis((round as u64 * 37) % 120)).await;
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        server = Server::dev(&data, url, &settings);
        acknowledged = verify(&server.base, &ledger, &database).await;
    }
    assert!(acknowledged >= kills, "{acknowledged} acknowledgements in {kills} kills: there was no load");
    if database.is_sqlite() {
        assert!(server.terminate().success());
        let file = rusqlite::Connection::open(database.path()).unwrap();
        let verdict: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
    }
    eprintln!("{kills} kills, {acknowledged} acknowledged turns, none lost");
}

async fn log_in(base: &str) -> String {
    let body = json!({"email": "ann@example.com", "password": PASSWORD});
    let tokens: Value = reqwest::Client::new()
        .post(format!("{base}/v1/auth/login"))
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    tokens["access_token"].as_str().unwrap().to_owned()
}

/// Sends messages until the server is gone, and writes down what was acknowledged.
async fn write(base: String, token: String, conversation: String, round: usize, ledger: Ledger) {
    let client = reqwest::Client::new();
    for n in 0.. {
        let (id, text) = (format!("m{round}-{n}"), format!("message {n} of round {round}"));
        let request =
            client.post(format!("{base}/v1/chat")).bearer_auth(&token).header("accept", "application/json");
        let Ok(response) = request.json(&message(&conversation, &id, &text)).send().await else { return };
        if response.status() != 200 {
            return; // A reply from before the last kill is still being settled; the next round goes on.
        }
        let Ok(answer) = response.json::<Value>().await else { return };
        let mut ledger = ledger.lock().unwrap();
        let turns = ledger.entry(conversation.clone()).or_default();
        turns.push((id, text));
        let reply = &answer["message"];
        let said = |value: &Value| value.as_str().unwrap().to_owned();
        turns.push((said(&reply["id"]), said(&reply["parts"][0]["text"])));
    }
}

/// Compares history, counts and quota with the ledger. Returns how many turns were acknowledged.
async fn verify(base: &str, ledger: &Ledger, database: &TestDatabase) -> usize {
    let token = log_in(base).await;
    let get = async |path: String| {
        let answer =
            reqwest::Client::new().get(format!("{base}{path}")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json::<Value>().await.unwrap()
    };
    let expected = ledger.lock().unwrap().clone();
    let mut delivered = 0;
    for (conversation, turns) in &expected {
        let history = history(&get, conversation).await;
        let mut stored = history.iter();
        for (id, text) in turns {
            let found = stored.by_ref().find(|message| message["id"] == *id);
            let found = found.unwrap_or_else(|| {
                panic!("{conversation}: {id} was acknowledged and is gone, or out of order")
            });
            assert_eq!(found["parts"][0]["text"], *text);
        }
        for pair in history.windows(2) {
            let roles = (pair[0]["role"].as_str().unwrap(), pair[1]["role"].as_str().unwrap());
            assert_ne!(roles, ("assistant", "assistant"), "a reply to nothing");
        }
        let count = get(format!("/v1/conversations/{conversation}")).await["message_count"].as_u64().unwrap();
        assert_eq!(count, history.len() as u64, "{conversation}: the count and the history disagree");
        delivered += history
            .iter()
            .filter(|message| message["role"] == "assistant" && message["metadata"]["status"] != "failed")
            .count();
    }
    // Replies of before the kill are settled at the start, so history and quota agree.
    let conversations = get("/v1/conversations?limit=100".into()).await;
    for conversation in conversations["data"].as_array().unwrap() {
        let id = conversation["id"].as_str().unwrap();
        if !expected.contains_key(id) {
            let rest = history(&get, id).await;
            delivered += rest
                .iter()
                .filter(|message| message["role"] == "assistant" && message["metadata"]["status"] != "failed")
                .count();
        }
    }
    assert_eq!(charged(database).await, delivered as i64, "quota and history disagree");
    turns(ledger)
}

/// Turns that were acknowledged.
fn turns(ledger: &Ledger) -> usize {
    ledger.lock().unwrap().values().map(|turns| turns.len() / 2).sum()
}

/// Messages charged on all days: midnight may come in the middle of the test, and callers are told of today alone.
async fn charged(database: &TestDatabase) -> i64 {
    digitalmistress::queries! {
        scan fn days() -> i64 = "SELECT used FROM quota_day";
    }
    let db = Db::open(&database.settings).unwrap();
    let days: Result<Vec<i64>, Error> = db.read_slow(async |c| days().all(&c).await).await;
    db.close().await.unwrap();
    days.unwrap().iter().sum()
}

/// All messages of a conversation, oldest first.
async fn history(get: &impl AsyncFn(String) -> Value, conversation: &str) -> Vec<Value> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    let started = Instant::now();
    loop {
        assert!(started.elapsed() < Duration::from_secs(60));
        let page = get(format!("/v1/conversations/{conversation}/messages?limit=100{cursor}")).await;
        pages.push(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    pages.into_iter().rev().flatten().collect()
}
