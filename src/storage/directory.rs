//! The database directory: which one is meant, whose it is, and that nobody else has it open.
//!
//! ```text
//!   DIR/                  --data-dir
//!     node1/              a database directory: DIR/<id>, or DIR itself where it holds a CLUSTER
//!       CLUSTER           whose it is; written last, so a directory without it was never in use
//!       LOCK              held by flock for the life of the process
//!       raft/ state/ snapshots/
//!     client/             the client's queue, outside any lock; never a database
//! ```
//!
//! * A directory is formatted once `CLUSTER` is there. While it is made or removed, a file `FORMATTING` says that what
//!   lies beside it may be thrown away; without either, `raft/` and `state/` are somebody's data and are not touched.
//! * The flock is the lock. The pid in the file is only for the message.
//! * Nothing ever makes a CLUSTER in DIR itself; but if somebody names a database directory directly, DIR is it.

mod identity;

pub use identity::{Identity, check_id};

use crate::error::{Error, Kind, Result, SqlState};
use crate::ids::ClusterId;
use crate::storage::files::{self, Files, Lock, directory_of};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const CLUSTER: &str = "CLUSTER";
const LOCK: &str = "LOCK";
const FORMATTING: &str = "FORMATTING";

/// Tells the next start that an operator has recovered the group with this copy.
pub(super) const RECOVERED: &str = "RECOVERED";

/// What a database directory is made of, beside CLUSTER and LOCK.
const DATA: [&str; 3] = ["raft", "state", "snapshots"];

/// An open database directory. Dropping it gives the lock back.
pub struct Database {
    /// Where it is.
    pub path: PathBuf,
    /// Whose it is.
    pub identity: Identity,
    files: Arc<dyn Files>,
    _lock: Box<dyn Lock>,
}

impl Database {
    /// Where its files are.
    pub(in crate::storage) fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    /// Opens a formatted directory and locks it.
    pub fn open(files: Arc<dyn Files>, path: &Path) -> Result<Database> {
        let cluster = path.join(CLUSTER);
        if !files.exists(&cluster) {
            return Err(absent(path));
        }
        let lock = take_lock(&*files, path)?;
        let identity = Identity::decode(&files::read(&*files, &cluster)?, &cluster)?;
        if files.exists(&path.join(FORMATTING)) {
            // CLUSTER is there, so formatting was complete but for this.
            files.remove(&path.join(FORMATTING))?;
            files.sync_dir(path)?;
        }
        Ok(Database { path: path.to_path_buf(), identity, files, _lock: lock })
    }

