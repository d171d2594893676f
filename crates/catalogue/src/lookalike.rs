//! Names that look like others: skeletons and mixed scripts, by Unicode Technical Standard 39.

use unicode_security::{MixedScript, skeleton};

use crate::alerts::is_hidden;

/// Two names that share a shape look alike. Separators are passed over, and case: once before and once after letters are
/// taken for what they look like, since `I` looks like `l` and is the same as `i`.
pub(crate) fn shapes(name: &str) -> [String; 2] {
    let visible: String = name.chars().filter(|c| !is_hidden(*c) && !matches!(c, '_' | '-' | '.' | ' ')).collect();
    let looks = |text: &str| skeleton(text).flat_map(char::to_lowercase).collect();
    let folded: String = visible.chars().flat_map(char::to_lowercase).collect();
    [looks(&folded), looks(&visible)]
}

/// Whether two names look alike.
#[cfg(test)]
fn alike(one: &[String; 2], other: &[String; 2]) -> bool {
    one.iter().any(|shape| other.contains(shape))
}

/// The word of a name whose letters are of scripts that do not go together.
pub(crate) fn mixed_script(name: &str) -> Option<String> {
    let mut words = name.split(|c: char| !c.is_alphanumeric());
    words.find(|word| !word.is_ascii() && !word.is_single_script()).map(|word| word.chars().take(64).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_alike_has_one_shape() {
        for (one, other) in [
            ("get_order", "gеt_order"), // Cyrillic е
            ("get_order", "get-order"),
            ("get_order", "Get_Order"),
            ("paypal", "paypaI"), // capital i for l
            ("read_file", "read_fi\u{200b}le"),
        ] {
            assert!(alike(&shapes(one), &shapes(other)), "{one} and {other}");
        }
        assert!(!alike(&shapes("get_order"), &shapes("set_order")));
    }
}
