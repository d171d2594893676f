//! From a client's servers to the same servers behind `cairn wrap`, by changing single values of the text.
//!
//! | a server with | becomes |
//! | --- | --- |
//! | `command`, `args` | `command` is Cairn, and `args` begin with `wrap --data … --name … --` and the old command |
//! | `url`, `headers` | `command` and `args` with `--url`; each header is a variable in `env`, because arguments are visible to all users |
//!
//! Every other byte stays: order, layout, comments, keys of the client's own. A server that goes through Cairn already
//! stays as it is. Called by `cairn adopt`; reads and writes no file.

use std::ops::Range;

use anyhow::bail;
use serde_json::Value;

use crate::jsonc::{Member, Node, parse};

/// What stands in the place of a server's command.
#[derive(Clone, Debug)]
pub(crate) struct Wrapper {
    /// Absolute path of this program.
    pub(crate) program: String,
    /// Absolute path of the data folder.
    pub(crate) data: String,
    /// Servers that stay as they are.
    pub(crate) except: Vec<String>,
}

/// A text with its servers behind Cairn.
#[derive(Clone, Debug)]
pub(crate) struct Rewritten {
    pub(crate) text: String,
    pub(crate) servers: Vec<(String, State)>,
}

/// What became of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// It goes through Cairn now.
    Adopted,
    /// It did already.
    Already,
    /// It stays as it is, for this reason.
    Left(String),
}

type Edit = (Range<usize>, String);

/// Puts every server of the text behind Cairn.
///
/// # Errors
/// Where the text is no JSON or holds no servers.
pub(crate) fn rewrite(text: &str, wrapper: &Wrapper) -> anyhow::Result<Rewritten> {
    let root = parse(text)?;
    let tables = tables(&root);
    if tables.is_empty() {
        bail!("it holds neither mcpServers nor servers: is it the file that the client reads its MCP servers from?");
    }
    let (mut edits, mut servers) = (Vec::new(), Vec::new());
    for server in tables.into_iter().flat_map(Node::members) {
        let state = if wrapper.except.contains(&server.key) {
            State::Left("left out by --except".to_owned())
        } else {
            wrapper.one(text, server, &mut edits)
        };
        servers.push((server.key.clone(), state));
    }
    edits.sort_by_key(|(span, _)| span.start);
    let mut rewritten = text.to_owned();
    for (span, new) in edits.into_iter().rev() {
        rewritten.replace_range(span, &new);
    }
    Ok(Rewritten { text: rewritten, servers })
}

/// The objects that hold servers: `mcpServers` of most clients, `servers` of VS Code, also within its settings, and
/// Claude Code's servers of single projects.
pub(crate) fn tables(root: &Node) -> Vec<&Node> {
    let mut found: Vec<&Member> = Vec::new();
    found.extend(root.member("mcpServers"));
    found.extend(root.member("servers"));
    found.extend(root.member("mcp").and_then(|mcp| mcp.value.member("servers")));
    let projects = root.member("projects").map(|projects| projects.value.members()).unwrap_or_default();
    found.extend(projects.iter().filter_map(|project| project.value.member("mcpServers")));
    found.into_iter().map(|member| &member.value).filter(|table| !table.members().is_empty()).collect()
}

/// Whether a server's command is Cairn's own.
fn is_ours(server: &Node, own: &str) -> bool {
    let text = |key: &str| server.member(key).and_then(|member| member.value.text());
    let command = text("command").unwrap_or_default();
    let program = command.rsplit(['/', '\\']).next().unwrap_or_default();
    let args = server.member("args").and_then(|args| args.value.items()).unwrap_or_default();
    let first = args.first().and_then(Node::text);
    if (command == own || matches!(program, "cairn" | "cairn.exe")) && first == Some("wrap") {
        return true;
    }
    // Its URL may be the gateway's, on this machine.
    let rest = text("url").and_then(|url| url.strip_prefix("http://")).unwrap_or_default();
    let local = rest.starts_with("127.0.0.1:") || rest.starts_with("localhost:") || rest.starts_with("[::1]:");
    local
        && rest
            .split_once('/')
            .is_some_and(|(authority, path)| authority.ends_with(":7070") && path.starts_with("mcp/"))
}

impl Wrapper {
    fn one(&self, text: &str, server: &Member, edits: &mut Vec<Edit>) -> State {
        let node = &server.value;
        let command = node.member("command");
        if is_ours(node, &self.program) {
            return State::Already;
        }
        let url = ["url", "serverUrl", "httpUrl"].into_iter().find_map(|key| node.member(key));
        match (command, url) {
            (Some(command), None) => self.stdio(text, server, command, edits),
            (None, Some(url)) => self.http(text, server, url, edits),
            (Some(_), Some(_)) => State::Left("it has both command and url".to_owned()),
            (None, None) => State::Left("it has neither command nor url".to_owned()),
        }
    }

