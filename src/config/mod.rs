//! Settings: what can be set, where a value came from, and whether the whole makes sense.
//!
//! A setting may be given in four places, and the later wins:
//!
//! ```text
//! default  <  file (TOML)  <  environment (CHRONOS_*, RUST_LOG)  <  flag
//! ```
//!
//! This module reads none of them itself: file text, environment and flags are arguments, so that a test can be any
//! of them and the library stays without a world of its own.
//!
//! * Every value knows its [`Origin`]; `config show --origin` prints it, and errors name it with its line.
//! * An unknown key is an error wherever it stands; a silent typo is a setting that never took effect.
//! * All problems are reported together, not one a run.
//! * What this version cannot do yet is refused by name ([`Loaded::supported`]), never ignored.

mod ceilings;
mod cluster;
mod exposure;
mod load;
mod name;
mod quantity;
mod setting;
mod suggest;
mod text;
mod unit;

#[cfg(test)]
mod tests;

pub use ceilings::Ceiling;
pub use cluster::{Member, Role};
pub use load::{Flag, Loaded, Origin, Problem, Problems, SEED_VARIABLES, Sources, load};
pub use name::{Address, GroupName, NodeId, Secret};
pub use quantity::{Bytes, Span};
pub use setting::{
    Auth, Cluster, Config, Http, Known, Limits, Log, Node, Raft, SECTIONS, SETTINGS, Section, Storage, Sync, Tls, Ttl,
};
pub use suggest::{hint as did_you_mean, nearest};
pub use text::default_file;
pub use unit::{Raw, Setting};

/// The HTTP port is this far above the gRPC port.
pub const HTTP_PORT_OFFSET: u16 = 1000;

/// Heartbeats in an election timeout at least, so that losing two of them in a row elects nobody.
const HEARTBEATS_MIN: u32 = 5;

/// Segments that a witness's log may have at least: one is being written, one waits to be let go of, and between those two
/// there must be something.
const WITNESS_SEGMENTS_MIN: u64 = 4;

/// Share of the memory budget that queries get where `limits.query_memory_bytes` is unset, in percent.
const QUERY_MEMORY_PERCENT: u64 = 30;

/// What a request needs on its way beside the statement in it.
pub const ENVELOPE_BYTES_MAX: u64 = 64 << 10;

impl Config {
    /// Where HTTP listens: as set, else 1000 above gRPC; port 0 stays 0. None where no such port exists.
    pub fn http_address(&self) -> Option<Address> {
        if let Some(address) = &self.http.address {
            return Some(address.clone());
        }
        let port = match self.node.address.port {
            0 => 0,
            port => port.checked_add(HTTP_PORT_OFFSET)?,
        };
        Some(Address { host: self.node.address.host.clone(), port })
    }

    /// Memory that all queries share.
    pub fn query_memory(&self) -> Bytes {
        let share = Bytes(self.storage.memory_bytes_max.0 / 100 * QUERY_MEMORY_PERCENT);
        self.limits.query_memory_bytes.unwrap_or(share)
    }

    /// Memory that all requests and answers on their way share.
    pub fn in_flight(&self) -> Bytes {
        let both = self.limits.statement_bytes_max.0 + self.limits.response_bytes_max.0;
        self.limits.in_flight_bytes_max.unwrap_or(Bytes((both / 2 * 3).max(self.in_flight_min())))
    }

    /// One request and one answer, each of the largest size: with less, one of them could never pass.
    fn in_flight_min(&self) -> u64 {
        self.limits.statement_bytes_max.0 + self.limits.response_bytes_max.0 + ENVELOPE_BYTES_MAX
    }

    /// Free disk below which writes are refused.
    pub fn disk_reserve(&self) -> Bytes {
        self.storage.disk_reserve.unwrap_or(Bytes(self.storage.seal_wal_bytes.0.saturating_mul(2)))
    }

    /// What the settings allow and an operator should know.
    pub fn warnings(&self) -> Vec<String> {
        let mut lines = self.exposures();
        let least = self.storage.seal_wal_bytes.0.saturating_mul(2);
        if self.disk_reserve().0 < least {
            lines.push(format!(
                "storage.disk_reserve ({}) is less than twice storage.seal_wal_bytes ({}): a seal may find no room, and \
                 then what is deleted gives none back",
                self.disk_reserve(),
                self.storage.seal_wal_bytes
            ));
        }
        lines
    }

    /// What is wrong with the settings together, each being fine by itself.
    fn contradictions(&self) -> Vec<Contradiction> {
        let mut wrong = self.unfit_sizes();
        wrong.extend(self.unfit_times());
        wrong.extend(self.unfit_addresses());
        wrong.extend(self.unsafe_secrets());
        wrong
    }

