//! The words of a reader's error, made fit to be shown: without values, which may be secrets, and with the key that was
//! probably meant. Called by the configuration.

/// A TOML error with its line, without the line's content.
pub(crate) fn toml_words(error: &toml::de::Error, text: &str) -> String {
    let words = with_nearest(&without_values(error.message()));
    match error.span() {
        Some(span) => format!("line {}: {words}", text[..span.start.min(text.len())].matches('\n').count() + 1),
        None => words,
    }
}

/// `invalid type: string "…", expected …` shows the value; what stands there is its kind.
fn without_values(message: &str) -> String {
    for kind in ["string", "character", "byte array"] {
        if let Some((before, rest)) = message.split_once(&format!("{kind} \"")) {
            let after =
                rest.rsplit_once(", expected ").map_or(String::new(), |(_, after)| format!(", expected {after}"));
            return format!("{before}a {kind}{after}");
        }
    }
    for kind in ["integer", "floating point", "boolean"] {
        if let Some((before, rest)) = message.split_once(&format!("{kind} `")) {
            let after =
                rest.rsplit_once("`, expected ").map_or(String::new(), |(_, after)| format!(", expected {after}"));
            return format!("{before}{kind}{after}");
        }
    }
    message.to_owned()
}

/// Adds the known key that is nearest to an unknown one.
fn with_nearest(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (Some((unknown, known)), true) = (quoted.split_first(), message.contains("unknown ")) else {
        return message.to_owned();
    };
    let nearest = known.iter().map(|key| (distance(unknown, key), *key)).min();
    match nearest {
        Some((distance, key)) if distance <= 1 + unknown.len() / 4 => format!("{message}; did you mean `{key}`?"),
        _ => message.to_owned(),
    }
}

/// How many letters to add, take away or change.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_shown() {
        let shown = without_values("invalid type: string \"Bearer s3cret, expected \\\"x\", expected a map");
        assert_eq!(shown, "invalid type: a string, expected a map");
        assert_eq!(
            without_values("invalid type: integer `1234`, expected a string"),
            "invalid type: integer, expected a string"
        );
    }

    #[test]
    fn the_nearest_key_is_named_where_one_is_near() {
        let message = "unknown field `lisen`, expected one of `listen`, `origins`, `hosts`";
        assert!(with_nearest(message).ends_with("did you mean `listen`?"));
        let message = "unknown field `colour`, expected `listen` or `advertised`";
        assert_eq!(with_nearest(message), message);
    }
}
