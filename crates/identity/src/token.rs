//! An access token of an issuer: signature, times, audience and claims, and who it makes of its bearer.
//!
//! Sources: RFC 7519, RFC 8725 (what goes wrong with tokens), RFC 9068 (access tokens as JWT), RFC 8707 (audience).

use std::{sync::Arc, time::Duration};

use cairn_clock::Timestamp;
use serde_json::{Map, Value};

use crate::{
    issuer::Issuer,
    jws::Jws,
    options::IssuerOptions,
    rejection::Reason,
    who::{Credential, Identity, Kind},
};

/// Longest name that a claim may give, in bytes.
const NAME_BYTES_MAX: usize = 512;
/// Scopes of one token.
const SCOPES_MAX: usize = 256;

/// A token whose signature, times, issuer and audience are right.
#[derive(Debug)]
pub(crate) struct Verified {
    pub(crate) identity: Identity,
    /// The certificate that it is bound to: `cnf.x5t#S256` (RFC 8705).
    pub(crate) certificate: Option<String>,
    /// The key that it is bound to: `cnf.jkt` (RFC 9449).
    pub(crate) key: Option<String>,
}

/// The issuer that a token names, before anything of it is believed.
pub(crate) fn issuer_named(claims: &Map<String, Value>) -> Result<&str, Reason> {
    claims.get("iss").and_then(Value::as_str).ok_or(Reason::IssuerUnknown)
}

/// Checks a token of that issuer for that resource.
pub(crate) async fn verify(
    jws: &Jws<'_>,
    claims: &Map<String, Value>,
    issuer: &Arc<Issuer>,
    resource: &str,
    leeway: Duration,
    now: Timestamp,
) -> Result<Verified, Reason> {
    if !issuer.options.algorithms.contains(&jws.algorithm) {
        return Err(Reason::AlgorithmRefused);
    }
    if jws.kind.as_deref().is_some_and(|kind| !matches!(kind, "jwt" | "at+jwt")) {
        return Err(Reason::TypeRefused);
    }
    let key = issuer.key(jws.kid.as_deref(), jws.algorithm).await?;
    if !key.verifies(jws.algorithm, jws.signed, &jws.signature) {
        return Err(Reason::SignatureInvalid);
    }
    in_time(claims, leeway, now)?;
    if !is_for(claims, &issuer.options, resource) {
        return Err(Reason::AudienceWrong);
    }
    let (certificate, key) = bound_to(claims)?;
    if issuer.options.bound_only && certificate.is_none() && key.is_none() {
        return Err(Reason::BindingMissing);
    }
    Ok(Verified { identity: who(claims, &issuer.name, &issuer.options)?, certificate, key })
}

/// Seconds since the epoch, as `NumericDate` has them.
fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            let seconds = value.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0);
            seconds.map(Some).ok_or(Reason::ClaimUnusable)
        }
    }
}

/// Who the token is about, in the issuer's own words.
pub(crate) fn subject(claims: &Map<String, Value>, options: &IssuerOptions) -> Option<String> {
    name(claims, &options.principal_claim)
}

/// When its time is over.
pub(crate) fn expiry(claims: &Map<String, Value>) -> Result<Timestamp, Reason> {
    let expires = seconds(claims, "exp")?.ok_or(Reason::ClaimUnusable)?;
    // Past what can be told, it is as good as for ever.
    Ok(Timestamp::from_micros((expires * 1e6) as u64))
}

fn in_time(claims: &Map<String, Value>, leeway: Duration, now: Timestamp) -> Result<(), Reason> {
    let (now, leeway) = (now.as_micros() as f64 / 1e6, leeway.as_secs_f64());
    let expires = seconds(claims, "exp")?.ok_or(Reason::ClaimUnusable)?;
    if now >= expires + leeway {
        return Err(Reason::TokenExpired);
    }
    for begins in [seconds(claims, "nbf")?, seconds(claims, "iat")?].into_iter().flatten() {
        if begins > now + leeway {
            return Err(Reason::TokenNotYetValid);
        }
    }
    Ok(())
}

fn is_for(claims: &Map<String, Value>, options: &IssuerOptions, resource: &str) -> bool {
    let wanted = |audience: &Value| {
        audience.as_str().is_some_and(|audience| {
            if options.audiences.is_empty() {
                audience == resource
            } else {
                options.audiences.iter().any(|wanted| wanted == audience)
            }
        })
    };
    match claims.get("aud") {
        Some(Value::Array(list)) => list.iter().any(wanted),
        Some(audience) => wanted(audience),
        None => false,
    }
}

/// What `cnf` binds the token to. A binding that is not understood must not be passed over.
fn bound_to(claims: &Map<String, Value>) -> Result<(Option<String>, Option<String>), Reason> {
    let Some(confirmation) = claims.get("cnf") else { return Ok((None, None)) };
    let confirmation = confirmation.as_object().ok_or(Reason::ClaimUnusable)?;
    let text = |name: &str| match confirmation.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Reason::ClaimUnusable),
    };
    let bound = (text("x5t#S256")?, text("jkt")?);
    if bound == (None, None) {
        return Err(Reason::ClaimUnusable);
    }
    Ok(bound)
}

fn name(claims: &Map<String, Value>, claim: &str) -> Option<String> {
    let name = claims.get(claim)?.as_str()?;
    let is_usable = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    is_usable.then(|| name.to_owned())
}

fn who(claims: &Map<String, Value>, issuer: &str, options: &IssuerOptions) -> Result<Identity, Reason> {
    let principal = name(claims, &options.principal_claim).ok_or(Reason::ClaimUnusable)?;
    let tenant = match &options.tenant_claim {
        Some(claim) => Some(name(claims, claim).ok_or(Reason::ClaimUnusable)?),
        None => options.tenant.clone(),
    };
    let client = match (claims.contains_key("client_id"), claims.contains_key("azp")) {
        (true, _) => Some(name(claims, "client_id").ok_or(Reason::ClaimUnusable)?),
        (false, true) => Some(name(claims, "azp").ok_or(Reason::ClaimUnusable)?),
        (false, false) => None,
    };
    // A client that acts for itself is its own subject (RFC 9068, section 2.2).
    let acts_for_itself = client.is_some() && client.as_deref() == claims.get("sub").and_then(Value::as_str);
    let kind = options.kind.unwrap_or(if acts_for_itself { Kind::Workload } else { Kind::User });
    Ok(Identity {
        tenant,
        principal: format!("{issuer}/{principal}"),
        kind,
        agent: client.map(|client| format!("{issuer}/{client}")),
        scopes: Some(scopes(claims)?),
        credential: Credential::Token,
    })
}

/// `scope`, a text with spaces (RFC 9068), or `scp`, that or a list, as some issuers have it.
fn scopes(claims: &Map<String, Value>) -> Result<Arc<[String]>, Reason> {
    let words = |text: &str| text.split(' ').filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect::<Vec<_>>();
    let scopes = match claims.get("scope").or_else(|| claims.get("scp")) {
        None => Vec::new(),
        Some(Value::String(text)) => words(text),
        Some(Value::Array(list)) => list
            .iter()
            .map(|scope| scope.as_str().map(ToOwned::to_owned))
            .collect::<Option<_>>()
            .ok_or(Reason::ClaimUnusable)?,
        Some(_) => return Err(Reason::ClaimUnusable),
    };
    if scopes.len() > SCOPES_MAX {
        return Err(Reason::ClaimUnusable);
    }
    Ok(scopes.into())
}
