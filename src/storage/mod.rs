//! Storage: one log, memtables, column blocks: hot ones in files that sled names, sealed ones in files of their own.
//!
//! ```text
//! command ─> log (wal): one fdatasync a batch ─> acknowledged
//!               │ committed, in order
//!               v
//!           memtables ──flush──> hot store ──seal──> sealed runs ──merge──> fewer, larger ones
//!           newest level           blocks being        immutable               oldest level
//!                                  rewritten
//!           a read view = (version, levels): nothing waits for a reader
//! ```
//!
//! Why not one entry of an ordered store for each row? Because the ceiling of such a store is per key, not per byte:
//! sled takes 77,500 one-row entries a second, and 3,010,000 rows a second as blocks of 256 (2 cores, 48-byte rows).
//! And because sensor rows compress ten to one as columns, which also lets an aggregate read only the columns it names.
//!
//! Nor are blocks values of sled: measured, it writes 4.4 to 8.3 bytes to the device for each byte of a block, and keeps
//! 2 to 7 times the live bytes on disk; plain files cost 1.0 to 1.1 of one and one to two of the other. So the blocks
//! that are still being rewritten lie in files of the hot directory, and sled holds what pays there: the chain of
//! manifest deltas and the root with the state record, switched by one small batch a flush.
//!
//! Durability does not rest on either: sled's `flush` is no barrier against a power cut, and hot files are not fsynced.
//! The log reaches back to the hot store's birth, and after a power cut the hot directory is thrown away and rebuilt;
//! after the death of the process alone it is used as it is.
//!
//! # Invariants
//!
//! * Durable means: in the log, fdatasynced. Everything below the memtables can be rebuilt from sealed files and log.
//! * A newer level shadows older ones by key, with a whole row or a tombstone; no level refers to a block of another.
//! * Blocks and levels never change. Replacing one is an edit of the list of levels; old ones go with their last view.
//! * Whatever decides the outcome of a command is in the log or in replicated state, never in what merging removed.
//! * All files but sled's go through [`files`], so tests tear, drop, reorder and fail every operation.
//!
//! # Where to read on
//!
//! [`wal`] the log and its recovery; [`memtable`], [`levels`], [`view`], [`scan`] what a read does; [`block`] and
//! [`mod@column`] how rows are encoded; [`hot`], [`flush`], [`sealed`], [`seal`], [`merge`], [`current`] how levels come and
//! go; [`lease`] how long a view may keep them; [`snapshot`] how they reach a member that lacks them; [`watch`] that the disk
//! answers, [`scrub`] that it kept what it was given, [`comparison`] that copies are alike; [`check`] and [`rescue`] what a copy
//! is worth, and what is left of a damaged table; [`engine`] the three threads that do it all; [`directory`] what a database
//! directory is.

pub mod block;
pub mod block_store;
pub mod cache;
pub mod check;
pub mod codec;
pub mod column;
pub mod comparison;
pub mod content_hash;
pub mod current;
pub mod directory;
pub mod draft;
pub mod engine;
pub mod entry;
pub mod faults;
pub mod files;
pub mod filter;
pub mod flush;
pub mod frame;
pub mod hot;
pub mod judge;
pub mod keys;
pub mod lease;
pub mod level;
pub mod levels;
pub mod memory;
pub mod memtable;
pub mod merge;
pub mod rescue;
pub mod rows;
pub mod scan;
pub mod scrub;
pub mod seal;
pub mod sealed;
pub mod sled;
pub mod snapshot;
pub mod state;
pub mod stream;
pub mod view;
pub mod wal;
pub mod watch;
pub mod weave;
