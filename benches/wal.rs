//! The log against the disk below it: an append with its sync, and a bare fdatasync of as many bytes.
//!
//! The bare one overwrites a file that has been filled, which is the best that the disk can do; both are in one
//! directory, so on one file system. Where the system's temporary directory is memory, set TMPDIR.

use chronos::hlc::Timestamp;
use chronos::ids::{LogIndex, Term};
use chronos::storage::files::{Files, Open, SystemFiles};
use chronos::storage::wal::{Entry, Wal, WalOptions};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::sync::Arc;

const PAYLOAD_BYTES: usize = 100;

/// The bare file: as large as a segment, so that what it shows does not hang on its size.
const FILE_BYTES: usize = 16 << 20;

fn entries(after: u64, count: u64) -> Vec<Entry> {
    let payload: Arc<[u8]> = Arc::from([7; PAYLOAD_BYTES]);
    let entry = |index| Entry {
        index: LogIndex(index),
        term: Term(1),
        hlc: Timestamp(1_700_000_000_000 << 16 | index),
        payload: payload.clone(),
    };
    (after + 1..=after + count).map(entry).collect()
}

fn append_and_sync(c: &mut Criterion) {
    let mut group = c.benchmark_group("log");
    for count in [1, 64] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("append and sync {count}"), |bencher| {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let files = Arc::new(SystemFiles);
            let recovered = Wal::create(files, &directory.path().join("raft"), WalOptions::default());
            let mut wal = recovered.expect("a new log").wal;
            wal.pool().prepare_spare(&mut || Ok(())).expect("room on the disk");
            bencher.iter(|| {
                let batch = entries(wal.last().index.0, count);
                wal.append(&batch, None).and_then(|()| wal.sync()).expect("a healthy disk");
                if wal.pool().is_empty() {
                    // What has been written is not needed here: its segments serve again, as behind a seal.
                    wal.trim(wal.last().index).expect("a healthy disk");
                }
            });
        });
        group.bench_function(format!("bare write and fdatasync of the bytes of {count}"), |bencher| {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let path = directory.path().join("bare");
            let file = SystemFiles.open(&path, Open::Create).expect("a new file");
            file.write_at(&vec![0; FILE_BYTES], 0).and_then(|()| file.sync_all()).expect("room on the disk");
            let bytes = vec![7; 48 + (PAYLOAD_BYTES + 10) * count as usize];
            let mut at = 0;
            bencher.iter(|| {
                file.write_at(&bytes, at).and_then(|()| file.sync_data()).expect("a healthy disk");
                at = (at + bytes.len() as u64) % (FILE_BYTES - bytes.len()) as u64;
            });
        });
    }
    group.finish();
}

criterion_group!(benches, append_and_sync);
criterion_main!(benches);
