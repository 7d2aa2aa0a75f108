//! Typed queries: one SQL text, a typed function, and a declaration that a test compares with both engines.

use std::marker::PhantomData;

use super::{
    Conn, Error, Result,
    value::{Field, Kind, Value},
};

/// A row of either engine.
pub enum Row<'r> {
    /// Of PostgreSQL.
    Postgres(&'r tokio_postgres::Row),
    /// Of SQLite.
    Sqlite(&'r rusqlite::Row<'r>),
}

impl Row<'_> {
    /// Reads column `index` as one of the driver-native types.
    pub(super) fn get<T>(&self, index: usize) -> Result<T>
    where
        T: rusqlite::types::FromSql + for<'a> tokio_postgres::types::FromSql<'a>,
    {
        match self {
            Row::Postgres(row) => Ok(row.try_get(index)?),
            Row::Sqlite(row) => Ok(row.get(index)?),
        }
    }
}

/// What a query returns: the record for each row.
pub trait Record: Sized {
    /// Names and kinds of the columns, in order. An empty name matches any.
    const COLUMNS: &'static [(&'static str, Kind)];
    /// Reads the record from a row.
    fn from_row(row: &Row<'_>) -> Result<Self>;
}

/// A statement that returns no rows.
impl Record for () {
    const COLUMNS: &'static [(&'static str, Kind)] = &[];
    fn from_row(_: &Row<'_>) -> Result<Self> {
        Ok(())
    }
}

macro_rules! single_column {
    ($($ty:ty),*) => {$(
        impl Record for $ty {
            const COLUMNS: &'static [(&'static str, Kind)] = &[("", <$ty as Field>::KIND)];
            fn from_row(row: &Row<'_>) -> Result<Self> {
                Field::get(row, 0)
            }
        }
    )*};
}
single_column!(i64, bool, String, Vec<u8>, uuid::Uuid);

/// Declares a record: a struct whose fields are the columns of a query, by name and in order.
#[macro_export]
macro_rules! record {
    ($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident : $ty:ty),* $(,)?
    }) => {
        $(#[$meta])*
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $ty),* }

        impl $crate::platform::db::Record for $name {
            const COLUMNS: &'static [(&'static str, $crate::platform::db::Kind)] =
                &[$((stringify!($field), <$ty as $crate::platform::db::Field>::KIND)),*];

            fn from_row(row: &$crate::platform::db::Row<'_>) -> $crate::platform::db::Result<Self> {
                let mut columns = 0usize..;
                let mut next = || columns.next().unwrap_or(usize::MAX);
                Ok($name { $($field: $crate::platform::db::Field::get(row, next())?),* })
            }
        }
    };
}

/// A query as declared, for the test that prepares every one of them on both engines.
#[derive(Debug)]
pub struct Declared {
    /// The function's name.
    pub name: &'static str,
    /// The text.
    pub sql: &'static str,
    /// Kinds of the parameters, in order.
    pub args: &'static [Kind],
    /// Names and kinds of the columns, in order.
    pub columns: &'static [(&'static str, Kind)],
    /// Whether it is meant to read a whole table, through `read_slow` or in the background.
    pub scans: bool,
}

/// Declares the queries of a slice.
///
/// Each becomes a function from typed arguments to a [`Query`]; `ALL` lists them for the check. The part after
/// `->` is the record of a row and is left out where no rows come back. `scan fn` marks a query that is meant to
/// read a whole table; any other that would fails the check.
#[macro_export]
macro_rules! queries {
    (@record) => { () };
    (@record $record:ty) => { $record };
    (@scans fn) => { false };
    (@scans scan) => { true };
    (@queries [$($done:tt)*]) => {
        /// Every query of this module, for the test that prepares them on both engines.
        pub const ALL: &[$crate::platform::db::Declared] = &[$($done)*];
    };
    (@queries [$($done:tt)*]
        $(#[$meta:meta])* scan fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $record:ty)? = $sql:expr; $($rest:tt)*) => {
        $crate::queries!(@one $(#[$meta])* $name($($arg: $ty),*) ($($record)?) $sql);
        $crate::queries!(@queries [$($done)* $crate::queries!(@declared true $name($($ty),*) ($($record)?) $sql),] $($rest)*);
    };
    (@queries [$($done:tt)*]
        $(#[$meta:meta])* fn $name:ident($($arg:ident : $ty:ty),* $(,)?) $(-> $record:ty)? = $sql:expr; $($rest:tt)*) => {
        $crate::queries!(@one $(#[$meta])* $name($($arg: $ty),*) ($($record)?) $sql);
        $crate::queries!(@queries [$($done)* $crate::queries!(@declared false $name($($ty),*) ($($record)?) $sql),] $($rest)*);
    };
    (@one $(#[$meta:meta])* $name:ident($($arg:ident : $ty:ty),*) ($($record:ty)?) $sql:expr) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        pub(crate) fn $name<'q>(
            $($arg: <$ty as $crate::platform::db::Arg>::Of<'q>),*
        ) -> $crate::platform::db::Query<
            'q,
            $crate::queries!(@record $($record)?),
            { <[&str]>::len(&[$(stringify!($arg)),*]) },
        > {
            $crate::platform::db::Query::new($sql, [$($arg.into()),*])
        }
    };
    (@declared $scans:literal $name:ident($($ty:ty),*) ($($record:ty)?) $sql:expr) => {
        $crate::platform::db::Declared {
            name: stringify!($name),
            sql: $sql,
            args: &[$(<$ty as $crate::platform::db::Arg>::KIND),*],
            columns: <$crate::queries!(@record $($record)?) as $crate::platform::db::Record>::COLUMNS,
            scans: $scans,
        }
    };
    ($($all:tt)*) => {
        $crate::queries!(@queries [] $($all)*);
    };
}

/// A query with its arguments, ready to run on a [`Conn`].
#[must_use = "a query does nothing until it is run"]
pub struct Query<'q, R, const N: usize> {
    sql: &'static str,
    args: [Value<'q>; N],
    record: PhantomData<fn() -> R>,
}

impl<'q, R, const N: usize> Query<'q, R, N> {
    /// For [`queries!`](crate::queries), which is the only place that SQL comes from.
    #[doc(hidden)]
    pub fn new(sql: &'static str, args: [Value<'q>; N]) -> Self {
        Query { sql, args, record: PhantomData }
    }
}

impl<R: Record, const N: usize> Query<'_, R, N> {
    /// Every row; more than the connection allows is an error, never a silent cut.
    pub async fn all(&self, conn: &Conn) -> Result<Vec<R>> {
        conn.rows(self.sql, &self.args, R::from_row).await
    }

    /// The first row, if there is one.
    pub async fn opt(&self, conn: &Conn) -> Result<Option<R>> {
        conn.first(self.sql, &self.args, R::from_row).await
    }

    /// The first row; [`Error::NotFound`] when there is none.
    pub async fn one(&self, conn: &Conn) -> Result<R> {
        self.opt(conn).await?.ok_or(Error::NotFound)
    }
}

impl<const N: usize> Query<'_, (), N> {
    /// Runs the statement and returns how many rows it changed.
    pub async fn exec(&self, conn: &Conn) -> Result<u64> {
        conn.execute(self.sql, &self.args).await
    }
}
