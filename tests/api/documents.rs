//! The documents that name tests name tests that exist.
//!
//! Reads text, as `layering` does: a test that is renamed or removed takes the documents along, or fails here.

use std::{collections::BTreeSet, fs};

const THREATS: &str = "docs/pentest/threat-model.md";
const REQUIREMENTS: &str = "docs/asvs.csv";

/// The column of the requirements that names tests.
const SHOWN_BY: &str = "shown_by";

/// What a row of a threat begins with, after its number.
const STRIDE: [&str; 6] = ["S", "T", "R", "I", "D", "E"];

/// The tests that a text names, as `path::name`.
fn named(text: &str) -> BTreeSet<(String, String)> {
    let ends = |c: char| c.is_whitespace() || "`,;|\"'()<>[]".contains(c);
    let words = text.split(ends).filter_map(|word| word.split_once(".rs::"));
    words.map(|(path, name)| (format!("{path}.rs"), name.trim_end_matches(['.', ':']).to_owned())).collect()
}

/// Whether a source has a test of this name. Its attributes and comments stand right above it.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    lines.iter().enumerate().any(|(number, line)| {
        let declared = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        let is_it =
            declared.and_then(|rest| rest.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('));
        let above = || {
            lines[..number].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"))
        };
        is_it && above().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    })
}

/// What is wrong with the tests that a text names.
fn missing(document: &str, text: &str) -> Vec<String> {
    let mut missing = Vec::new();
    for (path, name) in named(text) {
        match fs::read_to_string(&path) {
            Ok(source) if has_test(&source, &name) => {}
            Ok(_) => missing.push(format!("{document}: {path} has no test {name}")),
            Err(_) => missing.push(format!("{document}: there is no {path}")),
        }
    }
    missing
}

/// The fields of a CSV file (RFC 4180), record by record.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => field.extend(characters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            '\r' if !quoted => {}
            c => field.push(c),
        }
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        records.push(record);
    }
    records
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let text = fs::read_to_string(THREATS).unwrap();
    assert!(named(&text).len() > 50, "the names were not found");
    let missing = missing(THREATS, &text);
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_threat_names_its_tests_or_says_that_it_is_open() {
    let text = fs::read_to_string(THREATS).unwrap();
    let (mut threats, mut bare) = (0, Vec::new());
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if !cells.get(1).is_some_and(|kind| STRIDE.contains(kind)) {
            continue;
        }
        threats += 1;
        let shown = cells.last().unwrap();
        if named(shown).is_empty() && !shown.starts_with("open") {
            bare.push(line);
        }
    }
    assert!(threats > 30, "the threats were not found");
    assert!(bare.is_empty(), "{bare:#?}");
}

/// The file need not be there.
#[test]
fn every_test_that_the_requirements_name_exists() {
    let Ok(text) = fs::read_to_string(REQUIREMENTS) else { return };
    let records = records(&text);
    let column = records[0].iter().position(|name| name.trim() == SHOWN_BY);
    let column = column.unwrap_or_else(|| panic!("{REQUIREMENTS} has no column {SHOWN_BY}"));
    let shown: Vec<&str> =
        records.iter().skip(1).filter_map(|row| row.get(column)).map(String::as_str).collect();
    let missing = missing(REQUIREMENTS, &shown.join("\n"));
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn a_name_that_is_no_test_is_noticed() {
    let source =
        "/// Why.\n#[tokio::test(flavor = \"multi_thread\")]\nasync fn it_holds() {}\n\nfn it_helps() {}\n";
    assert!(has_test(source, "it_holds"));
    assert!(!has_test(source, "it_hold") && !has_test(source, "it_helps"));
    let here = "see `tests/api/documents.rs::a_name_that_is_no_test_is_noticed`, tests/api/gone.rs::it_was.";
    assert_eq!(missing("x", here), ["x: there is no tests/api/gone.rs"]);
    assert_eq!(
        missing("x", "tests/api/documents.rs::has_test"),
        ["x: tests/api/documents.rs has no test has_test"]
    );
    assert_eq!(records("a,\"b,\"\"c\nd\"\r\ne,"), [vec!["a", "b,\"c\nd"], vec!["e", ""]]);
}
