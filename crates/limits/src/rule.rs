//! Rules: which calls they count, apart from whom, and what the bound is; and how people write them.

use std::{fmt, sync::Arc, time::Duration};

use crate::Amount;

/// Longest time that a rate or a budget can be counted over.
const WINDOW_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// Who gave a rule.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// The configuration.
    Configuration,
    /// A policy.
    Policy,
}

/// A limit on calls.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rule {
    /// Its name in the configuration, or the policy's id.
    pub name: Arc<str>,
    /// Who gave it.
    pub source: Source,
    /// Which calls it counts.
    pub applies: Applies,
    /// What it counts apart: each different value of these has a counter of its own.
    pub per: Vec<Part>,
    /// How much is allowed.
    pub bound: Bound,
}

/// Which calls a rule counts: all that agree in everything that is said.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Applies {
    /// Of this tenant.
    pub tenant: Option<String>,
    /// Of this principal.
    pub principal: Option<String>,
    /// Of this agent.
    pub agent: Option<String>,
    /// To this server.
    pub server: Option<String>,
    /// Of this tool.
    pub tool: Option<String>,
    /// Of these methods; of all where empty.
    pub methods: Vec<String>,
}

/// What calls can be counted apart by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Part {
    /// The tenant.
    Tenant,
    /// The principal, within its tenant.
    Principal,
    /// The agent.
    Agent,
    /// The server.
    Server,
    /// The tool, within its server.
    Tool,
    /// The workflow, within its principal.
    Workflow,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Tenant, Self::Principal, Self::Agent, Self::Server, Self::Tool, Self::Workflow];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Principal => "principal",
            Self::Agent => "agent",
            Self::Server => "server",
            Self::Tool => "tool",
            Self::Workflow => "workflow",
        }
    }

    /// Reads words with commas between.
    ///
    /// # Errors
    /// A word that is none of them.
    pub fn list<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Vec<Self>, String> {
        let mut parts = Vec::new();
        for word in words {
            let word = word.trim();
            let part = Self::ALL.into_iter().find(|part| part.word() == word).ok_or_else(|| {
                format!("{word:?} is nothing that calls are counted by: write tenant, principal, agent, server, tool or workflow")
            })?;
            parts.push(part);
        }
        parts.sort_unstable();
        parts.dedup();
        Ok(parts)
    }
}

/// How much is allowed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Bound {
    /// So many calls in a time.
    Rate(Rate),
    /// So many calls at once.
    Concurrency(u32),
    /// So much in a window of time, or in all.
    Budget(Budget),
}

/// What kind of bound it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dimension {
    /// Calls in a time.
    Rate,
    /// Calls at once.
    Concurrency,
    /// What calls cost.
    Budget,
}

impl Dimension {
    /// The word in events and errors.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Concurrency => "concurrency",
            Self::Budget => "budget",
        }
    }
}

impl Bound {
    /// What kind of bound it is.
    #[must_use]
    pub const fn dimension(&self) -> Dimension {
        match self {
            Self::Rate(_) => Dimension::Rate,
            Self::Concurrency(_) => Dimension::Concurrency,
            Self::Budget(_) => Dimension::Budget,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => write!(f, "{}/{}", rate.calls, Written(rate.every)),
            Self::Concurrency(calls) => write!(f, "{calls}"),
            Self::Budget(Budget { units, window: Some(window), .. }) => write!(f, "{units}/{}", Written(*window)),
            Self::Budget(Budget { units, window: None, .. }) => write!(f, "{units}"),
        }
    }
}

/// So many calls in a time, and so many at once after a pause.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Rate {
    /// How many,
    pub calls: u32,
    /// in this time, evenly.
    pub every: Duration,
    /// How many at once after a pause.
    pub burst: u32,
}

