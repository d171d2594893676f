//! The wrap's own process: between the client's pipe and `up`, bytes both ways, and an exit code.
//!
//! It parses nothing. Where no `up` can be had, or `up` refuses, each request of the client gets an error that says why.

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, bail};
use cairn_gateway::{Refusal, refuse_pipe};
use tokio::io::AsyncWriteExt;

use super::{
    Hello, VERSION,
    join::{Joined, join},
};
use crate::{WrapArguments, client_file::plain_name, folder};

/// Variables that bring a header each, as `name: value`: unlike arguments they are not shown to every user.
const HEADER_VARIABLE: &str = "CAIRN_WRAP_HEADER_";
/// The variable that brings a URL with a secret in it.
const URL_VARIABLE: &str = "CAIRN_WRAP_URL";
/// Programs that run others: the server's name is then in their arguments.
const RUNNERS: [&str; 12] =
    ["npx", "uvx", "bunx", "bun", "node", "python", "python3", "uv", "pnpm", "deno", "pipx", "docker"];
/// What such a program may be told before the server's name.
const RUNNERS_WORDS: [&str; 6] = ["run", "exec", "dlx", "tool", "x", "start"];

/// Runs one wrap until its client or its `up` ends.
pub(crate) async fn run(arguments: WrapArguments) -> anyhow::Result<()> {
    match joined(arguments).await {
        Ok(joined) => relay(joined).await,
        Err(error) => {
            eprintln!("cairn wrap: {error:#}");
            if !std::io::stdin().is_terminal() {
                let refusal = Refusal::Unavailable { reason: format!("{error:#}") };
                refuse_pipe(tokio::io::stdin(), tokio::io::stdout(), &refusal).await;
            }
            std::process::exit(1)
        }
    }
}

async fn joined(arguments: WrapArguments) -> anyhow::Result<Joined> {
    let data = match arguments.data.clone() {
        Some(data) => data,
        None => folder::default_path()?,
    };
    let data = folder::made(&data)?;
    join(&data, &hello(arguments)?).await
}

async fn relay(joined: Joined) -> anyhow::Result<()> {
    let Joined { mut from_up, mut to_up } = joined;
    let client_ended = Arc::new(AtomicBool::new(false));
    tokio::spawn({
        let client_ended = client_ended.clone();
        async move {
            let _ = tokio::io::copy(&mut tokio::io::stdin(), &mut to_up).await;
            // Said before the other end can know: it ends the connection in return.
            client_ended.store(true, Ordering::Release);
            let _ = to_up.shutdown().await;
        }
    });
    let mut stdout = tokio::io::stdout();
    let copied = tokio::io::copy(&mut from_up, &mut stdout).await;
    let _ = stdout.flush().await;
    // Reading standard input blocks a thread that cannot be stopped; the exit ends it.
    match (copied, client_ended.load(Ordering::Acquire)) {
        (Ok(_), true) => std::process::exit(0),
        (Err(error), _) => eprintln!("cairn wrap: the connection to cairn up or to the client broke: {error}"),
        (Ok(_), false) => {
            eprintln!("cairn wrap: cairn up has ended, and the server with it: start the client's server again")
        }
    }
    std::process::exit(1)
}

fn hello(arguments: WrapArguments) -> anyhow::Result<Hello> {
    let url = arguments.url.clone().or_else(|| std::env::var(URL_VARIABLE).ok());
    if arguments.command.is_empty() && url.is_none() {
        bail!("name a server: cairn wrap -- COMMAND ARGS…, or cairn wrap --url URL");
    }
    let mut headers = BTreeMap::new();
    let env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let from_env = env.iter().filter(|(key, _)| key.starts_with(HEADER_VARIABLE)).map(|(_, value)| value);
    for header in arguments.header.iter().chain(from_env) {
        let (name, value) = header.split_once(':').context("a header is written as name: value")?;
        headers.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    let name = arguments.name.clone().unwrap_or_else(|| name_of(&arguments.command));
    Ok(Hello {
        version: VERSION.to_owned(),
        name: plain_name(&name),
        command: arguments.command,
        url,
        sse: arguments.sse,
        headers,
        env: env.into_iter().filter(|(key, _)| !key.starts_with("CAIRN_")).collect(),
        cwd: std::env::current_dir().context("the working directory is gone")?,
        client: client(),
    })
}

/// A server's name from its command line: the program's, or what a program that runs others is told to run.
fn name_of(command: &[String]) -> String {
    let base =
        |word: &str| Path::new(word).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let program = command.first().map(|word| base(word)).unwrap_or_default();
    if !RUNNERS.contains(&program.as_str()) {
        return program;
    }
    let run = command.iter().skip(1).find(|word| !word.starts_with('-') && !RUNNERS_WORDS.contains(&word.as_str()));
    let Some(run) = run else { return program };
    let name = base(run);
    let name = name.split('@').find(|part| !part.is_empty()).unwrap_or(&name).to_owned();
    let stem = name.strip_suffix(".mjs").or_else(|| name.strip_suffix(".js")).or_else(|| name.strip_suffix(".py"));
    stem.unwrap_or(&name).to_owned()
}

/// The parent process and its start time, by which wraps of one client know each other.
fn client() -> String {
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let stat = std::fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
    // Field 22 is the start time; the name in field 2 may hold anything, so count behind its last bracket.
    let started = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)).unwrap_or("0");
    format!("{parent}-{started}")
}

#[cfg(test)]
mod tests {
    use super::name_of;

    #[test]
    fn a_server_is_named_after_what_is_run() {
        let name = |line: &str| name_of(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(name("/opt/bin/orders --port 1"), "orders");
        assert_eq!(name("npx -y @modelcontextprotocol/server-memory@1.2.0"), "server-memory");
        assert_eq!(name("uvx mcp-server-git --repository ."), "mcp-server-git");
        assert_eq!(name("node /srv/tools/index.js"), "index");
        assert_eq!(name("uv run server.py"), "server");
        assert_eq!(name("npx"), "npx");
    }
}
