//! `kill -9` under load: what was acknowledged is there, what was not is whole or absent, and nothing disagrees.
//!
//! Two hundred conversations go on at once, and most replies are in the middle when the end comes. A message counts as
//! acknowledged once its stream has begun or its answer was read.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use digitalmistress::platform::{
    db::{Db, Error},
    random::SystemRandom,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::support::{
    app::{PASSWORD, message},
    database::TestDatabase,
    process::{Server, run},
    stream::Stream,
    upstream::{Step, Upstream, delta, finish, gate, json_answer, stream_head},
};
use secrecy::ExposeSecret as _;

/// Runs in the suite; `make soak` asks for more by `DM_TEST_KILLS`.
const KILLS: usize = 50;
/// One instance keeps at most 32 places for one user, so the conversations belong to several.
const PEOPLE: usize = 8;
const CONVERSATIONS: usize = 200;
/// Rounds after which new conversations are begun, so that looking at them costs the same in the thousandth round.
const ERA: usize = 10;
/// How long the acknowledgements of a round may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a token is used before the next login. It lives twice as long.
const TOKEN_USE: Duration = Duration::from_secs(300);

/// How a message is sent, and what the client does with the reply.
#[derive(Clone, Copy)]
enum Manner {
    /// Reads until nothing more comes.
    Stream,
    /// Leaves after the first word; the text so far is stored then.
    Leave,
    /// Waits for the whole reply.
    Json,
    /// Stops it after the first word.
    Stop,
    /// Sends it over two connections.
    Twice,
}

use Manner::{Json, Leave, Stop, Stream as Read, Twice};

/// What is said in one conversation in one round, by its number. The last reply of each has no end.
fn script(conversation: usize) -> &'static [(Manner, &'static str)] {
    match conversation % 10 {
        0..=3 => &[(Read, "long")],
        4 => &[(Read, "fails"), (Read, "long")],
        5 => &[(Read, "short"), (Read, "short"), (Read, "long")],
        6 => &[(Leave, "long")],
        7 => &[(Json, "short"), (Json, "long")],
        8 => &[(Stop, "long"), (Read, "long")],
        _ => &[(Twice, "silent")],
    }
}

/// A message that was acknowledged, and its reply if its end was told.
#[derive(Clone)]
struct Told {
    id: String,
    text: String,
    /// Status and text.
    reply: Option<(&'static str, String)>,
}

/// What clients were told, by person and conversation, in order.
type Ledger = BTreeMap<(usize, String), Vec<Told>>;

/// Everything that is the same for all rounds.
struct Town {
    ledger: Mutex<Ledger>,
    acknowledged: AtomicUsize,
    tokens: Mutex<(Instant, Vec<String>)>,
}

/// One conversation in one round.
struct Talk {
    base: String,
    client: reqwest::Client,
    person: usize,
    token: String,
    conversation: String,
    town: Arc<Town>,
}

/// As in bayes-platform#673 and open-webui#2876: a reply that was being made for ever after a crash, and what was said gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_acknowledged_is_lost() {
    let kills = std::env::var("DM_TEST_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let database = TestDatabase::new().await;
    let data = database.dir.path().join("data");
    let url = database.settings.url.expose_secret();
    let go = gate();
    let upstream = speaker(go.clone()).await;
    let settings = [
        upstream.settings(),
        vec![
            ("DM__CHAT__FREE_MESSAGES_PER_DAY", "1000000"),
            ("DM__CHAT__GENERATIONS_PER_USER", "32"),
            ("DM__LOG__LEVEL", "error"),
        ],
    ]
    .concat();
    let mut server = Server::dev(&data, url, &settings);
    people(&data, url);
    let metronome = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(2)).await;
            go.add_permits(2);
        }
    });

    let town = Arc::new(Town {
        ledger: Mutex::default(),
        acknowledged: AtomicUsize::new(0),
        tokens: Mutex::new((Instant::now(), Vec::new())),
    });
    let mut settled = vec![0; PEOPLE]; // What was charged in eras that are over.
    for round in 0..kills {
        let era = round / ERA;
        let tokens = town.log_in(&server.base).await;
        let (client, before) = (client(), town.acknowledged.load(Ordering::SeqCst));
        let all: Vec<_> = (0..CONVERSATIONS)
            .map(|n| {
                let person = n % PEOPLE;
                let talk = Talk {
                    base: server.base.clone(),
                    client: client.clone(),
                    person,
                    token: tokens[person].clone(),
                    conversation: format!("e{era}-c{n}"),
                    town: town.clone(),
                };
                tokio::spawn(talk.hold(round, script(n)))
            })
            .collect();
        await_the_moment(round, before, &town, &server).await;
        server.kill();
        for talk in all {
            talk.await.unwrap();
        }
        upstream.take_received();
        server = Server::dev(&data, url, &settings);
        nothing_is_left_over(&database).await;
        let charged = town.verify(&server.base, Some(era)).await;
        let total: Vec<i64> = settled.iter().zip(&charged).map(|(before, now)| before + now).collect();
        assert_eq!(used(&database, &tokens).await, total, "round {round}: quota and history disagree");
        if (round + 1) % ERA == 0 {
            settled = total;
        }
    }

    town.verify(&server.base, None).await; // All eras once more: nothing that was there has gone since.
    let broken_off = count(&database, Count::BrokenOff).await;
    assert!(
        broken_off >= 100 * kills as i64,
        "{broken_off} replies were cut in {kills} kills: there was no load"
    );
    if database.is_sqlite() {
        assert!(server.terminate().success());
        let file = rusqlite::Connection::open(database.path()).unwrap();
        let verdict: String = file.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok");
    }
    metronome.abort();
    let acknowledged = town.acknowledged.load(Ordering::SeqCst);
    eprintln!("{kills} kills cut {broken_off} replies; {acknowledged} acknowledged messages, none lost");
}

