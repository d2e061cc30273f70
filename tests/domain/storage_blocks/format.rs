//! The bytes of a block: read as the format's description says, and refused where they are anything else.

use super::*;

#[test]
fn arbitrary_sections_of_every_encoding_never_panic() {
    // One section, of each kind and encoding, over bytes that are mostly small numbers: lengths, counts, widths.
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(4000));
    let kinds = select(vec![0u8, 1, 2, 3, 4, 5, 16, 17, 18, 19, 20]);
    let byte = prop_oneof![0..12u8, any::<u8>()];
    let input = (kinds, 0..12u8, any::<bool>(), 1..3000u32, vec(byte, 0..80));
    runner
        .run(&input, |(kind, encoding, with_nulls, rows, body)| {
            let mut bytes = vec![b'C', b'H', b'B', b'K', 1, 0, 1, 0];
            bytes.extend_from_slice(&rows.to_le_bytes());
            bytes.extend_from_slice(&u32::from(kind == 20).to_le_bytes());
            bytes.extend_from_slice(&[0; 8]);
            bytes.extend_from_slice(&[1, 0, kind, encoding | u8::from(with_nulls) << 7]);
            bytes.extend_from_slice(&(32 + body.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&body);
            vouch(&mut bytes);
            let block = Block::open(bytes.into()).unwrap();
            let _ = block.check();
            let _ = block.column(ColumnId(1));
            let _ = (block.created_ms(), block.hlc(), block.origin(), block.modified(), block.tombstones());
            Ok(())
        })
        .unwrap();
}

