//! Signed notes, checkpoints and cosignatures as C2SP writes them (signed-note, tlog-checkpoint, tlog-cosignature).
//!
//! The signer makes checkpoints and rotations here, the witness client checks what a witness answered. The offline verifier
//! has code of its own for the same formats and shares none of this. A private key must never reach a log, an error or `Debug`.

use base64::{Engine, engine::general_purpose::STANDARD};
use cairn_clock::Entropy;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use crate::tree::{Hash, sha256};

/// The signature type of a plain Ed25519 signature.
const ED25519_TYPE: u8 = 1;
/// The signature type of a timestamped Ed25519 cosignature.
const COSIGNATURE_TYPE: u8 = 4;
/// Bytes of a note that is read: sixteen signatures of the largest kind fit.
pub const NOTE_BYTES_MAX: usize = 128 * 1024;
const PRIVATE_PREFIX: &str = "PRIVATE+KEY+";
/// The first line of a rotation.
const ROTATION_TITLE: &str = "cairn.evidence.rotation.v1";
/// The first line of a note that vouches for a producer.
const PRODUCER_TITLE: &str = "cairn.evidence.producer.v1";

/// Why a key or a note cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NoteError {
    /// A key's name has characters that a signature line cannot hold.
    #[error("{0:?} cannot name a key: use text without spaces and plus signs, such as example.com/audit")]
    Name(String),
    /// The text is no key.
    #[error("this is no {0}: copy it whole, on one line")]
    Key(&'static str),
    /// A key of another kind than is known here.
    #[error("the key {name} is of type {kind}: use an Ed25519 key (type 1, for a witness type 4)")]
    Kind {
        /// The key's name.
        name: String,
        /// Its type.
        kind: u8,
    },
    /// The text is no note.
    #[error("this is no signed note: {0}")]
    Form(&'static str),
    /// A signature is missing or wrong.
    #[error("no valid signature of {0}")]
    Signature(String),
}

/// A key that signs.
pub struct SigningKey {
    name: String,
    seed: [u8; 32],
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("public", &self.public().to_string()).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key of that name.
    ///
    /// # Errors
    /// A name that a signature line cannot hold.
    pub fn generate(name: &str, entropy: &Entropy) -> Result<Self, NoteError> {
        let mut seed = [0; 32];
        entropy.fill(&mut seed);
        Self::of(name, seed)
    }

    fn of(name: &str, seed: [u8; 32]) -> Result<Self, NoteError> {
        check_name(name)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| NoteError::Key("signing key"))?;
        Ok(Self { name: name.to_owned(), seed, pair })
    }

    /// Reads `PRIVATE+KEY+<name>+<id>+<base64>`, the form that Go's note package writes.
    ///
    /// # Errors
    /// Anything else; the error never shows the text.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let wrong = NoteError::Key("signing key (PRIVATE+KEY+…)");
        let parts = text.trim().strip_prefix(PRIVATE_PREFIX).and_then(|rest| {
            let (name, rest) = rest.split_once('+')?;
            let (id, key) = rest.split_once('+')?;
            let key = STANDARD.decode(key).ok()?;
            let seed: [u8; 32] = key.strip_prefix(&[ED25519_TYPE])?.try_into().ok()?;
            Some((name, id, seed))
        });
        let (name, id, seed) = parts.ok_or_else(|| wrong.clone())?;
        let key = Self::of(name, seed)?;
        if format!("{:08x}", key.public().id) == id { Ok(key) } else { Err(wrong) }
    }

    /// The form that [`Self::parse`] reads: a secret.
    #[must_use]
    pub fn reveal(&self) -> String {
        let id = self.public().id;
        let key = STANDARD.encode([&[ED25519_TYPE], self.seed.as_slice()].concat());
        format!("{PRIVATE_PREFIX}{}+{id:08x}+{key}", self.name)
    }

    /// The key that verifies what this one signs.
    #[must_use]
    pub fn public(&self) -> VerifierKey {
        let public = self.pair.public_key().as_ref().try_into().expect("Ed25519 keys have 32 bytes");
        VerifierKey::new(&self.name, ED25519_TYPE, public)
    }

    /// The signature line for a note's text, with its line end.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        let signature = self.pair.sign(text.as_bytes());
        let bytes = [&self.public().id.to_be_bytes(), signature.as_ref()].concat();
        format!("\u{2014} {} {}\n", self.name, STANDARD.encode(bytes))
    }
}

