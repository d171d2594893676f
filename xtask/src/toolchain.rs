//! Other people's toolchains, set up in the cache folder.
//!
//! Who calls it: the suites of clients. It guarantees that what is set up once is not set up again until its list
//! changes. Each function answers with what to run, or an error that says what the machine lacks: the caller skips.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::places;
use crate::process::{quiet, version};

/// How long one set-up may take on a slow line.
const SET_UP_LIMIT: Duration = Duration::from_secs(600);
/// How long a cargo project of many crates may take to build from nothing.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);
/// The oldest Node that the conformance suite runs on.
const NODE_MAJOR_MIN: u32 = 22;

/// A Node recent enough, and the folder with a copy of `clients/` and its packages.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
}

impl Node {
    /// The program by its whole path, for whoever starts it in other surroundings.
    pub(crate) fn runs(&self) -> PathBuf {
        self.program.clone()
    }

    /// A script in `clients/`, ready to run.
    pub(crate) fn script(&self, path: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(self.folder.join(path)).current_dir(&self.folder);
        let bin = self.folder.join("node_modules/.bin");
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", bin.display()));
        command
    }
}

/// Sets up Node and the npm packages of `clients/package.json`.
pub(crate) fn node() -> anyhow::Result<Node> {
    version("npm", "--version").context("npm is not installed")?;
    let folder = places::cache("clients-node")?;
    for part in ["package.json", "mcp", "kafka", "registry", "models"] {
        let source = places::root().join("clients").join(part);
        if source.is_dir() {
            places::copy_tree(&source, &folder.join(part))?;
        } else {
            std::fs::copy(&source, folder.join(part)).with_context(|| format!("copy {}", source.display()))?;
        }
    }
    once(&folder, &[&places::root().join("clients/package.json")], || {
        let mut install = Command::new("npm");
        install.args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]);
        quiet(install.current_dir(&folder), SET_UP_LIMIT).map(drop)
    })?;
    let brought = folder.join("node_modules/.bin/node");
    for program in [brought, PathBuf::from("node")] {
        let said = version(&program.to_string_lossy(), "--version").unwrap_or_default();
        let major = said.trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_some_and(|major| major >= NODE_MAJOR_MIN) {
            return Ok(Node { program, folder });
        }
    }
    bail!("no Node {NODE_MAJOR_MIN} or newer, and the npm package did not bring one")
}

/// Sets up a virtual environment with `clients/requirements.txt`; gives its folder of programs.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    python_with("clients-python", "requirements.txt")
}

