//! What somebody is called by their client certificate: its subject, changed by rules as those of `ssl.principal.mapping.rules`.
//! Called where a connection begins, for certificates that the handshake has verified.
//!
//! A subject is written as RFC 2253 says, and as Kafka writes it: the last part first, `CN=ada,OU=ops,O=Example`.

use std::{fmt::Write, str::FromStr};

use regex::Regex;
use x509_parser::{
    parse_x509_certificate,
    x509::{AttributeTypeAndValue, X509Name},
};

/// Longest subject, in bytes.
const SUBJECT_BYTES_MAX: usize = 1_024;
/// Longest pattern, and what it may be compiled to, in bytes.
const PATTERN_BYTES_MAX: usize = 1_024;
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// The attributes that RFC 2253 names; any other is written by its number.
const NAMED: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
];

/// One rule: `DEFAULT`, which takes the subject as it is, or `RULE:pattern/replacement/` with `L` or `U` behind it.
#[derive(Debug, Clone)]
pub struct NameRule(Option<Mapping>);

#[derive(Debug, Clone)]
struct Mapping {
    pattern: Regex,
    replacement: String,
    case: Case,
}

#[derive(Debug, Clone, Copy)]
enum Case {
    Kept,
    Lower,
    Upper,
}

impl FromStr for NameRule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "DEFAULT" {
            return Ok(Self(None));
        }
        let wrong = || format!("`{text}` is neither DEFAULT nor RULE:pattern/replacement/ with L or U behind it");
        let rule = text.strip_prefix("RULE:").ok_or_else(wrong)?;
        let (rule, case) = rule.rsplit_once('/').ok_or_else(wrong)?;
        let (pattern, replacement) = rule.split_once('/').ok_or_else(wrong)?;
        let case = match case {
            "" => Case::Kept,
            "L" => Case::Lower,
            "U" => Case::Upper,
            _ => return Err(wrong()),
        };
        if pattern.len() > PATTERN_BYTES_MAX || replacement.contains('/') {
            return Err(wrong());
        }
        let built = regex::RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(COMPILED_BYTES_MAX).build();
        let pattern = built.map_err(|error| format!("`{text}`: {error}"))?;
        // `$1x` is the first group and an x, as in Java, and no group called 1x.
        let numbers = Regex::new(r"\$(\d)").expect("a pattern of ours");
        let replacement = numbers.replace_all(replacement, "$${$1}").into_owned();
        Ok(Self(Some(Mapping { pattern, replacement, case })))
    }
}

impl NameRule {
    fn apply(&self, subject: &str) -> Option<String> {
        let Some(Mapping { pattern, replacement, case }) = &self.0 else { return Some(subject.to_owned()) };
        let found = pattern.captures(subject)?;
        let mut name = String::new();
        found.expand(replacement, &mut name);
        let name = match case {
            Case::Kept => name,
            Case::Lower => name.to_lowercase(),
            Case::Upper => name.to_uppercase(),
        };
        Some(name).filter(|name| !name.is_empty())
    }
}

/// The name of a verified certificate: by the first rule that fits, or its subject where there are no rules. None where it has no
/// subject or no rule fits.
pub(crate) fn of_certificate(der: &[u8], rules: &[NameRule]) -> Option<String> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let subject = written(certificate.subject())?;
    if rules.is_empty() { Some(subject) } else { rules.iter().find_map(|rule| rule.apply(&subject)) }
}

fn written(name: &X509Name<'_>) -> Option<String> {
    let mut text = String::new();
    for parts in name.iter().collect::<Vec<_>>().into_iter().rev() {
        for (at, part) in parts.iter().enumerate() {
            match at {
                0 if text.is_empty() => {}
                0 => text.push(','),
                _ => text.push('+'),
            }
            attribute(part, &mut text)?;
        }
    }
    (!text.is_empty() && text.len() <= SUBJECT_BYTES_MAX && !text.chars().any(char::is_control)).then_some(text)
}

