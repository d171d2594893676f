//! Resource templates that policies name, and which URIs they stand for.
//!
//! `ResourceTemplate::"<server>/<template>"` in a policy or in entities.json is a URI template (RFC 6570); a resource is in
//! every one that its URI fits. What a server lists is not asked: a permit must not grow because a server says so. A
//! variable takes what the SDKs' servers take for it, so that a forbid covers what such a server would serve:
//!
//! | written | takes |
//! | --- | --- |
//! | `{a}` | one or more characters, none of them `/` |
//! | `{+a}`, `{#a}` (with the `#`) | one or more characters |
//! | `{/a}`, `{.a}` | `/` or `.` and what `{a}` takes |
//! | `{?a,b}`, `{&a}` | `?a=…&b=…`, in that order, each value without `&` |

use std::collections::HashMap;

use cedar_policy::EntityUid;
use regex::{Regex, RegexBuilder};

use crate::names::{RESOURCE, RESOURCE_TEMPLATE};

/// Longest template, in bytes.
const TEMPLATE_BYTES_MAX: usize = 2_048;
/// Most templates of one set.
const TEMPLATES_MAX: usize = 1_024;
/// Most memory that one of them may take.
const COMPILED_BYTES_MAX: usize = 256 * 1024;

/// Templates, by server.
#[derive(Debug, Default)]
pub(crate) struct UriTemplates {
    by_server: HashMap<String, Vec<(EntityUid, Regex)>>,
    count: usize,
}

impl UriTemplates {
    /// Takes an entity that is named somewhere. What is no template is none of its business.
    pub(crate) fn add(&mut self, uid: &EntityUid) -> Result<(), String> {
        if *uid.type_name() != *RESOURCE_TEMPLATE {
            return Ok(());
        }
        let id = uid.id().unescaped();
        let Some((server, template)) = id.split_once('/').filter(|(_, template)| !template.is_empty()) else {
            return Err(format!("{uid} names no template: write ResourceTemplate::\"<server>/<URI template>\""));
        };
        let of_server = self.by_server.entry(server.to_owned()).or_default();
        if of_server.iter().any(|(known, _)| known == uid) {
            return Ok(());
        }
        if self.count >= TEMPLATES_MAX {
            return Err(format!("{uid} is one resource template too many: a set may name {TEMPLATES_MAX}"));
        }
        let fits = fitting(template).map_err(|what| format!("{uid}: {what}"))?;
        of_server.push((uid.clone(), fits));
        self.count += 1;
        Ok(())
    }

    /// The templates that a resource is in.
    pub(crate) fn of(&self, uid: &EntityUid) -> Vec<&EntityUid> {
        if self.count == 0 || *uid.type_name() != *RESOURCE {
            return Vec::new();
        }
        let Some((server, uri)) = uid.id().unescaped().split_once('/') else { return Vec::new() };
        let of_server = self.by_server.get(server).into_iter().flatten();
        of_server.filter(|(_, fits)| fits.is_match(uri)).map(|(uid, _)| uid).collect()
    }
}

/// What tells whether a URI fits the template.
fn fitting(template: &str) -> Result<Regex, String> {
    if template.len() > TEMPLATE_BYTES_MAX {
        return Err(format!("the template is longer than {TEMPLATE_BYTES_MAX} bytes"));
    }
    let mut pattern = String::from("^");
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        pattern.push_str(&regex::escape(&rest[..at]));
        let inner = rest[at..].strip_prefix('{').and_then(|open| open.split_once('}'));
        let Some((expression, after)) = inner else {
            return Err("a brace is never closed, or never opened".to_owned());
        };
        pattern.push_str(&taking(expression)?);
        rest = after;
    }
    pattern.push_str(&regex::escape(rest));
    pattern.push('$');
    RegexBuilder::new(&pattern)
        .dot_matches_new_line(true)
        .size_limit(COMPILED_BYTES_MAX)
        .build()
        .map_err(|_| "the template is too large".to_owned())
}

