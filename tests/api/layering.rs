//! Imports run one way: `main → app → slices → platform`; inside a slice `http → service → store → mod`.
//!
//! Reads the sources and fails on a breach, so that the structure is a fact and not a wish.

use std::{collections::BTreeMap, fs, path::Path};

/// Which other slices a slice may know. `account` and `admin` know all; nothing knows them.
const SLICES: &[(&str, &[&str])] = &[
    ("auth", &[]),
    ("billing", &["auth"]),
    ("chat", &["auth", "billing"]),
    ("account", &["auth", "billing", "chat"]),
    ("admin", &["auth", "billing", "chat"]),
];

/// What stands above the slices, and what each part may know besides the slices and the platform.
const ROOT: &[(&str, &[&str])] = &[
    ("config", &[]),
    ("jobs", &[]),
    ("health", &[]),
    ("contact", &[]),
    ("openapi", &[]),
    ("app", &["config", "contact", "health", "jobs", "openapi"]),
    ("commands", &["app", "config", "jobs", "openapi"]),
];

/// Breaches of the layers that are known. The list only gets shorter.
const TO_BE_MENDED: &[(&str, &str)] =
    &[("src/chat/http.rs", ".keyring"), ("src/chat/service.rs", "Deref for")];

/// Every source file under a directory, with its text.
fn sources(directory: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(sources(&name));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(name, fs::read_to_string(&path).unwrap());
        }
    }
    found
}

/// The text without its unit tests, comments and blank space, so that patterns match whatever the formatting.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap();
    text.lines().map(|line| line.split("//").next().unwrap().trim()).collect::<Vec<_>>().concat()
}

