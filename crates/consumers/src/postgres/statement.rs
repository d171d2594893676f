//! The text of a question, as PostgreSQL would cut it into words: which functions it calls.
//!
//! PostgreSQL itself says whether the text is one statement, and one that only reads; here it is looked what that cannot tell. What
//! might be read otherwise than there is refused: names with Unicode escapes, and names that the server would cut.

/// PostgreSQL cuts longer names.
const NAME_BYTES_MAX: usize = 63;

/// A name before a parenthesis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Called {
    /// What stands before it, with a dot between.
    pub(super) schema: Option<String>,
    /// As the server knows it.
    pub(super) name: String,
}

/// The question without the semicolon behind it, and every name in it that stands before a parenthesis.
pub(super) fn read(sql: &str) -> Result<(&str, Vec<Called>), &'static str> {
    let mut reader = Reader { bytes: sql.as_bytes(), at: 0 };
    let mut called = Vec::new();
    // The last two names with a dot between, for as long as nothing else came.
    let (mut before, mut last, mut has_dot): (Option<String>, Option<String>, bool) = (None, None, false);
    let (mut end, mut is_over) = (sql.len(), false);
    while let Some(token) = reader.next()? {
        if is_over {
            return Err("ask one question at a time");
        }
        match token {
            Token::Name(name) => {
                before = if has_dot { last.take() } else { None };
                last = Some(name);
                has_dot = false;
            }
            Token::Sign(b'.') => has_dot = last.is_some(),
            Token::Sign(sign) => {
                if let (b'(', Some(name)) = (sign, last.take()) {
                    called.push(Called { schema: before.take(), name });
                }
                if sign == b';' {
                    (end, is_over) = (reader.at - 1, true);
                }
                (before, last, has_dot) = (None, None, false);
            }
            Token::Other => (before, last, has_dot) = (None, None, false),
        }
    }
    Ok((&sql[..end], called))
}

enum Token {
    Name(String),
    Sign(u8),
    /// A text, a number.
    Other,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

const fn begins_name(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

const fn continues_name(byte: u8) -> bool {
    begins_name(byte) || byte.is_ascii_digit() || byte == b'$'
}

impl Reader<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or_default()
    }

