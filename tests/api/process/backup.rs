//! `backup` beside a running server and `restore` in its place: what was acknowledged is there, nobody is signed in, and
//! whatever does not fit is refused before anything is touched.

use std::{
    fs,
    path::{Path, PathBuf},
};

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::{
    app::{PASSWORD, message},
    database::TestDatabase,
    process::{Ended, Server, run},
};

/// A server on a SQLite file, Ann, and what was acknowledged to her.
struct House {
    database: TestDatabase,
    data: PathBuf,
    client: reqwest::Client,
}

impl House {
    fn build() -> House {
        let database = TestDatabase::on_sqlite();
        let data = database.dir.path().join("data");
        House { database, data, client: reqwest::Client::new() }
    }

    fn url(&self) -> String {
        self.database.settings.url.expose_secret().to_owned()
    }

    fn server(&self) -> Server {
        Server::dev(&self.data, &self.url(), &[("DM__CHAT__FREE_MESSAGES_PER_DAY", "1000")])
    }

    fn command(&self, arguments: &[&str]) -> Ended {
        self.command_with(arguments, &[])
    }

    fn command_with(&self, arguments: &[&str], more: &[(&str, &str)]) -> Ended {
        let (data, url) = (self.data.to_str().unwrap(), self.url());
        let env =
            [("DM_PROFILE", "development"), ("DM__SERVER__DATA_DIR", data), ("DM__DATABASE__URL", &url)];
        run(arguments, &[&env, more].concat(), PASSWORD)
    }

    fn backups(&self) -> PathBuf {
        self.database.dir.path().join("copies")
    }

    fn keys(&self) -> PathBuf {
        self.database.dir.path().join("elsewhere")
    }

    fn back_up(&self) {
        let (to, keys) = (self.backups(), self.keys());
        let made =
            self.command(&["backup", "--to", to.to_str().unwrap(), "--keys-to", keys.to_str().unwrap()]);
        assert!(made.success, "{made:?}");
    }

    fn restore(&self) -> Ended {
        self.restore_with(&[])
    }

    fn restore_with(&self, more: &[(&str, &str)]) -> Ended {
        let (from, keys) = (self.backups(), self.keys());
        let arguments = ["restore", "--from", from.to_str().unwrap(), "--keys-from", keys.to_str().unwrap()];
        self.command_with(&arguments, more)
    }

