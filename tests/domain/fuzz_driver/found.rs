//! Inputs that fuzzing found: each failed once, and has a name since.

use crate::fuzz;
use chronos::hlc::Timestamp;
use chronos::ids::{ColumnId, LogIndex, Term};
use chronos::sql::value::DataType;
use chronos::storage::faults::Disk;
use chronos::storage::files::{Files, Open};
use chronos::storage::state::StateRecord;
use chronos::storage::wal::{Entry, Wal};
use std::path::Path;
use std::sync::Arc;

#[test]
fn a_log_cut_short_within_the_zeros_behind_its_last_batch_is_whole() {
    let disk = Disk::new();
    disk.create_dir(Path::new("/db")).unwrap();
    let directory = Path::new(fuzz::WAL_DIRECTORY);
    let open = || Wal::open(Arc::new(disk.clone()), directory, fuzz::WAL);
    let mut wal = Wal::create(Arc::new(disk.clone()), directory, fuzz::WAL).unwrap().wal;
    for index in 1..=8 {
        // Payloads of all lengths modulo eight: each has other zeros behind it.
        let payload = Arc::from(vec![7; index as usize]);
        let entry = Entry { index: LogIndex(index), term: Term(1), hlc: Timestamp(index), payload };
        wal.append(&[entry], None).unwrap();
        wal.sync().unwrap();
        let path = wal.segment_files().pop().unwrap().path;
        drop(wal);
        let file = disk.open(&path, Open::Write).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(&mut bytes, 0).unwrap();
        file.set_len(bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1).unwrap();
        wal = open().unwrap().wal;
        assert_eq!(wal.last().index, LogIndex(index));
        assert_eq!(wal.read(LogIndex(1), 1 << 20).unwrap().len() as u64, index);
    }
}

#[test]
fn no_short_way_takes_a_text_with_the_character_nul() {
    // The target itself says where the ways differ.
    for sql in ["INSERT INTO t VALUES (1, '\0', 1.5, TRUE, NULL, NULL)", "SELECT * FROM t WHERE id = 1 -- \0"] {
        assert!(!fuzz::sql_text(sql.as_bytes()), "{sql:?}");
    }
}

#[test]
fn a_state_record_whose_key_or_index_names_no_column_is_damage() {
    let mut catalog = crate::storage_ground::catalog(None);
    let whole = StateRecord { catalog: catalog.clone(), ..StateRecord::default() };
    assert_eq!(StateRecord::decode(&whole.encode(), "it").unwrap(), whole);
    let table = catalog.table("readings").unwrap().clone();
    let mut no_key = (*table).clone();
    no_key.primary_key.push(ColumnId(200));
    let mut no_index = (*table).clone();
    no_index.indexes[0].columns = vec![ColumnId(0x11)];
    for broken in [no_key, no_index] {
        catalog.put(broken);
        let record = StateRecord { catalog: catalog.clone(), ..StateRecord::default() };
        let error = StateRecord::decode(&record.encode(), "it").unwrap_err();
        assert_eq!(error.kind(), chronos::error::Kind::Damaged, "{error}");
    }
}

#[test]
fn a_sealed_file_whose_blocks_are_out_of_order_is_damage() {
    let whole = super::valid::sealed_file().swap_remove(0);
    assert!(fuzz::sealed_file(&whole));
    // The one row's key is the first and the last of its block; one bit more, and the first is above the last.
    let key = crate::storage_ground::row_key("a", 0);
    let footer = whole.windows(4).position(|window| window == b"CHFT").unwrap();
    let first = footer + whole[footer..].windows(key.len()).position(|window| *window == *key).unwrap();
    let mut bad = whole.clone();
    bad[first + key.len() - 1] ^= 1;
    assert!(!fuzz::sealed_file(&bad));
}

#[test]
fn a_key_of_every_type_survives_its_own_bytes() {
    for (at, data_type) in fuzz::TYPES.iter().enumerate() {
        let byte = at as u8;
        assert!(fuzz::key(&[1, byte, 0xFF]), "NULL of {data_type}");
        assert_eq!(fuzz::key(&[1, byte, 1, 2]), *data_type == DataType::Bool, "{data_type}");
    }
}
