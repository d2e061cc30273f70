//! The built binary, from outside: real processes on free ports, and nothing but what they answer.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod auth;
mod certificates;
mod cli;
mod cli_hostile;
mod crash;
mod damaged_files;
mod doors;
mod ending;
mod flight;
mod grpc;
mod hostile;
mod http;
mod operations;
#[path = "../raft_cluster/patience.rs"]
mod patience;
mod process;
mod prompt;
#[path = "../domain/skipped.rs"]
mod skipped;
mod snapshot;
mod snapshots;
mod sqlite_twins;
mod tls;
