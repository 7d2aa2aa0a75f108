//! `kill -9` while replies replace others: the old one is there until the new one has words.

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
const KILLS: usize = 10;
const WRITERS: usize = 8;
/// How long the first acknowledgement of a round may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What clients were told, by conversation: the ids and texts of messages and their replies, in order. [`SOME_REPLY`]: another
/// one was asked for, and the answer is not known.
type Ledger = Arc<Mutex<BTreeMap<String, Vec<(String, String)>>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_reply_is_lost_for_one_that_was_to_replace_it() {
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

/// There is a reply with words, whichever.
const SOME_REPLY: &str = "";

/// Sends messages until the server is gone, and writes down what was acknowledged. Now and then a reply is asked for again:
/// the one before stands until the new one does.
async fn write(base: String, token: String, conversation: String, round: usize, ledger: Ledger) {
    let client = reqwest::Client::new();
    let ask = async |body: Value| {
        let request =
            client.post(format!("{base}/v1/chat")).bearer_auth(&token).header("accept", "application/json");
        let response = request.json(&body).send().await.ok()?;
        // A reply from before the last kill is still being settled; the next round goes on.
        if response.status() != 200 {
            return None;
        }
        let reply = response.json::<Value>().await.ok()?["message"].clone();
        let said = |value: &Value| value.as_str().unwrap().to_owned();
        Some((said(&reply["id"]), said(&reply["parts"][0]["text"])))
    };
    for n in 0.. {
        let (id, text) = (format!("m{round}-{n}"), format!("message {n} of round {round}"));
        let Some(reply) = ask(message(&conversation, &id, &text)).await else { return };
        ledger.lock().unwrap().entry(conversation.clone()).or_default().extend([(id, text), reply]);
        if n % 3 != 1 {
            continue;
        }
        let forget = (SOME_REPLY.to_owned(), SOME_REPLY.to_owned());
        let last =
            |reply| *ledger.lock().unwrap().get_mut(&conversation).unwrap().last_mut().unwrap() = reply;
        last(forget);
        let anew = json!({"id": conversation, "trigger": "regenerate-message"});
        let Some(reply) = ask(anew).await else { return };
        last(reply);
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
            if id == SOME_REPLY {
                let reply = stored.next().expect("a reply that was to be replaced is gone");
                assert_eq!(reply["role"], "assistant");
                assert_ne!(reply["metadata"]["status"], "failed", "the old one was there");
                continue;
            }
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
    let (charged, replaced) = charged(database).await;
    assert_eq!(charged, delivered as i64 + replaced, "quota and history disagree");
    turns(ledger)
}

/// Turns that were acknowledged.
fn turns(ledger: &Ledger) -> usize {
    ledger.lock().unwrap().values().map(|turns| turns.len() / 2).sum()
}

/// Messages charged on all days, because midnight may come in the middle of the test and callers are told of today alone;
/// and how many of them were for replies that have been replaced.
async fn charged(database: &TestDatabase) -> (i64, i64) {
    digitalmistress::queries! {
        scan fn days() -> i64 = "SELECT used FROM quota_day";
        scan fn replacing() -> i64 =
            "SELECT COUNT(*) FROM generation
              WHERE replaces IS NOT NULL AND NOT quota_returned AND status <> 'generating'";
    }
    let db = Db::open(&database.settings, Arc::new(digitalmistress::platform::random::SystemRandom)).unwrap();
    let days: Result<Vec<i64>, Error> = db.read_slow(async |c| days().all(&c).await).await;
    let replaced: Result<i64, Error> = db.read_slow(async |c| replacing().one(&c).await).await;
    db.close().await.unwrap();
    (days.unwrap().iter().sum(), replaced.unwrap())
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
