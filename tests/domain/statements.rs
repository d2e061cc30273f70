//! Statements from outside: what a program that embeds the database sees, on disks that are only in memory.
//!
//! Each fact is checked on the running database, and where it is about what is kept, after a clean restart and after an
//! abandoned one too.

mod batches;
mod definitions;
mod indexes;
mod requests;
mod staged;
mod support;
mod writes;
