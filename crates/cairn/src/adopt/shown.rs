//! The difference that `cairn adopt` shows: as lines, without a secret in them.
//!
//! Values of variables and headers, queries of URLs, and arguments that look like credentials stand as dots, on both sides
//! alike. Must never be used for anything but showing.

use crate::jsonc::{Node, parse};

use super::rewrite::tables;

/// What stands for a secret.
const HIDDEN: &str = "\"…\"";
/// Words in an argument that say that it, or the next, is a secret.
const TELLING: [&str; 8] = ["token", "key", "secret", "password", "passwd", "auth", "bearer", "credential"];

/// The difference in unified form.
pub(crate) fn difference(name: &str, before: &str, after: &str) -> anyhow::Result<String> {
    let (before, after) = (hidden(before)?, hidden(after)?);
    let diff = similar::TextDiff::from_lines(&before, &after);
    Ok(diff.unified_diff().context_radius(2).header(name, &format!("{name} behind Cairn")).to_string())
}

fn hidden(text: &str) -> anyhow::Result<String> {
    let root = parse(text)?;
    let mut spans = Vec::new();
    for server in tables(&root).into_iter().flat_map(Node::members) {
        for member in server.value.members() {
            match member.key.as_str() {
                "env" | "headers" => {
                    spans.extend(member.value.members().iter().map(|pair| (&pair.value, HIDDEN.to_owned())))
                }
                "args" => arguments(member.value.items().unwrap_or_default(), &mut spans),
                _ => {
                    let address = member.value.text().filter(|text| text.contains("://"));
                    spans.extend(address.and_then(without_secret).map(|shown| (&member.value, shown)));
                }
            }
        }
    }
    spans.sort_by_key(|(node, _)| node.span.start);
    let mut out = text.to_owned();
    for (node, shown) in spans.into_iter().rev() {
        out.replace_range(node.span.clone(), &shown);
    }
    Ok(out)
}

fn arguments<'n>(items: &'n [Node], spans: &mut Vec<(&'n Node, String)>) {
    let mut next_is_secret = false;
    for item in items {
        let Some(text) = item.text() else { continue };
        let is_option = text.starts_with('-');
        let lower = text.to_lowercase();
        let tells = TELLING.iter().any(|word| lower.contains(word));
        // A package's name may hold such a word too; it is hidden then, which loses nothing.
        if next_is_secret && !is_option || tells && (text.contains('=') || text.contains(' ') || text.len() > 40) {
            spans.push((item, HIDDEN.to_owned()));
        } else if let Some(shown) = without_secret(text) {
            spans.push((item, shown));
        }
        next_is_secret = is_option && tells && !text.contains('=');
    }
}

/// A URL's query and password are not shown; `None` where it has neither.
fn without_secret(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?…"));
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, host) = authority.rsplit_once('@').map_or(("", authority), |(_, host)| ("…@", host));
    (!query.is_empty() || !user.is_empty()).then(|| format!("\"{scheme}://{user}{host}{path}{query}\""))
}
