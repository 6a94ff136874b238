//! Whom a replicated group's connections log in as. They are none of a pool's.

use groove_common::config::Secret;

use super::Target;
use super::directory::Directory;
use super::login::{Credentials, Login};
use crate::error::Error;
use crate::roles::Wish;

impl Directory {
    /// For the proxy's own connections to the members.
    pub fn control_target(&self, database: &str, user: &str, password: Option<&Secret>) -> Option<Target> {
        let login = Login::monitoring(user, password);
        let (target, _) = self.known().target(database, user, Some(&login))?;
        Some(Target { wish: Wish::Any, ..target })
    }

    /// For those of a client that has proven who it is.
    pub fn member_target(
        &self,
        database: &str,
        user: &str,
        credentials: Credentials,
    ) -> Result<Target, Error> {
        if self.gates.of(database).is_disabled {
            return Err(Error::Disabled(database.to_owned()));
        }
        let known = self.known();
        let login = known.settled(user, credentials.login);
        let target = known.target(database, user, login.as_deref());
        let (target, _) = target.ok_or_else(|| Error::NoDatabase(database.to_owned()))?;
        credentials.keys.into_iter().for_each(|keys| target.learn(keys));
        Ok(target)
    }
}
