//! Signed notes as C2SP writes them, and whom a verifier trusts.
//!
//! Read from the specifications signed-note, tlog-checkpoint, tlog-cosignature and tlog-proof; shares nothing with the code that
//! signs. A text counts only where a trusted key signed it; unknown signatures are passed over.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::{
    merkle::PROOF_MAX,
    record::{Hash, sha256},
};

/// Bytes of a note that is read.
pub(crate) const NOTE_BYTES_MAX: usize = 128 * 1024;
/// The first line of a proof.
pub(crate) const PROOF_TITLE: &str = "c2sp.org/tlog-proof@v1";
/// Keys that rotations may add.
const KEYS_MAX: usize = 2_000;

/// A public key with its name: `<name>+<8 hexadecimal digits>+<base64>`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    name: String,
    id: [u8; 4],
    kind: u8,
    public: [u8; 32],
}

impl Key {
    /// Reads a key.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{:?} is no verifier key: it has the form <name>+<8 hexadecimal digits>+<base64>", head(text));
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else { return Err(wrong()) };
        let key = STANDARD.decode(key).map_err(|_| wrong())?;
        let (kind, public) = key.split_first().ok_or_else(wrong)?;
        let public: [u8; 32] = public.try_into().map_err(|_| wrong())?;
        if !matches!(kind, 1 | 4) || name.is_empty() || name.chars().any(char::is_whitespace) {
            return Err(wrong());
        }
        let hash = sha256(&[name.as_bytes(), b"\n", &key].concat());
        let expected: String = hash[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        if expected != id {
            return Err(format!("the key {:?} is damaged: its id does not belong to it", head(text)));
        }
        Ok(Self { name: name.to_owned(), id: [hash[0], hash[1], hash[2], hash[3]], kind: *kind, public })
    }

    /// Whether it is a witness's.
    #[must_use]
    pub const fn is_witness(&self) -> bool {
        self.kind == 4
    }

    fn verifies(&self, text: &str, signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, self.public);
        if self.kind == 1 {
            return key.verify(text.as_bytes(), signature).is_ok();
        }
        let Some((time, signature)) = signature.split_at_checked(8) else { return false };
        let time = time.iter().fold(0_u64, |time, byte| time << 8 | u64::from(*byte));
        if time == 0 || time > i64::MAX as u64 {
            return false;
        }
        key.verify(format!("cosignature/v1\ntime {time}\n{text}").as_bytes(), signature).is_ok()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id: String = self.id.iter().map(|byte| format!("{byte:02x}")).collect();
        write!(f, "{}+{id}+{}", self.name, STANDARD.encode([&[self.kind], self.public.as_slice()].concat()))
    }
}

/// A note's text and its signatures, none of them verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// The text, with its last line end.
    pub text: String,
    signatures: Vec<(String, Vec<u8>)>,
}

impl Note {
    /// Reads a note; nothing where it is none.
    #[must_use]
    pub fn parse(note: &str) -> Option<Self> {
        if note.len() > NOTE_BYTES_MAX || note.chars().any(|c| c < ' ' && c != '\n') {
            return None;
        }
        let (text, lines) = note.rsplit_once("\n\n")?;
        let signatures = lines.strip_suffix('\n')?.split('\n').map(|line| {
            let (name, signature) = line.strip_prefix("— ")?.split_once(' ')?;
            let bytes = STANDARD.decode(signature).ok()?;
            (bytes.len() > 4).then(|| (name.to_owned(), bytes))
        });
        Some(Self { text: format!("{text}\n"), signatures: signatures.collect::<Option<_>>()? })
    }

    /// Whether the key signed it: nothing where it did not, `false` where its signature is wrong.
    #[must_use]
    pub fn is_signed_by(&self, key: &Key) -> Option<bool> {
        let own = self.signatures.iter().filter(|(name, bytes)| *name == key.name && bytes[..4] == key.id);
        own.map(|(_, bytes)| key.verifies(&self.text, &bytes[4..])).reduce(|all, one| all && one)
    }
}

/// Whom a verifier believes.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Each with the number of the key that it descends from by rotations: who signs by one of a line signs one history.
    keys: Vec<(Key, usize)>,
    witnesses: Vec<Key>,
    /// How many witnesses must have cosigned.
    quorum: usize,
}

impl Trust {
    /// Believes these log keys, and these witnesses where at least `quorum` of them agree.
    #[must_use]
    pub fn new(keys: Vec<Key>, witnesses: Vec<Key>, quorum: usize) -> Self {
        let keys = keys.into_iter().enumerate().map(|(line, key)| (key, line)).collect();
        Self { keys, witnesses, quorum }
    }

    /// Whether anybody watches.
    #[must_use]
    pub const fn has_witnesses(&self) -> bool {
        self.quorum > 0
    }

    /// Follows a rotation of keys: whoever trusted the old one trusts the new one.
    ///
    /// # Errors
    /// Why it is not followed.
    pub fn follow(&mut self, rotation: &str) -> Result<(), String> {
        let note = Note::parse(rotation).ok_or("a rotation of keys is no signed note")?;
        let mut lines = note.text.lines();
        if lines.next() != Some("cairn.evidence.rotation.v1") {
            return Err("a note that should be a rotation of keys is none".to_owned());
        }
        let mut key = || Key::parse(lines.next().unwrap_or_default());
        let (old, new) = (key()?, key()?);
        let Some(line) = self.keys.iter().find(|(key, _)| *key == old).map(|(_, line)| *line) else {
            return Err(format!("a rotation begins at a key that is not trusted: {old}"));
        };
        if [&old, &new].into_iter().any(|key| note.is_signed_by(key) != Some(true)) {
            return Err(format!("the rotation to {new} is not signed by both keys"));
        }
        if !self.keys.iter().any(|(key, _)| *key == new) && self.keys.len() < KEYS_MAX {
            self.keys.push((new, line));
        }
        Ok(())
    }

