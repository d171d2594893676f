//! `cairn consumer …`: how consumers stand, pausing, resuming and moving them, through the admin address of the `up` of their data
//! folder, which records it before it takes effect.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{ask::Asking, check, say, since};

/// Which consumer, and why.
#[derive(Args, Clone, Debug)]
pub(crate) struct Which {
    /// The consumer: audit, context, observe.
    name: String,
    /// Why, for the record.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    asking: Asking,
}

/// `cairn consumer`
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum ConsumerCommand {
    /// How the consumers of a running `up` stand: lag, freshness, dead letters.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn consumer list")]
    List(Asking),
    /// Lets a consumer rest: it takes nothing until it is resumed.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn consumer pause audit --reason \"moving the disk\"")]
    Pause(Which),
    /// Lets it go on, where it stood.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn consumer resume audit")]
    Resume(Which),
    /// Shows that a consumer is ready, over a throw-away log: contracts, kills, replay, burst, freshness. Nothing of yours is touched.
    #[command(
        after_help = "Example: cairn consumer check audit\n\nExit code: 0 ready, 5 something was found, 1 it could not be checked."
    )]
    Check {
        /// The consumer: audit, context.
        name: String,
        /// Events of the part in which it is killed.
        #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000))]
        events: u64,
        /// Events a second of the normal traffic; the burst has ten times as many.
        #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=10_000))]
        rate: u64,
        /// Minutes of the pause from which it recovers.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=60))]
        pause_minutes: u64,
        /// The configuration that names the server of `audit`; a schema is made there and removed. A file is used where absent.
        #[arg(long)]
        config: Option<std::path::PathBuf>,
        /// JSON for machines.
        #[arg(long)]
        json: bool,
    },
    /// Prints the SQL that makes the tables of a consumer on a PostgreSQL server, for whoever makes them beforehand.
    #[command(after_help = "Example: cairn consumer schema audit --writer cairn --reader cairn_reader > audit.sql")]
    Schema {
        /// The consumer: audit.
        name: String,
        /// The schema that they lie in: consumers.audit.schema.
        #[arg(long, default_value = "cairn")]
        schema: String,
        /// Who applies, and gets the rights for that: the user in consumers.audit.database.
        #[arg(long)]
        writer: Option<String>,
        /// Who asks, and may only read: consumers.audit.query_user.
        #[arg(long)]
        reader: Option<String>,
    },
    /// Moves it to a time: what it takes from there on replaces what came of it before.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn consumer seek audit --to 1h")]
    Seek {
        #[command(flatten)]
        which: Which,
        /// The time: 90s, 10m, 2h or 1d ago, or 2026-11-24T09:00:00Z.
        #[arg(long, value_name = "TIME", value_parser = since::millis)]
        to: i64,
    },
}

/// Asks the admin address.
pub(crate) async fn run(what: ConsumerCommand) -> anyhow::Result<()> {
    match what {
        ConsumerCommand::List(asking) => list(&asking).await,
        ConsumerCommand::Pause(which) => change(which, "pause", None).await,
        ConsumerCommand::Resume(which) => change(which, "resume", None).await,
        ConsumerCommand::Seek { which, to } => change(which, "seek", Some(to)).await,
        ConsumerCommand::Check { name, events, rate, pause_minutes, config, json } => {
            let size = check::Size { events, rate, pause: Duration::from_secs(60 * pause_minutes) };
            check::run(name, size, config, json).await
        }
        ConsumerCommand::Schema { name, schema, writer, reader } => {
            if name != "audit" {
                bail!("{name:?} keeps nothing on a server: only audit does");
            }
            script(&schema, writer.as_deref(), reader.as_deref())
        }
    }
}

#[cfg(feature = "postgres")]
fn script(schema: &str, writer: Option<&str>, reader: Option<&str>) -> anyhow::Result<()> {
    let script = cairn_consumers::postgres::script(schema, writer, reader);
    say::line(format_args!("{}", script.trim_end()));
    Ok(())
}

#[cfg(not(feature = "postgres"))]
fn script(_: &str, _: Option<&str>, _: Option<&str>) -> anyhow::Result<()> {
    bail!("{}", crate::consumers::NO_POSTGRES)
}

async fn change(which: Which, verb: &str, to_ms: Option<i64>) -> anyhow::Result<()> {
    let Which { name, reason, asking } = which;
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        bail!("there is no consumer {name:?}");
    }
    let operator = std::env::var("USER").unwrap_or_else(|_| "operator".to_owned());
    let body = json!({ "to_ms": to_ms, "reason": reason, "operator": operator });
    let done = asking.admin.find()?.send("POST", &format!("/consumers/{name}/{verb}"), Some(body)).await?;
    if asking.json {
        say::line(format_args!("{done}"));
        return Ok(());
    }
    match done.get("change").and_then(Value::as_str) {
        Some("paused") => say::line(format_args!("{name} rests; `cairn consumer resume {name}` lets it go on")),
        Some("resumed") => say::line(format_args!("{name} goes on")),
        _ => {
            let moves = done.get("moves").and_then(Value::as_array).cloned().unwrap_or_default();
            for one in &moves {
                let of = |key: &str| one.get(key).cloned().unwrap_or(Value::Null);
                let topic = of("topic").as_str().map(say::plain).unwrap_or_default();
                let from = of("from").as_u64().map_or_else(|| "nothing".to_owned(), |from| from.to_string());
                say::line(format_args!("{topic}/{}  from {from} to {}", of("partition"), of("to")));
            }
            if moves.is_empty() {
                say::line(format_args!("{name} stands there already"));
            }
        }
    }
    Ok(())
}

async fn list(asking: &Asking) -> anyhow::Result<()> {
    let found = asking.admin.find()?.send("GET", "/consumers", None).await?;
    if asking.json {
        say::line(format_args!("{found}"));
        return Ok(());
    }
    let all = found.get("consumers").and_then(Value::as_array).cloned().unwrap_or_default();
    if all.is_empty() {
        say::line(format_args!("no consumer runs inside this `up`"));
    }
    for one in all {
        let text = |key: &str| one.get(key).and_then(Value::as_str).map(say::plain).unwrap_or_default();
        let number = |key: &str| one.get(key).and_then(Value::as_f64).unwrap_or_default();
        let state = match (one.get("is_paused"), one.get("failing").and_then(Value::as_str)) {
            (Some(Value::Bool(true)), _) => "paused".to_owned(),
            (_, Some(why)) => format!("failing: {}", say::plain(why)),
            _ => "applies".to_owned(),
        };
        say::line(format_args!(
            "{}  group {}  {state}  {} records, {:.1} s behind  p50 {:.1} ms, p99 {:.1} ms  {} dead letters",
            text("consumer"),
            text("group"),
            number("lag_records"),
            number("lag_seconds"),
            number("freshness_p50_ms"),
            number("freshness_p99_ms"),
            number("dead_letters")
        ));
    }
    Ok(())
}
