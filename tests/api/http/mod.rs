//! The manners of the API: what is true of every route.

mod bad_input;
mod closed_by_default;
mod connections;
pub mod document;
mod headers;
mod pages;

use serde_json::Value;

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
