//! `cairn replay`: gives a part of the trail to a consumer once more, so that what came of it is put right.
//!
//! With `--dry-run` it says what would be done again and changes nothing. Otherwise the `up` of the data folder records
//! `replay.started` first and `replay.ended` last; in between this process reads the trail and has the consumer's results replaced,
//! while the consumer goes on.

use anyhow::bail;
use clap::Args;

use crate::{ask, since};

/// What `cairn replay` is told.
#[derive(Args)]
pub(crate) struct ReplayArguments {
    /// From when on: 90s, 10m, 2h or 1d ago, or 2026-11-24T09:00:00Z; the first record that is kept where absent.
    #[arg(long, value_name = "TIME", value_parser = since::millis)]
    from: Option<i64>,
    /// Up to when; as far as the consumer has come where absent.
    #[arg(long, value_name = "TIME", value_parser = since::millis)]
    to: Option<i64>,
    /// Only this topic; may be given more than once.
    #[arg(long)]
    topic: Vec<String>,
    /// The consumer, or its group.
    #[arg(long, default_value = "audit")]
    group: String,
    /// Say what would be done again, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// Records a second at most; as fast as it can where absent.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Why, for the record.
    #[arg(long)]
    reason: Option<String>,
    /// The Kafka address; that of the configuration or of the running `up` where absent.
    #[arg(long)]
    bootstrap: Option<String>,
    /// The configuration whose backbone to read, with its properties.
    #[arg(long)]
    config: Option<std::path::PathBuf>,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: ask::AdminArguments,
}

/// There is nothing to replay into in this build.
#[cfg(not(feature = "audit"))]
pub(crate) async fn run(_: ReplayArguments) -> anyhow::Result<()> {
    bail!("{}", crate::consumers::NO_DATABASE)
}

#[cfg(feature = "audit")]
pub(crate) use work::run;

#[cfg(feature = "audit")]
mod work {
    //! The replay itself.

    use std::{io::IsTerminal, path::PathBuf, time::Duration};

    use anyhow::Context;
    use cairn_clock::{Entropy, Timestamp};
    use cairn_consumers::{Pace, Planned, Replay, ReplayError, Replayed, Sink, plan};
    use cairn_contract::{OffsetRange, ReplayOutcome};
    use cairn_operators::ReplayBody;
    use serde_json::{Value, json};
    use tokio::time::Instant;
    use tokio_util::sync::CancellationToken;

    use super::{ReplayArguments, bail};
    use crate::{
        consumers::{self, ConsumersSection, NAMES, Purpose},
        ending::Ending,
        read::Source,
        say,
        up::Signals,
    };

    /// How often it is said how far a replay has come.
    const SAY_EVERY: Duration = Duration::from_secs(2);

    pub(crate) async fn run(arguments: ReplayArguments) -> anyhow::Result<()> {
        let section = crate::audit::section(&arguments.admin.data()?, arguments.config.as_deref())?;
        let Some(name) = section.named(&arguments.group) else {
            bail!(
                "{:?} is no consumer of Cairn's: {}; another team's group is moved with its own tools, such as kafka-consumer-groups --reset-offsets",
                arguments.group,
                NAMES.join(", ")
            );
        };
        let (group, data) = (section.group(name).to_owned(), arguments.admin.data()?);
        let (asked, at) = (section.clone(), data.clone());
        let looked =
            tokio::task::spawn_blocking(move || consumers::has_applied((name, &asked), &at, &Entropy::system()));
        if !looked.await?? {
            let place = consumers::place((name, &section), &data);
            return Err(
                Ending::NoSuch(format!("there is no {name} database at {place}: nothing was applied yet")).into()
            );
        }
        let config = arguments.config.as_deref();
        let source = Source::find(arguments.bootstrap.clone(), config, Some(data.clone()), arguments.admin.trust())?;
        let into = Results { name, section, data };
        let planned = planned(&source, &into, &arguments).await?;
        show(&planned, &arguments);
        if arguments.dry_run || planned.spans.is_empty() {
            return Ok(());
        }
        // Without a record of it nothing is replaced.
        let admin = arguments.admin.find()?;
        let body = started(&planned, &arguments, &group);
        let answer = admin.send("POST", &format!("/replays/{name}/start"), Some(json!(body))).await?;
        let replay_id = answer.get("replay_id").and_then(Value::as_str).context("the admin address gave no id")?;
        let (begun, stop) = (Instant::now(), CancellationToken::new());
        let pace = Pace { records_a_second_max: arguments.rate };
        let (ended, done) = carried_out(&source, &into, planned, pace, &stop).await?;
        let outcome = match &ended {
            Ok(()) => ReplayOutcome::Completed,
            Err(ReplayError::Stopped) => ReplayOutcome::Stopped,
            Err(_) => ReplayOutcome::Failed,
        };
        let body = ReplayBody {
            replay_id: Some(replay_id.to_owned()),
            group: Some(group),
            outcome: Some(outcome),
            records: done.records,
            replaced: done.replaced,
            changed: done.changed,
            dead_letters: done.dead_letters,
            elapsed_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            error: ended.as_ref().err().map(ToString::to_string),
            operator: operator(),
            ..ReplayBody::default()
        };
        let told = admin.send("POST", &format!("/replays/{name}/end"), Some(json!(body))).await;
        if let Err(error) = &told {
            eprintln!("cairn: the replay is over, and its end could not be recorded: {error:#}");
        }
        if arguments.json {
            say::line(format_args!("{}", json!(body)));
        } else {
            let Replayed { records, replaced, changed, dead_letters } = done;
            say::line(format_args!(
                "{records} records given again: {replaced} results replaced, {changed} of them changed, {dead_letters} dead letters"
            ));
        }
        ended.map_err(Into::into)
    }

