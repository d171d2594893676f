//! The operator's token at the start of `up`: where it comes from, and where it must not stay.
//!
//! An agent behind the gateway may read this user's files, and a server that it drives runs as this user. So the token is
//! kept as a hash, it is dropped from the environment that `/proc` shows before any server starts, and it is printed only
//! where the output is no file. Called by `up` once its folder is held.

use std::os::{fd::AsFd, unix::process::CommandExt};

use anyhow::Context;
use cairn_clock::Entropy;
use cairn_operators::Credential;

use crate::{folder::Folder, say};

/// The variable in which an operator brings a token of their own.
pub(crate) const VARIABLE: &str = "CAIRN_OPERATOR_TOKEN";

/// Keeps the hash of a token that came in the environment, then begins anew without it: what a process was started
/// with stays readable in `/proc` for as long as it runs.
pub(crate) fn taken_from_environment(folder: Folder) -> anyhow::Result<Folder> {
    let Some(token) = std::env::var_os(VARIABLE) else { return Ok(folder) };
    let token = token.into_string().ok().with_context(|| format!("{VARIABLE} is not text"))?;
    Credential::of(folder.path()).keep(&token, &Entropy::system())?;
    drop(folder);
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| "cairn".into());
    let error =
        std::process::Command::new(std::env::current_exe()?).arg0(name).args(arguments).env_remove(VARIABLE).exec();
    Err(error)
        .with_context(|| format!("cannot begin anew without {VARIABLE}: keep it with `cairn operator new` instead"))
}

/// Makes a token where there is none yet, and shows it once.
pub(crate) fn show_if_new(folder: &Folder, entropy: &Entropy) -> anyhow::Result<()> {
    let credential = Credential::of(folder.path());
    if credential.exists() {
        return Ok(());
    }
    if output_is_a_file() {
        let data = folder.path().display();
        eprintln!(
            "cairn: no operator token yet, and this output is kept: make one with `cairn operator new --data {data}`"
        );
        return Ok(());
    }
    say::line(format_args!("operator token, shown once: {}", credential.renew(entropy)?.reveal()));
    Ok(())
}

fn output_is_a_file() -> bool {
    let stat = rustix::fs::fstat(std::io::stdout().as_fd());
    stat.is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file())
}