/// A key that verifies: what a user trusts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifierKey {
    /// Its name, as signature lines have it.
    pub name: String,
    /// Its short id, as signatures begin with it.
    pub id: u32,
    kind: u8,
    public: [u8; 32],
}

impl VerifierKey {
    fn new(name: &str, kind: u8, public: [u8; 32]) -> Self {
        let hash = sha256(&[name.as_bytes(), b"\n", &[kind], &public].concat());
        let id = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        Self { name: name.to_owned(), id, kind, public }
    }

    /// Reads `<name>+<id>+<base64>`.
    ///
    /// # Errors
    /// Another form, an id that is not the key's, or a key of another kind.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let wrong = || NoteError::Key("verifier key (<name>+<8 hexadecimal digits>+<base64>)");
        let (name, rest) = text.trim().split_once('+').ok_or_else(wrong)?;
        let (id, key) = rest.split_once('+').ok_or_else(wrong)?;
        check_name(name)?;
        let key = STANDARD.decode(key).map_err(|_| wrong())?;
        let (kind, public) = key.split_first().ok_or_else(wrong)?;
        if !matches!(*kind, ED25519_TYPE | COSIGNATURE_TYPE) {
            return Err(NoteError::Kind { name: name.to_owned(), kind: *kind });
        }
        let key = Self::new(name, *kind, public.try_into().map_err(|_| wrong())?);
        if format!("{:08x}", key.id) == id { Ok(key) } else { Err(wrong()) }
    }

    /// Whether it is a witness's key, for timestamped cosignatures.
    #[must_use]
    pub const fn is_witness(&self) -> bool {
        self.kind == COSIGNATURE_TYPE
    }

    /// Finds this key's signature among a note's lines and verifies it; the line.
    ///
    /// # Errors
    /// There is none, or it does not verify.
    pub fn verify<'n>(&self, text: &str, lines: impl IntoIterator<Item = &'n str>) -> Result<&'n str, NoteError> {
        let mut signed = Err(NoteError::Signature(self.to_string()));
        for line in lines {
            let Some((name, bytes)) = signature_of(line) else { continue };
            let Some((id, signature)) = bytes.split_first_chunk::<4>() else { continue };
            if name != self.name || u32::from_be_bytes(*id) != self.id {
                continue;
            }
            if !self.is_valid(text, signature) {
                return Err(NoteError::Signature(self.to_string()));
            }
            signed = Ok(line);
        }
        signed
    }

    fn is_valid(&self, text: &str, signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.public);
        if self.kind == ED25519_TYPE {
            return key.verify(text.as_bytes(), signature).is_ok();
        }
        let Some((time, signature)) = signature.split_first_chunk::<8>() else { return false };
        let time = u64::from_be_bytes(*time);
        let message = format!("cosignature/v1\ntime {time}\n{text}");
        time != 0 && i64::try_from(time).is_ok() && key.verify(message.as_bytes(), signature).is_ok()
    }
}

impl std::fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = STANDARD.encode([&[self.kind], self.public.as_slice()].concat());
        write!(f, "{}+{:08x}+{key}", self.name, self.id)
    }
}

/// A note: text, and who signed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// The text, with its last line end.
    pub text: String,
    /// The signature lines, without line ends.
    pub lines: Vec<String>,
}

impl Note {
    /// Reads a note. No signature is verified.
    ///
    /// # Errors
    /// Anything that is no note, or one that is too large.
    pub fn parse(note: &str) -> Result<Self, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Form("it is too large"));
        }
        if note.chars().any(|c| c < ' ' && c != '\n') {
            return Err(NoteError::Form("it holds control characters"));
        }
        let at = note.rfind("\n\n").ok_or(NoteError::Form("no empty line stands before the signatures"))?;
        let (text, signatures) = (&note[..=at], &note[at + 2..]);
        let signatures = signatures.strip_suffix('\n').ok_or(NoteError::Form("its last line has no end"))?;
        let lines: Vec<_> = signatures.split('\n').map(ToOwned::to_owned).collect();
        if lines.iter().any(|line| signature_of(line).is_none()) {
            return Err(NoteError::Form("a line behind the empty one is no signature"));
        }
        Ok(Self { text: text.to_owned(), lines })
    }

    /// Adds a signature line that is not there yet.
    pub fn add(&mut self, line: &str) {
        if !self.lines.iter().any(|known| known == line) {
            self.lines.push(line.to_owned());
        }
    }
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// The text of a checkpoint.
#[must_use]
pub fn checkpoint_text(origin: &str, size: u64, root: &Hash) -> String {
    format!("{origin}\n{size}\n{}\n", STANDARD.encode(root))
}

