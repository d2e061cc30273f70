//! `chronos client`: a prompt, or a script, on a running node.

use super::output::Format;
use super::remote::{Remote, Target};
use super::repl::Repl;
use super::script::Script;
use super::{Environment, Stop};
use crate::actors::tls::Files;
use chronos::config::{Config, Tls};
use std::fs::File;
use std::io::{self, BufReader, IsTerminal};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  chronos client                                              # a prompt on 127.0.0.1:8000
  chronos client --leader 10.0.0.5:8000,10.0.0.6:8000         # the first that answers
  chronos client -e 'SELECT COUNT(*) FROM sensors'
  chronos client -f schema.sql --format csv
  chronos client -e '\\d sensors'                              # its columns; \\help lists what else there is
  echo 'SELECT 1;' | chronos client

Where --leader names several nodes, each write has a name by which the group knows it: when the leader dies under one, the
next node is asked for its outcome, and nothing happens twice.

With -e, -f or a pipe the output is plain, and the first error ends the run with exit code 1.
CHRONOS_AUTH_TOKEN is sent as a bearer token; CHRONOS_TLS_CERT, _KEY and _CA_CERT encrypt, CHRONOS_TLS_DOMAIN is
the name that the node's certificate must carry [default: localhost]. The history is kept in DATA_DIR/client.";

/// The node to talk to; shared by all commands that need one.
#[derive(Clone, Debug, clap::Args)]
pub struct Leader {
    /// Nodes to connect to, the first that answers
    #[arg(long, value_name = "HOST:PORT,...", default_value = "127.0.0.1:8000", global = true)]
    pub leader: String,
}

impl Leader {
    /// The target with its token and its certificate.
    pub fn target(&self, environment: &Environment) -> Result<Target, Stop> {
        let token = environment.get("CHRONOS_AUTH_TOKEN").filter(|token| !token.is_empty()).cloned();
        let tls = tls(environment)?;
        Target::parse(&self.leader, token, tls).map_err(|error| Stop::Usage(format!("--leader: {error}")))
    }
}

/// The certificate that the environment names, under the names that the daemon has for its own.
fn tls(environment: &Environment) -> Result<Option<Files>, Stop> {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let files = [set("CHRONOS_TLS_CERT"), set("CHRONOS_TLS_KEY"), set("CHRONOS_TLS_CA_CERT")];
    let [cert, key, ca_cert] = match files {
        [None, None, None] => return Ok(None),
        [Some(_), Some(_), Some(_)] => files.map(|path| path.map(PathBuf::from)),
        _ => {
            let message = "TLS needs CHRONOS_TLS_CERT, CHRONOS_TLS_KEY and CHRONOS_TLS_CA_CERT together";
            return Err(Stop::Usage(message.to_owned()));
        }
    };
    let defaults = Config::default().tls;
    let domain = set("CHRONOS_TLS_DOMAIN").cloned().unwrap_or(defaults.domain);
    Ok(Files::read(&Tls { cert, key, ca_cert, domain })?)
}

/// What `client` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    leader: Leader,
    #[command(flatten)]
    statements: Statements,
}

/// Where statements come from and how results look; shared with `single-node`.
#[derive(Clone, Debug, clap::Args)]
pub struct Statements {
    /// Directory of the databases; the prompt keeps its history in DIR/client
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data_dir: PathBuf,
    /// Run these statements and leave (repeatable)
    #[arg(short = 'e', long = "execute", value_name = "SQL", allow_hyphen_values = true)]
    pub execute: Vec<String>,
    /// Run the statements of a file and leave (repeatable; - is standard input)
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// How results are written
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

impl Statements {
    /// True where a person sits at the prompt.
    pub fn interactive(&self) -> bool {
        self.execute.is_empty() && self.files.is_empty() && std::io::stdin().is_terminal()
    }

    /// Refuses files that cannot be read, before anything is run.
    pub fn check(&self) -> Result<(), Stop> {
        self.files.iter().filter(|path| *path != Path::new("-")).try_for_each(|path| open(path).map(|_| ()))
    }

    /// Runs what the arguments, or the pipe, hold.
    pub fn script(&self, session: &mut dyn super::session::Session) -> Result<(), Stop> {
        let mut script = Script::new(session, self.format);
        for text in &self.execute {
            script.text(text)?;
        }
        for path in &self.files {
            if path == Path::new("-") {
                script.lines(std::io::stdin().lock(), "standard input")?;
                continue;
            }
            script.lines(BufReader::new(open(path)?), &path.display().to_string())?;
        }
        if self.execute.is_empty() && self.files.is_empty() {
            script.lines(std::io::stdin().lock(), "standard input")?;
        }
        Ok(())
    }

    /// Talks at a terminal.
    pub fn prompt(&self, session: &mut dyn super::session::Session) -> Result<(), Stop> {
        Repl::new(session, &self.data_dir.join("client"), self.format)?.run()
    }
}

/// A file of statements, or anything else that can be read.
fn open(path: &Path) -> Result<File, Stop> {
    let failed = |error: io::Error| Stop::Usage(format!("cannot read {}: {error}", path.display()));
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(Stop::Usage(format!("{} is a directory", path.display())));
    }
    Ok(file)
}

/// Connects, then serves the prompt or the script.
pub fn run(arguments: &Arguments, environment: &Environment) -> Result<(), Stop> {
    let target = arguments.leader.target(environment)?;
    arguments.statements.check()?;
    let interactive = arguments.statements.interactive();
    let mut session = Remote::open(target, interactive)?;
    if !interactive {
        return arguments.statements.script(&mut session);
    }
    println!("Welcome to Chronos SQL Database");
    println!("Connected to {}", session.address());
    println!("Enter SQL statements or 'exit' to quit");
    arguments.statements.prompt(&mut session)
}