    /// Makes a directory and locks it. `prepare` makes log and state durable inside; only then is CLUSTER written. A
    /// crash on the way leaves something that formatting throws away, and nothing else ever does.
    pub fn format(
        files: Arc<dyn Files>,
        path: &Path,
        identity: Identity,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Database> {
        check_id(&identity.node_id)?;
        make_durable_directory(&*files, path)?;
        let lock = take_lock(&*files, path)?;
        if files.exists(&path.join(CLUSTER)) {
            let message = format!("{} is a database already", path.display());
            return Err(Error::invalid(SqlState::DUPLICATE_OBJECT, message));
        }
        let marker = path.join(FORMATTING);
        let leftover: Vec<PathBuf> = DATA.iter().map(|name| path.join(name)).filter(|it| files.exists(it)).collect();
        if !files.exists(&marker) {
            if let Some(data) = leftover.iter().find(|data| !files.list(data).is_ok_and(|found| found.is_empty())) {
                return Err(Error::damaged(format!("{} holds data and {} is missing", data.display(), CLUSTER))
                    .hint(format!("restore {CLUSTER}, or move the directory away to begin an empty database")));
            }
            files::replace(&*files, &marker, b"")?;
        }
        for data in &leftover {
            files.remove_dir(data)?;
        }
        prepare(path)?;
        files.sync_dir(path)?;
        files::replace(&*files, &path.join(CLUSTER), &identity.encode()?)?;
        files.remove(&marker)?;
        files.sync_dir(path)?;
        Ok(Database { path: path.to_path_buf(), identity, files, _lock: lock })
    }

    /// Refuses a directory of another node.
    pub fn expect_node(&self, node_id: &str) -> Result<()> {
        if self.identity.node_id == node_id {
            return Ok(());
        }
        let (path, owner) = (self.path.display(), &self.identity.node_id);
        let message = format!("{path} belongs to node \"{owner}\", not \"{node_id}\"");
        Err(Error::invalid(SqlState::NOT_IN_STATE, message)
            .hint(format!("start with --data-dir {path} --id {owner}, or give it the new name with --rename")))
    }

    /// Refuses a directory of another group.
    pub fn expect_cluster(&self, cluster_id: ClusterId) -> Result<()> {
        if self.identity.cluster_id == cluster_id {
            return Ok(());
        }
        let message = format!("{} belongs to another cluster", self.path.display());
        Err(Error::invalid(SqlState::NOT_IN_STATE, message)
            .hint("name its own members in --peers, or another --data-dir"))
    }

    /// Gives the directory to another node id, durably. The disk stays the same disk.
    pub fn rename(&mut self, node_id: &str) -> Result<()> {
        check_id(node_id)?;
        if self.identity.node_id == node_id {
            return Ok(());
        }
        let identity = Identity { node_id: node_id.to_string(), ..self.identity.clone() };
        files::replace(&*self.files, &self.path.join(CLUSTER), &identity.encode()?)?;
        self.identity = identity;
        Ok(())
    }

    /// The log's directory.
    pub fn raft(&self) -> PathBuf {
        self.path.join(DATA[0])
    }

    /// The directory of hot and sealed levels.
    pub fn state(&self) -> PathBuf {
        self.path.join(DATA[1])
    }

    /// The directory of snapshots being made or installed.
    pub fn snapshots(&self) -> PathBuf {
        self.path.join(DATA[2])
    }
}

/// True where `path` is a formatted database directory.
pub fn is_database(files: &dyn Files, path: &Path) -> bool {
    files.exists(&path.join(CLUSTER))
}

/// Which database directory `--data-dir` and `--id` mean: DIR itself where it holds a CLUSTER; else DIR/id; else the
/// only database in DIR; with none DIR/`default`. Where nothing may be made there, it must exist.
pub fn resolve(files: &dyn Files, dir: &Path, id: Option<&str>, default: &str, create: Create) -> Result<PathBuf> {
    id.map_or(Ok(()), check_id)?;
    let path = if is_database(files, dir) {
        dir.to_path_buf()
    } else if let Some(id) = id {
        dir.join(id)
    } else {
        let found = databases(files, dir)?;
        match found.as_slice() {
            [] => dir.join(default),
            [only] => only.clone(),
            several => {
                let names: Vec<&str> = several.iter().filter_map(|path| path.file_name()?.to_str()).collect();
                let message = format!("{} holds several databases: {}", dir.display(), names.join(", "));
                return Err(Error::invalid(SqlState::CONFIG_ERROR, message).hint("say which with --id"));
            }
        }
    };
    match create {
        Create::Allowed | Create::Refused if is_database(files, &path) => Ok(path),
        Create::Allowed => id.map_or(Ok(()), |id| expect_no_namesake(files, dir, id)).map(|()| path),
        Create::Refused => Err(absent(&path)),
    }
}

/// Refuses to make a second database of that node's beside the one that has its name inside, after a rename say: to the
/// operator all rows would be gone.
fn expect_no_namesake(files: &dyn Files, dir: &Path, id: &str) -> Result<()> {
    for path in databases(files, dir)? {
        let cluster = path.join(CLUSTER);
        // One that cannot be read is somebody else's trouble, and reported where it is opened.
        let identity = files::read(files, &cluster).and_then(|content| Identity::decode(&content, &cluster));
        if identity.is_ok_and(|identity| identity.node_id == id) {
            let message = format!("the database of node \"{id}\" is {}", path.display());
            return Err(Error::invalid(SqlState::CONFIG_ERROR, message)
                .hint(format!("name it with --data-dir {}, or rename the directory to {id}", path.display())));
        }
    }
    Ok(())
}

/// Whether [`resolve`] may name a directory that is yet to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// The caller formats it.
    Allowed,
    /// It must be there.
    Refused,
}

/// The database directories in `dir`, sorted.
pub fn databases(files: &dyn Files, dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = files.list(dir)?;
    let named = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).is_some_and(|id| check_id(id).is_ok());
    found.retain(|path| named(path) && is_database(files, path));
    Ok(found)
}

