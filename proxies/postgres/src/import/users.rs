//! Who may log in, and as which role on the servers: `auth_type`, `auth_file`, `auth_query`, and `user=` of databases.
//!
//! PgBouncer gives a role to a database, and we to a user. The two are the same where all databases have the same.

use crate::auth::Stored;

use super::convert::Notes;
use super::databases::{EVERY_SERVER_HAS, mode};
use super::listeners::list;
use super::problems::Problems;
use super::source::{Line, Source};
use super::userlist::Known;
use super::yaml::{Page, scalar};

/// PgBouncer's `auth_type`, as far as it makes a difference here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthType {
    /// `md5`, `scram-sha-256`, `plain`, and `hba`, whose rules are not read.
    Password,
    /// `trust`, `any`.
    Trust,
    Cert,
    /// `pam`, `ldap`: somebody else knows the passwords.
    Elsewhere,
}

impl AuthType {
    pub(super) fn of(source: &Source) -> AuthType {
        match source.word("auth_type").as_deref() {
            Some("trust" | "any") => AuthType::Trust,
            Some("cert") => AuthType::Cert,
            Some("pam" | "ldap") => AuthType::Elsewhere,
            Some(_) | None => AuthType::Password,
        }
    }

    /// Whether others than this machine may not come near, with or without TLS.
    pub(super) fn is_for_this_machine(self, tls: bool) -> bool {
        match self {
            AuthType::Trust => true,
            AuthType::Elsewhere => !tls,
            AuthType::Password | AuthType::Cert => false,
        }
    }
}

/// The role on the servers that `user=` and `password=` give to all who use a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Role<'s> {
    name: Option<&'s str>,
    password: Option<&'s str>,
}

impl<'s> Role<'s> {
    fn of(line: &'s Line) -> Role<'s> {
        Role { name: line.text("user"), password: line.text("password") }
    }

    /// What all databases agree on.
    fn of_all(source: &'s Source, notes: &mut Notes) -> Role<'s> {
        let mut lines = lines(source);
        let Some(first) = lines.next().map(Role::of) else { return Role::default() };
        if lines.all(|line| Role::of(line) == first) {
            return first;
        }
        let instead = "a role belongs to a user here (`server_user`, `server_password`), not to a database; \
                       users log in as themselves unless you write it, and for two roles there are two names";
        for line in self::lines(source) {
            if let Some(user) = line.text("user") {
                notes.look(format!("{} {}: user={user}: {instead}", line.place, line.name));
            } else if line.text("password").is_some() {
                notes.look(format!("{} {}: password=***: {instead}", line.place, line.name));
            }
        }
        Role::default()
    }
}

/// The databases that are written.
fn lines(source: &Source) -> impl Iterator<Item = &Line> {
    let fallback = source.fallback.as_ref().filter(|_| source.databases.is_empty());
    source.databases.iter().chain(fallback)
}

/// Something that can be proven with on a server: not a verifier, not nothing.
fn provable(secret: &str) -> Option<&str> {
    match Stored::read(secret) {
        Ok(Stored::Plain(_) | Stored::Md5(_)) if !secret.is_empty() => Some(secret),
        Ok(Stored::Plain(_) | Stored::Md5(_) | Stored::Scram(_)) | Err(_) => None,
    }
}

fn secret_of<'s>(source: &'s Source, name: &str) -> Option<&'s str> {
    source.known.iter().flatten().find(|user| user.name == name).map(|user| user.secret.as_str())
}

