//! What is hashed of a key, and with which function.

use memchr::{memchr, memmem};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::{furc, hash, hashkit};

/// A hash function for keys. The names are those that twemproxy and libmemcached use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// XXH3 of 64 bits: the fastest of them, and the default.
    #[default]
    Xxh3,
    /// Jenkins' one-at-a-time: libmemcached's default.
    OneAtATime,
    /// The first 32 bits of MD5.
    Md5,
    /// CRC-16.
    Crc16,
    /// What libmemcached, twemproxy and python-memcached call CRC-32: 15 bits of it.
    Crc32,
    /// CRC-32, all of it.
    Crc32a,
    /// FNV-1, 64 bits cut to 32.
    #[serde(rename = "fnv1_64")]
    Fnv1x64,
    /// FNV-1a, 64 bits cut to 32: twemproxy's default.
    #[serde(rename = "fnv1a_64")]
    Fnv1aX64,
    /// FNV-1 of 32 bits.
    #[serde(rename = "fnv1_32")]
    Fnv1x32,
    /// FNV-1a of 32 bits.
    #[serde(rename = "fnv1a_32")]
    Fnv1aX32,
    /// Hsieh's.
    Hsieh,
    /// MurmurHash2 as libmemcached has it.
    Murmur,
    /// MurmurHash3 of 32 bits: pymemcache's.
    #[serde(rename = "murmur3_32")]
    Murmur3,
    /// Jenkins' lookup3 as libmemcached has it.
    Jenkins,
    /// mcrouter's, for `ch3` only.
    Furc,
    /// `String.hashCode` of Java: spymemcached's default.
    Java,
}

impl Function {
    /// The hash of `key`. All but `xxh3` and `furc` have 32 bits.
    pub fn hash(self, key: &[u8]) -> u64 {
        let hash = match self {
            Self::Xxh3 => return xxh3_64(key),
            Self::Furc => return furc::furc_start(key),
            Self::OneAtATime => hashkit::one_at_a_time(key),
            Self::Md5 => hash::md5_low(key),
            Self::Crc16 => hashkit::crc16(key),
            Self::Crc32 => hash::crc32_libmemcached(key),
            Self::Crc32a => hash::crc32(key),
            Self::Fnv1x64 => hashkit::fnv1_64(key),
            Self::Fnv1aX64 => hash::fnv1a_64_low(key),
            Self::Fnv1x32 => hashkit::fnv1_32(key),
            Self::Fnv1aX32 => hashkit::fnv1a_32(key),
            Self::Hsieh => hashkit::hsieh(key),
            Self::Murmur => hashkit::murmur(key),
            Self::Murmur3 => hashkit::murmur3_32(&[key]),
            Self::Jenkins => hashkit::jenkins(key),
            Self::Java => hashkit::java(key),
        };
        u64::from(hash)
    }

    /// As written in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Xxh3 => "xxh3",
            Self::Furc => "furc",
            Self::OneAtATime => "one_at_a_time",
            Self::Md5 => "md5",
            Self::Crc16 => "crc16",
            Self::Crc32 => "crc32",
            Self::Crc32a => "crc32a",
            Self::Fnv1x64 => "fnv1_64",
            Self::Fnv1aX64 => "fnv1a_64",
            Self::Fnv1x32 => "fnv1_32",
            Self::Fnv1aX32 => "fnv1a_32",
            Self::Hsieh => "hsieh",
            Self::Murmur => "murmur",
            Self::Murmur3 => "murmur3_32",
            Self::Jenkins => "jenkins",
            Self::Java => "java",
        }
    }
}

/// Which part of a key decides where it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// All of it.
    #[default]
    Whole,
    /// What stands between the first of these characters and the next of those, if it is not empty.
    Tag(u8, u8),
    /// What stands before the first `|#|` (mcrouter's).
    Stop,
}

impl Part {
    /// The part of `key` that is hashed.
    pub fn of(self, key: &[u8]) -> &[u8] {
        let part = match self {
            Self::Whole => None,
            Self::Tag(open, close) => tag(key, open, close),
            Self::Stop => memmem::find(key, b"|#|").and_then(|end| key.get(..end)),
        };
        part.unwrap_or(key)
    }
}

fn tag(key: &[u8], open: u8, close: u8) -> Option<&[u8]> {
    let inside = key.get(memchr(open, key)? + 1..)?;
    let tag = inside.get(..memchr(close, inside)?)?;
    (!tag.is_empty()).then_some(tag)
}

/// How a cluster hashes its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hasher {
    /// With this.
    pub function: Function,
    /// And only this of them.
    pub part: Part,
}

impl Hasher {
    /// The part of `key` that counts, and its hash.
    pub fn hash<'k>(&self, key: &'k [u8]) -> (&'k [u8], u64) {
        let part = self.part.of(key);
        (part, self.function.hash(part))
    }
}
