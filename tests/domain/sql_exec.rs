//! Expressions and operators, against values that PostgreSQL gives, against naive implementations, and against SQLite.

#![expect(clippy::unwrap_used, reason = "a test of helpers that are not test functions themselves")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the cases that it is about")]

mod aggregates;
mod differential;
mod expressions;
mod laws;
mod scans;
mod sorting;
mod support;
mod views;