impl Rate {
    /// Reads `100/1m`; as many at once as in the whole time, unless `burst` says otherwise.
    ///
    /// # Errors
    /// A text that is no rate, in words that say what to write.
    pub fn parse(text: &str, burst: Option<u32>) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no rate: write calls and a time, such as \"100/1m\" or \"5/1s\"");
        let (calls, every) = text.split_once('/').ok_or_else(wrong)?;
        let calls: u32 = calls.trim().parse().map_err(|_| wrong())?;
        let every = window(every.trim()).ok_or_else(wrong)?;
        let burst = burst.unwrap_or(calls);
        if calls == 0 || burst == 0 {
            return Err(format!("{text:?} lets nothing through: forbid it by a policy instead, or write at least 1"));
        }
        Ok(Self { calls, every, burst })
    }
}

/// So much in a window of time, or in all.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Budget {
    /// How much.
    pub units: Amount,
    /// Renewed this often, counted from midnight UTC on 1 January 1970; never where absent.
    pub window: Option<Duration>,
    /// What a call costs.
    pub cost: Cost,
}

impl Budget {
    /// Reads `5000/1d`, or `5000` for what is never renewed.
    ///
    /// # Errors
    /// A text that is no budget, in words that say what to write.
    pub fn parse(text: &str, cost: Cost) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "{text:?} is no budget{why}: write units and a time, such as \"5000/1d\", or only units for what is never renewed"
            )
        };
        let (units, window) = match text.split_once('/') {
            Some((units, every)) => (units, Some(self::window(every.trim()).ok_or_else(|| wrong(""))?)),
            None => (text, None),
        };
        let units = Amount::parse(units.trim()).map_err(|error| wrong(&format!(" ({error})")))?;
        if units == Amount::ZERO {
            return Err(format!("{text:?} lets nothing through: forbid it by a policy instead, or write more than 0"));
        }
        Ok(Self { units, window, cost })
    }
}

/// What a call costs.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Cost {
    /// Always the same.
    Fixed(Amount),
    /// The number at this JSON pointer into the arguments; a call without one is refused.
    Argument(String),
    /// The number at this JSON pointer into the result, known when the call has ended; nothing where there is none.
    Result(String),
}

impl Cost {
    /// Reads `2.5`, `arguments:/amount` or `result:/structuredContent/tokens`.
    ///
    /// # Errors
    /// A text that is no cost, in words that say what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let pointer = |at: &str| at.starts_with('/') && at.len() <= 256;
        match text.split_once(':') {
            Some(("arguments", at)) if pointer(at) => Ok(Self::Argument(at.to_owned())),
            Some(("result", at)) if pointer(at) => Ok(Self::Result(at.to_owned())),
            None if Amount::parse(text).is_ok() => Ok(Self::Fixed(Amount::parse(text).unwrap_or_default())),
            _ => Err(format!(
                "{text:?} is no cost: write a number, or \"arguments:/<JSON pointer>\", or \"result:/<JSON pointer>\""
            )),
        }
    }
}

/// Whose call it is and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The tenant, where there is one.
    pub tenant: Option<&'a str>,
    /// The principal.
    pub principal: &'a str,
    /// The agent, where one is known.
    pub agent: Option<&'a str>,
    /// The server.
    pub server: &'a str,
    /// The tool, where the call is one of a tool.
    pub tool: Option<&'a str>,
    /// The JSON-RPC method.
    pub method: &'a str,
    /// The workflow.
    pub workflow: &'a str,
}

impl Applies {
    /// Whether it counts such a call.
    #[must_use]
    pub fn to(&self, subject: &Subject<'_>) -> bool {
        let agrees = |said: &Option<String>, is: Option<&str>| said.as_deref().is_none_or(|said| is == Some(said));
        agrees(&self.tenant, subject.tenant)
            && agrees(&self.principal, Some(subject.principal))
            && agrees(&self.agent, subject.agent)
            && agrees(&self.server, Some(subject.server))
            && agrees(&self.tool, subject.tool)
            && (self.methods.is_empty() || self.methods.iter().any(|method| method == subject.method))
    }
}

