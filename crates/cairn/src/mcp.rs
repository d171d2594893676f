//! `cairn mcp`: what it is told. What it does is in `context`, which a build without databases leaves out.

use clap::Args;

use crate::ask;

/// What `cairn mcp` is told.
#[derive(Args)]
pub(crate) struct McpArguments {
    /// Show only what this principal did and has seen.
    #[arg(long)]
    pub(crate) principal: Option<String>,
    /// Show only what belongs to this tenant.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    #[command(flatten)]
    pub(crate) admin: ask::AdminArguments,
}

#[cfg(feature = "audit")]
pub(crate) use crate::context::run;

/// There is nothing to serve in this build.
#[cfg(not(feature = "audit"))]
pub(crate) async fn run(_: McpArguments) -> anyhow::Result<()> {
    anyhow::bail!("{}", crate::consumers::NO_DATABASE)
}
