//! Clients over standard input and output: a real `cairn wrap`, as a client's configuration would start it.
//!
//! Called by the agents. The wrap joins the `up` of the site and is ended with its agent. Behind it stands either the
//! upstream over HTTP, or the sample server as a child of `up`, whose journal survives it.

use std::{path::Path, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

/// What a wrap stands before.
#[derive(Clone, Debug)]
pub(crate) enum Behind {
    /// The upstream that lives in the test.
    Url(String),
    /// The sample server with this journal.
    Sample(std::path::PathBuf),
}

/// A running `cairn wrap`.
pub(crate) struct Pipe {
    _child: Child,
    into: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Pipe {
    pub(crate) fn start(data: &Path, behind: &Behind) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
        command.arg("wrap").arg("--data").arg(data);
        match behind {
            Behind::Url(url) => command.args(["--name", "up", "--url", url]),
            Behind::Sample(journal) => command
                .args(["--name", "sample", "--", env!("CARGO_BIN_EXE_cairn"), "sample-server", "--journal"])
                .arg(journal),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().expect("cairn wrap starts");
        let into = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { _child: child, into, lines }
    }

    /// Writes a message; for a request waits for its answer. `None` where none comes any more.
    pub(crate) async fn send(&mut self, message: &Value) -> Option<Value> {
        self.into.write_all(format!("{message}\n").as_bytes()).await.ok()?;
        self.into.flush().await.ok()?;
        let Some(id) = message.get("id") else { return Some(Value::Null) };
        loop {
            let line = self.lines.next_line().await.ok()??;
            let answer: Value = serde_json::from_str(&line).expect("standard output carries MCP only");
            if answer.get("id") == Some(id) && answer.get("method").is_none() {
                return Some(answer);
            }
        }
    }
}
