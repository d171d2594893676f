//! `cairn policy`: looks at policies without a running Cairn, and says why a call was decided as it was.
//!
//! Reads policy files and cases, or the trail; changes nothing. What a command says of a question is what the gateway would
//! decide, because the same store decides.

mod cases;
mod shown;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use cairn_contract::Body;
use cairn_policy::{PolicyStore, Question, SCHEMA};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::{Reading, ask, ending::Ending, read, say};

/// What `policy` is told to do.
#[derive(Subcommand)]
pub(crate) enum PolicyCommand {
    /// Reads a folder of policies as `cairn up` would, and says what is wrong.
    #[command(after_help = "Example: cairn policy check policies")]
    Check {
        /// The folder with *.cedar, entities.json and actions.json.
        folder: PathBuf,
        /// JSON for machines.
        #[arg(long)]
        json: bool,
    },
    /// Prints the schema that policies are held to.
    #[command(after_help = "Example: cairn policy schema")]
    Schema,
    /// Runs cases from files: what is asked, and what must be decided.
    #[command(
        after_help = "Example: cairn policy test --policies policies refunds.toml\nExit code 1 where a case fails"
    )]
    Test {
        /// The folder with the policies.
        #[arg(long)]
        policies: PathBuf,
        /// Files of cases, TOML or JSON.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// JSON for machines.
        #[arg(long)]
        json: bool,
    },
    /// Says why a call of the trail was decided as it was, or what would be decided.
    #[command(
        after_help = "Example: cairn policy explain 01996b5e-7c00-7000-8000-000000000001\nExample: cairn policy explain --policies policies --principal ada --action tools/call \\\n           --resource 'Tool::\"orders/refund_order\"' --arguments '{\"amount_cents\": 700}'"
    )]
    Explain(ExplainArguments),
    /// Puts the policies of `shadow/` in force, whole.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn policy promote")]
    Promote(ChangeArguments),
    /// Puts in force what decided before the last promotion, whole.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn policy rollback")]
    Rollback(ChangeArguments),
}

