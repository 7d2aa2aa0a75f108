//! A new master key, while people talk.

use std::sync::Arc;

use digitalmistress::platform::{random::SystemRandom, seal::MasterKeys};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::{
    app::{PASSWORD, message},
    database::TestDatabase,
    process::{Ended, Server, run},
};

struct Place {
    database: TestDatabase,
    client: reqwest::Client,
}

impl Place {
    fn server(&self, keys: &str) -> Server {
        let data = self.database.dir.path().join("data");
        let keys = [("DM__SECURITY__MASTER_KEYS", keys), ("DM__CHAT__FREE_MESSAGES_PER_DAY", "1000")];
        Server::dev(&data, self.database.settings.url.expose_secret(), &keys)
    }

    fn rotate(&self, keys: &str) -> Ended {
        let data = self.database.dir.path().join("data");
        let env = [
            ("DM_PROFILE", "development"),
            ("DM__SERVER__DATA_DIR", data.to_str().unwrap()),
            ("DM__DATABASE__URL", self.database.settings.url.expose_secret()),
            ("DM__SECURITY__MASTER_KEYS", keys),
        ];
        run(&["keys", "rotate", "master"], &env, "")
    }

    async fn post(&self, server: &Server, token: &str, path: &str, body: Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", server.base)).bearer_auth(token);
        let answer = request.header("accept", "application/json").json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn log_in(&self, server: &Server) -> String {
        let login = json!({"email": "ann@example.com", "password": PASSWORD});
        let (status, tokens) = self.post(server, "", "/v1/auth/login", login).await;
        assert_eq!(status, 200, "{tokens}");
        tokens["access_token"].as_str().unwrap().to_owned()
    }

    async fn history(&self, server: &Server, token: &str) -> Vec<Value> {
        let address = format!("{}/v1/conversations/c/messages?limit=100", server.base);
        let page: Value =
            self.client.get(address).bearer_auth(token).send().await.unwrap().json().await.unwrap();
        page["data"].as_array().unwrap_or_else(|| panic!("{page}")).clone()
    }
}

fn master(id: &str) -> String {
    MasterKeys::generate(id, &SystemRandom).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_master_key_takes_over_while_people_talk() {
    let place = Arc::new(Place { database: TestDatabase::new().await, client: reqwest::Client::new() });
    let (old, new) = (master("old"), master("new"));
    let both = format!("{new},{old}");
    let mut server = place.server(&old);
    let ann = ["user", "create", "--email", "ann@example.com", "--role", "user", "--password-stdin"];
    let data = place.database.dir.path().join("data");
    let env = [
        ("DM_PROFILE", "development"),
        ("DM__SERVER__DATA_DIR", data.to_str().unwrap()),
        ("DM__DATABASE__URL", place.database.settings.url.expose_secret()),
        ("DM__SECURITY__MASTER_KEYS", old.as_str()),
    ];
    assert!(run(&ann, &env, PASSWORD).success);
    let token = place.log_in(&server).await;
    assert_eq!(place.post(&server, &token, "/v1/chat", message("c", "m0", "hello")).await.0, 200);
    assert!(server.terminate().success());

    // With the new key alone nothing opens, and nothing is changed.
    let refused = place.rotate(&new);
    assert!(!refused.success && refused.stderr.contains("cannot be used with this database"), "{refused:?}");
    let mut server = place.server(&both);
    let token = place.log_in(&server).await;
    let talking = async {
        for n in 1..20 {
            let said = place.post(&server, &token, "/v1/chat", message("c", &format!("m{n}"), "hello")).await;
            assert_eq!(said.0, 200, "{}", said.1);
        }
    };
    let (there, keys) = (place.clone(), both.clone());
    let rotating = tokio::task::spawn_blocking(move || there.rotate(&keys));
    let ((), rotated) = tokio::join!(talking, rotating);
    let rotated = rotated.unwrap();
    assert!(
        rotated.success && rotated.stdout.contains("none is left under another master key"),
        "{rotated:?}"
    );
    let before = place.history(&server, &token).await;
    assert!(server.terminate().success());

    let again = place.rotate(&both);
    assert!(again.stdout.starts_with("0 data keys were wrapped anew"), "{again:?}");
    let server = place.server(&new);
    let token = place.log_in(&server).await;
    assert_eq!(place.history(&server, &token).await, before, "the old key is not needed any more");
    assert_eq!(before.len(), 40);
}
