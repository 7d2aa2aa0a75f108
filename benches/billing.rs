//! What billing costs: access on the way of a message, and a provider that sends many notices. `make bench` runs it;
//! docs/performance.md explains the figures.

// A benchmark may do what the program may not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::disallowed_methods,
    clippy::pedantic
)]
#![allow(clippy::print_stdout, missing_docs)]

#[allow(dead_code, reason = "the tests' objects, of which few are needed")]
#[path = "../tests/api/support/stripe/objects.rs"]
mod objects;
mod support;

use std::{
    hint::black_box,
    path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use axum::{
    Json, Router,
    extract::{Path, RawQuery},
    routing::get,
};
use digitalmistress::{
    app::{Offices, World},
    billing::{
        Billing, Reason,
        access::{self, Rows},
        row::{GrantedRow, HoldKind, Mode, OpenHold, State, StoredSubscription},
    },
    chat::AllowAll,
    config::{Config, Profile, Sources},
    platform::{
        clock::SystemClock,
        data_dir::development_master_key,
        db::{self, Db, MIGRATIONS},
        random::SystemRandom,
        tasks::Tasks,
    },
};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use rusqlite::{Connection as Sqlite, params, params_from_iter};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::sleep_until};
use uuid::Uuid;

use self::support::{
    Server, bare_commits, cpu_seconds, http::Connection, lateness, machine, ms, quantile, upstream,
};

/// Turns of the two reads that are compared, because a virtual machine is not equally fast all the time.
const ROUNDS: usize = 10;
/// Reads in each turn.
const READS: usize = 10_000;
/// Decisions that are timed.
const DECISIONS: usize = 1_000_000;

/// Notices a second.
const RATE: usize = 500;
/// How long they are sent.
const LOAD: Duration = Duration::from_secs(20);
/// How long as many as possible are sent, and how long the chats are listened to without any.
const SHORT: Duration = Duration::from_secs(10);
/// Customers whom the notices are about, each of a user.
const CUSTOMERS: usize = 64;
/// Connections that stay open. Each sends one notice after the other.
const CONNECTIONS: usize = 64;
/// Users who listen to a reply meanwhile.
const CHATS: usize = 16;
/// Between two words of a reply.
const PACE: Duration = Duration::from_millis(20);

const SECRET: &str = "whsec_bench_7c1d0a9e";
const PRICE: &str = "price_plus";
/// The database in a data directory.
const FILE: &str = "digitalmistress.sqlite";

fn main() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    println!("machine: {}", machine());
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    println!("load average before the run: {}", load.rsplitn(3, ' ').last().unwrap());
    let commits = bare_commits(dir.path(), 1_000);
    println!("bare durable commit: {}", shown(&commits));
    runtime.block_on(async {
        access_of_a_message(&dir.path().join("access")).await;
        notices(&dir.path().join("notices")).await;
    });
}

/// Settings with a provider at an address, as an operator would give them.
fn settings(stripe: &str) -> Vec<(&'static str, &str)> {
    vec![
        ("DM__BILLING__PROVIDERS__STRIPE__KIND", "stripe"),
        ("DM__BILLING__PROVIDERS__STRIPE__MODE", "test"),
        ("DM__BILLING__PROVIDERS__STRIPE__BASE_URL", stripe),
        ("DM__BILLING__PROVIDERS__STRIPE__SECRET_KEY", "sk_test_bench"),
        ("DM__BILLING__PROVIDERS__STRIPE__WEBHOOK_SECRETS", SECRET),
        ("DM__BILLING__PLANS__PLUS__PRICES__STRIPE", PRICE),
        ("DM__BILLING__PLANS__PLUS__MESSAGES_PER_DAY", "1000000"),
    ]
}

fn shown(times: &[Duration]) -> String {
    format!("p50 {:.3} ms, p99 {:.3} ms", ms(quantile(times, 0.5)), ms(quantile(times, 0.99)))
}

// --- What deciding about access adds to a message.

digitalmistress::queries! {
    /// What a message had to know before there were subscriptions.
    fn used(user_id: Uuid, day: i64) -> i64 = "SELECT used FROM quota_day WHERE user_id = $1 AND day = $2";
}

