//! Recovery: from the files of `raft/` to the log they hold, or to the place where they are damaged.
//!
//! ```text
//!   segment 7          segment 8                              segment 9: none, so 8 is the last
//!   |h|b|b|b|old..|    |h|b|b|b|B|x..........|
//!             ^ "former ends here", in 8's header
//!                              ^ proven: the durable end in B's header
//!                                ^ rewritten and fdatasynced before anybody may rely on it
//!                                ^ k: the first that does not validate. A later header whose durable end is beyond k
//!                                  proves that k had been fdatasynced: damage. Otherwise k is a torn tail.
//! ```
//!
//! * A segment begins only when the one before is wholly fdatasynced: what does not validate before the end that the
//!   next header names is damage.
//! * Nothing that validates is dropped, and nothing is appended behind a torn tail: the next append begins a new
//!   segment.
//! * Only the sequences that reach the last one without a gap count. Older files are what a crash left of a trim; if
//!   they are not, the log does not reach back to where the state begins, which the engine checks and calls damage.

use super::batch::{Body, Header, Reading};
use super::scan::{At, Scan};
use super::segment::{self, Birth, Segment};
use super::terms::Terms;
use super::{HardState, Position};
use crate::error::{Error, Result};
use crate::storage::files::{File, Files, Open};
use std::path::{Path, PathBuf};

/// The log as its files say.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    pub(super) segments: Vec<Segment>,
    pub(super) terms: Terms,
    pub(super) hard_state: Option<HardState>,
}

/// What `raft/` holds.
pub(super) struct Listing {
    /// (sequence, path), ascending and without a gap.
    pub(super) segments: Vec<(u64, PathBuf)>,
    /// Segments that no longer count.
    pub(super) abandoned: Vec<PathBuf>,
    /// Files that wait for a name.
    pub(super) spares: Vec<PathBuf>,
}

impl Listing {
    /// Sorts the files of a directory.
    pub(super) fn read(files: &dyn Files, directory: &Path) -> Result<Listing> {
        let (mut segments, mut spares) = (Vec::new(), Vec::new());
        for path in files.list(directory)? {
            match segment::sequence_of(&path) {
                Some(sequence) => segments.push((sequence, path)),
                None if super::pool::is_spare(&path) => spares.push(path),
                None => {}
            }
        }
        segments.sort();
        if let Some(pair) = segments.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let [older, newer] = [&pair[0].1, &pair[1].1].map(|path| path.display());
            return Err(Error::damaged(format!("{older} and {newer} have the same sequence")));
        }
        let gap = segments.windows(2).rposition(|pair| pair[0].0 + 1 != pair[1].0);
        let abandoned = segments.drain(..gap.map_or(0, |at| at + 1)).map(|(_, path)| path).collect();
        Ok(Listing { segments, abandoned, spares })
    }
}

/// A segment file whose header batch is valid. The file is opened again to be read: thousands of small segments, left
/// by a process that died again and again, must not need thousands of handles.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) birth: Birth,
    pub(super) start: u64,
}

impl Opened {
    /// Reads and checks the header batch.
    pub(super) fn open(files: &dyn Files, sequence: u64, path: PathBuf) -> Result<Opened> {
        let file = files.open(&path, Open::Read)?;
        let length = file.len()?;
        let mut scan = Scan::new(&*file, length).with_chunk(super::batch::HEADER_BYTES);
        let (birth, start) = match scan.batch(0, segment::header_seed(sequence))? {
            At::Batch(header, body) => (Birth::decode(body), header.size()),
            At::Newer(version) => return Err(segment::newer(&path, version)),
            At::Torn | At::Nothing => (None, 0),
        };
        let named = |birth: &Birth| {
            birth.sequence == sequence && path.file_name().is_some_and(|name| *name == *birth.file_name())
        };
        match birth.filter(named) {
            Some(birth) => Ok(Opened { path, birth, start }),
            None => Err(segment::damaged(&path, 0, "the segment header does not validate")),
        }
    }
}

