//! The manners of the API: what is true of every route.

mod bad_input;
mod closed_by_default;
mod connections;
mod document;
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
    path.replace("{id}", "some-id").replace("{code}", "not_found")
}