fn attribute(part: &AttributeTypeAndValue<'_>, text: &mut String) -> Option<()> {
    let number = part.attr_type().to_id_string();
    let name = NAMED.iter().find(|(named, _)| *named == number);
    match (name, part.as_str()) {
        (Some((_, name)), Ok(value)) => {
            write!(text, "{name}=").ok()?;
            escape(value, text);
        }
        // As RFC 2253 writes what it has no name for: the number, and the value's bytes.
        _ => {
            write!(text, "{number}=#").ok()?;
            let value = part.attr_value();
            let length = u8::try_from(value.data.len()).ok().filter(|length| *length < 128)?;
            let tag = u8::try_from(value.tag().0).ok()?;
            [tag, length].iter().chain(value.data).for_each(|byte| {
                let _ = write!(text, "{byte:02x}");
            });
        }
    }
    Some(())
}

/// A value, so that it cannot pass for more of the name than it is.
fn escape(value: &str, text: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (at, sign) in value.chars().enumerate() {
        let at_an_end = (at == 0 && (sign == '#' || sign == ' ')) || (at == last && sign == ' ');
        if at_an_end || matches!(sign, ',' | '+' | '"' | '\\' | '<' | '>' | ';') {
            text.push('\\');
        }
        text.push(sign);
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn certificate(parts: &[(DnType, &str)]) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        params.self_signed(&KeyPair::generate().expect("a key")).expect("a certificate").der().to_vec()
    }

    fn rules(texts: &[&str]) -> Vec<NameRule> {
        texts.iter().map(|text| text.parse().expect("a rule")).collect()
    }

    #[test]
    fn a_subject_is_written_as_kafka_writes_it_and_nothing_in_it_passes_for_more() {
        let name = |parts: &[(DnType, &str)]| of_certificate(&certificate(parts), &[]);
        use DnType::{CommonName, CountryName, OrganizationName, OrganizationalUnitName};
        let parts =
            [(CountryName, "DE"), (OrganizationName, "Example"), (OrganizationalUnitName, "ops"), (CommonName, "ada")];
        assert_eq!(name(&parts).as_deref(), Some("CN=ada,OU=ops,O=Example,C=DE"));
        let forged = [(CommonName, "eve,OU=admins+x;\\ ")];
        assert_eq!(name(&forged).as_deref(), Some("CN=eve\\,OU=admins\\+x\\;\\\\\\ "));
        assert_eq!(name(&[(CommonName, "#1")]).as_deref(), Some("CN=\\#1"));
        let mail = DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]);
        assert_eq!(name(&[(mail, "a")]).as_deref(), Some("1.2.840.113549.1.9.1=#0c0161"));
        assert_eq!(name(&[]), None, "nobody");
        assert_eq!(name(&[(CommonName, "a\nb")]), None);
        assert_eq!(name(&[(CommonName, &"n".repeat(2_000))]), None);
        assert_eq!(of_certificate(b"no certificate", &[]), None);
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_a_rule_fits_the_whole_subject() {
        use DnType::{CommonName, OrganizationName, OrganizationalUnitName};
        let ada = certificate(&[(OrganizationName, "Example"), (OrganizationalUnitName, "Ops"), (CommonName, "Ada")]);
        let name = |texts: &[&str]| of_certificate(&ada, &rules(texts));
        assert_eq!(name(&["RULE:CN=(.*?),OU=Ops.*/$1/L", "DEFAULT"]).as_deref(), Some("ada"));
        assert_eq!(name(&["RULE:^CN=([^,]+),.*$/$1@kafka/U"]).as_deref(), Some("ADA@KAFKA"));
        assert_eq!(name(&["RULE:CN=Bob.*/bob/", "DEFAULT"]).as_deref(), Some("CN=Ada,OU=Ops,O=Example"));
        assert_eq!(name(&["RULE:CN=Ada/ada/"]), None, "a part of a subject is not the subject");
        assert_eq!(name(&["RULE:.*/$7/"]), None, "a name of nothing");
        for wrong in [
            "",
            "default",
            "RULE:",
            "RULE:a",
            "RULE:a/b",
            "RULE:a/b/X",
            "RULE:(/b/",
            "RULE:a/b/c/",
            "RULE:(a{1000}){1000}/b/",
        ] {
            assert!(wrong.parse::<NameRule>().is_err(), "{wrong}");
        }
    }
}
