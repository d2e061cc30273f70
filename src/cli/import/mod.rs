//! `chronos import`: a CSV file into a table.
//!
//! ```text
//! input ──> a file, or standard input of which the beginning is kept
//! shape ──> names and types        (the whole file is read once, where types are to be found)
//! batch ──> INSERT statements      (bad rows set aside)
//! load  ──> a node, or a directory (several statements in flight)
//! ```
//!
//! * Rows that go in are durable when the command says so; a file is not one transaction.
//! * A row is in the table or in the reject file, never in neither.

mod batch;
mod infer;
mod input;
mod load;
mod shape;
mod source;
mod timestamp;

use super::client::Leader;
use super::embedded::Embedded;
use super::output::csv_field;
use super::remote::Remote;
use super::session::{Session, Table, fetch, quote_name};
use super::{Environment, Stop};
use batch::{Batches, Rejected};
use chronos::clock::{Clock, SystemClock};
use chronos::embedded::Options;
use chronos::error::SqlState;
use chronos::sql::value::Value;
use chronos::storage::directory::{Create, clean, is_database, resolve};
use chronos::storage::files::SystemFiles;
use indicatif::{ProgressBar, ProgressStyle};
use input::Input;
use load::{Done, Door, Order, load};
pub use shape::typed_name;
use shape::{Given, Shape, Target, tidy_name};
use source::Source;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  chronos import readings.csv                                 # table readings, made if it is not there
  chronos import log.txt --table log --delimiter ';' --no-header --columns ts,device,value
  chronos import old.csv --types id=TEXT,ts=TIMESTAMP --primary-key id --reject bad.csv
  chronos import readings.csv --timestamp-format '%d.%m.%Y %H:%M'
  chronos import readings.csv --data-dir data                 # without a daemon
  zcat old.csv.gz | chronos import - --table old              # standard input

A field that is empty, or NULL without quotes, is NULL; \"\" is an empty string. Types are found by reading the file \
once; of standard input, from its first MiB. Rows that do not fit are counted, or kept with their reason in the file of \
--reject.

Each statement is durable by itself. Into a table with a key up to four are on their way at once: after a failure, rows of \
up to three statements before the lines that it names may not be in, and as many after them may be. Into a table without \
a key statements go one after another: rows keep the order of the file, and after a failure all before the lines named \
are in and none after them. Of the lines named, some may be in.";

/// What `import` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// The CSV file; - is standard input, which needs --table
    file: PathBuf,
    #[command(flatten)]
    leader: Leader,
    /// Load into the database of this directory instead of a running node
    #[arg(long, value_name = "DIR", conflicts_with = "leader")]
    data_dir: Option<PathBuf>,
    /// Which database of --data-dir
    #[arg(long, requires = "data_dir")]
    id: Option<String>,
    /// Table to fill [default: named after the file]
    #[arg(long)]
    table: Option<String>,
    /// The table must be new
    #[arg(long)]
    create: bool,
    /// Field separator: one character, or `tab`
    #[arg(long, default_value = ",", value_parser = delimiter)]
    delimiter: u8,
    /// The first line is a row
    #[arg(long)]
    no_header: bool,
    /// Names of the fields; replaces the header
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    columns: Option<Vec<String>>,
    /// Types of a new table's columns: INT,FLOAT,... for all, or NAME=TYPE,... for some
    #[arg(long, value_name = "TYPE,...", value_delimiter = ',')]
    types: Option<Vec<String>>,
    /// Key of a new table
    #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
    primary_key: Vec<String>,
    /// Rows to look at for types; 0 is all
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    infer_rows: u64,
    /// Form of timestamps: %Y %m %d %H %M %S %f %z, or %s for seconds since 1970
    #[arg(long, value_name = "FORMAT")]
    timestamp_format: Option<String>,
    /// Text that means NULL besides the empty field
    #[arg(long, value_name = "TEXT")]
    null: Option<String>,
    /// Rows in one statement
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch_rows: u32,
    /// File for rows that do not fit, with line and reason
    #[arg(long, value_name = "FILE")]
    reject: Option<PathBuf>,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text {
        "tab" | "\\t" => Ok(b'\t'),
        _ => match text.as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
            _ => Err("one ASCII character, or `tab`".to_owned()),
        },
    }
}

impl Arguments {
    fn given(&self) -> Given {
        Given {
            delimiter: self.delimiter,
            no_header: self.no_header,
            columns: self.columns.clone(),
            types: self.types.clone(),
            infer_rows: self.infer_rows,
            null: self.null.clone(),
            timestamp_format: self.timestamp_format.clone(),
        }
    }

    fn table(&self) -> String {
        match &self.table {
            Some(table) => typed_name(table),
            None => tidy_name(&self.file.file_stem().unwrap_or_default().to_string_lossy()),
        }
    }
}