/// Removes a database directory, once its LOCK is held and `may_go` has looked at its log. Anything else that somebody put
/// into it stays, and so does the directory then. True where there was something to remove.
pub fn clean(files: &dyn Files, path: &Path, may_go: impl FnOnce(&Path) -> Result<()>) -> Result<bool> {
    if !is_database(files, path) && !files.exists(&path.join(FORMATTING)) {
        return Ok(false);
    }
    let lock = take_lock(files, path)?;
    // What is half formatted or half removed was nobody's, or is no more.
    if is_database(files, path) {
        may_go(&path.join(DATA[0]))?;
    }
    // From here on a crash leaves something that the next format or clean may throw away.
    files::replace(files, &path.join(FORMATTING), b"")?;
    if is_database(files, path) {
        files.remove(&path.join(CLUSTER))?;
        files.sync_dir(path)?;
    }
    for data in DATA.map(|name| path.join(name)) {
        if files.exists(&data) {
            files.remove_dir(&data)?;
        }
    }
    if files.exists(&path.join(RECOVERED)) {
        files.remove(&path.join(RECOVERED))?;
    }
    files.sync_dir(path)?;
    for name in [FORMATTING, LOCK] {
        files.remove(&path.join(name))?;
    }
    if files.list(path)?.is_empty() {
        files.remove_dir(path)?;
        files.sync_dir(directory_of(path))?;
    }
    drop(lock);
    Ok(true)
}

fn absent(path: &Path) -> Error {
    Error::invalid(SqlState::UNDEFINED_OBJECT, format!("{} is not a database directory", path.display()))
        .hint("name one with --data-dir and --id")
}

fn take_lock(files: &dyn Files, path: &Path) -> Result<Box<dyn Lock>> {
    let name = path.join(LOCK);
    if let Some(lock) = files.lock(&name)? {
        lock.describe(&format!("{}\n", std::process::id()))?;
        return Ok(lock);
    }
    // The holder may be writing its pid just now: then the message does without.
    let content = files::read(files, &name).unwrap_or_default();
    let pid = String::from_utf8_lossy(&content).trim().parse::<u32>();
    let holder = pid.map_or("another process".to_string(), |pid| format!("process {pid}"));
    let message = format!("{} is in use by {holder}", path.display());
    Err(Error::new(Kind::Unavailable, SqlState::IN_USE, message)
        .hint("stop it first, or reach the database through it with `chronos client`"))
}

