//! What must hold of a vault: what is kept comes back, is nowhere in the clear, and is gone when it is erased.

use std::{fs, path::Path, sync::Arc, time::Duration};

use cairn_clock::{Clock, Entropy, Timestamp};
use tempfile::TempDir;

use super::*;

#[path = "../../../clients/moto/moto.rs"]
mod moto;

const CANARY: &[u8] = b"the canary that must not be seen on any disk";

fn kek(byte: u8) -> Arc<dyn KeyEncryption> {
    Arc::new(GivenKey::read("given", &[byte; 32]).unwrap())
}

fn clock() -> Clock {
    Clock::manual(Timestamp::from_micros(1_795_521_600_000_000))
}

async fn open_at(folder: &Path, clock: &Clock, key: u8, old: &[u8]) -> Result<Vault, VaultError> {
    let mut options = VaultOptions::new(folder.join("vault"));
    options.object_bytes_max = 64 * 1024;
    options.flush_interval = Duration::from_millis(5);
    let old: Vec<_> = old.iter().map(|byte| kek(*byte)).collect();
    Vault::open(options, kek(key), &old, clock.clone(), Entropy::system()).await
}

async fn open(folder: &TempDir) -> Vault {
    open_at(folder.path(), &clock(), 1, &[]).await.unwrap()
}

fn ann() -> Subject {
    Subject { tenant: None, name: "ann".to_owned() }
}

fn bob() -> Subject {
    Subject { tenant: None, name: "bob".to_owned() }
}

async fn kept(vault: &Vault, whose: &Subject, payload: &[u8]) -> String {
    let kept = vault.keep(whose, payload, "application/json", true);
    kept.ticket.unwrap().durable().await.unwrap();
    kept.reference.digest
}

fn bytes_on_disk(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(bytes_on_disk(&path)) } else { all.extend(fs::read(path).unwrap()) }
    }
    all
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|part| part == needle)
}

#[tokio::test]
async fn what_is_kept_comes_back_after_a_restart_and_is_nowhere_in_the_clear() {
    let folder = TempDir::new().unwrap();
    let vault = open(&folder).await;
    let kept_one = vault.keep(&ann(), CANARY, "application/json", true);
    kept_one.ticket.unwrap().durable().await.unwrap();
    let reference = kept_one.reference;
    assert!(reference.location.as_deref().unwrap().starts_with("vault:s-"), "{reference:?}");
    assert_eq!(vault.read(&reference.digest).await.unwrap(), CANARY);
    vault.close().await;
    let vault = open(&folder).await;
    assert_eq!(vault.read(&reference.digest).await.unwrap(), CANARY);
    let disk = bytes_on_disk(folder.path());
    assert!(!holds(&disk, CANARY) && !holds(&disk, hex::encode(CANARY).as_bytes()));
    assert_eq!(vault.subject_of(&reference.digest), Some(ann()));
}

#[tokio::test]
async fn equal_payloads_of_two_subjects_do_not_look_equal_and_of_one_are_kept_once() {
    let folder = TempDir::new().unwrap();
    let vault = open(&folder).await;
    let tenant = Subject { tenant: Some("t".to_owned()), name: "ann".to_owned() };
    let digests =
        [kept(&vault, &ann(), CANARY).await, kept(&vault, &bob(), CANARY).await, kept(&vault, &tenant, CANARY).await];
    let hexes: Vec<&str> = digests.iter().map(|digest| digest.rsplit(':').next().unwrap()).collect();
    assert!(hexes[0] != hexes[1] && hexes[1] != hexes[2] && hexes[0] != hexes[2]);
    let before = vault.stats().objects;
    assert_eq!(kept(&vault, &ann(), CANARY).await, digests[0]);
    assert_eq!(vault.stats().objects, before);
}