/// Imports the file.
pub fn run(arguments: &Arguments, environment: Environment) -> Result<(), Stop> {
    if arguments.table.is_none() && arguments.file == Path::new("-") {
        return Err(Stop::Usage("standard input has no name: say which table with --table".to_owned()));
    }
    let input = Input::open(&arguments.file)?;
    if let Some(directory) = &arguments.data_dir {
        return run_here(arguments, &input, directory, environment);
    }
    let target = arguments.leader.target(&environment)?;
    let mut session = Remote::open(target.clone(), false)?;
    let shape = prepare(arguments, &input, &mut session)?;
    let order = order_of(&mut session, &arguments.table())?;
    bring_in(arguments, &input, shape, order, Door::Remote(target))
}

/// Imports into a database of this process. One that was made for it, and then got no table, is removed again.
fn run_here(arguments: &Arguments, input: &Input, directory: &Path, environment: Environment) -> Result<(), Stop> {
    let id = arguments.id.as_deref();
    let path = resolve(&SystemFiles, directory, id, &Options::default().default_id, Create::Allowed)?;
    let (is_new, makes_directory) = (!is_database(&SystemFiles, &path), !directory.exists());
    let mut session = Embedded::open(directory, arguments.id.clone(), Create::Allowed, environment)?;
    let shape = match prepare(arguments, input, &mut session) {
        Ok(shape) => shape,
        Err(stop) => {
            session.close()?;
            if is_new {
                clean(&SystemFiles, &path, |_| Ok(()))?;
            }
            if makes_directory {
                // Only where nothing else is in it.
                let _ = std::fs::remove_dir(directory);
            }
            return Err(stop);
        }
    };
    // Here statements run one after another anyway.
    let outcome = bring_in(arguments, input, shape, Order::OfTheFile, Door::Local(&mut session));
    session.close()?;
    outcome
}

/// Finds the shape, and makes the table where it is not there.
fn prepare(arguments: &Arguments, input: &Input, session: &mut dyn Session) -> Result<Shape, Stop> {
    let name = arguments.table();
    let table = columns_of(session, &name)?;
    if table.is_some() && arguments.create {
        return Err(Stop::Message(format!("table {name:?} exists: leave out --create to add to it")));
    }
    if table.is_some() && (arguments.types.is_some() || !arguments.primary_key.is_empty()) {
        return Err(Stop::Usage(format!("table {name:?} exists: --types and --primary-key are for a new one")));
    }
    let shape = Shape::find(input, &arguments.given(), &name, table.as_deref())?;
    if arguments.columns.is_some() && shape.skip_header {
        // Said, since a file without a header would lose its first row.
        eprintln!("line 1 is taken for a header; --no-header makes it a row");
    }
    if table.is_none() {
        let key: Vec<String> = arguments.primary_key.iter().map(|name| typed_name(name)).collect();
        let create = shape.create(&name, &key)?;
        session.run(&create, &mut Table::default())?;
        eprintln!("{create}");
    }
    Ok(shape)
}

