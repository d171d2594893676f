//! Standard output as a command line needs it: a reader that has gone ends the program quietly.
//!
//! `cairn trail | head` closes the pipe early; `println!` would panic then. Every command prints through here. What an
//! agent or a server chose must never move the cursor, change a colour or turn the direction of a line in the terminal of the
//! person who reads it, least of all of one who approves it.

use std::{fmt, io::Write};

/// Prints one line. Where nobody reads any more, the process ends as if it were done.
pub(crate) fn line(words: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{words}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// Text that somebody else chose, with everything written out that a terminal would act on or not show.
pub(crate) fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let is_hidden = matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
        if c.is_control() || is_hidden {
            out.push_str(&format!("\\u{{{:04x}}}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn what_a_terminal_would_act_on_is_written_out() {
        assert_eq!(plain("order-1 é 日本"), "order-1 é 日本");
        assert_eq!(plain("a\u{1b}[2Kb\u{9b}1mc\r\n"), "a\\u{001b}[2Kb\\u{009b}1mc\\u{000d}\\u{000a}");
        assert_eq!(plain("pay \u{202e}001\u{202c}"), "pay \\u{202e}001\\u{202c}");
    }
}
