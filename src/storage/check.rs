//! Checks a database that rests: one about to be packed into a snapshot, or just unpacked from one.
//!
//! ```text
//! CLUSTER ─> CURRENT ─> each sealed file: trailer, footer, hash of all the rest; where that is wrong, block by block
//!                   └─> raft/: each batch of the log
//! ```
//!
//! A file that is copied whole says nothing of what is in it: without this a snapshot of a damaged database is a perfect
//! copy of the damage, and is found out when it is needed.
//!
//! * Every byte that the database rests on is read, so nothing has to be opened, replayed or asked for.
//! * Nothing is changed. The hot store is not looked at: the log makes it anew.
//! * The first damage is named: file, place and key range.

use crate::error::Result;
use crate::storage::current::{self, Current};
use crate::storage::directory::Identity;
use crate::storage::engine::RESERVE;
use crate::storage::files::{self, Files};
use crate::storage::sealed::{self, SealedFile};
use crate::storage::wal;
use std::path::Path;
use std::sync::Arc;

/// Checks everything in a database's directory. Nobody may be writing to it.
pub fn database(files: &Arc<dyn Files>, directory: &Path) -> Result<()> {
    let cluster = directory.join("CLUSTER");
    Identity::decode(&files::read(&**files, &cluster)?, &cluster)?;
    let state = directory.join("state");
    for number in Current::load(&**files, &state)?.numbers() {
        sealed_file(files, &sealed::path(&state, number))?;
    }
    log(&**files, &directory.join("raft"))
}

/// Checks one sealed file, every byte of it.
pub fn sealed_file(files: &Arc<dyn Files>, path: &Path) -> Result<()> {
    // The number is what others call it; nobody does here.
    SealedFile::open_at(files, path.to_path_buf(), 0)?.verify()
}

/// Checks what says which files are the state.
pub fn current(files: &dyn Files, state: &Path) -> Result<()> {
    Current::load(files, state).map(drop)
}

/// Checks the log. What a crash tore off its end is no damage.
pub fn log(files: &dyn Files, raft: &Path) -> Result<()> {
    wal::check(files, raft)
}

/// True where a file of the state directory is made anew at the next start, and has no place in a copy: what is put by
/// for a full disk, and the hot store, which is never trusted on another machine and whose content is in the log.
pub fn is_made_anew(name: &str) -> bool {
    name == RESERVE || current::is_hot(name)
}
