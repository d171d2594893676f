//! `cairn mcp`: Cairn's own MCP server on standard input and output, for an agent's or an operator's client.
//!
//! Whoever may read the data folder asks its database, as with `cairn query`; with `--admin` a running `up` is asked, with an
//! operator's token of the role `view`. `--principal` and `--tenant` narrow down what is shown.

use std::sync::Arc;

use cairn_consumers::context::{self, Scope};
use tokio::runtime::Handle;

use super::{
    Answers,
    question::Asker,
    server::{Own, Source},
};
use crate::{mcp::McpArguments, piped};

/// Serves until the input ends, or a signal comes.
pub(crate) async fn run(arguments: McpArguments) -> anyhow::Result<()> {
    let McpArguments { principal, tenant, admin } = arguments;
    let who = match (&principal, &tenant) {
        (None, None) => Asker::Operator,
        _ => Asker::Within(Scope { tenant, principal }),
    };
    let source = if admin.is_named() {
        Source::There(Box::new(admin.find()?), Handle::current())
    } else {
        let data = admin.data()?;
        let database = context::path(&data);
        if !database.exists() {
            // It may come to be while this runs.
            eprintln!(
                "cairn: there is no context at {} yet: run `cairn up` with [consumers.context], or `cairn consume context`",
                database.display()
            );
        }
        // The keys that names are masked with are the gateway's.
        Source::Here(Answers::of(&data, Arc::new(|_, text| text.to_owned())))
    };
    piped::serve(Arc::new(Own::new(source, who))).await
}