    /// The next word; nothing at the end.
    fn next(&mut self) -> Result<Option<Token>, &'static str> {
        self.pass_blanks()?;
        let Some(first) = self.bytes.get(self.at).copied() else { return Ok(None) };
        let token = match first {
            b'\'' => self.text(false),
            b'"' => return self.quoted().map(Some),
            b'$' if self.peek(1) == b'$' || begins_name(self.peek(1)) => self.dollars(),
            b'0'..=b'9' => {
                while continues_name(self.peek(0)) || self.peek(0) == b'.' {
                    self.at += 1;
                }
                Ok(Token::Other)
            }
            first if begins_name(first) => self.name(),
            sign => {
                self.at += 1;
                Ok(Token::Sign(sign))
            }
        };
        token.map(Some)
    }

    /// Blanks and comments; those of PostgreSQL nest.
    fn pass_blanks(&mut self) -> Result<(), &'static str> {
        loop {
            match (self.peek(0), self.peek(1)) {
                (b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, _) => self.at += 1,
                (b'-', b'-') => {
                    while !matches!(self.peek(0), b'\n' | b'\r') && self.at < self.bytes.len() {
                        self.at += 1;
                    }
                }
                (b'/', b'*') => {
                    let mut depth = 0_usize;
                    loop {
                        match (self.peek(0), self.peek(1)) {
                            (b'/', b'*') => (depth, self.at) = (depth + 1, self.at + 2),
                            (b'*', b'/') => (depth, self.at) = (depth - 1, self.at + 2),
                            _ if self.at >= self.bytes.len() => return Err("a comment has no end"),
                            _ => self.at += 1,
                        }
                        if depth == 0 {
                            break;
                        }
                    }
                }
                _ => return Ok(()),
            }
        }
    }

    fn name(&mut self) -> Result<Token, &'static str> {
        let start = self.at;
        while continues_name(self.peek(0)) {
            self.at += 1;
        }
        let name = &self.bytes[start..self.at];
        match (name, self.peek(0)) {
            ([b'e' | b'E'], b'\'') => return self.text(true),
            ([b'b' | b'B' | b'x' | b'X' | b'n' | b'N'], b'\'') => return self.text(false),
            ([b'u' | b'U'], b'&') if matches!(self.peek(1), b'\'' | b'"') => {
                return Err("write names and texts without Unicode escapes (U&)");
            }
            _ => {}
        }
        bounded(&String::from_utf8_lossy(name).to_ascii_lowercase())
    }

    /// A text in quotes; one with an E before it has escapes.
    fn text(&mut self, has_escapes: bool) -> Result<Token, &'static str> {
        self.at += 1;
        loop {
            match (self.peek(0), self.peek(1)) {
                _ if self.at >= self.bytes.len() => return Err("a text has no end"),
                (b'\'', b'\'') => self.at += 2,
                (b'\\', _) if has_escapes => self.at += 2,
                (b'\'', _) => break,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Ok(Token::Other)
    }

    fn quoted(&mut self) -> Result<Token, &'static str> {
        self.at += 1;
        let mut name = Vec::new();
        loop {
            match (self.peek(0), self.peek(1)) {
                _ if self.at >= self.bytes.len() => return Err("a name in quotes has no end"),
                (b'"', b'"') => {
                    name.push(b'"');
                    self.at += 2;
                }
                (b'"', _) => break,
                (byte, _) => {
                    name.push(byte);
                    self.at += 1;
                }
            }
        }
        self.at += 1;
        bounded(&String::from_utf8_lossy(&name))
    }

    /// A text between `$tag$` and `$tag$`.
    fn dollars(&mut self) -> Result<Token, &'static str> {
        let start = self.at;
        self.at += 1;
        while begins_name(self.peek(0)) || self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
        if self.peek(0) != b'$' {
            return Err("a dollar stands where none can");
        }
        self.at += 1;
        let tag = &self.bytes[start..self.at];
        let rest = &self.bytes[self.at..];
        let length = rest.windows(tag.len()).position(|window| window == tag).ok_or("a text has no end")?;
        self.at += length + tag.len();
        Ok(Token::Other)
    }
}

fn bounded(name: &str) -> Result<Token, &'static str> {
    if name.len() > NAME_BYTES_MAX { Err("a name is longer than 63 bytes") } else { Ok(Token::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(sql: &str) -> Vec<String> {
        let (_, called) = read(sql).unwrap_or_else(|why| panic!("{sql}: {why}"));
        let shown =
            |one: Called| one.schema.map_or_else(|| one.name.clone(), |schema| format!("{schema}.{}", one.name));
        called.into_iter().map(shown).collect()
    }

    #[test]
    fn every_name_before_a_parenthesis_is_found_however_it_is_written() {
        assert_eq!(names("SELECT Count(*), \"Lower\"(a), x . y ( 1 ) FROM t"), ["count", "Lower", "x.y"]);
        assert_eq!(names("SELECT pg_sleep -- a word (\n /* and /* another */ ( */ (1)"), ["pg_sleep"]);
        assert_eq!(names("SELECT 'f(1)', E'\\'f(', $$g(1)$$, $a$h($b$1)$a$, B'1', \"q(\"\"\" , 1e5"), [""; 0]);
        assert_eq!(names("SELECT 1 WHERE a IN (SELECT b.c(1))"), ["in", "b.c"]);
        assert_eq!(names("SELECT f$1(2), $1"), ["f$1"]);
        assert_eq!(names("SELECT a. /**/ \"b\"(c)"), ["a.b"]);
    }

    #[test]
    fn what_the_server_might_read_otherwise_is_refused() {
        for sql in [
            "SELECT U&\"\\0070g_sleep\"(1)",
            "SELECT u&'\\0070'",
            "SELECT 1; SELECT 2",
            "SELECT 'a",
            "SELECT /* 1",
            "SELECT \"a",
            "SELECT $a$ b",
            &format!("SELECT {}(1)", "a".repeat(64)),
        ] {
            assert!(read(sql).is_err(), "{sql}");
        }
        assert_eq!(read("SELECT 1 ; -- done").expect("a question").0, "SELECT 1 ");
    }
}