    /// The results that are replaced.
    #[derive(Clone)]
    struct Results {
        name: &'static str,
        section: ConsumersSection,
        data: PathBuf,
    }

    impl Results {
        fn open(&self) -> anyhow::Result<Box<dyn Sink>> {
            Ok(consumers::open((self.name, &self.section), &self.data, &Entropy::system(), Purpose::Operate)?.sink)
        }
    }

    async fn planned(source: &Source, into: &Results, arguments: &ReplayArguments) -> anyhow::Result<Planned> {
        let (from_to, topics) = ((arguments.from, arguments.to), arguments.topic.clone());
        let (into, source) = (into.clone(), source.clone());
        let planning = tokio::task::spawn_blocking(move || {
            let stands = into.open()?.positions()?;
            anyhow::Ok(plan(&source.records()?, &stands, from_to, &topics)?)
        });
        planning.await?
    }

    /// The replay on a thread that may block; a signal stops it after the batch that it is at.
    async fn carried_out(
        source: &Source,
        into: &Results,
        planned: Planned,
        pace: Pace,
        stop: &CancellationToken,
    ) -> anyhow::Result<(Result<(), ReplayError>, Replayed)> {
        let signals = Signals::taken()?;
        let (source, into, stopping) = (source.clone(), into.clone(), stop.clone());
        let mut work = tokio::task::spawn_blocking(move || {
            let records = source.records()?;
            let mut sink = into.open()?;
            let (total, is_watched) = (planned.offsets(), std::io::stderr().is_terminal());
            let (mut said, mut last) = (Instant::now(), Replayed::default());
            let mut progress = |offsets: u64, done: Replayed| {
                last = done;
                if is_watched && said.elapsed() >= SAY_EVERY {
                    said = Instant::now();
                    eprintln!("cairn: {offsets} of {total} offsets, {} changed", done.changed);
                }
            };
            let replay = Replay::new(&records, planned.spans, pace, stopping);
            let ended = replay.run(&mut *sink, &mut progress);
            anyhow::Ok((ended.map(drop), last))
        });
        tokio::select! {
            done = &mut work => done?,
            () = signals.wait(stop) => {
                stop.cancel();
                work.await?
            }
        }
    }

    fn operator() -> Option<String> {
        std::env::var("USER").ok()
    }

    fn written(time_ms: Option<i64>) -> Option<String> {
        let micros = |ms: i64| ms.max(0).unsigned_abs().saturating_mul(1_000);
        time_ms.map(|ms| Timestamp::from_micros(micros(ms)).to_string())
    }

    fn started(planned: &Planned, arguments: &ReplayArguments, group: &str) -> ReplayBody {
        ReplayBody {
            group: Some(group.to_owned()),
            from_time: written(arguments.from),
            to_time: written(arguments.to),
            ranges: planned.spans.iter().map(OffsetRange::from).collect(),
            rate_max: arguments.rate,
            reason: arguments.reason.clone(),
            operator: operator(),
            ..ReplayBody::default()
        }
    }

    fn show(planned: &Planned, arguments: &ReplayArguments) {
        if arguments.json {
            if arguments.dry_run {
                let ranges: Vec<OffsetRange> = planned.spans.iter().map(OffsetRange::from).collect();
                let (offsets, ahead) = (planned.offsets(), planned.ahead);
                let shown = json!({ "ranges": ranges, "offsets": offsets, "ahead": ahead, "cut": planned.cut });
                say::line(format_args!("{shown}"));
            }
            return;
        }
        for span in &planned.spans {
            say::line(format_args!("{}/{}  {} to {}", span.place.topic, span.place.partition, span.from, span.to));
        }
        let verb = if arguments.dry_run { "would be given" } else { "are given" };
        say::line(format_args!("{} offsets {verb} again", planned.offsets()));
        if planned.ahead > 0 {
            say::line(format_args!("{} more are still before the consumer: it takes them anyhow", planned.ahead));
        }
        if planned.cut > 0 {
            say::line(format_args!(
                "of {} partitions the first records are not kept any more: what came of those stays as it is",
                planned.cut
            ));
        }
    }
}
