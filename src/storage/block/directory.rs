//! Header and directory of a block: what is where, and whether it is whole.

use crate::error::{Error, Kind as ErrorKind, Result, SqlState};
use crate::sql::value::DataType;

/// Rows of a block at most. Levels write far smaller ones; a reader never allocates for more on a block's word.
pub const BLOCK_ROWS_MAX: usize = 65_536;

const MAGIC: [u8; 4] = *b"CHBK";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 24;
const ENTRY_BYTES: usize = 8;
const LENGTH_AT: usize = 16;
const CHECKSUM_AT: usize = 20;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A column of this type; the entry's id says which.
    Column(DataType),
    /// Stamps.
    Hlc,
    /// Times of insertion, where the stamps do not say them.
    Created,
    /// Origins.
    Origin,
    /// Modifying positions.
    Modified,
    /// Which rows are tombstones, where any is.
    Tombstone,
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Kind::Column(DataType::Bool) => 0,
            Kind::Column(DataType::Int) => 1,
            Kind::Column(DataType::Float) => 2,
            Kind::Column(DataType::Text) => 3,
            Kind::Column(DataType::Blob) => 4,
            Kind::Column(DataType::Timestamp) => 5,
            Kind::Hlc => 16,
            Kind::Created => 17,
            Kind::Origin => 18,
            Kind::Modified => 19,
            Kind::Tombstone => 20,
        }
    }

    fn of(number: u8) -> Option<Kind> {
        Some(match number {
            0 => Kind::Column(DataType::Bool),
            1 => Kind::Column(DataType::Int),
            2 => Kind::Column(DataType::Float),
            3 => Kind::Column(DataType::Text),
            4 => Kind::Column(DataType::Blob),
            5 => Kind::Column(DataType::Timestamp),
            16 => Kind::Hlc,
            17 => Kind::Created,
            18 => Kind::Origin,
            19 => Kind::Modified,
            20 => Kind::Tombstone,
            _ => return None,
        })
    }

    /// The type of a column; none for metadata.
    pub fn data_type(self) -> Option<DataType> {
        match self {
            Kind::Column(data_type) => Some(data_type),
            Kind::Hlc | Kind::Created | Kind::Origin | Kind::Modified | Kind::Tombstone => None,
        }
    }
}

/// The counts of a header. Entries are read from the bytes where they are needed: a block has few.
#[derive(Clone, Copy, Debug)]
pub struct Directory {
    /// Rows, tombstones included.
    pub rows: u32,
    /// Tombstones among them.
    pub tombstones: u32,
    sections: u16,
}

/// One section, still encoded.
#[derive(Clone, Copy, Debug)]
pub struct Section<'a> {
    /// The column, where it holds one.
    pub id: u16,
    /// What it holds.
    pub kind: Kind,
    /// How it is stored.
    pub encoding: u8,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl Directory {
    /// Checks all that can be checked without decoding a section.
    pub fn open(bytes: &[u8]) -> Result<Directory> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or_else(|| damaged("is shorter than its header"))?;
        if header[..4] != MAGIC {
            return Err(damaged("does not begin like one"));
        }
        if header[4] != VERSION {
            let message = format!("a block has format {}, and this program knows up to {VERSION}", header[4]);
            return Err(Error::new(ErrorKind::Damaged, SqlState::DATA_CORRUPTED, message));
        }
        let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        if number(LENGTH_AT) as usize != bytes.len() {
            return Err(damaged("has another length than it says"));
        }
        if number(CHECKSUM_AT) != checksum(bytes) {
            return Err(damaged("fails its checksum"));
        }
        let sections = u16::from_le_bytes([header[6], header[7]]);
        let directory = Directory { rows: number(8), tombstones: number(12), sections };
        if !(1..=BLOCK_ROWS_MAX as u32).contains(&directory.rows) || directory.tombstones > directory.rows {
            return Err(damaged("has an impossible number of rows"));
        }
        directory.check_entries(bytes)?;
        Ok(directory)
    }

    fn check_entries(&self, bytes: &[u8]) -> Result<()> {
        let mut reached = self.sections_at();
        for at in (HEADER_BYTES..self.sections_at()).step_by(ENTRY_BYTES) {
            let entry = bytes.get(at..at + ENTRY_BYTES).ok_or_else(|| damaged("is shorter than its directory"))?;
            let end = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]) as usize;
            if Kind::of(entry[2]).is_none() {
                return Err(damaged("has a section of an unknown kind"));
            }
            if end < reached || end > bytes.len() {
                return Err(damaged("has sections that overlap or run off its end"));
            }
            reached = end;
        }
        if reached == bytes.len() { Ok(()) } else { Err(damaged("has bytes that no section owns")) }
    }

    fn sections_at(self) -> usize {
        HEADER_BYTES + self.sections as usize * ENTRY_BYTES
    }

    /// The sections in stored order, of the bytes that were opened.
    pub fn sections(self, bytes: &[u8]) -> impl Iterator<Item = Section<'_>> {
        let (entries, _) = bytes[HEADER_BYTES..self.sections_at()].as_chunks::<ENTRY_BYTES>();
        let mut from = self.sections_at();
        entries.iter().map(move |entry| {
            let [id_low, id_high, kind, encoding, end @ ..] = *entry;
            let to = u32::from_le_bytes(end) as usize;
            let kind = Kind::of(kind).expect("`open` has checked every kind");
            let section =
                Section { id: u16::from_le_bytes([id_low, id_high]), kind, encoding, bytes: &bytes[from..to] };
            from = to;
            section
        })
    }

    /// The metadata section of this kind.
    pub fn find(self, bytes: &[u8], kind: Kind) -> Option<Section<'_>> {
        self.sections(bytes).find(|section| section.kind == kind)
    }
}

