//! The command line: one file a command, all of one shape: arguments, then `run`.
//!
//! * Exit codes: 0 ok, 1 failed, 2 used wrongly.
//! * Results go to standard output, everything else to standard error.
//! * The environment is read here, once, and handed on as a map.

mod admin;
mod backslash;
mod bench;
mod client;
mod complete;
mod config;
mod embedded;
mod export;
mod import;
mod logging;
mod node;
mod output;
mod recover;
mod remote;
mod repl;
mod report;
mod script;
mod session;
mod single_node;
mod snapshot;
mod split;

pub use snapshot::archive;

use chronos::Error;
use clap::{Parser, Subcommand};
use std::collections::BTreeMap;
use std::io::{self, BufWriter, StdoutLock, Write};
use std::process::ExitCode;

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

const EXAMPLES: &str = "\
Examples:
  chronos node                                   # node1 on 127.0.0.1:8000, files in ./data
  chronos client                                 # a prompt on that node
  chronos client -e 'SELECT COUNT(*) FROM t'     # one statement, for scripts
  chronos import readings.csv                    # a table from a CSV file
  chronos single-node                            # SQL without a daemon

Exit codes: 0 ok, 1 failed, 2 used wrongly. `chronos COMMAND --help` shows examples of each.";

/// SQL for edge gateways: one small daemon.
#[derive(Debug, Parser)]
#[command(name = "chronos", version, about, after_help = EXAMPLES, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Node(Box<node::Arguments>),
    /// A prompt, or a script, on a running node
    Client(client::Arguments),
    /// A prompt, or a script, on a database in this process: no network
    SingleNode(single_node::Arguments),
    /// Load a CSV file into a table
    Import(Box<import::Arguments>),
    /// Write a table or a query as CSV or JSON
    Export(export::Arguments),
    /// Write a database to a file, check it, restore it
    Snapshot(snapshot::Arguments),
    /// Look at a running group, and change it
    Admin(admin::Arguments),
    /// Check or show the configuration
    Config(config::Arguments),
    /// Measure a running node
    Bench(bench::Arguments),
}

/// Why a command ends before its end.
#[derive(Debug)]
pub enum Stop {
    /// Failed; the text is complete.
    Message(String),
    /// Failed with an error of ours.
    Failed(Error),
    /// Used wrongly.
    Usage(String),
    /// Asked to end: all is well.
    Quit,
    /// The daemon's own verdict.
    Exit(ExitCode),
}

impl Stop {
    /// A failure to write results.
    pub fn output(error: &io::Error) -> Stop {
        Stop::Message(format!("cannot write the output: {error}"))
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

/// Standard output, buffered. A reader that has gone away (`| head`) ends the program quietly, as it does for other tools.
pub struct Stdout(BufWriter<StdoutLock<'static>>);

impl Stdout {
    /// Takes standard output for this thread.
    pub fn lock() -> Stdout {
        Stdout(BufWriter::new(io::stdout().lock()))
    }
}

fn unless_gone<T>(outcome: io::Result<T>) -> io::Result<T> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => outcome,
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        unless_gone(self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        unless_gone(self.0.flush())
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let environment: Environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .collect();
    let outcome = match Arguments::parse().command {
        Command::Node(arguments) => node::run(&arguments, environment),
        Command::Client(arguments) => client::run(&arguments, &environment),
        Command::SingleNode(arguments) => single_node::run(&arguments, environment),
        Command::Import(arguments) => import::run(&arguments, environment),
        Command::Export(arguments) => export::run(&arguments, environment),
        Command::Admin(arguments) => admin::run(&arguments, environment),
        Command::Snapshot(arguments) => snapshot::run(&arguments, environment),
        Command::Config(arguments) => config::run(&arguments, environment),
        Command::Bench(arguments) => bench::run(&arguments, &environment),
    };
    match outcome {
        Ok(()) | Err(Stop::Quit) => ExitCode::SUCCESS,
        Err(Stop::Message(text)) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
        Err(Stop::Failed(error)) => {
            eprint!("{}", report::describe(&error, ""));
            ExitCode::FAILURE
        }
        Err(Stop::Exit(code)) => code,
        Err(Stop::Usage(text)) => {
            eprintln!("{text}");
            ExitCode::from(2)
        }
    }
}
