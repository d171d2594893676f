//! `cairn play`: a workflow's recorded answers as an MCP server, so that an agent can be tested without touching anything
//! real. `cairn compare` (`compare.rs`) stands beside it and reads its recordings here.
//!
//! The recording comes from a running `up`, which alone may open the vault (`opening.rs`), or from a file. On standard
//! output nothing is said but MCP: what there is to say goes to standard error.

mod http;
mod opening;

use std::{
    collections::HashMap,
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use cairn_mcp::Limits;
use cairn_replay::{FILE_BYTES_MAX, Gone, How, Mode, Played, Player, Recording, Stage};
use clap::{ArgGroup, Args};
use serde_json::{Value, json};

pub(crate) use opening::Opened;

use crate::{ask, ending::Ending, piped, say};

/// Calls that are named at the start as not to be played; all are counted.
const NAMED_MAX: usize = 20;

/// What `cairn play` is told.
#[derive(Args)]
#[command(group = ArgGroup::new("what").required(true).args(["workflow", "recording"]))]
pub(crate) struct PlayArguments {
    /// The workflow, from the trail and the vault of a running `up`.
    #[arg(long, value_name = "ID")]
    workflow: Option<String>,
    /// A file that --export wrote; no `up` is needed.
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// The tenant, where several have a workflow of that name.
    #[arg(long, requires = "workflow")]
    tenant: Option<String>,
    /// Why the payloads are read, for the trail.
    #[arg(long, requires = "workflow")]
    reason: Option<String>,
    /// Write the recording into this file, and end. It holds payloads in the clear.
    #[arg(long, value_name = "FILE", requires = "workflow", conflicts_with_all = ["http", "server", "lenient"])]
    export: Option<PathBuf>,
    /// Serve HTTP at this loopback address, each server at /mcp/<server>; standard input and output where absent.
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<SocketAddr>,
    /// Which server to play on standard input and output, where the workflow called several.
    #[arg(long, conflicts_with = "http")]
    server: Option<String>,
    /// Answer with the nearest call of the same tool instead of refusing other arguments and another order.
    #[arg(long)]
    lenient: bool,
    /// What came of it as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: ask::AdminArguments,
}

/// `cairn play`
pub(crate) async fn run(arguments: PlayArguments) -> anyhow::Result<()> {
    let recording = match (&arguments.recording, &arguments.workflow) {
        (Some(path), _) => read(path)?,
        (None, Some(id)) => {
            fetch(&arguments.admin, id, arguments.tenant.as_deref(), arguments.reason.as_deref()).await?
        }
        (None, None) => bail!("say what to play: --workflow ID or --recording FILE"),
    };
    if let Some(path) = &arguments.export {
        return export(&recording, path);
    }
    let mode = if arguments.lenient { Mode::Lenient } else { Mode::Strict };
    let player = Player::new(recording, mode);
    say_what_is_played(&player, mode);
    match arguments.http {
        Some(address) => {
            if !address.ip().is_loopback() {
                bail!(
                    "a recording holds payloads and nobody proves who they are: listen on 127.0.0.1, not on {address}"
                );
            }
            http::serve(address, stages(&player)).await?;
        }
        None => {
            let server = chosen(&player, arguments.server.as_deref())?;
            piped::serve(Arc::new(Stage::new(server, player.clone(), Limits::default()))).await?;
        }
    }
    let played = player.played();
    let words = if arguments.json { json!(played).to_string() } else { shown(&played) };
    // Whoever read the messages may have gone by now; what came of it is for whoever started the play.
    eprintln!("{words}");
    if played.is_whole() {
        return Ok(());
    }
    let words = format!("workflow {} was not played as recorded", say::plain(&played.workflow_id));
    Err(Ending::Differs(words).into())
}

fn stages(player: &Player) -> HashMap<String, Arc<Stage>> {
    let names = player.recording().servers.keys();
    names.map(|name| (name.clone(), Arc::new(Stage::new(name, player.clone(), Limits::default())))).collect()
}

/// The server that is played where there is one place for it.
fn chosen(player: &Player, wanted: Option<&str>) -> anyhow::Result<String> {
    let names: Vec<&String> = player.recording().servers.keys().collect();
    let all = names.iter().map(|name| say::plain(name)).collect::<Vec<_>>().join(", ");
    match (wanted, names.as_slice()) {
        (Some(wanted), _) if names.iter().any(|name| *name == wanted) => Ok(wanted.to_owned()),
        (Some(wanted), _) => {
            Err(Ending::NoSuch(format!("the workflow called no server {wanted}: it called {all}")).into())
        }
        (None, [one]) => Ok((*one).clone()),
        (None, []) => Err(Ending::NoSuch("the workflow called no server".to_owned()).into()),
        (None, _) => {
            bail!("the workflow called several servers: choose one with --server ({all}), or play all with --http")
        }
    }
}

fn say_what_is_played(player: &Player, mode: Mode) {
    let recording = player.recording();
    let servers = recording.servers.keys().map(|name| say::plain(name)).collect::<Vec<_>>().join(", ");
    let how = if mode == Mode::Strict { "strictly" } else { "leniently" };
    let (workflow, calls) = (say::plain(&recording.workflow_id), recording.calls.len());
    eprintln!("cairn: plays {calls} calls of workflow {workflow} {how}; servers: {servers}");
    let not_playable = player.not_playable();
    for one in not_playable.iter().take(NAMED_MAX) {
        eprintln!("cairn: cannot play {}: {}", say::plain(&one.call), say::plain(&one.why));
    }
    if not_playable.len() > NAMED_MAX {
        eprintln!("cairn: and {} more cannot be played", not_playable.len() - NAMED_MAX);
    }
    let is_masked = |call: &&cairn_replay::RecordedCall| {
        call.outcome.as_ref().and_then(|ended| ended.result.as_ref()).is_some_and(cairn_replay::Payload::is_masked)
    };
    let masked = recording.calls.iter().filter(is_masked).count();
    if masked > 0 {
        eprintln!("cairn: {masked} answers hold [masked:…] where the server said something else");
    }
}

/// What came of it, for people.
fn shown(played: &Played) -> String {
    let Played { recorded, asked, as_recorded, differed, not_playable, never_asked, .. } = played;
    let mut out = format!(
        "{asked} calls asked, {recorded} recorded: {as_recorded} played as recorded, {differed} differed, {not_playable} could not be played, {never_asked} never asked for"
    );
    for one in &played.calls {
        let how = match one.how {
            How::AsRecorded => "as recorded",
            How::Differed => "not as recorded",
            How::NotPlayable => "not to be played",
        };
        let place = one.recorded.as_ref().map(|place| format!(" ({place})")).unwrap_or_default();
        out.push_str(&format!("\nasked: {}: {how}{}", say::plain(&one.asked), say::plain(&place)));
    }
    if (played.calls.len() as u64) < *asked {
        out.push_str(&format!("\nand {} more", asked - played.calls.len() as u64));
    }
    for one in &played.differences {
        out.push_str(&format!("\ndiffered: {}: {}", say::plain(&one.asked), say::plain(&one.words)));
    }
    let listed = played.differences.len() as u64;
    if listed < differed + not_playable {
        out.push_str(&format!("\nand {} more", differed + not_playable - listed));
    }
    for one in &played.unasked {
        out.push_str(&format!("\nnever asked for: {}", say::plain(one)));
    }
    if (played.unasked.len() as u64) < *never_asked {
        out.push_str(&format!("\nand {} more", never_asked - played.unasked.len() as u64));
    }
    out
}

/// A recording's file.
pub(crate) fn read(path: &Path) -> anyhow::Result<Recording> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        bail!("{} is longer than a recording may be ({FILE_BYTES_MAX} bytes)", path.display());
    }
    Recording::from_file(&bytes).with_context(|| format!("{}", path.display()))
}

