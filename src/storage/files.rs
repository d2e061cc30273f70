//! The file trait: every file of ours is touched through it, so that tests can tear, drop, reorder, delay and fail.
//!
//! sled opens its own files; everything else (the log, hot and sealed files, `CURRENT`, `CLUSTER`) comes through here.
//!
//! * What is written is durable only after `sync_data` (content and length) or `sync_all`; a name (create, rename,
//!   remove) only after `sync_dir` of its directory.
//! * Errors carry what was being done to which path.

use crate::error::{Error, Result};
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// It must exist; writing fails.
    Read,
    /// It must exist.
    Write,
    /// It must not exist.
    Create,
}

/// A file system, as far as storage uses one.
pub trait Files: Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>>;
    /// Puts `from` in the place of `to`, atomically.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;
    /// Gives a file a second name.
    fn hard_link(&self, from: &Path, to: &Path) -> Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> Result<()>;
    /// Removes a directory and what is in it.
    fn remove_dir(&self, path: &Path) -> Result<()>;
    /// Makes a directory and those above it; existing ones are fine.
    fn create_dir(&self, path: &Path) -> Result<()>;
    /// Paths in a directory, sorted; none where it does not exist.
    fn list(&self, directory: &Path) -> Result<Vec<PathBuf>>;
    /// True where something has this name.
    fn exists(&self, path: &Path) -> bool;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, directory: &Path) -> Result<()>;
    /// Bytes that an unprivileged process may still write on the file system of `path`.
    fn free_bytes(&self, path: &Path) -> Result<u64>;
    /// Takes a file for this process alone, made where it does not exist; it stays taken until the lock is dropped or
    /// the process ends, however it ends. None where another holds it.
    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Lock>>> {
        Err(Error::unsupported(format_args!("locking {} on this file system is", path.display())))
    }
}

/// A lock that is held; dropping it gives it back.
pub trait Lock: Send + Sync {
    /// Puts `text` in the place of the lock file's content, for whoever finds it taken. Nothing else depends on it.
    fn describe(&self, text: &str) -> Result<()>;
}

/// An open file; positions are given, never kept.
pub trait File: Send + Sync {
    /// Fills `buffer` from `offset`; an end of file before that is an error.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()>;
    /// Length in bytes.
    fn len(&self) -> Result<u64>;
    /// True where the file holds nothing.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or zero-extends.
    fn set_len(&self, bytes: u64) -> Result<()>;
    /// Makes content and length durable (`fdatasync`).
    fn sync_data(&self) -> Result<()>;
    /// Makes content and all metadata durable (`fsync`).
    fn sync_all(&self) -> Result<()>;
}

/// The whole content of a file.
pub fn read(files: &dyn Files, path: &Path) -> Result<Vec<u8>> {
    let file = files.open(path, Open::Read)?;
    let mut content = vec![0; file.len()? as usize];
    file.read_at(&mut content, 0)?;
    Ok(content)
}

/// Puts `content` in the place of `path`, durably: a crash leaves the old content or the new, whole.
pub fn replace(files: &dyn Files, path: &Path, content: &[u8]) -> Result<()> {
    let temporary = path.with_extension("tmp");
    if files.exists(&temporary) {
        files.remove(&temporary)?;
    }
    let file = files.open(&temporary, Open::Create)?;
    file.write_at(content, 0)?;
    file.sync_all()?;
    files.rename(&temporary, path)?;
    files.sync_dir(directory_of(path))
}

/// The directory that a name is in, as [`Files::sync_dir`] wants it: for a bare name the working directory.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemFiles;

struct SystemFile {
    file: std::fs::File,
    path: PathBuf,
}

/// Attempts to lock a name that is being replaced: `--clean` of another process removes it at most once.
const LOCK_ATTEMPTS_MAX: usize = 3;

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_path_buf();
    move |error| Error::io(format_args!("{doing} {}", path.display()), &error)
}

impl Files for SystemFiles {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != Open::Read).create_new(how == Open::Create);
        let file = options.open(path).map_err(failed("open", path))?;
        Ok(Arc::new(SystemFile { file, path: path.to_path_buf() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to).map_err(failed("rename", from))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::hard_link(from, to).map_err(failed("link", from))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        std::fs::remove_file(path).map_err(failed("remove", path))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        std::fs::remove_dir_all(path).map_err(failed("remove", path))
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path).map_err(failed("create directory", path))
    }

    fn list(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list", directory)(error)),
        };
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()).map_err(failed("list", directory)))
            .collect::<Result<Vec<PathBuf>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn sync_dir(&self, directory: &Path) -> Result<()> {
        let opened = std::fs::File::open(directory).map_err(failed("open directory", directory))?;
        opened.sync_all().map_err(failed("sync directory", directory))
    }

    fn free_bytes(&self, path: &Path) -> Result<u64> {
        let stat = rustix::fs::statvfs(path).map_err(|error| failed("stat file system of", path)(error.into()))?;
        Ok(stat.f_bavail * stat.f_frsize)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Lock>>> {
        for _ in 0..LOCK_ATTEMPTS_MAX {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false);
            let file = options.open(path).map_err(failed("open", path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
                Err(std::fs::TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
            }
            // The name may have gone to another file between opening and locking: then this lock protects nothing.
            let mine = file.metadata().map_err(failed("stat", path))?;
            if std::fs::metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (mine.dev(), mine.ino())) {
                return Ok(Some(Box::new(SystemFile { file, path: path.to_path_buf() })));
            }
        }
        Err(Error::unavailable(format!("{} is being replaced by another process", path.display())))
    }
}

impl Lock for SystemFile {
    fn describe(&self, text: &str) -> Result<()> {
        self.set_len(0)?;
        self.write_at(text.as_bytes(), 0)
    }
}

impl File for SystemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(failed("read", &self.path))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(failed("write", &self.path))
    }

    fn len(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(failed("stat", &self.path))?.len())
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        self.file.set_len(bytes).map_err(failed("resize", &self.path))
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data().map_err(failed("sync", &self.path))
    }

    fn sync_all(&self) -> Result<()> {
        self.file.sync_all().map_err(failed("sync", &self.path))
    }
}