/// A time such as `90s`, `1m`, `h` or `30d`.
fn window(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let number: u64 = if number.is_empty() { 1 } else { number.parse().ok()? };
    number.checked_mul(unit).map(Duration::from_secs).filter(|time| !time.is_zero() && *time <= WINDOW_MAX)
}

/// A time as people write it.
struct Written(Duration);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (unit, word) = [(86_400, "d"), (3_600, "h"), (60, "m")]
            .into_iter()
            .find(|(unit, _)| seconds.is_multiple_of(*unit))
            .unwrap_or((1, "s"));
        write!(f, "{}{word}", seconds / unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_means_what_it_says() {
        let minute = Duration::from_secs(60);
        assert_eq!(Rate::parse("100/1m", None), Ok(Rate { calls: 100, every: minute, burst: 100 }));
        assert_eq!(Rate::parse("100/m", Some(5)), Ok(Rate { calls: 100, every: minute, burst: 5 }));
        let budget = Budget::parse("12.5/1d", Cost::parse("arguments:/amount").expect("a cost")).expect("a budget");
        assert_eq!(budget.units, Amount::from_millionths(12_500_000));
        assert_eq!((budget.window, budget.cost.clone()), (Some(minute * 1_440), Cost::Argument("/amount".into())));
        assert_eq!(Bound::Budget(budget).to_string(), "12.5/1d");
        assert_eq!(Bound::Rate(Rate::parse("3/90s", None).expect("a rate")).to_string(), "3/90s");
        assert_eq!(Budget::parse("7", Cost::Fixed(Amount::ONE)).expect("a budget").window, None);
        assert_eq!(Part::list(["tool", " tenant", "tool"]), Ok(vec![Part::Tenant, Part::Tool]));
    }

    #[test]
    fn what_means_nothing_is_told_with_what_to_write() {
        for text in ["", "100", "100/", "x/1m", "100/1y", "-1/1m", "100/0s", "1/99999999999999999999d", "1/é"] {
            assert!(Rate::parse(text, None).is_err_and(|error| error.contains("100/1m")), "{text}");
        }
        assert!(Rate::parse("0/1m", None).is_err_and(|error| error.contains("forbid")));
        assert!(Rate::parse("1/1m", Some(0)).is_err());
        for text in ["", "-5/1d", "5/1w", "five"] {
            let budget = Budget::parse(text, Cost::Fixed(Amount::ONE));
            assert!(budget.is_err_and(|error| error.contains("5000/1d")), "{text}");
        }
        assert!(Budget::parse("0/1d", Cost::Fixed(Amount::ONE)).is_err_and(|error| error.contains("forbid")));
        for text in ["", "-1", "arguments", "arguments:amount", "reply:/x"] {
            assert!(Cost::parse(text).is_err_and(|error| error.contains("JSON pointer")), "{text}");
        }
        assert!(Part::list(["user"]).is_err_and(|error| error.contains("principal")));
    }

    #[test]
    fn a_rule_counts_what_agrees_in_all_that_it_says() {
        let subject = Subject {
            tenant: None,
            principal: "ada",
            agent: Some("bot"),
            server: "orders",
            tool: Some("refund"),
            method: "tools/call",
            workflow: "w",
        };
        let some = |text: &str| Some(text.to_owned());
        assert!(Applies::default().to(&subject));
        let all = Applies {
            tenant: None,
            principal: some("ada"),
            agent: some("bot"),
            server: some("orders"),
            tool: some("refund"),
            methods: vec!["prompts/get".into(), "tools/call".into()],
        };
        assert!(all.to(&subject));
        for other in [
            Applies { tenant: some("acme"), ..all.clone() },
            Applies { principal: some("eve"), ..all.clone() },
            Applies { agent: some("x"), ..all.clone() },
            Applies { server: some("x"), ..all.clone() },
            Applies { tool: some("x"), ..all.clone() },
            Applies { methods: vec!["x".into()], ..all },
        ] {
            assert!(!other.to(&subject), "{other:?}");
        }
    }
}