/// Writes a recording where nothing is yet, for its owner alone: it holds what agents and servers said.
fn export(recording: &Recording, path: &Path) -> anyhow::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let bytes = recording.to_file();
    if bytes.len() as u64 > FILE_BYTES_MAX {
        bail!("the recording is longer than can be read again ({FILE_BYTES_MAX} bytes)");
    }
    let file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path);
    let mut file =
        file.with_context(|| format!("cannot make {}: name a file that is not there yet", path.display()))?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))?;
    let gone = Player::new(recording.clone(), Mode::Strict).not_playable().len();
    let lacks = if gone == 0 { String::new() } else { format!("; {gone} of them cannot be played") };
    let (calls, workflow) = (recording.calls.len(), say::plain(&recording.workflow_id));
    say::line(format_args!("{}: {calls} calls of workflow {workflow}{lacks}", path.display()));
    Ok(())
}

/// A workflow with its payloads, from the running `up`.
pub(crate) async fn fetch(
    admin: &ask::AdminArguments,
    workflow: &str,
    tenant: Option<&str>,
    reason: Option<&str>,
) -> anyhow::Result<Recording> {
    let operator = std::env::var("USER").unwrap_or_else(|_| "operator".to_owned());
    let body = json!({ "workflow_id": workflow, "tenant": tenant, "operator": operator, "reason": reason });
    let (mut recording, mut payloads, mut fault, mut is_whole) = (None, HashMap::new(), None, false);
    let heard = |line: &[u8]| {
        let Ok(Value::Object(mut said)) = serde_json::from_slice::<Value>(line) else { return };
        is_whole |= said.contains_key("end");
        if let Some(error) = said.get("error").and_then(Value::as_str) {
            fault = Some(error.to_owned());
        }
        if let Some(found) = said.shift_remove("recording") {
            recording = Some(serde_json::from_value::<Recording>(found));
        }
        if let Some(Value::Object(mut payload)) = said.shift_remove("payload") {
            let text = payload.shift_remove("text").and_then(|text| match text {
                Value::String(text) => Some(text),
                _ => None,
            });
            let gone = || payload.get("gone").and_then(|gone| serde_json::from_value::<Gone>(gone.clone()).ok());
            let read = text.ok_or_else(|| gone().unwrap_or(Gone::Missing));
            payloads.insert(payload["digest"].as_str().unwrap_or_default().to_owned(), read);
        }
    };
    admin.find()?.lines("/recording", body, heard).await?;
    if let Some(fault) = fault {
        if fault.starts_with("no event of workflow") {
            return Err(Ending::NoSuch(fault).into());
        }
        bail!("{fault}");
    }
    let recording = recording.filter(|_| is_whole);
    let mut recording = recording.context("the answer ended before it was whole: is `cairn up` still there?")??;
    recording.fill(|digest| payloads.get(digest).cloned());
    Ok(recording)
}
