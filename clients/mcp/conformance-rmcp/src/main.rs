//! An MCP server for the conformance suite, written with rmcp.
//!
//! What it is: an interpreter of `../fixture.json`, the same data that the TypeScript server reads, so that the
//! suite judges two independent SDKs behind Cairn. Who calls it: `cargo xtask conformance`.
//! `conformance-rmcp --port N` serves Streamable HTTP at `/mcp` (port 0 takes a free one) and prints
//! `listening http://127.0.0.1:N/mcp`; `conformance-rmcp --stdio` speaks on stdio.
//! It guarantees nothing beyond what the suite asks for, and must never be linked into Cairn.

mod fixture;
mod rounds;
mod server;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use rmcp::ServiceExt;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};

use crate::server::FixtureServer;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let server = FixtureServer::new()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["--stdio"] => {
            server.serve(rmcp::transport::stdio()).await?.waiting().await?;
            Ok(())
        }
        ["--port", port] => serve_http(server, port.parse().context("--port takes a number")?).await,
        _ => bail!("usage: conformance-rmcp --port N | --stdio"),
    }
}

async fn serve_http(server: FixtureServer, port: u16) -> anyhow::Result<()> {
    let mut config = StreamableHttpServerConfig::default();
    config.sse_retry = Some(Duration::from_millis(500));
    let sessions = Arc::new(LocalSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(server.clone()), sessions, config);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening http://{}/mcp", listener.local_addr()?);
    axum::serve(listener, axum::Router::new().nest_service("/mcp", service)).await?;
    Ok(())
}
