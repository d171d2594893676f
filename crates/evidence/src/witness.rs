//! Asking witnesses to cosign a checkpoint: the client side of C2SP tlog-witness.
//!
//! The collector calls it with each new checkpoint. A witness that is away costs one bounded attempt; nothing waits for it.
//! Only witnesses that the configuration names are asked, without proxies and without following redirects. What comes back counts
//! only where the named key made it.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    note::{Note, NoteError, VerifierKey},
    tree::Hash,
};

/// How long a witness may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// A witness: who it is and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Witness {
    /// Its key, of type 4.
    pub key: VerifierKey,
    /// The submission prefix; without one it is asked by other means.
    pub url: Option<String>,
}

/// Why a witness did not cosign.
#[derive(Debug, thiserror::Error)]
pub enum WitnessError {
    /// It cannot be reached.
    #[error("the witness {witness} cannot be asked: {reason}")]
    Away {
        /// Its name.
        witness: String,
        /// What happened.
        reason: String,
    },
    /// It refuses.
    #[error("the witness {witness} refuses with HTTP {status}: {said}")]
    Refused {
        /// Its name.
        witness: String,
        /// The status.
        status: u16,
        /// What it said.
        said: String,
    },
    /// It has cosigned more than this log has.
    #[error(
        "the witness {witness} has cosigned {theirs} records of {origin}, and the log has {ours}: this data folder is an old copy, or the log was forked"
    )]
    Ahead {
        /// Its name.
        witness: String,
        /// The log.
        origin: String,
        /// What it has cosigned.
        theirs: u64,
        /// What there is.
        ours: u64,
    },
    /// Its answer does not verify.
    #[error("the answer of the witness {witness} is not valid: {source}")]
    Invalid {
        /// Its name.
        witness: String,
        /// What is wrong.
        source: NoteError,
    },
    /// The proof that it wants cannot be made.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// Whoever asks.
#[derive(Clone, Debug)]
pub struct WitnessClient(reqwest::Client);

impl WitnessClient {
    /// A client that follows nothing and uses no proxy.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        // A second provider is the first one again.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Ok(Self(client.timeout(ANSWER_WITHIN).build()?))
    }

    /// Asks for a cosignature of a checkpoint; the lines to add to it. `old` is what the witness cosigned last, as far as is
    /// known, and `proof` makes the consistency proof from such a size.
    ///
    /// # Errors
    /// It is away, refuses, or says what does not verify.
    pub async fn cosign(
        &self,
        witness: &Witness,
        checkpoint: &Checkpoint<'_>,
        old: u64,
        proof: impl Fn(u64) -> Result<Vec<Hash>, crate::store::StoreError>,
    ) -> Result<Vec<String>, WitnessError> {
        let Some(url) = &witness.url else { return Ok(Vec::new()) };
        let url = format!("{}/add-checkpoint", url.trim_end_matches('/'));
        let (status, said) = self.post(witness, &url, checkpoint, old, &proof(old)?).await?;
        let (status, said) = if status == 409 {
            let known = said.trim().parse::<u64>();
            let theirs = known.map_err(|_| refused(witness, status, &said))?;
            if theirs > checkpoint.size {
                let (witness, origin) = (witness.key.name.clone(), checkpoint.origin.to_owned());
                return Err(WitnessError::Ahead { witness, origin, theirs, ours: checkpoint.size });
            }
            self.post(witness, &url, checkpoint, theirs, &proof(theirs)?).await?
        } else {
            (status, said)
        };
        if status != 200 {
            return Err(refused(witness, status, &said));
        }
        let lines: Vec<&str> = said.lines().collect();
        let invalid = |source| WitnessError::Invalid { witness: witness.key.name.clone(), source };
        let line = witness.key.verify(checkpoint.text, lines).map_err(invalid)?;
        Ok(vec![line.to_owned()])
    }

    async fn post(
        &self,
        witness: &Witness,
        url: &str,
        checkpoint: &Checkpoint<'_>,
        old: u64,
        proof: &[Hash],
    ) -> Result<(u16, String), WitnessError> {
        let away = |error: reqwest::Error| WitnessError::Away {
            witness: witness.key.name.clone(),
            reason: error.without_url().to_string(),
        };
        let hashes: String = proof.iter().map(|hash| STANDARD.encode(hash) + "\n").collect();
        let body = format!("old {old}\n{hashes}\n{}", checkpoint.note);
        let mut answer = self.0.post(url).body(body).send().await.map_err(away)?;
        let mut said = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(away)? {
            let room = ANSWER_BYTES_MAX - said.len();
            said.extend_from_slice(&part[..part.len().min(room)]);
            if said.len() == ANSWER_BYTES_MAX {
                break;
            }
        }
        Ok((answer.status().as_u16(), String::from_utf8_lossy(&said).into_owned()))
    }
}

/// What is to be cosigned.
#[derive(Clone, Copy, Debug)]
pub struct Checkpoint<'c> {
    /// The log.
    pub origin: &'c str,
    /// How many leaves.
    pub size: u64,
    /// The note's text.
    pub text: &'c str,
    /// The whole note.
    pub note: &'c str,
}

