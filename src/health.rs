//! Whether the program lives, whether it is to be sent requests, and which version it is. Supervisors and proxies ask.

use std::time::Duration;

use axum::{Json, Router, extract::State, response::IntoResponse as _, response::Response, routing::get};
use serde_json::{Value, json};
use tokio::time::timeout;

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

/// What the answers depend on.
#[derive(Clone)]
struct Health {
    db: Db,
    tasks: Tasks,
}

/// The three pages. Anybody may ask, and learns nothing else.
pub fn router(db: Db, tasks: Tasks) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/version", get(version))
        .with_state(Health { db, tasks })
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
    let newest = MIGRATIONS.last().map_or(0, |migration| migration.version);
    let asked = health.db.read(async |c| applied_version(newest).opt(&c).await);
    match timeout(PATIENCE, asked).await {
        Ok(Ok(Some(_))) => "ready".into_response(),
        Ok(Ok(None)) => refusal("The schema of the database is behind.").into_response(),
        Ok(Err::<_, Error>(error)) => refusal("The data cannot be reached.").caused_by(error).into_response(),
        Err(_) => refusal("The data cannot be reached in time.").into_response(),
    }
}
