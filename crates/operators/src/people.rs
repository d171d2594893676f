//! Operators by name: who they are and what they may do, so that who approved is known and not only said.
//!
//! `operators.json` in the data folder holds, for each, the roles and salt and SHA-256 over salt and token: a token has 256
//! random bits and is shown once. The file is read at each request, so that a new operator and a removal count at once.
//! Beside them the one operator's token (`credential`) opens everything and names nobody: it is for the owner of the
//! machine, and counts as one person.

use std::{
    fs,
    path::{Path, PathBuf},
};

use cairn_clock::Entropy;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;

use crate::credential::{CredentialError, Token, hash, replace};

/// Operators in one file.
const OPERATORS_MAX: usize = 1_000;
/// Who holds the one operator's token.
pub const OWNER: &str = "operator";

/// What an operator may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look at what waits and at what servers offer.
    View,
    /// Approve and deny calls, and definitions of tools.
    Approve,
    /// Read payloads back.
    Payloads,
    /// Put policies in force.
    Policy,
    /// Move consumers, and say that resources changed.
    Offsets,
    /// Erase subjects, hold and release them.
    Erase,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::View, Self::Approve, Self::Payloads, Self::Policy, Self::Offsets, Self::Erase];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Approve => "approve",
            Self::Payloads => "payloads",
            Self::Policy => "policy",
            Self::Offsets => "offsets",
            Self::Erase => "erase",
        }
    }

    /// The role of that word.
    ///
    /// # Errors
    /// A word that is none, with those that are.
    pub fn named(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|role| role.word() == word);
        found.ok_or_else(|| format!("no role {word:?}: {}", Self::ALL.map(Self::word).join(", ")))
    }
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operator {
    /// The name; [`OWNER`] where the one operator's token came.
    pub name: String,
    /// Whether the name stands for one person.
    pub named: bool,
    /// What they may do.
    pub roles: Vec<Role>,
}

impl Operator {
    /// Whoever holds the one operator's token.
    #[must_use]
    pub fn owner() -> Self {
        Self { name: OWNER.to_owned(), named: false, roles: Role::ALL.to_vec() }
    }

    /// Whether they may.
    #[must_use]
    pub fn may(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    name: String,
    roles: Vec<Role>,
    salt: String,
    sha256: String,
}

#[derive(Serialize, Deserialize)]
struct File {
    format: u32,
    operators: Vec<Stored>,
}

/// The operators of a data folder.
#[derive(Clone, Debug)]
pub struct People {
    path: PathBuf,
}

/// Why an operator cannot be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub enum PeopleError {
    /// The file.
    #[error(transparent)]
    File(#[from] CredentialError),
    /// A name that cannot be used.
    #[error("an operator's name has 1 to 128 letters, digits or any of -_.@+: and is not {OWNER:?}")]
    Name,
    /// One without roles could do nothing.
    #[error("give at least one role: {}", Role::ALL.map(Role::word).join(", "))]
    NoRoles,
    /// There are too many.
    #[error("there are {OPERATORS_MAX} operators: remove some with `cairn operator remove`")]
    Full,
    /// There is no such operator.
    #[error("there is no operator {name:?}: `cairn operator list` shows them")]
    Unknown {
        /// The name.
        name: String,
    },
}

impl People {
    /// The operators of a data folder; nothing is read yet.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self { path: data.join("operators.json") }
    }

