//! An MCP client's own configuration file, read as it is: `mcpServers` of most clients, `servers` of VS Code.
//!
//! What a client keeps beside what we need is the client's, and is not judged: unknown keys are passed over, comments are
//! allowed. What we do need is checked, and an error names line and key and never a value, which may be a secret.
//! Called by the configuration; `cairn adopt` finds servers in the same places.

use std::collections::BTreeMap;

use anyhow::{Context, anyhow, bail};

use crate::{
    adopt::tables,
    jsonc::{Kind, Member, Node, parse},
};

/// A server as a client's file names it; values are not filled in yet.
#[derive(Clone, Default)]
pub(crate) struct ClientServer {
    pub(crate) command: Option<String>,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) cwd: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) headers: BTreeMap<String, String>,
}

/// The servers of a client's file, by name. Those that the client has disabled are left out.
pub(crate) fn servers(text: &str) -> anyhow::Result<BTreeMap<String, ClientServer>> {
    let root = parse(text)?;
    let known = ["mcpServers", "servers", "mcp", "projects"];
    if !known.iter().any(|key| root.member(key).is_some()) {
        bail!("line 1: a client's configuration has an object mcpServers (servers in VS Code), and this has neither");
    }
    let mut found = BTreeMap::new();
    for server in tables(&root).into_iter().flat_map(Node::members) {
        let name = &server.key;
        let line = text[..server.key_span.start].matches('\n').count() + 1;
        let read = read(&server.value).with_context(|| format!("line {line}: server {name:?}"))?;
        let Some(read) = read else { continue };
        if found.insert(plain_name(name), read).is_some() {
            bail!("line {line}: two servers are called {:?}: rename one", plain_name(name));
        }
    }
    Ok(found)
}

/// A server's name as it can stand in a URL and in a policy: letters, digits, `-`, `_`, `.`, at most 64.
pub(crate) fn plain_name(name: &str) -> String {
    let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' });
    let plain: String = plain.take(64).collect();
    if plain.is_empty() { "server".to_owned() } else { plain }
}

fn read(server: &Node) -> anyhow::Result<Option<ClientServer>> {
    if !matches!(server.kind, Kind::Object(_)) {
        bail!("it must be an object with command or url");
    }
    let is_true = |key: &str| matches!(server.member(key).map(|member| &member.value.kind), Some(Kind::Other(text)) if text == "true");
    if is_true("disabled") {
        return Ok(None);
    }
    let text = |key: &str| server.member(key).map(of_text).transpose();
    let url = ["url", "serverUrl", "httpUrl"].into_iter().find(|key| server.member(key).is_some());
    Ok(Some(ClientServer {
        command: text("command")?,
        args: server.member("args").map(of_list).transpose()?.unwrap_or_default(),
        env: server.member("env").map(of_texts).transpose()?.unwrap_or_default(),
        cwd: text("cwd")?,
        kind: text("type")?.or(text("transport")?),
        url: url.map(text).transpose()?.flatten(),
        headers: server.member("headers").map(of_texts).transpose()?.unwrap_or_default(),
    }))
}

fn of_text(member: &Member) -> anyhow::Result<String> {
    member.value.text().map(ToOwned::to_owned).ok_or_else(|| anyhow!("{} must be text in double quotes", member.key))
}

fn of_list(member: &Member) -> anyhow::Result<Vec<String>> {
    let items = member.value.items().with_context(|| format!("{} must be a list", member.key))?;
    let texts = items.iter().map(|item| scalar(item).with_context(|| format!("{} must hold texts only", member.key)));
    texts.collect()
}

fn of_texts(member: &Member) -> anyhow::Result<BTreeMap<String, String>> {
    if !matches!(member.value.kind, Kind::Object(_)) {
        bail!("{} must be an object of texts", member.key);
    }
    let texts = member.value.members().iter().map(|pair| {
        let value = scalar(&pair.value).with_context(|| format!("{}.{} must be text", member.key, pair.key))?;
        Ok((pair.key.clone(), value))
    });
    texts.collect()
}

/// A text; a number or truth value as written, because clients take these for variables too.
fn scalar(node: &Node) -> Option<String> {
    match &node.kind {
        Kind::String(text) => Some(text.clone()),
        Kind::Other(text) if text != "null" => Some(text.clone()),
        _ => None,
    }
}