/// The same with another list of `clients/`, in a folder of that name.
pub(crate) fn python_with(name: &str, list: &str) -> anyhow::Result<PathBuf> {
    version("python3", "--version").context("python3 is not installed")?;
    let folder = places::cache(name)?;
    let list = places::root().join("clients").join(list);
    once(&folder, &[&list], || {
        quiet(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder), SET_UP_LIMIT)?;
        let mut install = Command::new(folder.join("bin/pip"));
        quiet(install.args(["install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&list), SET_UP_LIMIT)?;
        Ok(())
    })?;
    Ok(folder.join("bin"))
}

/// Builds the Go client; gives its program.
pub(crate) fn go_client() -> anyhow::Result<PathBuf> {
    go_program("kafka/franz", "franz")
}

/// Builds a Go program of `clients/`; gives its path.
pub(crate) fn go_program(source: &str, name: &str) -> anyhow::Result<PathBuf> {
    version("go", "version").context("go is not installed")?;
    let program = places::cache("clients-go")?.join(name);
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(".");
    quiet(build.current_dir(places::root().join("clients").join(source)), SET_UP_LIMIT)?;
    Ok(program)
}

/// Builds a cargo project of `clients/`, which is no member of the workspace; gives its program.
pub(crate) fn rust_program(source: &str, name: &str) -> anyhow::Result<PathBuf> {
    let target = places::cache("clients-rust")?.join(name);
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut build = Command::new(cargo);
    build.args(["build", "-q", "--locked", "--target-dir"]).arg(&target);
    quiet(build.current_dir(places::root().join("clients").join(source)), BUILD_LIMIT)?;
    Ok(target.join("debug").join(name))
}

/// Builds the Java client; gives its class path.
pub(crate) fn java_client() -> anyhow::Result<String> {
    java_project("kafka/java", "clients-java", &["Client.java", "TakeOver.java"])
}

/// Builds a Maven project of `clients/` with those classes of `io.cairn.clients`; gives its class path.
pub(crate) fn java_project(source: &str, cache: &str, classes: &[&str]) -> anyhow::Result<String> {
    version("java", "-version").context("java is not installed")?;
    version("mvn", "-v").context("maven is not installed")?;
    let folder = places::cache(cache)?;
    let source = places::root().join("clients").join(source);
    places::copy_tree(&source, &folder)?;
    let classes = classes.iter().map(|class| source.join("src/main/java/io/cairn/clients").join(class));
    let lists: Vec<PathBuf> = std::iter::once(source.join("pom.xml")).chain(classes).collect();
    once(&folder, &lists.iter().map(PathBuf::as_path).collect::<Vec<_>>(), || {
        let mut build = Command::new("mvn");
        build.args(["-q", "-B", "compile", "dependency:copy-dependencies", "-DoutputDirectory=target/lib"]);
        quiet(build.current_dir(&folder), SET_UP_LIMIT).map(drop)
    })?;
    Ok(format!("{0}/target/classes:{0}/target/lib/*", folder.display()))
}

/// Finds kcat; in CI as root it is installed from Debian's packages.
pub(crate) fn kcat() -> anyhow::Result<()> {
    let there = || version("kcat", "-V").is_some();
    if !there() && places::in_ci() && version("apt-get", "--version").is_some() {
        quiet(Command::new("apt-get").arg("update"), SET_UP_LIMIT)?;
        quiet(Command::new("apt-get").args(["install", "-y", "--no-install-recommends", "kcat"]), SET_UP_LIMIT)?;
    }
    if there() { Ok(()) } else { bail!("kcat is not installed") }
}

/// Finds Prometheus; where there is none and Debian's packages are to be had, it is taken out of one into the cache folder.
pub(crate) fn prometheus() -> anyhow::Result<PathBuf> {
    if version("prometheus", "--version").is_some() {
        return Ok(PathBuf::from("prometheus"));
    }
    let folder = places::cache("prometheus")?;
    let program = folder.join("root/usr/bin/prometheus");
    if !program.is_file() {
        version("apt-get", "--version").context("prometheus is not installed, and there is no apt-get")?;
        let fetch = || {
            let mut fetch = Command::new("apt-get");
            quiet(fetch.args(["download", "prometheus"]).current_dir(&folder), SET_UP_LIMIT).map(drop)
        };
        if fetch().is_err() {
            quiet(Command::new("apt-get").arg("update"), SET_UP_LIMIT)?;
            fetch()?;
        }
        let package = std::fs::read_dir(&folder)?.filter_map(Result::ok).map(|entry| entry.path());
        let package = package.filter(|path| path.extension().is_some_and(|end| end == "deb")).max();
        let package = package.context("apt-get gave no package")?;
        // Nothing is installed, so no service of it is started.
        quiet(Command::new("dpkg-deb").arg("-x").arg(&package).arg(folder.join("root")), SET_UP_LIMIT)?;
        std::fs::remove_file(&package)?;
    }
    version(&program.to_string_lossy(), "--version").context("the Prometheus of Debian's package does not run here")?;
    Ok(program)
}

/// Does `work` unless it was done for the same contents of these files. Who comes meanwhile waits.
fn once(folder: &Path, lists: &[&Path], work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let stamp = folder.join(".cairn-set-up");
    // Beside the folder, which may be emptied.
    let lock = folder.with_extension("lock");
    let lock = File::create(&lock).with_context(|| format!("create {}", lock.display()))?;
    lock.lock().context("wait for whoever sets up the same")?;
    let mut wanted = Vec::new();
    for list in lists {
        wanted.extend(std::fs::read(list).with_context(|| format!("read {}", list.display()))?);
    }
    if std::fs::read(&stamp).is_ok_and(|done| done == wanted) {
        return Ok(());
    }
    say!("  setting up {}", folder.display());
    work()?;
    std::fs::write(&stamp, wanted).with_context(|| format!("write {}", stamp.display()))
}
