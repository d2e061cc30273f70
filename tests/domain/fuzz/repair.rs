//! Makes lengths and checksums fit bytes that are otherwise wrong, so that fuzzing comes past them.
//!
//! Written from the drawings in the modules of the formats, not with their code: a format that drifts from its drawing
//! shows as inputs that are never accepted.

/// Bytes of a log batch before its body.
const BATCH_HEADER: usize = 40;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|number| u32::from_le_bytes(*number))
}

fn put_u32(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

/// Batches of a log segment, as far as they follow each other: body checksum, then header checksum.
pub fn segment(bytes: &mut [u8], sequence: u64, salt: u64) {
    let seed = |salt: u64| crc32c::crc32c_append(crc32c::crc32c(&sequence.to_le_bytes()), &salt.to_le_bytes());
    let mut at = 0;
    while at + BATCH_HEADER <= bytes.len() && bytes[at..at + 4] == *b"\xC7WAL" {
        let room = bytes.len() - at - BATCH_HEADER;
        let length = (u32_at(bytes, at + 12).unwrap_or(0) as usize).min(room);
        put_u32(bytes, at + 12, length as u32);
        let body = at + BATCH_HEADER;
        let body_crc = crc32c::crc32c(&bytes[body..body + length]);
        put_u32(bytes, at + 32, body_crc);
        // The first batch says the salt of the others, and has none itself.
        let crc = crc32c::crc32c_append(seed(if at == 0 { 0 } else { salt }), &bytes[at..at + 36]);
        put_u32(bytes, at + 36, crc);
        at += (BATCH_HEADER + length).next_multiple_of(8);
    }
}

/// A block: its length and its checksum.
pub fn block(bytes: &mut [u8]) {
    if bytes.len() < 24 {
        return;
    }
    put_u32(bytes, 16, bytes.len() as u32);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[..20]), &bytes[24..]);
    put_u32(bytes, 20, crc);
}

/// A frame that begins at `at` and ends before `end`, where there is one.
fn frame(bytes: &mut [u8], at: usize, end: usize) {
    let Some(room) = end.checked_sub(at + 16) else { return };
    let length = (u32_at(bytes, at + 8).unwrap_or(0) as usize).min(room);
    put_u32(bytes, at + 8, length as u32);
    let crc = crc32c::crc32c(&bytes[at..at + 12 + length]);
    put_u32(bytes, at + 12 + length, crc);
}

/// A sealed file: its blocks, the state record in its footer, the footer, and the trailer.
pub fn sealed(bytes: &mut [u8]) {
    let Some(trailer) = bytes.len().checked_sub(24) else { return };
    let offset = bytes[trailer..].first_chunk().map_or(0, |offset| u64::from_le_bytes(*offset));
    let Some(footer) =
        usize::try_from(offset).ok().filter(|offset| offset.checked_add(16).is_some_and(|end| end <= trailer))
    else {
        return;
    };
    let starts = |bytes: &[u8], magic: [u8; 4]| -> Vec<usize> {
        bytes.windows(4).enumerate().filter(|(_, window)| *window == magic).map(|(at, _)| at).collect()
    };
    // The first block says what blocks begin with; each ends where it says.
    if let Some(magic) = bytes.get(8..).and_then(|rest| rest.first_chunk::<4>()).copied() {
        for at in starts(&bytes[..footer], magic) {
            let length = u32_at(bytes, at + 16).unwrap_or(0) as usize;
            if at + length <= footer {
                block(&mut bytes[at..at + length]);
            }
        }
    }
    for at in starts(&bytes[footer..trailer], *b"CHST") {
        frame(bytes, footer + at, trailer - 4);
    }
    let whole = trailer - footer - 16;
    put_u32(bytes, footer + 8, whole as u32);
    frame(bytes, footer, trailer);
    put_u32(bytes, trailer + 8, (trailer - footer) as u32);
    let crc = crc32c::crc32c(&bytes[trailer..trailer + 12]);
    put_u32(bytes, trailer + 12, crc);
}
