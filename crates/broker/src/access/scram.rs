//! SCRAM as the server plays it (RFC 5802, RFC 7677; Kafka's KIP-84): messages in, messages out, no socket. Called by SASL.
//!
//! It guarantees: who has not the password, or is nobody, learns the same from the exchange and as slowly; a proof counts for
//! the nonces of its own exchange only. Channel binding and delegation tokens are not offered.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{digest, hmac};
use subtle::ConstantTimeEq;

/// Longest message of a client.
pub(super) const MESSAGE_BYTES_MAX: usize = 4_096;
/// Random bytes in the server's part of the nonce.
pub(crate) const NONCE_BYTES: usize = 24;

/// Which hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Mechanism {
    Sha256,
    Sha512,
}

impl Mechanism {
    pub(crate) const ALL: [Self; 2] = [Self::Sha256, Self::Sha512];

    /// Its name in SASL.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    /// Its number in Kafka's requests (KIP-554).
    pub(crate) const fn code(self) -> i8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha512 => 2,
        }
    }

    pub(crate) fn of_code(code: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.code() == code)
    }

    /// Bytes of its hash.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn hash(self, of: &[u8]) -> digest::Digest {
        let algorithm = match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        };
        digest::digest(algorithm, of)
    }

    fn sign(self, key: &[u8], text: &[u8]) -> hmac::Tag {
        let algorithm = match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        };
        hmac::sign(&hmac::Key::new(algorithm, key), text)
    }
}

/// What the server keeps of a password. Nobody can log in with it, but whoever has it can try passwords at their leisure.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credential {
    pub(super) iterations: u32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Vec<u8>,
    pub(super) server_key: Vec<u8>,
}

impl Credential {
    /// From the password that was salted by whoever set it, as AlterUserScramCredentials brings it.
    pub(super) fn new(mechanism: Mechanism, iterations: u32, salt: Vec<u8>, salted_password: &[u8]) -> Self {
        let client_key = mechanism.sign(salted_password, b"Client Key");
        let stored_key = mechanism.hash(client_key.as_ref()).as_ref().to_vec();
        let server_key = mechanism.sign(salted_password, b"Server Key").as_ref().to_vec();
        Self { iterations, salt, stored_key, server_key }
    }

    pub(crate) const fn iterations(&self) -> u32 {
        self.iterations
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(..)")
    }
}

/// An exchange of which the server has answered the first message.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    mechanism: Mechanism,
    user: String,
    /// False where there is no such user: then it goes on all the same, and fails at its end.
    is_known: bool,
    credential: Arc<Credential>,
    /// `n,,` or the like, which the last message repeats.
    header: String,
    nonce: String,
    /// The first messages of both, as far as they are signed.
    signed: String,
}

impl Exchange {
    /// Takes the client's first message; `credential` gives what is kept of a user, or a likeness of it and false. The answer is the
    /// server's first message; none where the message is not one.
    pub(crate) fn begin(
        mechanism: Mechanism,
        message: &[u8],
        random: [u8; NONCE_BYTES],
        credential: impl FnOnce(&str) -> (Arc<Credential>, bool),
    ) -> Option<(Self, String)> {
        let first = First::read(message)?;
        let (credential, is_known) = credential(&first.user);
        let nonce = format!("{}{}", first.nonce, STANDARD.encode(random));
        let answer = format!("r={nonce},s={},i={}", STANDARD.encode(&credential.salt), credential.iterations);
        let signed = format!("{},{answer}", first.bare);
        let header = first.header.to_owned();
        Some((Self { mechanism, user: first.user, is_known, credential, header, nonce, signed }, answer))
    }

