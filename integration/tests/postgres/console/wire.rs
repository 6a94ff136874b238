//! The console as clients see it that know PgBouncer's: columns and types on the wire, psql, and those that prepare.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, Bytes};
use harness::{Kind, PATIENCE, PgBouncer, Postgres, Proxy, paths};

use crate::TRUSTING;

/// Columns with their types, and the first value of each row: as the wire has them.
struct Answer {
    columns: Vec<(String, u32, i16)>,
    firsts: Vec<String>,
}

/// Logs in without a password as `app` and asks.
struct Wire(TcpStream);

impl Wire {
    fn connect(address: SocketAddr, database: &str) -> Result<Wire> {
        let mut wire = Wire(TcpStream::connect(address)?);
        wire.0.set_read_timeout(Some(PATIENCE))?;
        let body = format!("user\0app\0database\0{database}\0\0");
        let length = u32::try_from(body.len() + 8)?.to_be_bytes();
        wire.0.write_all(&[&length[..], &196_608_u32.to_be_bytes(), body.as_bytes()].concat())?;
        wire.until_ready()?;
        Ok(wire)
    }

    fn until_ready(&mut self) -> Result<Vec<(u8, Bytes)>> {
        let mut messages = Vec::new();
        loop {
            let mut header = [0; 5];
            self.0.read_exact(&mut header)?;
            let [tag, length @ ..] = header;
            let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
            self.0.read_exact(&mut body)?;
            let is_ready = tag == b'Z';
            messages.push((tag, Bytes::from(body)));
            if is_ready {
                return Ok(messages);
            }
        }
    }

    fn send(&mut self, tag: u8, body: &[u8]) -> Result<()> {
        let length = u32::try_from(body.len() + 4)?.to_be_bytes();
        Ok(self.0.write_all(&[&[tag][..], &length, body].concat())?)
    }

    fn ask(&mut self, command: &str) -> Result<Answer> {
        self.send(b'Q', format!("{command}\0").as_bytes())?;
        let mut answer = Answer { columns: Vec::new(), firsts: Vec::new() };
        for (tag, body) in self.until_ready()? {
            match tag {
                b'T' => answer.columns = described(body)?,
                b'D' => answer.firsts.push(first(body)),
                b'E' => anyhow::bail!("{command}: {}", String::from_utf8_lossy(&body)),
                _ => {}
            }
        }
        Ok(answer)
    }
}

/// The columns of a RowDescription.
fn described(mut body: Bytes) -> Result<Vec<(String, u32, i16)>> {
    let mut columns = Vec::new();
    body.advance(2);
    while body.has_remaining() {
        let end = body.iter().position(|b| *b == 0).context("a name without an end")?;
        let name = String::from_utf8(body.split_to(end).to_vec())?;
        // The zero, the table and its column.
        body.advance(7);
        let (kind, size) = (body.get_u32(), body.get_i16());
        // The modifier and the format.
        body.advance(6);
        columns.push((name, kind, size));
    }
    Ok(columns)
}

/// The first value of a DataRow.
fn first(mut body: Bytes) -> String {
    body.advance(2);
    let length = usize::try_from(body.get_i32()).unwrap_or(0);
    String::from_utf8_lossy(&body.split_to(length)).into_owned()
}

#[test]
fn columns_and_types_are_pgbouncers() -> Result<()> {
    let server = Postgres::start()?;
    let pgbouncer = PgBouncer::start(server.address())?;
    let proxy = Proxy::of(Kind::Postgres).config(TRUSTING).set("SERVER", server.address()).start()?;
    let mut theirs = Wire::connect(pgbouncer.address(), "pgbouncer")?;
    // By the name that exporters know.
    let mut ours = Wire::connect(proxy.address(), "pgbouncer")?;
    for what in [
        "VERSION",
        "POOLS",
        "CLIENTS",
        "SERVERS",
        "DATABASES",
        "STATS",
        "STATS_TOTALS",
        "STATS_AVERAGES",
        "TOTALS",
        "LISTS",
        "CONFIG",
        "MEM",
        "USERS",
    ] {
        let command = format!("SHOW {what}");
        let (expected, answer) = (theirs.ask(&command)?, ours.ask(&command)?);
        ensure!(!expected.columns.is_empty(), "{command} compares nothing");
        assert_eq!(answer.columns, expected.columns, "{command}");
        if matches!(what, "TOTALS" | "LISTS") {
            assert_eq!(answer.firsts, expected.firsts, "{command}");
        }
    }
    let names: Vec<_> = ours.ask("SHOW STATE;")?.columns.into_iter().map(|(name, ..)| name).collect();
    assert_eq!(names, ["key", "value"]);
    Ok(())
}

#[test]
fn an_error_in_the_extended_protocol_ends_with_its_sync() -> Result<()> {
    let server = Postgres::start()?;
    let proxy = Proxy::of(Kind::Postgres).config(TRUSTING).set("SERVER", server.address()).start()?;
    let mut wire = Wire::connect(proxy.address(), "groove")?;
    wire.send(b'P', b"\0SHOW POOLS\0\0\0")?;
    wire.send(b'D', b"S\0")?;
    wire.send(b'S', b"")?;
    let said = wire.until_ready()?;
    let tags: Vec<_> = said.iter().map(|(tag, _)| char::from(*tag)).collect();
    assert_eq!(tags, ['E', 'Z']);
    assert!(String::from_utf8_lossy(&said[0].1).contains("0A000"));
    wire.ask("SHOW POOLS")?;
    Ok(())
}

#[test]
fn psql_shows_pools() -> Result<()> {
    let server = Postgres::start()?;
    let proxy = Proxy::of(Kind::Postgres).config(TRUSTING).set("SERVER", server.address()).start()?;
    let psql = |database: &str, command: &str| {
        let mut psql = Command::new(paths::program("psql")?);
        psql.args(["-XAt", "-h", "127.0.0.1", "-p", &proxy.address().port().to_string(), "-U", "app"]);
        let output = harness::run(psql.args(["-d", database, "-c", command]))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{command}: {said}");
        Ok((String::from_utf8_lossy(&output.stdout).trim().to_owned(), said))
    };
    assert_eq!(psql("shop", "SELECT 1")?.0, "1");
    let pools = psql("groove", "SHOW POOLS")?.0;
    assert!(pools.starts_with("shop|app|0|0|0|0|0|0|0|1|0|0|0|0|0|transaction"), "{pools}");
    assert!(psql("groove", "SHOW HELP")?.1.contains("RECONNECT"), "a notice");
    Ok(())
}
