//! Pages of bytes that only grow: what a memtable keeps its rows in.
//!
//! A row of a memtable lives as long as the memtable. So rows are laid end to end in pages and named by a 32-bit
//! handle: no allocation, no header of the allocator and no free for each row, and the memory held is known exactly.
//!
//! ```text
//! handle = page (16 bits) | offset (16 bits)
//! ```
//!
//! * What was pushed never moves and never changes.
//! * A record lies within one page. One larger than `LARGE_BYTES` has a page of its own, so an ordinary page wastes
//!   less than that at its end.

/// A full page. Offsets have 16 bits, and freed pages are below the size from which glibc maps memory anew each time.
const PAGE_BYTES: usize = 1 << 16;

/// The first page: a node with many small memtables (tests, idle tables) should not pay for full ones.
const FIRST_PAGE_BYTES: usize = 1 << 12;

/// From here on a record has a page of its own.
const LARGE_BYTES: usize = PAGE_BYTES / 4;

/// Names a record of an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle(u32);

impl Handle {
    /// No record: page 65,535 is never used.
    pub(super) const NONE: Handle = Handle(u32::MAX);

    /// As stored in another record.
    pub(super) fn to_bytes(self) -> [u8; 4] {
        self.0.to_le_bytes()
    }

    /// As read from another record.
    pub(super) fn from_bytes(bytes: [u8; 4]) -> Handle {
        Handle(u32::from_le_bytes(bytes))
    }
}

/// The pages.
#[derive(Debug, Default)]
pub(super) struct Arena {
    pages: Vec<Vec<u8>>,
    /// The page that small records go to.
    current: usize,
    bytes: usize,
}

impl Arena {
    /// A page with room for `bytes_max` more bytes, and the handle of what is appended to it next.
    pub(super) fn room(&mut self, bytes_max: usize) -> (Handle, &mut Vec<u8>) {
        let page = match self.pages.get(self.current) {
            Some(page) if page.capacity() - page.len() >= bytes_max => self.current,
            Some(_) | None => self.grow(bytes_max),
        };
        let content = &mut self.pages[page];
        (Handle((page as u32) << 16 | content.len() as u32), content)
    }

    fn grow(&mut self, bytes_max: usize) -> usize {
        let page = self.pages.len();
        // An engine freezes its memtable at `super::BYTES_MAX`, far below 65,535 pages.
        assert!(page < usize::from(u16::MAX), "a memtable was written to beyond every limit");
        let small = bytes_max <= LARGE_BYTES;
        let bytes =
            if small { PAGE_BYTES.min(FIRST_PAGE_BYTES << (2 * page.min(2))).max(bytes_max) } else { bytes_max };
        self.pages.push(Vec::with_capacity(bytes));
        self.bytes += self.pages[page].capacity();
        if small {
            self.current = page;
        }
        page
    }

    /// The bytes from a record's first to the end of its page.
    pub(super) fn at(&self, handle: Handle) -> &[u8] {
        &self.pages[(handle.0 >> 16) as usize][(handle.0 & 0xFFFF) as usize..]
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.pages.capacity() * size_of::<Vec<u8>>()
    }
}
