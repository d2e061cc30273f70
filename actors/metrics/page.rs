//! The page that `/metrics` shows: every family, its name and its words, in one place.

use crate::actors::figures::StorageStatus;
use crate::actors::janitor::compare::Comparison;
use crate::actors::messages::SyncReport;
use crate::actors::metrics::text::{Kind, Text};
use crate::actors::metrics::{Door, Metrics, Work};
use crate::actors::process::Usage;
use crate::actors::published::RaftReport;
use chronos::raft::Role;
use chronos::storage::engine::Distribution;
use chronos::storage::scrub::ScrubReport;
use std::time::Duration;

/// What is read at the moment of rendering.
pub struct Present<'a> {
    /// Where the consensus stands.
    pub raft: &'a RaftReport,
    /// How storage is.
    pub storage: &'a StorageStatus,
    /// How far the sync target is behind.
    pub sync: &'a SyncReport,
    /// What the scrub knows of the disk.
    pub scrub: &'a ScrubReport,
    /// What comparing copies has found.
    pub comparison: &'a Comparison,
    /// Each actor with what waits for it.
    pub depths: Vec<(&'static str, usize)>,
    /// Bytes that queries hold.
    pub query_bytes: usize,
    /// Bytes of requests and answers on their way.
    pub in_flight_bytes: usize,
    /// How far the stamps of writes are ahead of the wall clock: it was set back, or a writer's clock is fast.
    pub skew: Duration,
    /// What the process uses.
    pub usage: Usage,
}

/// The whole page.
pub fn render(metrics: &Metrics, present: &Present) -> String {
    let mut text = Text::default();
    statements(&mut text, metrics);
    raft(&mut text, metrics, present.raft, &present.storage.totals.appends);
    log(&mut text, present.storage);
    storage(&mut text, present);
    sync(&mut text, present);
    node(&mut text, metrics, present);
    text.finish()
}

fn statements(text: &mut Text, metrics: &Metrics) {
    let kinds = [("read", metrics.statements(Work::Read)), ("write", metrics.statements(Work::Write))];
    let answered = kinds.iter().map(|(kind, reading)| (*kind, reading.count));
    let name = "chronos_sql_requests_total";
    text.labelled(Kind::Counter, name, "Statements answered, by what they did", "kind", answered);
    let name = "chronos_sql_duration_seconds";
    text.histogram(name, "Time from a statement's arrival to its answer", "kind", &kinds);
    let help = "Statements that failed, by what the caller does next";
    text.labelled(Kind::Counter, "chronos_sql_errors_total", help, "kind", metrics.errors());
}

fn raft(text: &mut Text, metrics: &Metrics, report: &RaftReport, appends: &Distribution) {
    let status = &report.status;
    let role = match status.role {
        Role::Follower => 0,
        Role::Candidate => 1,
        Role::Leader => 2,
    };
    let gauge = Kind::Gauge;
    text.one(gauge, "chronos_raft_term", "Current Raft term", status.term.0);
    text.one(gauge, "chronos_raft_role", "Role: 0 follower, 1 candidate, 2 leader", role);
    let help = "Highest log index known to be committed";
    text.one(gauge, "chronos_raft_commit_index", help, status.committed.0);
    text.one(gauge, "chronos_raft_applied_index", "Highest log index in the state", status.applied.0);
    text.one(gauge, "chronos_raft_last_index", "Highest log index", status.last.0);
    let help = "Bytes proposed and not yet applied";
    text.one(gauge, "chronos_raft_proposals_pending_bytes", help, status.proposals_bytes);
    text.one(gauge, "chronos_raft_witness", "1 where this node is a witness: no rows", u8::from(status.is_witness));
    let help = "1 while a witness takes no entries, for its log has reached its limit";
    text.one(gauge, "chronos_raft_witness_log_full", help, u8::from(status.log_is_full));
    let help = "Highest log index that every member with rows is known to have";
    text.one(gauge, "chronos_raft_held_index", help, status.held.0);
    peers(text, report);
    let help = "Elections that this node stood in";
    text.one(Kind::Counter, "chronos_raft_elections_total", help, metrics.elections());
    let help = "Time from a proposal at the leader until it is committed";
    text.histogram("chronos_raft_commit_duration_seconds", help, "", &[("", metrics.commits().distribution())]);
    let help = "Time from an append's way to the log until it is durable here";
    text.histogram("chronos_raft_append_duration_seconds", help, "", &[("", appends.clone())]);
}

