//! `cairn adopt` over the files of the common clients: shown first, copied, idempotent, undone byte for byte.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::Value;

use crate::support::{cairn, run, text};

/// A file of each client, as people have it.
const FILES: [(&str, &str); 5] = [
    (
        "claude_desktop_config.json",
        r#"{
  "globalShortcut": "Ctrl+Space",
  "mcpServers": {
    "filesystem": {
      "command": "npx",
      "args": [
        "-y",
        "@modelcontextprotocol/server-filesystem",
        "/home/me/notes"
      ],
      "env": { "API_KEY": "s3cret-in-env" }
    },
    "no-args": {
      "command": "my-server"
    },
    "empty-args": { "command": "my-server", "args": [] }
  }
}
"#,
    ),
    (
        ".mcp.json",
        "{\"mcpServers\":{\"git\":{\"type\":\"stdio\",\"command\":\"uvx\",\"args\":[\"mcp-server-git\"]},\"web\":{\"type\":\"http\",\"url\":\"https://example.org/mcp?key=s3cret-in-query\",\"headers\":{\"Authorization\":\"Bearer s3cret-in-header\",\"X-Team\":\"a\"}}}}",
    ),
    (
        "mcp.json",
        "// VS Code allows comments\r\n{\r\n\t\"inputs\": [\r\n\t\t{ \"type\": \"promptString\", \"id\": \"token\", \"password\": true }, // asked once\r\n\t],\r\n\t\"servers\": {\r\n\t\t\"memory\": {\r\n\t\t\t\"type\": \"stdio\",\r\n\t\t\t\"command\": \"npx\", /* from npm */\r\n\t\t\t\"args\": [\"-y\", \"@modelcontextprotocol/server-memory\"],\r\n\t\t},\r\n\t\t\"api\": {\r\n\t\t\t\"type\": \"http\",\r\n\t\t\t\"url\": \"https://example.org/mcp\",\r\n\t\t\t\"headers\": { \"Authorization\": \"Bearer ${input:token}\" }\r\n\t\t}\r\n\t}\r\n}\r\n",
    ),
    (
        "cursor.json",
        "{\n  \"mcpServers\": {\n    \"remote\": { \"url\": \"http://10.0.0.1:8000/sse\", \"type\": \"sse\" },\n    \"db\": { \"command\": \"db\", \"args\": [\"--token\", \"s3cret-argument\", \"postgres://me:s3cret-password@host/db\"], \"alwaysAllow\": [\"x\"] }\n  }\n}",
    ),
    (
        ".claude.json",
        "{ \"numStartups\": 7, \"projects\": { \"/home/me/p\": { \"history\": [1.50e3, 0.10], \"mcpServers\": { \"t\": { \"command\": \"uvx\", \"args\": [\"mcp-server-time\"] } } } } }\n",
    ),
];

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("written");
        path
    }

    fn adopt(&self, file: &Path, more: &[&str]) -> Output {
        run(cairn().arg("adopt").arg(file).arg("--data").arg(self.0.path().join("data")).args(more))
    }
}

fn servers(content: &str) -> Vec<(String, Value)> {
    // The comments of this file are on lines of their own or behind values without quotes.
    let plain: String = content
        .lines()
        .map(|line| {
            line.split("//").next().filter(|_| !line.contains("://")).unwrap_or(line).replace("/* from npm */", "")
        })
        .collect();
    let plain = plain.replace(",\t\t}", "}").replace(",\t]", "]").replace(", \t]", "]");
    let value: Value = serde_json::from_str(&plain).unwrap_or_else(|error| panic!("{error}: {plain}"));
    let project = &value["projects"]["/home/me/p"]["mcpServers"];
    let tables = [&value["mcpServers"], &value["servers"], project];
    let members = tables.into_iter().filter_map(Value::as_object).flatten();
    members.map(|(name, server)| (name.clone(), server.clone())).collect()
}

#[test]
fn each_clients_servers_go_through_cairn_and_come_back_byte_for_byte() {
    for (name, before) in FILES {
        let folder = Folder::new();
        let file = folder.file(name, before);
        let shown = folder.adopt(&file, &[]);
        assert!(shown.status.success(), "{name}: {}", text(&shown.stderr));
        let words = text(&shown.stdout);
        assert!(words.contains("--yes") && words.contains("\n+"), "{name}: {words}");
        assert!(!words.contains("s3cret"), "a secret is shown: {words}");
        assert_eq!(fs::read_to_string(&file).expect("there"), before, "{name}: only shown, so nothing may change");

        let done = folder.adopt(&file, &["--yes"]);
        assert!(done.status.success() && !text(&done.stdout).contains("s3cret"), "{name}: {}", text(&done.stdout));
        let after = fs::read_to_string(&file).expect("there");
        for (server, value) in servers(&after) {
            assert_eq!(value["command"], env!("CARGO_BIN_EXE_cairn"), "{name} {server}");
            let args: Vec<_> = value["args"].as_array().expect("args").iter().filter_map(Value::as_str).collect();
            assert_eq!((args[0], args[1], args[3], args[4]), ("wrap", "--data", "--name", server.as_str()), "{name}");
            assert!(Path::new(args[2]).is_absolute(), "{name}: {args:?}");
            assert!(value.get("url").is_none() && value.get("headers").is_none(), "{name}: {value}");
            assert!(value.get("type").is_none_or(|kind| kind == "stdio"), "{name}: {value}");
        }
        // Whatever is no line of a server's command stands as it stood.
        for line in before.lines().filter(|line| {
            !["command", "args", "url", "header", "\"http\"", "mcpServers\":{"].iter().any(|k| line.contains(k))
        }) {
            assert!(
                after.contains(line.trim_end_matches('\r')) || line.contains("\"-y\""),
                "{name}: {line:?} is lost\n{after}"
            );
        }
        let again = folder.adopt(&file, &["--yes"]);
        assert!(text(&again.stdout).contains("nothing to do"), "{name}: {}", text(&again.stdout));
        assert_eq!(fs::read_to_string(&file).expect("there"), after, "{name}: a second time changes nothing");

        let undone = folder.adopt(&file, &["--undo"]);
        assert!(undone.status.success(), "{name}: {}", text(&undone.stderr));
        assert_eq!(fs::read(&file).expect("there"), before.as_bytes(), "{name}");
        assert_eq!(fs::read_dir(folder.0.path()).expect("a folder").count(), 1, "{name}: nothing is left beside it");
    }
}

