//! `examples/`, held to what it shows: each client's file is one, each of its commands is one of ours, the policies compile.

use std::path::{Path, PathBuf};

use cairn_policy::PolicyStore;
use clap::{CommandFactory, Parser};

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

#[test]
fn every_command_has_an_example_that_is_one_of_ours() {
    fn check(command: &clap::Command, words: &[String]) {
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help") {
            let words: Vec<_> = words.iter().cloned().chain([sub.get_name().to_owned()]).collect();
            if sub.has_subcommands() {
                check(sub, &words);
                continue;
            }
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = help.lines().find_map(|line| line.strip_prefix("Example: "));
            let example = example.unwrap_or_else(|| panic!("{words:?} has no example in its help"));
            let plain = example.split_once("cairn ").expect("it begins with the program").1;
            // What a shell does with the output is not ours.
            let plain = plain.split(" > ").next().unwrap_or(plain);
            let given = ["cairn"].into_iter().chain(plain.split(' '));
            // A reason in quotes is one word to a shell and several here.
            if !plain.contains('"') {
                assert!(Arguments::try_parse_from(given).is_ok(), "{example}");
            }
        }
    }
    check(&Arguments::command(), &["cairn".to_owned()]);
}
