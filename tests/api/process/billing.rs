//! `billing …`, as an operator types it beside a running server.

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::{
    billing::shop::settings,
    support::{
        app::PASSWORD,
        database::TestDatabase,
        process::{Ended, Server, run},
        stripe::StripeFake,
    },
};

/// A server that sells through the fake of Stripe, Ann, and the environment of a command beside it.
struct Office {
    server: Server,
    stripe: StripeFake,
    env: Vec<(String, String)>,
    client: reqwest::Client,
    token: String,
    _database: TestDatabase,
}

impl Office {
    async fn open() -> Office {
        let now = jiff::Timestamp::now().as_second();
        let (database, stripe) = (TestDatabase::new().await, StripeFake::start(now).await);
        let (data, url) =
            (database.dir.path().join("data"), database.settings.url.expose_secret().to_owned());
        let settings = settings(&stripe.url);
        let server = Server::dev(&data, &url, &settings);
        let own = [
            ("DM_PROFILE", "development"),
            ("DM__SERVER__DATA_DIR", data.to_str().unwrap()),
            ("DM__DATABASE__URL", &url),
        ];
        let env =
            own.iter().chain(&settings).map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let mut office = Office {
            server,
            stripe,
            env,
            client: reqwest::Client::new(),
            token: String::new(),
            _database: database,
        };
        let ann = ["user", "create", "--email", "ann@example.com", "--role", "user", "--password-stdin"];
        assert!(office.command(&ann).success);
        let login = json!({"email": "ann@example.com", "password": PASSWORD});
        office.token =
            office.post("/v1/auth/login", login).await["access_token"].as_str().unwrap().to_owned();
        office
    }

    fn command(&self, arguments: &[&str]) -> Ended {
        let env: Vec<(&str, &str)> =
            self.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        run(arguments, &env, PASSWORD)
    }

    /// What a command prints as JSON.
    fn shown(&self, arguments: &[&str]) -> Value {
        let ended = self.command(arguments);
        assert!(ended.success, "{ended:?}");
        serde_json::from_str(&ended.stdout).unwrap()
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.client.post(format!("{}{path}", self.server.base)).bearer_auth(&self.token);
        request.json(&body).send().await.unwrap().json().await.unwrap()
    }

    async fn subscription(&self) -> Value {
        let request = self.client.get(format!("{}/v1/subscription", self.server.base));
        request.bearer_auth(&self.token).send().await.unwrap().json().await.unwrap()
    }
}

/// On several threads: a command blocks one, and the fake has to answer it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_looks_after_subscriptions_beside_a_running_server() {
    let office = Office::open().await;
    let page = "http://localhost:3000/account";
    let order = json!({"plan": "plus", "success_url": page, "cancel_url": page});
    office.post("/v1/subscription/checkout", order).await;
    let session = office.stripe.objects("checkout.session")[0]["id"].as_str().unwrap().to_owned();
    let reference = office.stripe.pay(&session).unwrap();

    // No notice was delivered.
    let synced = office.shown(&["billing", "sync", "ann@example.com"]);
    assert_eq!((&synced["state"], &synced["plan"]), (&json!("active"), &json!("plus")));
    let shown = office.shown(&["billing", "show", "ANN@example.com"]);
    assert_eq!(shown["access"]["reason"], "subscription");
    assert_eq!(
        (&shown["subscriptions"][0]["reference"], &shown["subscriptions"][0]["plan"]),
        (&json!(reference), &json!("plus"))
    );
    assert_eq!(shown["customers"][0]["provider"], "stripe");

    let held = office.command(&["billing", "hold", "ann@example.com", "--reason", "ticket 7"]);
    let hold = held.stdout.split_whitespace().last().unwrap().to_owned();
    assert_eq!(office.subscription().await["reason"], "on_hold");
    assert!(office.command(&["billing", "release", "ann@example.com", &hold]).success);
    assert_eq!(office.subscription().await["reason"], "subscription");
    assert!(!office.command(&["billing", "release", "ann@example.com", &hold]).success, "it is released");

    let until = "2999-01-01T00:00:00Z";
    let give = |plan| {
        ["billing", "grant", "ann@example.com", "--plan", plan, "--until", until, "--reason", "ticket 8"]
    };
    let given = office.shown(&give("pro"));
    assert_eq!((&given["plan"], &given["granted_by"]), (&json!("pro"), &json!(null)));
    assert_eq!(office.subscription().await["plan"], "pro");
    let refused = office.command(&give("gold"));
    assert!(!refused.success && refused.stderr.contains("No plan has this id."), "{refused:?}");
    assert!(office.command(&["billing", "revoke", "ann@example.com", given["id"].as_str().unwrap()]).success);
    assert_eq!(office.subscription().await["plan"], "plus");
    assert!(!office.command(&["billing", "show", "nobody@example.com"]).success);
}

/// On several threads: a command blocks one, and the fake has to answer it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_sees_what_a_provider_could_not_be_asked_and_has_it_asked_again() {
    let office = Office::open().await;
    assert_eq!(office.shown(&["billing", "dead"]), json!([]));
    office.stripe.fail_next(10_000, 500);
    let customer = office.stripe.add_customer(None);
    office.stripe.add_subscription(&customer, "price_plus");
    let url = format!("{}/v1/webhooks/stripe", office.server.base);
    for notice in office.stripe.notices() {
        assert_eq!(office.stripe.deliver(&office.client, &url, &notice).await, 200);
    }
    // Whether the server or the command asks: it fails, and stays to be asked for.
    let replayed = office.command(&["billing", "replay"]);
    assert!(replayed.stdout.starts_with("asked about 1;"), "{replayed:?}");
    office.stripe.recover();
    let begun = std::time::Instant::now();
    // The server may be asking still, in which case a command leaves it to that.
    while !office.command(&["billing", "replay"]).stdout.starts_with("asked about 0;") {
        assert!(begun.elapsed().as_secs() < 60, "it is never done");
    }
}
