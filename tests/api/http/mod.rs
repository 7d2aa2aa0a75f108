//! The manners of the API: what is true of every route.

mod authorisation;
mod bad_input;
mod closed_by_default;
mod connections;
mod contact;
pub mod document;
mod headers;
mod health;
mod limits;
mod pages;

use digitalmistress::platform::db::{Error, Query};
use serde_json::Value;

use crate::support::app::TestApp;

/// The operations of the document: method, path template, declaration.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods
                .as_object()
                .unwrap()
                .iter()
                .map(move |(method, operation)| (method.to_uppercase(), path.clone(), operation.clone()))
        })
        .collect()
}

/// A path with its variable parts filled in.
fn filled(path: &str) -> String {
    // Administration names users, by ids of ours. This one is nobody's.
    let user = "/v1/admin/users/00000000-0000-0000-0000-000000000000";
    path.replace("/v1/admin/users/{id}", user).replace("{id}", "some-id").replace("{code}", "not_found")
}

/// How many rows each table has: what "changes nothing" means here.
async fn rows(t: &TestApp) -> Vec<(&'static str, i64)> {
    let mut counts = Vec::new();
    for table in [
        "app_user",
        "persona",
        "session",
        "consent",
        "pending_signup",
        "age_refusal",
        "password_reset",
        "email_change",
        "email_undo",
        "held_address",
        "audit_event",
        "conversation",
        "message",
        "generation",
        "job",
        "quota_day",
        "password_failure",
        "billing_customer",
        "subscription",
        "access_hold",
        "access_grant",
        "billing_inbox",
        "billing_sync",
        "checkout_intent",
    ] {
        let sql: &'static str = format!("SELECT COUNT(*) FROM {table}").leak();
        let count: Result<i64, Error> =
            t.db().read(async |c| Query::<i64, 0>::new(sql, []).one(&c).await).await;
        counts.push((table, count.unwrap()));
    }
    counts
}

/// The same without some tables.
fn but(rows: Vec<(&'static str, i64)>, tables: &[&str]) -> Vec<(&'static str, i64)> {
    rows.into_iter().filter(|(table, _)| !tables.contains(table)).collect()
}