/// The columns of a table, or none where there is no such table.
fn columns_of(session: &mut dyn Session, table: &str) -> Result<Option<Vec<Target>>, Stop> {
    match fetch(session, &format!("SELECT * FROM {} LIMIT 0", quote_name(table))) {
        Ok(answer) => answer
            .columns
            .into_iter()
            .map(|column| match column.data_type {
                Some(data_type) => Ok(Target { name: column.name, data_type }),
                None => Err(Stop::Message(format!("the node does not say the type of column {:?}", column.name))),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Some),
        Err(error) if error.sqlstate() == SqlState::UNDEFINED_TABLE => Ok(None),
        Err(error) => Err(Stop::Failed(error)),
    }
}

/// The order in which rows must go in: where the table has no key, that of the file is all the order there is.
fn order_of(session: &mut dyn Session, table: &str) -> Result<Order, Stop> {
    let answer = fetch(session, &format!("SHOW COLUMNS FROM {}", quote_name(table))).map_err(Stop::Failed)?;
    let key = answer.columns.iter().position(|column| column.name == "key");
    let is_keyed = key.is_some_and(|key| answer.rows.iter().any(|row| is_primary(&row[key])));
    Ok(if is_keyed { Order::Any } else { Order::OfTheFile })
}

fn is_primary(value: &Value) -> bool {
    matches!(value, Value::Text(text) if text == "primary")
}

fn bring_in(arguments: &Arguments, input: &Input, shape: Shape, order: Order, door: Door) -> Result<(), Stop> {
    let clock = SystemClock;
    let begin = clock.monotonic();
    let insert = shape.insert(&arguments.table());
    let source = Source::new(input.all_bytes()?, arguments.delimiter);
    let mut progress = Progress::new(source.size());
    let mut rejects = Rejects::new(arguments.reject.clone(), &shape);
    let batches = Batches::new(source, shape, arguments.given(), arguments.batch_rows as usize)?;
    let mut rows = 0;
    let outcome = load(door, &insert, order, batches, |done: Done| {
        rows += done.rows;
        done.rejected.iter().try_for_each(|row| rejects.add(row))?;
        progress.at(done.position, rows);
        Ok(())
    });
    progress.end();
    rejects.end()?;
    let took = clock.monotonic().saturating_sub(begin);
    if let Err(stop) = outcome {
        eprintln!("stopped after {rows} rows");
        return Err(stop);
    }
    println!("{}", closing(rows, &arguments.table(), took, rejects.count));
    match (rejects.count, &arguments.reject) {
        (0, _) | (_, Some(_)) => Ok(()),
        (count, None) => {
            Err(Stop::Message(format!("{count} rows are not in the table; --reject FILE keeps such rows")))
        }
    }
}

/// The last line.
fn closing(rows: u64, table: &str, took: Duration, rejected: u64) -> String {
    let seconds = took.as_secs_f64();
    let rate = rows as f64 / seconds.max(1e-6);
    format!("imported {rows} rows into {table} in {seconds:.2} s ({rate:.0} rows/s), {rejected} rejected")
}

/// A bar on a terminal, nothing elsewhere.
struct Progress(ProgressBar);

impl Progress {
    fn new(size: Option<u64>) -> Progress {
        // Draws to standard error, and only where that is a terminal.
        let bar = size.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        let template = match size {
            Some(_) => "{bar:30} {percent:>3} %  {msg}  {binary_bytes_per_sec}  ETA {eta}",
            None => "{spinner} {binary_bytes}  {msg}  {binary_bytes_per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Progress(bar)
    }

    fn at(&mut self, position: u64, rows: u64) {
        // Batches may finish out of order.
        self.0.set_position(position.max(self.0.position()));
        self.0.set_message(format!("{rows} rows"));
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// Reasons shown where there is no reject file; the count tells the rest.
const REASONS_SHOWN_MAX: u64 = 10;

/// Where rejected rows go: a file whose lines are `line,reason,` and the row as it stood.
struct Rejects {
    path: Option<PathBuf>,
    file: Option<BufWriter<File>>,
    header: Vec<u8>,
    count: u64,
}

impl Rejects {
    fn new(path: Option<PathBuf>, shape: &Shape) -> Rejects {
        let mut header = b"line,reason".to_vec();
        for column in &shape.columns {
            header.push(b',');
            csv_field(&mut header, &column.name);
        }
        Rejects { path, file: None, header, count: 0 }
    }

    fn add(&mut self, row: &Rejected) -> Result<(), Stop> {
        self.count += 1;
        let Some(path) = self.path.clone() else {
            if self.count <= REASONS_SHOWN_MAX {
                eprintln!("line {}: {}", row.line, row.reason);
            }
            return Ok(());
        };
        self.write(&path, row).map_err(|error| Stop::Message(format!("cannot write {}: {error}", path.display())))
    }

    fn write(&mut self, path: &Path, row: &Rejected) -> std::io::Result<()> {
        // Made with the first bad row: no file means none.
        if self.file.is_none() {
            let mut file = BufWriter::new(File::create(path)?);
            file.write_all(&self.header)?;
            file.write_all(b"\n")?;
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else { return Ok(()) };
        let mut line = format!("{},", row.line).into_bytes();
        csv_field(&mut line, &row.reason);
        line.push(b',');
        file.write_all(&line)?;
        file.write_all(&row.raw)?;
        file.write_all(b"\n")
    }

    fn end(&mut self) -> Result<(), Stop> {
        match &mut self.file {
            Some(file) => file.flush().map_err(|error| Stop::Message(format!("cannot write the reject file: {error}"))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_it_all() {
        assert_eq!(
            closing(22_695, "t", Duration::from_millis(500), 0),
            "imported 22695 rows into t in 0.50 s (45390 rows/s), 0 rejected"
        );
    }

    #[test]
    fn rejected_rows_are_kept_as_they_stood() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("bad.csv");
        let shape = Shape { columns: Vec::new(), skip_header: true };
        let mut rejects = Rejects::new(Some(path.clone()), &shape);
        assert!(!path.exists());
        rejects.add(&Rejected { line: 7, reason: "a, \"b\"".to_owned(), raw: b"1,\"x\"".to_vec() }).expect("writes");
        rejects.end().expect("writes");
        let text = std::fs::read_to_string(&path).expect("is there");
        assert_eq!(text, "line,reason\n7,\"a, \"\"b\"\"\",1,\"x\"\n");
    }

    #[test]
    fn a_delimiter_is_one_character() {
        assert_eq!(delimiter(";"), Ok(b';'));
        assert_eq!(delimiter("tab"), Ok(b'\t'));
        for wrong in ["", ";;", "\"", "é"] {
            assert!(delimiter(wrong).is_err(), "{wrong}");
        }
    }
}
