//! A database directory as one file.
//!
//! ```text
//! CHRONSNP  version u32  id_len u16  id
//! { kind u8 = 1 dir | 2 file   path_len u16   path   [ file: { len u32 > 0  crc32c u32  bytes }*  len u32 = 0 ] }*
//! kind u8 = 0   files u64   bytes u64   crc32c u32 of all above
//! ```
//!
//! * Numbers are little-endian; paths are relative, with `/`, and stay below the directory.
//! * Each chunk has its own checksum, so damage is named by file; the last one proves that nothing is missing.
//! * A reader checks every length before it allocates.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};

const MAGIC: &[u8; 8] = b"CHRONSNP";

/// The format's version; an older program refuses a newer one by name.
const VERSION: u32 = 1;

/// Bytes of a chunk: what a reader holds at once.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Directories within each other. The database has three; more is not ours.
const DEPTH_MAX: usize = 16;

const END: u8 = 0;
const DIRECTORY: u8 = 1;
const FILE: u8 = 2;

/// What an archive holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The node's id.
    pub id: String,
    /// Files in it.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Passes bytes on and keeps the checksum of all of them.
struct Summed<T> {
    inner: T,
    crc: u32,
}

impl<W: Write> Summed<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.inner.write_all(bytes)
    }
}

impl<R: Read> Summed<R> {
    fn get<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner.read_exact(bytes).map_err(|error| {
            let short = error.kind() == io::ErrorKind::UnexpectedEof;
            if short { wrong("the file ends too early") } else { error }
        })?;
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        Ok(())
    }

    fn text(&mut self) -> io::Result<String> {
        let length = u16::from_le_bytes(self.get()?);
        let mut bytes = vec![0; usize::from(length)];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| wrong("a name is not text"))
    }
}

/// What of a database's directory is packed. CLUSTER comes last: without it the rest is no database.
pub const ENTRIES: [&str; 3] = ["raft", "state", "CLUSTER"];

/// Packs the named entries of `directory` and syncs the file.
pub fn pack(directory: &Path, id: &str, entries: &[&str], output: &Path) -> io::Result<Content> {
    let mut out = BufWriter::new(File::create(output)?);
    let content = pack_into(directory, id, entries, &mut out)?;
    out.get_ref().sync_all()?;
    Ok(content)
}

/// Packs the named entries of `directory` into whatever takes bytes.
pub fn pack_into<W: Write>(directory: &Path, id: &str, entries: &[&str], output: W) -> io::Result<Content> {
    let mut out = Summed { inner: output, crc: 0 };
    out.put(MAGIC)?;
    out.put(&VERSION.to_le_bytes())?;
    put_text(&mut out, id)?;
    let mut content = Content { id: id.to_owned(), ..Content::default() };
    for entry in entries {
        pack_entry(&mut out, &directory.join(entry), entry, 0, &mut content)?;
    }
    out.put(&[END])?;
    out.put(&content.files.to_le_bytes())?;
    out.put(&content.bytes.to_le_bytes())?;
    let crc = out.crc;
    out.put(&crc.to_le_bytes())?;
    out.inner.flush()?;
    Ok(content)
}

fn put_text<W: Write>(out: &mut Summed<W>, text: &str) -> io::Result<()> {
    let length = u16::try_from(text.len()).map_err(|_| wrong(format!("the name {text:?} is too long")))?;
    out.put(&length.to_le_bytes())?;
    out.put(text.as_bytes())
}

fn pack_entry<W: Write>(
    out: &mut Summed<W>,
    path: &Path,
    name: &str,
    depth: usize,
    content: &mut Content,
) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    if metadata.is_dir() {
        if depth >= DEPTH_MAX {
            return Err(wrong(format!("{} is too deep", path.display())));
        }
        out.put(&[DIRECTORY])?;
        put_text(out, name)?;
        let mut children = std::fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
        // The same database gives the same bytes.
        children.sort_by_key(std::fs::DirEntry::file_name);
        for child in children {
            let file_name = child.file_name();
            let file_name =
                file_name.to_str().ok_or_else(|| wrong(format!("{} is not text", child.path().display())))?;
            pack_entry(out, &child.path(), &format!("{name}/{file_name}"), depth + 1, content)?;
        }
        return Ok(());
    }
    if !metadata.is_file() {
        return Err(wrong(format!("{} is neither file nor directory", path.display())));
    }
    out.put(&[FILE])?;
    put_text(out, name)?;
    content.files += 1;
    let mut file = File::open(path)?;
    let mut chunk = vec![0; CHUNK_BYTES_MAX];
    loop {
        let length = file.read(&mut chunk)?;
        out.put(&(length as u32).to_le_bytes())?;
        if length == 0 {
            return Ok(());
        }
        out.put(&crc32c::crc32c(&chunk[..length]).to_le_bytes())?;
        out.put(&chunk[..length])?;
        content.bytes += length as u64;
    }
}

