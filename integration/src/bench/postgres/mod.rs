//! PostgreSQL: pgbouncer and ours before one server, in transaction pooling.

mod pgbench;
mod work;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Candidate, Measure, Settings, Suite};
use crate::process::{run, run_as};
use crate::{Kind, Postgres, paths};
use work::WORK;

/// Rows of a branch times branches: `pgbench -i -s 10`.
const SCALE: &str = "10";

pub(super) struct Poolers {
    candidates: Vec<Candidate>,
    _server: Postgres,
}

impl Poolers {
    pub(super) fn start(settings: &Settings) -> Result<Self> {
        let server = Postgres::builder().set("shared_buffers", "512MB").start()?;
        let port = server.address().port().to_string();
        let output = run(Command::new(paths::program("pgbench")?)
            .args(["-q", "-i", "-s", SCALE, "-U", "app", "-p", &port, "-h"])
            .arg(server.socket_folder())
            .arg("shop"))?;
        ensure!(output.status.success(), "pgbench -i: {}", String::from_utf8_lossy(&output.stderr));
        let ours = [("SERVER", server.address().to_string()), ("WORKERS", settings.workers.to_string())];
        let candidates = vec![
            Candidate::direct(server.address()),
            pgbouncer(port)?,
            Candidate::ours(Kind::Postgres, &ours)?,
        ];
        Ok(Self { candidates, _server: server })
    }
}

fn pgbouncer(server_port: String) -> Result<Candidate> {
    Candidate::program("pgbouncer", "pgbouncer.ini", vec![("SERVER_PORT", server_port)], |folder, _| {
        // It refuses to run as root, and reads its files as the user it runs as.
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
        std::fs::write(folder.join("users.txt"), "\"app\" \"secret\"\n")?;
        let mut command = Command::new(paths::program("pgbouncer")?);
        command.arg(folder.join("pgbouncer.ini"));
        run_as(&mut command, "postgres")?;
        Ok(command)
    })
}

impl Suite for Poolers {
    fn title(&self) -> String {
        "PostgreSQL: pgbench on 20 server connections, transaction pooling".to_owned()
    }

    fn ours(&self) -> Kind {
        Kind::Postgres
    }

    fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    fn scenarios(&self) -> Vec<String> {
        WORK.iter().map(|work| work.name.to_owned()).collect()
    }

    fn measure(&self, candidate: &Candidate, scenario: usize, settings: &Settings) -> Result<Measure> {
        WORK.get(scenario).context("no such scenario")?.measure(candidate, settings.seconds)
    }

    fn idle(
        &self,
        candidate: &Candidate,
        connections: usize,
        weigh: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let (host, port) = (candidate.address.ip(), candidate.address.port());
        let login = format!("host={host} port={port} user=app password=secret dbname=shop");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut held = Vec::with_capacity(connections);
            for _ in 0..connections {
                let (client, connection) = tokio_postgres::connect(&login, tokio_postgres::NoTls).await?;
                tokio::spawn(connection);
                client.simple_query("SELECT 1").await?;
                held.push(client);
            }
            weigh()
        })
    }
}
