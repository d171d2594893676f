//! JSON pointers (RFC 6901) in annotations, where `*` stands for any name or index.

/// Longest pointer, in bytes.
const BYTES_MAX: usize = 512;

/// The segments of a pointer, with its escapes undone. An error says what is wrong with it.
pub(crate) fn segments(text: &str) -> Result<Vec<String>, String> {
    if text.len() > BYTES_MAX {
        return Err(format!("names a pointer of more than {BYTES_MAX} bytes"));
    }
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let rest = text.strip_prefix('/').ok_or_else(|| {
        format!("{text:?} is no JSON pointer: begin it with '/', as in /card/number; * stands for any name or index")
    })?;
    rest.split('/').map(segment).collect()
}

fn segment(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut left = text.chars();
    while let Some(c) = left.next() {
        match (c, (c == '~').then(|| left.next()).flatten()) {
            ('~', Some('0')) => out.push('~'),
            ('~', Some('1')) => out.push('/'),
            ('~', _) => return Err(format!("{text:?} has a ~ that is neither ~0 (for ~) nor ~1 (for /)")),
            _ => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::segments;

    #[test]
    fn pointers_are_those_of_rfc_6901() {
        let read = |text| segments(text).map(|all| all.join("|"));
        assert_eq!(read(""), Ok(String::new()));
        assert_eq!(read("/a~1b/c~0d/*/0"), Ok("a/b|c~d|*|0".to_owned()));
        assert_eq!(read("/~01"), Ok("~1".to_owned()));
        for wrong in ["a", "a/b", "/~", "/~2", "/a~"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(segments(&format!("/{}", "x".repeat(512))).is_err());
    }
}