#[tokio::test]
async fn erasing_destroys_keys_and_objects_of_one_subject_only() {
    let folder = TempDir::new().unwrap();
    let vault = open(&folder).await;
    let (his, hers) = (kept(&vault, &bob(), CANARY).await, kept(&vault, &ann(), CANARY).await);
    kept(&vault, &ann(), b"another").await;
    let erased = vault.erase(&ann()).await.unwrap();
    assert_eq!(erased.objects, 2);
    assert_eq!(erased.key_ids.len(), 2);
    assert_eq!(vault.read(&hers).await.unwrap_err().kind(), ErrorKind::Erased);
    assert_eq!(vault.read(&his).await.unwrap(), CANARY);
    assert_eq!(vault.unrecorded().unwrap(), std::slice::from_ref(&erased));
    vault.recorded(&erased).unwrap();
    assert_eq!(vault.unrecorded().unwrap(), []);
    vault.close().await;
    let vault = open(&folder).await;
    assert_eq!(vault.read(&hers).await.unwrap_err().kind(), ErrorKind::Erased);
    assert_eq!(vault.read(&his).await.unwrap(), CANARY);
    // Nothing of her is left: no name, and no frame under her id.
    let disk = bytes_on_disk(folder.path());
    assert!(!holds(&disk, b"\"ann\""));
    let id = SubjectId::read(&erased.key_ids[0]).unwrap();
    assert!(!holds(&bytes_on_disk(&folder.path().join("vault/objects")), &id.bytes()));
    // Who comes back is somebody new.
    assert_ne!(kept(&vault, &ann(), CANARY).await, hers);
    assert_eq!(
        vault.erase(&Subject { tenant: None, name: "eve".to_owned() }).await.unwrap_err().kind(),
        ErrorKind::Missing
    );
}

#[tokio::test]
async fn an_erasure_that_was_cut_off_goes_on_at_the_next_start() {
    let folder = TempDir::new().unwrap();
    let vault = open(&folder).await;
    let hers = kept(&vault, &ann(), CANARY).await;
    vault.close().await;
    let objects = bytes_on_disk(&folder.path().join("vault/objects"));
    let vault = open(&folder).await;
    let erased = vault.erase(&ann()).await.unwrap();
    vault.close().await;
    // As if the power had gone after the tombstone and before the objects.
    fs::write(folder.path().join("vault/objects/00000001.pack"), objects).unwrap();
    let path = folder.path().join(format!("vault/subjects/{}.json", erased.key_ids[0]));
    let text = fs::read_to_string(&path).unwrap().replace("\"scrubbed\": true", "\"scrubbed\": false");
    fs::write(&path, text).unwrap();
    let vault = open(&folder).await;
    let id = SubjectId::read(&erased.key_ids[0]).unwrap();
    assert!(!holds(&bytes_on_disk(&folder.path().join("vault/objects")), &id.bytes()));
    assert_eq!(vault.unrecorded().unwrap().len(), 1);
    assert_eq!(vault.read(&hers).await.unwrap_err().kind(), ErrorKind::Erased);
}

#[tokio::test]
async fn a_legal_hold_stops_erasure_and_expiry_and_says_so() {
    let folder = TempDir::new().unwrap();
    let clock = clock();
    let vault = open_at(folder.path(), &clock, 1, &[]).await.unwrap();
    let (hers, his) = (kept(&vault, &ann(), CANARY).await, kept(&vault, &bob(), CANARY).await);
    vault.hold(&ann(), "counsel", "case 12").await.unwrap();
    let refused = vault.erase(&ann()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Held);
    assert!(refused.to_string().contains("case 12"), "{refused}");
    vault.close().await;
    let vault = open_at(folder.path(), &clock, 1, &[]).await.unwrap();
    assert_eq!(vault.held().len(), 1);
    assert_eq!(vault.erase(&ann()).await.unwrap_err().kind(), ErrorKind::Held);
    clock.advance(Duration::from_secs(401 * 24 * 60 * 60));
    assert_eq!(vault.expire().await.unwrap(), 1);
    assert_eq!(vault.read(&his).await.unwrap_err().kind(), ErrorKind::Missing);
    assert_eq!(vault.read(&hers).await.unwrap(), CANARY);
    assert_eq!(vault.release(&ann()).await.unwrap(), 1);
    assert_eq!(vault.release(&ann()).await.unwrap_err().kind(), ErrorKind::Invalid);
    vault.erase(&ann()).await.unwrap();
}