/// Whom to ask for a change.
#[derive(Args)]
pub(crate) struct ChangeArguments {
    #[command(flatten)]
    admin: ask::AdminArguments,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

/// What `policy explain` is told.
#[derive(Args)]
pub(crate) struct ExplainArguments {
    /// The call, as the trail names it.
    #[arg(conflicts_with_all = ["policies", "principal", "action", "resource", "arguments", "context"])]
    call_id: Option<String>,
    /// The folder with the policies.
    #[arg(long, requires_all = ["principal", "action", "resource"])]
    policies: Option<PathBuf>,
    /// Who asks: `ada`, or `Agent::"bot"`.
    #[arg(long, requires = "policies")]
    principal: Option<String>,
    /// What is asked: the method.
    #[arg(long, requires = "policies")]
    action: Option<String>,
    /// On what: `Tool::"orders/refund_order"`, or a server's name.
    #[arg(long, requires = "policies")]
    resource: Option<String>,
    /// The call's arguments, as JSON.
    #[arg(long, requires = "policies")]
    arguments: Option<String>,
    /// What the gateway would add to the context, as JSON: hints, now, identity.
    #[arg(long, requires = "policies")]
    context: Option<String>,
    #[command(flatten)]
    reading: Reading,
}

/// Runs the command.
pub(crate) async fn run(command: PolicyCommand) -> anyhow::Result<()> {
    match command {
        PolicyCommand::Check { folder, json } => check(&folder, json),
        PolicyCommand::Schema => {
            say::line(format_args!("{}", SCHEMA.trim_end()));
            Ok(())
        }
        PolicyCommand::Test { policies, files, json } => test(&open(&policies)?, &files, json),
        PolicyCommand::Explain(arguments) => explain(arguments).await,
        PolicyCommand::Promote(arguments) => change(arguments, "promote").await,
        PolicyCommand::Rollback(arguments) => change(arguments, "rollback").await,
    }
}

/// The policies of a folder, which must hold some.
fn open(folder: &Path) -> anyhow::Result<PolicyStore> {
    let store = PolicyStore::open(Some(folder.to_owned()))?;
    if store.is_observing() {
        bail!("{} holds no *.cedar file: name the folder with the policies", folder.display());
    }
    Ok(store)
}

fn check(folder: &Path, as_json: bool) -> anyhow::Result<()> {
    let store = open(folder)?;
    let version = store.current_version();
    match as_json {
        true => say::line(format_args!("{}", json!({ "version": version }))),
        false => say::line(format_args!("the policies compile: version {version}")),
    }
    Ok(())
}

fn test(store: &PolicyStore, files: &[PathBuf], as_json: bool) -> anyhow::Result<()> {
    let (mut passed, mut failed) = (0_usize, Vec::new());
    for file in files {
        for case in cases::read(file)? {
            let differs = case.differs(&store.decide(&case.question));
            if differs.is_empty() {
                passed += 1;
                continue;
            }
            if !as_json {
                say::line(format_args!("FAILED {}: {}\n  {}", file.display(), case.name, differs.join("\n  ")));
            }
            failed.push(json!({ "file": file, "case": case.name, "differs": differs }));
        }
    }
    if as_json {
        let version = store.current_version();
        say::line(format_args!("{}", json!({ "policy_version": version, "passed": passed, "failed": failed })));
    } else {
        say::line(format_args!("{passed} passed, {} failed", failed.len()));
    }
    if passed + failed.len() == 0 {
        bail!("the files hold no case: write [[case]]");
    }
    if !failed.is_empty() {
        bail!("{} of {} cases are decided otherwise than they say", failed.len(), passed + failed.len());
    }
    Ok(())
}

async fn explain(arguments: ExplainArguments) -> anyhow::Result<()> {
    let as_json = arguments.reading.json;
    if let Some(call_id) = arguments.call_id {
        let source = arguments.reading.source()?;
        let found = tokio::task::spawn_blocking(move || decisions_of(&source, &call_id));
        say::line(format_args!("{}", shown::decisions(&found.await??, as_json)));
        return Ok(());
    }
    let (Some(policies), Some(principal), Some(action), Some(resource)) =
        (&arguments.policies, &arguments.principal, &arguments.action, &arguments.resource)
    else {
        bail!("name a call of the trail, or ask: --policies DIR --principal … --action … --resource …");
    };
    let mut question = Question::named(principal, action, resource).map_err(anyhow::Error::msg)?;
    if let Some(text) = &arguments.arguments {
        question.arguments = Some(serde_json::from_str(text).context("--arguments is no JSON")?);
    }
    if let Some(text) = &arguments.context {
        let context = serde_json::from_str(text).context("--context is no JSON object")?;
        question = question.with_context(context).map_err(anyhow::Error::msg)?;
    }
    say::line(format_args!("{}", shown::verdict(&open(policies)?.decide(&question), as_json)));
    Ok(())
}

/// The decisions about a call, oldest first.
fn decisions_of(source: &read::Source, call_id: &str) -> anyhow::Result<Vec<serde_json::Value>> {
    let wanted: uuid::Uuid = call_id.parse().map_err(|_| {
        anyhow::anyhow!("{call_id:?} is no call id: `cairn trail <workflow> --json` shows call_id of each event")
    })?;
    let mut found = Vec::new();
    for placed in read::all_in(source, |topic| read::class(topic) == "mcp.calls")? {
        let event = &placed.event;
        let is_decision = matches!(event.body(), Ok(Some(Body::CallDecision(_))));
        if is_decision && event.value["call_id"] == wanted.to_string() {
            found.push(event.value.clone());
        }
    }
    if found.is_empty() {
        return Err(Ending::NoSuch(format!("the trail holds no decision about the call {call_id}")).into());
    }
    Ok(found)
}

async fn change(arguments: ChangeArguments, verb: &str) -> anyhow::Result<()> {
    let admin = arguments.admin.find()?;
    let done = ask::replace_policies(&admin, verb).await?;
    let version = |key: &str| say::plain(done[key].as_str().unwrap_or_default());
    match arguments.json {
        true => say::line(format_args!("{done}")),
        false => say::line(format_args!("{} decides in place of {}", version("version"), version("previous_version"))),
    }
    Ok(())
}
