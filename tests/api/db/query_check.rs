//! Every query of the program, prepared on the engine of this run and compared with its Rust declaration.

use digitalmistress::{
    app,
    platform::db::{Declared, Kind, MIGRATIONS},
};
use tokio_postgres::types::Type;

use super::*;

/// Checks one list of queries; returns a sentence for each thing that is wrong.
async fn check(test: &TestDatabase, slices: &[(&'static str, &'static [Declared])]) -> Vec<String> {
    let mut faults = Vec::new();
    for (slice, queries) in slices {
        for query in *queries {
            let found = if test.is_sqlite() {
                on_sqlite(&rusqlite::Connection::open(test.path()).unwrap(), query)
            } else {
                on_postgres(test, query).await
            };
            faults.extend(found.into_iter().map(|fault| format!("{slice}::{}: {fault}", query.name)));
        }
    }
    faults
}

fn on_sqlite(db: &rusqlite::Connection, query: &Declared) -> Vec<String> {
    let statement = match db.prepare(query.sql) {
        Ok(statement) => statement,
        Err(error) => return vec![format!("SQLite refuses it: {error}")],
    };
    let mut faults = Vec::new();
    if statement.parameter_count() != query.args.len() {
        faults.push(format!("SQLite takes {} parameters", statement.parameter_count()));
    }
    let columns: Vec<_> = statement.columns().collect();
    if columns.len() != query.columns.len() {
        faults.push(format!("SQLite returns {} columns", columns.len()));
    }
    for (column, (name, kind)) in columns.iter().zip(query.columns) {
        if !name.is_empty() && column.name() != *name {
            faults.push(format!("SQLite returns {} where {name} is declared", column.name()));
        }
        let expected = match kind {
            Kind::Int | Kind::Bool => "INTEGER",
            Kind::Text => "TEXT",
            Kind::Bytes | Kind::Id => "BLOB",
        };
        if let Some(declared) = column.decl_type()
            && declared != expected
        {
            faults.push(format!("SQLite's {} is {declared}, not {expected}", column.name()));
        }
    }
    let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {}", query.sql)).unwrap();
    let steps: Vec<String> =
        plan.raw_query().mapped(|row| row.get(3)).collect::<rusqlite::Result<_>>().unwrap();
    let scans: Vec<&String> =
        steps.iter().filter(|step| step.starts_with("SCAN") && *step != "SCAN CONSTANT ROW").collect();
    if !scans.is_empty() && !query.scans {
        faults.push(format!("it reads a whole table: {scans:?}"));
    }
    faults
}

async fn on_postgres(test: &TestDatabase, query: &Declared) -> Vec<String> {
    let client = test.client().await;
    let statement = match client.prepare(query.sql).await {
        Ok(statement) => statement,
        Err(error) => return vec![format!("PostgreSQL refuses it: {:?}", error.as_db_error())],
    };
    let mut faults = Vec::new();
    let kinds: Vec<Option<Kind>> = statement.params().iter().map(kind).collect();
    let declared: Vec<Option<Kind>> = query.args.iter().copied().map(Some).collect();
    if kinds != declared {
        faults.push(format!("PostgreSQL takes {:?} where {:?} is declared", statement.params(), query.args));
    }
    let columns: Vec<_> =
        statement.columns().iter().map(|column| (column.name(), kind(column.type_()))).collect();
    let matches = columns.len() == query.columns.len()
        && columns.iter().zip(query.columns).all(|((name, kind), (declared, expected))| {
            *kind == Some(*expected) && (declared.is_empty() || name == declared)
        });
    if !matches {
        faults.push(format!("PostgreSQL returns {columns:?} where {:?} is declared", query.columns));
    }
    faults
}

/// The five types and nothing else: an `int4`, or a `SUM` that became `NUMERIC`, has no kind.
fn kind(ty: &Type) -> Option<Kind> {
    match *ty {
        Type::INT8 => Some(Kind::Int),
        Type::BOOL => Some(Kind::Bool),
        Type::TEXT => Some(Kind::Text),
        Type::BYTEA => Some(Kind::Bytes),
        Type::UUID => Some(Kind::Id),
        _ => None,
    }
}

#[tokio::test]
async fn every_query_is_what_its_declaration_says() {
    let test = TestDatabase::new().await;
    test.with(MIGRATIONS).await;
    let faults = check(&test, &app::queries()).await;
    assert!(faults.is_empty(), "{faults:#?}");
}

/// The check itself notices each kind of mistake.
mod mistakes {
    use digitalmistress::queries;
    queries! {
        fn typo(id: i64) = "UPDATE acount SET used = 0 WHERE id = $1";
        fn wrong_argument(id: str) = "UPDATE account SET used = 0 WHERE id = $1";
        fn unused_argument(id: i64, more: i64) = "UPDATE account SET used = 0 WHERE id = $1";
        fn wrong_column(id: i64) -> i64 = "SELECT note FROM entry WHERE account = $1";
        fn too_many_columns(id: i64) -> i64 = "SELECT id, used FROM account WHERE id = $1";
        fn dialect(id: i64) -> i64 = "SELECT id::bigint FROM account WHERE id = $1";
        fn or_ignore(id: i64) = "INSERT OR IGNORE INTO account (id, used, last_seq) VALUES ($1, 0, 0)";
        fn whole_table(note: str) -> i64 = "SELECT seq FROM entry WHERE note = $1";
    }
}

#[tokio::test]
async fn the_check_notices_mistakes() {
    let test = TestDatabase::new().await;
    test.with(SCHEMA).await;
    let faults = check(&test, &[("mistakes", mistakes::ALL)]).await;
    let noticed = |name: &str| faults.iter().any(|fault| fault.contains(name));
    // Each engine notices what it can; together they notice all.
    let by_engine: &[&str] = if test.is_sqlite() {
        &["typo", "unused_argument", "wrong_column", "too_many_columns", "dialect", "whole_table"]
    } else {
        &["typo", "wrong_argument", "unused_argument", "wrong_column", "too_many_columns", "or_ignore"]
    };
    for name in by_engine {
        assert!(noticed(name), "{name} passed: {faults:#?}");
    }
}
