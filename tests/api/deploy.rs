//! Files for operators: what they name has to exist.

use std::{collections::BTreeSet, fs, path::Path};

/// The text of every source file below a directory.
fn sources(directory: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text.push_str(&sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
    text
}

/// The metrics that the program counts.
fn counted() -> BTreeSet<String> {
    let text = sources(Path::new("src"));
    let mut names = BTreeSet::new();
    for macro_name in ["counter!(", "gauge!(", "histogram!("] {
        for rest in text.split(macro_name).skip(1) {
            let name = rest.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next());
            names.extend(name.map(str::to_owned));
        }
    }
    names
}

#[test]
fn alerts_are_about_metrics_that_are_counted_and_every_metric_is_explained() {
    let counted = counted();
    assert!(counted.len() > 15, "{counted:?}");
    let rules = fs::read_to_string("deploy/alerts.yml").unwrap();
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut used = 0;
    for line in rules.lines().filter(|line| line.contains("expr:") || line.starts_with("          ")) {
        for word in line.split(|c| !is_word(c)).filter(|word| word.contains('_') && !line.contains("summary"))
        {
            let name = word.trim_end_matches("_count").trim_end_matches("_bucket");
            let is_function = matches!(word, "histogram_quantile");
            assert!(is_function || counted.contains(name), "{word} is not counted: {line}");
            used += usize::from(!is_function);
        }
    }
    assert!(used > 12, "{used}");
    let pages = ["docs/operations.md", "docs/payments.md"].map(|page| fs::read_to_string(page).unwrap());
    for name in counted {
        assert!(pages.iter().any(|page| page.contains(&format!("`{name}`"))), "{name} is explained nowhere");
    }
}
