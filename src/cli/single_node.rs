//! `chronos single-node`: a prompt, or a script, on a database in this process.

use super::client::Statements;
use super::embedded::Embedded;
use super::session::Session;
use super::{Environment, Stop};
use chronos::raft::Naming;
use chronos::storage::directory::Create;

const EXAMPLES: &str = "\
Examples:
  chronos single-node                                         # a prompt on the database in ./data
  chronos single-node --data-dir data -e 'SELECT COUNT(*) FROM sensors'
  chronos single-node --data-dir data --id node1              # the files of a stopped `chronos node`

The database is made where there is none. It is locked while it is open.";

/// What `single-node` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Which database of the directory [default: the only one, or a new one called local]
    #[arg(long)]
    id: Option<String>,
    /// Give the database that --data-dir names (DIR/NAME, the directory itself) the name --id; the directory keeps its
    /// name
    #[arg(long, requires = "id")]
    rename: bool,
    #[command(flatten)]
    statements: Statements,
}

/// Opens the database, serves the prompt or the script, and closes it.
pub fn run(arguments: &Arguments, environment: Environment) -> Result<(), Stop> {
    let statements = &arguments.statements;
    statements.check()?;
    let naming = if arguments.rename { Naming::Renamed } else { Naming::Kept };
    // There must be something to rename.
    let create = if arguments.rename { Create::Refused } else { Create::Allowed };
    let mut session = Embedded::open_as(&statements.data_dir, arguments.id.clone(), naming, create, environment)?;
    if statements.interactive() {
        session.catch_interrupts()?;
    }
    let outcome = talk(statements, &mut session);
    // Also after a failed statement: what was written before it is sealed, so that the next start is quick.
    session.close()?;
    outcome
}

fn talk(statements: &Statements, session: &mut dyn Session) -> Result<(), Stop> {
    if !statements.interactive() {
        return statements.script(session);
    }
    println!("Welcome to Chronos SQL Database");
    println!("Running in single-node mode");
    println!("Enter SQL statements or 'exit' to quit");
    statements.prompt(session)
}