    /// A checkpoint that a trusted key signed, with whether enough witnesses cosigned it.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn checkpoint(&self, note: &str) -> Result<Signed, String> {
        let parsed = Note::parse(note).ok_or("a checkpoint is no signed note")?;
        let line = self.signer(&parsed, "a checkpoint")?;
        let witnesses = self.witnesses.iter().filter(|key| parsed.is_signed_by(key) == Some(true)).count();
        let mut lines = parsed.text.lines();
        let (origin, size, root) = (lines.next(), lines.next(), lines.next());
        let origin = origin.filter(|origin| !origin.is_empty()).ok_or("a checkpoint has no origin")?;
        let size = size.and_then(decimal).ok_or("a checkpoint has no size")?;
        let root = root.and_then(hash).ok_or("a checkpoint has no root")?;
        let is_witnessed = self.quorum > 0 && witnesses >= self.quorum;
        Ok(Signed { origin: origin.to_owned(), size, root, is_witnessed, line })
    }

    /// A producer that a trusted key vouches for, with its first and its last epoch.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn producer(&self, note: &str) -> Result<(String, u64, u64), String> {
        let parsed = Note::parse(note).ok_or("what should vouch for a producer is no signed note")?;
        self.signer(&parsed, "what should vouch for a producer")?;
        let mut lines = parsed.text.lines();
        let is_one = lines.next() == Some("cairn.evidence.producer.v1");
        let (id, first, last) = (lines.next(), lines.next().and_then(decimal), lines.next().and_then(decimal));
        match (is_one, id, first, last) {
            (true, Some(id), Some(first), Some(last)) => Ok((id.to_owned(), first, last)),
            _ => Err("a note that should vouch for a producer names none".to_owned()),
        }
    }

    /// The line of the trusted key that signed it.
    fn signer(&self, note: &Note, what: &str) -> Result<usize, String> {
        let said = self.keys.iter().filter_map(|(key, line)| Some((note.is_signed_by(key)?, *line)));
        let said: Vec<_> = said.collect();
        if said.iter().any(|(is_good, _)| !is_good) {
            return Err(format!("the signature of {what} is wrong: it was changed, or another key made it"));
        }
        said.first().map(|(_, line)| *line).ok_or_else(|| {
            format!("no trusted key signed {what}: give the key with --key; where several gateways make evidence, each one's")
        })
    }
}

/// A checkpoint that is believed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// Which log.
    pub origin: String,
    /// How many leaves.
    pub size: u64,
    /// The root over them.
    pub root: Hash,
    /// Whether enough witnesses cosigned it.
    pub is_witnessed: bool,
    /// The number of the key that was trusted at first and that its signer descends from.
    pub line: usize,
}

impl Signed {
    /// Topic, topic id and partition, as the origin says them.
    #[must_use]
    pub fn place(&self) -> Option<(&str, &str, u32)> {
        let rest = self.origin.strip_prefix("cairn/")?.split_once('/')?.1;
        let (rest, partition) = rest.rsplit_once('/')?;
        let (topic, id) = rest.rsplit_once('/')?;
        Some((topic, id, partition.parse().ok()?))
    }
}

/// A proof in the tlog-proof form.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proof {
    /// What stands beside it: the entry of the leaf.
    pub extra: Option<Vec<u8>>,
    /// Which leaf.
    pub index: u64,
    /// The inclusion proof.
    pub path: Vec<Hash>,
    /// The checkpoint, as a note.
    pub checkpoint: String,
}

impl Proof {
    /// Reads a proof; nothing where it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > NOTE_BYTES_MAX {
            return None;
        }
        let rest = text.strip_prefix(PROOF_TITLE)?.strip_prefix('\n')?;
        let (head, checkpoint) = rest.split_once("\n\n")?;
        let mut lines = head.lines().peekable();
        let extra = match lines.peek()?.strip_prefix("extra ") {
            Some(extra) => {
                lines.next();
                Some(STANDARD.decode(extra).ok()?)
            }
            None => None,
        };
        let index = lines.next()?.strip_prefix("index ").and_then(decimal)?;
        let path = lines.map(hash).collect::<Option<Vec<_>>>()?;
        (path.len() <= PROOF_MAX).then(|| Self { extra, index, path, checkpoint: checkpoint.to_owned() })
    }
}

/// A number without leading zeroes.
fn decimal(text: &str) -> Option<u64> {
    let is_canonical = text == "0" || (!text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()));
    text.parse().ok().filter(|_| is_canonical)
}

/// A hash in base64.
pub(crate) fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Hashes in base64, as many as a proof may have.
pub(crate) fn hashes(texts: &[String]) -> Option<Vec<Hash>> {
    if texts.len() > PROOF_MAX {
        return None;
    }
    texts.iter().map(|text| hash(text)).collect()
}

/// The beginning of a text that somebody else wrote.
pub(crate) fn head(text: &str) -> String {
    text.chars().take(80).collect()
}
