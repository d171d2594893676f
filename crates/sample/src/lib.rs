//! A small MCP server of orders and tickets, for the demonstration and the tests.
//!
//! Built with the official Rust SDK, so that what stands behind the gateway is not ours on the wire. State lives in
//! memory. With a journal it appends one line for each call that it really executed, before it answers: what a
//! crash test compares the trail with. Must never know that a gateway stands before it.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context;
use rmcp::{
    ErrorData, ServerHandler, ServiceExt,
    handler::server::{router::tool::ToolRouter, wrapper::Parameters},
    tool, tool_handler, tool_router,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Longest time that an export may be asked to take.
const EXPORT_SECONDS_MAX: u64 = 60;

/// Names one order.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct OrderArguments {
    /// The order's id, such as `order-1`.
    order_id: String,
}

/// A refund.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RefundArguments {
    /// The order's id.
    order_id: String,
    /// In cents.
    amount_cents: u64,
}

/// A new ticket.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct TicketArguments {
    /// What it is about.
    title: String,
}

/// An export that takes its time.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ExportArguments {
    /// How long it takes, in seconds.
    seconds: u64,
}

#[derive(Debug)]
struct Order {
    customer: &'static str,
    total_cents: u64,
    refunded_cents: u64,
}

#[derive(Debug)]
struct State {
    orders: BTreeMap<String, Order>,
    tickets: Vec<String>,
    journal: Option<File>,
}

/// The server. Clones share their state.
#[derive(Clone, Debug)]
pub struct SampleServer {
    state: Arc<Mutex<State>>,
    tool_router: ToolRouter<Self>,
}

impl SampleServer {
    /// A server with three orders; with a journal it notes what it executes.
    ///
    /// # Errors
    /// Where the journal cannot be opened.
    pub fn new(journal: Option<&Path>) -> anyhow::Result<Self> {
        let open = |path: &Path| {
            let file = File::options().create(true).append(true).open(path);
            file.with_context(|| format!("cannot open the journal {}", path.display()))
        };
        let journal = journal.map(open).transpose()?;
        let order = |customer, total_cents| Order { customer, total_cents, refunded_cents: 0 };
        let orders = BTreeMap::from([
            ("order-1".to_owned(), order("Lovelace", 4_200)),
            ("order-2".to_owned(), order("Hopper", 12_000)),
            ("order-3".to_owned(), order("Hamilton", 990)),
        ]);
        let state = Arc::new(Mutex::new(State { orders, tickets: Vec::new(), journal }));
        Ok(Self { state, tool_router: Self::tool_router() })
    }

    /// Serves standard input and output until the client closes them.
    ///
    /// # Errors
    /// Where the transport fails.
    pub async fn serve_stdio(self) -> anyhow::Result<()> {
        self.serve(rmcp::transport::stdio()).await?.waiting().await?;
        Ok(())
    }

    fn with<T>(&self, executed: &str, act: impl FnOnce(&mut State) -> Result<T, String>) -> Result<T, ErrorData> {
        let mut state = self.state.lock().expect("no holder of this lock panics");
        let result = act(&mut state).map_err(|words| ErrorData::invalid_params(words, None))?;
        if let Some(journal) = &mut state.journal {
            // One write for one line: servers of several processes may share a journal.
            let line = format!("{executed}\n");
            journal.write_all(line.as_bytes()).map_err(|error| ErrorData::internal_error(error.to_string(), None))?;
        }
        Ok(result)
    }
}

fn known<'s>(state: &'s mut State, id: &str) -> Result<&'s mut Order, String> {
    state.orders.get_mut(id).ok_or_else(|| format!("no order is called {id}: list_orders names them"))
}

#[tool_router(router = tool_router)]
impl SampleServer {
    /// Lists the orders.
    #[tool(description = "Lists the orders.", annotations(read_only_hint = true))]
    pub async fn list_orders(&self) -> Result<String, ErrorData> {
        self.with("list_orders", |state| Ok(state.orders.keys().cloned().collect::<Vec<_>>().join("\n")))
    }

    /// Shows one order.
    #[tool(description = "Shows one order.", annotations(read_only_hint = true))]
    pub async fn get_order(&self, Parameters(wanted): Parameters<OrderArguments>) -> Result<String, ErrorData> {
        self.with(&format!("get_order {}", wanted.order_id), |state| {
            let order = known(state, &wanted.order_id)?;
            Ok(format!("{}: {} cents, {} refunded", order.customer, order.total_cents, order.refunded_cents))
        })
    }

    /// Refunds a part of an order.
    #[tool(description = "Refunds a part of an order.", annotations(destructive_hint = true))]
    pub async fn refund_order(&self, Parameters(refund): Parameters<RefundArguments>) -> Result<String, ErrorData> {
        self.with(&format!("refund_order {} {}", refund.order_id, refund.amount_cents), |state| {
            let order = known(state, &refund.order_id)?;
            let left = order.total_cents - order.refunded_cents;
            if refund.amount_cents > left {
                return Err(format!("only {left} cents are left to refund"));
            }
            order.refunded_cents += refund.amount_cents;
            Ok(format!("refunded {} cents of {}", refund.amount_cents, refund.order_id))
        })
    }

    /// Deletes an order.
    #[tool(description = "Deletes an order for good.", annotations(destructive_hint = true))]
    pub async fn delete_order(&self, Parameters(wanted): Parameters<OrderArguments>) -> Result<String, ErrorData> {
        self.with(&format!("delete_order {}", wanted.order_id), |state| {
            known(state, &wanted.order_id)?;
            state.orders.remove(&wanted.order_id);
            Ok(format!("deleted {}", wanted.order_id))
        })
    }

    /// Opens a ticket.
    #[tool(description = "Opens a ticket.")]
    pub async fn create_ticket(&self, Parameters(ticket): Parameters<TicketArguments>) -> Result<String, ErrorData> {
        self.with(&format!("create_ticket {}", ticket.title), |state| {
            state.tickets.push(ticket.title.clone());
            Ok(format!("ticket-{}", state.tickets.len()))
        })
    }

    /// Exports all orders, slowly.
    #[tool(description = "Exports all orders to the warehouse; takes its time.")]
    pub async fn export_orders(&self, Parameters(export): Parameters<ExportArguments>) -> Result<String, ErrorData> {
        self.with("export_orders", |_| Ok(()))?;
        tokio::time::sleep(Duration::from_secs(export.seconds.min(EXPORT_SECONDS_MAX))).await;
        Ok("exported".to_owned())
    }
}

#[tool_handler(router = self.tool_router)]
impl ServerHandler for SampleServer {}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// As processes do that were given the same file: each server opens it for itself.
    #[test]
    fn servers_that_share_a_journal_leave_whole_lines() {
        let folder = std::env::temp_dir().join(format!("cairn-sample-journal-{}", std::process::id()));
        let gate = Barrier::new(4);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (folder, gate) = (&folder, &gate);
                scope.spawn(move || {
                    let server = SampleServer::new(Some(folder)).expect("a journal");
                    gate.wait();
                    for _ in 0..2_000 {
                        server.with(&format!("server-{number}"), |_| Ok(())).expect("a line");
                    }
                });
            }
        });
        let text = std::fs::read_to_string(&folder).expect("the journal");
        std::fs::remove_file(&folder).expect("it can go");
        let torn = text.lines().filter(|line| !line.starts_with("server-") || line.len() != "server-0".len()).count();
        assert_eq!((torn, text.lines().count()), (0, 8_000), "lines torn, lines in all");
    }
}
