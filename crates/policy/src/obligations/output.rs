//! `@screen_output`: what becomes of a result in which detectors find something, before the client gets it.

use crate::near::nearest;

/// What is done with a result that holds what it should not; the last is the strictest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OutputMode {
    /// It is said in the record, and the result goes on as it is.
    Flag,
    /// What was found in texts is replaced; where it stands elsewhere, the result is blocked.
    Redact,
    /// The client gets an error in the result's place.
    Block,
}

impl OutputMode {
    /// Every mode with its word.
    const WORDS: [(&'static str, Self); 3] = [("flag", Self::Flag), ("redact", Self::Redact), ("block", Self::Block)];

    /// Reads the annotation.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let known = Self::WORDS.iter().find(|(word, _)| *word == text);
        known.map(|(_, mode)| *mode).ok_or_else(|| {
            let near = nearest(text, Self::WORDS.map(|(word, _)| word));
            format!("@screen_output({text:?}){near}: write \"block\", \"redact\" or \"flag\"")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::OutputMode;

    #[test]
    fn modes_are_words_and_ordered() {
        assert!(OutputMode::parse("block") > OutputMode::parse("redact"));
        assert!(OutputMode::Redact > OutputMode::Flag);
        assert!(OutputMode::parse("flg").expect_err("no mode").contains("did you mean flag?"));
    }
}
