//! The data folder: where it is, who holds it, and where the running `cairn up` can be found.
//!
//! | file | content |
//! | --- | --- |
//! | `lock` | held by the running `up` (flock), so that a folder has one |
//! | `endpoints.json` | addresses of the running `up` |
//! | `cairn.toml`, `policies/` | configuration and policies, where none are named elsewhere |
//! | `wrap.sock`, `starting`, `up.log` | where wraps join; who starts an `up` for them; what that one said |
//! | `gateway/` | gateway id, epoch, hints |
//! | `keys/` | digest keys and the vault's key, readable by the owner only |
//! | `vault/` | payloads, encrypted |
//! | `consumers/` | results of consumers, such as `audit.sqlite`; `audit.json` says which configuration names a server instead |
//! | `evidence/` | the signing key of the checkpoints, and the trees |
//! | `log/`, `objects/` | the embedded log and its object store |
//! | `operator.json`, `operators.json` | salted hashes of the operator's token, and of those of operators by name |
//! | `acts/` | what commands did to this folder and the trail does not hold yet |
//! | `approvals/` | what waits for people, sealed |
//! | `writers.json` | salted hashes of the secrets of those who may write Cairn's topics by the Kafka port |
//! | `spool/` | what a cluster as backbone has not acknowledged yet |

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use cairn_approvals::Approvals;
use cairn_clock::Entropy;
use cairn_contract::DigestKey;
use cairn_gateway::Keys;
use serde::{Deserialize, Serialize};

use crate::trust::CommandsSection;

/// Where the running `up` of a data folder listens.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    pub(crate) pid: u32,
    /// The embedded log's address, or the bootstrap list of the cluster.
    pub(crate) kafka: String,
    /// The configuration that says how that cluster is reached; absent for the embedded log. It may name secrets, so a
    /// reader reads it anew, with its own rights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cluster_config: Option<PathBuf>,
    pub(crate) gateway: String,
    pub(crate) admin: String,
    /// What the Kafka address speaks, in Kafka's words; absent where it is a cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kafka_protocol: Option<KafkaProtocol>,
    /// The gateway's address as a URL; absent where none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) gateway_url: Option<String>,
    /// The schema registry's address as a URL; absent where none runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) registry_url: Option<String>,
    /// Where agents and servers report, as a URL; absent where nothing takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ingest_url: Option<String>,
    /// The admin address as a URL that this machine reaches.
    #[serde(default)]
    pub(crate) admin_url: String,
    /// Whose certificates commands on this machine believe, and which they show.
    #[serde(default, skip_serializing_if = "is_default")]
    pub(crate) commands: CommandsSection,
    pub(crate) socket: PathBuf,
}

/// What a Kafka port speaks (`security.protocol`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum KafkaProtocol {
    /// In the clear.
    Plaintext,
    /// TLS.
    Ssl,
}

fn is_default(commands: &CommandsSection) -> bool {
    *commands == CommandsSection::default()
}

/// A data folder that this process holds.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

/// `$CAIRN_DATA`, else `~/.local/share/cairn`.
pub(crate) fn default_path() -> anyhow::Result<PathBuf> {
    if let Some(data) = std::env::var_os("CAIRN_DATA").filter(|data| !data.is_empty()) {
        return Ok(data.into());
    }
    let home = std::env::var_os("HOME").context("neither CAIRN_DATA nor HOME is set: name a folder with --data")?;
    Ok(PathBuf::from(home).join(".local/share/cairn"))
}

/// Makes a data folder where it lacks; its absolute path.
pub(crate) fn made(path: &Path) -> anyhow::Result<PathBuf> {
    if path.exists() && !path.is_dir() {
        bail!("the data folder {} is a file: name a folder with --data", path.display());
    }
    make_private(path).with_context(|| {
        format!("cannot make the data folder {}: make it writable, or name another with --data", path.display())
    })?;
    path.canonicalize().with_context(|| format!("cannot find the data folder {}", path.display()))
}

