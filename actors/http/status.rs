//! The JSON of `/status`: everything an operator may want to see, under names that stay.

use crate::actors::messages::{CeilingReport, LevelReport, StatusReport};
use crate::actors::published::role_name;
use chronos::raft::{Member, NodeId};
use serde_json::{Map, Value as Json, json};

/// The whole of it; the content hash is that of its index, and missing until there is a first one.
pub fn json_of(report: &StatusReport) -> Json {
    let actors = report
        .actors
        .iter()
        .map(|actor| json!({ "name": actor.name, "waiting": actor.waiting, "restarts": actor.restarts }))
        .collect::<Vec<Json>>();
    json!({
        "id": report.id,
        "address": report.address,
        "version": env!("CARGO_PKG_VERSION"),
        "started_ms": report.started_ms,
        "status": if report.health.degraded.is_some() { "degraded" } else { "ok" },
        "reason": report.health.degraded,
        "members": members(report),
        "raft": raft(report),
        "storage": storage(report),
        "limits": limits(&report.ceilings),
        "memory": report.memory.as_ref().map(|memory| json!({ "bytes": memory.bytes, "source": memory.source })),
        "content": report.content.map(|content| {
            json!({ "index": content.index.0, "hash": format!("{:032x}", content.hash) })
        }),
        "sync": {
            "last_sync_ms": report.sync.last_sync_ms, "last_applied": report.sync.last_applied,
            "pending": report.sync.pending, "last_error": report.sync.last_error,
            "oldest_ms": report.sync.oldest.as_millis() as u64, "errors": report.sync.errors,
            "dead_letters": report.sync.dead_letters,
        },
        "actors": actors,
    })
}

/// The group; how far the others are, only the leader knows.
fn members(report: &StatusReport) -> Vec<Json> {
    let raft = &report.raft.status;
    let member = |(id, member): (&NodeId, &Member)| {
        let is_self = id.0 == report.id;
        let peer = raft.peers.iter().find(|peer| peer.id == *id);
        // Of a group of one nobody but the node itself knows where it is.
        let address = if is_self || member.address.is_empty() { &report.address } else { &member.address };
        json!({
            "id": id.0,
            "voter": member.role.votes(),
            "member": member.role.name(),
            "address": address,
            "leads": raft.leader.as_ref() == Some(id),
            "role": is_self.then(|| report.raft.role_of(&report.id)),
            "applied": is_self.then_some(raft.applied.0),
            "matched": peer.map(|peer| peer.matched.0),
            "silent_ms": peer.map(|peer| peer.silent.as_millis() as u64),
            "disk_low": if is_self { Some(raft.is_disk_low) } else { peer.map(|peer| peer.is_disk_low) },
        })
    };
    raft.membership.members.iter().map(member).collect()
}

fn raft(report: &StatusReport) -> Json {
    let raft = &report.raft.status;
    let voters: Vec<&str> = raft.membership.voters().map(|voter| voter.0.as_str()).collect();
    json!({
        "role": role_name(raft.role), "term": raft.term.0, "committed": raft.committed.0, "applied": raft.applied.0,
        "first": raft.first.0, "last": raft.last.0, "proposals_bytes": raft.proposals_bytes, "voters": voters,
        "leader": raft.leader.as_ref().map(|leader| &leader.0), "serves": report.raft.serves,
        "witness": raft.is_witness, "held": raft.held.0, "log_full": raft.log_is_full,
    })
}

fn storage(report: &StatusReport) -> Json {
    let (storage, scrub) = (&report.storage, &report.scrub);
    let totals = &storage.totals;
    let level = |level: &LevelReport| json!({ "blocks": level.blocks, "rows": level.rows, "bytes": level.bytes });
    json!({
        "fsync": report.fsync,
        "size_bytes": storage.size_bytes,
        "disk_free_bytes": storage.disk_free_bytes,
        "disk_full": storage.disk_full,
        "memtables": {
            "count": storage.memtables, "bytes": storage.memtable_bytes, "kept_bytes": storage.memtable_kept_bytes,
        },
        "levels": report.levels.iter().map(level).collect::<Vec<Json>>(),
        "sealed": { "runs": storage.runs, "bytes": storage.sealed_bytes },
        "wal": {
            "birth": storage.log.birth, "bytes": storage.log.bytes, "segments": storage.log.segments,
            "spares": storage.log.spares, "recycled": totals.recycled, "entries": totals.entries,
            "fsyncs": totals.syncs.count,
        },
        "cache": { "bytes": storage.cache_bytes, "hits": totals.cache_hits, "misses": totals.cache_misses },
        "flushes": totals.flushes,
        "seals": totals.seals,
        "merges": totals.merges,
        "rows_expired": totals.rows_expired,
        "scrub": {
            "passes": scrub.passes, "running": scrub.running, "blocks": scrub.blocks, "bytes": scrub.bytes,
            "damaged": scrub.damaged,
        },
    })
}

/// By name: `max` in bytes, milliseconds or a count, `set` as the configuration writes it, `now` where something counts against it
/// and is measured; of the reserve of disk `free`, what there is.
fn limits(ceilings: &[CeilingReport]) -> Json {
    let named = ceilings.iter().map(|report| {
        let mut limit = json!({ "max": report.ceiling.number, "set": report.ceiling.text });
        if let Some(now) = report.now {
            limit["now"] = now.into();
        }
        if let Some(free) = report.free {
            limit["free"] = free.into();
        }
        (report.ceiling.name.clone(), limit)
    });
    Json::Object(named.collect::<Map<String, Json>>())
}