#[tokio::test]
async fn keys_rotate_under_load_without_touching_an_object() {
    let folder = TempDir::new().unwrap();
    let vault = open(&folder).await;
    let first = kept(&vault, &ann(), CANARY).await;
    let pack = fs::read(folder.path().join("vault/objects/00000001.pack")).unwrap();
    let load = tokio::spawn({
        let vault = vault.clone();
        async move {
            let mut all = Vec::new();
            for n in 0..200_u32 {
                let whose = Subject { tenant: None, name: format!("s{}", n % 7) };
                all.push((kept(&vault, &whose, &n.to_le_bytes()).await, n));
            }
            all
        }
    });
    for key in [2, 3] {
        assert!(vault.rotate(Some(kek(key))).await.unwrap() >= 1);
        tokio::task::yield_now().await;
    }
    let all = load.await.unwrap();
    vault.close().await;
    assert!(fs::read(folder.path().join("vault/objects/00000001.pack")).unwrap().starts_with(&pack));
    // The old key opens nothing any more, and the error says which is wanted.
    let lost = open_at(folder.path(), &clock(), 1, &[]).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::Key);
    assert!(lost.to_string().contains(&kek(3).id()), "{lost}");
    let vault = open_at(folder.path(), &clock(), 3, &[]).await.unwrap();
    assert_eq!(vault.read(&first).await.unwrap(), CANARY);
    for (digest, n) in all {
        assert_eq!(vault.read(&digest).await.unwrap(), n.to_le_bytes());
    }
    vault.close().await;
    // Given as an old one it is enough, once; then the new one is.
    open_at(folder.path(), &clock(), 4, &[3]).await.unwrap().close().await;
    open_at(folder.path(), &clock(), 4, &[]).await.unwrap();
}

#[tokio::test]
async fn what_is_not_kept_says_why() {
    let folder = TempDir::new().unwrap();
    let clock = clock();
    let vault = open_at(folder.path(), &clock, 1, &[]).await.unwrap();
    let large = vault.keep(&ann(), &vec![0; 65 * 1024], "application/json", true);
    assert_eq!(large.ticket.unwrap_err(), NotKept::TooLarge);
    assert_eq!(large.reference.location.as_deref(), Some("not-kept:too-large"));
    assert_eq!(large.reference.bytes, 65 * 1024);
    kept(&vault, &ann(), b"begins a pack").await;
    // No pack can be begun where the folder is gone.
    vault.read(&large.reference.digest).await.unwrap_err();
    fs::rename(folder.path().join("vault/objects"), folder.path().join("away")).unwrap();
    fs::write(folder.path().join("vault/objects"), "").unwrap();
    let failed = vault.keep(&ann(), b"cannot be written", "application/json", true);
    let error = failed.ticket.unwrap().durable().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Disk);
    assert!(vault.failing().is_some());
    let tried = vault.keep(&ann(), b"is tried", "application/json", true);
    tried.ticket.unwrap().durable().await.unwrap_err();
    let refused = vault.keep(&ann(), b"is not even tried", "application/json", true);
    assert_eq!(refused.reference.location.as_deref(), Some("not-kept:failing"));
    // It heals by itself.
    fs::remove_file(folder.path().join("vault/objects")).unwrap();
    fs::rename(folder.path().join("away"), folder.path().join("vault/objects")).unwrap();
    clock.advance(Duration::from_secs(2));
    let digest = kept(&vault, &ann(), b"works again").await;
    assert_eq!(vault.read(&digest).await.unwrap(), b"works again");
    assert!(vault.failing().is_none());
}

