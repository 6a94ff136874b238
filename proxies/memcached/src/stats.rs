//! `stats` of many servers as if they were one: numbers are added up, what cannot be added is the first's.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};

/// Names whose numbers tell a property, not an amount.
const NOT_ADDED: [&[u8]; 22] = [
    b"pid",
    b"time",
    b"uptime",
    b"version",
    b"libevent",
    b"pointer_size",
    b"accepting_conns",
    b"hash_power_level",
    b"hash_is_expanding",
    b"slab_reassign_running",
    b"lru_crawler_running",
    b"chunk_size",
    b"chunks_per_page",
    b"age",
    b"age_hot",
    b"age_warm",
    b"evicted_time",
    b"growth_factor",
    b"verbosity",
    b"tcpport",
    b"udpport",
    b"item_size_max",
];

/// Adds up what servers answered; `own` lines come first and are what they are, whatever servers say.
///
/// Without `adds`, the first server that has a name tells its value.
///
/// Each text is lines `STAT name value`, as memcached sends them, without `END`. Lines of another kind
/// (`ITEM`, `PREFIX`) are passed on one after the other.
pub fn merge(own: Option<&Bytes>, servers: &[Bytes], adds: bool) -> BytesMut {
    let mut merged: Vec<(&[u8], Value<'_>)> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    let mut others: Vec<&[u8]> = Vec::new();
    let own_lines = own.into_iter().flat_map(lines).map(|line| (line, true));
    let server_lines = servers.iter().flat_map(lines).map(|line| (line, false));
    for (line, is_own) in own_lines.chain(server_lines) {
        let Some((name, value)) = stat(line) else {
            others.push(line);
            continue;
        };
        match places.get(name).and_then(|place| merged.get_mut(*place)) {
            Some((_, merged)) => merged.add(value),
            None => {
                let fixed = is_own || !adds || NOT_ADDED.contains(&last_part(name));
                places.insert(name, merged.len());
                merged.push((name, Value::first(value, fixed)));
            }
        }
    }
    let mut text = BytesMut::new();
    for (name, value) in merged {
        text.extend_from_slice(b"STAT ");
        text.extend_from_slice(name);
        text.extend_from_slice(b" ");
        value.write(&mut text);
        text.extend_from_slice(b"\r\n");
    }
    for line in others {
        text.extend_from_slice(line);
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// One name's value so far.
enum Value<'a> {
    Fixed(&'a [u8]),
    Whole(u64),
    /// Seconds with six digits behind the point, as in `rusage_user`.
    Decimal(f64),
}

impl<'a> Value<'a> {
    fn first(text: &'a [u8], fixed: bool) -> Self {
        match (fixed, whole(text), decimal(text)) {
            (false, Some(number), _) => Self::Whole(number),
            (false, None, Some(number)) => Self::Decimal(number),
            (true, _, _) | (false, None, None) => Self::Fixed(text),
        }
    }

    fn add(&mut self, text: &[u8]) {
        match self {
            Self::Fixed(_) => (),
            Self::Whole(sum) => *sum = sum.wrapping_add(whole(text).unwrap_or(0)),
            Self::Decimal(sum) => *sum += decimal(text).unwrap_or(0.0),
        }
    }

    fn write(&self, out: &mut BytesMut) {
        match self {
            Self::Fixed(text) => out.extend_from_slice(text),
            Self::Whole(sum) => out.extend_from_slice(sum.to_string().as_bytes()),
            Self::Decimal(sum) => out.extend_from_slice(format!("{sum:.6}").as_bytes()),
        }
    }
}

fn lines(text: &Bytes) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
}

/// The parts of `STAT name value`; a value may hold spaces or be missing.
fn stat(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = line.strip_prefix(b"STAT ")?;
    let name_len = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
    Some((rest.get(..name_len)?, rest.get(name_len + 1..).unwrap_or_default()))
}

/// The `age` of `items:1:age`.
fn last_part(name: &[u8]) -> &[u8] {
    name.rsplit(|byte| *byte == b':').next().unwrap_or(name)
}

fn whole(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn decimal(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let is_number = text.contains('.') && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_added_and_properties_are_not() {
        let servers = [
            Bytes::from_static(
                b"STAT pid 7\r\nSTAT cmd_get 3\r\nSTAT rusage_user 0.250000\r\nSTAT inter NULL\r\n",
            ),
            Bytes::from_static(
                b"STAT pid 8\r\nSTAT cmd_get 4\r\nSTAT rusage_user 0.500000\r\nSTAT extra 1\r\n",
            ),
        ];
        let own = Bytes::from_static(b"STAT curr_connections 2\r\nSTAT pid 1\r\n");
        assert_eq!(
            merge(Some(&own), &servers, true),
            "STAT curr_connections 2\r\nSTAT pid 1\r\nSTAT cmd_get 7\r\nSTAT rusage_user 0.750000\r\n\
             STAT inter NULL\r\nSTAT extra 1\r\n"
        );
    }

    #[test]
    fn names_with_parts_and_lines_of_another_kind() {
        let servers = [
            Bytes::from_static(b"STAT items:1:age 5\r\nSTAT items:1:number 2\r\nITEM a [1 b; 0 s]\r\n"),
            Bytes::from_static(b"STAT items:1:age 9\r\nSTAT items:1:number 3\r\nITEM b [2 b; 0 s]\r\n"),
        ];
        assert_eq!(
            merge(None, &servers, true),
            "STAT items:1:age 5\r\nSTAT items:1:number 5\r\nITEM a [1 b; 0 s]\r\nITEM b [2 b; 0 s]\r\n"
        );
    }
}