#[test]
fn what_a_server_had_is_handed_on() {
    let folder = Folder::new();
    let file = folder.file(".mcp.json", FILES[1].1);
    assert!(folder.adopt(&file, &["--yes"]).status.success());
    let found = servers(&fs::read_to_string(&file).expect("there"));
    let args = |at: usize| found[at].1["args"].as_array().expect("args").iter().skip(5).cloned().collect::<Vec<_>>();
    assert_eq!(args(0), ["--", "uvx", "mcp-server-git"]);
    // Neither a header nor a query stands where every user of the machine can see it.
    assert!(args(1).is_empty());
    let env = &found[1].1["env"];
    assert_eq!(env["CAIRN_WRAP_URL"], "https://example.org/mcp?key=s3cret-in-query");
    assert_eq!(env["CAIRN_WRAP_HEADER_1"], "Authorization: Bearer s3cret-in-header");
    assert_eq!(env["CAIRN_WRAP_HEADER_2"], "X-Team: a");
}

#[test]
fn undo_never_loses_what_was_written_since() {
    let folder = Folder::new();
    let file = folder.file("mcp.json", FILES[3].1);
    assert!(folder.adopt(&file, &["--yes"]).status.success());
    let mine = format!("{}\n// mine\n", fs::read_to_string(&file).expect("there"));
    fs::write(&file, &mine).expect("written");
    let refused = folder.adopt(&file, &["--undo"]);
    assert!(!refused.status.success());
    assert!(text(&refused.stderr).contains("--force"), "{}", text(&refused.stderr));
    assert_eq!(fs::read_to_string(&file).expect("there"), mine);
    let forced = folder.adopt(&file, &["--undo", "--force"]);
    assert!(forced.status.success(), "{}", text(&forced.stderr));
    assert_eq!(fs::read_to_string(&file).expect("there"), FILES[3].1);
    let kept = folder.0.path().join("mcp.json.replaced-by-undo");
    assert_eq!(fs::read_to_string(kept).expect("kept"), mine);
    let nothing = folder.adopt(&file, &["--undo"]);
    assert!(!nothing.status.success() && text(&nothing.stderr).contains("was not adopted"));
}

#[test]
fn a_server_added_later_is_adopted_later_and_each_step_is_undone() {
    let folder = Folder::new();
    let file = folder.file("mcp.json", r#"{"mcpServers": {"a": {"command": "a"}}}"#);
    assert!(folder.adopt(&file, &["--yes"]).status.success());
    let first = fs::read_to_string(&file).expect("there");
    let grown = first.replacen("{\"a\":", "{\"b\": {\"command\": \"b\"}, \"a\":", 1);
    fs::write(&file, &grown).expect("written");
    let second = folder.adopt(&file, &["--yes"]);
    assert!(text(&second.stdout).contains("a: goes through Cairn already"), "{}", text(&second.stdout));
    assert!(folder.adopt(&file, &["--undo"]).status.success());
    assert_eq!(fs::read_to_string(&file).expect("there"), grown);
}

#[test]
fn a_file_that_is_not_a_clients_is_refused_and_left_alone() {
    let folder = Folder::new();
    for (content, says) in [
        ("{\"theme\": \"dark\"}", "neither mcpServers nor servers"),
        ("{\"mcpServers\": {\"a\": {\"env\": {\"K\": \"s3cret", "line 1"),
        ("", "line 1"),
    ] {
        let file = folder.file("x.json", content);
        let refused = folder.adopt(&file, &["--yes"]);
        let words = text(&refused.stderr);
        assert!(!refused.status.success() && words.contains(says) && !words.contains("s3cret"), "{words}");
        assert_eq!(fs::read_to_string(&file).expect("there"), content);
    }
    let missing = folder.adopt(&folder.0.path().join("none.json"), &["--yes"]);
    assert!(!missing.status.success() && text(&missing.stderr).contains("cannot find"));
}

#[cfg(unix)]
#[test]
fn permissions_and_links_stay() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let file = folder.file("real.json", FILES[3].1);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("set");
    let link = folder.0.path().join("link.json");
    std::os::unix::fs::symlink(&file, &link).expect("a link");
    assert!(folder.adopt(&link, &["--yes"]).status.success());
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&file), 0o600);
    assert_eq!(mode(&folder.0.path().join("real.json.before-cairn")), 0o600, "the copy holds the same secrets");
}
