//! `cairn adopt`: puts the servers of an MCP client's own configuration behind Cairn, and takes it back.
//!
//! Shows the difference first and asks; keeps a copy; changes single values of the text and leaves every other byte;
//! is idempotent. `--undo` restores the file byte for byte. Must never show or log a secret of the file.

mod copies;
mod rewrite;
mod shown;

use std::{
    io::{BufRead, IsTerminal, Write},
    path::PathBuf,
};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use crate::{folder, say};
use rewrite::{State, Wrapper, rewrite};

pub(crate) use rewrite::tables;

/// What `adopt` is told.
#[derive(Args, Debug)]
pub(crate) struct AdoptArguments {
    /// The client's configuration: claude_desktop_config.json, .mcp.json, .vscode/mcp.json, .cursor/mcp.json, …
    file: PathBuf,
    /// The data folder that the wrapped servers use.
    #[arg(long, env = "CAIRN_DATA")]
    data: Option<PathBuf>,
    /// Do it without asking.
    #[arg(long, short = 'y')]
    yes: bool,
    /// A server that stays as it is; may be given several times.
    #[arg(long, value_name = "NAME")]
    except: Vec<String>,
    /// Put the file back as it was before.
    #[arg(long, conflicts_with_all = ["yes", "except"])]
    undo: bool,
    /// With --undo: also where the file was changed since; what it replaces is kept beside it.
    #[arg(long, requires = "undo")]
    force: bool,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

/// Shows, asks, writes; or undoes.
pub(crate) fn run(arguments: &AdoptArguments) -> anyhow::Result<()> {
    // The file itself, where the name is a link to it.
    let file = arguments.file.canonicalize();
    let file = file.with_context(|| format!("cannot find {}", arguments.file.display()))?;
    if arguments.undo {
        let replaced = copies::undo(&file, arguments.force)?;
        if arguments.json {
            say::line(format_args!("{}", json!({ "file": file, "restored": true, "replaced": replaced })));
            return Ok(());
        }
        say::line(format_args!("{} is as it was before", file.display()));
        if let Some(replaced) = replaced {
            say::line(format_args!("what stood there is kept as {}", replaced.display()));
        }
        return Ok(());
    }
    let before = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let text = std::str::from_utf8(&before).with_context(|| format!("{} is not UTF-8", file.display()))?;
    let rewritten = rewrite(text, &wrapper(arguments)?).with_context(|| format!("{}", file.display()))?;
    let adopted = rewritten.servers.iter().filter(|(_, state)| *state == State::Adopted).count();
    let mut copy = None;
    if adopted > 0 {
        if !arguments.json {
            let difference = shown::difference(&arguments.file.display().to_string(), text, &rewritten.text)?;
            say::line(format_args!("{difference}"));
        }
        if arguments.yes || (!arguments.json && confirmed(adopted)?) {
            copy = Some(copies::replace(&file, &before, rewritten.text.as_bytes())?);
        }
    }
    report(arguments, &rewritten.servers, adopted, copy);
    Ok(())
}

fn wrapper(arguments: &AdoptArguments) -> anyhow::Result<Wrapper> {
    let data = arguments.data.clone().map_or_else(folder::default_path, Ok)?;
    let text = |path: PathBuf| {
        let shown = path.display().to_string();
        path.into_os_string()
            .into_string()
            .map_err(|_| anyhow::anyhow!("the path {shown} is not UTF-8, as JSON must be"))
    };
    Ok(Wrapper {
        program: text(std::env::current_exe().context("cannot find this program's own path")?)?,
        data: text(std::path::absolute(data)?)?,
        except: arguments.except.clone(),
    })
}

/// Asks a person; where none is there, nothing is done.
fn confirmed(adopted: usize) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        return Ok(false);
    }
    print!("Put {adopted} server{} behind Cairn? [y/N] ", if adopted == 1 { "" } else { "s" });
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(true),
        "" | "n" | "no" => Ok(false),
        other => bail!("{other:?} is neither yes nor no: nothing was changed"),
    }
}

fn report(arguments: &AdoptArguments, servers: &[(String, State)], adopted: usize, copy: Option<PathBuf>) {
    let words = |state: &State| match (state, &copy) {
        (State::Adopted, Some(_)) => "goes through Cairn now".to_owned(),
        (State::Adopted, None) => "would go through Cairn".to_owned(),
        (State::Already, _) => "goes through Cairn already".to_owned(),
        (State::Left(why), _) => format!("stays as it is: {why}"),
    };
    if arguments.json {
        let servers = servers.iter().map(|(name, state)| json!({ "name": name, "state": words(state) }));
        let servers = servers.collect::<Vec<_>>();
        let value = json!({ "file": arguments.file, "written": copy.is_some(), "copy": copy, "servers": servers });
        return say::line(format_args!("{value}"));
    }
    for (name, state) in servers {
        say::line(format_args!("{name}: {}", words(state)));
    }
    let file = arguments.file.display();
    match copy {
        Some(copy) => say::line(format_args!(
            "written; the file as it was is {}\nrestart the client; `cairn adopt {file} --undo` puts it back, `cairn trail` shows what its agents do",
            copy.display()
        )),
        None if adopted > 0 => say::line(format_args!("nothing was written: `cairn adopt {file} --yes` does it")),
        None => say::line(format_args!("nothing to do")),
    }
}