async fn access_of_a_message(data: &path::Path) {
    let offices = open(data).await;
    let (user, now) = (Uuid::from_u128(1), Timestamp::now());
    let day = now.as_second() / 86_400;
    let rows = rows(now);
    store(&data.join(FILE), user, day, &rows, now);

    let (mut bare, mut whole) = (0.0, 0.0);
    for _ in 0..ROUNDS {
        let before = own_cpu();
        for _ in 0..READS {
            black_box(quota(&offices.db, user, day).await);
        }
        let between = own_cpu();
        for _ in 0..READS {
            black_box(standing(&offices.billing, user).await);
        }
        bare += between - before;
        whole += own_cpu() - between;
    }
    let each = |seconds: f64| seconds / (ROUNDS * READS) as f64 * 1e6;
    println!(
        "access, {} reads each way by turns, processor time of one: {:.1} µs for the day's quota alone, {:.1} µs with \
         3 subscriptions, 1 grant and 1 hold; added {:.1} µs (wanted: less than 150)",
        ROUNDS * READS,
        each(bare),
        each(whole),
        each(whole - bare)
    );

    let config = config(data);
    let before = own_cpu();
    for _ in 0..DECISIONS {
        black_box(access::decide(black_box(&config.billing), black_box(&rows), black_box(now)));
    }
    println!("  deciding alone: {:.2} µs", (own_cpu() - before) / DECISIONS as f64 * 1e6);
    offices.db.close().await.unwrap();
}

async fn quota(db: &Db, user: Uuid, day: i64) -> i64 {
    let read = db.read(async |c| Ok::<_, db::Error>(used(user, day).opt(&c).await?.unwrap_or(0)));
    let used = read.await.unwrap();
    assert_eq!(used, 3);
    used
}

async fn standing(billing: &Billing, user: Uuid) -> i64 {
    let (access, quota) = billing.standing(user).await.unwrap();
    assert_eq!((access.reason, quota.used), (Reason::Subscription, 3));
    quota.used
}

/// One subscription that is paid, and what has to be looked at all the same: two that are over, one of which was given back, and
/// a grant that gives less.
fn rows(now: Timestamp) -> Rows {
    let after = |days: i64| now + SignedDuration::from_hours(24 * days);
    let subscription = |reference: &str, state, begun, ends| StoredSubscription {
        state,
        price: Some(PRICE.into()),
        period_start: Some(after(begun)),
        period_end: Some(after(ends)),
        ..StoredSubscription::new("stripe", Mode::Test, reference)
    };
    Rows {
        subscriptions: vec![
            subscription("sub_1", State::Ended, -400, -370),
            subscription("sub_2", State::Ended, -200, -170),
            subscription("sub_3", State::Active, -5, 25),
        ],
        grants: vec![GrantedRow { plan: "plus".into(), starts_at: after(-1), ends_at: after(6) }],
        holds: vec![OpenHold {
            provider: "stripe".into(),
            mode: Mode::Test,
            kind: HoldKind::Refund,
            subscription: Some("sub_2".into()),
            opened_at: after(-190),
        }],
    }
}

fn store(file: &path::Path, user: Uuid, day: i64, rows: &Rows, now: Timestamp) {
    let db = Sqlite::open(file).unwrap();
    let time = |time: Option<Timestamp>| time.map(|time| time.as_microsecond());
    let insert = |sql: &str, values: &[&dyn rusqlite::ToSql]| assert_eq!(db.execute(sql, values).unwrap(), 1);
    insert(
        "INSERT INTO app_user (id, email, email_key, email_verified, role, age_assurance, created_at)
         VALUES (?1, 'ann@example.com', 'ann@example.com', 1, 'user', 'declared', ?2)",
        params![user, now.as_microsecond()],
    );
    insert(
        "INSERT INTO quota_day (user_id, day, used, free_stops) VALUES (?1, ?2, 3, 0)",
        params![user, day],
    );
    for row in &rows.subscriptions {
        let (start, end) = (time(row.period_start), time(row.period_end));
        insert(
            "INSERT INTO subscription (provider, mode, reference, user_id, customer, state, raw_state, price, period_start,
                    period_end, cancelled, version, observed_at)
             VALUES (?1, ?2, ?3, ?4, 'cus_1', ?5, ?5, ?6, ?7, ?8, 0, 1, ?9)",
            params![
                row.provider,
                row.mode.as_str(),
                row.reference,
                user,
                row.state.as_str(),
                row.price,
                start,
                end,
                now.as_microsecond()
            ],
        );
    }
    for row in &rows.grants {
        insert(
            "INSERT INTO access_grant (id, user_id, plan, starts_at, ends_at, reason) VALUES (?1, ?1, ?2, ?3, ?4, x'00')",
            params![user, row.plan, row.starts_at.as_microsecond(), row.ends_at.as_microsecond()],
        );
    }
    for row in &rows.holds {
        insert(
            "INSERT INTO access_hold (provider, mode, reference, kind, user_id, subscription, opened_at)
             VALUES (?1, ?2, 'ch_1', 'refund', ?3, ?4, ?5)",
            params![row.provider, row.mode.as_str(), user, row.subscription, row.opened_at.as_microsecond()],
        );
    }
}

