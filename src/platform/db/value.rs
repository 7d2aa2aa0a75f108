//! The five kinds of column that both engines share, and the Rust types that travel in them.

use jiff::Timestamp;
use rusqlite::types::{ToSqlOutput, ValueRef};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use uuid::Uuid;

use super::{Error, Result, query::Row};

/// A kind of column: `BIGINT`, `BOOLEAN`, `TEXT`, `BYTEA` or `UUID`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Signed 64 bits; times are microseconds since 1970 in UTC.
    Int,
    /// True or false; 0 or 1 in SQLite.
    Bool,
    /// UTF-8 without NUL.
    Text,
    /// Bytes.
    Bytes,
    /// A UUID; 16 bytes in SQLite.
    Id,
}

/// A parameter on its way into a statement.
#[derive(Clone, Copy)]
pub enum Value<'q> {
    /// No value.
    Null,
    /// See [`Kind::Int`].
    Int(i64),
    /// See [`Kind::Bool`].
    Bool(bool),
    /// See [`Kind::Text`].
    Text(&'q str),
    /// See [`Kind::Bytes`].
    Bytes(&'q [u8]),
    /// See [`Kind::Id`].
    Id(Uuid),
}

/// Shows the kind only: drivers may log their parameters, and ours are people's words.
impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Value::Null => "null",
            Value::Int(_) => "int",
            Value::Bool(_) => "bool",
            Value::Text(_) => "text",
            Value::Bytes(_) => "bytes",
            Value::Id(_) => "id",
        })
    }
}

/// A type that a query declares as a parameter: what the caller passes, and the kind of column that takes it.
pub trait Arg {
    /// What the caller passes.
    type Of<'q>: Into<Value<'q>>;
    /// The kind of the parameter.
    const KIND: Kind;
}

/// A type that a result column becomes.
pub trait Field: Sized {
    /// The kind of the column.
    const KIND: Kind;
    /// Reads column `index`.
    fn get(row: &Row<'_>, index: usize) -> Result<Self>;
}

macro_rules! kinds {
    ($($declared:ty, $passed:ty, $owned:ty, $kind:ident;)*) => {$(
        impl Arg for $declared {
            type Of<'q> = $passed;
            const KIND: Kind = Kind::$kind;
        }
        impl Arg for Option<$owned> {
            type Of<'q> = Option<$passed>;
            const KIND: Kind = Kind::$kind;
        }
        impl<'q> From<$passed> for Value<'q> {
            fn from(value: $passed) -> Self {
                Value::$kind(value)
            }
        }
        impl Field for $owned {
            const KIND: Kind = Kind::$kind;
            fn get(row: &Row<'_>, index: usize) -> Result<Self> {
                row.get(index)
            }
        }
        impl Field for Option<$owned> {
            const KIND: Kind = Kind::$kind;
            fn get(row: &Row<'_>, index: usize) -> Result<Self> {
                row.get(index)
            }
        }
    )*};
}

kinds! {
    i64, i64, i64, Int;
    bool, bool, bool, Bool;
    str, &'q str, String, Text;
    [u8], &'q [u8], Vec<u8>, Bytes;
    Uuid, Uuid, Uuid, Id;
}

impl<'q, T: Into<Value<'q>>> From<Option<T>> for Value<'q> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

impl Arg for Timestamp {
    type Of<'q> = Timestamp;
    const KIND: Kind = Kind::Int;
}

impl Arg for Option<Timestamp> {
    type Of<'q> = Option<Timestamp>;
    const KIND: Kind = Kind::Int;
}

impl From<Timestamp> for Value<'_> {
    fn from(value: Timestamp) -> Self {
        Value::Int(value.as_microsecond())
    }
}

impl Field for Timestamp {
    const KIND: Kind = Kind::Int;
    fn get(row: &Row<'_>, index: usize) -> Result<Self> {
        time(row.get(index)?)
    }
}

impl Field for Option<Timestamp> {
    const KIND: Kind = Kind::Int;
    fn get(row: &Row<'_>, index: usize) -> Result<Self> {
        row.get::<Option<i64>>(index)?.map(time).transpose()
    }
}

fn time(microseconds: i64) -> Result<Timestamp> {
    Timestamp::from_microsecond(microseconds)
        .map_err(|_| Error::Refused("a stored time is out of range".into()))
}

/// Gives an enum its text in the database, in both directions. The table says the same in a `CHECK`.
#[macro_export]
macro_rules! text_column {
    ($name:ident { $($variant:ident = $text:literal),* $(,)? }) => {
        impl $name {
            /// The text that stands for it in the database and in the API.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }

            /// The value that a text stands for.
            pub fn from_text(text: &str) -> Option<Self> {
                match text { $($text => Some($name::$variant),)* _ => None }
            }
        }
        impl $crate::platform::db::Arg for $name {
            type Of<'q> = $name;
            const KIND: $crate::platform::db::Kind = $crate::platform::db::Kind::Text;
        }
        impl $crate::platform::db::Arg for Option<$name> {
            type Of<'q> = Option<$name>;
            const KIND: $crate::platform::db::Kind = $crate::platform::db::Kind::Text;
        }
        impl From<$name> for $crate::platform::db::Value<'_> {
            fn from(value: $name) -> Self {
                $crate::platform::db::Value::Text(value.as_str())
            }
        }
        impl $crate::platform::db::Field for $name {
            const KIND: $crate::platform::db::Kind = $crate::platform::db::Kind::Text;
            fn get(row: &$crate::platform::db::Row<'_>, index: usize) -> $crate::platform::db::Result<Self> {
                let text: String = $crate::platform::db::Field::get(row, index)?;
                $name::from_text(&text).ok_or_else(|| {
                    $crate::platform::db::Error::Refused(concat!("not a stored ", stringify!($name)).into())
                })
            }
        }
    };
}

impl rusqlite::ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Value::Null => ToSqlOutput::Borrowed(ValueRef::Null),
            Value::Int(value) => (*value).into(),
            Value::Bool(value) => (*value).into(),
            Value::Text(value) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
            Value::Bytes(value) => ToSqlOutput::Borrowed(ValueRef::Blob(value)),
            Value::Id(value) => ToSqlOutput::Borrowed(ValueRef::Blob(value.as_bytes())),
        })
    }
}

impl ToSql for Value<'_> {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut bytes::BytesMut,
    ) -> std::result::Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Value::Null => Ok(IsNull::Yes),
            Value::Int(value) => value.to_sql(ty, out),
            Value::Bool(value) => value.to_sql(ty, out),
            Value::Text(value) => value.to_sql(ty, out),
            Value::Bytes(value) => value.to_sql(ty, out),
            Value::Id(value) => value.to_sql(ty, out),
        }
    }

    // The check of every query compares the kinds with what the server asks for, so this need not.
    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}