/// Reads the log. `listing.abandoned` gains the segments that no longer count.
pub(super) fn recover(files: &dyn Files, directory: &Path, listing: &mut Listing) -> Result<Log> {
    let opened = open_all(files, directory, listing)?;
    let mut log = Log::default();
    let mut proven = 0;
    for at in 0..opened.len() {
        let segment = &opened[at];
        proven = log.take(files, segment, opened.get(at + 1).map(|next| next.birth.former_end))?;
    }
    if let Some(last) = log.segments.last() {
        rewrite(&*files.open(&last.path, Open::Write)?, proven, last.end)?;
    }
    // A name seen after kill -9 may not be on the disk yet.
    files.sync_dir(directory)?;
    Ok(log)
}

/// Reads the log as [`recover`] does, and changes nothing: an error where it is damaged.
pub(super) fn check(files: &dyn Files, directory: &Path) -> Result<Log> {
    let opened = open_all(files, directory, &mut Listing::read(files, directory)?)?;
    let mut log = Log::default();
    for (at, segment) in opened.iter().enumerate() {
        log.read(files, segment, opened.get(at + 1).map(|next| next.birth.former_end))?;
    }
    Ok(log)
}

/// Opens the segments that count, oldest first. `listing.abandoned` gains the others.
fn open_all(files: &dyn Files, directory: &Path, listing: &mut Listing) -> Result<Vec<Opened>> {
    // From the newest back: what lies before a restart does not count and may be what a salvage left behind.
    let mut opened: Vec<Opened> = Vec::new();
    while let Some((sequence, path)) = listing.segments.pop() {
        if opened.last().is_some_and(|segment| segment.birth.restart) {
            listing.abandoned.push(path);
        } else {
            opened.push(Opened::open(files, sequence, path)?);
        }
    }
    opened.reverse();
    if opened.is_empty() {
        return Err(Error::damaged(format!("{} holds no log segment", directory.display())));
    }
    Ok(opened)
}

impl Log {
    /// Goes on in a new segment: entries above its `previous` no longer count.
    pub(super) fn begin(&mut self, segment: Segment, birth: &Birth) -> Result<()> {
        let previous = birth.previous;
        let known = self.terms.previous().index;
        if self.segments.is_empty() || birth.restart || previous.index < known {
            // Before what is kept of the former segments, and they are on their way out: none of their entries counts.
            self.terms = Terms::after(previous);
        } else if self.terms.term(previous.index) == Some(previous.term) {
            self.terms.truncate(previous.index);
        } else {
            return Err(segment.damaged(0, "it does not continue the segment before"));
        }
        for former in &mut self.segments {
            former.last = former.last.min(previous.index);
        }
        self.hard_state.clone_from(&birth.hard_state);
        self.segments.push(segment);
        Ok(())
    }

    /// Takes in the next segment, header and batches. `end` is where the one after it says that it ends.
    pub(super) fn take(&mut self, files: &dyn Files, opened: &Opened, end: Option<u64>) -> Result<u64> {
        let proven = self.read(files, opened, end)?;
        if let Some(segment) = self.segments.last() {
            pad(files, segment)?;
        }
        Ok(proven)
    }

    /// The same, and nothing is changed.
    pub(super) fn read(&mut self, files: &dyn Files, opened: &Opened, end: Option<u64>) -> Result<u64> {
        self.begin(Segment::new(opened.path.clone(), &opened.birth, opened.start), &opened.birth)?;
        self.replay(files, opened, end)
    }

    /// Reads the batches of the newest segment. `end` is where the next segment says that it ends. Returns the highest
    /// durable end found.
    fn replay(&mut self, files: &dyn Files, opened: &Opened, end: Option<u64>) -> Result<u64> {
        let file = files.open(&opened.path, Open::Read)?;
        let mut scan = Scan::new(&*file, file.len()?);
        let mut proven = opened.start;
        loop {
            let Some(segment) = self.segments.last() else { return Ok(proven) };
            let (offset, expected, seed) = (segment.end, segment.batches, segment.seed);
            if end == Some(offset) {
                return Ok(proven);
            }
            match scan.batch(offset, seed)? {
                At::Batch(header, body) if header.batch == expected => {
                    self.note(&header, body)?;
                    proven = proven.max(u64::from(header.durable_end).min(offset));
                }
                At::Newer(version) => return Err(segment::newer(&opened.path, version)),
                At::Batch(..) | At::Torn | At::Nothing => {
                    if end.is_some() {
                        let what = "a batch that had reached the disk does not validate, and a later segment exists";
                        return Err(segment::damaged(&opened.path, offset, what));
                    }
                    if let Some(proof) = scan.proof(offset, expected.saturating_sub(1), seed)? {
                        let what = format!("batch {expected} had reached the disk, as batch {} says", proof.batch);
                        return Err(segment::damaged(&opened.path, offset, &what));
                    }
                    return Ok(proven);
                }
            }
        }
    }

