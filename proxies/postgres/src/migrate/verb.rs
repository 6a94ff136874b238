//! `groove-postgres migrate …`.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};
use groove_common::admin::Client;
use groove_common::app::StartError;
use groove_common::config::{self, Secret};
use groove_common::ids::Address;

use super::fault::{Fault, Outcome, refused};
use super::files::{Folder, Kept};
use super::plan::{Ground, Plan, look};
use super::policy::findings::Finding;
use super::policy::phase::{Phase, Side, Step, Verb, next};
use super::proxies::Proxies;
use super::tools::Tools;
use super::work::{Terms, Work};
use super::{clear, cutover, recover, start, status};
use crate::config::{Config, Migration};

/// Moves a database to another server while its clients go on.
#[derive(Debug, Clone, Args)]
pub struct Migrate {
    /// What to do
    action: Action,
    /// The proxy's configuration
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The database, as the proxy's clients name it
    #[arg(long, value_name = "NAME")]
    database: String,
    /// The server that it goes to; for plan and start
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<Address>,
    /// Clients wait for no longer: after it everything is as before
    #[arg(long, value_name = "TIME", default_value = "500ms")]
    max_pause: config::Duration,
    /// How it goes over
    #[arg(long, value_enum, default_value_t = Mode::Logical)]
    mode: Mode,
    /// The admin address of a further proxy that clients come through, with the same token; may be given several times
    #[arg(long, value_name = "ADDR")]
    sidecar: Vec<Address>,
    /// At the cutover, end sessions that do not come through a proxy
    #[arg(long)]
    terminate_others: bool,
    /// Do not compare the rows of both servers after the cutover
    #[arg(long)]
    no_verify: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Tell everything that stands in the way; touches nothing
    Plan,
    /// Copy, and let the target follow; or go on with that
    Start,
    /// Tell how it stands
    Status,
    /// Let the target serve
    Cutover,
    /// Let the source serve again, with all that was written; or remove a copy that never served
    Rollback,
    /// Remove what the migration has made
    Finish,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// By logical replication, also to a newer release
    Logical,
    /// By a standby that is promoted
    Physical,
}

impl Migrate {
    /// Does what is asked.
    ///
    /// # Errors
    ///
    /// When it is not possible, or did not come about; then everything is as before unless the error says otherwise.
    pub async fn run(self, admin: Client) -> Result<(), StartError> {
        let loaded = config::load::<Config>(&self.config).map_err(|report| report.to_string())?;
        Ok(Box::pin(self.act(&loaded.document, admin)).await?)
    }

    async fn act(&self, config: &Config, admin: Client) -> Outcome<()> {
        if self.mode == Mode::Physical {
            return refused(
                "--mode physical is not there yet: a standby that is promoted has to be made and cut over by hand. \
                 Leave --mode out to go by logical replication",
            );
        }
        let Some(migration) = &config.migration else {
            return refused(format!(
                "{}: there is no `migration: {{folder: …}}`, where what has to outlive a crash is kept",
                self.config.display()
            ));
        };
        let work = Work {
            migration,
            folder: Folder::open(&migration.folder)?,
            proxies: Proxies(self.admins(config, &admin)),
            begun: Instant::now(),
        };
        let verb = match self.action {
            Action::Plan => return self.plan(&work, config).await,
            Action::Status => return status::show(&work, &self.database, admin.json).await,
            Action::Start => Verb::Start,
            Action::Cutover => Verb::Cutover,
            Action::Rollback => Verb::Rollback,
            Action::Finish => Verb::Finish,
        };
        let _presently = work.folder.be_present(&self.database).await?;
        self.go(&work, config, verb).await
    }

    /// The admin servers of all proxies: the configuration's own unless another one was named.
    fn admins(&self, config: &Config, admin: &Client) -> Vec<Client> {
        let default = <crate::Postgres as groove_common::app::Proxy>::ADMIN;
        let first = match &config.admin {
            Some(own) if admin.address().to_string() == default => match &own.token {
                Some(token) => {
                    Client::new(own.address.clone(), Some(Secret::expose(token).to_owned()), admin.json)
                }
                None => admin.at(own.address.clone()),
            },
            Some(_) | None => admin.clone(),
        };
        let further = self.sidecar.iter().map(|address| first.at(address.clone()));
        std::iter::once(first.clone()).chain(further).collect()
    }

    fn terms(&self) -> Terms {
        Terms {
            max_pause: self.max_pause.get(),
            ends_others: self.terminate_others,
            verifies: !self.no_verify,
        }
    }