    /// Takes the client's last message; the user and the server's last message where the proof is right.
    pub(crate) fn finish(self, message: &[u8]) -> Option<(String, String)> {
        let text = std::str::from_utf8(message).ok().filter(|text| text.len() <= MESSAGE_BYTES_MAX)?;
        let (without_proof, proof) = text.rsplit_once(",p=")?;
        let mut parts = without_proof.split(',');
        let binding = parts.next()?.strip_prefix("c=")?;
        let nonce = parts.next()?.strip_prefix("r=")?;
        if STANDARD.decode(binding).ok()? != self.header.as_bytes() || nonce != self.nonce {
            return None;
        }
        let mut client_key = STANDARD.decode(proof).ok().filter(|proof| proof.len() == self.mechanism.bytes())?;
        let signed = format!("{},{without_proof}", self.signed);
        let signature = self.mechanism.sign(&self.credential.stored_key, signed.as_bytes());
        client_key.iter_mut().zip(signature.as_ref()).for_each(|(byte, mask)| *byte ^= mask);
        let is_right: bool = self.mechanism.hash(&client_key).as_ref().ct_eq(&self.credential.stored_key).into();
        let verifier = self.mechanism.sign(&self.credential.server_key, signed.as_bytes());
        (is_right && self.is_known).then(|| (self.user, format!("v={}", STANDARD.encode(verifier))))
    }
}

/// The client's first message.
struct First<'a> {
    header: &'a str,
    bare: &'a str,
    user: String,
    nonce: &'a str,
}

impl<'a> First<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok().filter(|text| text.len() <= MESSAGE_BYTES_MAX)?;
        // No channel binding, or one that the client could do and thinks that we cannot.
        let after = text.strip_prefix("n,").or_else(|| text.strip_prefix("y,"))?;
        let (acts_for, bare) = after.split_once(',')?;
        let header = &text[..text.len() - bare.len()];
        let mut parts = bare.split(',');
        let user = name(parts.next()?.strip_prefix("n=")?)?;
        let nonce = parts.next()?.strip_prefix("r=").filter(|nonce| !nonce.is_empty())?;
        let printable = |byte: u8| byte.is_ascii_graphic();
        let acts_for_itself = acts_for.is_empty() || name(acts_for.strip_prefix("a=")?)? == user;
        // Extensions that may be passed over are; one that must not be, and that of a delegation token, are not.
        let others_are_fine = parts.all(|other| !other.starts_with("m=") && other != "tokenauth=true");
        let is_first = acts_for_itself && others_are_fine && !user.is_empty() && nonce.bytes().all(printable);
        is_first.then_some(Self { header, bare, user, nonce })
    }
}

