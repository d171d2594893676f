//! What a recipe says: at once, or whole at its end where others speak beside it.
//!
//! Who calls it: every recipe that may run beside another, by `say!`. It guarantees that what a thread said
//! within [`apart`] stands together.

use std::cell::RefCell;
use std::fmt;
use std::io::Write;

thread_local! {
    /// What this thread has said and nobody has seen yet; `None` where it speaks at once.
    static KEPT: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Says a line.
pub(crate) fn line(words: fmt::Arguments<'_>) {
    KEPT.with_borrow_mut(|kept| match kept {
        Some(kept) => {
            kept.push_str(&words.to_string());
            kept.push('\n');
        }
        None => println!("{words}"),
    });
}

/// Does `work`, and says what it has to say when it is done.
pub(crate) fn apart<T>(work: impl FnOnce() -> T) -> T {
    KEPT.set(Some(String::new()));
    let done = work();
    let said = KEPT.take().unwrap_or_default();
    // Nobody is left to be told where this fails.
    let _ = std::io::stdout().lock().write_all(said.as_bytes());
    done
}

/// `println!` of a recipe that may run beside others.
macro_rules! say {
    ($($words:tt)*) => { $crate::voice::line(format_args!($($words)*)) };
}

#[cfg(test)]
mod tests {
    use super::{KEPT, apart};

    #[test]
    fn what_is_said_apart_is_kept_until_the_end_and_by_its_thread_alone() {
        apart(|| {
            say!("one");
            std::thread::spawn(|| assert_eq!(KEPT.take(), None)).join().expect("it ends");
            say!("two {}", 3);
            assert_eq!(KEPT.with_borrow(Clone::clone).as_deref(), Some("one\ntwo 3\n"));
        });
        assert_eq!(KEPT.take(), None);
    }
}
