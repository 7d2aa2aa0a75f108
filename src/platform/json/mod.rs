//! JSON from strangers: read once, strictly, before any type looks at it.
//!
//! Duplicate keys mean different things to different readers, so they are refused at every level. So are text after
//! the value, nesting beyond [`MAX_DEPTH`] and NUL characters, which no text column can hold.

mod typed;

use serde::{
    Deserialize,
    de::{DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use self::typed::Typed;
use super::problem::{Code, FieldError, Problem};

/// The deepest nesting that is read.
pub const MAX_DEPTH: usize = 32;

/// Reads `bytes` as a `T`.
///
/// # Errors
///
/// `malformed_json` for what is not strict JSON, `validation_failed` with a pointer for what is not a `T`.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Strict { depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| Problem::new(Code::MalformedJson, describe(&error)))?;
    serde_path_to_error::deserialize(Typed(value)).map_err(|error| {
        let pointer = pointer(error.path());
        Problem::validation(vec![mismatch(pointer, &error.into_inner())])
    })
}

/// What serde says quotes values, which are people's words; the position does not.
fn describe(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "the text ends too early",
        serde_json::error::Category::Data => "it holds a duplicate key, a NUL character or too many levels",
        serde_json::error::Category::Io | serde_json::error::Category::Syntax => "it is not JSON",
    };
    format!("Line {}, column {}: {what}.", error.line(), error.column())
}

/// Turns serde's sentence into one of our codes without repeating any value.
fn mismatch(mut pointer: String, error: &serde_json::Error) -> FieldError {
    let text = error.to_string();
    let name = || text.split('`').nth(1).unwrap_or_default().to_owned();
    let (code, detail) = if text.starts_with("missing field") {
        let field = name();
        pointer.push('/');
        pointer.push_str(&field);
        ("missing", "This field is needed.".into())
    } else if text.starts_with("unknown field") {
        // The path already ends with the field where serde tracked it.
        let field = escape(&name());
        if !pointer.ends_with(&format!("/{field}")) {
            pointer.push('/');
            pointer.push_str(&field);
        }
        ("unknown_field", "This field is not known.".into())
    } else if text.starts_with("unknown variant") {
        let known: Vec<&str> = text.split('`').skip(3).step_by(2).collect();
        ("unknown_value", format!("The value must be one of: {}.", known.join(", ")))
    } else {
        ("wrong_type", "The value has the wrong type.".into())
    };
    FieldError { pointer, code, detail: detail.into() }
}

/// RFC 6901.
fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;

    let mut text = String::new();
    for segment in path {
        let name = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => escape(key),
            Segment::Enum { variant } => escape(variant),
            Segment::Unknown => continue,
        };
        text.push('/');
        text.push_str(&name);
    }
    text
}

fn escape(key: &str) -> String {
    // A stranger's key is echoed; keep it short.
    key.chars().take(64).collect::<String>().replace('~', "~0").replace('/', "~1")
}

/// Reads any JSON value under the rules of this module.
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(&self) -> Result<Strict, E> {
        let depth = self.depth.saturating_add(1);
        if depth > MAX_DEPTH { Err(E::custom("too deep")) } else { Ok(Strict { depth }) }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        if value.contains('\0') { Err(E::custom("NUL")) } else { Ok(value.into()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element_seed(self.deeper()?)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let value = entries.next_value_seed(self.deeper()?)?;
            if key.contains('\0') || object.insert(key, value).is_some() {
                return Err(A::Error::custom("duplicate key"));
            }
        }
        Ok(Value::Object(object))
    }
}