fn config(data: &path::Path) -> Config {
    let own = [("DM__SERVER__DATA_DIR", data.to_str().unwrap())];
    let env = settings("http://127.0.0.1:1").into_iter().chain(own);
    let env = env.map(|(name, value)| (name.into(), value.into())).collect();
    let sources = Sources { profile: Profile::Development, file: None, env };
    let mut config = Config::load(&sources).unwrap_or_else(|faults| panic!("{faults:?}"));
    let key = development_master_key(&config.development_key_file(), &SystemRandom).unwrap();
    config.master_keys = Some(key);
    config
}

/// The services in this process, over a database of their own.
async fn open(data: &path::Path) -> Offices {
    std::fs::create_dir_all(data).unwrap();
    let config = config(data);
    let world = World {
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
        tasks: Tasks::default(),
        reply_filter: Arc::new(AllowAll),
    };
    Db::migrate(&config.database, MIGRATIONS, Timestamp::now()).await.unwrap();
    Offices::open(&config, &world).await.unwrap()
}

fn own_cpu() -> f64 {
    cpu_seconds(std::process::id())
}

// --- Many notices at once, while chats go on.

async fn notices(data: &path::Path) {
    let (upstream, stripe) = (upstream::start().await, Stripe::start().await);
    let server = Server::start(data, &upstream, &settings(&stripe.url));
    let client = reqwest::Client::new();
    let people = server.people(&client, CUSTOMERS).await;
    let db = Sqlite::open(data.join(FILE)).unwrap();
    db.busy_timeout(Duration::from_secs(5)).unwrap();
    make_customers(&db);
    let shop = Shop { server, client, people, stripe, db };

    let quiet = shop.chats("quiet", SHORT).await;
    println!("a word of {CHATS} running replies without notices, late by: {}", shown(&quiet));
    shop.open_loop().await;
    shop.closed_loop().await;
}

fn make_customers(db: &Sqlite) {
    let users: Vec<Uuid> = {
        let mut select = db.prepare("SELECT id FROM app_user ORDER BY created_at").unwrap();
        let users = select.query_map([], |row| row.get(0)).unwrap();
        users.map(Result::unwrap).collect()
    };
    assert_eq!(users.len(), CUSTOMERS);
    for (n, user) in users.iter().enumerate() {
        db.execute(
            "INSERT INTO billing_customer (provider, mode, reference, user_id, asked, asked_since, created_at)
             VALUES ('stripe', 'test', ?1, ?2, 0, 0, 0)",
            params![format!("cus_{n}"), user],
        )
        .unwrap();
    }
}

struct Shop {
    server: Server,
    client: reqwest::Client,
    people: Vec<String>,
    stripe: Stripe,
    db: Sqlite,
}

/// What became of notices.
#[derive(Default)]
struct Sent {
    /// From when one was due until it was acknowledged.
    times: Vec<Duration>,
    /// How late they were sent.
    behind: Vec<Duration>,
    /// What was answered with something else than 200.
    refused: Vec<u16>,
}

/// A time in which notices are sent.
struct Phase {
    name: &'static str,
    sent: Sent,
    /// How late words came meanwhile.
    words: Vec<Duration>,
    /// Seconds, until all were sent.
    took: f64,
    /// Seconds of processor time of the program, and of everything else here: who sends and listens, both fake providers.
    server: f64,
    own: f64,
    /// From then on until all that they are about had been asked for.
    drained: Duration,
    /// How often that was.
    asked: usize,
}

