//! What a payload tells of its record and of who wrote it.

use std::fmt;

use serde::Deserialize;

/// One process: `h2-5` is the sixth life of host 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life {
    pub host: u16,
    pub number: u16,
}

impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "h{}-{}", self.host, self.number)
    }
}

impl Life {
    pub fn parse(text: &str) -> Option<Self> {
        let (host, number) = text.strip_prefix('h')?.split_once('-')?;
        Some(Self { host: host.parse().ok()?, number: number.parse().ok()? })
    }
}

/// An instance of the collector in one life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    pub life: Life,
    pub nonce: u32,
}

/// A record and who wrote it, as one sink has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub p: u16,
    pub n: u32,
    pub instance: Instance,
    /// Counted by the instance for each partition: within one its records directly follow one another.
    pub epoch: u32,
}

#[derive(Deserialize)]
struct Stamp<'a> {
    p: u16,
    n: u32,
    k: &'a str,
    host: &'a str,
    nonce: u32,
    epoch: u32,
}

/// The key of a record of the feed.
pub fn key(p: u16, n: u32, keys: u32) -> String {
    format!("{p}-{}", n % keys)
}

impl Arrival {
    /// Reads a payload.
    ///
    /// # Errors
    /// When it is none of the collector's.
    pub fn parse(json: &[u8], keys: u32) -> Result<Self, String> {
        let wrong = |why: &dyn fmt::Display| format!("{why}: `{}`", String::from_utf8_lossy(json));
        let Stamp { p, n, k, host, nonce, epoch } = serde_json::from_slice(json).map_err(|error| wrong(&error))?;
        if k != key(p, n, keys) {
            return Err(wrong(&"a key of another record"));
        }
        let life = Life::parse(host).ok_or_else(|| wrong(&"no life"))?;
        Ok(Self { p, n, instance: Instance { life, nonce }, epoch })
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p, n, instance: Instance { life, nonce }, epoch } = self;
        write!(f, "[{p}]@{n} of {life} (instance {nonce:08x}, epoch {epoch})")
    }
}
