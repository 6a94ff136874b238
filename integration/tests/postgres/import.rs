//! `import-pgbouncer`: clients that a real pgbouncer lets in find the same behind what its file became.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::{Kind, PATIENCE, Port, Postgres, Process, Signal, paths};
use tempfile::TempDir;
use tokio_postgres::NoTls;

use super::{run, text};

/// What is fixed in what is written, and has to be free here.
const ADMIN: &str = "127.0.0.1:9632";

/// By TCP and by unix socket; roles of the file in each of their three forms, and one that only the servers know.
const INI: &str = "
[databases]
shop = host=$HOST port=$SERVER_PORT pool_size=5
over_socket = host=$SOCKETS port=$SERVER_PORT dbname=shop pool_mode=transaction
%include $DIR/more.ini
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $PORT
unix_socket_dir = $DIR
auth_type = md5
auth_file = $DIR/userlist.txt
auth_user = asker
admin_users = app
max_client_conn = 50
ignore_startup_parameters = extra_float_digits
";

/// Who logs in, where, and with what.
const LOGINS: [&str; 6] = [
    "user=app password=secret dbname=shop",
    "user=app password=secret dbname=over_socket",
    "user=legacy password=secret dbname=shop",
    "user=verified password=known dbname=shop",
    "user=late password=found dbname=shop",
    "user=app password=secret dbname=of_more",
];

#[test]
fn the_same_clients_find_the_same_database() -> Result<()> {
    run(async {
        let server = Postgres::start()?;
        server.sql(
            "shop",
            "CREATE ROLE asker LOGIN PASSWORD 'ask'; GRANT SELECT ON pg_authid TO asker;
             CREATE ROLE verified LOGIN PASSWORD 'known'; CREATE ROLE late LOGIN PASSWORD 'found'",
        )?;
        let folder = tempfile::tempdir()?;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777))?;
        let (port, admin) = (Port::reserve()?, Port::reserve()?);
        let ini = write_files(&server, folder.path(), port.number())?;

        let mut pgbouncer = start_pgbouncer(&ini, port.address())?;
        let before = all(&port, folder.path()).await?;
        pgbouncer.signal(Signal::INT)?;
        pgbouncer.exit(PATIENCE)?;

        let yaml = import(&ini, &folder)?.replace(ADMIN, &admin.to_string());
        let file = folder.path().join("postgres.yaml");
        std::fs::write(&file, yaml)?;
        let checked = Kind::Postgres.run(&["check".as_ref(), "--config".as_ref(), file.as_os_str()])?;
        ensure!(checked.status.success(), "check: {}", String::from_utf8_lossy(&checked.stderr));

        // On the very port that the other has left: whoever moves changes nothing at the clients.
        let mut command = Command::new(Kind::Postgres.binary()?);
        command.args(["run", "--config"]).arg(&file);
        let mut groove = Process::spawn("groove-postgres", command)?;
        groove.until("accepting", || TcpStream::connect(port.address()).is_ok())?;
        assert_eq!(all(&port, folder.path()).await?, before);
        Ok(())
    })
}

#[test]
fn what_is_wrong_is_told_with_its_line_and_nothing_is_printed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ini = folder.path().join("pgbouncer.ini");
    std::fs::write(&ini, "[databases]\nshop = hots=127.0.0.1\n[pgbouncer]\nmax_client_conn = many\n")?;
    let output = Kind::Postgres.run(&["import-pgbouncer".as_ref(), ini.as_os_str()])?;
    let told = String::from_utf8_lossy(&output.stderr).replace(&ini.display().to_string(), "FILE");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{told}");
    let lines: Vec<_> =
        told.lines().filter_map(|line| line.split_once(": ")).map(|(place, _)| place).collect();
    assert_eq!(lines, ["FILE:2", "FILE:4"], "{told}");
    // pgbouncer refuses it as well.
    let refused = pgbouncer(&ini)?.output()?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("hots"), "{said}");
    let missing = Kind::Postgres.run(&["import-pgbouncer", "/nowhere/pgbouncer.ini"])?;
    assert_eq!(missing.status.code(), Some(1));
    Ok(())
}

fn write_files(server: &Postgres, folder: &Path, port: u16) -> Result<std::path::PathBuf> {
    let stored = |role: &str| {
        server.sql("shop", &format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{role}'"))
    };
    let users = format!(
        "; by hand\n\"app\" \"secret\"\n\"legacy\" \"{}\"\n\"verified\" \"{}\"\n\"asker\" \"ask\"\n",
        stored("legacy")?,
        stored("verified")?
    );
    let filled = |text: &str| {
        text.replace("$DIR", &folder.display().to_string())
            .replace("$HOST", &server.address().ip().to_string())
            .replace("$SERVER_PORT", &server.address().port().to_string())
            .replace("$SOCKETS", &server.socket_folder().display().to_string())
            .replace("$PORT", &port.to_string())
    };
    let ini = folder.join("pgbouncer.ini");
    let more = "of_more = host='$HOST' port = $SERVER_PORT dbname='shop'\n";
    for (name, text) in [("userlist.txt", users.as_str()), ("more.ini", more), ("pgbouncer.ini", INI)] {
        let file = folder.join(name);
        std::fs::write(&file, filled(text))?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644))?;
    }
    Ok(ini)
}

/// It refuses to run as root.
fn pgbouncer(ini: &Path) -> Result<Command> {
    let program = paths::program("pgbouncer")?;
    let mut command = if rustix::process::getuid().is_root() {
        let mut other = Command::new("setpriv");
        other.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
        other
    } else {
        Command::new(program)
    };
    command.arg(ini);
    Ok(command)
}

fn start_pgbouncer(ini: &Path, address: SocketAddr) -> Result<Process> {
    let mut process = Process::spawn("pgbouncer", pgbouncer(ini)?)?;
    process.until("accepting", || TcpStream::connect(address).is_ok())?;
    Ok(process)
}

fn import(ini: &Path, folder: &TempDir) -> Result<String> {
    let output = Kind::Postgres.run(&["import-pgbouncer".as_ref(), ini.as_os_str()])?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "import-pgbouncer: {said}");
    // One process asks for all databases: that is to be known.
    ensure!(said.starts_with("to look at: "), "{said}");
    let text = String::from_utf8(output.stdout)?;
    ensure!(text.contains(&folder.path().display().to_string()), "{text}");
    Ok(text)
}

/// What each of the logins finds, by TCP and by the unix socket, and how those are refused who do not get in.
async fn all(port: &Port, folder: &Path) -> Result<Vec<String>> {
    let (tcp, unix) = (port.address().ip().to_string(), folder.display().to_string());
    let mut found = Vec::new();
    for host in [&tcp, &unix] {
        for login in LOGINS {
            let target = format!("host={host} port={} {login}", port.number());
            let (client, connection) =
                tokio_postgres::connect(&target, NoTls).await.with_context(|| target.clone())?;
            tokio::spawn(connection);
            let query = "SELECT concat_ws(' ', current_user, current_database(), system_identifier) \
                         FROM pg_control_system()";
            found.push(text(&client, query).await.with_context(|| target.clone())?);
            let wrong = target.replace("password=", "password=not");
            let refused = tokio_postgres::connect(&wrong, NoTls).await.err().context("let in")?;
            // In words of its own: pgbouncer calls it a protocol violation, or SASL by its name.
            let said = refused.as_db_error().context("not told why")?.message();
            assert!(said.contains("authentication failed"), "{wrong}: {said}");
        }
    }
    Ok(found)
}