impl Shop {
    /// Listens to replies; how late their words came.
    async fn chats(&self, name: &str, during: Duration) -> Vec<Duration> {
        let (client, server) = (&self.client, &self.server);
        let listen = |token| lateness(client, server, token, name, during, PACE);
        join_all(self.people[..CHATS].iter().map(|token| listen(token))).await.concat()
    }

    /// So many a second, whether or not the ones before have been answered.
    async fn open_loop(&self) {
        let most = RATE * LOAD.as_secs() as usize;
        let started = tokio::time::Instant::now() + Duration::from_millis(10);
        let due = move |n| (n < most).then(|| started + Duration::from_secs_f64(n as f64 / RATE as f64));
        let phase = self.phase("open", LOAD, due).await;
        println!(
            "{RATE} notices a second on {CONNECTIONS} connections for {:.0} s, each signed, about {CUSTOMERS} customers, \
             beside {CHATS} replies:",
            LOAD.as_secs_f64()
        );
        assert_eq!(phase.sent.behind.len(), most);
        self.report(&phase);
        println!(
            "  wanted: p99 less than 50 ms; of that the sender's own delay: {}",
            shown(&phase.sent.behind)
        );
    }

    /// As many as are acknowledged.
    async fn closed_loop(&self) {
        let end = tokio::time::Instant::now() + SHORT;
        let due = move |_| Some(tokio::time::Instant::now()).filter(|now| *now < end);
        let phase = self.phase("closed", SHORT, due).await;
        println!(
            "as many notices as {CONNECTIONS} connections can send, one after the other, for {:.0} s, beside {CHATS} replies:",
            SHORT.as_secs_f64()
        );
        self.report(&phase);
    }

    async fn phase(
        &self,
        name: &'static str,
        during: Duration,
        due: impl Fn(usize) -> Option<tokio::time::Instant> + Copy + Send + 'static,
    ) -> Phase {
        let (server, own, begun) = (self.server.cpu_seconds(), own_cpu(), Instant::now());
        let asked = self.stripe.asked.load(Ordering::Relaxed);
        let sending = async {
            let sent = self.send(name, due).await;
            let took = begun.elapsed().as_secs_f64();
            let (server, own) = (self.server.cpu_seconds() - server, own_cpu() - own);
            (sent, took, server, own, self.drain().await)
        };
        let (words, (sent, took, server, own, drained)) = tokio::join!(self.chats(name, during), sending);
        let asked = self.stripe.asked.load(Ordering::Relaxed) - asked;
        Phase { name, sent, words, took, server, own, drained, asked }
    }

    /// Sends notices on every connection. `due` says when each is to be sent, and when there are no more.
    async fn send(
        &self,
        name: &'static str,
        due: impl Fn(usize) -> Option<tokio::time::Instant> + Copy + Send + 'static,
    ) -> Sent {
        let address = self.server.base.strip_prefix("http://").unwrap();
        let notices = Arc::new(Notices::about(address, name));
        let senders: Vec<_> = (0..CONNECTIONS)
            .map(|first| {
                let (address, notices) = (address.to_owned(), Arc::clone(&notices));
                tokio::spawn(async move {
                    let (mut connection, mut sent) = (Connection::open(&address).await, Sent::default());
                    for n in (first..).step_by(CONNECTIONS) {
                        let Some(due) = due(n) else { break };
                        sleep_until(due).await;
                        sent.behind.push(due.elapsed());
                        match connection.call(&notices.request(n)).await {
                            200 => sent.times.push(due.elapsed()),
                            other => sent.refused.push(other),
                        }
                    }
                    sent
                })
            })
            .collect();
        let mut all = Sent::default();
        for sender in senders {
            let sent = sender.await.unwrap();
            all.times.extend(sent.times);
            all.behind.extend(sent.behind);
            all.refused.extend(sent.refused);
        }
        all
    }

    /// Waits until everything has been asked for that notices are about.
    async fn drain(&self) -> Duration {
        let begun = Instant::now();
        while self.count("SELECT COUNT(*) FROM billing_sync WHERE want_seq > done_seq", &[]) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        begun.elapsed()
    }

