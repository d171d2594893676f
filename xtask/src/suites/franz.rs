//! franz-go's own tests of its package `kgo`, from the Go module that it publishes.
//!
//! Who calls it: the list of suites. The package also has tests that need no broker; they are counted with the rest.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::outcome::{Case, of_go};
use super::{Run, Scale, Setting, Suite, tools};
use crate::cairn::Cairn;
use crate::places;
use crate::process::{Running, quiet, version};

pub(super) const SUITE: Suite = Suite {
    name: "franz-go, package kgo",
    version: "1.21.5",
    command: "KGO_SEEDS=BROKER KGO_TEST_RF=1 KGO_TEST_RECORDS=10000 KGO_TEST_SCRAM_SEEDS=ANOTHER KGO_TEST_SCRAM=USER:PASSWORD go test -v ./pkg/kgo",
    in_slice: true,
    install,
};

const MODULE: &str = "github.com/twmb/franz-go@v1.21.5";
/// Records of each test that moves many.
const RECORDS: &str = "10000";
const RECORDS_SLICE: &str = "1000";
/// How long its tests may take, and the slice's.
const TESTS_LIMIT: &str = "600s";
const TESTS_LIMIT_SLICE: &str = "90s";
/// Tests that talk to a broker and are quick.
const SLICE: &str = "^Test(Ping|Client_Produce.*|ConsumeRegex|ConsumeTopicRetrieval.*|DirectPartitionPurge|AddRemovePartitions|\
                     Pause.*|Pooling|HookPollStart|GroupSimple|Issue(325|648|769|810|831|865|1034))$";
const SET_UP_LIMIT: Duration = Duration::from_secs(900);
/// Past the limit that the tests keep themselves.
const RUN_LIMIT: Duration = Duration::from_secs(700);

fn install() -> anyhow::Result<Run> {
    let folder = module(MODULE)?;
    let program = places::cache("suites")?.join("kgo.test");
    let mut build = Command::new("go");
    build.args(["test", "-c", "-o"]).arg(&program).arg("./pkg/kgo").current_dir(&folder);
    quiet(&mut build, SET_UP_LIMIT)?;
    Ok(Box::new(move |setting| run(setting, &program, &folder)))
}

/// Fetches a Go module; gives the folder of its sources.
pub(super) fn module(module: &str) -> anyhow::Result<PathBuf> {
    version("go", "version").context("go is not installed")?;
    let said = quiet(Command::new("go").args(["mod", "download", "-json", module]), SET_UP_LIMIT)?;
    // Beside the document it may say what it downloads.
    let document = &said[said.find('{').context("go mod download gave no document")?..];
    let document: serde_json::Value = serde_json::from_str(document)?;
    Ok(PathBuf::from(document["Dir"].as_str().context("go mod download names no folder")?))
}

fn run(setting: &Setting, program: &PathBuf, folder: &std::path::Path) -> anyhow::Result<Vec<Case>> {
    let broker = setting.broker("franz")?;
    let mut tests = Command::new(program);
    tests.current_dir(folder.join("pkg/kgo")).args(["-test.v"]);
    let (records, limit) = match setting.scale {
        Scale::Full => (RECORDS, TESTS_LIMIT),
        Scale::Slice => (RECORDS_SLICE, TESTS_LIMIT_SLICE),
    };
    tests.args(["-test.timeout", limit]);
    if setting.scale == Scale::Slice {
        tests.args(["-test.run", SLICE]);
    }
    tests.env("KGO_SEEDS", &broker.kafka).env("KGO_TEST_RF", "1").env("KGO_TEST_RECORDS", records);
    tests.env("KGO_LOG_LEVEL", "none");
    let logged_in = if setting.scale == Scale::Full { Some(with_login(setting)?) } else { None };
    if let Some(other) = &logged_in {
        tests.env("KGO_TEST_SCRAM_SEEDS", &other.kafka).env("KGO_TEST_SCRAM", format!("{USER}:{PASSWORD}"));
    }
    let ended = Running::start(&mut tests)?.follow(RUN_LIMIT, |_| ())?;
    super::keep("franz", &ended.output)?;
    let cases = of_go(&ended.output);
    broker.end()?;
    logged_in.map_or(Ok(()), Cairn::end)?;
    Ok(cases)
}

/// Who logs in, and with what; known to this suite alone.
const USER: &str = "ada";
const PASSWORD: &str = "a-password-of-this-suite";

/// A second broker, at which clients log in with SCRAM. Its user is made by Kafka's own tool.
fn with_login(setting: &Setting) -> anyhow::Result<Cairn> {
    let mut broker = Cairn::new(&setting.program, "suite-franz-login", None)?;
    broker.broker_alone();
    broker.configure(&format!("[kafka]\nusers = {{ ops = \"{PASSWORD}\" }}\nsuper_users = [\"ops\"]\n"))?;
    broker.start()?;
    let properties = places::cache("suites")?.join("franz-ops.properties");
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
    let text = format!(
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n\
         sasl.jaas.config={module} required username=\"ops\" password=\"{PASSWORD}\";\n"
    );
    std::fs::write(&properties, text)?;
    let mut tool = tools::java(&tools::classes()?, "kafka.admin.ConfigCommand");
    tool.args(["--bootstrap-server", &broker.kafka, "--command-config"]).arg(&properties);
    tool.args(["--alter", "--entity-type", "users", "--entity-name", USER]);
    tool.args(["--add-config", &format!("SCRAM-SHA-256=[password={PASSWORD}]")]);
    quiet(&mut tool, SET_UP_LIMIT).context("make the user")?;
    Ok(broker)
}