    fn read(&self) -> Result<Vec<Stored>, CredentialError> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(CredentialError::Io { path: self.path.clone(), source }),
        };
        let file: File =
            serde_json::from_slice(&text).map_err(|_| CredentialError::Damaged { path: self.path.clone() })?;
        Ok(file.operators)
    }

    fn write(&self, operators: Vec<Stored>) -> Result<(), CredentialError> {
        let text = serde_json::to_vec_pretty(&File { format: 1, operators }).expect("plain data");
        replace(&self.path, &text).map_err(|source| CredentialError::Io { path: self.path.clone(), source })
    }

    /// Makes an operator, or gives one a new token and other roles; the token is shown once.
    ///
    /// # Errors
    /// [`PeopleError`]
    pub fn add(&self, name: &str, roles: &[Role], entropy: &Entropy) -> Result<Token, PeopleError> {
        let fits = |c: char| c.is_alphanumeric() || "-_.@+:".contains(c);
        if name.is_empty() || name.len() > 128 || !name.chars().all(fits) || name.eq_ignore_ascii_case(OWNER) {
            return Err(PeopleError::Name);
        }
        let mut roles = roles.to_vec();
        roles.sort_unstable();
        roles.dedup();
        if roles.is_empty() {
            return Err(PeopleError::NoRoles);
        }
        let mut all = self.read()?;
        all.retain(|one| one.name != name);
        if all.len() >= OPERATORS_MAX {
            return Err(PeopleError::Full);
        }
        let token = Token::random(entropy);
        let mut salt = [0; 16];
        entropy.fill(&mut salt);
        let salt = hex::encode(salt);
        let sha256 = hex::encode(hash(&salt, token.reveal()));
        all.push(Stored { name: name.to_owned(), roles, salt, sha256 });
        all.sort_by(|a, b| a.name.cmp(&b.name));
        self.write(all)?;
        Ok(token)
    }

    /// Removes an operator: the token opens nothing from here on.
    ///
    /// # Errors
    /// [`PeopleError`]
    pub fn remove(&self, name: &str) -> Result<(), PeopleError> {
        let mut all = self.read()?;
        let before = all.len();
        all.retain(|one| one.name != name);
        if all.len() == before {
            return Err(PeopleError::Unknown { name: name.to_owned() });
        }
        Ok(self.write(all)?)
    }

    /// Who there is, by name.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn all(&self) -> Result<Vec<Operator>, CredentialError> {
        let known = |one: Stored| Operator { name: one.name, named: true, roles: one.roles };
        Ok(self.read()?.into_iter().map(known).collect())
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// Where the file cannot be read: then nobody is let in by it.
    pub fn who(&self, token: &str) -> Result<Option<Operator>, CredentialError> {
        let fits = |one: &Stored| {
            hex::decode(&one.sha256).is_ok_and(|kept| hash(&one.salt, token).ct_eq(kept.as_slice()).into())
        };
        let found = self.read()?.into_iter().find(fits);
        Ok(found.map(|one| Operator { name: one.name, named: true, roles: one.roles }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_has_a_name_roles_and_a_token_that_no_file_holds() {
        let folder = tempfile::tempdir().expect("a folder");
        let people = People::of(folder.path());
        let entropy = Entropy::system();
        assert_eq!(people.who("cairn-op-anything").expect("no file, nobody"), None);
        let ann = people.add("ann", &[Role::Approve, Role::View, Role::View], &entropy).expect("made");
        let ben = people.add("ben", &[Role::View], &entropy).expect("made");
        let who = people.who(ann.reveal()).expect("readable").expect("she");
        assert_eq!((who.name.as_str(), who.roles.as_slice()), ("ann", &[Role::View, Role::Approve][..]));
        assert!(who.named && who.may(Role::Approve) && !who.may(Role::Erase));
        let text = fs::read_to_string(folder.path().join("operators.json")).expect("there");
        assert!(!text.contains(&ann.reveal()[9..]) && !text.contains(&ben.reveal()[9..]));
        let anew = people.add("ann", &[Role::View], &entropy).expect("made");
        assert_eq!(people.who(ann.reveal()).expect("readable"), None, "the old token opens nothing");
        assert!(!people.who(anew.reveal()).expect("readable").expect("she").may(Role::Approve));
        people.remove("ben").expect("there");
        assert_eq!(people.who(ben.reveal()).expect("readable"), None);
        assert!(matches!(people.remove("ben"), Err(PeopleError::Unknown { .. })));
        for name in ["", "operator", "Operator", "a b", "a\n", "a/b"] {
            assert!(matches!(people.add(name, &[Role::View], &entropy), Err(PeopleError::Name)), "{name:?}");
        }
        assert!(matches!(people.add("cy", &[], &entropy), Err(PeopleError::NoRoles)));
        fs::write(folder.path().join("operators.json"), "{").expect("written");
        assert!(people.who(anew.reveal()).is_err(), "nobody comes in by a damaged file");
    }
}
