//! Ways in which an object can differ from what is expected, for tests: nulls, other kinds, unknown words and fields, another
//! order.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Another value in one place.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which place: counted through all places of the object, again and again.
    pub at: usize,
    /// What stands there then.
    pub to: Value,
}

impl Change {
    /// Makes the change.
    pub fn apply(&self, object: &mut Value) {
        let places = places(object, String::new());
        let place = &places[self.at % places.len()];
        *object.pointer_mut(place).unwrap() = self.to.clone();
    }
}

/// Some changes, to values of every kind.
pub fn any_changes() -> impl Strategy<Value = Vec<Change>> {
    let value = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| json!(number)),
        ".{0,300}".prop_map(Value::from),
        "[a-z_]{1,20}".prop_map(Value::from),
        Just(json!([])),
        Just(json!([[], {}, null])),
        Just(json!({})),
        "[a-z_0-9]{1,20}".prop_map(|id| json!({"id": id, "object": "a_new_kind"})),
    ];
    let change = (any::<usize>(), value).prop_map(|(at, to)| Change { at, to });
    prop::collection::vec(change, 1..6)
}

/// The same with a field in every object that nobody knows.
pub fn with_unknown_fields(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let known = fields.iter().map(|(name, value)| (name.clone(), with_unknown_fields(value)));
            known.chain([("a_new_field".to_owned(), json!({"id": ["x"], "customer": 1}))]).collect()
        }
        Value::Array(values) => values.iter().map(with_unknown_fields).collect(),
        other => other.clone(),
    }
}

/// The same with the fields of every object in another order.
pub fn reordered(value: &Value, seed: u64) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            let length = fields.len().max(1);
            fields.rotate_left(usize::try_from(seed % 1000).unwrap() % length);
            if seed % 2 == 1 {
                fields.reverse();
            }
            let next = seed.rotate_left(7);
            let moved = fields.into_iter().map(|(name, value)| (name.clone(), reordered(value, next)));
            Value::Object(moved.collect::<Map<_, _>>())
        }
        Value::Array(values) => values.iter().map(|value| reordered(value, seed)).collect(),
        other => other.clone(),
    }
}

/// JSON pointers to everything in an object, and to itself.
fn places(value: &Value, here: String) -> Vec<String> {
    let inner: Vec<String> = match value {
        Value::Object(fields) => {
            fields.iter().flat_map(|(name, value)| places(value, format!("{here}/{name}"))).collect()
        }
        Value::Array(values) => {
            values.iter().enumerate().flat_map(|(at, value)| places(value, format!("{here}/{at}"))).collect()
        }
        _ => Vec::new(),
    };
    [vec![here], inner].concat()
}