    fn words(&self, name: &str) -> Vec<String> {
        ["wrap", "--data", &self.data, "--name", name].into_iter().map(ToOwned::to_owned).collect()
    }

    fn stdio(&self, text: &str, server: &Member, command: &Member, edits: &mut Vec<Edit>) -> State {
        let Some(program) = command.value.text() else { return State::Left("its command is no text".to_owned()) };
        let mut words = self.words(&server.key);
        words.extend(["--".to_owned(), program.to_owned()]);
        let args = server.value.member("args");
        if args.is_some_and(|args| args.value.items().is_none()) {
            return State::Left("its args are no list".to_owned());
        }
        edits.push((command.value.span.clone(), json(&self.program)));
        match args {
            Some(args) => edits.push(prepended(text, &args.value, &words)),
            None => {
                let between = separator(text, &server.value, command);
                edits.push((after(&command.value), format!(",{between}\"args\": {}", list(&words))));
            }
        }
        State::Adopted
    }

    fn http(&self, text: &str, server: &Member, url: &Member, edits: &mut Vec<Edit>) -> State {
        let node = &server.value;
        let Some(address) = url.value.text() else { return State::Left("its url is no text".to_owned()) };
        let headers = node.member("headers");
        if headers.is_some() && node.member("env").is_some() {
            return State::Left("it has both headers and env".to_owned());
        }
        let mut variables: Vec<(String, String)> = Vec::new();
        for (index, header) in headers.map(|headers| headers.value.members()).unwrap_or_default().iter().enumerate() {
            let Some(value) = header.value.text() else {
                return State::Left("one of its headers is no text".to_owned());
            };
            variables.push((format!("CAIRN_WRAP_HEADER_{}", index + 1), format!("{}: {value}", header.key)));
        }
        let mut words = self.words(&server.key);
        if node.member("type").and_then(|kind| kind.value.text()).is_some_and(|kind| kind == "sse") {
            words.push("--sse".to_owned());
        }
        // Arguments are visible to every user of the machine, and a query often holds a key.
        if address.contains('?') && node.member("env").is_none() {
            variables.push(("CAIRN_WRAP_URL".to_owned(), address.to_owned()));
        } else {
            words.extend(["--url".to_owned(), address.to_owned()]);
        }
        let between = separator(text, node, url);
        let mut new = format!("\"command\": {},{between}\"args\": {}", json(&self.program), list(&words));
        let env = {
            let pairs = variables.iter().map(|(name, value)| format!("{}: {}", json(name), json(value)));
            format!("\"env\": {{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        };
        match headers {
            Some(headers) if !variables.is_empty() => edits.push((headers.key_span.start..headers.value.span.end, env)),
            Some(headers) => edits.push((headers.key_span.start..headers.value.span.end, "\"env\": {}".to_owned())),
            None if !variables.is_empty() => new.push_str(&format!(",{between}{env}")),
            None => {}
        }
        edits.push((url.key_span.start..url.value.span.end, new));
        if let Some(kind) = node.member("type") {
            edits.push((kind.value.span.clone(), json("stdio")));
        }
        State::Adopted
    }
}

fn json(text: &str) -> String {
    Value::from(text).to_string()
}

fn list(words: &[String]) -> String {
    format!("[{}]", words.iter().map(|word| json(word)).collect::<Vec<_>>().join(", "))
}

fn after(node: &Node) -> Range<usize> {
    node.span.end..node.span.end
}

/// What stands between members of this object: a line break with the indentation of `like`, or a blank.
fn separator(text: &str, object: &Node, like: &Member) -> String {
    let before = &text[object.span.start..like.key_span.start];
    let blank = |c: char| c == ' ' || c == '\t';
    let indentation = before.len() - before.trim_end_matches(blank).len();
    match before.trim_end_matches(blank).strip_suffix('\n') {
        Some(rest) => {
            let line_break = if rest.ends_with('\r') { "\r\n" } else { "\n" };
            format!("{line_break}{}", &before[before.len() - indentation..])
        }
        None => " ".to_owned(),
    }
}

/// The words before what is in the list already, laid out as that is.
fn prepended(text: &str, array: &Node, words: &[String]) -> Edit {
    let words = words.iter().map(|word| json(word));
    let Some(first) = array.items().and_then(<[Node]>::first) else {
        let at = array.span.start + 1;
        return (at..at, words.collect::<Vec<_>>().join(", "));
    };
    let lead = &text[array.span.start + 1..first.span.start];
    let own_lines = lead.contains('\n') && lead.trim().is_empty();
    let between = if own_lines { lead } else { " " };
    let at = first.span.start;
    (at..at, words.map(|word| format!("{word},{between}")).collect())
}
