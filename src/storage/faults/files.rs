//! The disk as the file trait shows it.

use super::image::{Inode, NameOperation, Write};
use super::{Admission, Disk, Operation, UNLIMITED_BYTES, acknowledge, full, interrupted, lock, not_found, parent};
use crate::error::{Error, Result};
use crate::storage::files::{File, Files, Lock, Open};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

impl Files for Disk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        let found = self.state().names.get(path);
        let inode = match (how, found) {
            (Open::Create, Some(_)) => {
                return Err(Error::io(format_args!("open {}", path.display()), &ErrorKind::AlreadyExists.into()));
            }
            (Open::Create, None) => {
                if !self.state().names.is_directory(parent(path)) {
                    return Err(not_found("open", path));
                }
                let admission = self.admit(Operation::Create, path)?;
                let inode = Arc::new(Mutex::new(Inode::default()));
                self.state().names.push(NameOperation::Link { to: path.to_path_buf(), inode: inode.clone() });
                acknowledge(admission, path)?;
                inode
            }
            (Open::Read | Open::Write, Some(inode)) => inode,
            (Open::Read | Open::Write, None) => return Err(not_found("open", path)),
        };
        Ok(Arc::new(DiskFile { disk: self.clone(), inode, path: path.to_path_buf(), writable: how != Open::Read }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let inode = self.state().names.get(from).ok_or_else(|| not_found("rename", from))?;
        self.change_names(from, NameOperation::Rename { from: from.to_path_buf(), to: to.to_path_buf(), inode })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        let inode = self.state().names.get(from).ok_or_else(|| not_found("link", from))?;
        if self.exists(to) {
            return Err(Error::io(format_args!("link {}", to.display()), &ErrorKind::AlreadyExists.into()));
        }
        self.change_names(to, NameOperation::Link { to: to.to_path_buf(), inode })
    }

    fn remove(&self, path: &Path) -> Result<()> {
        if self.state().names.get(path).is_none() {
            return Err(not_found("remove", path));
        }
        self.change_names(path, NameOperation::Remove { path: path.to_path_buf() })
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        if !self.state().names.is_directory(path) {
            return Err(not_found("remove", path));
        }
        // From the leaves up, one by one: a crash may leave any part.
        let (inside, directories) = self.state().names.below(path);
        for file in inside {
            self.remove(&file)?;
        }
        for directory in directories.into_iter().rev() {
            self.change_names(&directory, NameOperation::RemoveDirectory { path: directory.clone() })?;
        }
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        if self.state().names.get(path).is_some() {
            return Err(Error::io(
                format_args!("create directory {}", path.display()),
                &ErrorKind::AlreadyExists.into(),
            ));
        }
        let mut missing: Vec<PathBuf> = path.ancestors().map(Path::to_path_buf).collect();
        missing.retain(|path| !self.state().names.is_directory(path));
        for directory in missing.into_iter().rev() {
            self.change_names(&directory, NameOperation::MakeDirectory { path: directory.clone() })?;
        }
        Ok(())
    }

    fn list(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        Ok(self.state().names.list(directory))
    }

    fn exists(&self, path: &Path) -> bool {
        let state = self.state();
        state.names.get(path).is_some() || state.names.is_directory(path)
    }

    fn sync_dir(&self, directory: &Path) -> Result<()> {
        if !self.state().names.is_directory(directory) {
            return Err(not_found("sync directory", directory));
        }
        let admission = self.admit(Operation::SyncDir, directory)?;
        acknowledge(admission, directory)?;
        self.state().names.sync(directory);
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> Result<u64> {
        let state = self.state();
        Ok(state.capacity.map_or(UNLIMITED_BYTES, |capacity| capacity.saturating_sub(state.names.used_bytes())))
    }

    fn lock(&self, path: &Path) -> Result<Option<Box<dyn Lock>>> {
        if self.state().locked.iter().any(|locked| locked == path) {
            return Ok(None);
        }
        let how = if self.exists(path) { Open::Write } else { Open::Create };
        let file = self.open(path, how)?;
        self.state().locked.push(path.to_path_buf());
        Ok(Some(Box::new(DiskLock { disk: self.clone(), path: path.to_path_buf(), file })))
    }
}

struct DiskLock {
    disk: Disk,
    path: PathBuf,
    file: Arc<dyn File>,
}

impl Lock for DiskLock {
    fn describe(&self, text: &str) -> Result<()> {
        self.file.set_len(0)?;
        self.file.write_at(text.as_bytes(), 0)
    }
}

impl Drop for DiskLock {
    fn drop(&mut self) {
        self.disk.state().locked.retain(|path| *path != self.path);
    }
}

struct DiskFile {
    disk: Disk,
    inode: Arc<Mutex<Inode>>,
    path: PathBuf,
    writable: bool,
}

impl DiskFile {
    fn change(&self, operation: Operation, write: impl FnOnce(u64) -> Write) -> Result<()> {
        if !self.writable {
            return Err(Error::io(format_args!("write {}", self.path.display()), &ErrorKind::PermissionDenied.into()));
        }
        let admission = self.disk.admit(operation, &self.path)?;
        let mut state = self.disk.state();
        state.clock += 1;
        let write = write(state.clock);
        let grows = write.end().saturating_sub(lock(&self.inode).len());
        if grows > 0 && state.capacity.is_some_and(|capacity| state.names.used_bytes() + grows > capacity) {
            return Err(full(&self.path));
        }
        lock(&self.inode).push(write);
        drop(state);
        acknowledge(admission, &self.path)
    }

    fn sync(&self) -> Result<()> {
        match self.disk.admit(Operation::Sync, &self.path) {
            Ok(Admission::Admitted) => {
                lock(&self.inode).sync();
                Ok(())
            }
            Ok(Admission::Interrupted) => Err(interrupted(&self.path)),
            Err(error) => {
                // A power cut leaves what is pending to chance; a failed sync loses it.
                let state = self.disk.state();
                let cut = state.stop_at.is_some_and(|stop| state.operations > stop);
                drop(state);
                if !cut {
                    lock(&self.inode).lose();
                }
                Err(error)
            }
        }
    }
}

impl File for DiskFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        match lock(&self.inode).read(offset, buffer.len()) {
            Some(bytes) => {
                buffer.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::io(format_args!("read {}", self.path.display()), &ErrorKind::UnexpectedEof.into())),
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.change(Operation::Write, |clock| Write::bytes(clock, offset, bytes))
    }

    fn len(&self) -> Result<u64> {
        Ok(lock(&self.inode).len())
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        self.change(Operation::SetLen, |clock| Write::length(clock, bytes))
    }

    fn sync_data(&self) -> Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> Result<()> {
        self.sync()
    }
}
