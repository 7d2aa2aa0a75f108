//! Parameters as Stripe's SDKs write them: `a=1&b[c]=2&d[0]=3`.

use std::collections::BTreeSet;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

#[derive(Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    pub fn parse(text: &str) -> Params {
        let decoded = |text: &str| {
            percent_decode_str(&text.replace('+', " ")).decode_utf8().expect("UTF-8").into_owned()
        };
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let split = |pair: &str| {
            let (name, value) = pair.split_once('=').expect("a name and a value");
            (decoded(name), decoded(value))
        };
        Params(pairs.map(split).collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub fn number(&self, name: &str) -> Option<i64> {
        self.get(name).map(|value| value.parse().expect("a number"))
    }

    /// The values of a list.
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.within(name).map(|(_, value)| value).collect()
    }

    /// The fields of an object whose values are texts.
    pub fn object(&self, name: &str) -> Value {
        let fields = self.within(name).map(|(field, value)| (field.to_owned(), value.into()));
        Value::Object(fields.collect::<Map<_, _>>())
    }

    /// The names of the parameters, without what is in their brackets.
    pub fn names(&self) -> BTreeSet<&str> {
        self.0.iter().map(|(name, _)| name.split('[').next().unwrap()).collect()
    }

    /// What stands in the brackets behind a name, and its value.
    fn within<'a>(&'a self, name: &str) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let before = format!("{name}[");
        self.0.iter().filter_map(move |(given, value)| {
            let inner = given.strip_prefix(&before)?.strip_suffix(']')?;
            (!inner.contains('[')).then_some((inner, value.as_str()))
        })
    }
}