/// Writes a block section by section.
pub struct Writer {
    bytes: Vec<u8>,
    rows: u32,
    tombstones: u32,
    entries: Vec<[u8; ENTRY_BYTES]>,
}

impl Writer {
    /// A writer of at most `sections_max` sections. Room for as many entries is kept in front and closed at the end.
    pub fn new(rows: usize, tombstones: usize, sections_max: usize) -> Writer {
        Writer {
            // A row of a few numbers comes to about six bytes.
            bytes: Vec::with_capacity(rows * 8 + 256),
            rows: rows as u32,
            tombstones: tombstones as u32,
            entries: Vec::with_capacity(sections_max),
        }
    }

    /// Appends a section; `encode` writes its bytes and says how they are stored.
    pub fn section(&mut self, id: u16, kind: Kind, encode: impl FnOnce(&mut Vec<u8>) -> u8) {
        let encoding = encode(&mut self.bytes);
        let end =
            u32::try_from(self.bytes.len()).expect("a block stays below 4 GiB: its rows come from small commands");
        let [id_low, id_high] = id.to_le_bytes();
        let [a, b, c, d] = end.to_le_bytes();
        self.entries.push([id_low, id_high, kind.number(), encoding, a, b, c, d]);
    }

    /// The block.
    pub fn finish(mut self) -> Vec<u8> {
        let front = HEADER_BYTES + self.entries.len() * ENTRY_BYTES;
        let length = u32::try_from(front + self.bytes.len()).expect("a block stays below 4 GiB");
        let sections = u16::try_from(self.entries.len()).expect("a table has fewer columns than there are ids");
        let mut head = Vec::with_capacity(front);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&[VERSION, 0]);
        head.extend_from_slice(&sections.to_le_bytes());
        head.extend_from_slice(&self.rows.to_le_bytes());
        head.extend_from_slice(&self.tombstones.to_le_bytes());
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(&[0; 4]);
        for [id_low, id_high, kind, encoding, end @ ..] in self.entries {
            let end = u32::from_le_bytes(end) + front as u32;
            head.extend_from_slice(&[id_low, id_high, kind, encoding]);
            head.extend_from_slice(&end.to_le_bytes());
        }
        // Moved, not copied: a block of one row may have megabytes.
        self.bytes.reserve_exact(front);
        self.bytes.splice(0..0, head);
        let mut block = self.bytes;
        let checksum = checksum(&block);
        block[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        block
    }
}

/// Checksum over every byte but its own.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CHECKSUM_AT]), &bytes[HEADER_BYTES..])
}

fn damaged(why: &'static str) -> Error {
    Error::damaged(format!("a block {why}"))
}
