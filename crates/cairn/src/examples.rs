//! `examples/`, held to what it shows: each client's file is one, each of its commands is one of ours, the policies compile.

use std::path::{Path, PathBuf};

use cairn_policy::PolicyStore;
use clap::Parser;

use crate::{Arguments, client_file, config::Config};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

#[test]
fn each_clients_example_goes_through_cairn() {
    let files =
        ["claude-desktop/claude_desktop_config.json", "claude-code/.mcp.json", "vscode/mcp.json", "cursor/mcp.json"];
    for file in files {
        let text = std::fs::read_to_string(folder().join(file)).expect("there");
        let servers = client_file::servers(&text).expect("a client's file");
        assert!(!servers.is_empty());
        for (name, server) in servers {
            let Some(command) = server.command else {
                let url = server.url.expect("a command or a url");
                assert_eq!(url, format!("http://127.0.0.1:7070/mcp/{name}"), "{file}");
                continue;
            };
            assert_eq!(Path::new(&command).file_name().and_then(|name| name.to_str()), Some("cairn"), "{file} {name}");
            let words = ["cairn".to_owned()].into_iter().chain(server.args);
            assert!(Arguments::try_parse_from(words).is_ok(), "{file} {name}");
        }
    }
}

#[test]
fn the_servers_example_is_a_configuration_with_policies() {
    let config = Config::read(&folder().join("servers/mcp.json")).expect("a configuration");
    assert!(config.server_specs().expect("servers").len() >= 4);
    let policies = PolicyStore::open(Some(folder().join("servers/policies"))).expect("they compile");
    assert!(!policies.is_observing());
}
