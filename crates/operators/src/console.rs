//! One page for a person with a browser, whom a client has sent here: what waits, and two buttons.
//!
//! The page itself is open and shows nothing. Whoever types an operator's token sees the exact arguments and may settle.
//! There is no cookie and no script, so no other page can act in a person's name; every text that is not ours is escaped
//! and shown with what hides in it.

use std::fmt::Write as _;

use axum::{
    Form,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use cairn_approvals::Approval;
use cairn_gateway::Settled;
use serde::Deserialize;

use crate::{Admin, Role, approvals};

/// What the page sends.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(crate) struct Typed {
    token: String,
    what: String,
    reason: String,
}

/// The page without anything in it.
pub(crate) async fn form(Path(id): Path<String>) -> Response {
    page(StatusCode::OK, &id, "", true)
}

/// What somebody with a token asked for.
pub(crate) async fn settle(State(admin): State<Admin>, Path(id): Path<String>, Form(typed): Form<Typed>) -> Response {
    let role = if typed.what == "show" { Role::View } else { Role::Approve };
    let operator = match admin.admitted(&typed.token, role) {
        Ok(operator) => operator,
        Err(refused) => return page(refused.status(), &id, &paragraph(&refused.to_string()), true),
    };
    let Some(gateway) = admin.gateway() else {
        return page(StatusCode::NOT_FOUND, &id, &paragraph("no gateway runs here, so nothing waits"), false);
    };
    let approve = match typed.what.as_str() {
        "approve" => true,
        "deny" => false,
        _ => {
            return match gateway.approvals().get(&id) {
                Some(approval) => page(StatusCode::OK, &id, &table(&approval), true),
                None => page(StatusCode::NOT_FOUND, &id, &paragraph("nothing waits under this id any more"), false),
            };
        }
    };
    match approvals::settled(gateway, &operator, &id, approve, None, Some(typed.reason)).await {
        Ok(Settled::Approved) => page(StatusCode::OK, &id, &paragraph("Approved. The client may go on."), false),
        Ok(Settled::Denied) => page(StatusCode::OK, &id, &paragraph("Denied."), false),
        Ok(Settled::Counted { given, wanted }) => {
            let words = format!("Your approval counts: {given} of {wanted} or more.");
            page(StatusCode::OK, &id, &paragraph(&words), false)
        }
        Err(error) => page(approvals::status(&error), &id, &paragraph(&error.to_string()), true),
    }
}

fn table(approval: &Approval) -> String {
    let request = &approval.request;
    let mut rows = String::from("<table>");
    let (given, wanted) = approval.counted();
    for (name, value) in [
        ("who", request.principal.as_str()),
        ("through", request.agent.as_deref().unwrap_or("–")),
        ("server", &request.server),
        ("method", &request.method),
        ("what", &request.target),
        ("arguments", &request.arguments),
        ("workflow", &request.workflow_id),
        ("policy version", &request.policy_version),
        ("until", &request.expires_at.to_string()),
        ("approved by", &format!("{given} of {wanted} or more")),
    ] {
        let _ = write!(rows, "<tr><th>{name}</th><td><pre>{}</pre></td></tr>", escaped(value));
    }
    rows + "</table>"
}

fn paragraph(text: &str) -> String {
    format!("<p>{}</p>", escaped(text))
}

/// Text that can neither act nor hide.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            _ if c.is_ascii() && !c.is_control() || c.is_alphanumeric() => out.push(c),
            _ => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
        }
    }
    out
}

fn page(status: StatusCode, id: &str, inside: &str, asks: bool) -> Response {
    let form = if asks {
        r#"<form method="post" autocomplete="off"><label>Operator token <input type="password" name="token" required></label>
<label>Reason <input name="reason" maxlength="256"></label>
<button name="what" value="show">Show</button> <button name="what" value="approve">Approve</button> <button name="what" value="deny">Deny</button></form>"#
    } else {
        ""
    };
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Approval {id}</title>\
         <style>body{{font:16px sans-serif;margin:2em;max-width:60em}}label{{display:block;margin:.5em 0}}th{{text-align:left;vertical-align:top;padding-right:1em}}pre{{white-space:pre-wrap;overflow-wrap:anywhere;margin:0}}</style>\
         <h1>Approval {id}</h1>{inside}{form}</html>",
        id = escaped(id),
    );
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (status, headers, html).into_response()
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn nothing_acts_and_nothing_hides() {
        assert_eq!(escaped("<b a='\"'>&"), "&lt;b a=&#39;&quot;&#39;&gt;&amp;");
        assert_eq!(escaped("a\u{202e}b\u{200b}\u{1b}é"), "a\\u{202e}b\\u{200b}\\u{1b}é");
    }
}
