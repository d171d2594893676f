//! S3 against moto's server, which plays the service with conditional writes. Python sets it up in the cache folder; where
//! there is no Python the test says so and passes, in CI it fails.
#![allow(clippy::disallowed_methods, clippy::print_stderr)] // real processes in real time, and a word to who runs it

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::BytesMut;
use cairn_clock::{Clock, Entropy};

use super::*;
use crate::{Append, LeaderEpoch, Log, LogOptions, Offset, PartitionIndex, Retention, StreamId};

/// How long moto may take to answer after its start, on a loaded machine.
const START_LIMIT_S: u64 = 120;

/// moto's server for one request at a time. By itself it serves each in a thread, and checks and writes in two steps: two
/// conditional writes at once can then both win, which no service does that promises them.
const ONE_AT_A_TIME: &str = "
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
run_simple('127.0.0.1', int(sys.argv[1]), DomainDispatcherApplication(create_backend_app), threaded=False)
";

/// A running moto; ends with its guard.
pub(crate) struct Moto {
    child: Child,
    port: u16,
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Moto {
    /// Starts one, or says why not.
    pub(crate) fn start() -> Result<Self, String> {
        let bin = environment()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr());
        let port = port.map_err(|error| error.to_string())?.port();
        let mut command = Command::new(bin.join("python"));
        command.args(["-c", ONE_AT_A_TIME, &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("moto: {error}"))?;
        let moto = Self { child, port };
        for _ in 0..START_LIMIT_S * 10 {
            if moto.request("GET", "/moto-api/").is_ok() {
                return Ok(moto);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("moto does not answer".to_owned())
    }

    fn request(&self, method: &str, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let host = format!("127.0.0.1:{}", self.port);
        let signed = "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request";
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: {signed}\r\ncontent-length: 0\r\n\
             connection: close\r\n\r\n"
        )?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(line)
    }

    /// A new bucket's options.
    pub(crate) fn bucket(&self, name: &str) -> S3Options {
        let said = self.request("PUT", &format!("/{name}")).expect("moto answers");
        assert!(said.contains("200"), "{said}");
        S3Options {
            bucket: name.to_owned(),
            prefix: "some/prefix".to_owned(),
            endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
            region: Some("us-east-1".to_owned()),
            access_key_id: Some("test".to_owned()),
            secret_access_key: Some("s3cret-of-the-test".to_owned()),
            session_token: None,
        }
    }
}

/// The folder of programs of a virtual environment with `clients/moto/requirements.txt`.
fn environment() -> Result<PathBuf, String> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/moto/requirements.txt");
    let wanted = std::fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let folder = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("cairn/moto-python");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    // Tests of several processes may want it at once: the first sets it up.
    let lock = std::fs::File::create(folder.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let stamp = folder.join("set-up");
    let place = folder.join("venv");
    if std::fs::read_to_string(&stamp).is_ok_and(|done| done == wanted) {
        return Ok(place.join("bin"));
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place))?;
    let mut install = Command::new(place.join("bin/pip"));
    run(install.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&list))?;
    std::fs::write(&stamp, wanted).map_err(|error| error.to_string())?;
    Ok(place.join("bin"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// A moto, or a reason to skip; in CI there is none.
pub(crate) async fn moto() -> Option<Moto> {
    match tokio::task::spawn_blocking(Moto::start).await.expect("no panic") {
        Ok(moto) => Some(moto),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "S3 cannot be tested: {why}");
            eprintln!("SKIPPED: S3 is not tested: {why}");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_contract_and_says_what_is_wrong_with_a_bucket() {
    let Some(moto) = moto().await else { return };
    let options = moto.bucket("contract");
    let store = S3Store::new(&options).expect("usable options");
    crate::store::conformance::run(&store, &S3Store::new(&options).expect("usable options")).await;
    let missing = S3Store::new(&S3Options { bucket: "none".to_owned(), ..options.clone() }).expect("usable");
    let said = missing.prepare().await.expect_err("there is no such bucket").to_string();
    assert!(said.contains("bucket does not exist"), "{said}");
    assert!(!format!("{options:?}{store:?}{said}").contains("s3cret"));
}

fn stamp(bytes: &mut [u8], base: Offset, _: LeaderEpoch) {
    bytes[..8].copy_from_slice(&base.get().to_be_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_lives_in_a_bucket_and_comes_back_from_it_alone() {
    let Some(moto) = moto().await else { return };
    let options = moto.bucket("log");
    let stream = StreamId::new(uuid::Uuid::from_u128(1), PartitionIndex::new(0));
    let open = async || {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = LogOptions::new(folder.path().to_owned(), stamp);
        log.store = std::sync::Arc::new(S3Store::new(&options).expect("usable options"));
        (log.upload_bytes, log.upload_interval, log.tail_bytes_max) = (50_000, Duration::from_millis(50), 0);
        let log = Log::open(log, Clock::system(), Entropy::system()).await.expect("it opens");
        log.create_stream(stream, Retention::default()).await.expect("a stream");
        (log, folder)
    };
    let read = async |log: &Log, end: u64| {
        let (mut at, mut found) = (0, Vec::new());
        while at < end {
            let batches = log.read(stream, Offset::new(at), 20_000).await.expect("readable").batches;
            at += batches.len() as u64;
            found.extend(batches);
        }
        found
    };
    let (log, _first) = open().await;
    for n in 0..200_u8 {
        let records = std::num::NonZeroU32::MIN;
        let bytes = BytesMut::from(&[n; 1_000][..]);
        let entry = Append { stream, records, max_timestamp: i64::from(n), producer: None, bytes };
        log.append(vec![entry]).await.expect("a call").remove(0).expect("an entry");
    }
    while log.stats().wal_depth_bytes > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = read(&log, 200).await;
    assert_eq!(before.len(), 200);
    assert!(log.stats().object_reads >= 200, "{:?}", log.stats());
    log.close().await;
    let (again, _second) = open().await;
    assert_eq!(read(&again, 200).await, before);
    assert_eq!(again.find_time(stream, 150).await.expect("readable"), Some(Offset::new(150)));
    // The first, were it to go on, would be refused at its next contact: the head is the second's.
    again.delete_stream(stream).await.expect("durable");
    while again.stats().objects > 0 || again.stats().objects_removed == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    again.close().await;
}
