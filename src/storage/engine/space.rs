//! Room on the disk: how much is left, and a little that is put by for the moment when nothing is.
//!
//! Writes are refused long before the disk is full, but another program may fill it within a second. Then the log has
//! one spare segment at hand, and the engine a file of zeros, `state/reserve`: it is removed where a directory is opened
//! without room, which is what a hot store, a `CURRENT` and the first entries of a log are made of, and made again once
//! there is plenty.
//!
//! * Nothing rests on the file: whoever finds it too short, or not there, goes on without.

use super::{Counters, Options};
use crate::Result;
use crate::error::{Error, Kind, SqlState};
use crate::storage::files::{Files, Open};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What is put by: an empty hot store begins with half a MiB, the log with 64 KiB, and a `CURRENT` is a block of the
/// file system. No more, for a stopped node's directory is what small disks and backups hold.
pub(super) const RESERVE_BYTES: u64 = 1 << 20;

/// Its name in the state directory.
pub(super) const RESERVE: &str = "reserve";

/// What the hot store's engine must find free before it is written to: two of its segments. An error in the middle of a
/// write would leave it unusable.
pub(super) const HOT_ROOM_BYTES: u64 = 1 << 20;

/// How often whoever waits for room looks for it: short beside the deadlines of those who wait behind, and ten looks a
/// second cost nothing.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Zeros written at once.
const ZEROS_BYTES: usize = 1 << 20;

fn path(state: &Path) -> PathBuf {
    state.join(RESERVE)
}

/// True where an error means that there is no room, so that the same may succeed later.
pub(super) fn is_full(error: &Error) -> bool {
    error.sqlstate() == SqlState::DISK_FULL
}

/// Looks how much is free, and sees to it that writes are refused below the reserve.
pub(super) fn measure(options: &Options, state: &Path, counters: &Counters) {
    if let Ok(free) = options.files.free_bytes(state) {
        counters.free_bytes.store(free, Ordering::Relaxed);
        counters.disk_low.store(free < options.limits.disk_reserve_bytes, Ordering::Relaxed);
    }
}

/// An error where fewer bytes are free. One that cannot be told is none: the write will say.
pub(super) fn check(options: &Options, state: &Path, bytes: u64) -> Result<()> {
    match options.files.free_bytes(state) {
        Ok(free) if free < bytes => Err(Error::new(
            Kind::Overloaded,
            SqlState::DISK_FULL,
            format!("{} needs {} KiB of free disk and has {}", state.display(), bytes >> 10, free >> 10),
        )),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Puts the reserve by where there is plenty of room and it is not there.
pub(super) fn put_by(options: &Options, state: &Path) -> Result<()> {
    let (files, path) = (&*options.files, path(state));
    let plenty = options.limits.disk_reserve_bytes + options.limits.segment_bytes + 4 * RESERVE_BYTES;
    if files.exists(&path) || files.free_bytes(state)? < plenty {
        return Ok(());
    }
    let temporary = path.with_extension("tmp");
    if files.exists(&temporary) {
        files.remove(&temporary)?;
    }
    let filled = fill(files, &temporary).and_then(|()| files.rename(&temporary, &path));
    if filled.is_err() && files.exists(&temporary) {
        files.remove(&temporary)?;
    }
    filled
}

fn fill(files: &dyn Files, path: &Path) -> Result<()> {
    let file = files.open(path, Open::Create)?;
    let zeros = vec![0; ZEROS_BYTES];
    for at in (0..RESERVE_BYTES).step_by(ZEROS_BYTES) {
        file.write_at(&zeros, at)?;
    }
    file.sync_all()
}

/// Gives the reserve back to a disk that has less left than it holds; true where that was so.
pub(super) fn release(options: &Options, state: &Path) -> Result<bool> {
    let (files, path) = (&*options.files, path(state));
    if !files.exists(&path) || files.free_bytes(state)? >= RESERVE_BYTES {
        return Ok(false);
    }
    tracing::warn!(path = %path.display(), "the disk is full: what was put by is used to start");
    files.remove(&path)?;
    Ok(true)
}