/// A name as RFC 5802 writes it: `=2C` for a comma, `=3D` for an equals sign.
fn name(written: &str) -> Option<String> {
    let mut parts = written.split('=');
    let mut name = parts.next()?.to_owned();
    for part in parts {
        let (sign, rest) = match part.split_at_checked(2)? {
            ("2C", rest) => (',', rest),
            ("3D", rest) => ('=', rest),
            _ => return None,
        };
        name.push(sign);
        name.push_str(rest);
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(mechanism: Mechanism, password: &[u8], salt: &[u8], iterations: u32) -> Credential {
        let algorithm = match mechanism {
            Mechanism::Sha256 => ring::pbkdf2::PBKDF2_HMAC_SHA256,
            Mechanism::Sha512 => ring::pbkdf2::PBKDF2_HMAC_SHA512,
        };
        let mut salted = vec![0; mechanism.bytes()];
        ring::pbkdf2::derive(algorithm, iterations.try_into().expect("some"), salt, password, &mut salted);
        Credential::new(mechanism, iterations, salt.to_vec(), &salted)
    }

    /// The exchange of RFC 7677, section 3, with the server's nonce as it is there.
    fn of_the_rfc() -> Exchange {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let kept = Arc::new(credential(Mechanism::Sha256, b"pencil", &salt, 4_096));
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let begun = Exchange::begin(Mechanism::Sha256, first, [0; NONCE_BYTES], |user| {
            assert_eq!(user, "user");
            (kept, true)
        });
        let (mut exchange, answer) = begun.expect("a first message");
        assert!(answer.starts_with("r=rOprNGfwEbeRWgbNEkqO") && answer.ends_with(",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
        let theirs = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        exchange.signed = exchange.signed.replace(&exchange.nonce, theirs);
        exchange.nonce = theirs.to_owned();
        exchange
    }

    const PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn the_exchange_of_the_rfc_ends_as_it_does_there() {
        let last = format!("c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p={PROOF}");
        let (user, answer) = of_the_rfc().finish(last.as_bytes()).expect("let in");
        assert_eq!((user.as_str(), answer.as_str()), ("user", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    #[test]
    fn a_proof_counts_for_its_nonce_its_binding_and_a_user_that_there_is() {
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let last = |binding: &str, nonce: &str, proof: &str| format!("c={binding},r={nonce},p={proof}");
        for (message, what) in [
            (last("biws", "rOprNGfwEbeRWgbNEkqO", PROOF), "half a nonce"),
            (last("biws", &nonce.replace('%', "&"), PROOF), "another nonce"),
            (last("eSws", nonce, PROOF), "another binding"),
            (last("biws", nonce, &PROOF.replace('d', "e")), "another proof"),
            (last("biws", nonce, ""), "no proof"),
            (last("biws", nonce, "AAAA"), "a short proof"),
            (last("biws", nonce, PROOF).replace(",p=", ",x=1,p="), "something else that was signed"),
        ] {
            assert_eq!(of_the_rfc().finish(message.as_bytes()), None, "{what}");
        }
        // With a proof that is right for what it says.
        let proven = |without_proof: &str| {
            let mut salted = [0; 32];
            let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
            let iterations = 4_096.try_into().expect("some");
            ring::pbkdf2::derive(ring::pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, b"pencil", &mut salted);
            let client_key = Mechanism::Sha256.sign(&salted, b"Client Key");
            let stored_key = Mechanism::Sha256.hash(client_key.as_ref());
            let signed = format!("{},{without_proof}", of_the_rfc().signed);
            let signature = Mechanism::Sha256.sign(stored_key.as_ref(), signed.as_bytes());
            let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
            of_the_rfc().finish(format!("{without_proof},p={}", STANDARD.encode(proof)).as_bytes())
        };
        assert!(proven(&format!("c=biws,r={nonce}")).is_some());
        assert_eq!(proven("c=biws,r=rOprNGfwEbeRWgbNEkqO"), None, "the nonce of another exchange");
        assert_eq!(proven(&format!("c=eSws,r={nonce}")), None, "the binding of another exchange");
        let unknown = Exchange { is_known: false, ..of_the_rfc() };
        assert_eq!(unknown.finish(last("biws", nonce, PROOF).as_bytes()), None, "a likeness lets nobody in");
    }

    #[test]
    fn what_is_no_first_message_begins_nothing() {
        let kept = Arc::new(credential(Mechanism::Sha512, b"p", b"salt", 1));
        let begin = |message: &[u8]| {
            Exchange::begin(Mechanism::Sha512, message, [1; NONCE_BYTES], |_| (kept.clone(), true)).map(|(e, _)| e.user)
        };
        assert_eq!(begin(b"n,,n=a=2Cb=3Dc,r=x"), Some("a,b=c".to_owned()));
        assert_eq!(begin(b"y,a=me,n=me,r=x,some=thing"), Some("me".to_owned()));
        let long = format!("n,,n={},r=x", "u".repeat(MESSAGE_BYTES_MAX));
        for message in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n=a",
            "n,,n=a,r=",
            "n,,r=x,n=a",
            "n,,n=,r=x",
            "n,,n=a=2,r=x",
            "n,,n=a=2D,r=x",
            "p=tls-unique,,n=a,r=x",
            "n,a=root,n=me,r=x",
            "n,,m=1,n=a,r=x",
            "n,,n=a,r=x,m=1",
            "n,,n=t,r=x,tokenauth=true",
            "n,,n=a,r=x\u{7f}",
            &long,
        ] {
            assert_eq!(begin(message.as_bytes()), None, "{message:.40}");
        }
        assert_eq!(begin(b"n,,n=\xff,r=x"), None);
    }
}
