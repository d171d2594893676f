//! Recipes: what people, the README and CI call is one and the same.
//!
//! What it is: `cargo xtask RECIPE`. Who calls it: `cargo test`'s bigger sister in the README, `.ci/run`, developers.
//! It guarantees that what it could not run is said in a line of its own, and in CI is a failure.
//! It must never be linked into Cairn, and leaves no process behind that it started.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a recipe talks to the person who started it")]
#![allow(clippy::disallowed_methods, reason = "a recipe runs real processes in real time, and is never simulated")]

#[macro_use]
mod voice;

mod apache;
mod bench;
mod bridging;
mod cairn;
mod conformance;
mod fuzz;
mod identity;
mod kafka;
mod lake;
mod models;
mod mutants;
mod observe;
mod pilot;
mod places;
mod process;
mod proof;
mod registry;
mod secrets;
mod sim;
mod suites;
mod take_over;
mod tally;
mod tap;
mod test;
mod tidy;
mod toolchain;
mod torture;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(about = "Cairn's recipes", after_help = "Example: cargo xtask test --only tidy,rust")]
struct Arguments {
    #[command(subcommand)]
    recipe: Recipe,
}

#[derive(Debug, Subcommand)]
enum Recipe {
    /// Sets up what the tests need and runs all of them, long suites as a named slice.
    Test {
        /// Only these steps: fmt, clippy, tidy, rust, conformance, bridging, secrets, kafka, registry, suites, models, observe, lake, pilot.
        #[arg(long, value_delimiter = ',')]
        only: Vec<test::Step>,
    },
    /// Checks what the compiler does not: headers, names, which crate may use which.
    Tidy,
    /// Runs the MCP conformance suite directly and through Cairn, and writes docs/mcp-conformance.md.
    Conformance,
    /// Runs the Kafka clients of other people against a Cairn that is killed in between.
    Kafka(kafka::Options),
    /// Runs the serializers of other people against Cairn's schema registry.
    Registry(registry::Options),
    /// Runs the test suites of other people's Kafka clients and tools against a broker, and writes docs/kafka-suites.md.
    #[command(after_help = "Example: cargo xtask suites --only franz-go,connect")]
    Suites(suites::Options),
    /// Kills, stalls and cuts off brokers that take over from each other, under three clients of other people, and writes how long
    /// each waited into docs/take-over.md.
    #[command(after_help = "Example: cargo xtask take-over --rounds 60 --seed 7")]
    TakeOver(take_over::Options),
    /// Runs an instrumented agent and servers that report, on other people's SDKs, and looks at the trail that both leave.
    Models,
    /// Has spans and metrics read by other people's code, and each query of the dashboard run on a Prometheus.
    Observe,
    /// Kills, stalls and mends what keeps the trail as an Iceberg table, and asks PyIceberg and DuckDB each time.
    Lake,
    /// Runs the pilot of examples/pilot, breaks it, and compares what its consumers say.
    Pilot,
    /// Tries arbitrary bytes on everything that reads what others wrote.
    #[command(after_help = "Example: cargo xtask fuzz envelope masking --seconds 300")]
    Fuzz(fuzz::Options),
    /// Runs the log's simulation on seed after seed until it is stopped or finds something.
    #[command(after_help = "Example: cargo xtask sim --seeds 10000")]
    Sim(sim::Options),
    /// Kills, stalls and stops real brokers under real clients until it is stopped or finds something.
    #[command(after_help = "Example: cargo xtask torture --minutes 30")]
    Torture(torture::Options),
    /// Runs the long version of every suite and writes docs/proof.md.
    Proof {
        /// Only suites whose name contains one of these; the others keep what they came to.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
    },
    /// Measures Cairn with Apache Kafka, and where asked other gateways, beside it in the same run.
    #[command(after_help = "Example: cargo xtask bench --peers -- gateway --seconds 20")]
    Bench(bench::Options),
    /// Breaks a copy of the code in named ways and says which test noticed.
    Mutants {
        /// Only mutants whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
        /// Only those of this table, a file of xtask/src/mutants.
        #[arg(long)]
        table: Option<String>,
    },
}

fn main() -> ExitCode {
    let result = match Arguments::parse().recipe {
        Recipe::Test { only } => test::run(&only),
        Recipe::Tidy => tidy::run(),
        Recipe::Conformance => conformance::run(conformance::Scale::Full),
        Recipe::Kafka(options) => kafka::run(&options),
        Recipe::Registry(options) => registry::run(&options),
        Recipe::Suites(options) => suites::run(&options),
        Recipe::TakeOver(options) => take_over::run(&options),
        Recipe::Models => models::run(),
        Recipe::Observe => observe::run(),
        Recipe::Lake => lake::run(),
        Recipe::Pilot => pilot::run(),
        Recipe::Fuzz(options) => fuzz::run(&options),
        Recipe::Sim(options) => sim::run(&options),
        Recipe::Torture(options) => torture::run(&options),
        Recipe::Proof { only } => proof::run(&only),
        Recipe::Bench(options) => bench::run(&options),
        Recipe::Mutants { only, table } => {
            let part = table.map_or_else(|| Ok(mutants::Part::default()), |table| mutants::Part::table(&table));
            part.and_then(|part| mutants::run(&only, part))
        }
    };
    match result {
        Ok(tally) => {
            println!("{tally}");
            if tally.is_green() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("xtask: {error:#}");
            println!("0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}