    fn ground<'a>(
        &self,
        config: &'a Config,
        migration: &'a Migration,
    ) -> Outcome<Result<Ground<'a>, Vec<Finding>>> {
        match &self.to {
            Some(to) => Ok(Ground::of(config, migration, &self.database, to)),
            None => refused("name the server that it goes to: --to HOST:PORT"),
        }
    }

    async fn plan(&self, work: &Work<'_>, config: &Config) -> Outcome<()> {
        if let Some(kept) = work.folder.journal(&self.database).await? {
            return refused(format!("a migration is under way: {}", kept.journal.told()));
        }
        let plan = match self.ground(config, work.migration)? {
            Ok(ground) => look(&ground, &work.proxies).await?,
            Err(findings) => Plan { findings, tools: None },
        };
        for finding in &plan.findings {
            super::print(finding.told());
        }
        let blockers = plan.blockers().len();
        match blockers {
            0 => super::print("nothing stands in the way: `migrate start` begins"),
            _ => return refused(format!("{blockers} things stand in the way")),
        }
        Ok(())
    }

    /// One step after the other until what was asked for is so.
    async fn go(&self, work: &Work<'_>, config: &Config, verb: Verb) -> Outcome<()> {
        loop {
            let kept = work.folder.journal(&self.database).await?;
            if let (Some(kept), Some(to)) = (&kept, &self.to)
                && kept.journal.target != *to
            {
                return refused(format!(
                    "a migration to {} is under way: {}",
                    kept.journal.target,
                    kept.journal.told()
                ));
            }
            let step = next(verb, kept.as_ref().map(|kept| &kept.journal.phase));
            let Some(mut kept) = kept else {
                if let Step::Refuse(why) = step {
                    return refused(why);
                }
                self.begin(work, config).await?;
                continue;
            };
            match step {
                Step::Copy => start::copy(work, &mut kept).await?,
                Step::Complete => {
                    let tools = self.tools(work, &kept).await?;
                    start::complete(work, &mut kept, &tools).await?;
                }
                Step::Cut(to) => return cutover::cut(work, &mut kept, to, self.terms()).await,
                Step::Undo(to) => {
                    work.say(format_args!("a move to the {} was broken off: it is undone", to.name()));
                    settle(work, &mut kept).await?;
                }
                Step::Redo(to) => {
                    work.say(format_args!(
                        "a move to the {} was decided and not completed: it is",
                        to.name()
                    ));
                    settle(work, &mut kept).await?;
                }
                Step::Clear(serving) => {
                    clear::clear(work, kept, serving).await?;
                    if verb != Verb::Start {
                        return Ok(());
                    }
                }
                Step::Done(what) => {
                    work.say(what);
                    return Ok(());
                }
                Step::Refuse(why) => return refused(why),
                // There is a journal.
                Step::Prepare => return Err(Fault::Overtaken),
            }
        }
    }

    async fn begin(&self, work: &Work<'_>, config: &Config) -> Outcome<()> {
        let ground = self.ground(config, work.migration)?.map_err(Fault::Blocked)?;
        let plan = look(&ground, &work.proxies).await?;
        let blockers = plan.blockers();
        let Some(tools) = plan.tools.filter(|_| blockers.is_empty()) else {
            return Err(Fault::Blocked(blockers));
        };
        for finding in &plan.findings {
            super::print(finding.told());
        }
        let mut kept = start::begin(work, &ground).await?;
        work.say(format_args!("{} moves from {} to {}", ground.database, ground.source, ground.target));
        let prepared = start::prepare(work, &mut kept, &tools).await;
        if let Err(fault) = &prepared {
            work.say(format_args!("{fault}: everything is taken back"));
            clear::clear(work, kept, Side::Source).await?;
        }
        prepared
    }

    async fn tools(&self, work: &Work<'_>, kept: &Kept) -> Outcome<Tools> {
        let source = work.connect(&kept.journal, Side::Source).await?;
        let major = source.version().await? / 10_000;
        let found = Tools::find(work.migration.tools.as_deref(), major).await;
        found.map_err(Fault::Refused)
    }
}

/// Ends what was half done, on the servers and at the proxies.
async fn settle(work: &Work<'_>, kept: &mut Kept) -> Outcome<()> {
    match recover::settle(kept, work.migration).await {
        // The proxy does the same: look what is left.
        Err(Fault::Overtaken) => return Ok(()),
        settled => settled?,
    }
    let journal = &kept.journal;
    if let Phase::Switched { to, .. } = journal.phase {
        work.proxies.switch(journal, to).await?;
    }
    work.proxies.open(journal).await?;
    match recover::complete(kept, work.migration, None).await {
        Err(Fault::Overtaken) => return Ok(()),
        completed => completed?,
    }
    work.say(kept.journal.told());
    Ok(())
}
