//! moto's server, which plays S3 with conditional writes, for the tests of the crates that include this file.
//!
//! Python sets it up in the cache folder, once for all of them. Where there is no Python a test says so and passes, in CI it
//! fails. A server ends with its guard, by its own handle.
#![allow(dead_code, clippy::disallowed_methods, clippy::print_stderr)] // real processes in real time, and a word to who runs it

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// How long moto may take to answer after its start, on a loaded machine.
const START_LIMIT_S: u64 = 120;

/// moto's server, which answers one request at a time. By itself it answers each in a thread, and checks and writes in two steps: two
/// conditional writes at once can then both win, which no service does that promises them. Requests are read side by side, so that a
/// client that stops in the middle of one stops nobody else.
const ONE_AT_A_TIME: &str = "
import io, sys, threading
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

app, lock = DomainDispatcherApplication(create_backend_app), threading.Lock()

def one_at_a_time(environ, start_response):
    given, length = environ['wsgi.input'], environ.get('CONTENT_LENGTH')
    body = given.read(int(length)) if length else given.read() if environ.get('wsgi.input_terminated') else b''
    environ['wsgi.input'] = io.BytesIO(body)
    with lock:
        return list(app(environ, start_response))

run_simple('127.0.0.1', int(sys.argv[1]), one_at_a_time, threaded=True)
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
        Self::start_with(&[])
    }

    /// Starts one with variables of moto's own.
    pub(crate) fn start_with(env: &[(&str, &str)]) -> Result<Self, String> {
        let bin = environment()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr());
        let port = port.map_err(|error| error.to_string())?.port();
        let mut command = Command::new(bin.join("python"));
        command
            .args(["-c", ONE_AT_A_TIME, &port.to_string()])
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
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

    /// One request; the answer's head and body.
    pub(crate) fn request(&self, method: &str, path: &str) -> std::io::Result<String> {
        self.send(method, path, &[])
    }

    /// One request with a body.
    pub(crate) fn send(&self, method: &str, path: &str, body: &[u8]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let host = format!("127.0.0.1:{}", self.port);
        let signed = "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request";
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: {signed}\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n",
            body.len()
        )?;
        stream.write_all(body)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Its URL.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes a bucket.
    pub(crate) fn make_bucket(&self, name: &str) {
        let said = self.request("PUT", &format!("/{name}")).expect("moto answers");
        assert!(said.lines().next().is_some_and(|line| line.contains(" 200 ")), "{said}");
    }
}

/// The folder of programs of a virtual environment with `clients/moto/requirements.txt`.
fn environment() -> Result<PathBuf, String> {
    // Whoever includes this file lies one or two folders below the root.
    let above = ["../../clients", "../clients"].map(|clients| Path::new(env!("CARGO_MANIFEST_DIR")).join(clients));
    let list = above.map(|clients| clients.join("moto/requirements.txt")).into_iter().find(|list| list.is_file());
    let list = list.ok_or("clients/moto/requirements.txt is not there")?;
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

/// A moto, or a word on why there is none; in CI there must be one.
pub(crate) fn moto_or_skip(env: &[(&str, &str)]) -> Option<Moto> {
    match Moto::start_with(env) {
        Ok(moto) => Some(moto),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "S3 cannot be tested: {why}");
            eprintln!("SKIPPED: S3 is not tested: {why}");
            None
        }
    }
}
