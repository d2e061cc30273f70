//! Tests of the library alone: no daemon, no sockets, milliseconds each. One binary, since linking dominates.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test picks the case it is about")]

mod checks;
mod embedded;
mod engine_claim;
mod engine_failures;
mod engine_group;
mod engine_limits;
mod engine_rebuild;
mod engine_refusals;
mod engine_threads;
mod engine_unknown;
mod engine_witness;
mod flipped_bits;
mod fuzz;
mod fuzz_driver;
mod hot_store_lies;
mod point_queries;
mod postgres;
mod power_cut;
mod raft_rules;
mod rescue;
mod simulation;
mod skipped;
mod snapshots;
mod sql_exec;
mod sql_front;
mod sqlite_twins;
mod statements;
mod storage_blocks;
mod storage_damage;
mod storage_engines;
mod storage_ground;
mod storage_hot_files;
mod storage_levels;
mod storage_rules;
mod storage_views;
mod storage_wal;
mod tidy;
