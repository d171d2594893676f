//! `cairn login`: a person logs in to a server on Cairn's behalf. Asks the running `up` over its admin address, with the
//! operator's token: whoever logs in lends an account to every agent that policy lets call this server, so the URL is shown
//! to operators alone.

use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use tokio::time::Instant;

use crate::{ask::Admin, say};

/// How often the running `up` is asked whether the person is through.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// Begins a login, prints where, and waits for its end.
pub(crate) async fn run(admin: &Admin, server: &str, waits: bool, json: bool) -> anyhow::Result<()> {
    if server.is_empty() || !server.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        bail!("{server:?} is no server's name: `cairn login` without a name lists them");
    }
    let begun = admin.send("POST", &format!("/credentials/{server}/login"), None).await?;
    let text = |key: &str| begun.get(key).and_then(Value::as_str).unwrap_or_default();
    if json {
        say::line(format_args!("{begun}"));
    } else {
        say::line(format_args!(
            "log in to {server} here, in a browser on this machine:\n\n  {}\n",
            say::plain(text("url"))
        ));
    }
    if !waits {
        return Ok(());
    }
    let within = Duration::from_millis(begun.get("within_ms").and_then(Value::as_u64).unwrap_or(0));
    let id = text("id").to_owned();
    let began = Instant::now();
    while began.elapsed() < within {
        tokio::time::sleep(ASK_EVERY).await;
        let said = admin.send("GET", &format!("/credentials/{server}/login/{id}"), None).await?;
        let word = |key: &str| said.get(key).and_then(Value::as_str).unwrap_or_default();
        match word("state") {
            "open" => {}
            "done" if json => {
                say::line(format_args!("{said}"));
                return Ok(());
            }
            "done" => {
                say::line(format_args!("logged in to {server}"));
                return Ok(());
            }
            "failed" => bail!("the login failed: {}", say::plain(word("error"))),
            _ => break,
        }
    }
    bail!("nobody came back from the login in time: run `cairn login {server}` again")
}

/// How Cairn stands with the servers that it proves itself to.
pub(crate) async fn list(admin: &Admin, json: bool) -> anyhow::Result<()> {
    let value = admin.send("GET", "/credentials", None).await?;
    if json {
        say::line(format_args!("{value}"));
        return Ok(());
    }
    let all = value.get("credentials").and_then(Value::as_array).cloned().unwrap_or_default();
    if all.is_empty() {
        say::line(format_args!("no server has [servers.NAME.auth]"));
    }
    for one in all {
        let word = |key: &str| say::plain(one.get(key).and_then(Value::as_str).unwrap_or_default());
        let error = word("error");
        let why = if error.is_empty() { String::new() } else { format!(": {error}") };
        say::line(format_args!("{} {}{why}", word("server"), word("state")));
    }
    Ok(())
}
