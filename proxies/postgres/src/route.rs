//! From a startup packet to what the client wants: whose session, on which database, of which kind.

use crate::error::Error;
use crate::wire::startup::{Startup, Version};

/// What a startup packet asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The name to log in with.
    pub user: String,
    /// The database's name, as clients know it; the user's if none was given.
    pub database: String,
    /// A walsender's connection, with this value of `replication`: it is never shared.
    pub replication: Option<String>,
}

/// What PostgreSQL's tools call the database that they do not want: pg_hba.conf knows this name.
const NO_DATABASE: &str = "replication";

impl Route {
    /// A walsender that has no database is a server's affair: where there is only one database, it is that one's server.
    #[must_use]
    pub fn among<'d>(mut self, mut databases: impl Iterator<Item = &'d String>) -> Route {
        let has_none = self.replication.as_ref().is_some_and(|value| value != "database")
            && (self.database == NO_DATABASE || self.database == self.user);
        if has_none && let (Some(only), None) = (databases.next(), databases.next()) {
            self.database.clone_from(only);
        }
        self
    }
}

/// Reads a route out of a startup packet.
pub fn route(startup: &Startup) -> Result<Route, Error> {
    if startup.version.major != Version::V3_0.major {
        return Err(Error::Version(startup.version));
    }
    let given = |name| startup.get(name).filter(|value| !value.is_empty());
    let user = given("user").ok_or(Error::NoUser)?.to_owned();
    let database = given("database").unwrap_or(&user).to_owned();
    // Anything that is not false: what it may be is the server's to say.
    let replication = given("replication").filter(|value| !is_false(value)).map(str::to_owned);
    Ok(Route { user, database, replication })
}

/// Whether PostgreSQL's `parse_bool` takes it for false.
fn is_false(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    value == "0" || "false".starts_with(&value) || "no".starts_with(&value) || matches!(&*value, "of" | "off")
}

/// What we answer to the version and the protocol options a client asks for; `None` if nothing has to be said.
pub fn negotiate(startup: &Startup) -> Option<(Version, Vec<&str>)> {
    let version = startup.version.min(Version::V3_2);
    let unknown: Vec<&str> = startup
        .parameters
        .iter()
        .map(|(name, _)| name.as_str())
        .filter(|name| name.starts_with("_pq_."))
        .collect();
    (startup.version > Version::V3_2 || !unknown.is_empty()).then_some((version, unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(parameters: &[(&str, &str)]) -> Startup {
        let parameters = parameters.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Startup { version: Version::V3_0, parameters }
    }

    #[test]
    fn the_database_is_the_users_if_none_is_given() {
        let route = |parameters: &[(&str, &str)]| route(&startup(parameters));
        assert_eq!(route(&[("user", "u")]).unwrap().database, "u");
        assert_eq!(route(&[("user", "u"), ("database", "")]).unwrap().database, "u");
        assert_eq!(route(&[("user", "u"), ("database", "d")]).unwrap().database, "d");
        assert!(matches!(route(&[("database", "d")]), Err(Error::NoUser)));
    }

    #[test]
    fn replication_is_anything_but_false() {
        let replication =
            |value| route(&startup(&[("user", "u"), ("replication", value)])).unwrap().replication;
        for value in ["false", "off", "no", "0", "f", ""] {
            assert_eq!(replication(value), None, "{value:?}");
        }
        for value in ["database", "true", "on", "1"] {
            assert_eq!(replication(value).as_deref(), Some(value));
        }
    }

    #[test]
    fn newer_protocols_are_negotiated_down() {
        let mut startup = startup(&[("user", "u")]);
        assert_eq!(negotiate(&startup), None);
        startup.version = Version::V3_2;
        assert_eq!(negotiate(&startup), None);
        startup.version = Version { major: 3, minor: 9999 };
        assert_eq!(negotiate(&startup), Some((Version::V3_2, vec![])));
        startup.parameters.push(("_pq_.test".to_owned(), "1".to_owned()));
        startup.version = Version::V3_0;
        assert_eq!(negotiate(&startup), Some((Version::V3_0, vec!["_pq_.test"])));
    }

    #[test]
    fn a_walsender_without_a_database_gets_the_only_one() {
        let of = |replication: &str, database: &str, databases: &[&str]| {
            let parameters = [("user", "app"), ("database", database), ("replication", replication)];
            let databases: Vec<_> = databases.iter().map(|name| (*name).to_owned()).collect();
            route(&startup(&parameters)).unwrap().among(databases.iter()).database
        };
        assert_eq!(of("true", "replication", &["shop"]), "shop");
        assert_eq!(of("1", "", &["shop"]), "shop", "the user's name, as none was given");
        assert_eq!(of("true", "replication", &["shop", "other"]), "replication");
        assert_eq!(of("true", "other", &["shop"]), "other");
        assert_eq!(of("database", "replication", &["shop"]), "replication");
        assert_eq!(of("false", "replication", &["shop"]), "replication");
    }
}