/// How far the others are, which only a leader knows. There are as many series as members.
fn peers(text: &mut Text, report: &RaftReport) {
    let status = &report.status;
    if status.peers.is_empty() {
        return;
    }
    let lag = status.peers.iter().map(|peer| (&*peer.id.0, status.last.0.saturating_sub(peer.matched.0)));
    let help = "Entries of the leader's log that a member is not known to have";
    text.labelled(Kind::Gauge, "chronos_raft_peer_lag_entries", help, "peer", lag);
    let silent = status.peers.iter().map(|peer| (&*peer.id.0, peer.silent.as_secs_f64()));
    let help = "Time since the leader has heard of a member";
    text.labelled(Kind::Gauge, "chronos_raft_peer_silent_seconds", help, "peer", silent);
    let low = status.peers.iter().map(|peer| (&*peer.id.0, u8::from(peer.is_disk_low)));
    let help = "1 while a member is short of disk, by its own last word";
    text.labelled(Kind::Gauge, "chronos_raft_peer_disk_low", help, "peer", low);
}

fn log(text: &mut Text, storage: &StorageStatus) {
    let totals = &storage.totals;
    let help = "Time of each fdatasync of the log";
    text.histogram("chronos_wal_fsync_duration_seconds", help, "", &[("", totals.syncs.clone())]);
    text.one(Kind::Counter, "chronos_wal_entries_total", "Entries made durable", totals.entries);
    text.one(Kind::Gauge, "chronos_wal_size_bytes", "Bytes of the log that count", storage.log.bytes);
    text.one(Kind::Gauge, "chronos_wal_segments", "Segments that hold the log", storage.log.segments);
    text.one(Kind::Gauge, "chronos_wal_spare_segments", "Spare segments that wait", storage.log.spares);
    let help = "Segments made of a spare instead of a new file";
    text.one(Kind::Counter, "chronos_wal_segments_recycled_total", help, totals.recycled);
}

fn storage(text: &mut Text, present: &Present) {
    let (storage, scrub) = (present.storage, present.scrub);
    let totals = &storage.totals;
    let (counter, gauge) = (Kind::Counter, Kind::Gauge);
    let help = "Time to apply what one view shows more than the one before";
    text.histogram("chronos_storage_apply_duration_seconds", help, "", &[("", totals.applies.clone())]);
    text.one(counter, "chronos_storage_commands_applied_total", "Commands applied", totals.applied);
    text.one(gauge, "chronos_storage_size_bytes", "Bytes of this node's directory on disk", storage.size_bytes);
    let help = "Bytes free on the file system of the data";
    text.one(gauge, "chronos_storage_disk_free_bytes", help, storage.disk_free_bytes);
    let help = "1 while writes are refused for want of space";
    text.one(gauge, "chronos_storage_disk_full", help, u8::from(storage.disk_full));
    text.one(gauge, "chronos_storage_memtable_bytes", "Bytes of rows in memory", storage.memtable_bytes);
    text.one(gauge, "chronos_storage_memtables", "Memtables, active and frozen", storage.memtables);
    text.one(gauge, "chronos_storage_sealed_runs", "Runs of sealed files", storage.runs);
    text.one(gauge, "chronos_storage_sealed_bytes", "Bytes of sealed files", storage.sealed_bytes);
    text.one(counter, "chronos_storage_flushes_total", "Memtables flushed into the hot store", totals.flushes);
    text.one(counter, "chronos_storage_flushed_bytes_total", "Bytes of blocks written by flushes", totals.flush_bytes);
    text.one(counter, "chronos_storage_seals_total", "Hot stores sealed into files", totals.seals);
    text.one(counter, "chronos_storage_sealed_bytes_total", "Bytes of files written by seals", totals.seal_bytes);
    text.one(counter, "chronos_storage_merges_total", "Steps in which sealed files were merged", totals.merges);
    text.one(counter, "chronos_storage_merged_bytes_total", "Bytes of files written by merges", totals.merge_bytes);
    let help = "Read views taken back because they kept too much from being freed";
    text.one(counter, "chronos_storage_views_revoked_total", help, totals.views_revoked);
    let help = "Disk calls that were slow enough to be warned about";
    text.one(counter, "chronos_storage_slow_disk_calls_total", help, totals.slow_disk_calls);
    text.one(gauge, "chronos_storage_cache_bytes", "Bytes in the block cache", storage.cache_bytes);
    text.one(counter, "chronos_storage_cache_hits_total", "Reads that the block cache answered", totals.cache_hits);
    let help = "Reads that the block cache did not answer";
    text.one(counter, "chronos_storage_cache_misses_total", help, totals.cache_misses);
    let help = "Bytes that running queries hold";
    text.one(gauge, "chronos_query_memory_bytes", help, present.query_bytes);
    let help = "Rows past their time-to-live whose space was given back";
    text.one(counter, "chronos_ttl_rows_expired_total", help, totals.rows_expired);
    text.one(counter, "chronos_scrub_passes_total", "Times that every block was read and verified", scrub.passes);
    text.one(counter, "chronos_scrub_read_bytes_total", "Bytes of blocks read to verify them", scrub.bytes);
    let help = "Damaged blocks that are known, at most 16";
    text.one(gauge, "chronos_scrub_damaged_blocks", help, scrub.damaged.len());
    let copies = present.comparison;
    let help = "Times that the copies of all members were compared";
    text.one(counter, "chronos_copies_compared_total", help, copies.completed);
    let help = "Times that copies were found to differ";
    text.one(counter, "chronos_copies_mismatches_total", help, copies.mismatches);
    let help = "Members whose copy is known to differ from this node's";
    text.one(gauge, "chronos_copies_differing", help, copies.differ.len());
}

