//! Standard output as a command line needs it: a reader that has gone ends the program quietly.
//!
//! `cairn trail | head` closes the pipe early; `println!` would panic then. Every command prints through here.

use std::{fmt, io::Write};

/// Prints one line. Where nobody reads any more, the process ends as if it were done.
pub(crate) fn line(words: fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{words}").and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}