    fn unfit_sizes(&self) -> Vec<Contradiction> {
        let mut wrong = Vec::new();
        if self.storage.segment_bytes > self.storage.seal_wal_bytes {
            wrong.push(Contradiction::of(
                &[("storage", "segment_bytes"), ("storage", "seal_wal_bytes")],
                format!(
                    "storage.segment_bytes ({}) is more than storage.seal_wal_bytes ({})",
                    self.storage.segment_bytes, self.storage.seal_wal_bytes
                ),
            ));
        }
        if self.raft.witness_log_bytes_max.0 < self.storage.segment_bytes.0.saturating_mul(WITNESS_SEGMENTS_MIN) {
            wrong.push(Contradiction::of(
                &[("raft", "witness_log_bytes_max"), ("storage", "segment_bytes")],
                format!(
                    "raft.witness_log_bytes_max ({}) is less than {WITNESS_SEGMENTS_MIN} times storage.segment_bytes \
                     ({}): the log is let go of a segment at a time",
                    self.raft.witness_log_bytes_max, self.storage.segment_bytes
                ),
            ));
        }
        if self.in_flight().0 < self.in_flight_min() {
            wrong.push(Contradiction::of(
                &[
                    ("limits", "in_flight_bytes_max"),
                    ("limits", "statement_bytes_max"),
                    ("limits", "response_bytes_max"),
                ],
                format!(
                    "limits.in_flight_bytes_max ({}) has no room for one request and one answer: it is at least \
                     limits.statement_bytes_max ({}) + limits.response_bytes_max ({}) + {}",
                    self.in_flight(),
                    self.limits.statement_bytes_max,
                    self.limits.response_bytes_max,
                    Bytes(ENVELOPE_BYTES_MAX)
                ),
            ));
        }
        wrong
    }

    fn unfit_times(&self) -> Vec<Contradiction> {
        let mut wrong = Vec::new();
        let (timeout, heartbeat) = (self.raft.election_timeout, self.raft.heartbeat);
        if heartbeat.0 * HEARTBEATS_MIN > timeout.0 {
            wrong.push(Contradiction::of(
                &[("raft", "heartbeat"), ("raft", "election_timeout")],
                format!(
                    "raft.heartbeat ({heartbeat}) is more than a fifth of raft.election_timeout ({timeout}): a few that \
                     are late would be taken for a leader that is gone"
                ),
            ));
        }
        if self.raft.clock_drift_max <= timeout {
            wrong.push(Contradiction::of(
                &[("raft", "clock_drift_max"), ("raft", "election_timeout")],
                format!(
                    "raft.clock_drift_max ({}) is not more than raft.election_timeout ({timeout}): an answer that is \
                     that late would be taken for a clock that is that wrong",
                    self.raft.clock_drift_max
                ),
            ));
        }
        wrong
    }

    fn unfit_addresses(&self) -> Vec<Contradiction> {
        const ADDRESS: &[(&str, &str)] = &[("node", "address"), MEMBERS];
        let mut wrong = Vec::new();
        let address = &self.node.address;
        if self.http_address().is_none() {
            wrong.push(Contradiction::of(
                ADDRESS,
                format!(
                    "node.address {address} leaves no room for the HTTP port {HTTP_PORT_OFFSET} above it: choose a lower \
                     port or set http.address"
                ),
            ));
        }
        if self.http.address.as_ref().is_some_and(|http| http == address && http.port != 0) {
            let message = format!("http.address and node.address are both {address}");
            wrong.push(Contradiction::of(&[("http", "address"), ("node", "address")], message));
        }
        if let Some(Err(error)) = self.node.advertise.clone().map(Address::reachable) {
            wrong.push(Contradiction::of(&[("node", "advertise")], format!("node.advertise: {error}")));
        }
        if self.has_peers() && self.node.advertise.is_none() && address.is_unspecified() {
            let message =
                format!("node.address {address} cannot be reached by peers under that name: set node.advertise");
            wrong.push(Contradiction::of(ADDRESS, message));
        }
        if self.has_peers() && self.node.advertise.is_none() && address.port == 0 {
            let message = format!("node.address {address} takes any free port, and peers must know it: choose one");
            wrong.push(Contradiction::of(ADDRESS, message));
        }
        wrong
    }
}

/// Where the members stand, which are no setting of their own.
const MEMBERS: (&str, &str) = ("cluster", "members");

/// Settings that do not go together.
struct Contradiction {
    /// Those it is about; the first that somebody has set is where to look.
    about: &'static [(&'static str, &'static str)],
    message: String,
}

impl Contradiction {
    fn of(about: &'static [(&'static str, &'static str)], message: String) -> Contradiction {
        Contradiction { about, message }
    }
}
