//! Everything that stands in a migration's way, looked for at once and without touching anything.

use std::collections::BTreeSet;
use std::path::Path;

use groove_common::config::Endpoints;
use groove_common::ids::Address;

use super::api::Seen;
use super::fault::Outcome;
use super::files::Folder;
use super::node::{Login, Node};
use super::policy::findings::{self, Check, Finding, Weight};
use super::policy::phase::Side;
use super::policy::route::{Standing, single};
use super::policy::sql::{OTHERS, ident, literal};
use super::proxies::Proxies;
use super::tools::Tools;
use crate::config::{Config, Database, Migration, PoolMode, Role};

/// Whose replication knows `disable_on_error`, on either side.
const OLDEST: i64 = 15;

/// What is to be moved, as the configuration has it.
pub(super) struct Ground<'a> {
    pub(super) config: &'a Config,
    pub(super) migration: &'a Migration,
    pub(super) database: String,
    /// All names that lead to the same place, the database's own first.
    pub(super) names: Vec<String>,
    pub(super) dbname: String,
    pub(super) source: Address,
    pub(super) target: Address,
}

/// What was found, and what was learnt on the way.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) findings: Vec<Finding>,
    pub(super) tools: Option<Tools>,
}

impl Plan {
    /// Whether something stands in the way.
    pub(super) fn blockers(&self) -> Vec<Finding> {
        self.findings.iter().filter(|finding| finding.weight == Weight::Blocker).cloned().collect()
    }

    fn add(&mut self, finding: Option<Finding>) {
        self.findings.extend(finding);
    }
}

fn dbname<'a>(name: &'a str, database: &'a Database) -> &'a str {
    database.dbname.as_deref().unwrap_or(name)
}

impl<'a> Ground<'a> {
    /// What is to be moved; or why that cannot even be said.
    pub(super) fn of(
        config: &'a Config,
        migration: &'a Migration,
        name: &str,
        to: &Address,
    ) -> Result<Ground<'a>, Vec<Finding>> {
        let Some(database) = config.databases.get(name) else {
            let known: Vec<_> = config.databases.keys().map(String::as_str).collect();
            let what = format!("there is no `{name}` among `{}`", known.join("`, `"));
            return Err(vec![Finding::blocker("database", what, "name one of `databases`")]);
        };
        let mut wrong = Vec::new();
        let source = single(&database.endpoints).map(|endpoint| endpoint.address.clone());
        if source.is_none() {
            let help = "write the one server that serves it as a list of one address, at least until the migration is over";
            wrong.push(Finding::blocker("endpoints", "they are not one address", help));
        }
        if database.role != Role::Any {
            let help =
                "leave `role` out (or `any`) with the primary's address alone until the migration is over";
            wrong.push(Finding::blocker("role", "the proxy looks for roles among several servers", help));
        }
        if database.replicate.is_some() {
            let help = "found a group with the new servers among its members instead";
            wrong.push(Finding::blocker("replicate", "each of its servers carries out every write", help));
        }
        if database.tls.is_some() {
            let help = "moving a database speaks to its servers without TLS: leave `tls` out on a trusted network, or do it by hand";
            wrong.push(Finding::blocker("tls", "the servers are spoken to over TLS", help));
        }
        if source.as_ref() == Some(to) {
            wrong.push(Finding::blocker("to", format!("{to} is where it is"), "name another server"));
        }
        let same_name = config
            .databases
            .iter()
            .filter(|(other, written)| dbname(other, written) == dbname(name, database))
            .filter(|(other, _)| *other != name);
        let mut names = vec![name.to_owned()];
        for (other, written) in same_name {
            let is_same = written.endpoints == database.endpoints;
            if is_same {
                names.push(other.clone());
            } else if shares(&written.endpoints, source.as_ref()) {
                let what = format!("`{other}` leads to the same database, and to other servers too");
                wrong.push(Finding::blocker("names", what, "give both the same `endpoints`"));
            }
        }
        for name in &names {
            if config.databases.get(name).is_some_and(|database| database.pool.mode == PoolMode::Session) {
                let what = format!("`{name}` is in session mode");
                let help = "its sessions keep their server connections, and the gate closes between transactions only: `mode: transaction`";
                wrong.push(Finding::blocker("pool mode", what, help));
            }
        }
        match source {
            Some(source) if wrong.is_empty() => Ok(Ground {
                config,
                migration,
                database: name.to_owned(),
                names,
                dbname: dbname(name, database).to_owned(),
                source,
                target: to.clone(),
            }),
            Some(_) | None => Err(wrong),
        }
    }

    /// As whom a side is spoken to.
    pub(super) fn login(&self, side: Side) -> Login {
        let address = match side {
            Side::Source => &self.source,
            Side::Target => &self.target,
        };
        Login::of(self.migration, side, address)
    }

    /// Roles on the servers that clients come as.
    fn server_users(&self, seen: &[Seen]) -> BTreeSet<String> {
        let configured = self
            .config
            .users
            .iter()
            .map(|(name, user)| user.server_user.clone().unwrap_or_else(|| name.clone()));
        let pools = seen.iter().flat_map(|seen| &seen.pools);
        let pools = pools.filter(|pool| self.names.contains(&pool.database));
        configured.chain(pools.map(|pool| pool.server_user.clone())).collect()
    }
}