pub(super) fn write(
    source: &Source,
    auth: AuthType,
    page: &mut Page,
    notes: &mut Notes,
    problems: &mut Problems,
) {
    let role = Role::of_all(source, notes);
    let query = asker(source, auth, notes, problems);
    match auth {
        AuthType::Password | AuthType::Cert => {}
        AuthType::Trust => {
            page.gap();
            page.pair(0, "auth", "trust");
            notes.look_at(
                source,
                "auth_type",
                "everybody on this machine is let in, whether in auth_file or not",
            );
        }
        AuthType::Elsewhere => {
            page.gap();
            page.pair(0, "auth", "passthrough");
            let note = "passwords are proven to the PostgreSQL servers, which have to know them";
            notes.look_at(source, "auth_type", note);
        }
    }
    if source.word("auth_type").as_deref() == Some("hba") {
        notes.look_at(
            source,
            "auth_type",
            "every user of auth_file may log in by password, from any address",
        );
    }
    let written = auth != AuthType::Elsewhere && users(source, auth, role, page, notes);
    if source.known.is_none() && source.text("auth_file").is_some() {
        let note = "there is no such file that can be read here: its users are missing";
        notes.look_at(source, "auth_file", note);
    }
    if let Some(asker) = &query {
        asker.write(source, page, notes);
    }
    let nobody = match auth {
        AuthType::Password => !written && query.is_none(),
        AuthType::Cert => !written,
        AuthType::Trust | AuthType::Elsewhere => false,
    };
    if nobody {
        let expected = "expected auth_file with users, or auth_user: nobody could log in";
        match source.settings.contains_key("auth_file") {
            true => problems.setting(source, "auth_file", expected),
            false => problems.whole(expected),
        }
    }
    if role.name.is_some() && (query.is_some() || (auth == AuthType::Trust && !written)) {
        notes.look("user= of the databases holds for those who are in `users` only".to_owned());
    }
    per_user(source, notes);
}

/// Whether anybody was written.
fn users(source: &Source, auth: AuthType, role: Role<'_>, page: &mut Page, notes: &mut Notes) -> bool {
    let known = source.known.as_deref().unwrap_or_default();
    // Without a proof of its own and without a role there is nothing to be said of a trusted user.
    let has_lines = |user: &Known| match auth {
        AuthType::Trust => role != Role::default() || provable(&user.secret).is_some(),
        AuthType::Password => !user.secret.is_empty(),
        AuthType::Cert => true,
        AuthType::Elsewhere => false,
    };
    if !known.iter().any(has_lines) {
        return false;
    }
    let (mut list, mut unproven) = (Page::default(), Vec::new());
    for user in known {
        if has_lines(user) {
            self::user(source, user, auth, role, &mut list, &mut unproven);
        } else if auth == AuthType::Password {
            let name = scalar(&user.name);
            list.comment(1, format_args!("{name} has no password in auth_file: nobody logs in as it"));
        }
    }
    if !unproven.is_empty() {
        let names = unproven.join(", ");
        notes.look(format!(
            "users {names}: add `server_password`, unless the servers let {} in without",
            role.name.map_or_else(|| "them".to_owned(), scalar)
        ));
    }
    page.gap();
    page.line(0, "users:");
    if list.contains("password: ") {
        let note = "Secrets as they were in the files. `{env: NAME}` or `{file: PATH}` in their place keep them out of here.";
        page.comment(1, note);
    }
    page.append(&list);
    true
}

/// Writes one, and keeps the name of one that cannot prove anything to the servers.
fn user(
    source: &Source,
    user: &Known,
    auth: AuthType,
    role: Role<'_>,
    page: &mut Page,
    unproven: &mut Vec<String>,
) {
    let Known { name, secret } = user;
    page.line(1, format_args!("{}:", scalar(name)));
    match auth {
        AuthType::Password => page.pair(2, "password", scalar(secret)),
        AuthType::Cert => page.pair(2, "certificates", format_args!("[{}]", scalar(&format!("CN={name}")))),
        AuthType::Trust | AuthType::Elsewhere => {}
    }
    let other = role.name.filter(|role| role != name);
    if let Some(role) = other {
        page.pair(2, "server_user", scalar(role));
    }
    let own = match other {
        Some(role) => secret_of(source, role),
        None => Some(secret.as_str()),
    };
    // A user's own password is what the servers get anyway.
    let implied = auth == AuthType::Password && other.is_none();
    match role.password.or(own).and_then(provable) {
        Some(_) if implied && role.password.is_none() => {}
        Some(proof) => page.pair(2, "server_password", scalar(proof)),
        None if implied => {
            page.comment(
                2,
                "The servers have to keep this very verifier; or add `server_password` with the password.",
            );
        }
        None => unproven.push(scalar(name)),
    }
}

/// `auth_query`: whom the servers are asked as, and where.
struct Asker<'s> {
    user: &'s str,
    database: &'s str,
}

