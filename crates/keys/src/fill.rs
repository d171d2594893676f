//! Values from outside: what a configuration names instead of holding it. Called by whoever reads one.
//!
//! Nothing here shows a value: errors name the variable or the file alone.

use std::{env::VarError, io};

/// Why a value could not be filled.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// A reference does not end.
    #[error("a value holds \"${{\" without \"}}\": write \"$${{\" where none is meant")]
    Open,
    /// An MCP client fills it in, and Cairn is none.
    #[error("${{{name}}} is filled in by the client: put a value there, or the name of an environment variable")]
    Clients {
        /// What stands between the braces.
        name: String,
    },
    /// The variable is not set.
    #[error("the environment variable {name} is not set: set it, or write ${{{name}:-a value}}")]
    Missing {
        /// Its name.
        name: String,
        /// Why it cannot be read.
        source: VarError,
    },
    /// The file cannot be read.
    #[error("cannot read the file {path} of a value: {source}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// Replaces `${NAME}` by the environment variable of that name, `${NAME:-else}` with another value where it is not set,
/// `${file:PATH}` by what is in that file, its last line end cut. `$${` stands for `${`.
///
/// # Errors
/// As [`FillError`] says.
pub fn filled(text: &str) -> Result<String, FillError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if let Some(before) = rest[..start].strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = &rest[start + 2..];
            continue;
        }
        let end = rest[start..].find('}').ok_or(FillError::Open)? + start;
        out.push_str(&rest[..start]);
        out.push_str(&value(&rest[start + 2..end])?);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn value(name: &str) -> Result<String, FillError> {
    if let Some(path) = name.strip_prefix("file:") {
        let held = std::fs::read_to_string(path).map_err(|source| FillError::File { path: path.to_owned(), source })?;
        let line = held.strip_suffix('\n').map_or(held.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
        return Ok(line.to_owned());
    }
    let name = name.strip_prefix("env:").unwrap_or(name);
    let (name, default) = name.split_once(":-").map_or((name, None), |(name, default)| (name, Some(default)));
    if name.starts_with("input:") || name.ends_with("Folder") {
        return Err(FillError::Clients { name: name.to_owned() });
    }
    match (std::env::var(name), default) {
        (Ok(value), _) => Ok(value),
        (Err(_), Some(default)) => Ok(default.to_owned()),
        (Err(source), None) => Err(FillError::Missing { name: name.to_owned(), source }),
    }
}
