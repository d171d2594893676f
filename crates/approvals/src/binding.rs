//! The digest that an approval is bound to.
//!
//! Over the canonical form of one JSON object (RFC 8785, with numbers as they were written: rounding would let one amount
//! stand for another), under a key of this installation, since small arguments could be guessed. Called when a call asks
//! for an approval and when one wants to claim it; must leave out nothing that an approver looked at.

use cairn_contract::{CanonicalError, DigestKey, canonical_json, canonical_value};
use serde_json::json;

/// Everything that an approval is for.
#[derive(Clone, Copy, Debug)]
pub struct Bound<'a> {
    /// The caller's tenant.
    pub tenant: Option<&'a str>,
    /// Who calls.
    pub principal: &'a str,
    /// Through which agent, as its credential says.
    pub agent: Option<&'a str>,
    /// The upstream.
    pub server: &'a str,
    /// The method.
    pub method: &'a str,
    /// The tool, prompt or resource.
    pub target: &'a str,
    /// The exact arguments, as JSON text.
    pub arguments: &'a [u8],
    /// The policy set that wants the approval.
    pub policy_version: &'a str,
    /// The definition of the tool, as the catalogue holds it.
    pub tool_digest: Option<&'a str>,
}

/// The digest of what an approval is for.
///
/// # Errors
/// Arguments that have no canonical form.
pub fn binding(key: &DigestKey, bound: &Bound<'_>) -> Result<String, CanonicalError> {
    let arguments = canonical_json(bound.arguments)?;
    let about = canonical_value(&json!({
        "agent": bound.agent,
        "method": bound.method,
        "policy_version": bound.policy_version,
        "principal": bound.principal,
        "server": bound.server,
        "target": bound.target,
        "tenant": bound.tenant,
        "tool_digest": bound.tool_digest,
    }));
    // Both are canonical, so this is, too: "about" comes before "arguments".
    let text = format!("{{\"about\":{about},\"arguments\":{arguments}}}");
    Ok(key.digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUND: Bound<'_> = Bound {
        tenant: None,
        principal: "ada",
        agent: Some("a"),
        server: "orders",
        method: "tools/call",
        target: "refund_order",
        arguments: br#"{"cents":9007199254740993,"order":"1"}"#,
        policy_version: "sha256:1",
        tool_digest: None,
    };

    fn of(bound: &Bound<'_>) -> String {
        binding(&DigestKey::new("k", &[7; 32]).expect("a key"), bound).expect("canonical")
    }

    #[test]
    fn the_same_call_written_otherwise_is_the_same() {
        let arguments = b"{ \"order\" : \"\\u0031\", \"cents\":9007199254740993 }";
        assert_eq!(of(&BOUND), of(&Bound { arguments, ..BOUND }));
    }

    #[test]
    fn whatever_differs_is_another_approval() {
        let whole = of(&BOUND);
        for other in [
            Bound { tenant: Some("t"), ..BOUND },
            Bound { principal: "adb", ..BOUND },
            Bound { agent: None, ..BOUND },
            Bound { server: "order", ..BOUND },
            Bound { method: "prompts/get", ..BOUND },
            Bound { target: "refund_orders", ..BOUND },
            Bound { arguments: br#"{"cents":9007199254740992,"order":"1"}"#, ..BOUND },
            Bound { arguments: br#"{"cents":9007199254740993.0,"order":"1"}"#, ..BOUND },
            Bound { arguments: br#"{"cents":9007199254740993,"order":1}"#, ..BOUND },
            Bound { arguments: b"{}", ..BOUND },
            Bound { policy_version: "sha256:2", ..BOUND },
            Bound { tool_digest: Some("sha256:3"), ..BOUND },
        ] {
            assert_ne!(of(&other), whole, "{other:?}");
        }
        let key = DigestKey::new("k", &[8; 32]).expect("a key");
        assert_ne!(binding(&key, &BOUND).expect("canonical"), whole, "nobody can guess without the key");
        assert!(binding(&key, &Bound { arguments: b"{\"a\":1,\"a\":2}", ..BOUND }).is_err());
    }

    proptest! {
        #[test]
        fn no_text_moves_from_one_part_to_another(all in proptest::collection::vec("[a-b\",:{}]{0,4}", 5), cut in 0usize..4) {
            let mut moved = all.clone();
            let Some(last) = moved[cut].pop() else { return Ok(()) };
            moved[cut + 1].insert(0, last);
            let bound = |parts: &[String]| {
                let [principal, server, method, target, policy_version] = parts else { unreachable!("five parts") };
                of(&Bound { principal, server, method, target, policy_version, ..BOUND })
            };
            prop_assert!(moved == all || bound(&moved) != bound(&all));
        }
    }
}