fn sync(text: &mut Text, present: &Present) {
    let sync = present.sync;
    let gauge = Kind::Gauge;
    text.one(gauge, "chronos_sync_pending_operations", "Operations that wait for the sync target", sync.pending);
    let help = "Age of the oldest operation that waits for the sync target";
    text.one(gauge, "chronos_sync_pending_age_seconds", help, sync.oldest.as_secs_f64());
    text.one(Kind::Counter, "chronos_sync_errors_total", "Deliveries that failed", sync.errors);
    let help = "Operations that the sync target refuses for good";
    text.one(gauge, "chronos_sync_dead_letters", help, sync.dead_letters);
    let help = "How far the stamps of writes are ahead of the wall clock";
    text.one(gauge, "chronos_clock_skew_seconds", help, present.skew.as_secs_f64());
}

fn node(text: &mut Text, metrics: &Metrics, present: &Present) {
    let (counter, gauge) = (Kind::Counter, Kind::Gauge);
    let doors = [("grpc", metrics.door(Door::Grpc)), ("http", metrics.door(Door::Http))];
    let open = doors.map(|(name, door)| (name, door.open()));
    text.labelled(gauge, "chronos_connections", "Open connections", "door", open);
    let help = "Bytes of requests and answers on their way";
    text.one(gauge, "chronos_in_flight_bytes", help, present.in_flight_bytes);
    let help = "Connections refused because limits.connections were open";
    let refused = doors.map(|(name, door)| (name, door.refused()));
    text.labelled(counter, "chronos_connections_refused_total", help, "door", refused);
    let help = "Restarts of each actor after its own failure";
    text.labelled(counter, "chronos_actor_restarts_total", help, "actor", metrics.restarts());
    let help = "Requests waiting for or with an actor";
    text.labelled(gauge, "chronos_actor_mailbox_messages", help, "actor", present.depths.iter().copied());
    let version = [(env!("CARGO_PKG_VERSION"), 1)];
    text.labelled(gauge, "chronos_build_info", "Version of the program; always 1", "version", version);
    let usage = &present.usage;
    let help = "User and system time of the process";
    text.one(counter, "process_cpu_seconds_total", help, usage.cpu.as_secs_f64());
    text.one(gauge, "process_resident_memory_bytes", "Resident memory of the process", usage.resident_bytes);
    text.one(gauge, "process_open_fds", "Open file descriptors", usage.open_files);
    let help = "Start of the process since 1970";
    text.one(gauge, "process_start_time_seconds", help, metrics.started_ms() as f64 / 1e3);
}
