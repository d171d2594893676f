//! `cairn broker check`: prints what a check of the log counted and found.

use std::time::Duration;

use anyhow::Context;
use cairn_broker::Names;
use cairn_log::{CheckOptions, Checked, Finding};
use clap::Args;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Place, no_log};
use crate::{ending::Ending, folder, say};

/// How often a long check says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// What `check` is told.
#[derive(Args, Debug)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    place: Place,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

/// Checks, prints, and fails where something was found.
pub(super) async fn run(arguments: CheckArguments) -> anyhow::Result<()> {
    let (data, options) = arguments.place.find().await?;
    let runs = folder::is_held(&data);
    let options = CheckOptions {
        store: options.store,
        folder: (!runs).then_some(options.folder),
        disk: options.disk,
        at_rest: options.at_rest,
    };
    let mut names = Names::default();
    let mut next = Instant::now() + TELL_EVERY;
    let mut told = |done: u64, of: u64| {
        if Instant::now() >= next {
            eprintln!("cairn: {done} of {of} objects");
            next = Instant::now() + TELL_EVERY;
        }
    };
    let mut judge = |stream, bytes: &[u8]| names.judge(stream, bytes);
    let checked = cairn_log::check(&options, &mut judge, &mut told).await.context("the log cannot be checked")?;
    let is_empty = checked.log.is_none() && checked.objects == 0 && checked.files == 0;
    if is_empty && checked.ok {
        return Err(no_log(&data));
    }
    if arguments.json {
        say::line(format_args!("{}", as_json(&checked, &names)?));
    } else {
        print(&checked, &names, runs);
    }
    match checked.findings.len() as u64 + checked.findings_more {
        0 => Ok(()),
        found => Err(Ending::Differs(format!("the log is not as it was written: {found} findings")).into()),
    }
}

fn as_json(checked: &Checked, names: &Names) -> anyhow::Result<Value> {
    let mut value = serde_json::to_value(checked)?;
    for (shown, finding) in value["findings"].as_array_mut().into_iter().flatten().zip(&checked.findings) {
        if let Some(stream) = finding.stream {
            let topic = names.topic(stream.topic).map_or(Value::Null, Value::from);
            shown["stream"] = json!({ "topic": topic, "topic_id": stream.topic, "partition": stream.partition });
        }
    }
    Ok(value)
}

fn print(checked: &Checked, names: &Names, runs: bool) {
    let Checked { epoch, sequence, index_files, streams, ranges, objects, object_bytes, batches, records, .. } =
        checked;
    if let Some(log) = checked.log {
        say::line(format_args!("log {log}, epoch {epoch}, change {sequence} of its index"));
    }
    say::line(format_args!("index: {index_files} files, {streams} partitions, {ranges} ranges"));
    say::line(format_args!("objects: {objects} with {object_bytes} bytes, {batches} batches, {records} records"));
    if checked.wal_objects + checked.fences > 0 {
        say::line(format_args!(
            "write-ahead log in the store: {} objects with {} bytes, {} fences",
            checked.wal_objects, checked.wal_object_bytes, checked.fences
        ));
    }
    if checked.files_checked {
        say::line(format_args!(
            "write-ahead log: {} files, {} frames; {} batches with {} bytes that the store does not have",
            checked.files, checked.frames, checked.waiting_batches, checked.waiting_bytes
        ));
    } else if runs {
        say::line(format_args!("write-ahead log: not looked at, a process uses the folder: stop it to check that too"));
    }
    if checked.orphans > 0 {
        say::line(format_args!(
            "{} files with {} bytes that the index does not name: left over or on their way; the owner removes them",
            checked.orphans, checked.orphan_bytes
        ));
    }
    for finding in &checked.findings {
        say::line(format_args!("{}", say::plain(&shown(finding, names))));
    }
    if checked.findings_more > 0 {
        say::line(format_args!("… and {} findings more", checked.findings_more));
    }
    if checked.ok {
        say::line(format_args!("all of it is whole"));
    }
}

fn shown(finding: &Finding, names: &Names) -> String {
    let Finding { place, what, todo, stream, from, to, .. } = finding;
    let about = match (stream, from, to) {
        (Some(stream), Some(from), Some(to)) => {
            format!(" ({} offsets {from} to {to})", names.partition(*stream))
        }
        _ => String::new(),
    };
    format!("DAMAGE {place}{about}: {what}; {todo}")
}
