//! The whole program in this process, on a private database and a real socket, and people who use it.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use digitalmistress::{
    app::{App, World},
    auth::{Administrator, Role},
    chat::{AllowAll, Intervals, SharedReplyFilter},
    config::{Config, Profile, Sources},
    jobs::Background,
    platform::{
        clock::Clock as _,
        data_dir::{DataDir, development_master_key},
        mail::{Mailbox, StoredMail},
        random::SystemRandom,
        server,
        server::Limits,
        tasks::Tasks,
    },
};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    clock::TestClock,
    database::TestDatabase,
    http::{Call, all},
    stream::Stream,
};

pub const PASSWORD: &str = "seven quiet lanterns at dusk";

/// A running program.
pub struct TestApp {
    pub base: String,
    pub client: reqwest::Client,
    pub clock: Arc<TestClock>,
    pub mailbox: Mailbox,
    pub background: Background,
    /// Everything behind the socket, for calls without one.
    pub router: axum::Router,
    pub database: Arc<TestDatabase>,
    db: digitalmistress::platform::db::Db,
    data_dir: Option<DataDir>,
    tasks: Tasks,
    settings: Vec<(String, String)>,
    seams: Seams,
}

/// What is chosen by the program and not by an operator.
#[derive(Clone)]
pub struct Seams {
    pub intervals: Intervals,
    pub reply_filter: SharedReplyFilter,
}

impl Default for Seams {
    fn default() -> Self {
        Seams { intervals: Intervals::default(), reply_filter: Arc::new(AllowAll) }
    }
}

/// Somebody with a session.
#[derive(Clone)]
pub struct Person {
    pub id: String,
    pub session: String,
    pub access_token: String,
    pub refresh_token: String,
}

impl TestApp {
    pub async fn start() -> TestApp {
        Self::with(&[]).await
    }

    /// With settings as an operator would give them, such as `("DM__CHAT__LEASE", "1s")`.
    pub async fn with(settings: &[(&str, &str)]) -> TestApp {
        let settings = settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self::on(Arc::new(TestDatabase::new().await), Arc::default(), settings, Seams::default(), 1).await
    }

    /// The same, with a route of several providers.
    pub async fn routed(route: &[(String, String)], settings: &[(&str, &str)]) -> TestApp {
        let route = route.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        Self::with(&route.chain(settings.iter().copied()).collect::<Vec<_>>()).await
    }

    /// The same, with what happens now and then happening more often.
    pub async fn hurried(settings: &[(&str, &str)], intervals: Intervals) -> TestApp {
        Self::with_seams(settings, Seams { intervals, ..Seams::default() }).await
    }

    /// With what only a program can choose.
    pub async fn with_seams(settings: &[(&str, &str)], seams: Seams) -> TestApp {
        let settings = settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Self::on(Arc::new(TestDatabase::new().await), Arc::default(), settings, seams, 1).await
    }

