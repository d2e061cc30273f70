//! Where the rows come from: a file, which can be read again, or a stream (standard input, a pipe), which cannot.
//!
//! An import reads its rows twice, for their shape and for their content. Of a stream the beginning is kept: it gives
//! the shape, and goes in front of the rest when the content is read. So memory is bounded, and what is found in the
//! beginning is taken for the whole; rows that do not fit later are rejected one by one, as always.

use super::super::Stop;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a stream that are kept: some ten thousand rows.
const HEAD_BYTES_MAX: usize = 1 << 20;

/// What is read, and given to the thread that reads it.
type Reader = Box<dyn Read + Send>;

/// The rows' bytes.
pub enum Input {
    /// A file.
    File(PathBuf),
    /// Something that can be read once.
    Stream {
        /// What it is called in messages.
        name: String,
        /// How it begins.
        head: Arc<Vec<u8>>,
        /// What follows, until it is read; nothing does where the head is all.
        rest: Mutex<Option<Reader>>,
        /// True where the head is all.
        whole: bool,
    },
}

/// Bytes to read, from the beginning.
pub struct Bytes {
    /// They come from here.
    pub reader: Reader,
    /// How many, where that is known.
    pub size: Option<u64>,
    /// Where they break off, in the middle of a record perhaps, although more follow.
    pub breaks_off: Option<u64>,
}

impl Input {
    /// The input that the argument names; `-` is standard input. The beginning of a stream is read here.
    pub fn open(path: &Path) -> Result<Input, Stop> {
        if path == Path::new("-") {
            return Input::stream("standard input".to_owned(), Box::new(io::stdin()));
        }
        let failed = |error: io::Error| Stop::Usage(format!("cannot read {}: {error}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(Stop::Usage(format!("{} is a directory", path.display())));
        }
        if metadata.is_file() {
            Ok(Input::File(path.to_path_buf()))
        } else {
            Input::stream(path.display().to_string(), Box::new(file))
        }
    }

    fn stream(name: String, mut rest: Reader) -> Result<Input, Stop> {
        let mut head = Vec::new();
        let read = (&mut rest).take(HEAD_BYTES_MAX as u64).read_to_end(&mut head);
        read.map_err(|error| Stop::Usage(format!("cannot read {name}: {error}")))?;
        let whole = head.len() < HEAD_BYTES_MAX;
        Ok(Input::Stream { name, head: Arc::new(head), rest: Mutex::new(Some(rest)), whole })
    }

    /// What it is called in messages.
    pub fn name(&self) -> String {
        match self {
            Input::File(path) => path.display().to_string(),
            Input::Stream { name, .. } => name.clone(),
        }
    }

    /// Bytes to look at, as often as one likes: of a stream its beginning.
    pub fn bytes(&self) -> Result<Bytes, Stop> {
        match self {
            Input::File(path) => {
                let failed = |error: io::Error| Stop::Usage(format!("cannot read {}: {error}", path.display()));
                let file = File::open(path).map_err(failed)?;
                let size = file.metadata().map_err(failed)?.len();
                Ok(Bytes { reader: Box::new(file), size: Some(size), breaks_off: None })
            }
            Input::Stream { head, whole, .. } => {
                let length = head.len() as u64;
                let reader = Box::new(Cursor::new(Shared(head.clone())));
                Ok(Bytes { reader, size: whole.then_some(length), breaks_off: (!whole).then_some(length) })
            }
        }
    }

    /// All bytes. Of a stream that works once.
    pub fn all_bytes(&self) -> Result<Bytes, Stop> {
        match self {
            Input::Stream { name, head, rest, whole: false } => {
                // Nobody panics while holding this.
                let rest = rest.lock().unwrap_or_else(PoisonError::into_inner).take();
                let rest = rest.ok_or_else(|| Stop::Message(format!("{name} has been read already")))?;
                let reader = Box::new(Cursor::new(Shared(head.clone())).chain(rest));
                Ok(Bytes { reader, size: None, breaks_off: None })
            }
            Input::File(_) | Input::Stream { .. } => self.bytes(),
        }
    }
}

/// Bytes that several readers share.
struct Shared(Arc<Vec<u8>>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
