//! `chronos snapshot`: a database as one checked file, and back.
//!
//! ```text
//! create:  stopped: recover and seal ──> lock ──> check and pack into F.partial ──> sync ──> rename to F
//!          running: stream of the node, which checks ──> F.partial ──> sync ──> read again and check ──> rename to F
//! restore: unpack into DIR/.restore-ID ──> sync ──> check as a database ──> rename to DIR/ID
//! verify:  the same beside F, open it, read every block, count every table, remove it
//! ```
//!
//! * A damaged database makes no snapshot and a damaged snapshot no database, unless `--no-verify-checksums` says so: a
//!   snapshot that holds what can still be saved is better than none. (PostgreSQL's `pg_basebackup` has the same flag.)
//! * Nothing that exists is overwritten without `--force`.
//! * A half-made snapshot or restore never looks like a whole one.

pub mod archive;
mod online;

use super::client::Leader;
use super::embedded::Embedded;
use super::session::{fetch, names, quote_name};
use super::{Environment, Stop};
use archive::{Checksums, Content, pack, unpack};
use chronos::Error;
use chronos::sql::value::Value;
use chronos::storage::check;
use chronos::storage::directory::{self, Create, Database};
use chronos::storage::files::{Files, SystemFiles};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const EXAMPLES: &str = "\
Examples:
  chronos snapshot create --leader 127.0.0.1:8000 --output node1.snap       # of a running node
  chronos snapshot create --data-dir data --id node1 --output node1.snap    # of a stopped one
  chronos snapshot verify --input node1.snap                                # proves that it can be restored
  chronos snapshot restore --data-dir elsewhere --input node1.snap";

/// What `snapshot` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Write the database of a running or a stopped node to a file
    #[command(
        after_help = "Examples:\n  chronos snapshot create --leader 127.0.0.1:8000 --output node1.snap\n  chronos snapshot create --data-dir data --output node1.snap",
        group(clap::ArgGroup::new("source").required(true).args(["leader", "data_dir"]))
    )]
    Create {
        /// The running node
        #[arg(long, value_name = "HOST:PORT,...", conflicts_with = "id")]
        leader: Option<String>,
        /// Directory of the databases, of a stopped node
        #[arg(long, value_name = "DIR")]
        data_dir: Option<PathBuf>,
        /// Which database of the directory [default: the only one]
        #[arg(long)]
        id: Option<String>,
        /// File to write
        #[arg(long, value_name = "FILE")]
        output: PathBuf,
        /// Overwrite the file
        #[arg(long)]
        force: bool,
        /// Write it although parts of the database are damaged
        #[arg(long)]
        no_verify_checksums: bool,
    },
    /// Make a database from a snapshot
    #[command(after_help = "Example:\n  chronos snapshot restore --data-dir data --input node1.snap")]
    Restore {
        /// Directory of the databases
        #[arg(long, value_name = "DIR")]
        data_dir: PathBuf,
        /// The snapshot
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// Replace the database that is there
        #[arg(long)]
        force: bool,
        /// Restore it although parts of it are damaged
        #[arg(long)]
        no_verify_checksums: bool,
    },
    /// Prove that a snapshot can be restored: restore it beside the file, count its rows, remove it
    #[command(after_help = "Example:\n  chronos snapshot verify --input node1.snap")]
    Verify {
        /// The snapshot
        #[arg(long, value_name = "FILE")]
        input: PathBuf,
        /// Where to restore it meanwhile [default: beside the snapshot]
        #[arg(long, value_name = "DIR")]
        scratch: Option<PathBuf>,
    },
}

