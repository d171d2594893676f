//! Annotations of policies: names and obligations, read and checked when a set is loaded.
//!
//! An obligation that the gateway does not enforce is refused, because a policy that promises more than happens is worse
//! than none. Called while a set is compiled; must never let an annotation through that it does not know.

use std::time::Duration;

use cedar_policy::{ActionConstraint, Effect, Policy};

use crate::{
    allowance::{self, Allowance},
    near::nearest,
    obligations::{self, FreshnessDemand, Masking, OutputMode, Steps},
    verdict::{APPROVAL, DURABILITY, FRESHNESS, MASK, REWRITE, SCREEN_OUTPUT},
};

/// Longest time that an approval may be waited for.
const EXPIRES_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Annotations that say something of a policy and demand nothing.
const WORDS: [&str; 3] = ["id", "description", "owner"];
/// Annotations that demand something which this version enforces.
const ENFORCED: [&str; 9] =
    ["obligation", "expires", "approvers", "quorum", DURABILITY, MASK, REWRITE, FRESHNESS, SCREEN_OUTPUT];
/// Most approvers that one policy names, and the largest quorum.
const APPROVERS_MAX: usize = 64;
/// Whose arguments can be rewritten, and what alone declares what it depends on.
const TOOLS: [&str; 1] = ["tools/call"];
/// Whose results are screened.
const SCREENED: [&str; 5] = ["tools/call", "prompts/get", "resources/read", "tasks/get", "tasks/result"];

/// What a policy demands where it permits.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Demands {
    /// Somebody must approve.
    pub(crate) approval: Option<ApprovalWanted>,
    /// The record must be durable at each step.
    pub(crate) strict: bool,
    /// The record holds less of the call.
    pub(crate) mask: Option<Masking>,
    /// The arguments are changed.
    pub(crate) rewrite: Option<Steps>,
    /// What the call depends on must be fresh.
    pub(crate) freshness: Option<FreshnessDemand>,
    /// The result is looked at before the client gets it.
    pub(crate) output: Option<OutputMode>,
    /// Limits.
    pub(crate) allowance: Allowance,
    /// All of it as the policy says it, by name.
    pub(crate) said: Vec<(String, String)>,
}

/// How a policy wants to be approved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ApprovalWanted {
    /// Within this time, where one is said.
    pub(crate) expires: Option<Duration>,
    /// By these operators, sorted; by anybody where empty.
    pub(crate) approvers: Vec<String>,
    /// By so many of them.
    pub(crate) quorum: u32,
}

impl Default for ApprovalWanted {
    fn default() -> Self {
        Self { expires: None, approvers: Vec::new(), quorum: 1 }
    }
}

