//! Statements from outside: what a program that embeds the database sees, on disks that are only in memory.
//!
//! Each fact is checked on the running database, and where it is about what is kept, after a clean restart and after an
//! abandoned one too.

mod backups;
mod batches;
mod counters;
mod definitions;
mod indexes;
mod large;
mod latches;
mod memory;
mod readers;
mod requests;
mod staged;
pub(crate) mod support;
mod wide_indexes;
mod writes;

pub(crate) use support::fresh;