    fn report(&self, phase: &Phase) {
        let Phase { name, sent, words, took, server, own, drained, asked } = phase;
        println!(
            "  acknowledged: {:.0} a second, {} in all, {} refused; {}, at most {:.1} ms",
            sent.times.len() as f64 / took,
            sent.times.len(),
            sent.refused.len(),
            shown(&sent.times),
            ms(quantile(&sent.times, 1.0))
        );
        println!("  a word of a running reply, late by: {}", shown(words));
        println!(
            "  processor: {:.0} % of one core in the program, {:.0} % in who sends, listens and answers for the providers",
            server / took * 100.0,
            own / took * 100.0
        );
        println!(
            "  the provider was asked {asked} times about a customer; all was done {:.0} ms after the last notice",
            ms(*drained)
        );
        // What was acknowledged is there, and has had its effect.
        let there = "SELECT COUNT(*) FROM billing_inbox WHERE event_key LIKE ?1 || '%' AND status = 'done'";
        assert_eq!(self.count(there, &[&format!("evt_{name}_")]), sent.times.len());
    }

    fn count(&self, sql: &str, values: &[&str]) -> usize {
        let mut select = self.db.prepare_cached(sql).unwrap();
        let count: i64 = select.query_row(params_from_iter(values), |row| row.get(0)).unwrap();
        count as usize
    }
}

/// Notices, but for what differs.
struct Notices {
    head: String,
    name: &'static str,
    /// Of each customer.
    bodies: Vec<String>,
    key: hmac::Key,
}

impl Notices {
    fn about(address: &str, name: &'static str) -> Notices {
        let head = format!(
            "POST /v1/webhooks/stripe HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json; charset=utf-8\r\n"
        );
        let body = |customer| {
            let now = Timestamp::now().as_second();
            let object = subscription(&format!("cus_{customer}"), now, 0);
            objects::event("EVENT", "customer.subscription.updated", &object, now, false).to_string()
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
        Notices { head, name, bodies: (0..CUSTOMERS).map(body).collect(), key }
    }

    /// A request with a notice that was not sent before. Those of one connection are about one customer after the other.
    fn request(&self, n: usize) -> Vec<u8> {
        let customer = (n + n / CUSTOMERS) % CUSTOMERS;
        let body = self.bodies[customer].replacen("EVENT", &format!("evt_{}_{n}", self.name), 1);
        let time = Timestamp::now().as_second();
        let tag = hmac::sign(&self.key, format!("{time}.{body}").as_bytes());
        let tag: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let (head, length) = (&self.head, body.len());
        format!("{head}stripe-signature: t={time},v1={tag}\r\ncontent-length: {length}\r\n\r\n{body}")
            .into_bytes()
    }
}

// --- The payment provider, which answers at once.

struct Stripe {
    url: String,
    /// How often it was asked for a customer's subscriptions.
    asked: Arc<AtomicUsize>,
}

impl Stripe {
    async fn start() -> Stripe {
        let (asked, now) = (Arc::new(AtomicUsize::new(0)), Timestamp::now().as_second());
        let counted = Arc::clone(&asked);
        let customer =
            async move |Path(id): Path<String>| Json(objects::customer(&id, now, false, json!({})));
        // No answer is like the one before, so that each has to be stored.
        let subscriptions = async move |RawQuery(query): RawQuery| {
            let longer = counted.fetch_add(1, Ordering::Relaxed);
            let query = query.unwrap();
            let customer = query.split('&').find_map(|part| part.strip_prefix("customer=")).unwrap();
            let found = subscription(customer, now, longer as i64 + 1);
            Json(objects::list("/v1/subscriptions", vec![found], false))
        };
        let router = Router::new()
            .route("/v1/customers/{id}", get(customer))
            .route("/v1/subscriptions", get(subscriptions))
            .route("/v1/events", get(async || Json(objects::list("/v1/events", vec![], false))));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Stripe { url, asked }
    }
}

/// A customer's only subscription. Its period is so many seconds longer than a month.
fn subscription(customer: &str, now: i64, longer: i64) -> Value {
    let id = customer.replace("cus_", "sub_");
    let (metadata, trial_end) = (json!({"user_id": Uuid::nil()}), None);
    let begun = objects::Begun { id: &id, item: "si_1", customer, price: PRICE, metadata, trial_end };
    let mut found = objects::subscription(&begun, now, false);
    found["items"]["data"][0]["current_period_end"] = json!(now + objects::MONTH + longer);
    found
}
