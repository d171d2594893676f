//! `cairn key`: API keys for machines. A running gateway with `[identity] api_keys = true` follows at once.

use std::path::PathBuf;

use cairn_clock::{Clock, Entropy, Timestamp};
use cairn_identity::{ApiKeys, NewKey};
use clap::Subcommand;

use crate::{acts, folder, say, since};

/// What to do with keys.
#[derive(Subcommand)]
pub(crate) enum KeyCommand {
    /// Makes a key and prints it once.
    #[command(
        after_help = "Example: cairn key new --principal nightly-build --scopes orders:read,orders:write --expires 90d"
    )]
    New {
        /// Who it makes of its bearer: the principal is `key/` and this.
        #[arg(long)]
        principal: String,
        /// The tenant.
        #[arg(long)]
        tenant: Option<String>,
        /// The scopes, separated by commas.
        #[arg(long, value_delimiter = ',')]
        scopes: Vec<String>,
        /// Until when it is good: 12h, 90d, or a time such as 2027-11-24T09:00:00Z; for ever where absent.
        #[arg(long, value_parser = since::until)]
        expires: Option<i64>,
        /// The gateway's data folder.
        #[arg(long, env = "CAIRN_DATA")]
        data: Option<PathBuf>,
        /// JSON for machines.
        #[arg(long)]
        json: bool,
    },
    /// Lists the keys; none of them is shown.
    #[command(after_help = "Example: cairn key list --json")]
    List {
        /// The gateway's data folder.
        #[arg(long, env = "CAIRN_DATA")]
        data: Option<PathBuf>,
        /// JSON for machines.
        #[arg(long)]
        json: bool,
    },
    /// Revokes a key: it is refused from here on.
    #[command(after_help = "Example: cairn key revoke 0123456789abcdef")]
    Revoke {
        /// Its id, as `cairn key list` shows it.
        id: String,
        /// The gateway's data folder.
        #[arg(long, env = "CAIRN_DATA")]
        data: Option<PathBuf>,
    },
    /// Removes the keys that are revoked or expired.
    #[command(after_help = "Example: cairn key prune")]
    Prune {
        /// The gateway's data folder.
        #[arg(long, env = "CAIRN_DATA")]
        data: Option<PathBuf>,
    },
}

/// Does it.
pub(crate) fn run(what: KeyCommand) -> anyhow::Result<()> {
    let of = |data: Option<PathBuf>| {
        let data = data.map_or_else(folder::default_path, Ok)?;
        std::fs::create_dir_all(&data)?;
        anyhow::Ok(data)
    };
    let clock = Clock::system();
    match what {
        KeyCommand::New { principal, tenant, scopes, expires, data, json } => {
            let expires_at = expires.map(|ms| Timestamp::from_micros(u64::try_from(ms).unwrap_or(0) * 1_000));
            let data = of(data)?;
            let about = format!("key/{principal} {}", scopes.join(","));
            let new = NewKey { principal, tenant, scopes, expires_at };
            let create = || ApiKeys::of(&data).create(new, &clock, &Entropy::system());
            let key = acts::kept(&data, "key.new", about.trim_end().to_owned(), create)?;
            if json {
                say::line(format_args!("{}", serde_json::json!({ "id": key.id(), "key": key.reveal() })));
            } else {
                say::line(format_args!("{}", key.reveal()));
            }
        }
        KeyCommand::List { data, json } => {
            let keys = ApiKeys::of(&of(data)?).list()?;
            if json {
                say::line(format_args!("{}", serde_json::to_string_pretty(&keys)?));
                return Ok(());
            }
            for key in keys {
                let tenant = key.tenant.map(|tenant| format!(" of {tenant}")).unwrap_or_default();
                let until = match (key.revoked_at, key.expires_at) {
                    (Some(at), _) => format!("revoked {at}"),
                    (None, Some(at)) => format!("until {at}"),
                    (None, None) => "for ever".to_owned(),
                };
                let text = format!("{}  key/{}{tenant}  {until}  {}", key.id, key.principal, key.scopes.join(" "));
                say::line(format_args!("{}", say::plain(text.trim_end())));
            }
        }
        KeyCommand::Revoke { id, data } => {
            let data = of(data)?;
            acts::kept(&data, "key.revoke", id.clone(), || ApiKeys::of(&data).revoke(&id, &clock))?;
        }
        KeyCommand::Prune { data } => {
            let data = of(data)?;
            let count = acts::kept(&data, "key.prune", None, || ApiKeys::of(&data).prune(&clock))?;
            say::line(format_args!("{count} removed"));
        }
    }
    Ok(())
}