/// Whether a process holds that data folder now.
pub(crate) fn is_held(path: &Path) -> bool {
    File::open(path.join("lock")).is_ok_and(|lock| lock.try_lock().is_err())
}

impl Folder {
    /// Makes the folder where it lacks, and holds it until this value is dropped.
    pub(crate) fn hold(path: &Path) -> anyhow::Result<Self> {
        let path = made(path)?;
        let lock =
            File::options().create(true).write(true).truncate(false).mode(0o600).open(path.join("lock")).with_context(
                || {
                    format!(
                        "cannot write to the data folder {}: make it writable, or name another with --data",
                        path.display()
                    )
                },
            )?;
        if lock.try_lock().is_err() {
            let who = endpoints(&path).map(|running| format!(" (process {})", running.pid)).unwrap_or_default();
            bail!(
                "the data folder {} is held by another cairn{who}: stop it, or name another folder with --data",
                path.display()
            );
        }
        for part in ["gateway", "keys", "log", "objects"] {
            make_private(&path.join(part)).with_context(|| format!("cannot make {part} in {}", path.display()))?;
        }
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The digest keys, made at first use.
    pub(crate) fn keys(&self, entropy: &Entropy) -> anyhow::Result<Keys> {
        Ok(Keys {
            payload: self.key("payload", entropy)?,
            version: self.key("version", entropy)?,
            secret: self.key("secret", entropy)?,
        })
    }

    /// What the handles of calls are sealed under.
    pub(crate) fn call_key(&self, entropy: &Entropy) -> anyhow::Result<cairn_keys::Secret> {
        let secret = self.secret("calls", entropy)?;
        cairn_keys::Secret::read(&secret).context("the key of calls has not 32 bytes")
    }

    fn key(&self, name: &str, entropy: &Entropy) -> anyhow::Result<DigestKey> {
        let secret = self.secret(name, entropy)?;
        // The id says which key it was without saying anything of it.
        let id = format!("{name}-{}", &cairn_contract::sha256_text(&secret)[7..15]);
        Ok(DigestKey::new(id, &secret)?)
    }

    fn secret(&self, name: &str, entropy: &Entropy) -> anyhow::Result<Vec<u8>> {
        let path = self.path.join("keys").join(name);
        if !path.exists() {
            let mut secret = [0; 32];
            entropy.fill(&mut secret);
            replace(&path, &secret).with_context(|| format!("cannot write the key {}", path.display()))?;
        }
        fs::read(&path).with_context(|| format!("cannot read the key {}", path.display()))
    }

    /// What waits for people.
    pub(crate) fn approvals(&self, entropy: &Entropy) -> anyhow::Result<Approvals> {
        let secret = self.secret("approvals", entropy)?;
        let key = secret.as_slice().try_into().context("the key of approvals has not 32 bytes")?;
        Ok(Approvals::open(&self.path.join("approvals"), key, entropy.clone())?)
    }

    /// Says where this `up` listens.
    pub(crate) fn announce(&self, endpoints: &Endpoints) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(endpoints)?;
        replace(&self.path.join("endpoints.json"), &text).context("cannot write endpoints.json")
    }

    /// Takes the announcement back.
    pub(crate) fn withdraw(&self) {
        // Where it cannot be removed, whoever reads it finds nobody listening.
        let _ = fs::remove_file(self.path.join("endpoints.json"));
    }
}

/// Where the `up` of that folder says that it listens.
pub(crate) fn endpoints(data: &Path) -> Option<Endpoints> {
    serde_json::from_slice(&fs::read(data.join("endpoints.json")).ok()?).ok()
}

/// Makes a folder whose name survives power loss: without it, everything durable inside would be lost with the name.
fn make_private(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.exists() {
        make_private(parent)?;
    }
    let made = match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => false,
        other => other.map(|()| true)?,
    };
    // One that is there may have been made a moment before a crash, so its name is synced too.
    match File::open(parent).and_then(|parent| parent.sync_all()) {
        Err(error) if !made && error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::options().create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