/// The text that hands a log's signatures from one key to the next. Both sign it.
#[must_use]
pub fn rotation_text(old: &VerifierKey, new: &VerifierKey, at_seconds: u64) -> String {
    format!("{ROTATION_TITLE}\n{old}\n{new}\n{at_seconds}\n")
}

/// The text by which a key vouches for a producer in these epochs.
#[must_use]
pub fn producer_text(id: &str, (first, last): (u64, u64), at_seconds: u64) -> String {
    format!("{PRODUCER_TITLE}\n{id}\n{first}\n{last}\n{at_seconds}\n")
}

/// The first and the last epoch that a note vouches for; it is one of our own, so its signature is not looked at.
pub(crate) fn epochs_of(note: &str) -> Option<(u64, u64)> {
    let note = Note::parse(note).ok()?;
    let mut lines = note.text.lines();
    (lines.next() == Some(PRODUCER_TITLE)).then_some(())?;
    lines.next()?;
    let mut epoch = || lines.next()?.parse().ok();
    Some((epoch()?, epoch()?))
}

/// The old and the new key of a rotation whose signatures both verify.
///
/// # Errors
/// Another text, or a signature that is missing or wrong.
pub fn rotation_of(note: &str) -> Result<(VerifierKey, VerifierKey), NoteError> {
    let note = Note::parse(note)?;
    let mut lines = note.text.lines();
    if lines.next() != Some(ROTATION_TITLE) {
        return Err(NoteError::Form("it is no rotation of keys"));
    }
    let mut key = || VerifierKey::parse(lines.next().unwrap_or_default());
    let (old, new) = (key()?, key()?);
    for key in [&old, &new] {
        key.verify(&note.text, note.lines.iter().map(String::as_str))?;
    }
    Ok((old, new))
}

fn check_name(name: &str) -> Result<(), NoteError> {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.len() > 255 || name.chars().any(is_bad) {
        return Err(NoteError::Name(name.chars().take(64).collect()));
    }
    Ok(())
}

/// Name and bytes of a signature line.
fn signature_of(line: &str) -> Option<(&str, Vec<u8>)> {
    let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = STANDARD.decode(signature).ok()?;
    (!name.is_empty() && bytes.len() > 4).then_some((name, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the signed-note specification.
    #[test]
    fn the_example_of_the_specification_verifies() {
        let key = VerifierKey::parse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k").unwrap();
        let note = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
        let parsed = Note::parse(note).unwrap();
        assert_eq!(parsed.to_string(), note);
        key.verify(&parsed.text, parsed.lines.iter().map(String::as_str)).unwrap();
        key.verify("This is another message.\n", parsed.lines.iter().map(String::as_str)).unwrap_err();
    }

    #[test]
    fn keys_are_read_back_and_show_nothing_secret() {
        let entropy = Entropy::seeded(7);
        let key = SigningKey::generate("example.com/audit", &entropy).unwrap();
        let again = SigningKey::parse(&key.reveal()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(VerifierKey::parse(&key.public().to_string()).unwrap(), key.public());
        let secret = STANDARD.encode(key.seed);
        assert!(!format!("{key:?}").contains(&secret[..8]));
        let broken = format!("{}x", key.reveal());
        assert!(!SigningKey::parse(&broken).unwrap_err().to_string().contains(&secret[..8]));
        assert!(SigningKey::generate("a b", &entropy).is_err() && SigningKey::generate("a+b", &entropy).is_err());
    }

    #[test]
    fn a_rotation_needs_both_keys() {
        let entropy = Entropy::seeded(7);
        let [old, new] = [1, 2].map(|_| SigningKey::generate("example.com/audit", &entropy).unwrap());
        let text = rotation_text(&old.public(), &new.public(), 1);
        let whole = format!("{text}\n{}{}", old.sign(&text), new.sign(&text));
        assert_eq!(rotation_of(&whole).unwrap(), (old.public(), new.public()));
        for lacking in [format!("{text}\n{}", old.sign(&text)), format!("{text}\n{}", new.sign(&text))] {
            rotation_of(&lacking).unwrap_err();
        }
    }
}
