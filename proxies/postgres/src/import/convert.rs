//! From what PgBouncer's file says to the text of ours, with a word on everything that is not in it.

use super::databases;
use super::listeners;
use super::problems::Problems;
use super::source::Source;
use super::table::{self, Fate};
use super::users::{self, AuthType};
use super::yaml::Page;

/// What is told beside the configuration, in its comments.
#[derive(Debug, Default)]
pub(super) struct Notes {
    look: Vec<String>,
    needless: Vec<String>,
}

impl Notes {
    /// Something to look at before the configuration is used.
    pub(super) fn look(&mut self, text: String) {
        self.look.push(text);
    }

    /// Likewise, if this setting is there.
    pub(super) fn look_at(&mut self, source: &Source, name: &str, text: impl std::fmt::Display) {
        if let Some(value) = source.settings.get(name) {
            self.look(format!("{} {name} = {}: {text}", value.place, value.text));
        }
    }

    /// A setting whose absence changes nothing.
    pub(super) fn needless(&mut self, source: &Source, name: &str, why: impl std::fmt::Display) {
        if let Some(value) = source.settings.get(name) {
            self.needless.push(format!("{} {name} = {}: {why}", value.place, value.text));
        }
    }

    /// How many things there are to look at.
    pub(super) fn to_look_at(&self) -> usize {
        self.look.len()
    }
}

/// The whole text. What cannot be said is among the problems; then the text is of no use.
pub(super) fn convert(source: &Source, name: &str, problems: &mut Problems) -> (String, Notes) {
    let (mut body, mut notes) = (Page::default(), Notes::default());
    let auth = AuthType::of(source);
    listeners::write(source, auth, &mut body, &mut notes, problems);
    body.gap();
    body.comment(0, "What `groove-postgres status` asks; metrics are here as well.");
    body.line(0, "admin: {address: 127.0.0.1:9632}");
    if source.number("verbose").is_some_and(|verbose| verbose > 0) {
        body.line(0, "log: {level: debug}");
    }
    body.gap();
    databases::write(source, &mut body, &mut notes, problems);
    users::write(source, auth, &mut body, &mut notes, problems);
    body.gap();
    // PgBouncer's zero has no end; ours would have no beginning.
    let login = source.seconds("client_login_timeout").filter(|login| !login.is_zero());
    let login = login.map_or_else(|| "1m".to_owned(), |login| login.to_string());
    body.line(0, format_args!("limits: {{login: {login}}}"));
    users::write_console(source, auth, &mut body, &mut notes);
    settings(source, &mut notes);
    let body = body.into_text();
    unused(source, &body, &mut notes);

    let mut page = Page::default();
    page.comment(0, format_args!("groove-postgres, from PgBouncer's {name}."));
    listed(&mut page, "To look at before this is used:", &notes.look);
    page.gap();
    let mut tail = Page::default();
    listed(&mut tail, "Settings of PgBouncer that have no place here, and are not missed:", &notes.needless);
    (page.into_text() + &body + &tail.into_text(), notes)
}

fn listed(page: &mut Page, title: &str, items: &[String]) {
    if !items.is_empty() {
        page.line(0, "");
        page.comment(0, title);
        items.iter().for_each(|item| page.comment(0, format_args!("- {item}")));
    }
}

/// What the table says of settings that are not converted.
fn settings(source: &Source, notes: &mut Notes) {
    let kind = source.word("auth_type").unwrap_or_default();
    for (name, value) in &source.settings {
        let Some(setting) = table::setting(name) else { continue };
        match setting.fate {
            Fate::Converted => {}
            Fate::Needless(why) => {
                notes.needless.push(format!("{} {name} = {}: {why}", value.place, value.text))
            }
            // Of these, each is read with its own `auth_type` only.
            Fate::Missing(_)
                if matches!(*name, "auth_hba_file" | "auth_ident_file") && kind != "hba"
                    || *name == "auth_ldap_options" && kind != "ldap" =>
            {
                notes.needless(source, name, "of no use with this `auth_type`");
            }
            Fate::Missing(instead) if !matches!(value.text.as_str(), "" | "0") => {
                notes.look_at(source, name, instead);
            }
            Fate::Missing(_) => {
                notes.needless.push(format!("{} {name} = {}: it is off", value.place, value.text))
            }
        }
    }
    for (name, note) in [
        ("server_reset_query", "an empty one: sessions are cleaned by `DISCARD ALL` all the same"),
        ("max_prepared_statements", "0: statements of the protocol are kept in every mode all the same"),
    ] {
        if let Some(value) = source.settings.get(name).filter(|value| matches!(value.text.as_str(), "" | "0"))
        {
            notes.needless.push(format!("{} {name} is {note}", value.place));
        }
    }
    if let Some(kind @ ("plain" | "md5")) = source.word("auth_type").as_deref() {
        notes.needless(
            source,
            "auth_type",
            format_args!("not {kind} but SCRAM-SHA-256, or md5 where it is stored so"),
        );
    }
    if let Some(place) = source.peers.first() {
        notes.look(format!(
            "{place} [peers]: one process serves with all cores, and hands no cancel requests to others"
        ));
    }
}

/// Settings that are converted, but were of no use in PgBouncer either, beside the others.
fn unused(source: &Source, body: &str, notes: &mut Notes) {
    for (name, trace, why) in [
        ("client_tls_ca_file", "client_ca:", "of no use with this `client_tls_sslmode`"),
        ("client_tls_cert_file", "    tls:\n", "of no use with this `client_tls_sslmode`"),
        ("client_tls_key_file", "    tls:\n", "of no use with this `client_tls_sslmode`"),
        ("server_tls_ca_file", ", ca: ", "of no use with this `server_tls_sslmode`"),
        ("server_tls_cert_file", ", certificate: ", "of no use with this `server_tls_sslmode`"),
        ("server_tls_key_file", ", key: ", "of no use with this `server_tls_sslmode`"),
        ("server_reset_query", "reset_query:", "of use in session mode only"),
        ("auth_query", "auth_query:", "of no use without `auth_user`, or with this `auth_type`"),
    ] {
        if source.text(name).is_some() && !body.contains(trace) {
            notes.needless(source, name, why);
        }
    }
}
