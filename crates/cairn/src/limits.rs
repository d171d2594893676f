//! `[[limits]]` of the configuration, and `cairn limits`.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use cairn_limits::{Amount, Applies, Bound, Budget, Cost, Part, Rate, Rule, Source};
use serde::Deserialize;
use serde_json::Value;

use crate::{ask::Admin, say};

/// Most limits that can be configured.
const LIMITS_MAX: usize = 256;

/// `[[limits]]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitSection {
    name: String,
    tenant: Option<String>,
    principal: Option<String>,
    agent: Option<String>,
    server: Option<String>,
    tool: Option<String>,
    methods: Option<Vec<String>>,
    #[serde(default)]
    per: Vec<String>,
    rate: Option<String>,
    burst: Option<u32>,
    concurrency: Option<u32>,
    budget: Option<Number>,
    cost: Option<Number>,
}

/// A text, or a number as TOML may write it.
#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "a text or a number")]
enum Number {
    Text(String),
    Whole(i64),
    Decimal(f64),
}

impl Number {
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Whole(number) => number.to_string(),
            Self::Decimal(number) => number.to_string(),
        }
    }
}

/// The rules that all sections make; `servers` are the configured ones.
pub(crate) fn rules<'a>(
    sections: &[LimitSection],
    servers: impl Iterator<Item = &'a str> + Clone,
) -> anyhow::Result<Vec<Rule>> {
    if sections.len() > LIMITS_MAX {
        bail!("there are {} limits: {LIMITS_MAX} are the most", sections.len());
    }
    let (mut rules, mut names) = (Vec::new(), BTreeSet::new());
    for section in sections {
        let of = || format!("[[limits]] {:?}", section.name);
        if !names.insert(&section.name) {
            bail!("{}: the name is taken by a limit before: give each its own", of());
        }
        rules.extend(section.rules(servers.clone()).with_context(of)?);
    }
    Ok(rules)
}

impl LimitSection {
    fn rules<'a>(&self, mut servers: impl Iterator<Item = &'a str>) -> anyhow::Result<Vec<Rule>> {
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(named) {
            bail!("a name has 1 to 64 letters, digits, '-', '_' or '.'");
        }
        if let Some(server) = &self.server
            && !servers.any(|known| known == server)
        {
            bail!("there is no server {server:?}: name one of the configuration, or leave server out for all");
        }
        let wrong = |error: String| anyhow::anyhow!(error);
        let per = Part::list(self.per.iter().map(String::as_str)).map_err(wrong).context("per")?;
        let bounds = self.bounds()?;
        let methods = match &self.methods {
            None => vec!["tools/call".to_owned()],
            Some(methods) if methods.iter().any(|method| method == "*") => Vec::new(),
            Some(methods) if methods.is_empty() => {
                bail!("methods is empty, so nothing is counted: write [\"*\"] for all")
            }
            Some(methods) => methods.clone(),
        };
        let applies = Applies {
            tenant: self.tenant.clone(),
            principal: self.principal.clone(),
            agent: self.agent.clone(),
            server: self.server.clone(),
            tool: self.tool.clone(),
            methods,
        };
        let rule = |bound| {
            let (name, per, applies) = (self.name.as_str().into(), per.clone(), applies.clone());
            Rule { name, source: Source::Configuration, applies, per, bound }
        };
        Ok(bounds.into_iter().map(rule).collect())
    }

    fn bounds(&self) -> anyhow::Result<Vec<Bound>> {
        let wrong = |error: String| anyhow::anyhow!(error);
        let mut bounds = Vec::new();
        if let Some(rate) = &self.rate {
            bounds.push(Bound::Rate(Rate::parse(rate, self.burst).map_err(wrong).context("rate")?));
        }
        match self.concurrency {
            Some(0) => bail!("concurrency is 0, so nothing could pass: set it to at least 1, or forbid by a policy"),
            Some(calls) => bounds.push(Bound::Concurrency(calls)),
            None => {}
        }
        if let Some(budget) = &self.budget {
            let cost = self.cost.as_ref().map_or(Ok(Cost::Fixed(Amount::ONE)), |cost| Cost::parse(&cost.text()));
            let cost = cost.map_err(wrong).context("cost")?;
            bounds.push(Bound::Budget(Budget::parse(&budget.text(), cost).map_err(wrong).context("budget")?));
        }
        match (self.burst, &self.cost) {
            (Some(_), _) if self.rate.is_none() => bail!("burst belongs to a rate: set rate too"),
            (_, Some(_)) if self.budget.is_none() => bail!("cost belongs to a budget: set budget too"),
            _ if bounds.is_empty() => bail!("it allows everything: set rate, concurrency or budget"),
            _ => Ok(bounds),
        }
    }
}

