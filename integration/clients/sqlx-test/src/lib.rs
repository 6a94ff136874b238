//! What sqlx's own tests use of the crate `sqlx-test`, which is not published: connections, and a test a type.
//!
//! Each of a type's tests asks the server for values, `"SQL" == value`, and sends them there and back: in the simple
//! protocol, in the extended one, or both.

use std::env;

use sqlx::{Connection, Database, Pool};

/// Others set up a log here.
pub fn setup_if_needed() {}

/// A connection to `DATABASE_URL`.
pub async fn new<DB: Database>() -> anyhow::Result<DB::Connection> {
    Ok(DB::Connection::connect(&env::var("DATABASE_URL")?).await?)
}

/// A pool of connections to `DATABASE_URL`.
pub async fn pool<DB: Database>() -> anyhow::Result<Pool<DB>> {
    let options = sqlx::pool::PoolOptions::<DB>::new().max_connections(5);
    Ok(options.connect(&env::var("DATABASE_URL")?).await?)
}

#[doc(hidden)]
pub mod reexport {
    pub use paste::paste;
}

/// Both protocols. With `~=` the server's own words for two equal values may differ, so it is not asked.
#[macro_export]
macro_rules! test_type {
    ($name:ident<$ty:ty>($db:ident, $($sql:literal ~= $value:expr),+ $(,)?)) => {
        $crate::test_prepared_type!($name<$ty>($db, "SELECT ({0} = $1)::int4 | 1, {0}, $2", $($sql == $value),+));
    };
    ($name:ident<$ty:ty>($($rest:tt)+)) => {
        $crate::test_prepared_type!($name<$ty>($($rest)+));
        $crate::test_decode_type!($name<$ty>($($rest)+));
    };
    ($name:ident($($rest:tt)+)) => {
        $crate::test_type!($name<$name>($($rest)+));
    };
}

/// The simple protocol, in which values come as text.
#[macro_export]
macro_rules! test_decode_type {
    ($name:ident<$ty:ty>($db:ident, $query:literal, $($sql:literal == $value:expr),+ $(,)?)) => {
        $crate::test_decode_type!($name<$ty>($db, $($sql == $value),+));
    };
    ($name:ident<$ty:ty>($db:ident, $($sql:literal == $value:expr),+ $(,)?)) => {
        $crate::reexport::paste! {
            #[sqlx_macros::test]
            async fn [<test_unprepared_type_ $name>]() -> anyhow::Result<()> {
                use sqlx::{Executor as _, Row as _};
                let mut connection = $crate::new::<$db>().await?;
                $(
                    let query = format!("SELECT {}", $sql);
                    let row = connection.fetch_one(query.as_str()).await?;
                    let found = row.try_get::<$ty, _>(0)?;
                    assert!($value == found, "{}: {:?}", $sql, found);
                )+
                Ok(())
            }
        }
    };
    ($name:ident($($rest:tt)+)) => {
        $crate::test_decode_type!($name<$name>($($rest)+));
    };
}

/// The extended protocol, in which values go and come in binary.
#[macro_export]
macro_rules! test_prepared_type {
    ($name:ident<$ty:ty>($db:ident, $query:literal, $($sql:literal == $value:expr),+ $(,)?)) => {
        $crate::reexport::paste! {
            #[sqlx_macros::test]
            async fn [<test_prepared_type_ $name>]() -> anyhow::Result<()> {
                use sqlx::Row as _;
                let mut connection = $crate::new::<$db>().await?;
                $(
                    let query = format!($query, $sql);
                    let asked = sqlx::query(&query).bind($value).bind($value);
                    let row = asked.fetch_one(&mut connection).await?;
                    let same = row.try_get::<i32, _>(0)?;
                    let [found, returned] = [row.try_get::<$ty, _>(1)?, row.try_get::<$ty, _>(2)?];
                    assert!(same != 0 && $value == found && $value == returned, "{}: {:?}", $sql, found);
                )+
                Ok(())
            }
        }
    };
    ($name:ident<$ty:ty>($db:ident, $($sql:literal == $value:expr),+ $(,)?)) => {
        $crate::test_prepared_type!(
            $name<$ty>($db, "SELECT ({0} IS NOT DISTINCT FROM $1)::int4, {0}, $2", $($sql == $value),+)
        );
    };
    ($name:ident($($rest:tt)+)) => {
        $crate::test_prepared_type!($name<$name>($($rest)+));
    };
}