fn asker<'s>(
    source: &'s Source,
    auth: AuthType,
    notes: &mut Notes,
    problems: &mut Problems,
) -> Option<Asker<'s>> {
    let asking = |line: &'s Line| line.text("auth_user").or_else(|| source.text("auth_user"));
    // The database that is said, or the first that says who asks.
    let said = source.text("auth_dbname").or_else(|| lines(source).find_map(|line| line.text("auth_dbname")));
    let line = lines(source)
        .find(|line| Some(line.name.as_str()) == said && asking(line).is_some())
        .or_else(|| lines(source).find(|line| line.text("auth_user").is_some()))
        .or_else(|| lines(source).next())?;
    let user = asking(line)?;
    match auth {
        AuthType::Password => {}
        AuthType::Trust | AuthType::Cert | AuthType::Elsewhere => {
            notes.look(format!(
                "auth_user = {user}: with this auth_type the servers are not asked who may log in"
            ));
            return None;
        }
    }
    if source.text("auth_query").is_some_and(|query| !query.contains("$1")) {
        problems.setting(source, "auth_query", "expected `$1` where the name goes");
    }
    let database = if line.name == "*" { EVERY_SERVER_HAS } else { line.name.as_str() };
    if lines(source).count() > 1 {
        notes.look(format!(
            "auth_user = {user}: only the servers of `{database}` are asked who may log in, for all databases"
        ));
    }
    Some(Asker { user, database })
}

impl Asker<'_> {
    fn write(&self, source: &Source, page: &mut Page, notes: &mut Notes) {
        page.gap();
        page.line(0, "auth_query:");
        page.pair(1, "database", scalar(self.database));
        page.pair(1, "user", scalar(self.user));
        match secret_of(source, self.user).and_then(provable) {
            Some(password) => page.pair(1, "password", scalar(password)),
            None => notes.look(format!(
                "auth_user = {}: add `auth_query.password`, unless the servers let it in without",
                self.user
            )),
        }
        if let Some(query) = source.text("auth_query") {
            page.pair(1, "query", scalar(query));
        }
    }
}

/// `[users]`, which are settings of a pool here or nothing.
fn per_user(source: &Source, notes: &mut Notes) {
    for user in &source.users {
        let at = |key: &str, value: &str| format!("{} {}: {key} = {value}", user.place, user.name);
        if let Some(own) = user.text("pool_mode")
            && lines(source).any(|line| !mode(line, source).eq_ignore_ascii_case(own))
        {
            let instead =
                "a mode belongs to a database here: give these users another name of it, with this mode";
            notes.look(format!("{}: {instead}", at("pool_mode", own)));
        }
        for key in super::table::USER_KEYS.into_iter().filter(|key| *key != "pool_mode") {
            if let Some(value) = user.text(key).filter(|value| *value != "0") {
                let instead = match super::table::setting(key).map(|setting| setting.fate) {
                    Some(super::table::Fate::Missing(instead)) => instead,
                    Some(_) | None => "`pool` of a database holds for all its users",
                };
                notes.look(format!("{}: {instead}", at(key, value)));
            }
        }
    }
}

/// `admin_users` and `stats_users`, as far as they are among the users that are written.
pub(super) fn write_console(source: &Source, auth: AuthType, page: &mut Page, notes: &mut Notes) {
    let has_proof = |name: &str| match auth {
        AuthType::Password => secret_of(source, name).is_some_and(|secret| !secret.is_empty()),
        AuthType::Cert => secret_of(source, name).is_some(),
        AuthType::Trust | AuthType::Elsewhere => false,
    };
    let mut keys = Vec::new();
    for (key, setting) in [("admins", "admin_users"), ("stats", "stats_users")] {
        if auth == AuthType::Trust {
            notes.needless(source, setting, "everybody may use the console, as everybody is let in");
            continue;
        }
        let named = list(source.text(setting).unwrap_or_default());
        let (known, missing): (Vec<&str>, Vec<&str>) = named.partition(|name| has_proof(name));
        if !known.is_empty() {
            let names: Vec<String> = known.into_iter().map(scalar).collect();
            keys.push(format!("{key}: [{}]", names.join(", ")));
        }
        if !missing.is_empty() {
            let names = missing.join(", ");
            notes.look(format!(
                "{setting}: {names}: only a user with a password or certificate of its own in `users` may use the console"
            ));
        }
    }
    if !keys.is_empty() {
        page.gap();
        page.pair(0, "console", format_args!("{{{}}}", keys.join(", ")));
    }
}
