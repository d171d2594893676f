//! fake-gcs-server and Azurite, which play Google Cloud Storage and Azure Blob Storage with conditional writes, for the tests of the
//! crates that include this file.
//!
//! Go and npm set them up in the cache folder, once for all of them. Where there is no Go or Node a test says so and passes, in CI it
//! fails. A server ends with its guard, by its own handle.
#![allow(dead_code, clippy::disallowed_methods, clippy::print_stderr)] // real processes in real time, and a word to who runs it

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

/// How long a server may take to answer after its start, on a loaded machine.
const START_LIMIT_S: u64 = 120;

/// A running server; ends with its guard.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts one that is told its port, and waits until it answers.
    fn start(command: impl FnOnce(u16) -> Command) -> Result<Self, String> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr());
        let port = port.map_err(said)?.port();
        let mut command = command(port);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map_err(said)?;
        let server = Self { child, port };
        for _ in 0..START_LIMIT_S * 10 {
            if server.send("GET", "/", &[]).is_ok() {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("the server does not answer".to_owned())
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let (host, length) = (format!("127.0.0.1:{}", self.port), body.len());
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        )?;
        stream.write_all(body)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// fake-gcs-server.
pub(crate) struct FakeGcs(Server);

impl FakeGcs {
    /// A key of a service account that nobody is asked for: the server takes all who come.
    pub(crate) const KEY: &'static str = "{\"private_key\": \"s3cret-of-the-test\", \"private_key_id\": \"none\", \
                                          \"client_email\": \"test@example.org\", \"disable_oauth\": true}";

    /// Starts one, or says why not.
    pub(crate) fn start() -> Result<Self, String> {
        let program = set_up("gcs", &["go.mod", "go.sum", "main.go"], |folder| {
            let mut build = Command::new("go");
            run(build.args(["build", "-o", "server", "."]).current_dir(folder))
        })?;
        let command = |port: u16| {
            let mut command = Command::new(program.join("server"));
            command.arg(port.to_string());
            command
        };
        Server::start(command).map(Self)
    }

    /// Its URL.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.0.port)
    }

    /// Makes a bucket.
    pub(crate) fn make_bucket(&self, name: &str) {
        let made = self.0.send("POST", "/storage/v1/b?project=test", format!("{{\"name\": \"{name}\"}}").as_bytes());
        let made = made.expect("it answers");
        assert!(made.lines().next().is_some_and(|line| line.contains(" 200 ")), "{made}");
    }
}

/// Azurite's blob service.
pub(crate) struct Azurite {
    server: Server,
    folder: PathBuf,
}

impl Azurite {
    /// The account.
    pub(crate) const ACCOUNT: &'static str = "cairntest";
    /// Its key.
    pub(crate) const KEY: &'static str = "czNjcmV0LW9mLXRoZS10ZXN0LWFjY291bnQtb2YtYXp1cml0ZQ==";

    /// Starts one, or says why not.
    pub(crate) fn start() -> Result<Self, String> {
        let folder = set_up("azurite", &["package.json", "container.mjs"], |folder| {
            let mut install = Command::new("npm");
            install.args([
                "install",
                "--no-audit",
                "--no-fund",
                "--no-package-lock",
                "--ignore-scripts",
                "--loglevel=error",
            ]);
            run(install.current_dir(folder))
        })?;
        let command = |port: u16| {
            let mut command = Command::new("node");
            command
                .arg(folder.join("node_modules/azurite/dist/src/blob/main.js"))
                .args(["--blobPort", &port.to_string(), "--inMemoryPersistence", "--silent", "--disableTelemetry"])
                .env("AZURITE_ACCOUNTS", format!("{}:{}", Self::ACCOUNT, Self::KEY))
                .current_dir(&folder);
            command
        };
        Ok(Self { server: Server::start(command)?, folder: folder.clone() })
    }

    /// The URL of its account.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}/{}", self.server.port, Self::ACCOUNT)
    }

    /// Makes a container.
    pub(crate) fn make_container(&self, name: &str) {
        let mut make = Command::new("node");
        make.arg(self.folder.join("container.mjs")).args([&self.endpoint(), Self::ACCOUNT, Self::KEY, name]);
        run(&mut make).expect("a container");
    }
}

/// Copies a part of `clients/buckets` to the cache folder and makes it ready there, unless that was done for the very same files.
fn set_up(part: &str, files: &[&str], make: impl FnOnce(&Path) -> Result<(), String>) -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/buckets").join(part);
    let mut wanted = String::new();
    for file in files {
        wanted += &fs::read_to_string(source.join(file)).map_err(|error| format!("{part}/{file}: {error}"))?;
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let folder = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("cairn/buckets").join(part);
    fs::create_dir_all(&folder).map_err(said)?;
    // Tests of several processes may want it at once: the first sets it up.
    let lock = File::create(folder.join("lock")).map_err(said)?;
    lock.lock().map_err(said)?;
    let stamp = folder.join("set-up");
    if fs::read_to_string(&stamp).is_ok_and(|done| done == wanted) {
        return Ok(folder);
    }
    let _ = fs::remove_file(&stamp);
    for file in files {
        fs::copy(source.join(file), folder.join(file)).map_err(said)?;
    }
    make(&folder)?;
    fs::write(&stamp, wanted).map_err(said)?;
    Ok(folder)
}

fn said(error: std::io::Error) -> String {
    error.to_string()
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// A server, or a word on why there is none; in CI there must be one.
pub(crate) fn or_skip<T>(what: &str, started: Result<T, String>) -> Option<T> {
    match started {
        Ok(server) => Some(server),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "{what} cannot be tested: {why}");
            eprintln!("SKIPPED: {what} is not tested: {why}");
            None
        }
    }
}
