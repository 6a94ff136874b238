//! What a client can read (RFC 9110, 12.5.3).

use crate::config::Coding;
use crate::wire::tokens;

/// A weight of 1, in thousandths.
const ONE: u16 = 1000;

/// What a client wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Choice {
    /// The coding that suits both best; `None`: the reply stays as it is.
    pub coding: Option<Coding>,
    /// It cannot read a reply as it is.
    pub must: bool,
}

/// The best of `ours` by a client's weights; of those that it likes equally the first.
pub(super) fn choose<'v>(accepted: impl Iterator<Item = &'v [u8]>, ours: &[Coding]) -> Choice {
    let (mut any, mut identity) = (None, None);
    let mut weights: [(Coding, Option<u16>); 3] =
        [Coding::Gzip, Coding::Br, Coding::Zstd].map(|coding| (coding, None));
    for member in accepted.flat_map(tokens) {
        let Some((name, weight)) = member_of(member) else { continue };
        if name == b"*" {
            any.get_or_insert(weight);
        } else if name.eq_ignore_ascii_case(b"identity") {
            identity.get_or_insert(weight);
        }
        for (coding, known) in &mut weights {
            let is_old_name = *coding == Coding::Gzip && name.eq_ignore_ascii_case(b"x-gzip");
            if is_old_name || name.eq_ignore_ascii_case(coding.name().as_bytes()) {
                known.get_or_insert(weight);
            }
        }
    }
    let weight_of = |coding: Coding| {
        let named = weights.iter().find(|(known, _)| *known == coding).and_then(|(_, weight)| *weight);
        named.or(any).unwrap_or(0)
    };
    let mut best: Option<(Coding, u16)> = None;
    for coding in ours {
        let weight = weight_of(*coding);
        if weight > best.map_or(0, |(_, weight)| weight) {
            best = Some((*coding, weight));
        }
    }
    let must = identity.or(any.filter(|weight| *weight == 0)) == Some(0);
    // Who would rather have it as it is says so.
    let best = best.filter(|(_, weight)| identity.is_none_or(|identity| *weight >= identity));
    Choice { coding: best.map(|(coding, _)| coding), must }
}

/// A name and its weight in thousandths; `None` for what is neither.
fn member_of(member: &[u8]) -> Option<(&[u8], u16)> {
    let mut parts = member.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().filter(|name| !name.is_empty())?;
    match parts.next() {
        None => Some((name, ONE)),
        Some(weight) => {
            let (key, value) = weight.split_at_checked(2)?;
            key.eq_ignore_ascii_case(b"q=").then(|| weight_of(value)).flatten().map(|weight| (name, weight))
        }
    }
}

/// `0`, `1`, and up to three digits behind a point (RFC 9110, 12.4.2).
fn weight_of(text: &[u8]) -> Option<u16> {
    let (whole, part) = match text {
        [whole] => (*whole, &[][..]),
        [whole, b'.', part @ ..] if part.len() <= 3 => (*whole, part),
        _ => return None,
    };
    let mut weight = match whole {
        b'0' => 0,
        b'1' => ONE,
        _ => return None,
    };
    let mut unit = 100;
    for digit in part {
        weight += unit * u16::from(char::from(*digit).to_digit(10).and_then(|it| u8::try_from(it).ok())?);
        unit /= 10;
    }
    (weight <= ONE).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use Coding::{Br, Gzip, Zstd};

    fn choice(accepted: &[&str]) -> (Option<Coding>, bool) {
        let it = choose(accepted.iter().map(|text| text.as_bytes()), &[Zstd, Br, Gzip]);
        (it.coding, it.must)
    }

    #[test]
    fn the_clients_weights_count_first_and_then_our_order() {
        for (accepted, want) in [
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, br", Some(Br)),
            ("gzip;q=1.0, br;q=0.9", Some(Gzip)),
            ("GZIP;Q=0.5", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("br ; q=0.001", Some(Br)),
            ("*", Some(Zstd)),
            ("zstd;q=0, *;q=0.3", Some(Br)),
            ("gzip;q=0", None),
            ("*;q=0", None),
            ("identity", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("deflate, compress", None),
            ("", None),
            // What is no weight is no word on it at all.
            ("gzip;q=1.5", None),
            ("gzip;q=0.0001", None),
            ("gzip;q=-1", None),
            ("gzip;level=9", None),
            ("gzip;q=", None),
            (";q=1", None),
        ] {
            assert_eq!(choice(&[accepted]), (want, accepted == "*;q=0"), "{accepted}");
        }
        assert_eq!(choice(&["deflate", "gzip"]), (Some(Gzip), false), "several fields are one list");
        assert_eq!(choice(&[]), (None, false));
    }

    #[test]
    fn who_cannot_read_it_as_it_is_says_so() {
        assert_eq!(choice(&["gzip, identity;q=0"]), (Some(Gzip), true));
        assert_eq!(choice(&["gzip, *;q=0"]), (Some(Gzip), true));
        assert_eq!(choice(&["identity;q=0.1, gzip, *;q=0"]), (Some(Gzip), false));
        assert_eq!(choice(&["identity;q=0"]), (None, true), "nothing of ours can be read either");
    }
}