impl Demands {
    /// Whether nothing is demanded.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Refuses an annotation that cannot be carried out outside of some methods.
type May<'a> = &'a dyn Fn(&str, &[&str]) -> Result<(), String>;

/// Reads the annotations of a policy; an error says what is wrong and what to do.
pub(crate) fn demands(policy: &Policy) -> Result<Demands, String> {
    let demands = read(policy.annotations().collect(), &|name, methods| only_for(policy, name, methods))?;
    // What is denied has a record too, and nothing else to be demanded of.
    let only_masks = demands.said.iter().all(|(name, _)| name == MASK);
    if policy.effect() == Effect::Forbid && !only_masks {
        return Err("a forbid has no obligation but @mask: put @obligation on a permit".to_owned());
    }
    Ok(demands)
}

/// The same of what somebody elsewhere demands of one call.
pub(crate) fn demands_elsewhere(annotations: &[(String, String)], method: &str) -> Result<Demands, String> {
    let annotations = annotations.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    read(annotations, &|name, methods| match methods.contains(&method) {
        true => Ok(()),
        false => Err(format!("@{name} cannot be carried out for {method}")),
    })
}

/// Reads annotations.
fn read(mut annotations: Vec<(&str, &str)>, may: May<'_>) -> Result<Demands, String> {
    let mut demands = Demands::default();
    let mut wanted = ApprovalWanted::default();
    let mut needs_approval = None;
    let mut limits = allowance::Found::default();
    annotations.sort_unstable();
    let demanding = annotations.iter().filter(|(name, _)| !WORDS.contains(name));
    demands.said = demanding.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for (name, value) in annotations {
        match name {
            _ if WORDS.contains(&name) => {}
            "obligation" if value == APPROVAL => demands.approval = Some(ApprovalWanted::default()),
            "obligation" => {
                let near = nearest(value, [APPROVAL]);
                return Err(format!(
                    "knows no obligation {value:?}{near}: write @obligation({APPROVAL:?}) or leave it out"
                ));
            }
            "expires" => {
                wanted.expires = Some(duration(value)?);
                needs_approval = Some(name);
            }
            "approvers" => {
                wanted.approvers = names(value)?;
                needs_approval = Some(name);
            }
            "quorum" => {
                wanted.quorum = quorum(value)?;
                needs_approval = Some(name);
            }
            DURABILITY if value == "strict" => demands.strict = true,
            DURABILITY => {
                return Err(format!(
                    "knows no durability {value:?}: write @durability(\"strict\"), or leave it out for what the method has"
                ));
            }
            MASK => demands.mask = Some(Masking::parse(value)?),
            REWRITE => {
                may(name, &TOOLS)?;
                demands.rewrite = Some(Steps::parse(value)?);
            }
            FRESHNESS => {
                may(name, &TOOLS)?;
                demands.freshness = Some(FreshnessDemand::parse(value)?);
            }
            SCREEN_OUTPUT => {
                may(name, &SCREENED)?;
                demands.output = Some(OutputMode::parse(value)?);
            }
            _ if limits.take(name, value) => {}
            _ => return Err(refused(name)),
        }
    }
    demands.allowance = limits.read()?;
    if let (Some(name), None) = (needs_approval, &demands.approval) {
        return Err(format!("@{name} belongs to an approval: write @obligation({APPROVAL:?}) beside it"));
    }
    if !wanted.approvers.is_empty() && wanted.approvers.len() < wanted.quorum as usize {
        let (named, quorum) = (wanted.approvers.len(), wanted.quorum);
        return Err(format!(
            "@quorum({quorum:?}) can never be met: @approvers names {named}; name more, or ask for fewer"
        ));
    }
    if demands.approval.is_some() {
        demands.approval = Some(wanted);
    }
    Ok(demands)
}

/// Refuses an annotation on a policy whose scope holds for more than it can be carried out for.
fn only_for(policy: &Policy, annotation: &str, methods: &[&str]) -> Result<(), String> {
    let named = |uid: &cedar_policy::EntityUid| methods.contains(&uid.id().unescaped());
    let fits = match policy.action_constraint() {
        ActionConstraint::Any => false,
        ActionConstraint::Eq(uid) => named(&uid),
        ActionConstraint::In(uids) => uids.iter().all(named),
    };
    if fits {
        return Ok(());
    }
    let actions = methods.iter().map(|method| format!("Action::{method:?}")).collect::<Vec<_>>().join(", ");
    Err(match methods.len() {
        1 => format!("@{annotation} is for {} alone: write action == {actions} in the scope", methods[0]),
        _ => format!(
            "@{annotation} is for what gives results: write action in [{actions}], or some of them, in the scope"
        ),
    })
}

fn refused(name: &str) -> String {
    let known = WORDS.iter().chain(&ENFORCED).chain(&allowance::NAMES).copied();
    format!("knows no annotation @{name}{}", nearest(name, known))
}

/// Operators' names, with commas between.
fn names(text: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    let fits = |name: &String| {
        !name.is_empty() && name.len() <= 128 && name.chars().all(|c| c.is_alphanumeric() || "-_.@+:".contains(c))
    };
    if names.len() > APPROVERS_MAX || !names.iter().all(fits) {
        return Err(format!(
            "@approvers({text:?}) wants the names of at most {APPROVERS_MAX} operators with commas between, such as \"ann, ben\""
        ));
    }
    Ok(names)
}

/// How many must approve.
fn quorum(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(quorum) if (1..=APPROVERS_MAX as u32).contains(&quorum) => Ok(quorum),
        _ => Err(format!("@quorum({text:?}) is no number of approvers: write 1 to {APPROVERS_MAX}")),
    }
}

