//! Running other programs, bounded in time, leaving none behind.
//!
//! Who calls it: every recipe. It guarantees that a program past its limit is killed with its whole process group,
//! and that only groups that were started here are ever signalled.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Lines that may wait between a program and its reader; past it the program waits.
const LINES_WAITING_MAX: usize = 1024;

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) success: bool,
    pub(crate) how: String,
    pub(crate) output: String,
}

impl Ended {
    /// An error with the end of the output, unless it ended well.
    pub(crate) fn ok(self) -> anyhow::Result<String> {
        if self.success {
            return Ok(self.output);
        }
        let lines: Vec<_> = self.output.lines().collect();
        bail!("{}\n{}", self.how, lines[lines.len().saturating_sub(25)..].join("\n"))
    }
}

/// A program that runs in a process group of its own, and is killed with it when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    pub(crate) lines: Receiver<String>,
}

impl Running {
    /// Starts it; each line of its standard output and error comes through `lines`.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let (sender, lines) = sync_channel(LINES_WAITING_MAX);
        let pipes: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        ];
        for pipe in pipes.into_iter().flatten() {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    // Nobody listens any more: go on reading, so that the program does not wait for us.
                    let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
                }
            });
        }
        Ok(Self { child, lines })
    }

    /// Starts it with everything that it says going to a file; `lines` stays empty.
    pub(crate) fn start_into(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let file = File::options().create(true).append(true).open(log).context("open the log")?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        Ok(Self { child, lines: sync_channel(0).1 })
    }

    /// Waits for a line that `wanted` accepts and gives what it made of it.
    pub(crate) fn wait_for<T>(&mut self, limit: Duration, wanted: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let deadline = Instant::now() + limit;
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => match wanted(&line) {
                    Some(found) => return Ok(found),
                    None => seen.push(line),
                },
                Err(RecvTimeoutError::Timeout) => bail!("nothing within {limit:?}; it said:\n{}", seen.join("\n")),
                Err(RecvTimeoutError::Disconnected) => bail!("it ended; it said:\n{}", seen.join("\n")),
            }
        }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))
    }

    /// The code that it ended with, once it has; none where a signal ended it.
    pub(crate) fn code(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().ok().flatten().map(|status| status.code())
    }

    /// Sends a signal to the whole group (`TERM`, `KILL`).
    pub(crate) fn signal(&self, name: &str) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-s", name, "--", &group]).stderr(Stdio::null()).status();
    }

    /// Kills the group and waits until the program is gone.
    pub(crate) fn kill(&mut self) {
        self.signal("KILL");
        let _ = self.child.wait();
    }

    /// Asks it to end, and kills it if it has not within `limit`. Says whether it ended by itself, and well.
    pub(crate) fn end(&mut self, limit: Duration) -> bool {
        let _ = Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status();
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            while self.lines.try_recv().is_ok() {}
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.kill();
        false
    }

    /// Follows it to its end: each line goes to `on_line`.
    pub(crate) fn follow(mut self, limit: Duration, mut on_line: impl FnMut(&str)) -> anyhow::Result<Ended> {
        let deadline = Instant::now() + limit;
        let mut output = String::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    on_line(&line);
                    output.push_str(&line);
                    output.push('\n');
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.kill();
                    return Ok(Ended { success: false, how: format!("took longer than {limit:?}"), output });
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.child.wait()?;
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with code {code}"),
            (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
        };
        Ok(Ended { success: status.success(), how, output })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended() {
            self.kill();
        }
    }
}

/// How much what gives way does.
const NICE: &str = "10";

/// Lets what this thread does and starts from now on give way to others. Where that cannot be had it does not.
pub(crate) fn give_way() {
    // Linux keeps it for each thread, and what a thread starts inherits it.
    let Ok(thread) = std::fs::read_link("/proc/thread-self") else { return };
    let Some(id) = thread.file_name() else { return };
    let _ =
        Command::new("renice").args(["-n", NICE, "-p"]).arg(id).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// Runs a program to its end without a word, unless it fails.
pub(crate) fn quiet(command: &mut Command, limit: Duration) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    Running::start(command)?.follow(limit, |_| ())?.ok().with_context(|| format!("run {shown}"))
}

/// Runs a program to its end and shows what it says.
pub(crate) fn shown(command: &mut Command, limit: Duration) -> anyhow::Result<Ended> {
    Running::start(command)?.follow(limit, |line| println!("{line}"))
}

/// The first line that a program prints, if it can be run.
pub(crate) fn version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    output.status.success().then(|| String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{NICE, give_way, quiet};

    #[test]
    fn what_gives_way_starts_what_gives_way_and_nobody_else_does() {
        let nice = || quiet(&mut Command::new("nice"), std::time::Duration::from_secs(60)).expect("nice says it");
        let before = nice();
        let number = |text: &str| text.trim().parse::<i32>().expect("a number");
        let wanted = number(NICE).max(number(&before));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                give_way();
                assert_eq!(number(&nice()), wanted);
            });
        });
        assert_eq!(nice(), before);
    }
}