#[tokio::test]
async fn a_pack_that_a_crash_cut_off_keeps_what_was_whole_and_orphans_are_collected() {
    let folder = TempDir::new().unwrap();
    let clock = clock();
    let vault = open_at(folder.path(), &clock, 1, &[]).await.unwrap();
    let (first, orphan) = (kept(&vault, &ann(), CANARY).await, kept(&vault, &ann(), b"orphan").await);
    vault.close().await;
    let pack = folder.path().join("vault/objects/00000001.pack");
    let mut bytes = fs::read(&pack).unwrap();
    let whole = bytes.clone();
    bytes.extend_from_slice(&whole[..70]);
    fs::write(&pack, bytes).unwrap();
    let vault = open_at(folder.path(), &clock, 1, &[]).await.unwrap();
    assert_eq!(vault.read(&first).await.unwrap(), CANARY);
    let referenced = first.rsplit(':').next().unwrap().to_owned();
    clock.advance(Duration::from_secs(1));
    let is_referenced = move |digest: &[u8; 32]| hex::encode(digest) == referenced;
    assert_eq!(vault.collect(clock.now(), is_referenced).await.unwrap(), 1);
    assert_eq!(vault.read(&orphan).await.unwrap_err().kind(), ErrorKind::Missing);
    assert_eq!(vault.read(&first).await.unwrap(), CANARY);
}

