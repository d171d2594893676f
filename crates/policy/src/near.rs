//! The name that was probably meant. Called by whatever refuses a name that it does not know.

/// `; did you mean …?` with the known name that is nearest, or nothing where none is near.
pub(crate) fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let near = known.into_iter().map(|name| (strsim::damerau_levenshtein(unknown, name), name)).min();
    match near {
        Some((distance, name)) if distance <= 1 + unknown.chars().count() / 4 => format!("; did you mean {name}?"),
        _ => String::new(),
    }
}
