//! `chronos export`: a table or a query as CSV or JSON lines, streamed.
//!
//! A file is written beside its final name and renamed when complete, so a broken export never looks like a whole one.

use super::client::Leader;
use super::import::typed_name;
use super::output::{Format, Writer};
use super::remote::Remote;
use super::session::{Session, quote_name};
use super::{Environment, Stdout, Stop, report};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  chronos export --table readings --output readings.csv       # reads back with: chronos import readings.csv
  chronos export --query 'SELECT device, AVG(value) FROM readings GROUP BY device' --format json
  chronos export --table readings | gzip > readings.csv.gz";

/// What `export` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group(clap::ArgGroup::new("what").required(true).args(["table", "query"])))]
pub struct Arguments {
    #[command(flatten)]
    leader: Leader,
    /// Table to export
    #[arg(long)]
    table: Option<String>,
    /// Query to export
    #[arg(long, value_name = "SQL")]
    query: Option<String>,
    /// File to write [default: standard output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite the file
    #[arg(long)]
    force: bool,
    /// How rows are written
    #[arg(long, value_enum, default_value_t = Format::Csv)]
    format: Format,
}

/// Exports.
pub fn run(arguments: &Arguments, environment: &Environment) -> Result<(), Stop> {
    let target = arguments.leader.target(environment)?;
    let query = match (&arguments.query, &arguments.table) {
        (Some(query), _) => query.trim().trim_end_matches(';').to_owned(),
        (None, Some(table)) => format!("SELECT * FROM {}", quote_name(&typed_name(table))),
        (None, None) => return Err(Stop::Usage("give --table or --query".to_owned())),
    };
    if !super::remote::reads(&query) {
        return Err(Stop::Usage("--query: only a statement that reads can be exported".to_owned()));
    }
    if let Some(path) = arguments.output.as_ref().filter(|path| path.exists() && !arguments.force) {
        return Err(Stop::Message(format!("{} exists: --force overwrites it", path.display())));
    }
    let mut session = Remote::open(target, false)?;
    match &arguments.output {
        None => {
            let mut out = Stdout::lock();
            write(&mut session, &query, arguments.format, &mut out).map(|_| ())
        }
        Some(path) => {
            let rows = to_file(&mut session, &query, arguments.format, path)?;
            eprintln!("exported {rows} rows to {}", path.display());
            Ok(())
        }
    }
}

fn write(session: &mut dyn Session, query: &str, format: Format, out: &mut dyn Write) -> Result<u64, Stop> {
    let mut writer = Writer::new(out, format);
    let outcome = session.run(query, &mut writer);
    let finished = writer.finish(outcome.is_err());
    let rows = writer.rows();
    outcome.map_err(|error| Stop::Message(report::describe(&error, query).trim_end().to_owned()))?;
    finished.and_then(|()| out.flush()).map_err(|error| Stop::output(&error))?;
    Ok(rows)
}

fn to_file(session: &mut dyn Session, query: &str, format: Format, path: &Path) -> Result<u64, Stop> {
    let failed = |error: std::io::Error| Stop::Message(format!("cannot write {}: {error}", path.display()));
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut file = BufWriter::new(File::create(&partial).map_err(failed)?);
    let outcome = write(session, query, format, &mut file);
    let synced = file.get_ref().sync_all();
    drop(file);
    match outcome.and_then(|rows| synced.map(|()| rows).map_err(failed)) {
        Ok(rows) => std::fs::rename(&partial, path).map(|()| rows).map_err(failed),
        Err(stop) => {
            // The half of it is of no use to anybody.
            let _ = std::fs::remove_file(&partial);
            Err(stop)
        }
    }
}