    async fn post(&self, server: &Server, token: &str, path: &str, body: Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", server.base)).bearer_auth(token);
        let answer = request.header("accept", "application/json").json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn log_in(&self, server: &Server) -> Value {
        let login = json!({"email": "ann@example.com", "password": PASSWORD});
        let (status, tokens) = self.post(server, "", "/v1/auth/login", login).await;
        assert_eq!(status, 200);
        tokens
    }

    async fn messages(&self, server: &Server, token: &str) -> usize {
        let address = format!("{}/v1/conversations/c/messages?limit=100", server.base);
        let page: Value =
            self.client.get(address).bearer_auth(token).send().await.unwrap().json().await.unwrap();
        page["data"].as_array().unwrap().len()
    }
}

fn token(tokens: &Value) -> &str {
    tokens["access_token"].as_str().unwrap()
}

/// The only file of a directory whose name ends so.
fn only(directory: &Path, end: &str) -> PathBuf {
    let mut found = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    found.find(|path| path.to_str().unwrap().ends_with(end)).unwrap()
}

#[tokio::test]
async fn a_backup_under_load_restores_what_was_acknowledged_and_signs_everybody_out() {
    let house = House::build();
    let mut server = house.server();
    let ann = ["user", "create", "--email", "ann@example.com", "--role", "user", "--password-stdin"];
    assert!(house.command(&ann).success);
    let tokens = house.log_in(&server).await;
    let say =
        |n: usize| house.post(&server, token(&tokens), "/v1/chat", message("c", &format!("m{n}"), "hello"));
    for n in 0..10 {
        assert_eq!(say(n).await.0, 200);
    }
    // While the backup is made, she goes on.
    let talking = async {
        for n in 10..30 {
            assert_eq!(say(n).await.0, 200);
        }
    };
    let backing_up = async { tokio::task::yield_now().await };
    tokio::join!(talking, backing_up);
    house.back_up();
    assert_eq!(say(30).await.0, 200, "after the backup");
    assert!(server.terminate().success());

    let restored = house.restore();
    assert!(restored.success && restored.stdout.contains("1 sessions have ended"), "{restored:?}");
    let server = house.server();
    let refresh = json!({"refresh_token": tokens["refresh_token"]});
    assert_eq!(house.post(&server, "", "/v1/auth/refresh", refresh).await.0, 401);
    let tokens = house.log_in(&server).await;
    assert_eq!(house.messages(&server, token(&tokens)).await, 60, "30 messages and their replies");
    // What was there before is kept beside it.
    only(house.database.path().parent().unwrap(), "Z");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_nothing_is_touched() {
    let house = House::build();
    let mut server = house.server();
    let ann = ["user", "create", "--email", "ann@example.com", "--role", "user", "--password-stdin"];
    assert!(house.command(&ann).success);
    house.back_up();
    let running = house.restore();
    assert!(!running.success && running.stderr.contains("a server is using"), "{running:?}");
    assert!(server.terminate().success());
    let before = fs::read(house.database.path()).unwrap();

    let other = "other:lD162ooeg1mIjr1/k12tLXMs3CouSkQr6zF79vdHBVU=";
    let refused = house.restore_with(&[("DM__SECURITY__MASTER_KEYS", other)]);
    assert!(!refused.success && refused.stderr.contains("do not fit the backup"), "{refused:?}");

    let data = only(&house.backups(), ".sqlite");
    let whole = fs::read(&data).unwrap();
    let mut damaged = whole.clone();
    damaged[5000..9000].fill(0xAA);
    fs::write(&data, damaged).unwrap();
    assert!(!house.restore().success);
    fs::write(&data, &whole[..whole.len() / 2]).unwrap();
    assert!(!house.restore().success);
    fs::write(&data, whole).unwrap();

    let keys = only(&house.keys(), ".keys.sqlite");
    fs::rename(&keys, keys.with_extension("gone")).unwrap();
    let refused = house.restore();
    assert!(!refused.success && refused.stderr.contains("no backup with its keys"), "{refused:?}");
    assert_eq!(fs::read(house.database.path()).unwrap(), before);
    fs::rename(keys.with_extension("gone"), &keys).unwrap();
    assert!(house.restore().success);
}

/// Whoever finds the data without the keys finds noise, and no key.
#[tokio::test]
async fn data_and_keys_are_apart_and_only_their_owner_reads_them() {
    use std::os::unix::fs::PermissionsExt as _;

    let house = House::build();
    let _server = house.server();
    house.back_up();
    let data = only(&house.backups(), ".sqlite");
    let keys = only(&house.keys(), ".keys.sqlite");
    let count = |file: &Path| -> i64 {
        let database = rusqlite::Connection::open(file).unwrap();
        database.query_row("SELECT COUNT(*) FROM data_key", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count(&data), 0);
    assert!(count(&keys) > 0);
    for file in [&data, &keys] {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o077, 0, "{}", file.display());
    }
}

#[tokio::test]
async fn postgresql_is_sent_to_its_own_tools() {
    let url = ("DM__DATABASE__URL", "postgres://app:secret@127.0.0.1/dm");
    let env = [("DM_PROFILE", "development"), url];
    let directory = tempfile::tempdir().unwrap();
    let data = ("DM__SERVER__DATA_DIR", directory.path().to_str().unwrap());
    for command in [["backup", "--to", "/nowhere"], ["restore", "--from", "/nowhere"]] {
        let refused = run(&command, &[&env[..], &[data]].concat(), "");
        assert!(!refused.success && refused.stderr.contains("PostgreSQL has its own tools"), "{refused:?}");
    }
}