    async fn on(
        database: Arc<TestDatabase>,
        clock: Arc<TestClock>,
        settings: Vec<(String, String)>,
        seams: Seams,
        instance: u128,
    ) -> TestApp {
        let key_file = database.dir.path().join("data/master.key");
        let data_dir =
            database.dir.path().join(if instance == 1 { "data".into() } else { format!("data-{instance}") });
        let mut env: Vec<(String, String)> = [
            ("DM__SERVER__LISTEN", "127.0.0.1:0"),
            ("DM__SERVER__PUBLIC_URL", "http://localhost:1"),
            ("DM__SERVER__DATA_DIR", data_dir.to_str().unwrap()),
            ("DM__DATABASE__URL", database.settings.url.expose_secret()),
            ("DM__DATABASE__POOL_SIZE", "5"),
            ("DM__CHAT__PROVIDERS__DEMO__PACE", "0s"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
        env.extend(settings.clone());
        let env = env.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        let sources = Sources { profile: Profile::Development, file: None, env };
        let mut config = Config::load(&sources).unwrap_or_else(|faults| panic!("{faults:?}"));
        config.master_keys = Some(development_master_key(&key_file, &SystemRandom).unwrap());
        config.chat.intervals = seams.intervals;

        let tasks = Tasks::default();
        let world = World {
            clock: clock.clone(),
            random: Arc::new(SystemRandom),
            tasks: tasks.clone(),
            reply_filter: seams.reply_filter.clone(),
        };
        // A known name, so that tests can forge what this instance has left behind.
        std::fs::create_dir_all(&data_dir).unwrap();
        std::fs::write(data_dir.join("instance"), Uuid::from_u128(instance).to_string()).unwrap();
        let data_dir = DataDir::take(&data_dir, &SystemRandom, clock.now()).unwrap();
        let app = App::start(&config, &world, data_dir.instance).await.unwrap();
        app.recover().await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let (router, serving) = (app.router.clone(), tasks.clone());
        tokio::spawn(async move {
            server::serve(vec![listener], router, &serving, Limits::new(1000, Duration::from_secs(5))).await;
        });
        TestApp {
            base,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            clock,
            mailbox: app.mailbox.unwrap(),
            background: app.background,
            router: app.router,
            database,
            db: app.db,
            data_dir: Some(data_dir),
            tasks,
            settings,
            seams,
        }
    }

    /// Another instance on the same data, with the same clock.
    pub async fn beside(&self) -> TestApp {
        Self::on(self.database.clone(), self.clock.clone(), self.settings.clone(), self.seams.clone(), 2)
            .await
    }

    /// As [`TestApp::beside`], with settings changed.
    pub async fn beside_with(&self, settings: &[(&str, &str)]) -> TestApp {
        let changed = settings.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let settings = self.settings.iter().cloned().chain(changed).collect();
        Self::on(self.database.clone(), self.clock.clone(), settings, self.seams.clone(), 2).await
    }

    /// Ends the program in order and starts it again on the same data.
    pub async fn restart(mut self) -> TestApp {
        self.shut_down().await;
        self.db.close().await.unwrap();
        self.data_dir = None;
        Self::on(self.database.clone(), self.clock.clone(), self.settings.clone(), self.seams.clone(), 1)
            .await
    }

    /// As [`TestApp::restart`], with settings changed.
    pub async fn restart_with(mut self, settings: &[(&str, &str)]) -> TestApp {
        self.settings.extend(settings.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        self.restart().await
    }

    /// As [`TestApp::restart`], without the settings whose names begin so.
    pub async fn restart_without(mut self, prefix: &str) -> TestApp {
        self.settings.retain(|(name, _)| !name.starts_with(prefix));
        self.restart().await
    }

    /// Tells the program that it is about to end: everything goes on.
    pub fn about_to_end(&self) {
        self.tasks.leave();
    }

    /// Tells the program that it is going to end: nothing new is begun, what runs goes on.
    pub fn begin_to_end(&self) {
        self.tasks.stop();
    }

    /// Tells the program to end and waits for what was running.
    pub async fn shut_down(&self) {
        self.tasks.end();
        assert_eq!(self.tasks.wait(Duration::from_secs(10)).await, 0, "something did not end");
    }

    /// The database itself, for what no caller may see.
    pub fn db(&self) -> &digitalmistress::platform::db::Db {
        &self.db
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A call by nobody in particular.
    pub fn get(&self, path: &str) -> Call {
        Call::new(self.client.get(format!("{}{path}", self.base)))
    }

    pub fn post(&self, path: &str, body: Value) -> Call {
        Call::new(self.client.post(format!("{}{path}", self.base)).json(&body))
    }

    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method.parse().unwrap(), format!("{}{path}", self.base))
    }

    /// Opens so many connections: calls at once arrive at once only if none of them has to connect first.
    pub async fn connect(&self, count: usize) {
        let slow = |_| self.post("/v1/auth/unlock", json!({"token": "none"}));
        for answer in all((0..count).map(slow)).await {
            answer.problem(400, "invalid_code");
        }
    }

    /// Runs the background jobs that are due, and returns the newest mail to an address.
    pub async fn mail_to(&self, email: &str) -> Option<StoredMail> {
        self.background.run_due().await.unwrap();
        self.mailbox.mails(Some(email)).into_iter().next()
    }

    /// The code in the newest mail to an address.
    pub async fn code_for(&self, email: &str) -> String {
        let mail = self.mail_to(email).await.expect("there is a mail");
        code_in(&mail.text)
    }

    /// The consents that sign-up needs.
    pub async fn consents(&self) -> Value {
        let policies = self.get("/v1/policies").await.ok();
        policies["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|policy| json!({"document": policy["document"], "version": policy["version"]}))
            .collect()
    }

    pub async fn signup_body(&self, email: &str) -> Value {
        json!({"email": email, "password": PASSWORD, "birth_date": "1990-12-31", "consents": self.consents().await})
    }

    /// Signs somebody up, all the way.
    pub async fn sign_up(&self, email: &str) -> Person {
        let started = self.post("/v1/auth/signup", self.signup_body(email).await).await.status(202);
        let code = self.code_for(email).await;
        let body = json!({"signup_token": started["signup_token"], "code": code});
        Person::from(self.post("/v1/auth/signup/verify", body).await.status(201))
    }

    /// Signs somebody up who may administer, and has just shown who they are.
    pub async fn administrator(&self, email: &str) -> Person {
        let person = self.sign_up(email).await;
        let id = person.id.parse().unwrap();
        self.background.auth.set_role(Administrator::Command, id, Role::Admin).await.unwrap();
        person
    }

    /// The audit's entries of one action, oldest first: outcome, subject and session.
    pub async fn audited(&self, action: &str) -> Vec<(String, Option<Uuid>, Option<Uuid>)> {
        digitalmistress::queries! {
            scan fn entries(action: str) -> Entry =
                "SELECT outcome, subject, session_id FROM audit_event WHERE action = $1 ORDER BY at, id";
        }
        digitalmistress::record! {
            struct Entry {
                outcome: String,
                subject: Option<Uuid>,
                session_id: Option<Uuid>,
            }
        }
        let action = action.to_owned();
        let read = async move |c| entries(&action).all(&c).await;
        let found: Result<Vec<Entry>, digitalmistress::platform::db::Error> = self.db.read_slow(read).await;
        found.unwrap().into_iter().map(|entry| (entry.outcome, entry.subject, entry.session_id)).collect()
    }

    pub async fn log_in(&self, email: &str) -> Person {
        Person::from(self.log_in_with(email, PASSWORD).await.ok())
    }

    /// Tries to sign in with a password.
    pub fn log_in_with(&self, email: &str, password: &str) -> Call {
        self.post("/v1/auth/login", json!({"email": email, "password": password}))
    }

    /// Exchanges a refresh token.
    pub fn refresh(&self, token: &str) -> Call {
        self.post("/v1/auth/refresh", json!({"refresh_token": token}))
    }

    /// The token of the link to a page of the frontend in the newest mail to an address.
    pub async fn token_for(&self, email: &str, page: &str) -> String {
        let mail = self.mail_to(email).await.expect("there is a mail");
        token_in(&mail.text, page)
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.tasks.end();
    }
}

/// The eight digits that stand on a line of their own.
pub fn code_in(text: &str) -> String {
    let is_code = |line: &&str| line.len() == 8 && line.bytes().all(|b| b.is_ascii_digit());
    text.lines().find(is_code).expect("the mail has a code").to_owned()
}

/// A code that is certainly not the right one.
pub fn other_than(code: &str) -> String {
    let first = if code.starts_with('0') { '1' } else { '0' };
    format!("{first}{}", &code[1..])
}

/// A part of an access token: 0 is the header, 1 the claims.
pub fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// What an access token says.
pub fn claims(token: &str) -> Value {
    part(token, 1)
}

/// The token of a link to a page of the frontend, which stands on a line of its own.
pub fn token_in(text: &str, page: &str) -> String {
    let start = format!("http://localhost:5173/{page}#token=");
    let token = text.lines().find_map(|line| line.strip_prefix(&start));
    token.unwrap_or_else(|| panic!("no link to {page}: {text}")).to_owned()
}

impl From<Value> for Person {
    fn from(tokens: Value) -> Person {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        Person {
            id: text(&tokens["user"]["id"]),
            session: text(&tokens["session"]["id"]),
            access_token: text(&tokens["access_token"]),
            refresh_token: text(&tokens["refresh_token"]),
        }
    }
}

impl Person {
    /// With the tokens of a refresh.
    pub async fn refreshed(&self, t: &TestApp) -> Person {
        Person::from(t.refresh(&self.refresh_token).await.ok())
    }

    pub fn get(&self, t: &TestApp, path: &str) -> Call {
        t.get(path).bearer(&self.access_token)
    }

    pub fn post(&self, t: &TestApp, path: &str, body: Value) -> Call {
        t.post(path, body).bearer(&self.access_token)
    }

    pub fn patch(&self, t: &TestApp, path: &str, body: Value) -> Call {
        Call::new(t.request("PATCH", path).json(&body)).bearer(&self.access_token)
    }

    pub fn put(&self, t: &TestApp, path: &str, body: Value) -> Call {
        Call::new(t.request("PUT", path).json(&body)).bearer(&self.access_token)
    }

    pub fn delete(&self, t: &TestApp, path: &str) -> Call {
        Call::new(t.request("DELETE", path)).bearer(&self.access_token)
    }

    /// Sends a message and waits for the whole reply as JSON.
    pub fn say(&self, t: &TestApp, conversation: &str, id: &str, text: &str) -> Call {
        self.post(t, "/v1/chat", message(conversation, id, text)).accept_json()
    }

    /// Sends a message and listens to the reply.
    pub async fn stream(&self, t: &TestApp, conversation: &str, id: &str, text: &str) -> Stream {
        let response = self.post(t, "/v1/chat", message(conversation, id, text)).send().await;
        assert_eq!(response.status(), 200);
        Stream::new(response)
    }

    /// The texts of a conversation, oldest first, with who said them.
    pub async fn texts(&self, t: &TestApp, conversation: &str) -> Vec<String> {
        let page = self.get(t, &format!("/v1/conversations/{conversation}/messages?limit=100")).await.ok();
        let text = |message: &Value| message["parts"][0]["text"].as_str().unwrap().to_owned();
        page["data"].as_array().unwrap().iter().map(text).collect()
    }

    /// The states of a conversation's messages, oldest first.
    pub async fn statuses(&self, t: &TestApp, conversation: &str) -> Vec<String> {
        let page = self.get(t, &format!("/v1/conversations/{conversation}/messages?limit=100")).await.ok();
        let status = |message: &Value| message["metadata"]["status"].as_str().unwrap().to_owned();
        page["data"].as_array().unwrap().iter().map(status).collect()
    }

    /// Messages charged today.
    pub async fn used(&self, t: &TestApp) -> i64 {
        self.get(t, "/v1/session").await.ok()["quota"]["used"].as_i64().unwrap()
    }
}

/// A message in the lean form.
pub fn message(conversation: &str, id: &str, text: &str) -> Value {
    json!({"id": conversation, "message": {"id": id, "role": "user", "parts": [{"type": "text", "text": text}]}})
}