/// What is used of which limit, as text or JSON.
pub(crate) async fn show(admin: &Admin, as_json: bool) -> anyhow::Result<String> {
    let value = admin.send("GET", "/limits", None).await?;
    if as_json {
        return Ok(value.to_string());
    }
    let list = |key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let of = |one: &Value, key: &str| say::plain(one.get(key).and_then(Value::as_str).unwrap_or_default());
    let mut lines = Vec::new();
    for one in list("limits") {
        let per: Vec<String> =
            one["per"].as_array().into_iter().flatten().filter_map(|part| part.as_str().map(say::plain)).collect();
        let each = if per.is_empty() { "all together".to_owned() } else { format!("each {}", per.join(" and ")) };
        lines.push(format!("{} {} {} for {each}", of(&one, "limit"), of(&one, "dimension"), of(&one, "allowed")));
    }
    for one in list("used") {
        let names = one["of"].as_object().cloned().unwrap_or_default();
        let names: Vec<String> = names
            .iter()
            .map(|(part, name)| format!("{part}={}", name.as_str().map_or_else(|| "none".to_owned(), say::plain)))
            .collect();
        let allowed = one.get("allowed").and_then(Value::as_str).map(|all| format!(" of {}", say::plain(all)));
        let renews = one.get("renews_at").and_then(Value::as_str).map(|at| format!(", renewed {}", say::plain(at)));
        lines.push(format!(
            "  {} {} used {}{}{} {}",
            of(&one, "limit"),
            of(&one, "dimension"),
            of(&one, "used"),
            allowed.unwrap_or_default(),
            renews.unwrap_or_default(),
            names.join(" "),
        ));
    }
    if lines.is_empty() {
        return Ok("there are no limits, and nothing is used of any".to_owned());
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Vec<Rule>> {
        #[derive(Deserialize)]
        struct All {
            limits: Vec<LimitSection>,
        }
        rules(&toml::from_str::<All>(text)?.limits, ["orders"].into_iter())
    }

    #[test]
    fn a_section_is_a_rule_for_each_bound() {
        let all = read(
            "[[limits]]\nname = \"r\"\nserver = \"orders\"\nper = [\"agent\", \"tenant\"]\nrate = \"5/1m\"\nburst = 2\nconcurrency = 3\nbudget = 2.5\ncost = 0.5\n",
        )
        .expect("rules");
        assert_eq!(all.iter().map(|rule| rule.bound.to_string()).collect::<Vec<_>>(), ["5/1m", "3", "2.5"]);
        assert!(
            all.iter().all(|rule| rule.per == [Part::Tenant, Part::Agent] && rule.applies.methods == ["tools/call"])
        );
        let all = read("[[limits]]\nname = \"r\"\nmethods = [\"*\"]\nconcurrency = 3\n").expect("rules");
        assert!(all[0].applies.methods.is_empty());
    }

    #[test]
    fn what_makes_no_sense_is_told_with_what_to_do() {
        for (text, said) in [
            ("name = \"\"\nconcurrency = 1", "1 to 64"),
            ("name = \"a b\"\nconcurrency = 1", "1 to 64"),
            ("name = \"a\"", "set rate"),
            ("name = \"a\"\nconcurrency = 0", "at least 1"),
            ("name = \"a\"\nconcurrency = 1\nburst = 1", "set rate too"),
            ("name = \"a\"\nconcurrency = 1\ncost = 1", "set budget too"),
            ("name = \"a\"\nrate = \"fast\"", "100/1m"),
            ("name = \"a\"\nbudget = 0", "forbid"),
            ("name = \"a\"\nbudget = \"5/1d\"\ncost = \"price\"", "JSON pointer"),
            ("name = \"a\"\nconcurrency = 1\nserver = \"x\"", "no server \"x\""),
            ("name = \"a\"\nconcurrency = 1\nper = [\"user\"]", "principal"),
            ("name = \"a\"\nconcurrency = 1\nmethods = []", "[\"*\"]"),
            ("name = \"a\"\nconcurrency = 1\n[[limits]]\nname = \"a\"\nconcurrency = 1", "is taken"),
            ("name = \"a\"\nconcurency = 1", "concurency"),
        ] {
            let error = format!("{:#}", read(&format!("[[limits]]\n{text}\n")).expect_err(text));
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
