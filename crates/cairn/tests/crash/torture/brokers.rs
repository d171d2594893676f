//! The brokers of one site: real `cairn broker` processes that are killed, stopped and started again, and what a kill takes with it.
//!
//! A process is ended by its own handle only. What each start said is kept beside the data, for whoever looks into a failure.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use cairn_clock::Entropy;

use super::{moto::Moto, pause, until};
use crate::forgetful::{Forgetful, Loss};

/// So small and hasty that a kill meets uploads, heads, objects that are put together and files that are used again.
const HASTY: &str = "upload_bytes = 40000\nupload_interval_ms = 100\nwal_segment_bytes = 262144\nretention_interval_ms = 200\n\
                     cache_bytes_max = 200000\n";

/// Where the log is, and what a kill takes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ground {
    /// The local disk; a kill takes the process.
    Disk,
    /// The local disk; each kill takes what was not synced, too.
    Forgetful,
    /// A bucket; each kill takes the machine's disk, too.
    Bucket,
    /// A bucket, with a second broker that stands by and takes over.
    Pair,
}

/// One start of a broker.
struct Running {
    child: Child,
    said: PathBuf,
}

impl Running {
    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).expect("it runs");
        rustix::process::kill_process(pid, signal).expect("a signal to our own child");
    }

    /// Its end, where it has ended.
    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it can be waited for")
    }

    /// SIGKILL; it may have ended by itself a moment ago.
    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn end(&mut self) -> ExitStatus {
        until("the end of a broker", || self.ended())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What was done to brokers.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Deeds {
    pub(crate) kills: usize,
    pub(crate) stalls: usize,
    pub(crate) ends: usize,
    /// Kills that came before a start was ready.
    pub(crate) early: usize,
}

/// The brokers.
pub(crate) struct Brokers {
    ground: Ground,
    folder: PathBuf,
    addresses: Vec<String>,
    running: Vec<Option<Running>>,
    /// Whose the log is.
    active: usize,
    layer: Option<Forgetful>,
    /// Serves the bucket until the site is done with.
    _moto: Option<Moto>,
    entropy: Entropy,
    starts: usize,
    pub(crate) deeds: Deeds,
}

impl Brokers {
    /// Prepares them over an empty folder. `None` where there is no S3 to be had.
    pub(crate) fn new(ground: Ground, folder: &Path, seed: u64) -> Option<Self> {
        let bucket = matches!(ground, Ground::Bucket | Ground::Pair);
        let moto = if bucket { Some(super::moto::moto_or_skip(&[])?) } else { None };
        let count = if ground == Ground::Pair { 2 } else { 1 };
        let addresses: Vec<String> = (0..count).map(|place| free(seed, place)).collect();
        let layer =
            (ground == Ground::Forgetful).then(|| Forgetful::new(&folder.join("data-1"), &folder.join("journal")));
        let all: Vec<String> = addresses.iter().zip(1..).map(|(address, id)| format!("\"{id}@{address}\"")).collect();
        for (address, id) in addresses.iter().zip(1..) {
            let mut text = format!("[kafka]\nlisten = \"{address}\"\n");
            if ground == Ground::Pair {
                text += &format!("node_id = {id}\nbrokers = [{}]\n", all.join(", "));
            }
            text += &format!("[store]\n{HASTY}");
            if let Some(moto) = &moto {
                text += &format!(
                    "kind = \"s3\"\nbucket = \"torture\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\naccess_key_id = \"test\"\n\
                     secret_access_key = \"test\"\nwal = \"object\"\nwal_interval_ms = 20\n",
                    moto.endpoint()
                );
            }
            fs::write(folder.join(format!("{id}.toml")), text).expect("written");
        }
        if let Some(moto) = &moto {
            moto.make_bucket("torture");
        }
        let running = addresses.iter().map(|_| None).collect();
        let entropy = Entropy::seeded(seed ^ 0x0062_726f_6b65_7273);
        let (folder, deeds) = (folder.to_owned(), Deeds::default());
        Some(Self { ground, folder, addresses, running, active: 0, layer, _moto: moto, entropy, starts: 0, deeds })
    }

    /// What clients are given.
    pub(crate) fn bootstrap(&self) -> String {
        self.addresses.join(",")
    }

    /// Starts all of them.
    pub(crate) fn start(&mut self) {
        self.launch(0, &[]);
        self.ready(0);
        if self.ground == Ground::Pair {
            self.launch(1, &[]);
            self.says(1, "standing by");
        }
    }

    fn launch(&mut self, place: usize, env: &[(&str, String)]) {
        let id = place + 1;
        self.starts += 1;
        let said = self.folder.join(format!("said-{:03}-{id}.txt", self.starts));
        let output = fs::File::create(&said).expect("a file");
        let program = std::env::var_os("CAIRN_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_cairn").into());
        let mut command = Command::new(program);
        command.args(["broker", "--admin", "127.0.0.1:0", "--data"]).arg(self.folder.join(format!("data-{id}")));
        command.arg("--config").arg(self.folder.join(format!("{id}.toml")));
        for variable in ["CAIRN_DATA", "CAIRN_OPERATOR_TOKEN", "CAIRN_LOG", "CAIRN_CRASH_AT"] {
            command.env_remove(variable);
        }
        command.envs(self.layer.iter().flat_map(Forgetful::env)).envs(env.iter().cloned());
        command.stdin(Stdio::null()).stdout(output.try_clone().expect("a file")).stderr(output);
        let child = command.spawn().expect("cairn starts");
        self.running[place] = Some(Running { child, said });
    }

    fn one(&mut self, place: usize) -> &mut Running {
        self.running[place].as_mut().expect("it was started")
    }

    fn says(&mut self, place: usize, what: &str) {
        let one = self.one(place);
        until(what, || {
            let said = one.said();
            let ended = one.ended().filter(|_| !said.contains(what));
            assert!(ended.is_none(), "a broker ended, {ended:?}: {said}");
            said.contains(what).then_some(())
        });
    }

    fn ready(&mut self, place: usize) {
        self.says(place, "ready kafka");
        self.active = place;
    }

    /// Makes the disk below full or broken, or lets it be again.
    pub(crate) fn fault(&self, name: &str, is_on: bool) {
        self.layer.as_ref().expect("there is a layer").fault(name, is_on);
    }

    /// Waits until the only broker has ended by itself: its code, and what it said.
    pub(crate) fn ended(&mut self) -> (Option<i32>, String) {
        let one = self.one(0);
        (one.end().code(), one.said())
    }

    /// What the only broker has said since it was started.
    pub(crate) fn said(&self) -> String {
        self.running[0].as_ref().map(Running::said).unwrap_or_default()
    }

    /// Starts the only broker again, over what was synced.
    pub(crate) fn go_on(&mut self) {
        self.lose(0);
        self.again(0);
    }

    /// Does something to whoever is active, at this moment, and comes back when somebody serves again.
    pub(crate) fn torture(&mut self) {
        let place = self.active;
        match self.entropy.next_u64() % 8 {
            0 => self.stop(place),
            1 if self.ground == Ground::Pair => self.stall(place),
            2 | 3 if self.ground == Ground::Forgetful => self.kill_below(place),
            _ => self.kill(place),
        }
    }

    /// SIGTERM: it hands over, or is gone on from.
    fn stop(&mut self, place: usize) {
        self.deeds.ends += 1;
        self.one(place).signal(rustix::process::Signal::TERM);
        let status = self.one(place).end();
        assert!(status.success(), "a broker that was told to end: {status}: {}", self.one(place).said());
        self.again(place);
    }

    /// SIGKILL, and what goes with it.
    fn kill(&mut self, place: usize) {
        self.deeds.kills += 1;
        self.one(place).kill();
        self.lose(place);
        self.again(place);
    }

    /// After a kill the next start is killed by the layer below it, around an operation on the disk: in recovery, or later.
    fn kill_below(&mut self, place: usize) {
        self.deeds.kills += 1;
        self.one(place).kill();
        self.lose(place);
        let (turn, nth) = (self.entropy.next_u64(), 1 + self.entropy.next_u64() % 400);
        let operations =
            ["any", "write-torn", "sync-before", "sync-after", "link-before", "link-after", "rename-before"];
        let operation = operations[turn as usize % operations.len()];
        self.launch(place, &[("FORGETFUL_KILL", format!("{operation}:{nth}"))]);
        // Some operations do not come so often: then it is killed from outside.
        let one = self.one(place);
        let mut patience = 300;
        while one.ended().is_none() && patience > 0 {
            pause(10);
            patience -= 1;
        }
        self.deeds.early += usize::from(!self.one(place).said().contains("ready kafka"));
        self.kill(place);
    }

    /// SIGSTOP until another has taken over, then SIGCONT: it must end.
    fn stall(&mut self, place: usize) {
        self.deeds.stalls += 1;
        self.one(place).signal(rustix::process::Signal::STOP);
        self.ready(1 - place);
        pause(self.entropy.next_u64() % 500);
        self.one(place).signal(rustix::process::Signal::CONT);
        let status = self.one(place).end();
        assert_eq!(status.code(), Some(6), "it was replaced: {}", self.one(place).said());
        self.launch(place, &[]);
        self.says(place, "standing by");
    }

    /// What is lost with a process that was killed.
    fn lose(&mut self, place: usize) {
        match (self.ground, &self.layer) {
            (Ground::Bucket | Ground::Pair, _) => {
                let _ = fs::remove_dir_all(self.folder.join(format!("data-{}", place + 1)));
            }
            (Ground::Forgetful, Some(layer)) => {
                let seed = self.entropy.next_u64();
                layer.lose(if seed.is_multiple_of(3) { Loss::All } else { Loss::Some(seed) });
            }
            _ => {}
        }
    }

    fn again(&mut self, place: usize) {
        if self.ground == Ground::Pair {
            self.ready(1 - place);
            self.launch(place, &[]);
            self.says(place, "standing by");
        } else {
            self.launch(place, &[]);
            self.ready(place);
        }
    }

    /// Ends all of them well, then has what they stored checked.
    pub(crate) fn finish(&mut self) {
        let active = self.active;
        for place in (0..self.running.len()).filter(|place| *place != active).chain([active]) {
            self.one(place).signal(rustix::process::Signal::TERM);
            let status = self.one(place).end();
            assert!(status.success(), "a broker that was told to end: {status}: {}", self.one(place).said());
        }
        let id = active + 1;
        let program = std::env::var_os("CAIRN_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_cairn").into());
        let output = Command::new(program)
            .args(["broker", "check", "--data"])
            .arg(self.folder.join(format!("data-{id}")))
            .arg("--config")
            .arg(self.folder.join(format!("{id}.toml")))
            .output()
            .expect("cairn starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cairn broker check: {}: {said}", output.status);
    }
}

/// An address that is free now, on an address of loopback of its own, so that it stays free.
fn free(seed: u64, place: u8) -> String {
    let pid = std::process::id();
    let host = format!("127.{}.{}.{}", 1 + (pid >> 8) % 250, pid % 250, 10 + 2 * (seed % 100) as u8 + place);
    TcpListener::bind((host.as_str(), 0)).expect("loopback").local_addr().expect("bound").to_string()
}