    /// Takes note of the next batch of the newest segment.
    fn note(&mut self, header: &Header, bytes: &[u8]) -> Result<()> {
        let Some(segment) = self.segments.last_mut() else {
            return Err(Error::internal("a batch was read without a segment"));
        };
        let malformed = || segment.damaged(segment.end, "a batch with a valid checksum makes no sense");
        let next = segment.last.next();
        let (hard_state, mut body) = Body::open(header, bytes).ok_or_else(malformed)?;
        if header.first != next || !body.by_ref().all(|record| self.terms.push(record.term)) || !body.is_complete() {
            return Err(malformed());
        }
        if hard_state.is_some() {
            self.hard_state = hard_state;
        }
        segment.extend(header, header.size());
        Ok(())
    }

    /// The position before the first entry.
    pub(super) fn previous(&self) -> Position {
        self.terms.previous()
    }

    /// The last position.
    pub(super) fn last(&self) -> Position {
        self.terms.last()
    }
}

/// Puts back the zeros behind a last batch where the file ends within them: what is read later reaches up to there.
fn pad(files: &dyn Files, segment: &Segment) -> Result<()> {
    if files.open(&segment.path, Open::Read)?.len()? >= segment.end {
        return Ok(());
    }
    files.open(&segment.path, Open::Write)?.set_len(segment.end)
}

/// Writes what validated after the proven end once more, and fdatasyncs it: the process before may have died of a
/// failed fsync, after which the page cache shows what the disk does not have.
fn rewrite(file: &dyn File, from: u64, to: u64) -> Result<()> {
    let mut buffer = vec![0; (to - from).min(super::batch::BODY_BYTES_TARGET as u64) as usize];
    let mut at = from;
    while at < to {
        let part = (to - at).min(buffer.len() as u64) as usize;
        file.read_at(&mut buffer[..part], at)?;
        file.write_at(&buffer[..part], at)?;
        at += part as u64;
    }
    file.sync_data()
}

/// Reads the entries of one segment from `offset` on, front to back.
pub(super) struct Entries<'a> {
    scan: Scan<'a>,
    segment: &'a Segment,
    offset: u64,
}

impl<'a> Entries<'a> {
    /// Stands before the batch that holds `from`.
    pub(super) fn new(file: &'a dyn File, segment: &'a Segment, from: super::LogIndex, chunk: usize) -> Entries<'a> {
        let offset = segment.offset_before(from);
        Entries { scan: Scan::new(file, segment.end).with_chunk(chunk), segment, offset }
    }

    /// The next batch that holds an entry at `from` or after it, checked; none at the end of the segment.
    pub(super) fn next_batch(&mut self, from: super::LogIndex) -> Result<Option<Body<'_>>> {
        while self.offset < self.segment.end {
            let at = self.offset;
            let lost = || self.segment.damaged(at, "a batch of the log does not validate");
            let Reading::Valid(header) = self.scan.header(at, self.segment.seed)? else { return Err(lost()) };
            self.offset += header.size();
            if header.next_index() <= from || header.entries == 0 {
                continue;
            }
            let At::Batch(header, body) = self.scan.batch(at, self.segment.seed)? else { return Err(lost()) };
            return match Body::open(&header, body) {
                Some((_, body)) => Ok(Some(body)),
                None => Err(self.segment.damaged(at, "a batch with a valid checksum makes no sense")),
            };
        }
        Ok(None)
    }
}