/// The first part of a file's path below `src`: its slice, `platform`, or a module at the root.
fn part(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap();
    below.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The modules of this crate that a file names: after `crate::`, alone or in braces.
fn named(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            None => names
                .push(after.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().unwrap().to_owned()),
            Some(group) => {
                let (mut depth, mut name, mut reading) = (0, String::new(), true);
                for c in group.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => (reading, _) = (true, names.push(std::mem::take(&mut name))),
                        ':' if depth == 0 => reading = false,
                        c if depth == 0 && reading && (c.is_alphanumeric() || c == '_') => name.push(c),
                        _ => {}
                    }
                }
                names.push(name);
            }
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn imports_run_one_way() {
    let mut breaches = Vec::new();
    for (path, text) in sources("src") {
        let part = part(&path).to_owned();
        for name in named(&code(&text)) {
            let is_module =
                name == "platform" || SLICES.iter().chain(ROOT).any(|(module, _)| *module == name);
            if !is_module || name == part {
                continue;
            }
            let slice = SLICES.iter().find(|(slice, _)| *slice == part);
            let root = ROOT.iter().find(|(module, _)| *module == part);
            let is_slice = SLICES.iter().any(|(slice, _)| *slice == name);
            let allowed = match (part.as_str(), slice, root) {
                ("platform", ..) => false,
                ("main" | "lib", ..) => true,
                (_, Some((_, known)), _) => name == "platform" || known.contains(&name.as_str()),
                (_, _, Some((_, known))) => name == "platform" || is_slice || known.contains(&name.as_str()),
                _ => false,
            };
            if !allowed {
                breaches.push(format!("{path} knows {name}"));
            }
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn every_part_of_the_house_is_listed() {
    let listed: Vec<&str> =
        SLICES.iter().chain(ROOT).map(|(name, _)| *name).chain(["platform", "main", "lib"]).collect();
    for path in sources("src").keys() {
        assert!(listed.contains(&part(path)), "{path} is in no part that this test knows");
    }
}

#[test]
fn inside_a_slice_the_layers_hold() {
    let mut breaches = Vec::new();
    for (path, text) in sources("src") {
        if !SLICES.iter().any(|(slice, _)| *slice == part(&path)) {
            continue;
        }
        let code = code(&text);
        let file = Path::new(&path).file_stem().unwrap().to_str().unwrap();
        let is_http = matches!(file, "http" | "caller") || path.contains("/http/");
        let mut forbid = |what: &str, why: &str| {
            if code.contains(what) && !TO_BE_MENDED.contains(&(path.as_str(), what)) {
                breaches.push(format!("{path} has `{what}`: {why}"));
            }
        };
        if is_http {
            forbid("queries!", "SQL lives in store.rs");
            forbid("store::", "handlers talk to the service");
            forbid(".write(", "the service opens transactions");
            forbid(".parts()", "handlers call the service, not what it works with");
            forbid(".read(async", "the service reads");
            forbid(".read_slow(", "the service reads");
            // What the service works with, by field, by import or by way of `Deref`.
            for tool in [
                ".0.", ".db", ".keyring", ".jobs", ".hasher", "Db,", "Db}", "Conn", "Keyring", "Jobs",
                "Hasher",
            ] {
                forbid(tool, "handlers reach the service and nothing that it works with");
            }
        } else {
            forbid("axum::", "only http.rs knows HTTP");
            forbid("Deref for", "a service hands its parts to nobody");
            forbid("http::router", "only http.rs knows routes");
        }
        if file == "store" || path.contains("/store/") {
            forbid("service::", "a store takes a connection and knows nothing above it");
            forbid("Db", "the service opens transactions");
        } else {
            forbid("queries! {", "SQL lives in store.rs");
        }
        // A slice reaches another through its service or domain types, never through its store.
        for (other, _) in SLICES.iter().filter(|(other, _)| *other != part(&path)) {
            forbid(&format!("{other}::store"), "another slice's rows are its own");
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn every_list_of_queries_is_checked() {
    let app = fs::read_to_string("src/app.rs").unwrap();
    for (path, text) in sources("src") {
        let declares = code(&text).contains("queries! {") || code(&text).contains("queries!{");
        if !declares || path.starts_with("src/platform/db/") {
            continue;
        }
        let module = path
            .trim_start_matches("src/")
            .trim_end_matches(".rs")
            .trim_end_matches("/mod")
            .replace('/', "::");
        let name = module.trim_start_matches("platform::");
        assert!(app.contains(&format!("{name}::ALL")), "app::queries() does not list {module}");
    }
}

/// Queries that name no owner. Those of the chat and `remove_…` look after everybody's rows, or those of the operator. The
/// others find a row by what only its owner can have, and whatever is done then is done in the owner's name.
const OWNERLESS: &[(&str, &[&str])] = &[
    ("src/chat/store.rs", &["abandoned", "abandoned_by", "add_persona", "find_persona"]),
    (
        "src/auth/session/store.rs",
        &["find_session_owner", "session_to_refresh", "remove_ended_sessions", "forget_successors"],
    ),
    ("src/auth/email_change/store.rs", &["remove_expired_changes", "find_undo", "remove_expired_undos"]),
    ("src/auth/consents/store.rs", &[]),
    ("src/billing/store/checkout.rs", &["remove_expired_intents"]),
    (
        "src/billing/store/rows.rs",
        &[
            "subscriptions_of_customer",
            "find_subscription",
            "put_subscription",
            "find_customer",
            "find_hold",
            "open_hold",
            "move_hold",
            "release_hold",
        ],
    ),
    ("src/auth/password/store.rs", &["store_reset", "find_reset", "remove_expired_resets"]),
];

#[test]
fn every_query_of_a_users_rows_names_the_owner() {
    for (path, expected) in OWNERLESS {
        let code = code(&fs::read_to_string(path).unwrap());
        let (mut ownerless, mut queries) = (Vec::new(), 0);
        for query in code.split("record! {").next().unwrap().split("fn ").skip(1) {
            let (name, rest) = query.split_once('(').unwrap();
            let (parameters, sql) = rest.split_once(')').unwrap();
            queries += 1;
            let names_owner = |parameter: &str| ["owner: Uuid", "user_id: Uuid"].contains(&parameter.trim());
            let number = parameters.split(',').position(names_owner);
            let is_used = number.is_some_and(|number| sql.contains(&format!("${}", number + 1)));
            if !is_used {
                ownerless.push(name);
            }
        }
        assert!(queries > 0, "the queries of {path} were not found");
        assert_eq!(ownerless, *expected, "{path}");
    }
}

#[test]
fn files_and_functions_stay_small() {
    let mut long = Vec::new();
    for (path, text) in sources("src").into_iter().chain(sources("tests")).chain(sources("benches")) {
        let lines = text.lines().count();
        if lines > 600 {
            long.push(format!("{path} has {lines} lines"));
        }
        let mut function: Option<(usize, usize, String)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let trimmed = line.trim_start();
            let begins = [
                "fn ",
                "pub fn ",
                "pub(super) fn ",
                "pub(crate) fn ",
                "async fn ",
                "pub async fn ",
                "pub(super) async fn ",
            ]
            .iter()
            .any(|start| trimmed.starts_with(start));
            // Queries are declared like functions and are data.
            if begins
                && function.is_none()
                && !path.ends_with("/store.rs")
                && !path.contains("/store/")
                && !trimmed.ends_with(';')
            {
                function = Some((number, indent, trimmed.to_owned()));
            }
            if let Some((start, depth, name)) = &function
                && indent == *depth
                && trimmed == "}"
            {
                if number - start > 60 && path.starts_with("src") {
                    long.push(format!("{path}:{start} `{name}` has {} lines", number - start));
                }
                function = None;
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}
