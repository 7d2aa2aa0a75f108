//! Whether the program lives, whether it is to be sent requests, and which version it is. Supervisors and proxies ask.

use std::{sync::Arc, time::Duration};

use axum::{Json, Router, extract::State, response::IntoResponse as _, response::Response, routing::get};
use serde_json::{Value, json};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

use crate::{
    platform::{
        db::{Db, Error, MIGRATIONS},
        problem::{Code, Problem},
        tasks::Tasks,
    },
    queries,
};

/// How long the database may take to answer before we are not ready.
const PATIENCE: Duration = Duration::from_secs(1);
/// The version, as in `Cargo.toml`, and as `--version` prints it.
const VERSION: &str = env!("CARGO_PKG_VERSION");

queries! {
    /// Whether a step of the schema was applied.
    fn applied_version(version: i64) -> i64 = "SELECT version FROM schema_migration WHERE version = $1";
}

/// How long an answer about the database is good for: many ask, and it is asked once.
const FRESH: Duration = Duration::from_secs(1);

/// What the answers depend on.
#[derive(Clone)]
struct Health {
    db: Db,
    tasks: Tasks,
    last: Arc<Mutex<Option<(Instant, Found)>>>,
}

/// What was found out about the database.
#[derive(Clone)]
enum Found {
    Ready,
    Behind,
    Unreachable(Error),
    TooSlow,
}

/// The three pages. Anybody may ask, and learns nothing else.
pub fn router(db: Db, tasks: Tasks) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .with_state(Health { db, tasks, last: Arc::default() })
}

async fn version() -> Json<Value> {
    Json(json!({"name": env!("CARGO_PKG_NAME"), "version": VERSION}))
}

/// Ready is who has a database with the schema that this program needs, and is not about to end.
async fn ready(State(health): State<Health>) -> Response {
    let refusal = |detail| Problem::new(Code::Unavailable, detail);
    if health.tasks.is_leaving() {
        return refusal("The program is about to end.").into_response();
    }
    match health.found().await {
        Found::Ready => "ready".into_response(),
        Found::Behind => refusal("The schema of the database is behind.").into_response(),
        Found::Unreachable(error) => refusal("The data cannot be reached.").caused_by(error).into_response(),
        Found::TooSlow => refusal("The data cannot be reached in time.").into_response(),
    }
}

impl Health {
    /// Asks the database, if nobody has in the last second. Who comes meanwhile waits for the same answer.
    async fn found(&self) -> Found {
        let mut last = self.last.lock().await;
        if let Some((at, found)) = &*last
            && at.elapsed() < FRESH
        {
            return found.clone();
        }
        let newest = MIGRATIONS.last().map_or(0, |migration| migration.version);
        let asked = self.db.read(async |c| applied_version(newest).opt(&c).await);
        let found = match timeout(PATIENCE, asked).await {
            Ok(Ok(Some(_))) => Found::Ready,
            Ok(Ok(None)) => Found::Behind,
            Ok(Err(error)) => Found::Unreachable(error),
            Err(_) => Found::TooSlow,
        };
        *last = Some((Instant::now(), found.clone()));
        found
    }
}