/// A time such as `90s`, `10m` or `2h`.
fn duration(text: &str) -> Result<Duration, String> {
    obligations::duration(text, EXPIRES_MAX).map_err(|what| format!("@expires({text:?}) {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_demanded_elsewhere_is_read_alike_and_kept_as_it_was_said() {
        let said = |all: &[(&str, &str)]| -> Vec<(String, String)> {
            all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let all = said(&[("mask", "none"), ("obligation", "approval"), ("quorum", "2")]);
        let here = read("@quorum(\"2\") @id(\"x\") @mask(\"none\") @obligation(\"approval\")").expect("known");
        assert_eq!((demands_elsewhere(&all, "ping"), &here.said), (Ok(here.clone()), &all));
        for (name, value, method) in
            [("encrypt", "yes", "ping"), ("rewrite", "remove /a", "ping"), ("mask", "some", "tools/call")]
        {
            assert!(demands_elsewhere(&said(&[(name, value)]), method).is_err(), "{name}");
        }
    }

    fn read(annotations: &str) -> Result<Demands, String> {
        read_for("action == Action::\"tools/call\"", annotations)
    }

    fn read_for(action: &str, annotations: &str) -> Result<Demands, String> {
        demands(
            &Policy::parse(None, format!("{annotations} permit(principal, {action}, resource);")).expect("a policy"),
        )
    }

    #[test]
    fn what_is_enforced_loads() {
        let read = |annotations: &str| read(annotations).map(|demands| Demands { said: Vec::new(), ..demands });
        assert_eq!(read("@id(\"a\") @owner(\"me\")"), Ok(Demands::default()));
        let expires = Some(Duration::from_secs(600));
        let approval = Some(ApprovalWanted { expires, ..ApprovalWanted::default() });
        assert_eq!(read("@obligation(\"approval\") @expires(\"10m\")"), Ok(Demands { approval, ..Demands::default() }));
        let approvers = vec!["ann".to_owned(), "ben@example.org".to_owned(), "carl".to_owned()];
        let approval = Some(ApprovalWanted { expires: None, approvers, quorum: 2 });
        assert_eq!(
            read("@quorum(\"2\") @approvers(\"carl, ann,ben@example.org\") @obligation(\"approval\")"),
            Ok(Demands { approval, ..Demands::default() })
        );
        assert_eq!(read("@durability(\"strict\")"), Ok(Demands { strict: true, ..Demands::default() }));
    }

    #[test]
    fn an_obligation_stands_only_where_it_can_be_carried_out() {
        let several = "action in [Action::\"tools/call\", Action::\"resources/read\"]";
        for (annotation, elsewhere) in
            [("@rewrite(\"remove /a\")", false), ("@freshness(\"30s\")", false), ("@screen_output(\"block\")", true)]
        {
            assert!(read(annotation).is_ok(), "{annotation}");
            assert_eq!(read_for(several, annotation).is_ok(), elsewhere, "{annotation}");
            for action in ["action", "action == Action::\"tools/list\"", "action in Action::\"to_server\""] {
                let error = read_for(action, annotation).expect_err(annotation);
                assert!(error.contains("in the scope") && error.contains("tools/call"), "{error}");
            }
        }
        assert!(read_for("action", "@mask(\"digest\")").is_ok());
        let forbid = |annotation: &str| {
            demands(
                &Policy::parse(None, format!("{annotation} forbid(principal, action, resource);")).expect("a policy"),
            )
        };
        assert!(forbid("@mask(\"none\")").is_ok(), "what is denied has a record too");
        assert!(forbid("@mask(\"none\") @durability(\"strict\")").expect_err("a forbid").contains("@mask"));
    }

    #[test]
    fn a_mistake_is_told_with_what_was_meant() {
        for (written, said) in [
            ("@rat(\"1/1m\")", "did you mean rate?"),
            ("@cost(\"1\")", "@budget"),
            ("@obligaton(\"approval\")", "did you mean obligation?"),
            ("@obligation(\"aproval\")", "did you mean approval?"),
            ("@durability(\"weak\")", "strict"),
            ("@expires(\"10m\")", "@obligation"),
            ("@quorum(\"2\")", "@obligation"),
            ("@obligation(\"approval\") @quorum(\"0\")", "1 to 64"),
            ("@obligation(\"approval\") @quorum(\"two\")", "1 to 64"),
            ("@obligation(\"approval\") @quorum(\"3\") @approvers(\"ann, ben, ann\")", "names 2"),
            ("@obligation(\"approval\") @approvers(\"ann,,ben\")", "commas between"),
            ("@obligation(\"approval\") @approvers(\"\")", "commas between"),
            ("@obligation(\"approval\") @expires(\"10\")", "\"10m\""),
            ("@obligation(\"approval\") @expires(\"10 m\")", "\"10m\""),
            ("@obligation(\"approval\") @expires(\"0s\")", "at least 1s"),
            ("@obligation(\"approval\") @expires(\"9999999999999999999d\")", "at most 30d"),
            ("@obligation(\"approval\") @expires(\"99d\")", "at most 30d"),
            ("@obligation(\"approval\") @expires(\"10é\")", "no time"),
        ] {
            let error = read(written).expect_err(written);
            assert!(error.contains(said), "{written}: {error}");
        }
    }
}
