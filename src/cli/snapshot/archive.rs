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
//! * The checksums here say that a file is what was packed. Whether that was any good says [`check`]: each file is checked
//!   right before it is packed, while its pages are at hand, so a damaged database makes no snapshot that looks whole.
//! * What every start makes anew is not packed: the reserve for a full disk, and the hot store.

use chronos::storage::check;
use chronos::storage::files::{Files, SystemFiles};
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

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

/// Whether damage is looked for, or taken as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// The first damage is an error.
    Verified,
    /// Damaged bytes are bytes like others.
    Ignored,
}

impl Checksums {
    /// What the flag of the command line says.
    pub fn unless(ignored: bool) -> Checksums {
        if ignored { Checksums::Ignored } else { Checksums::Verified }
    }
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
const ENTRIES: [&str; 3] = ["raft", STATE, "CLUSTER"];

/// The entry in which there are files that no copy needs.
const STATE: &str = "state";

/// Packs a database's directory and syncs the file. Nobody may be writing to the directory.
pub fn pack(directory: &Path, id: &str, checksums: Checksums, output: &Path) -> io::Result<Content> {
    let mut out = BufWriter::new(File::create(output)?);
    let content = pack_into(directory, id, checksums, &mut out)?;
    out.get_ref().sync_all()?;
    Ok(content)
}

/// Packs a database's directory into whatever takes bytes. Damage is an error of kind `InvalidData`.
pub fn pack_into<W: Write>(directory: &Path, id: &str, checksums: Checksums, output: W) -> io::Result<Content> {
    if checksums == Checksums::Verified {
        check::log(&SystemFiles, &directory.join("raft")).map_err(damaged)?;
        check::current(&SystemFiles, &directory.join("state")).map_err(damaged)?;
    }
    pack_entries(directory, id, &ENTRIES, checksums, output)
}

/// An error of the library as one of a file.
fn damaged(error: chronos::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn pack_entries<W: Write>(
    directory: &Path,
    id: &str,
    entries: &[&str],
    checksums: Checksums,
    output: W,
) -> io::Result<Content> {
    let mut out = Summed { inner: output, crc: 0 };
    out.put(MAGIC)?;
    out.put(&VERSION.to_le_bytes())?;
    put_text(&mut out, id)?;
    let mut content = Content { id: id.to_owned(), ..Content::default() };
    for entry in entries {
        pack_entry(&mut out, &directory.join(entry), entry, checksums, &mut content)?;
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
    checksums: Checksums,
    content: &mut Content,
) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    if metadata.is_dir() {
        if name.matches('/').count() >= DEPTH_MAX {
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
            if name == STATE && check::is_made_anew(file_name) {
                continue;
            }
            pack_entry(out, &child.path(), &format!("{name}/{file_name}"), checksums, content)?;
        }
        return Ok(());
    }
    if !metadata.is_file() {
        return Err(wrong(format!("{} is neither file nor directory", path.display())));
    }
    if checksums == Checksums::Verified && path.extension().is_some_and(|ending| ending == "blk") {
        let files: Arc<dyn Files> = Arc::new(SystemFiles);
        check::sealed_file(&files, path).map_err(damaged)?;
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

/// Reads an archive, checks it, and writes it below `directory` where one is given; everything written is synced. Where
/// checksums are ignored, it must still be an archive to its end.
pub fn unpack(input: &Path, directory: Option<&Path>, checksums: Checksums) -> io::Result<Content> {
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
                    unpack_file(&mut from, &name, path.as_deref(), checksums, &mut content)?;
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
    let is_intact = u32::from_le_bytes(from.get()?) == crc || checksums == Checksums::Ignored;
    if !is_intact || (files, bytes) != (content.files, content.bytes) {
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
    checksums: Checksums,
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
        if crc32c::crc32c(&chunk) != crc && checksums == Checksums::Verified {
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
        std::fs::write(from.join("state/reserve"), vec![0; 4 << 20]).expect("writes");
        std::fs::create_dir(from.join("state/hot-000003")).expect("makes");
        std::fs::write(from.join("state/hot-000003/db"), "blocks").expect("writes");
        let file = File::create(&archive).expect("makes");
        let packed = pack_entries(&from, "node1", &["state", "CLUSTER"], Checksums::Verified, file).expect("packs");
        assert_eq!((packed.files, packed.bytes), (3, CHUNK_BYTES_MAX as u64 + 8));
        archive
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let archive = sample(directory.path());
        let to = directory.path().join("to");
        std::fs::create_dir(&to).expect("makes");
        let content = unpack(&archive, Some(&to), Checksums::Verified).expect("unpacks");
        assert_eq!(content.id, "node1");
        assert_eq!(std::fs::read(to.join("state/a")).expect("is there"), vec![7; CHUNK_BYTES_MAX + 5]);
        assert_eq!(std::fs::read(to.join("CLUSTER")).expect("is there"), b"who");
        assert!(to.join("state/deep/empty").exists());
        assert_eq!(unpack(&archive, None, Checksums::Verified).expect("checks"), content);
        assert!(!to.join("state/reserve").exists() && !to.join("state/hot-000003").exists(), "a start makes them");
    }

    #[test]
    fn damaged_bytes_are_taken_where_checksums_are_ignored_and_a_torn_archive_is_not() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let archive = sample(directory.path());
        let mut bytes = std::fs::read(&archive).expect("reads");
        let place = bytes.windows(16).position(|run| run == [7; 16]).expect("the content of a file") + 100;
        bytes[place] ^= 4;
        std::fs::write(&archive, &bytes).expect("writes");
        let to = directory.path().join("to");
        std::fs::create_dir(&to).expect("makes");
        assert!(unpack(&archive, None, Checksums::Verified).is_err());
        unpack(&archive, Some(&to), Checksums::Ignored).expect("unpacks");
        let mut taken = vec![7; CHUNK_BYTES_MAX + 5];
        taken[100] ^= 4;
        assert!(std::fs::read(to.join("state/a")).expect("is there") == taken, "as it is, damage and all");
        std::fs::write(&archive, &bytes[..bytes.len() - 40]).expect("writes");
        assert!(unpack(&archive, None, Checksums::Ignored).is_err());
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
            assert!(unpack(&broken, None, Checksums::Verified).is_err(), "a flip at {place} was not seen");
            std::fs::write(&broken, &whole[..place]).expect("writes");
            assert!(unpack(&broken, None, Checksums::Verified).is_err(), "an end at {place} was not seen");
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
