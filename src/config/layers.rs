//! Where settings come from: files and variables, laid over each other.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::Fault;

const DEFAULT: &str = include_str!("../../config/default.toml");
const COMPANIONS: &str = include_str!("../../config/companions.toml");
const DEVELOPMENT: &str = include_str!("../../config/development.toml");
const PRODUCTION: &str = include_str!("../../config/production.toml");

/// The beginning of our variables.
const PREFIX: &str = "DM__";

/// Which set of defaults is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// On a developer's machine.
    Development,
    /// Anywhere else.
    Production,
}

/// A value and the layer that it comes from.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The value, typed in a file, text in a variable.
    pub value: Value,
    /// The layer.
    pub origin: Origin,
}

/// A layer.
#[derive(Clone, Debug)]
pub enum Origin {
    /// A file that is compiled in.
    BuiltIn,
    /// A file of the operator's.
    File(PathBuf),
    /// An environment variable.
    Variable(String),
}

/// All settings by dotted name, after laying the layers over each other.
pub type Settings = BTreeMap<String, Setting>;

/// Lays the layers over each other.
pub fn load(
    profile: Profile,
    file: Option<&Path>,
    env: &[(OsString, OsString)],
    faults: &mut Vec<Fault>,
) -> Settings {
    let mut settings = Settings::new();
    let (name, profile) = match profile {
        Profile::Development => ("config/development.toml", DEVELOPMENT),
        Profile::Production => ("config/production.toml", PRODUCTION),
    };
    add_toml(&mut settings, &Origin::BuiltIn, "config/default.toml", DEFAULT, faults);
    add_toml(&mut settings, &Origin::BuiltIn, "config/companions.toml", COMPANIONS, faults);
    add_toml(&mut settings, &Origin::BuiltIn, name, profile, faults);
    if let Some(path) = file {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => add_toml(&mut settings, &Origin::File(path.to_owned()), &name, &text, faults),
            Err(error) => faults.push(Fault::new(name, format!("cannot be read: {error}"))),
        }
    }
    for (name, value) in env {
        // A name that is not UTF-8 is none of ours: it is reported as such when it begins like one.
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let key = rest.split("__").map(str::to_ascii_lowercase).collect::<Vec<_>>().join(".");
        let Some(text) = value.to_str() else {
            faults.push(Fault::new(name.into_owned(), "is not UTF-8".into()));
            continue;
        };
        let origin = Origin::Variable(name.into_owned());
        settings.insert(key, Setting { value: Value::String(text.to_owned()), origin });
    }
    settings
}

fn add_toml(settings: &mut Settings, origin: &Origin, name: &str, text: &str, faults: &mut Vec<Fault>) {
    match text.parse::<Table>() {
        Ok(table) => add_table(settings, origin, "", table),
        // The parser's own message quotes the line, which may hold a secret.
        Err(error) => {
            let line =
                error.span().map_or(0, |span| text.bytes().take(span.start).filter(|b| *b == b'\n').count());
            let line = line.saturating_add(1);
            faults.push(Fault::new(name.to_owned(), format!("line {line} is not TOML")));
        }
    }
}

fn add_table(settings: &mut Settings, origin: &Origin, prefix: &str, table: Table) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(table) => add_table(settings, origin, &key, table),
            value => {
                settings.insert(key, Setting { value, origin: origin.clone() });
            }
        }
    }
}
