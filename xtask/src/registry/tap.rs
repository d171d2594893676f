//! What passes between a registry's client and Cairn: which requests, and with which status they are answered. Requests and
//! answers of a connection come in one order, so each status belongs to the oldest request that has none.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use crate::tap::{Look, Notes};

/// Longest line that is looked at.
const LINE_BYTES_MAX: usize = 8 << 10;

/// How often each request was answered with each status: method, path as a pattern, parameters that were named.
pub(super) type Seen = BTreeMap<(String, String), Asked>;

/// What became of one kind of request.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Answers by status.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Names of parameters behind the `?`.
    pub(super) parameters: BTreeSet<String>,
}

/// Requests of one connection that wait for their answers.
type Waiting = Arc<Mutex<VecDeque<(String, String)>>>;

/// Notes the requests of one connection, and how each is answered.
pub(super) fn looks(notes: &Notes<Seen>) -> (Look, Look) {
    let waiting = Waiting::default();
    let (asked, noted, mut lines) = (Arc::clone(&waiting), notes.clone(), Lines::default());
    let requests = move |bytes: &[u8]| {
        lines.take(bytes, |line| {
            let Some((method, path)) = request(line) else { return };
            let (pattern, parameters) = pattern(path);
            let key = (method.to_owned(), pattern);
            noted.add(|seen| seen.entry(key.clone()).or_default().parameters.extend(parameters));
            asked.lock().unwrap_or_else(PoisonError::into_inner).push_back(key);
        });
    };
    let (noted, mut lines) = (notes.clone(), Lines::default());
    let answers = move |bytes: &[u8]| {
        lines.take(bytes, |line| {
            let Some(status) = status(line) else { return };
            let oldest = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            if let Some(key) = oldest {
                noted.add(|seen| *seen.entry(key).or_default().statuses.entry(status).or_default() += 1);
            }
        });
    };
    (Box::new(requests), Box::new(answers))
}

/// Lines of a stream. A body may end without one, so what looks like a head is found at the end of a line too.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn take(&mut self, bytes: &[u8], mut found: impl FnMut(&str)) {
        for byte in bytes {
            if *byte == b'\n' {
                found(String::from_utf8_lossy(&self.0).trim_end());
                self.0.clear();
            } else if self.0.len() < LINE_BYTES_MAX {
                self.0.push(*byte);
            }
        }
    }
}

/// Method and path of a request's first line; a body without a line's end may stand before it.
fn request(line: &str) -> Option<(&str, &str)> {
    let rest = line.strip_suffix(" HTTP/1.1")?;
    let (before, path) = rest.rsplit_once(' ')?;
    let method = ["GET", "POST", "PUT", "DELETE"].into_iter().find(|method| before.ends_with(method))?;
    path.starts_with('/').then_some((method, path))
}

fn status(line: &str) -> Option<u16> {
    line.rsplit_once("HTTP/1.1 ")?.1.get(..3)?.parse().ok()
}

/// A path with its names in braces, and the names of its parameters.
fn pattern(path: &str) -> (String, Vec<String>) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let mut shown = String::new();
    let mut after_name = false;
    for (at, part) in parts.iter().enumerate() {
        // A name may be a word of the paths itself.
        let before = if at > 0 && !after_name { parts[at - 1] } else { "" };
        let is_name = match before {
            "subjects" if at == 1 || parts[0] == "compatibility" => "{subject}",
            "versions" => "{version}",
            "ids" => "{id}",
            "guids" => "{guid}",
            "config" | "mode" if at == 1 => "{subject}",
            "contexts" => "{context}",
            "resources" => "{namespace}",
            _ if at == 3 && parts[0] == "associations" => "{name}",
            _ => part,
        };
        after_name = is_name.starts_with('{');
        shown.push('/');
        shown.push_str(is_name);
    }
    let names = query.split('&').filter_map(|pair| pair.split('=').next()).filter(|name| !name.is_empty());
    (if shown.is_empty() { "/".to_owned() } else { shown }, names.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::{Lines, pattern, request, status};

    #[test]
    fn names_in_paths_become_patterns() {
        for (path, shown, names) in [
            ("/subjects/a%2Fb/versions/3?deleted=true", "/subjects/{subject}/versions/{version}", vec!["deleted"]),
            ("/schemas/ids/7?subject=x&format=", "/schemas/ids/{id}", vec!["subject", "format"]),
            (
                "/compatibility/subjects/versions/versions/latest",
                "/compatibility/subjects/{subject}/versions/{version}",
                vec![],
            ),
            ("/config", "/config", vec![]),
            ("/", "/", vec![]),
        ] {
            assert_eq!(pattern(path), (shown.to_owned(), names.into_iter().map(str::to_owned).collect()), "{path}");
        }
    }

    #[test]
    fn heads_are_found_behind_bodies_and_however_the_bytes_are_cut() {
        let stream = b"POST /subjects/s HTTP/1.1\r\nhost: x\r\n\r\n{\"schema\": 1}GET /config HTTP/1.1\r\n\r\n";
        for size in 1..=stream.len() {
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for bytes in stream.chunks(size) {
                lines.take(bytes, |line| found.extend(request(line).map(|(method, path)| format!("{method} {path}"))));
            }
            assert_eq!(found, ["POST /subjects/s", "GET /config"], "in pieces of {size}");
        }
        assert_eq!(status("{\"id\":1}HTTP/1.1 404 Not Found"), Some(404));
        assert_eq!(status("content-length: 5"), None);
    }
}