/// A field of a merge patch (RFC 7396): absent leaves, `null` clears, anything else sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// Not named.
    #[default]
    Leave,
    /// `null`.
    Clear,
    /// A value.
    Set(T),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Patch::Clear, Patch::Set))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Body {
        #[allow(dead_code)]
        name: String,
        #[serde(default)]
        #[allow(dead_code)]
        list: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[allow(dead_code)]
        kind: Kind,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Small,
        Large,
    }

    fn verdict(text: &str) -> (String, Option<(String, String)>) {
        let problem = read::<Body>(text.as_bytes()).unwrap_err();
        let body = problem.body("");
        let field = body.get("errors").map(|errors| {
            let error = &errors[0];
            (error["pointer"].as_str().unwrap().to_owned(), error["code"].as_str().unwrap().to_owned())
        });
        (problem.code().as_str().to_owned(), field)
    }

    #[test]
    fn what_is_not_strict_json_is_malformed() {
        let deep = format!("{}{}", "[".repeat(33), "]".repeat(33));
        for text in [
            "",
            " ",
            "{",
            "nul",
            r#"{"name":"a",}"#,
            r#"{"name":"a"} x"#,
            r#"{"name":"a"}{}"#,
            r#"{"name":"a","name":"b"}"#,
            r#"{"list":[{"kind":1,"kind":1}]}"#,
            r#"{"name":"\u0000"}"#,
            r#"{"\u0000":1}"#,
            "{\"name\":\"\u{1}\"}",
            r#"{"name":"\ud800"}"#,
            "\u{feff}{}",
            r#"{"name":1e999}"#,
            "NaN",
            "'a'",
            "// x\n{}",
            &deep,
        ] {
            assert_eq!(verdict(text), ("malformed_json".into(), None), "{text:?}");
        }
        assert_eq!(read::<Body>(b"{\"name\":\"\xff\"}").unwrap_err().code(), Code::MalformedJson);
    }

    #[test]
    fn what_is_not_the_type_is_named_by_pointer() {
        for (text, pointer, code) in [
            (r"{}", "/name", "missing"),
            (r#"{"name":1}"#, "/name", "wrong_type"),
            (r#"{"name":null}"#, "/name", "wrong_type"),
            (r#"{"name":"a","more":1}"#, "/more", "unknown_field"),
            (r#"{"name":"a","a/b~c":1}"#, "/a~1b~0c", "unknown_field"),
            (r#"{"name":"a","list":{}}"#, "/list", "wrong_type"),
            (r#"{"name":"a","list":[{"kind":"small"},{"kind":"huge"}]}"#, "/list/1/kind", "unknown_value"),
            (r#"{"name":"a","list":[{"kind":"small","x":1}]}"#, "/list/0/x", "unknown_field"),
            (r#"{"name":"a","list":[{}]}"#, "/list/0/kind", "missing"),
            (r#"{"name":"a","list":[["small"]]}"#, "/list/0", "wrong_type"),
            (r#"["a"]"#, "", "wrong_type"),
            (r"[]", "", "wrong_type"),
            (r"7", "", "wrong_type"),
        ] {
            assert_eq!(
                verdict(text),
                ("validation_failed".into(), Some((pointer.into(), code.into()))),
                "{text}"
            );
        }
    }

    #[test]
    fn no_answer_repeats_a_value() {
        for text in [
            r#"{"name":"s3cret","name":2}"#,
            r#"{"name":["s3cret"]}"#,
            r#"{"name":"a","list":[{"kind":"s3cret"}]}"#,
        ] {
            assert!(
                !read::<Body>(text.as_bytes()).unwrap_err().body("").to_string().contains("s3cret"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_patch_tells_absent_from_null() {
        #[derive(Deserialize)]
        struct Name {
            #[serde(default)]
            name: Patch<String>,
        }
        assert_eq!(read::<Name>(b"{}").unwrap().name, Patch::Leave);
        assert_eq!(read::<Name>(br#"{"name":null}"#).unwrap().name, Patch::Clear);
        assert_eq!(read::<Name>(br#"{"name":"a"}"#).unwrap().name, Patch::Set("a".into()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(bytes: Vec<u8>) {
            let _ = read::<Body>(&bytes);
        }

        #[test]
        fn what_serde_json_accepts_without_duplicates_we_read_alike(text in r#"[\[\]{}":,a-c0-9. \\-]{0,40}"#) {
            if let Ok(ours) = read::<Value>(text.as_bytes()) {
                prop_assert_eq!(ours, serde_json::from_str::<Value>(&text).unwrap());
            }
        }
    }
}