/// Reads an archive, checks it, and writes it below `directory` where one is given; everything written is synced.
pub fn unpack(input: &Path, directory: Option<&Path>) -> io::Result<Content> {
    let mut from = Summed { inner: BufReader::with_capacity(64 << 10, File::open(input)?), crc: 0 };
    if from.get::<8>()? != *MAGIC {
        return Err(wrong("this is not a snapshot of ChronosDB"));
    }
    let version = u32::from_le_bytes(from.get()?);
    if version != VERSION {
        return Err(wrong(format!("the snapshot has version {version}, this program reads {VERSION}")));
    }
    let mut content = Content { id: from.text()?, ..Content::default() };
    let mut made = Vec::new();
    loop {
        match from.get::<1>()? {
            [END] => break,
            [kind @ (DIRECTORY | FILE)] => {
                let name = from.text()?;
                let path = directory.map(|directory| safe(directory, &name)).transpose()?;
                if kind == FILE {
                    unpack_file(&mut from, &name, path.as_deref(), &mut content)?;
                } else if let Some(path) = path {
                    std::fs::create_dir(&path)?;
                    made.push(path);
                }
            }
            [kind] => return Err(wrong(format!("an entry of unknown kind {kind}"))),
        }
    }
    let (files, bytes) = (u64::from_le_bytes(from.get()?), u64::from_le_bytes(from.get()?));
    let crc = from.crc;
    if u32::from_le_bytes(from.get()?) != crc || (files, bytes) != (content.files, content.bytes) {
        return Err(wrong("the checksum of the whole does not fit"));
    }
    if from.inner.read(&mut [0])? != 0 {
        return Err(wrong("something follows the end"));
    }
    for path in made.iter().map(PathBuf::as_path).chain(directory) {
        File::open(path)?.sync_all()?;
    }
    Ok(content)
}

/// The path of an entry; one that would leave the directory is refused.
fn safe(directory: &Path, name: &str) -> io::Result<PathBuf> {
    let plain = |component: Component| matches!(component, Component::Normal(_));
    if name.is_empty() || !Path::new(name).components().all(plain) {
        return Err(wrong(format!("the name {name:?} is not allowed")));
    }
    Ok(directory.join(name))
}

fn unpack_file<R: Read>(
    from: &mut Summed<R>,
    name: &str,
    path: Option<&Path>,
    content: &mut Content,
) -> io::Result<()> {
    let mut file = path.map(|path| File::options().write(true).create_new(true).open(path)).transpose()?;
    content.files += 1;
    let mut chunk = Vec::new();
    loop {
        let length = u32::from_le_bytes(from.get()?) as usize;
        if length == 0 {
            break;
        }
        if length > CHUNK_BYTES_MAX {
            return Err(wrong(format!("{name}: a chunk of {length} bytes")));
        }
        let crc = u32::from_le_bytes(from.get()?);
        chunk.resize(length, 0);
        from.fill(&mut chunk)?;
        if crc32c::crc32c(&chunk) != crc {
            return Err(wrong(format!("{name}: damaged near byte {}", content.bytes)));
        }
        if let Some(file) = &mut file {
            file.write_all(&chunk)?;
        }
        content.bytes += length as u64;
    }
    file.map_or(Ok(()), |file| file.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(directory: &Path) -> PathBuf {
        let from = directory.join("from");
        std::fs::create_dir_all(from.join("state/deep")).expect("makes");
        std::fs::write(from.join("CLUSTER"), "who").expect("writes");
        std::fs::write(from.join("state/a"), vec![7; CHUNK_BYTES_MAX + 5]).expect("writes");
        std::fs::write(from.join("state/deep/empty"), "").expect("writes");
        let archive = directory.join("x.snap");
        let packed = pack(&from, "node1", &["state", "CLUSTER"], &archive).expect("packs");
        assert_eq!((packed.files, packed.bytes), (3, CHUNK_BYTES_MAX as u64 + 8));
        archive
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let archive = sample(directory.path());
        let to = directory.path().join("to");
        std::fs::create_dir(&to).expect("makes");
        let content = unpack(&archive, Some(&to)).expect("unpacks");
        assert_eq!(content.id, "node1");
        assert_eq!(std::fs::read(to.join("state/a")).expect("is there"), vec![7; CHUNK_BYTES_MAX + 5]);
        assert_eq!(std::fs::read(to.join("CLUSTER")).expect("is there"), b"who");
        assert!(to.join("state/deep/empty").exists());
        assert_eq!(unpack(&archive, None).expect("checks"), content);
    }

    #[test]
    fn any_flipped_bit_and_any_missing_byte_is_found() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let archive = sample(directory.path());
        let whole = std::fs::read(&archive).expect("reads");
        let broken = directory.path().join("broken");
        let places = (0..200).chain(whole.len() - 200..whole.len());
        for place in places {
            let mut bytes = whole.clone();
            bytes[place] ^= 4;
            std::fs::write(&broken, &bytes).expect("writes");
            assert!(unpack(&broken, None).is_err(), "a flip at {place} was not seen");
            std::fs::write(&broken, &whole[..place]).expect("writes");
            assert!(unpack(&broken, None).is_err(), "an end at {place} was not seen");
        }
    }

    #[test]
    fn a_name_cannot_leave_the_directory() {
        for name in ["", "..", "a/../../b", "/etc/passwd", "."] {
            assert!(safe(Path::new("d"), name).is_err(), "{name}");
        }
        assert!(safe(Path::new("d"), "state/a").is_ok());
    }
}
