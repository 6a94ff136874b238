//! Values with a unit: written for people, typed for the code.
//!
//! Each names its `format` in the schema, by which [`super::check`] tests the text before serde sees it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A hundred years: added to any clock, it overflows none.
const SECS_MAX: u64 = 100 * 31_557_600;

/// A length of time, written `500ms`, `30s`, `1m 30s` or `2h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Duration(pub std::time::Duration);

impl Duration {
    /// So many milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(std::time::Duration::from_millis(millis))
    }

    /// So many seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self(std::time::Duration::from_secs(secs))
    }

    /// As the standard library has it.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// No time at all.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl From<Duration> for std::time::Duration {
    fn from(duration: Duration) -> Self {
        duration.0
    }
}

impl FromStr for Duration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("a length of time needs a unit: write `{text}s` or `{text}ms`"));
        }
        match humantime::parse_duration(text) {
            Ok(duration) if duration.as_secs() <= SECS_MAX => Ok(Self(duration)),
            Ok(_) => Err("a length of time is at most `100y`".to_owned()),
            Err(_) => Err("a length of time is written like `500ms`, `30s` or `1m 30s`".to_owned()),
        }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// An amount of bytes, written `64MiB`, `512 KiB` or `1GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(pub u64);

impl Size {
    /// So many times 1024 bytes.
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many times 1024 KiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// In bytes; an amount that the machine cannot address is the largest it can.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<bytesize::ByteSize>()
            .map(|size| Self(size.as_u64()))
            .map_err(|_| "an amount of bytes is written like `64MiB` or `512KiB`".to_owned())
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        // The largest unit that divides it: what is shown reads back as the same amount.
        for (shift, unit) in UNITS {
            if self.0 != 0 && self.0.trailing_zeros() >= shift {
                return write!(f, "{}{unit}", self.0 >> shift);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// The permissions of a unix socket, written in octal between quotes: `"0660"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(pub u32);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let octal = text.strip_prefix("0o").unwrap_or(text);
        match u32::from_str_radix(octal, 8) {
            Ok(mode) if mode <= 0o777 && octal.len() >= 3 && !octal.starts_with('+') => Ok(Self(mode)),
            _ => Err("permissions are three octal digits after a zero, in quotes: `\"0660\"`".to_owned()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0{:03o}", self.0)
    }
}

/// Text in the file, checked by `FromStr`; a `format` in the schema.
macro_rules! written_as_text {
    ($type:ident, $format:literal, $description:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "format": $format, "description": $description })
            }
        }
    };
}

written_as_text!(Duration, "duration-text", "A length of time, like 500ms, 30s or 1m 30s.");
written_as_text!(Size, "size", "An amount of bytes, like 64MiB.");
written_as_text!(Mode, "mode", "Permissions in octal, in quotes, like \"0660\".");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, millis, shown) in
            [("500ms", 500, "500ms"), ("30s", 30_000, "30s"), ("1m 30s", 90_000, "1m 30s"), ("0s", 0, "0s")]
        {
            let duration: Duration = text.parse().unwrap();
            assert_eq!((duration, duration.to_string().as_str()), (Duration::from_millis(millis), shown));
        }
        for text in ["30", "", "s", "-1s", "1 fortnight", "1000y"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
        // The longest must not overflow a clock.
        assert!(std::time::Instant::now().checked_add("100y".parse::<Duration>().unwrap().get()).is_some());
    }

    #[test]
    fn amounts_of_bytes() {
        for (text, bytes, shown) in [
            ("64MiB", 64 << 20, "64MiB"),
            ("1536 KiB", 1536 << 10, "1536KiB"),
            ("1GB", 1_000_000_000, "1000000000B"),
            ("10", 10, "10B"),
            ("0", 0, "0B"),
        ] {
            let size: Size = text.parse().unwrap();
            assert_eq!((size.0, size.to_string().as_str()), (bytes, shown));
            assert_eq!(shown.parse(), Ok(size), "what is shown reads back");
        }
        assert!("lots".parse::<Size>().is_err());
    }

    #[test]
    fn permissions() {
        for (text, mode) in [("0660", 0o660), ("600", 0o600), ("0o777", 0o777)] {
            assert_eq!(text.parse(), Ok(Mode(mode)), "{text}");
        }
        assert_eq!(Mode(0o60).to_string(), "0060");
        for text in ["9", "0888", "01777", "7", "", "+660"] {
            assert!(text.parse::<Mode>().is_err(), "{text}");
        }
    }
}
