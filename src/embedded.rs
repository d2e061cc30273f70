//! The database inside a program: the daemon's own parts, composed without actors.
//!
//! ```
//! # fn main() -> chronos::Result<()> {
//! # let directory = tempfile::tempdir().expect("a temporary directory");
//! # let path = directory.path();
//! let db = chronos::embedded::Database::open(path)?;
//! db.execute("CREATE TABLE sensors (id INT, temperature FLOAT)")?;
//! db.execute("INSERT INTO sensors (id, temperature) VALUES (1, 25.5), (2, 30.0)")?;
//! for row in db.query("SELECT id, temperature FROM sensors ORDER BY id")? {
//!     let row = row?;
//!     println!("{} {}", row.get::<i64>("id")?, row.get::<f64>("temperature")?);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Database`] blocks, and may be shared by threads; [`ChronosEmbedded`] is its twin with async signatures, which runs
//! statements on threads of its own and never blocks the caller's runtime, whichever that is. Callers that write at the
//! same time share fdatasyncs, with either. Both are a Raft group of one voter: term, vote, log and stamps included, so
//! a directory moves freely between a program, `chronos single-node` and `chronos node`.
//!
//! * An answered write is durable.
//! * Closing (or dropping) seals, so the next open is quick; a killed process only replays its log.

mod group;
mod handle;
mod pool;
mod result;

pub use group::LocalGroup;
pub use handle::ChronosEmbedded;
pub use result::{FromValue, ResultSet, Row, Rows};

use crate::clock::SystemClock;
use crate::ids::ClusterId;
use crate::raft::{Member, Membership, Naming, NodeId};
use crate::sql::execute::{Answer, Executor, Limits, Task};
use crate::sql::memory::Pool;
use crate::storage::directory::{self, Create, Identity};
use crate::storage::engine::{self, HotEngine, Stop};
use crate::storage::files::SystemFiles;
use crate::storage::{current, directory::Database as Directory};
use crate::{Error, Result};
use std::future::Future;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

/// How a directory is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which database of the directory, where it holds several.
    pub id: Option<String>,
    /// The id of a database that is made here.
    pub default_id: String,
    /// Whether one is made where there is none.
    pub create: Create,
    /// What to do where the directory is that of a node of another name than `id`.
    pub naming: Naming,
    /// To which group a database that is made here belongs.
    pub begin: Begin,
    /// The name of that group, where it has one.
    pub cluster_name: Option<String>,
    /// Limits of storage.
    pub engine: engine::Limits,
    /// Limits of statements.
    pub statements: Limits,
    /// Bytes that queries may take together.
    pub query_bytes_max: usize,
    /// Threads of a [`ChronosEmbedded`]; none means one a core, and two at least.
    pub workers: Option<NonZeroUsize>,
}

/// What a new database begins as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Begin {
    /// A group of one.
    #[default]
    Alone,
    /// A member of a group that begins with these: the same on all of them.
    Together(Membership),
    /// A node that a running group is to add: it has nothing before the group says so.
    Joining(ClusterId),
}

impl Default for Options {
    fn default() -> Options {
        Options {
            id: None,
            default_id: "local".into(),
            create: Create::Allowed,
            naming: Naming::Kept,
            begin: Begin::Alone,
            cluster_name: None,
            engine: engine::Limits::default(),
            statements: Limits::default(),
            query_bytes_max: 20 << 20,
            workers: None,
        }
    }
}

/// Opens or makes the database directory of a group of one, locked.
pub fn open_directory(path: &Path, options: &Options, engine: &engine::Options) -> Result<Directory> {
    let files = engine.files.clone();
    let path = directory::resolve(&*files, path, options.id.as_deref(), &options.default_id, options.create)?;
    if directory::is_database(&*files, &path) {
        let mut directory = Directory::open(files, &path)?;
        // A copied or renamed directory keeps its node's name, which its group knows it by.
        if let Some(id) = &options.id {
            match options.naming {
                Naming::Kept => directory.expect_node(id)?,
                // The log follows (`raft::Naming`). A crash between leaves the new name here and the old one there,
                // which the next start is to be asked for again.
                Naming::Renamed => directory.rename(id)?,
            }
        }
        return Ok(directory);
    }
    let id = path.file_name().and_then(|name| name.to_str()).unwrap_or(&options.default_id).to_owned();
    let name = options.cluster_name.as_deref();
    let (cluster, membership) = match &options.begin {
        Begin::Alone => {
            let membership = Membership::single(&NodeId(id.clone()));
            (cluster_id(&membership, name), Some(membership))
        }
        Begin::Together(membership) => (cluster_id(membership, name), Some(membership.clone())),
        Begin::Joining(cluster) => (*cluster, None),
    };
    let identity = Identity::draw(cluster, &id)?;
    let salt = engine::salt(&identity);
    Directory::format(files, &path, identity, |path| engine::format(path, engine, membership.as_ref(), salt))
}

