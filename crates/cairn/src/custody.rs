//! `cairn erase`, `cairn hold`, `cairn vault`: what operators do with payloads, through the admin address of a running `up`.

use std::io::Write;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::{ask::Asking, say};

/// Whose payloads.
#[derive(Args, Clone, Debug)]
pub(crate) struct Whose {
    /// The principal, as it stands in events.
    #[arg(long)]
    subject: String,
    /// Its tenant, where tenants are separate.
    #[arg(long)]
    tenant: Option<String>,
    /// Why, for the record.
    #[arg(long)]
    reason: Option<String>,
}

/// What `cairn erase` is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct EraseArguments {
    #[command(flatten)]
    whose: Whose,
    /// Do it: it cannot be undone.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    asking: Asking,
}

/// `cairn hold`
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum HoldCommand {
    /// Puts a subject under legal hold: it cannot be erased.
    #[command(after_help = "Example: cairn hold add --subject ann --reason \"case 12\"")]
    Add {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        asking: Asking,
    },
    /// Ends every hold of a subject.
    #[command(after_help = "Example: cairn hold remove --subject ann")]
    Remove {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        asking: Asking,
    },
    /// Lists the subjects under hold.
    #[command(after_help = "Example: cairn hold list")]
    List {
        #[command(flatten)]
        asking: Asking,
    },
}

/// `cairn vault`
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum VaultCommand {
    /// Reads a payload back, by the digest in an event. That it was read is recorded first.
    #[command(after_help = "Example: cairn vault read hmac-sha256:s-0123456789abcdef:3a3a… --reason \"ticket 7\"")]
    Read {
        /// The digest.
        digest: String,
        /// Why, for the record.
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        asking: Asking,
    },
    /// Takes another master key, and encrypts every subject's keys under it. No object is touched.
    #[command(after_help = "Example: cairn vault rotate")]
    Rotate {
        #[command(flatten)]
        asking: Asking,
    },
}

fn operator() -> String {
    std::env::var("USER").unwrap_or_else(|_| "operator".to_owned())
}

impl Asking {
    async fn post(&self, path: &str, body: Value) -> anyhow::Result<Vec<u8>> {
        self.admin.find()?.send_bytes("POST", path, Some(body)).await
    }

    fn show(&self, answer: &[u8], words: impl FnOnce(&Value) -> String) {
        let value: Value = serde_json::from_slice(answer).unwrap_or_default();
        if self.json {
            say::line(format_args!("{value}"));
        } else {
            say::line(format_args!("{}", say::plain(&words(&value))));
        }
    }
}

impl Whose {
    fn body(&self) -> Value {
        json!({ "subject": self.subject, "tenant": self.tenant, "operator": operator(), "reason": self.reason })
    }
}

/// `cairn erase`
pub(crate) async fn erase(arguments: EraseArguments) -> anyhow::Result<()> {
    let EraseArguments { whose, yes, asking } = arguments;
    if !yes {
        bail!("this destroys the keys and payloads of {:?} for ever: say --yes to do it", whose.subject);
    }
    let answer = asking.post("/vault/erase", whose.body()).await?;
    asking.show(&answer, |said| {
        let keys = said.get("key_ids").and_then(Value::as_array).map_or(0, Vec::len);
        let objects = said.get("objects").and_then(Value::as_u64).unwrap_or_default();
        format!(
            "erased {}: {keys} keys and {objects} objects are destroyed; the trail keeps their digests",
            whose.subject
        )
    });
    Ok(())
}

/// `cairn hold`
pub(crate) async fn hold(what: HoldCommand) -> anyhow::Result<()> {
    match what {
        HoldCommand::Add { whose, asking } => {
            if whose.reason.is_none() {
                bail!("a hold needs its reason: --reason \"case 12\"");
            }
            let answer = asking.post("/vault/hold", whose.body()).await?;
            asking.show(&answer, |_| format!("{} is under hold", whose.subject));
        }
        HoldCommand::Remove { whose, asking } => {
            let answer = asking.post("/vault/release", whose.body()).await?;
            asking.show(&answer, |_| format!("{} is under hold no more", whose.subject));
        }
        HoldCommand::List { asking } => {
            let answer = asking.admin.find()?.send_bytes("GET", "/vault/holds", None).await?;
            asking.show(&answer, |said| {
                let held = said.get("held").and_then(Value::as_array).cloned().unwrap_or_default();
                let line = |held: &Value| {
                    let name = held.pointer("/subject/name").and_then(Value::as_str).unwrap_or_default();
                    let reason = held.pointer("/holds/0/reason").and_then(Value::as_str).unwrap_or_default();
                    let since = held.pointer("/holds/0/since").and_then(Value::as_str).unwrap_or_default();
                    format!("{name} since {since}: {reason}")
                };
                let lines: Vec<String> = held.iter().map(line).collect();
                if lines.is_empty() { "nobody is under hold".to_owned() } else { lines.join("; ") }
            });
        }
    }
    Ok(())
}

/// `cairn vault`
pub(crate) async fn vault(what: VaultCommand) -> anyhow::Result<()> {
    match what {
        VaultCommand::Read { digest, reason, asking } => {
            let body = json!({ "digest": digest, "operator": operator(), "reason": reason });
            let payload = asking.post("/vault/read", body).await?;
            let mut out = std::io::stdout().lock();
            out.write_all(&payload)?;
            out.flush()?;
        }
        VaultCommand::Rotate { asking } => {
            let answer = asking.post("/vault/rotate", json!({})).await?;
            asking.show(&answer, |said| {
                let subjects = said.get("subjects").and_then(Value::as_u64).unwrap_or_default();
                format!("the keys of {subjects} subjects are encrypted under another master key")
            });
        }
    }
    Ok(())
}