fn shares(endpoints: &Endpoints, source: Option<&Address>) -> bool {
    match endpoints {
        Endpoints::Static(list) => list.iter().any(|endpoint| Some(&endpoint.address) == source),
        Endpoints::Dns(_) | Endpoints::Elasticache(_) | Endpoints::File(_) | Endpoints::Embedded(_) => false,
    }
}

/// Looks at everything.
pub(super) async fn look(ground: &Ground<'_>, proxies: &Proxies) -> Outcome<Plan> {
    let mut plan = Plan::default();
    let seen = look_at_proxies(ground, proxies, &mut plan).await?;
    let (source, target) = (ground.login(Side::Source), ground.login(Side::Target));
    let source = connected(source.connect(&ground.dbname).await, Side::Source, &mut plan);
    let target = connected(target.connect("postgres").await, Side::Target, &mut plan);
    for (side, node) in [(Side::Source, &source), (Side::Target, &target)] {
        if let Some(node) = node {
            look_at_server(node, side, &mut plan).await?;
        }
    }
    if let Some(source) = &source {
        look_at_source(ground, source, (proxies, &seen), &mut plan).await?;
        let major = source.version().await? / 10_000;
        look_for_tools(ground.migration.tools.as_deref(), major, &mut plan).await;
    }
    if let Some(target) = &target {
        look_at_target(ground, target, &mut plan).await?;
    }
    if let (Some(source), Some(target)) = (&source, &target) {
        look_at_both(source, target, &mut plan).await?;
    }
    plan.findings.sort_by_key(|finding| finding.weight);
    Ok(plan)
}

fn connected(node: Outcome<Node>, side: Side, plan: &mut Plan) -> Option<Node> {
    let help =
        "see `migration: {user, password, target_user, target_password}`, and the server's pg_hba.conf";
    node.map_err(|fault| {
        let name = match side {
            Side::Source => "source",
            Side::Target => "target",
        };
        plan.add(Some(Finding::blocker(name, fault.to_string(), help)));
    })
    .ok()
}

async fn look_at_proxies(ground: &Ground<'_>, proxies: &Proxies, plan: &mut Plan) -> Outcome<Vec<Seen>> {
    let seen = match proxies.seen().await {
        Ok(seen) => seen,
        Err(fault) => {
            let help = "start it with this configuration, and name its admin address by --admin";
            plan.add(Some(Finding::blocker("proxy", fault.to_string(), help)));
            return Ok(Vec::new());
        }
    };
    for (proxy, client) in seen.iter().zip(&proxies.0) {
        let at = client.address();
        if !proxy.has_folder {
            let what = format!("the proxy at {at} has no `migration: {{folder: …}}`");
            plan.add(Some(Finding::blocker("folder", what, "add it to its configuration, and reload")));
        }
        for name in &ground.names {
            match proxy.databases.get(name) {
                Some(addresses) if *addresses == [ground.source.to_string()] => {}
                Some(addresses) => {
                    let what = format!("the proxy at {at} sends `{name}` to {}", addresses.join(", "));
                    plan.add(Some(Finding::blocker("proxy", what, "it has to have the same configuration")));
                }
                None => {
                    let what = format!("the proxy at {at} knows no `{name}`");
                    plan.add(Some(Finding::blocker("proxy", what, "it has to have the same configuration")));
                }
            }
        }
    }
    let folder = Folder::open(&ground.migration.folder)?;
    for (name, route) in folder.routes()?.0 {
        let written = ground.config.databases.get(&name).filter(|_| ground.names.contains(&name));
        if written.is_some_and(|written| route.standing(&written.endpoints) == Standing::InEffect) {
            let what = format!("`{name}` has moved to {}, which is not written yet", route.address());
            plan.add(Some(Finding::blocker(
                "route",
                what,
                "write that address as its `endpoints`, and reload",
            )));
        }
    }
    Ok(seen)
}

