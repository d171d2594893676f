//! `cairn broker`: runs the embedded log alone; `check` looks at what it stored, `salvage` at what it lacks.
//!
//! The subcommands need no running broker. What they find is said by their exit code.

mod check;
pub(crate) mod recovered;
mod salvage;

use std::path::{Path, PathBuf};

use anyhow::Context;
use cairn_clock::{Clock, Entropy};
use cairn_log::LogOptions;
use clap::{Args, Subcommand};

use crate::{UpArguments, ending::Ending, engine::Role, folder, up};

/// What `broker` is told.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BrokerArguments {
    #[command(subcommand)]
    what: Option<BrokerCommand>,
    #[command(flatten)]
    run: UpArguments,
}

#[derive(Subcommand, Debug)]
enum BrokerCommand {
    /// Verifies every checksum of what the log stored: head, index, objects, batches, write-ahead log. Changes nothing.
    #[command(
        after_help = "Example: cairn broker check --data /var/lib/cairn\nExample: cairn broker check --config cairn.toml --json\n\nBeside a running broker it checks the object store alone.\nExit code: 0 all is whole, 5 something was found, 3 there is no log, 1 it could not be checked."
    )]
    Check(check::CheckArguments),
    /// Shows what a write-ahead log holds that the object store lacks, because another went on without it; or sends it again.
    #[command(
        after_help = "Example: cairn broker salvage --data /var/lib/cairn\nExample: cairn broker salvage --json > lost.jsonl\nExample: cairn broker salvage --topic orders --to 127.0.0.1:9092\n\nIt only reads the write-ahead log. Exit code: 3 where none was set aside."
    )]
    Salvage(salvage::SalvageArguments),
}

/// Where a log lies.
#[derive(Args, Debug)]
struct Place {
    /// The data folder.
    #[arg(long)]
    data: Option<PathBuf>,
    /// `cairn.toml`, whose `[store]` names the object store; that of the data folder where absent.
    #[arg(long)]
    config: Option<PathBuf>,
}

impl Place {
    /// The data folder, and the options of its log. Makes nothing.
    async fn find(self) -> anyhow::Result<(PathBuf, LogOptions)> {
        let arguments = UpArguments { data: self.data, config: self.config, ..UpArguments::default() };
        let (config, _) = up::configuration(&arguments)?;
        let data = match arguments.data.or_else(|| config.data.clone()) {
            Some(data) => data,
            None => folder::default_path()?,
        };
        let data = std::path::absolute(&data).with_context(|| format!("cannot find {}", data.display()))?;
        let at_rest = config.encryption.open(&data, &Clock::system(), &Entropy::system()).await?;
        let options = config.store.log_options(&data, &at_rest)?;
        Ok((data, options))
    }
}

fn no_log(data: &Path) -> anyhow::Error {
    let words = format!(
        "there is no log: neither {} nor its object store holds anything; name the data folder with --data, and the \
         configuration with --config where [store] names a bucket",
        data.join("log").display()
    );
    Ending::NoSuch(words).into()
}

/// Runs the broker, or looks at what one stored.
pub(crate) async fn run(arguments: BrokerArguments) -> anyhow::Result<()> {
    match arguments.what {
        None => up::run(arguments.run, Role::Broker).await,
        Some(BrokerCommand::Check(arguments)) => check::run(arguments).await,
        Some(BrokerCommand::Salvage(arguments)) => salvage::run(arguments).await,
    }
}
