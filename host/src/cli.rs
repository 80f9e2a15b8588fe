//! The command line: what it takes, and which code it ends with (S58).

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::{self, Environment, Loaded};
use crate::model::{Fault, Owner};
use crate::plugin::compile::{self, Failed};
use assemble::NotStarted;

mod assemble;
mod check;
mod demo;
mod dlq;
mod log;
mod memory;
mod moment;
mod render;
mod run;
mod summary;

/// Takes records from Kafka to native and WebAssembly sinks, and commits offsets only for what arrived.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take records to the sinks until told to stop, or, with --from and --until-end, a part of them again.
    Run {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        span: run::Request,
    },
    /// Check the configuration and load the plugins; with --connect also reach every server.
    Check {
        #[command(flatten)]
        file: File,
        /// Reach the brokers and every sink's destination as well.
        #[arg(long)]
        connect: bool,
        /// Print JSON for a machine to read.
        #[arg(long)]
        json: bool,
    },
    /// Look at what stands in the dead letter topic, and send it through again.
    Dlq {
        #[command(subcommand)]
        command: dlq::Command,
    },
    /// Run a pipeline on this machine alone, with a broker inside this process.
    Demo {
        /// How many records to produce and deliver.
        #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=demo::MAX_RECORDS))]
        records: u64,
        /// Write the results into this directory; without it, into a fresh one.
        #[arg(long, value_name = "DIR")]
        output: Option<PathBuf>,
        /// Where `search.wasm` and `csv.wasm` are.
        #[arg(long, value_name = "DIR", default_value = "target/guests")]
        plugins: PathBuf,
    },
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Compile the component on standard input, and nothing else: what this program starts itself as for every plugin.
    #[command(name = compile::SUBCOMMAND, hide = true)]
    CompileComponent {
        /// Most memory that it may take.
        #[arg(long)]
        memory_mebibytes: u64,
        /// Most processor time that it may take.
        #[arg(long)]
        processor_seconds: u64,
    },
}

#[derive(Debug, Args)]
struct File {
    /// The configuration file.
    #[arg(value_name = "CONFIG", default_value = config::DEFAULT_FILE, env = "TIDEGATE_CONFIG", hide_env_values = true)]
    config: PathBuf,
}

impl File {
    fn load(&self) -> Result<Loaded, Vec<Fault>> {
        config::load(&self.config, &Environment::current())
    }
}

/// How the process ends (S58).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// All is well.
    Done = 0,
    /// Stopped by a fault.
    Stopped = 1,
    /// Wrong use, a wrong configuration, or a plugin that cannot be loaded.
    Usage = 2,
    /// A sink or the broker could not be reached at start.
    Unreachable = 3,
}

impl Exit {
    /// The code for a fault before the first record.
    pub fn at_start(fault: &Fault) -> Self {
        match fault.owner {
            Owner::Config | Owner::Plugin => Self::Usage,
            Owner::Destination | Owner::Host => Self::Unreachable,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Parses the command line and does what it says.
pub fn main() -> ExitCode {
    crate::memory::bound_arenas();
    match Cli::try_parse() {
        Ok(cli) => {
            let exit = dispatch(cli.command);
            log::flush();
            exit.into()
        }
        Err(error) => {
            // Where the words cannot be written, the code still says it.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(Exit::Usage as u8))
        }
    }
}

fn dispatch(command: Command) -> Exit {
    match command {
        Command::Schema => {
            render::json(&config::schema());
            Exit::Done
        }
        Command::CompileComponent { memory_mebibytes, processor_seconds } => {
            match compile::compile_in_this_process(memory_mebibytes, processor_seconds) {
                Ok(code) => {
                    render::code(&code);
                    Exit::Done
                }
                Err(Failed::Invalid(words)) => {
                    render::complaint(&words);
                    Exit::Usage
                }
                Err(Failed::Spent(words)) => {
                    render::complaint(&words);
                    Exit::Stopped
                }
            }
        }
        Command::Check { file, connect, json } => {
            // What goes wrong is in the report, and what sinks found out of their destinations stands beside it; `RUST_LOG`
            // shows the rest.
            log::start("off,tidegate::sink=warn");
            let report = match file.load() {
                Ok(loaded) => match runtime() {
                    Ok(runtime) => runtime.block_on(check::check(&loaded, connect)),
                    Err(fault) => check::Report::of(vec![fault]),
                },
                Err(faults) => check::Report::of(faults),
            };
            render::report(&report, json);
            report.exit()
        }
        Command::Run { file, span } => {
            log::start("info");
            match file.load() {
                Ok(loaded) => start(run::run(&loaded, &span)),
                Err(faults) => {
                    render::faults(&faults);
                    Exit::Usage
                }
            }
        }
        Command::Dlq { command } => {
            log::start("warn");
            match command.file().load() {
                Ok(loaded) => start(dlq::run(&loaded, &command)),
                Err(faults) => {
                    render::faults(&faults);
                    Exit::Usage
                }
            }
        }
        Command::Demo { records, output, plugins } => {
            log::start("error");
            start(demo::demo(&demo::Request { records, output, plugins }))
        }
    }
}

/// What threads may take that are still inside a call when everything is closed: one that never returns must not keep the
/// process (S57).
const LAST_THREADS: Duration = Duration::from_secs(1);

/// Runs to the end, or says why it did not begin.
fn start(run: impl Future<Output = Result<Exit, NotStarted>>) -> Exit {
    let ended = runtime().map_err(NotStarted::from).and_then(|runtime| {
        let ended = runtime.block_on(run);
        runtime.shutdown_timeout(LAST_THREADS);
        ended
    });
    ended.unwrap_or_else(|NotStarted { exit, faults }| {
        render::faults(&faults);
        exit
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Fault> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::host("the process cannot start its threads").because(error))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    /// The ledger's bound is the configuration's; the two rooms do not know each other.
    #[test]
    fn the_configuration_refuses_what_the_ledger_cannot_hold() {
        assert_eq!(config::MAX_SINKS, crate::checkpoint::ledger::MAX_SINKS);
    }

    /// A child's codes are read by the room that starts it, which does not know this one.
    #[test]
    fn a_compiling_child_ends_as_its_parent_expects() {
        assert_eq!((Exit::Usage as u8, Exit::Stopped as u8), (compile::INVALID, compile::SPENT));
    }

    #[test]
    fn s58_codes_at_start() {
        assert_eq!(Exit::at_start(&Fault::config("x")), Exit::Usage);
        assert_eq!(Exit::at_start(&Fault::plugin("x")), Exit::Usage);
        assert_eq!(Exit::at_start(&Fault::destination("x")), Exit::Unreachable);
        assert_eq!(Exit::at_start(&Fault::host("x")), Exit::Unreachable);
    }
}