/// A provider whose replies say a word now and then, so that they are in the middle most of the time.
async fn speaker(go: Arc<Semaphore>) -> Upstream {
    Upstream::answering(move |request| match request.question().split(' ').next() {
        Some("short") => vec![stream_head(), delta("Good "), delta("evening."), finish()],
        Some("silent") => vec![stream_head(), Step::Hang],
        // As no message can make it fail: what one can is given back only so often a day.
        Some("fails") => vec![json_answer("402 Payment Required", "", &json!({}))],
        _ => {
            let words = (0..20).flat_map(|_| [Step::Wait(go.clone()), delta("and on ")]);
            [stream_head(), delta("On ")].into_iter().chain(words).chain([Step::Hang]).collect()
        }
    })
    .await
}

fn people(data: &std::path::Path, url: &str) {
    let env = [
        ("DM_PROFILE", "development"),
        ("DM__SERVER__DATA_DIR", data.to_str().unwrap()),
        ("DM__DATABASE__URL", url),
    ];
    for person in 0..PEOPLE {
        let email = email(person);
        let create = ["user", "create", "--email", &email, "--role", "user", "--password-stdin"];
        let created = run(&create, &env, PASSWORD);
        assert!(created.success, "{}", created.stderr);
    }
}

fn email(person: usize) -> String {
    format!("person-{person}@example.com")
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// A number that looks drawn by lot, the same in every run.
fn lot(round: usize, below: u64) -> u64 {
    let mixed = (round as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 33) % below.max(1)
}

/// In two rounds of three all replies run; in the third they are still being begun.
async fn await_the_moment(round: usize, before: usize, town: &Town, server: &Server) {
    // Acknowledgements that no kill is in the way of; a reply that is waited for as JSON, and has no end, gives none.
    let all: usize = (0..CONVERSATIONS)
        .flat_map(script)
        .filter(|(manner, text)| !matches!((manner, *text), (Json, "long")))
        .count();
    let wanted = if round % 3 == 2 { 1 + lot(round, all as u64) as usize } else { all };
    let deadline = Instant::now() + PATIENCE;
    while town.acknowledged.load(Ordering::SeqCst) < before + wanted {
        let seen = town.acknowledged.load(Ordering::SeqCst) - before;
        assert!(Instant::now() < deadline, "{seen} of {wanted} are acknowledged:\n{}", server.output());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(lot(round + 7, 150))).await;
}

impl Talk {
    /// Says what is in the script until the server is gone, and writes down what was acknowledged.
    async fn hold(self, round: usize, script: &[(Manner, &str)]) {
        for (n, (manner, text)) in script.iter().enumerate() {
            let (id, text) = (format!("m{round}-{n}"), format!("{text} in round {round}"));
            if self.say(*manner, &id, &text).await.is_none() {
                return;
            }
        }
    }

    /// Sends one message. `None` when the server is gone.
    async fn say(&self, manner: Manner, id: &str, text: &str) -> Option<()> {
        let response = self.send(id, text, matches!(manner, Json)).await?;
        if matches!(manner, Json) {
            let answer = response.json::<Value>().await.ok()?;
            let reply = answer["message"]["parts"][0]["text"].as_str().unwrap().to_owned();
            self.acknowledge(id, text);
            self.told(Some(("complete", reply)));
            return Some(());
        }
        let mut stream = Stream::new(response);
        stream.next().await?;
        self.acknowledge(id, text);
        match manner {
            Leave => {
                while stream.next().await?["type"] != "text-delta" {}
                None // The reply goes on with nobody listening.
            }
            Stop => {
                let mut heard = String::new();
                while heard.is_empty() {
                    heard.push_str(stream.next().await?["delta"].as_str().unwrap_or(""));
                }
                let path = format!("{}/v1/chat/{}/stop", self.base, self.conversation);
                self.client.post(path).bearer_auth(&self.token).json(&json!({})).send().await.ok()?;
                self.hear(stream, heard).await
            }
            Twice => {
                let again = self.send(id, text, false).await?;
                tokio::join!(self.hear(stream, String::new()), self.hear(Stream::new(again), String::new()));
                None
            }
            Read | Json => self.hear(stream, String::new()).await,
        }
    }

    /// A client sends again what was not answered because there was too much to do.
    async fn send(&self, id: &str, text: &str, json: bool) -> Option<reqwest::Response> {
        let accept = if json { "application/json" } else { "text/event-stream" };
        let url = format!("{}/v1/chat", self.base);
        loop {
            let request = self.client.post(&url).bearer_auth(&self.token).header("accept", accept);
            let response = request.json(&message(&self.conversation, id, text)).send().await.ok()?;
            match response.status().as_u16() {
                200 => return Some(response),
                503 => tokio::time::sleep(Duration::from_millis(20)).await,
                status => panic!("{status} to {text} in {}: {:?}", self.conversation, response.text().await),
            }
        }
    }

    /// Reads to the end, and writes down how the reply ended. `None` when the server went before.
    async fn hear(&self, mut stream: Stream, mut heard: String) -> Option<()> {
        loop {
            let chunk = stream.next().await?;
            heard.push_str(chunk["delta"].as_str().unwrap_or(""));
            let status = match chunk["type"].as_str().unwrap() {
                "finish" => "complete",
                "abort" => "stopped",
                "error" if heard.is_empty() => "failed",
                "error" => "interrupted", // The machine is so slow that the provider's time was up.
                _ => continue,
            };
            self.told(Some((status, heard)));
            return Some(());
        }
    }

    fn acknowledge(&self, id: &str, text: &str) {
        let told = Told { id: id.to_owned(), text: text.to_owned(), reply: None };
        let place = (self.person, self.conversation.clone());
        self.town.ledger.lock().unwrap().entry(place).or_default().push(told);
        self.town.acknowledged.fetch_add(1, Ordering::SeqCst);
    }

    fn told(&self, reply: Option<(&'static str, String)>) {
        let mut ledger = self.town.ledger.lock().unwrap();
        let talk = ledger.get_mut(&(self.person, self.conversation.clone())).unwrap();
        talk.last_mut().unwrap().reply = reply;
    }
}

impl Town {
    /// Everybody's token, new ones if they have been used for long.
    async fn log_in(&self, base: &str) -> Vec<String> {
        let (since, tokens) = self.tokens.lock().unwrap().clone();
        if !tokens.is_empty() && since.elapsed() < TOKEN_USE {
            return tokens;
        }
        let (client, mut tokens) = (client(), Vec::new());
        for person in 0..PEOPLE {
            let body = json!({"email": email(person), "password": PASSWORD});
            let answer = client.post(format!("{base}/v1/auth/login")).json(&body).send().await.unwrap();
            let answer: Value = answer.json().await.unwrap();
            tokens.push(answer["access_token"].as_str().unwrap().to_owned());
        }
        *self.tokens.lock().unwrap() = (Instant::now(), tokens.clone());
        tokens
    }

    /// Compares the histories of an era, or of all, with the ledger. Returns what each person had to pay for them.
    async fn verify(self: &Arc<Self>, base: &str, era: Option<usize>) -> Vec<i64> {
        let tokens = self.log_in(base).await;
        let expected = self.ledger.lock().unwrap().clone();
        let mut charged = vec![0; PEOPLE];
        let prefix = era.map_or_else(|| "e".to_owned(), |era| format!("e{era}-"));
        let client = client();
        let per_person = (0..PEOPLE).map(async |person| {
            let get = async |path: String| {
                let answer = client.get(format!("{base}{path}")).bearer_auth(&tokens[person]).send();
                let answer = answer.await.unwrap();
                assert_eq!(answer.status(), 200, "{path}");
                answer.json::<Value>().await.unwrap()
            };
            let mut charged = 0;
            // By last use, so that those of the newest era come first, and they fit one page.
            let pages = pages(&get, "/v1/conversations", era.map_or(usize::MAX, |_| 1)).await;
            for conversation in pages.into_iter().flatten() {
                let id = conversation["id"].as_str().unwrap().to_owned();
                if !id.starts_with(&prefix) {
                    break;
                }
                let history = history(&get, &id).await;
                let count = conversation["message_count"].as_u64().unwrap();
                assert_eq!(count, history.len() as u64, "{id}: the count and the history disagree");
                let told = expected.get(&(person, id.clone())).map_or(&[][..], Vec::as_slice);
                charged += compare(&id, &history, told);
            }
            charged
        });
        for (person, paid) in join_all(per_person).await.into_iter().enumerate() {
            charged[person] = paid;
        }
        charged
    }
}

/// Looks for what was told in a history, and for what may not be there. Returns what the history costs.
fn compare(id: &str, history: &[Value], told: &[Told]) -> i64 {
    let mut stored = history.iter();
    for Told { id: message, text, reply } in told {
        let found = stored.by_ref().find(|stored| stored["id"] == **message);
        let found =
            found.unwrap_or_else(|| panic!("{id}: {message} was acknowledged and is gone, or out of order"));
        assert_eq!(found["parts"][0]["text"], *text);
        if let Some((status, words)) = reply {
            let next = stored.next().unwrap_or_else(|| panic!("{id}: the reply to {message} is gone"));
            assert_eq!(next["metadata"]["status"], *status, "{id}: the reply to {message}");
            assert_eq!(next["parts"][0]["text"], **words, "{id}: the reply to {message}");
        }
    }
    let mut charged = 0;
    for turn in history.chunks(2) {
        let roles: Vec<&str> = turn.iter().map(|message| message["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant"], "{id}: a message has one reply, and a reply a message");
        let (status, text) = (&turn[1]["metadata"]["status"], turn[1]["parts"][0]["text"].as_str().unwrap());
        assert_eq!(text.is_empty(), status == "failed", "{id}: {status} with “{text}”");
        charged += i64::from(status != "failed");
    }
    charged
}

#[derive(Clone, Copy)]
enum Count {
    LeftOver,
    BrokenOff,
}

async fn count(database: &TestDatabase, what: Count) -> i64 {
    digitalmistress::queries! {
        /// Replies that are still being made, by any of the three rows that would say so; counts that are wrong;
        /// messages with two replies.
        scan fn left_over() -> i64 =
            "SELECT (SELECT COUNT(*) FROM generation WHERE status = 'generating')
                  + (SELECT COUNT(*) FROM message WHERE status = 'generating')
                  + (SELECT COUNT(*) FROM conversation WHERE generation_id IS NOT NULL)
                  + (SELECT COUNT(*) FROM conversation c WHERE message_count
                       <> (SELECT COUNT(*) FROM message m WHERE m.conversation_key = c.key))
                  + (SELECT COUNT(*) FROM (SELECT question_seq FROM generation
                       GROUP BY conversation_key, question_seq HAVING COUNT(*) > 1) AS doubled)";
        scan fn broken_off() -> i64 = "SELECT COUNT(*) FROM generation WHERE failure = 'broken_off'";
    }
    let db = Db::open(&database.settings, Arc::new(SystemRandom)).unwrap();
    let counted: Result<i64, Error> = db
        .read_slow(async move |c| match what {
            Count::LeftOver => left_over().one(&c).await,
            Count::BrokenOff => broken_off().one(&c).await,
        })
        .await;
    db.close().await.unwrap();
    counted.unwrap()
}

async fn nothing_is_left_over(database: &TestDatabase) {
    assert_eq!(count(database, Count::LeftOver).await, 0, "something was not settled, or counted wrong");
}

/// What each person was charged on all days: midnight may come in the middle of the test.
async fn used(database: &TestDatabase, tokens: &[String]) -> Vec<i64> {
    digitalmistress::record! {
        struct Used {
            email: String,
            used: i64,
            counted: i64,
        }
    }
    digitalmistress::queries! {
        scan fn days() -> Used =
            "SELECT u.email,
                    (SELECT CAST(COALESCE(SUM(q.used), 0) AS BIGINT) FROM quota_day q WHERE q.user_id = u.id) AS used,
                    (SELECT COUNT(*) FROM generation g WHERE g.owner_id = u.id AND NOT g.quota_returned) AS counted
               FROM app_user u ORDER BY u.email";
    }
    let db = Db::open(&database.settings, Arc::new(SystemRandom)).unwrap();
    let days: Result<Vec<Used>, Error> = db.read_slow(async |c| days().all(&c).await).await;
    db.close().await.unwrap();
    let days = days.unwrap();
    assert_eq!(days.len(), tokens.len());
    for Used { email, used, counted } in &days {
        assert_eq!(used, counted, "{email}: the days and the replies disagree");
    }
    days.into_iter().map(|day| day.used).collect()
}

/// All messages of a conversation, oldest first.
async fn history(get: &impl AsyncFn(String) -> Value, conversation: &str) -> Vec<Value> {
    let path = format!("/v1/conversations/{conversation}/messages");
    pages(get, &path, usize::MAX).await.into_iter().rev().flatten().collect()
}

/// The first pages of a list.
async fn pages(get: &impl AsyncFn(String) -> Value, path: &str, most: usize) -> Vec<Vec<Value>> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    while pages.len() < most {
        let page = get(format!("{path}?limit=100{cursor}")).await;
        pages.push(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    pages
}