/// What one `{…}` takes, as a regular expression.
fn taking(expression: &str) -> Result<String, String> {
    let (operator, list) = match expression.chars().next() {
        Some(first) if "+#./?&".contains(first) => (Some(first), &expression[1..]),
        _ => (None, expression),
    };
    let mut names = Vec::new();
    for part in list.split(',') {
        let (name, explodes) = part.strip_suffix('*').map_or((part, false), |name| (name, true));
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '%');
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(format!(
                "{{{expression}}} is no expression that can be matched: write {{name}}, {{+name}}, {{#name}}, {{/name}}, \
                 {{.name}}, {{?name,other}} or {{&name}}, without a length"
            ));
        }
        names.push((name, explodes));
    }
    let one = |explodes: bool| if explodes { "[^/,]+(?:,[^/,]+)*" } else { "[^/]+" };
    let listed = |between: &str| {
        let parts: Vec<_> = names.iter().map(|(_, explodes)| one(*explodes)).collect();
        parts.join(between)
    };
    let asked = |first: &str| {
        let pairs = names
            .iter()
            .enumerate()
            .map(|(at, (name, _))| format!("{}{}=[^&]*", if at == 0 { first } else { "&" }, regex::escape(name)));
        pairs.collect::<String>()
    };
    Ok(match operator {
        None => listed(","),
        Some('+') => ".+".to_owned(),
        Some('#') => "#.+".to_owned(),
        Some('/') => format!("/{}", listed("/")),
        Some('.') => format!("\\.{}", listed("\\.")),
        Some('?') => asked("\\?"),
        Some(_) => asked("&"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(template: &str, uri: &str) -> bool {
        fitting(template).expect("a template").is_match(uri)
    }

    #[test]
    fn a_variable_takes_what_servers_take_for_it() {
        assert!(fits("orders://{id}", "orders://4711"));
        assert!(fits("orders://{id}", "orders://4711?x=1#y"), "a server's pattern takes that too");
        assert!(!fits("orders://{id}", "orders://"));
        assert!(!fits("orders://{id}", "orders://1/2"));
        assert!(!fits("orders://{id}", "xorders://1"));
        assert!(fits("orders://{id}/notes/{note}", "orders://1/notes/2"));
        assert!(fits("file:///{+path}", "file:///a/b/../c"));
        assert!(fits("a{/x,y}", "a/1/2") && !fits("a{/x,y}", "a/1"));
        assert!(fits("a{.x}", "a.b") && fits("a{#x}", "a#b/c"));
        assert!(fits("a{?q,n}", "a?q=1&n=") && !fits("a{?q,n}", "a?n=1&q=1"));
        assert!(fits("a?z=1{&q}", "a?z=1&q=2"));
        assert!(fits("a/{list*}", "a/1,2,3"));
        // Nothing of the template is a regular expression's.
        assert!(fits("a.b+c://{x}", "a.b+c://1") && !fits("a.b://{x}", "axb://1"));
        assert!(fits("x://{a}", "x://line\nbreak"), "no character ends a value but the slash");
    }

    #[test]
    fn what_cannot_be_matched_is_refused() {
        for template in ["a{", "a}", "a{}", "a{b:3}", "a{=b}", "a{b c}", "{a,}", "{{a}}"] {
            assert!(fitting(template).is_err(), "{template}");
        }
        assert!(fitting(&"x".repeat(TEMPLATE_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn a_template_is_of_its_server_only() {
        let uid = |kind, id: &str| crate::names::uid(kind, id);
        let mut templates = UriTemplates::default();
        templates.add(&uid(&RESOURCE_TEMPLATE, "orders/order://{id}")).expect("a template");
        templates.add(&uid(&RESOURCE, "orders/order://{id}")).expect("none of its business");
        assert!(templates.add(&uid(&RESOURCE_TEMPLATE, "orders")).is_err());
        assert_eq!(templates.of(&uid(&RESOURCE, "orders/order://1")).len(), 1);
        assert!(templates.of(&uid(&RESOURCE, "other/order://1")).is_empty());
        assert!(templates.of(&uid(&crate::names::TOOL, "orders/order://1")).is_empty());
    }
}