/// Makes a directory and every one above it that is missing, each durably.
fn make_durable_directory(files: &dyn Files, path: &Path) -> Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|above| !files.exists(above)).collect();
    files.create_dir(path)?;
    // The directory itself too, even where it was there: a crash may have come between making and syncing it.
    files.sync_dir(directory_of(path))?;
    missing
        .into_iter()
        .skip(1)
        .filter(|above| above.parent().is_some())
        .try_for_each(|above| files.sync_dir(directory_of(above)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DiskId, OriginUid};
    use crate::storage::faults::{Crash, Disk};
    use crate::storage::files::{Open, SystemFiles};

    fn identity(node: &str) -> Identity {
        let (cluster_id, disk_id, origin) = (ClusterId(7), DiskId(1 << 100), OriginUid(9));
        Identity { cluster_id, node_id: node.to_string(), disk_id, origin }
    }

    fn prepare(files: &Disk) -> impl FnOnce(&Path) -> Result<()> + use<'_> {
        |path| {
            let raft = path.join("raft");
            files.create_dir(&raft)?;
            files.sync_dir(path)?;
            files::replace(files, &raft.join("log"), b"entries")
        }
    }

    #[test]
    fn the_directory_meant_follows_the_rules() {
        let disk = Disk::new();
        let dir = Path::new("/data");
        let resolve = |path: &str, id, create| resolve(&disk, Path::new(path), id, "node1", create);
        let named = |name: &str| dir.join(name);
        assert_eq!(resolve("/data", None, Create::Allowed).unwrap(), named("node1"));
        assert!(resolve("/data", None, Create::Refused).is_err());
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        drop(Database::format(files.clone(), &named("a"), identity("a"), prepare(&disk)).unwrap());
        disk.create_dir(&named("client")).unwrap();
        assert_eq!(resolve("/data", None, Create::Refused).unwrap(), named("a"));
        assert_eq!(resolve("/data", Some("b"), Create::Allowed).unwrap(), named("b"));
        assert!(resolve("/data", Some("../b"), Create::Allowed).is_err());
        assert_eq!(resolve("/data/a", None, Create::Refused).unwrap(), named("a"));
        drop(Database::format(files, &named("b"), identity("b"), prepare(&disk)).unwrap());
        let error = resolve("/data", None, Create::Allowed).unwrap_err();
        assert_eq!(error.message(), "/data holds several databases: a, b");
    }

    #[test]
    fn a_crash_while_formatting_leaves_a_database_or_something_to_format() {
        let path = Path::new("/data/node1");
        for stop in 0.. {
            let disk = Disk::new();
            disk.stop_at(stop);
            let done = Database::format(Arc::new(disk.clone()), path, identity("node1"), prepare(&disk)).is_ok();
            for (seed, mode) in Crash::ALL.into_iter().enumerate() {
                let after = disk.crash(stop * 10 + seed as u64, mode);
                let files: Arc<dyn Files> = Arc::new(after.clone());
                let database = match Database::open(files.clone(), path) {
                    Ok(database) => database,
                    Err(_) if !done && !is_database(&after, path) => {
                        Database::format(files, path, identity("node1"), prepare(&after)).unwrap()
                    }
                    Err(error) => panic!("stop {stop}, {mode:?}: {error}"),
                };
                assert_eq!(database.identity, identity("node1"));
                assert_eq!(files::read(&after, &path.join("raft/log")).unwrap(), b"entries");
            }
            if done {
                return;
            }
        }
    }

    #[test]
    fn a_crash_while_cleaning_leaves_the_database_or_something_to_clean() {
        let path = Path::new("/data/node1");
        for stop in 0.. {
            let disk = Disk::new();
            drop(Database::format(Arc::new(disk.clone()), path, identity("node1"), prepare(&disk)).unwrap());
            disk.stop_at(disk.operations() + stop);
            let done = clean(&disk, path, |_| Ok(())).is_ok();
            for mode in Crash::ALL {
                let after = disk.crash(stop, mode);
                if is_database(&after, path) {
                    assert_eq!(files::read(&after, &path.join("raft/log")).unwrap(), b"entries");
                }
                clean(&after, path, |_| Ok(())).unwrap();
                Database::format(Arc::new(after.clone()), path, identity("node1"), prepare(&after)).unwrap();
            }
            if done {
                return;
            }
        }
    }

    #[test]
    fn data_without_a_cluster_file_is_not_formatted_over() {
        let disk = Disk::new();
        let path = Path::new("/data/node1");
        drop(Database::format(Arc::new(disk.clone()), path, identity("node1"), prepare(&disk)).unwrap());
        disk.remove(&path.join(CLUSTER)).unwrap();
        let error = Database::format(Arc::new(disk.clone()), path, identity("node1"), prepare(&disk)).err().unwrap();
        assert_eq!(error.message(), "/data/node1/raft holds data and CLUSTER is missing");
        assert!(!clean(&disk, path, |_| Ok(())).unwrap());
        assert!(disk.exists(&path.join("raft/log")));
    }

    #[test]
    fn a_second_process_is_told_who_holds_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data/node1");
        let files: Arc<dyn Files> = Arc::new(SystemFiles);
        let database = Database::format(files.clone(), &path, identity("node1"), |_| Ok(())).unwrap();
        let error = Database::open(files.clone(), &path).err().unwrap();
        assert!(error.message().ends_with(&format!("is in use by process {}", std::process::id())), "{error}");
        assert!(clean(&*files, &path, |_| Ok(())).is_err());
        drop(database);
        let mut database = Database::open(files.clone(), &path).unwrap();
        assert!(database.expect_node("node2").is_err());
        database.rename("node2").unwrap();
        drop(database);
        Database::open(files.clone(), &path).unwrap().expect_node("node2").unwrap();
        assert!(files.open(&path.join("mine"), Open::Create).is_ok());
        assert!(clean(&*files, &path, |_| Ok(())).unwrap());
        assert_eq!(files.list(&path).unwrap(), [path.join("mine")], "what is not ours stays");
    }
}