async fn look_at_server(node: &Node, side: Side, plan: &mut Plan) -> Outcome<()> {
    for (name, sql, help) in findings::OF_SERVER {
        let rows: Vec<_> =
            node.column(sql).await?.into_iter().map(|row| format!("on the {}: {row}", side.name())).collect();
        let check = Check { weight: Weight::Blocker, name, on: side, sql, help };
        plan.add(check.finding(&rows));
    }
    Ok(())
}

async fn look_at_source(
    ground: &Ground<'_>,
    node: &Node,
    (proxies, seen): (&Proxies, &[Seen]),
    plan: &mut Plan,
) -> Outcome<()> {
    for check in findings::CHECKS.iter().filter(|check| check.on == Side::Source) {
        plan.add(check.finding(&node.column(check.sql).await?));
    }
    let users: Vec<_> = ground.server_users(seen).iter().map(|user| literal(user)).collect();
    if !users.is_empty() {
        let sql = findings::SUPERUSERS.replace("$1", &users.join(", "));
        let help = "a superuser gets past the fence: ALTER ROLE … NOSUPERUSER, or another `server_user`";
        let check = Check {
            weight: Weight::Blocker,
            name: "superusers among clients",
            on: Side::Source,
            sql: "",
            help,
        };
        plan.add(check.finding(&node.column(&sql).await?));
    }
    // Where a proxy does not answer, that has been told.
    let others = others(node, proxies).await.unwrap_or_default();
    let help = "sessions that come past the proxy are ended at the cutover, if it is told --terminate-others";
    let check =
        Check { weight: Weight::Note, name: "sessions past the proxy", on: Side::Source, sql: "", help };
    plan.add(check.finding(&others));
    Ok(())
}

/// Sessions in the database that are not the proxies'. Connections come and go between two questions, so that only who is
/// found twice counts.
pub(super) async fn others(node: &Node, proxies: &Proxies) -> Outcome<Vec<String>> {
    let first = others_now(node, &proxies.seen().await?).await?;
    if first.is_empty() {
        return Ok(first);
    }
    let mut second = others_now(node, &proxies.seen().await?).await?;
    second.retain(|who| first.contains(who));
    Ok(second)
}

async fn others_now(node: &Node, seen: &[Seen]) -> Outcome<Vec<String>> {
    let known: BTreeSet<String> =
        seen.iter().flat_map(|seen| &seen.processes).map(ToString::to_string).collect();
    let others = node.pairs(OTHERS).await?.into_iter().filter(|(pid, _)| !known.contains(pid));
    Ok(others.map(|(pid, who)| format!("process {pid}: {who}")).collect())
}

async fn look_at_target(ground: &Ground<'_>, node: &Node, plan: &mut Plan) -> Outcome<()> {
    if node.has_database(&ground.dbname).await? {
        let what = format!("the target has a database {} already", ident(&ground.dbname));
        let help = "drop or rename it there: the migration makes its own";
        plan.add(Some(Finding::blocker("target database", what, help)));
    }
    Ok(())
}

async fn look_at_both(source: &Node, target: &Node, plan: &mut Plan) -> Outcome<()> {
    let (old, new) = (source.version().await? / 10_000, target.version().await? / 10_000);
    let oldest = old.min(new);
    if oldest < OLDEST {
        let what = format!("PostgreSQL {oldest}");
        let help = "both servers have to be of release 15 or newer";
        plan.add(Some(Finding::blocker("release", what, help)));
    }
    if new < old {
        let what = format!("from PostgreSQL {old} to {new}");
        plan.add(Some(Finding::blocker("release", what, "the target must not be older than the source")));
    }
    let identifier = "SELECT system_identifier FROM pg_control_system()";
    if source.value(identifier).await? == target.value(identifier).await? {
        let help = "a copy of the whole cluster, or the server itself: initdb another one";
        plan.add(Some(Finding::blocker("target", "source and target are one cluster", help)));
    }
    plan.findings.extend(findings::extensions(
        &source.pairs(findings::EXTENSIONS).await?,
        &target.pairs(findings::AVAILABLE).await?,
    ));
    plan.add(findings::locales(
        &source.column(findings::LOCALES).await?,
        &target.column(findings::KNOWN_LOCALES).await?,
    ));
    Ok(())
}

/// The programs that the migration calls.
async fn look_for_tools(configured: Option<&Path>, major: i64, plan: &mut Plan) {
    match Tools::find(configured, major).await {
        Ok(tools) => plan.tools = Some(tools),
        Err(what) => {
            let help = "install the client programs of the source's release (postgresql-client-NN), or name their folder as `migration: {tools: …}`";
            plan.add(Some(Finding::blocker("programs", what, help)));
        }
    }
}