/// The group's identity: the hash of its sorted bootstrap members, and of its name where it has one.
fn cluster_id(membership: &Membership, name: Option<&str>) -> ClusterId {
    let line = |(id, member): (&NodeId, &Member)| format!("{id}={} {:?}\n", member.address, member.role);
    let mut text: String = membership.members.iter().map(line).collect();
    if let Some(name) = name {
        // No member's line begins with a space.
        text.extend([" ", name, "\n"]);
    }
    ClusterId(xxhash_rust::xxh3::xxh3_128(text.as_bytes()))
}

/// What the engine is made of on this machine.
pub fn engine_options(limits: engine::Limits) -> engine::Options {
    engine::Options {
        files: Arc::new(SystemFiles),
        clock: Arc::new(SystemClock),
        hot: HotEngine::Sled,
        boot_id: current::boot_id(&SystemFiles),
        limits,
    }
}

/// A database in this process. Every call blocks until it is done; threads that share it write together.
pub struct Database {
    group: LocalGroup,
    executor: Executor,
}

impl Database {
    /// Opens the database in a directory, and makes one where there is none.
    pub fn open(path: impl AsRef<Path>) -> Result<Database> {
        Database::open_with(path, &Options::default())
    }

    /// Opens with options.
    pub fn open_with(path: impl AsRef<Path>, options: &Options) -> Result<Database> {
        Database::open_on(path, options, &engine_options(options.engine.clone()))
    }

    /// Opens on other files, clocks or limits than this machine's: for tests and simulation.
    pub fn open_on(path: impl AsRef<Path>, options: &Options, engine: &engine::Options) -> Result<Database> {
        let directory = open_directory(path.as_ref(), options, engine)?;
        let pool = Pool::new(options.query_bytes_max);
        let executor = Executor::new(options.statements.clone(), pool, engine.clock.clone());
        Ok(Database { group: LocalGroup::open(directory, engine, options.naming)?, executor })
    }

    /// Runs one statement and gives its whole answer.
    pub fn execute(&self, sql: &str) -> Result<ResultSet> {
        self.execute_as(sql, &Task::default())
    }

    /// The same for a task, which can be cancelled and repeated.
    pub fn execute_as(&self, sql: &str, task: &Task) -> Result<ResultSet> {
        collect(block_on(self.executor.execute(&self.group, sql, task))?)
    }

    /// Runs a query and gives its rows as they are read.
    pub fn query(&self, sql: &str) -> Result<Rows> {
        self.query_as(sql, &Task::default())
    }

    /// The same for a task, which can be cancelled.
    pub fn query_as(&self, sql: &str, task: &Task) -> Result<Rows> {
        match block_on(self.executor.execute(&self.group, sql, task))? {
            Answer::Rows(stream) => Ok(Rows::new(stream)),
            Answer::Done { .. } => Err(Error::invalid(
                crate::error::SqlState::WRONG_OBJECT_TYPE,
                "the statement answers no rows: use execute",
            )),
        }
    }

    /// Runs statements as one: all take effect, or none. An error names the statement.
    pub fn execute_batch(&self, statements: &[String]) -> Result<Vec<ResultSet>> {
        let answers = block_on(self.executor.execute_batch(&self.group, statements, &Task::default()));
        answers.map_err(named)?.into_iter().map(collect).collect()
    }

    /// The group of one behind it.
    pub fn group(&self) -> &LocalGroup {
        &self.group
    }

    /// Closes it: flushed, sealed, unlocked.
    pub fn close(self) -> Result<()> {
        self.stop()
    }

    fn stop(&self) -> Result<()> {
        self.group.stop(Stop::Clean)
    }
}

/// The error of a batch, with the statement's place in it.
fn named((at, error): (usize, Error)) -> Error {
    error.context(format_args!("statement {}", at + 1))
}

fn collect(answer: Answer) -> Result<ResultSet> {
    match answer {
        Answer::Done { affected } => Ok(ResultSet { affected, ..ResultSet::default() }),
        Answer::Rows(mut stream) => {
            let mut rows = Vec::new();
            while let Some(batch) = stream.next_batch()? {
                rows.extend((0..batch.rows).map(|row| batch.row(row)));
            }
            Ok(ResultSet { columns: stream.columns, rows, affected: 0 })
        }
    }
}

/// Polls a future to its end on this thread, parked in between.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_groups_of_the_same_members_apart_and_none_changes_nothing() {
        let member = |id: &str| (NodeId(id.into()), Member { address: format!("{id}:1"), ..Member::default() });
        let group = Membership::of([member("a"), member("b")]);
        let without = ClusterId(xxhash_rust::xxh3::xxh3_128(b"a=a:1 Voter\nb=b:1 Voter\n"));
        assert_eq!(cluster_id(&group, None), without, "directories of groups without a name keep their id");
        let ids = [None, Some("x"), Some("y")].map(|name| cluster_id(&group, name));
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2]);
    }
}
