//! `cairn consumer check NAME`: is a consumer ready? Real runs of it over a log that is thrown away.
//!
//! A broker and the consumer run as processes of their own in a temporary folder, on loopback, and are ended by their own pid.
//! Five things are shown: it reads the current and every prior version of every contract, and keeps what is newer; killed again and
//! again it neither misses nor repeats a record; a replay from the beginning gives the same results; its lag stays bounded
//! under ten times the normal traffic; and how fresh it is, and how fast it recovers from a pause, is measured. It must never touch a
//! data folder of the user's; on a server it makes a schema of its own, and removes it.

/// How much would be done.
#[cfg(not(feature = "audit"))]
#[allow(dead_code, reason = "there is nothing to check in this build")]
pub(crate) struct Size {
    pub(crate) events: u64,
    pub(crate) rate: u64,
    pub(crate) pause: std::time::Duration,
}

/// There is nothing to check in this build.
#[cfg(not(feature = "audit"))]
pub(crate) async fn run(_: String, _: Size, _: Option<std::path::PathBuf>, _: bool) -> anyhow::Result<()> {
    anyhow::bail!("{}", crate::consumers::NO_DATABASE)
}

#[cfg(feature = "audit")]
pub(crate) use runs::{Size, run};

#[cfg(feature = "audit")]
mod fresh;
#[cfg(feature = "audit")]
mod runs;