/// Runs one of them.
pub fn run(arguments: &Arguments, environment: Environment) -> Result<(), Stop> {
    match &arguments.command {
        Command::Create { output, force: false, .. } if output.exists() => {
            Err(Stop::Message(format!("{} exists: --force overwrites it", output.display())))
        }
        Command::Create { leader: Some(leader), output, no_verify_checksums, .. } => {
            let target = Leader { leader: leader.clone() }.target(&environment)?;
            finish(output, |partial| online::download(&target, Checksums::unless(*no_verify_checksums), partial))
        }
        Command::Create { data_dir, id, output, no_verify_checksums, .. } => {
            let data_dir = data_dir.as_deref().unwrap_or(Path::new("data"));
            let checksums = Checksums::unless(*no_verify_checksums);
            finish(output, |partial| offline(data_dir, id.as_ref(), checksums, partial, environment))
        }
        Command::Restore { data_dir, input, force, no_verify_checksums } => {
            restore(data_dir, input, *force, Checksums::unless(*no_verify_checksums))
        }
        Command::Verify { input, scratch } => verify(input, scratch.as_deref(), environment),
    }
}

fn io(doing: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Stop {
    move |error| Stop::Failed(Error::io(doing, &error))
}

/// A snapshot that cannot be used: its content is at fault, or reading it is.
fn unusable(path: &Path, error: &std::io::Error) -> Stop {
    let damaged = error.kind() == std::io::ErrorKind::InvalidData;
    Stop::Failed(if damaged {
        Error::damaged(format!("{}: {error}", path.display())).hint(RESTORE_HINT)
    } else {
        Error::io(format!("read {}", path.display()), error)
    })
}

/// What to do about a snapshot that is damaged.
const RESTORE_HINT: &str = "use an older snapshot; --no-verify-checksums restores this one as it is, and what is damaged \
    stays refused where it is read";

/// What to do about a database that is damaged.
const CREATE_HINT: &str = "nothing was written; keep your older snapshots. --no-verify-checksums writes this one all the \
    same, and `chronos export --data-dir DIR --table T --skip-damaged` saves the rows that can be read";

/// A database that is not packed, since it is damaged or the disk is full.
fn unpacked(partial: &Path, error: &std::io::Error) -> Stop {
    Stop::Failed(if error.kind() == std::io::ErrorKind::InvalidData {
        Error::damaged(error.to_string()).hint(CREATE_HINT)
    } else {
        Error::io(format!("write {}", partial.display()), error)
    })
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn sync_parent(path: &Path) -> std::io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// Makes a snapshot beside its final name, and gives it that name once it is whole.
fn finish(output: &Path, make: impl FnOnce(&Path) -> Result<Content, Stop>) -> Result<(), Stop> {
    let partial = beside(output, ".partial");
    let content = make(&partial).inspect_err(|_| {
        // The half of it is of no use to anybody.
        let _ = std::fs::remove_file(&partial);
    })?;
    let renamed = std::fs::rename(&partial, output).and_then(|()| sync_parent(output));
    renamed.map_err(io(format!("rename {}", partial.display())))?;
    println!("{}", line("wrote", output, &content));
    Ok(())
}

/// Packs the database of a node that does not run.
fn offline(
    data_dir: &Path,
    id: Option<&String>,
    checksums: Checksums,
    partial: &Path,
    environment: Environment,
) -> Result<Content, Stop> {
    let path = directory::resolve(&SystemFiles, data_dir, id.map(String::as_str), "node1", Create::Refused)?;
    // Recovers what a killed process left, and seals, so that the copy is small and opens at once.
    Embedded::open(data_dir, id.cloned(), Create::Refused, environment)?.close()?;
    let locked = Database::open(Arc::new(SystemFiles), &path)?;
    pack(&path, &locked.identity.node_id, checksums, partial).map_err(|error| unpacked(partial, &error))
}

fn line(did: &str, path: &Path, content: &Content) -> String {
    let Content { id, files, bytes } = content;
    format!("{did} {}: {id}, {files} files, {bytes} bytes", path.display())
}

fn restore(data_dir: &Path, input: &Path, force: bool, checksums: Checksums) -> Result<(), Stop> {
    // Everything is checked before anything is touched.
    let content = unpack(input, None, checksums).map_err(|error| unusable(input, &error))?;
    directory::check_id(&content.id)?;
    let path = data_dir.join(&content.id);
    if directory::is_database(&SystemFiles, data_dir) {
        return Err(Stop::Message(format!("{} is a database itself: name the directory above it", data_dir.display())));
    }
    if path.exists() && !force {
        return Err(Stop::Message(format!("{} exists: --force replaces it", path.display())));
    }
    let missing: Vec<&Path> = data_dir.ancestors().take_while(|above| !above.exists()).collect();
    std::fs::create_dir_all(data_dir).map_err(io(format!("make {}", data_dir.display())))?;
    // No id begins with a dot, so nothing takes it for a database.
    let partial = data_dir.join(format!(".restore-{}", content.id));
    unpack_into(input, &partial, checksums).inspect_err(|_| {
        // What was made for it, and nothing that somebody put there meanwhile.
        missing.iter().take_while(|made| std::fs::remove_dir(made).is_ok()).for_each(drop);
    })?;
    if path.exists() {
        directory::clean(&SystemFiles, &path, |_| Ok(()))?;
    }
    let renamed = std::fs::rename(&partial, &path).and_then(|()| sync_parent(&path));
    renamed.map_err(io(format!("rename {} to {}", partial.display(), path.display())))?;
    println!("{}", line("restored", &path, &content));
    Ok(())
}

/// Unpacks into a directory of its own, which is emptied of an earlier attempt, and checks what lies there then.
fn unpack_into(input: &Path, directory: &Path, checksums: Checksums) -> Result<Content, Stop> {
    remove(directory)?;
    std::fs::create_dir(directory).map_err(io(format!("make {}", directory.display())))?;
    let files: Arc<dyn Files> = Arc::new(SystemFiles);
    let content = unpack(input, Some(directory), checksums).map_err(|error| unusable(input, &error));
    let checked = content.and_then(|content| match checksums {
        Checksums::Verified => check::database(&files, directory).map(|()| content).map_err(|error| {
            Stop::Failed(error.context(format!("{} holds a damaged database", input.display())).hint(RESTORE_HINT))
        }),
        Checksums::Ignored => Ok(content),
    });
    checked.inspect_err(|_| {
        let _ = std::fs::remove_dir_all(directory);
    })
}

fn remove(directory: &Path) -> Result<(), Stop> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(io(format!("remove {}", directory.display()))(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn verify(input: &Path, scratch: Option<&Path>, environment: Environment) -> Result<(), Stop> {
    let above = match scratch {
        Some(scratch) => scratch.join("chronos-verify"),
        None => beside(input, ".verify"),
    };
    let content = unpack(input, None, Checksums::Verified).map_err(|error| unusable(input, &error))?;
    directory::check_id(&content.id)?;
    remove(&above)?;
    std::fs::create_dir(&above).map_err(io(format!("make {}", above.display())))?;
    let unpacked = unpack_into(input, &above.join(&content.id), Checksums::Verified);
    let counted = unpacked.and_then(|_| count(&above, environment));
    remove(&above)?;
    let tables = counted?;
    for (table, rows) in &tables {
        println!("{table}: {rows} rows");
    }
    println!("{}, {} tables", line("verified", input, &content), tables.len());
    Ok(())
}

/// Opens the database, reads every block of it, those of indexes too, and then every row of every table.
fn count(data_dir: &Path, environment: Environment) -> Result<Vec<(String, u64)>, Stop> {
    /// Counts the rows of a full read; a COUNT could be answered from block headers alone.
    #[derive(Default)]
    struct Rows(u64);
    impl super::session::Sink for Rows {
        fn head(&mut self, _: &[super::session::Column]) -> std::io::Result<()> {
            Ok(())
        }
        fn row(&mut self, _: &[Value]) -> std::io::Result<()> {
            self.0 += 1;
            Ok(())
        }
    }
    let mut session = Embedded::open(data_dir, None, Create::Refused, environment)?;
    session.read_all_blocks()?;
    let mut tables = Vec::new();
    for table in names(&fetch(&mut session, "SHOW TABLES")?) {
        let mut rows = Rows::default();
        let query = format!("SELECT * FROM {}", quote_name(&table));
        super::session::Session::run(&mut session, &query, &mut rows)
            .map_err(|error| Stop::Failed(error.context(format!("table {table:?}"))))?;
        tables.push((table, rows.0));
    }
    session.close()?;
    Ok(tables)
}
