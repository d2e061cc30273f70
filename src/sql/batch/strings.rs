//! Strings of a column: text and blobs, stored as one run of bytes with the places where it is cut.

/// Strings of one column, end to end: one allocation for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strings {
    /// `offsets[i]..offsets[i + 1]` is string `i`; one more entry than strings.
    offsets: Vec<u32>,
    bytes: Vec<u8>,
}

impl Default for Strings {
    fn default() -> Strings {
        Strings { offsets: vec![0], bytes: Vec::new() }
    }
}

impl Strings {
    /// How many strings.
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// None yet, with room for so many of so many bytes together.
    pub fn with_capacity(strings: usize, bytes: usize) -> Strings {
        let mut offsets = Vec::with_capacity(strings + 1);
        offsets.push(0);
        Strings { offsets, bytes: Vec::with_capacity(bytes) }
    }

    /// Strings that lie end to end in `bytes`, cut at `offsets`; none where the offsets do not begin at 0, go back, or
    /// do not end where the bytes end.
    pub fn from_parts(offsets: Vec<u32>, bytes: Vec<u8>) -> Option<Strings> {
        let whole = offsets.first() == Some(&0) && offsets.last().is_some_and(|&end| end as usize == bytes.len());
        (whole && offsets.is_sorted()).then_some(Strings { offsets, bytes })
    }

    /// Where each string begins, and at last where the last one ends.
    pub fn offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// All strings, end to end.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of all strings together.
    pub fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// String `i`.
    pub fn get(&self, i: usize) -> &[u8] {
        &self.bytes[self.offsets[i] as usize..self.offsets[i + 1] as usize]
    }

    /// Adds one string. A column stays below 4 GiB: statements and blocks are bounded far below that.
    pub fn push(&mut self, string: &[u8]) {
        self.push_with(|bytes| bytes.extend_from_slice(string));
    }

    /// Adds a string that is appended in place.
    pub fn push_with(&mut self, append: impl FnOnce(&mut Vec<u8>)) {
        append(&mut self.bytes);
        self.offsets.push(u32::try_from(self.bytes.len()).expect("a column's strings stay below 4 GiB"));
    }

    /// Takes back all strings but the first `len`.
    pub fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        self.bytes.truncate(self.offsets.last().map_or(0, |&end| end as usize));
    }

    /// All strings in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|i| self.get(i))
    }
}

impl<'a> FromIterator<&'a [u8]> for Strings {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(strings: I) -> Strings {
        let mut all = Strings::default();
        strings.into_iter().for_each(|string| all.push(string));
        all
    }
}