fn refused(witness: &Witness, status: u16, said: &str) -> WitnessError {
    let said = said.chars().take(200).collect::<String>().trim().to_owned();
    WitnessError::Refused { witness: witness.key.name.clone(), status, said }
}

/// The cosignatures in a note that named witnesses made.
#[must_use]
pub fn cosignatures<'n>(note: &'n Note, witnesses: &[Witness]) -> Vec<(String, &'n str)> {
    let lines = || note.lines.iter().map(String::as_str);
    let found = witnesses.iter().filter_map(|witness| {
        let line = witness.key.verify(&note.text, lines()).ok()?;
        Some((witness.key.to_string(), line))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use cairn_clock::Entropy;
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{
        leaf::Commitment,
        note::SigningKey,
        store::{Identity, LogStore},
        tree::sha256,
    };

    /// One HTTP request's body.
    async fn body(stream: &mut TcpStream) -> String {
        let mut read = Vec::new();
        loop {
            let mut part = [0; 4096];
            let count = stream.read(&mut part).await.unwrap();
            read.extend_from_slice(&part[..count]);
            let text = String::from_utf8_lossy(&read).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() == length.unwrap_or(0) {
                assert!(head.starts_with("POST /w1/add-checkpoint HTTP/1.1"), "{head}");
                return body.to_owned();
            }
        }
    }

    /// A witness as tlog-witness says: it remembers the size that it cosigned last, and refuses any other as the old one.
    async fn serve(listener: TcpListener, pair: Ed25519KeyPair, name: &str, mut known: u64) {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = body(&mut stream).await;
            let (head, note) = asked.split_once("\n\n").unwrap();
            let note = Note::parse(note).unwrap();
            let old: u64 = head.lines().next().unwrap().strip_prefix("old ").unwrap().parse().unwrap();
            let size: u64 = note.text.lines().nth(1).unwrap().parse().unwrap();
            let (status, said) = if old == known {
                assert_eq!(head.lines().count() > 1, old > 0 && old < size, "a proof where one is needed: {head}");
                known = size;
                let time = 1_795_521_600_u64;
                let signature = pair.sign(format!("cosignature/v1\ntime {time}\n{}", note.text).as_bytes());
                let id = sha256(&[name.as_bytes(), b"\n\x04", pair.public_key().as_ref()].concat());
                let bytes = [&id[..4], &time.to_be_bytes(), signature.as_ref()].concat();
                ("200 OK", format!("\u{2014} {name} {}\n", STANDARD.encode(bytes)))
            } else {
                ("409 Conflict", format!("{known}\n"))
            };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{said}", said.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_witness_cosigns_what_extends_and_its_own_size_is_learnt() {
        let home = tempfile::tempdir().unwrap();
        let identity =
            Identity { cluster_id: "c".into(), topic: "mcp.calls".into(), topic_id: "t".into(), partition: 0 };
        let key = SigningKey::generate("example.com/audit", &Entropy::seeded(1)).unwrap();
        let mut store = LogStore::open(home.path().join("log"), identity).unwrap();
        let grow = |store: &mut LogStore, count: u64| {
            for _ in 0..count {
                let offset = store.offset_next();
                store.push(&Commitment { offset, timestamp_ms: 0, presence: 3, key: [0; 32], content: [1; 32] });
            }
            store.commit(&key).unwrap();
        };
        let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
        let public = pair.public_key().as_ref();
        let id = sha256(&[b"witness.example/w1\n\x04", public].concat());
        let vkey = format!("witness.example/w1+{}+{}", hex::encode(&id[..4]), STANDARD.encode([&[4], public].concat()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Some(format!("http://{}/w1/", listener.local_addr().unwrap()));
        // It has cosigned five records already, which this data folder does not know.
        let serving = tokio::spawn(serve(listener, pair, "witness.example/w1", 5));
        let witness = Witness { key: VerifierKey::parse(&vkey).unwrap(), url };
        let client = WitnessClient::new().unwrap();
        let ask = async |store: &LogStore, old: u64| {
            let state = store.state();
            let (note, origin) = (Note::parse(&state.note).unwrap(), state.identity.origin());
            let checkpoint = Checkpoint { origin: &origin, size: state.size, text: &note.text, note: &state.note };
            client.cosign(&witness, &checkpoint, old, |old| store.extends(old)).await
        };
        grow(&mut store, 4);
        assert!(matches!(ask(&store, 0).await, Err(WitnessError::Ahead { theirs: 5, ours: 4, .. })));
        grow(&mut store, 8);
        let lines = ask(&store, 0).await.unwrap();
        store.witnessed(&vkey, &lines).unwrap();
        grow(&mut store, 3);
        let lines = ask(&store, store.state().witnessed[&vkey]).await.unwrap();
        store.witnessed(&vkey, &lines).unwrap();
        let note = Note::parse(&store.state().note).unwrap();
        assert_eq!(cosignatures(&note, std::slice::from_ref(&witness)).len(), 1);
        assert_eq!((note.lines.len(), store.state().witnessed[&vkey]), (2, 15));
        serving.abort();
        assert!(matches!(ask(&store, 15).await, Err(WitnessError::Away { .. })));
    }
}
