//! W3C Trace Context: the trace a request belongs to, continued by a parent of our own or begun.
//!
//! After <https://www.w3.org/TR/trace-context/>, version 00.

use groove_common::balance::Dice;

/// `00-` trace `-` parent `-` flags.
const BYTES: usize = 55;
/// The one flag of version 00 that is defined.
const SAMPLED: u8 = 1;

/// What is done about traces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tracing {
    /// Requests that bring no trace begin one.
    pub start: bool,
    /// The share of those that is marked as sampled, 0 to 1.
    pub sample: f64,
    /// What clients bring is believed from all of them, not only from trusted ones.
    pub believe_all: bool,
}

/// A `traceparent` for the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// The value.
    pub parent: [u8; BYTES],
    /// It goes on with the client's trace, so that `tracestate` stays.
    pub continues: bool,
}

/// The next `traceparent`. `given` is what the client sent, if it is believed and sent it once.
pub fn next(given: Option<&[u8]>, tracing: &Tracing, dice: &mut Dice) -> Option<Traced> {
    let mut parent = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let believed = given.and_then(read);
    let sampled = match believed {
        Some((trace, flags)) => {
            put(&mut parent, 3, trace);
            flags & SAMPLED
        }
        None if tracing.start => {
            put(&mut parent, 3, &hexadecimal(dice));
            put(&mut parent, 19, &hexadecimal(dice));
            u8::from(dice.unit() < tracing.sample)
        }
        None => return None,
    };
    put(&mut parent, 36, &hexadecimal(dice));
    put(&mut parent, 54, &[b'0' + sampled]);
    Some(Traced { parent, continues: believed.is_some() })
}

/// The trace and the flags of a valid `traceparent`, of this version or a later one (2.2 and 4.3 there).
fn read(value: &[u8]) -> Option<(&[u8], u8)> {
    let (head, rest) = value.split_at_checked(BYTES)?;
    let [v1, v2, b'-', ids @ .., b'-', f1, f2] = head else { return None };
    let version = byte(*v1, *v2)?;
    let is_longer = !rest.is_empty();
    if version == 0xff || (is_longer && (version == 0 || rest.first() != Some(&b'-'))) {
        return None;
    }
    let (trace, parent) = ids.split_at_checked(32)?;
    let parent = parent.strip_prefix(b"-")?;
    let valid = |id: &[u8]| id.iter().all(|it| nibble(*it).is_some()) && id.iter().any(|it| *it != b'0');
    (valid(trace) && valid(parent)).then_some((trace, byte(*f1, *f2)?))
}

fn byte(high: u8, low: u8) -> Option<u8> {
    Some(nibble(high)? << 4 | nibble(low)?)
}

/// Small letters only, as the text has it.
fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Sixteen digits that are not all zero.
fn hexadecimal(dice: &mut Dice) -> [u8; 16] {
    let mut digits = [b'1'; 16];
    let bits = dice.bits();
    for (place, digit) in digits.iter_mut().enumerate().skip(usize::from(bits == 0)) {
        let nibble = (bits >> (place * 4) & 0xf) as u8;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 };
    }
    digits
}

fn put(parent: &mut [u8; BYTES], at: usize, text: &[u8]) {
    if let Some(place) = parent.get_mut(at..at + text.len()) {
        place.copy_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const ON: Tracing = Tracing { start: true, sample: 0.0, believe_all: false };

    fn next_of(given: &str, tracing: Tracing) -> Option<(String, bool)> {
        let traced = next(Some(given.as_bytes()), &tracing, &mut Dice::seeded(1))?;
        Some((String::from_utf8(traced.parent.to_vec()).expect("text"), traced.continues))
    }

    #[test]
    fn a_trace_goes_on_with_a_parent_of_ours() {
        let (parent, continues) = next_of(GIVEN, ON).expect("a trace");
        assert!(continues && parent.len() == 55);
        assert_eq!((&parent[..36], &parent[52..]), (&GIVEN[..36], "-01"));
        assert_ne!(parent[36..52], GIVEN[36..52]);
        // A later version may say more; we speak our own.
        let later = GIVEN.replacen("00", "cc", 1) + "-what-the-future-will-be-like";
        assert_eq!(&next_of(&later, ON).expect("a trace").0[..36], &GIVEN[..36]);
        for (flags, sampled) in [("00", "-00"), ("02", "-00"), ("01", "-01"), ("ff", "-01")] {
            let (parent, _) = next_of(&(GIVEN[..53].to_owned() + flags), ON).expect("a trace");
            assert!(
                parent.ends_with(sampled),
                "flags that we do not know are not passed on as ours: {flags}"
            );
        }
    }

    #[test]
    fn what_is_no_trace_begins_a_new_one_if_it_may() {
        for given in [
            "",
            "00",
            &GIVEN[..54],
            &format!("{GIVEN}-more"),
            &GIVEN.to_uppercase(),
            &GIVEN.replacen("00", "ff", 1),
            &GIVEN.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GIVEN.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GIVEN.replace('-', "_"),
            &(GIVEN.replacen("00", "cc", 1) + "x"),
            &format!("{GIVEN}é"),
        ] {
            let (parent, continues) = next_of(given, ON).expect("a trace");
            assert!(
                !continues && read(parent.as_bytes()).is_some_and(|(_, flags)| flags == 0),
                "{given}: {parent}"
            );
            assert_eq!(next_of(given, Tracing { start: false, ..ON }), None, "{given}");
        }
        assert!(next_of("", Tracing { sample: 1.0, ..ON }).expect("a trace").0.ends_with("-01"));
    }
}
