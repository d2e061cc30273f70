//! The files of the system with a hook before each call: it may wait, panic, refuse, or take notes.

use chronos::error::Result;
use chronos::storage::files::{File, Files, Lock, Open, SystemFiles};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A call to the file system; for those about an open file, to that file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Create,
    Open,
    Rename,
    Link,
    Remove,
    CreateDir,
    List,
    SyncDir,
    Read,
    Write,
    SetLen,
    Sync,
}

/// Asked before each call, with the path it is about; an error is the call's, which is then not made.
pub type Hook = Arc<dyn Fn(Call, &Path) -> Result<()> + Send + Sync>;

/// The files of the system behind a hook.
pub struct HookedFiles(pub Hook);

impl Files for HookedFiles {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        let call = match how {
            Open::Create => Call::Create,
            Open::Read | Open::Write => Call::Open,
        };
        self.0(call, path)?;
        Ok(Arc::new(HookedFile { file: SystemFiles.open(path, how)?, path: path.into(), hook: self.0.clone() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.0(Call::Rename, to)?;
        SystemFiles.rename(from, to)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        self.0(Call::Link, from)?;
        SystemFiles.hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.0(Call::Remove, path)?;
        SystemFiles.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.0(Call::Remove, path)?;
        SystemFiles.remove_dir(path)
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.0(Call::CreateDir, path)?;
        SystemFiles.create_dir(path)
    }

    fn list(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        self.0(Call::List, directory)?;
        SystemFiles.list(directory)
    }

    fn exists(&self, path: &Path) -> bool {
        SystemFiles.exists(path)
    }

    fn sync_dir(&self, directory: &Path) -> Result<()> {
        self.0(Call::SyncDir, directory)?;
        SystemFiles.sync_dir(directory)
    }

    fn free_bytes(&self, path: &Path) -> Result<u64> {
        SystemFiles.free_bytes(path)
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Lock>>> {
        SystemFiles.lock(path)
    }
}

struct HookedFile {
    file: Arc<dyn File>,
    path: PathBuf,
    hook: Hook,
}

impl File for HookedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        (self.hook)(Call::Read, &self.path)?;
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        (self.hook)(Call::Write, &self.path)?;
        self.file.write_at(bytes, offset)
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        (self.hook)(Call::SetLen, &self.path)?;
        self.file.set_len(bytes)
    }

    fn sync_data(&self) -> Result<()> {
        (self.hook)(Call::Sync, &self.path)?;
        self.file.sync_data()
    }

    fn sync_all(&self) -> Result<()> {
        (self.hook)(Call::Sync, &self.path)?;
        self.file.sync_all()
    }
}
