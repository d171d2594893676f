//! `cairn-lake` as a user runs it, where it needs no Kafka: its catalog, its end, and what it says to wrong wishes.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

/// How long an answer may take on a machine that does much else.
const LONG: Duration = Duration::from_secs(60);

fn lake(arguments: &[&str], folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn-lake"));
    command.args(arguments).arg("--folder").arg(folder).env_remove("CAIRN_LOG").stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends with the test.
struct Catalog(Child);

impl Drop for Catalog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_catalog_says_where_it_is_answers_changes_nothing_and_ends_when_it_is_asked_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = lake(&["catalog", "--listen", "127.0.0.1:0"], folder.path());
    let mut catalog = Catalog(command.stdout(Stdio::piped()).spawn().expect("it starts"));
    let mut lines = BufReader::new(catalog.0.stdout.take().expect("its words")).lines();
    let ready = lines.next().expect("a line").expect("readable");
    let address = ready.strip_prefix("ready catalog http://").and_then(|rest| rest.split(' ').next());
    let address = address.unwrap_or_else(|| panic!("{ready}"));
    let ask = |method: &str, path: &str| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(LONG)).expect("a limit");
        write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    let config = ask("GET", "/v1/config");
    assert!(config.starts_with("HTTP/1.1 200 ") && config.contains("/namespaces/{namespace}/tables"), "{config}");
    let refused = ask("POST", "/v1/namespaces");
    assert!(refused.starts_with("HTTP/1.1 4") && refused.contains("\"error\""), "{refused}");
    let asked = Command::new("kill").args(["-s", "TERM", &catalog.0.id().to_string()]).status().expect("kill runs");
    assert!(asked.success());
    assert!(catalog.0.wait().expect("it ends").success(), "it did not end well");
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = lake(&["catalog"], folder.path()).output().expect("it runs");
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(said(&nowhere).contains("give --listen"), "{}", said(&nowhere));
    let config = folder.path().join("cairn.toml");
    std::fs::write(&config, "[lake]\ncommit_interval = 5\n").expect("written");
    let config = config.to_string_lossy();
    let unknown = lake(&["catalog", "--config", &config], folder.path()).output().expect("it runs");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(said(&unknown).contains("commit_interval") && said(&unknown).contains("cairn.toml"), "{}", said(&unknown));
    let wrong = Command::new(env!("CARGO_BIN_EXE_cairn-lake")).arg("keep").output().expect("it runs");
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
}