/// A block of one INT column and its metadata, written by hand from the format's description.
fn written_by_hand(rows: u32, tombstones: u32, sections: &[(u16, u8, u8, &[u8])]) -> Vec<u8> {
    let mut bytes = b"CHBK\x01\x00".to_vec();
    bytes.extend_from_slice(&(sections.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&rows.to_le_bytes());
    bytes.extend_from_slice(&tombstones.to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    let mut end = 24 + 8 * sections.len() as u32;
    for (id, kind, encoding, body) in sections {
        end += body.len() as u32;
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&[*kind, *encoding]);
        bytes.extend_from_slice(&end.to_le_bytes());
    }
    for (.., body) in sections {
        bytes.extend_from_slice(body);
    }
    vouch(&mut bytes);
    bytes
}

fn int(value: i64) -> [u8; 8] {
    value.to_le_bytes()
}

#[test]
fn a_block_of_format_1_is_read_as_described() {
    const INT: u8 = 1;
    const TEXT: u8 = 3;
    const BOOL: u8 = 0;
    let constant = int(42);
    let packed = [&int(100)[..], &[4, 0x10, 0x32]].concat(); // 100 + 0, 1, 2, 3 in 4 bits each
    let delta = [&int(1000)[..], &int(10), &[0]].concat(); // a series: 1000, 1010, 1020, 1030
    let runs = [&[2, 2][..], &int(7), &int(-7), &[3], &int(1), &[2, 0b1000]].concat(); // 7 once, -7 three times
    let dictionary = [&[2, 2][..], &int(-1), &int(1), &[3], &int(0), &[1, 0b0110]].concat(); // codes 0, 1, 1, 0
    let scaled = [&int(5)[..], &int(1000), &[3], &int(0), &[2, 0b11_10_01_00]].concat(); // 5 + 1000 * (0, 1, 2, 3)
    let with_nulls = [&[0, 0b0101][..], &int(9), &int(8)].concat(); // NULL, 9, NULL, 8
    let texts = [&[3][..], &int(0), &[2, 0b01_00_10_01], b"aabc"].concat(); // lengths 1, 2, 0, 1
    let words = [&[2, 2, 1][..], &int(2), b"noyo", &[3], &int(0), &[1, 0b1010]].concat(); // no, yo, no, yo
    let lz4 = [&[1][..], &int(2), &[9, 0x80], b"aabbccdd"].concat(); // one token: 8 literals
    let marks = [1, 0, 1, 1, 2]; // runs: none false, one true, one false, two true
    let stamps = [&int(5 << 16)[..], &int(1 << 16), &[0]].concat();
    let sections: [(u16, u8, u8, &[u8]); 16] = [
        (1, INT, 1, &constant),
        (2, INT, 3, &packed),
        (3, INT, 4, &delta),
        (4, INT, 5, &runs),
        (5, INT, 6, &dictionary),
        (6, INT, 10, &scaled),
        (7, INT, 0x82, &with_nulls),
        (8, INT, 0, &[]),
        (9, TEXT, 2, &texts),
        (10, TEXT, 6, &words),
        (11, TEXT, 8, &lz4),
        (12, BOOL, 2, &[0, 0b1001]),
        (0, 16, 4, &stamps),
        (0, 18, 1, &constant),
        (0, 19, 1, &constant),
        (0, 20, 2, &marks),
    ];
    let block = Block::open(written_by_hand(4, 3, &sections).into()).unwrap();
    let values = |id| {
        let column = block.column(ColumnId(id)).unwrap().unwrap();
        (0..4).map(|row| column.value(row)).collect::<Vec<Value>>()
    };
    let ints = |values: [i64; 4]| values.map(Value::Int).to_vec();
    let text = |values: [&str; 4]| values.map(|value| Value::Text(value.into())).to_vec();
    assert!(matches!(&*block.column(ColumnId(1)).unwrap().unwrap(), Column::Constant { value: Value::Int(42), .. }));
    assert_eq!(values(2), ints([100, 101, 102, 103]));
    assert_eq!(values(3), ints([1000, 1010, 1020, 1030]));
    assert_eq!(values(4), ints([7, -7, -7, -7]));
    assert_eq!(values(5), ints([-1, 1, 1, -1]));
    assert_eq!(values(6), ints([5, 1005, 2005, 3005]));
    assert_eq!(values(7), [Value::Null, Value::Int(9), Value::Null, Value::Int(8)]);
    assert_eq!(values(8), vec![Value::Null; 4]);
    assert_eq!(values(9), text(["a", "ab", "", "c"]));
    assert_eq!(values(10), text(["no", "yo", "no", "yo"]));
    assert_eq!(values(11), text(["aa", "bb", "cc", "dd"]));
    assert_eq!(values(12), [true, false, false, true].map(Value::Bool));
    let metadata = block.metadata().unwrap();
    assert_eq!(metadata.hlc, [5 << 16, 6 << 16, 7 << 16, 8 << 16]);
    assert_eq!(metadata.created_ms, [5, 6, 7, 8]);
    assert_eq!((metadata.origin[3], metadata.modified[0]), (42, 42));
    assert_eq!(metadata.tombstone, [true, false, true, true]);
    block.check().unwrap();
}

#[test]
fn text_that_is_not_utf8_is_damage() {
    let metadata = int(0);
    let open = |encoding, body: &[u8]| {
        let sections: [(u16, u8, u8, &[u8]); 4] =
            [(1, 3, encoding, body), (0, 16, 1, &metadata), (0, 18, 1, &metadata), (0, 19, 1, &metadata)];
        let block = Block::open(written_by_hand(2, 0, &sections).into()).unwrap();
        block.column(ColumnId(1))
    };
    let cut_character = [&[1][..], &int(1), "é".as_bytes()].concat();
    for (encoding, body) in [(1, &[1, 0xFF][..]), (2, &cut_character), (2, &[1, 1, 0, 0, 0, 0, 0, 0, 0, b'a', 0x80])] {
        assert_eq!(open(encoding, body).unwrap_err().kind(), Kind::Damaged);
    }
}

#[test]
fn a_few_bytes_never_swell_without_limit() {
    // A megabyte, named 65,536 times: by a dictionary, and by a constant that nulls turn into a vector.
    let long = vec![b'x'; 1 << 20];
    let metadata = int(0);
    let named = [&[1, 2, 1][..], &int(1 << 20), &long, &[1], &int(0)].concat();
    let repeated = [&[1, 0xFF, 0xFF, 3, 1][..], &[0x80, 0x80, 0x40], &long].concat();
    for (encoding, body) in [(6, &named), (0x81, &repeated)] {
        let sections: [(u16, u8, u8, &[u8]); 4] =
            [(1, 4, encoding, body), (0, 16, 1, &metadata), (0, 18, 1, &metadata), (0, 19, 1, &metadata)];
        let block = Block::open(written_by_hand(65_536, 0, &sections).into()).unwrap();
        let refused = block.column(ColumnId(1)).map(drop).unwrap_err();
        assert!(refused.message().contains("more than a column may hold"));
    }
}