#[tokio::test]
async fn a_changed_byte_is_found() {
    let folder = TempDir::new().unwrap();
    let vault = open(&folder).await;
    let digest = kept(&vault, &ann(), CANARY).await;
    vault.close().await;
    let pack = folder.path().join("vault/objects/00000001.pack");
    let mut bytes = fs::read(&pack).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&pack, bytes).unwrap();
    let vault = open(&folder).await;
    assert!(vault.read(&digest).await.is_err());
    for other in ["", "hmac-sha256:k:00", "hmac-sha256:s-0123456789abcdef:zz"] {
        assert_eq!(vault.read(other).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_key_file_is_its_owners_only_and_says_what_is_wrong() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("key");
    assert!(FileKey::read(&path).unwrap_err().to_string().contains("backup"));
    let made = FileKey::make(&path, &Entropy::system()).unwrap();
    assert_eq!(FileKey::read(&path).unwrap().id(), made.id());
    assert!(FileKey::make(&path, &Entropy::system()).is_err());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(FileKey::read(&path).unwrap_err().to_string().contains("chmod 600"));
    let said = GivenKey::read("environment", b"no key at all, but a secret").unwrap_err().to_string();
    assert!(!said.contains("secret") && said.contains("32 bytes"), "{said}");
}

#[tokio::test]
async fn a_key_management_service_wraps_the_master_key() {
    let moto = tokio::task::spawn_blocking(|| moto::moto_or_skip(&[])).await.expect("no panic");
    let Some(moto) = moto else { return };
    let options = KmsOptions {
        key_id: String::new(),
        region: "us-east-1".to_owned(),
        endpoint: Some(moto.endpoint()),
        access_key_id: "test".to_owned(),
        secret_access_key: "test".to_owned(),
        session_token: None,
    };
    let made =
        KmsKey::new(options.clone(), Clock::system()).unwrap().ask("CreateKey", &serde_json::json!({})).await.unwrap();
    let key_id = made["KeyMetadata"]["KeyId"].as_str().unwrap().to_owned();
    let key = |id: &str| -> Arc<dyn KeyEncryption> {
        Arc::new(KmsKey::new(KmsOptions { key_id: id.to_owned(), ..options.clone() }, Clock::system()).unwrap())
    };
    let folder = TempDir::new().unwrap();
    let open = async |id: &str, old: &[Arc<dyn KeyEncryption>]| {
        let options = VaultOptions::new(folder.path().join("vault"));
        Vault::open(options, key(id), old, Clock::system(), Entropy::system()).await
    };
    let vault = open(&key_id, &[]).await.unwrap();
    let digest = kept(&vault, &ann(), CANARY).await;
    vault.close().await;
    let vault = open(&key_id, &[]).await.unwrap();
    assert_eq!(vault.read(&digest).await.unwrap(), CANARY);
    // From the service to a key of one's own, and a key that the service does not have.
    vault.rotate(Some(kek(7))).await.unwrap();
    vault.close().await;
    assert_eq!(open(&key_id, &[]).await.unwrap_err().kind(), ErrorKind::Key);
    let vault = open(&key_id, &[kek(7)]).await.unwrap();
    assert_eq!(vault.read(&digest).await.unwrap(), CANARY);
    // The same service wraps the keys of files; what it wrapped for the one opens nothing of the other.
    let of_files = || -> Arc<dyn KeyEncryption> {
        let options = KmsOptions { key_id: key_id.clone(), ..options.clone() };
        Arc::new(KmsKey::new(options, Clock::system()).unwrap().of(cairn_keys::Purpose::AtRest))
    };
    let at_rest = async || cairn_keys::AtRest::open(Some(of_files()), Vec::new(), Entropy::system()).await.unwrap();
    let (seal, envelope) = at_rest().await.new_file().unwrap();
    let mut text = CANARY.to_vec();
    let trailer = seal.seal(&Entropy::system(), b"here", &mut text);
    let later = at_rest().await.file(&envelope).unwrap();
    assert_eq!(later.open(b"here", &text, &trailer).as_deref(), Some(CANARY));
    let wrapped = of_files().wrap(&Secret::new([3; 32])).await.unwrap();
    assert!(of_files().unwrap(&wrapped).await.is_ok() && key(&key_id).unwrap(&wrapped).await.is_err());
    let lost = key("00000000-0000-0000-0000-000000000000").wrap(&Secret::new([0; 32])).await.unwrap_err().to_string();
    assert!(lost.contains("NotFound"), "{lost}");
}

#[tokio::test]
async fn many_are_read_back_at_once_and_each_says_what_became_of_it() {
    let folder = TempDir::new().unwrap();
    let vault = open(&folder).await;
    let keep = async |whose: &Subject, payload: &[u8]| {
        let kept = vault.keep(whose, payload, "application/json", true);
        kept.ticket.unwrap().durable().await.unwrap();
        (kept.reference.digest, kept.reference.location.unwrap())
    };
    let first = keep(&ann(), b"first").await;
    // Reading rolls to another pack.
    vault.read(&first.0).await.unwrap();
    let second = keep(&ann(), b"second").await;
    let bobs = keep(&bob(), b"bob's").await;
    vault.erase(&bob()).await.unwrap();
    let late = (second.0.clone(), first.1.clone());
    let nowhere = (first.0.clone(), "vault:s-0000000000000000/00ffffff".to_owned());
    let wrong = (first.0.clone(), "not-kept:busy".to_owned());
    let wanted = vec![second.clone(), first.clone(), bobs, nowhere, wrong, second, late];
    let found = vault.read_many(wanted).await.unwrap();
    let text = |at: usize| found[at].as_deref().map(String::from_utf8_lossy);
    assert_eq!(
        (text(0).unwrap(), text(1).unwrap(), text(5).unwrap()),
        ("second".into(), "first".into(), "second".into())
    );
    assert!(matches!(found[2], Err(VaultError::ErasedSubject { .. })), "{:?}", found[2]);
    assert!(matches!(found[3], Err(VaultError::NoObject { .. })));
    assert!(matches!(found[4], Err(VaultError::NoReference { .. })));
    assert_eq!(text(6).unwrap(), "second", "the writer went on to the next pack after the reference was made");
}
