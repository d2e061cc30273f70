//! Exactly once: outcomes remembered under the names that clients gave their requests (thesis 6.3).
//!
//! Outcomes are rows of a system keyspace, so they are flushed, sealed, hashed and shipped like any. Eviction goes by
//! the stamps in them, in a command, so replicas forget alike.
//!
//! * A session keeps its last 64 outcomes; an older request is refused, never executed again.
//! * One that asks for nothing for 90 days is forgotten with its name. A request under that name then begins a new session,
//!   whatever its number: nothing is left that could tell it from one, and sessions need not begin with a certain number.
//! * A bare request id carries its creation time (`UUIDv7`); one older than the window is refused, never executed. Its
//!   outcome is kept until then and no longer: by the time in the id, so a client's clock cannot outlive its outcome.
//! * There is a ceiling of sessions, counted in replicated state: above it new ones are refused, since to forget one that
//!   is in use would be to execute its next repetition.
//! * Bare ids are swept by the ones that come after them. There is a ceiling of them too: above it the oldest are
//!   forgotten early, and from then on ids as old as those are refused, never executed.
//! * What is kept of an outcome is bounded: an error's text is cut.

use super::command::{Request, RequestId};
use super::staged::Staged;
use super::write::Writer;
use crate::error::{Kind, SqlState, cut};
use crate::hlc::Timestamp;
use crate::ids::{ColumnId, KeyspaceId};
use crate::sql::catalog::{Layout, SESSIONS};
use crate::sql::value::{DataType, Value};
use crate::storage::codec;
use crate::storage::keys::{self, Key, KeyRange};
use crate::storage::rows::Stamp;
use crate::storage::view::{ScanRequest, Scanner, View};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Outcomes kept for a session: as many requests as a client may have in flight.
const OUTCOMES_MAX: usize = 64;

/// How long a bare request id is remembered, and how old one may be, in ms of HLC. No setting: applying a command asks it,
/// and replicas that were configured differently would execute a repetition on one and refuse it on the other.
pub const DEDUPE_WINDOW_MS: u64 = 10 * 60 * 1000;

/// Sessions at most: with outcomes that fill their 64 places about 200 MB. Above it new ones are refused.
pub const SESSIONS_MAX: u64 = 100_000;

/// Bare request ids at most: 1,600 a second through all of the window, some 80 MB. Above it the window gets shorter.
pub const REQUESTS_MAX: u64 = 1_000_000;

/// Bytes of an error's text that are kept with an outcome: the text says what to do in its first sentence.
const ERROR_BYTES_MAX: usize = 512;

/// The counters among those of the machine: sessions, bare ids, and the creation time (ms) up to which bare ids were
/// forgotten early.
pub(super) const SESSIONS_COUNTER: &str = "sessions";
pub(super) const REQUESTS_COUNTER: &str = "requests";
pub(super) const REQUESTS_FLOOR: &str = "requests_floor_ms";

/// How the counters stand before a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counted {
    pub sessions: u64,
    pub requests: u64,
    pub floor_ms: u64,
}

/// What a command does to the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub sessions_begun: u64,
    pub sessions_ended: u64,
    pub requests_begun: u64,
    pub requests_ended: u64,
    /// Bare ids created up to here (ms) are forgotten.
    pub floor_ms: u64,
}

/// Statements of a batch whose counts are kept with its outcome: 1 KiB.
const COUNTS_MAX: usize = 128;

/// One bare request in so many forgets those that are too old, chosen by its id: a sweep reads over tombstones, which
/// should not be every request's cost.
const SWEEP_EVERY: u128 = 128;

/// Bytes of a session's name.
const CLIENT_BYTES_MAX: usize = 64;

/// Requests forgotten by one command, which keeps its work bounded.
const EVICT_MAX: usize = 4096;

/// What a client was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Answered {
    sequence: u64,
    fingerprint: u64,
    affected: u64,
    /// Of the last outcome alone: rows that each statement of a batch affected.
    counts: Vec<u64>,
    /// SQLSTATE and message, where it failed.
    error: Option<(String, String)>,
}

/// The row of one session or bare request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    last: Timestamp,
    outcomes: VecDeque<Answered>,
}

/// What was answered to a request that was executed before.
#[derive(Debug)]
pub struct Recalled {
    /// Rows affected, or the error.
    pub affected: Result<u64>,
    /// Rows that each statement of a batch affected, where that is still known.
    pub counts: Vec<u64>,
}

/// Looks a request up before it is evaluated, so that one that was executed is answered and not judged by what it has
/// done itself; none where nothing is known. An error refuses it for good.
pub fn recall(request: &Request, view: &View, instant: Timestamp) -> Result<Option<Recalled>> {
    look_up(request, view, instant)
}

/// Refuses a session that would be one too many, and a bare id whose outcome may have been forgotten. Asked where
/// nothing is known of the request.
pub(super) fn admit(request: &Request, view: &View, counted: Counted) -> Result<()> {
    match &request.id {
        RequestId::Session { .. } => {
            if counted.sessions >= SESSIONS_MAX && read(view, &key_of(&request.id))?.is_none() {
                let message = format!("there are {SESSIONS_MAX} sessions already: go on with one of them");
                return Err(Error::invalid(SqlState::LIMIT_EXCEEDED, message));
            }
        }
        RequestId::Bare(uuid) => {
            if created_ms(*uuid) <= counted.floor_ms {
                let message = format!(
                    "the request id is older than the {REQUESTS_MAX} that are remembered: its outcome may no longer be \
                     known, it was not executed"
                );
                return Err(Error::invalid(SqlState::REQUEST_ID_FORGOTTEN, message));
            }
        }
    }
    Ok(())
}

/// When a `UUIDv7` was made.
fn created_ms(uuid: u128) -> u64 {
    (uuid >> 80) as u64
}

/// What is known of a request; an error refuses it for good.
pub(super) fn look_up(request: &Request, view: &View, now: Timestamp) -> Result<Option<Recalled>> {
    let sequence = match &request.id {
        RequestId::Session { client, sequence } => {
            if client.is_empty() || client.len() > CLIENT_BYTES_MAX {
                let message = format!("a client id has 1 to {CLIENT_BYTES_MAX} bytes, got {}", client.len());
                return Err(Error::invalid(SqlState::INVALID_PARAMETER, message));
            }
            *sequence
        }
        RequestId::Bare(uuid) => {
            let (created_ms, now_ms) = (created_ms(*uuid), now.wall().0);
            if now_ms.saturating_sub(created_ms) >= DEDUPE_WINDOW_MS {
                let message =
                    "the request id is older than 10 minutes: its outcome is no longer known, it was not executed";
                return Err(Error::invalid(SqlState::REQUEST_ID_EXPIRED, message));
            }
            // Outcomes are kept until their ids are too old, so an id from far ahead would be kept for as long.
            if created_ms.saturating_sub(now_ms) > DEDUPE_WINDOW_MS {
                let message = "the request id was made more than 10 minutes in the future: check the client's clock";
                return Err(Error::invalid(SqlState::REQUEST_ID_EXPIRED, message));
            }
            0
        }
    };
    let Some(record) = read(view, &key_of(&request.id))? else { return Ok(None) };
    if let Some(answered) = record.outcomes.iter().find(|answered| answered.sequence == sequence) {
        if answered.fingerprint != request.fingerprint {
            let message = "the request id was used for another statement or batch: give a new request a new id";
            return Err(Error::invalid(SqlState::INVALID_PARAMETER, message));
        }
        let affected = match &answered.error {
            Some((code, message)) => Err(Error::invalid(SqlState::parse(code), message.clone())),
            None => Ok(answered.affected),
        };
        return Ok(Some(Recalled { affected, counts: answered.counts.clone() }));
    }
    match record.outcomes.front() {
        Some(oldest) if record.outcomes.len() >= OUTCOMES_MAX && sequence < oldest.sequence => {
            let message =
                format!("request {sequence} is older than the {OUTCOMES_MAX} outcomes kept: it was not executed");
            Err(Error::invalid(SqlState::INVALID_PARAMETER, message))
        }
        Some(_) | None => Ok(None),
    }
}

/// Stages the outcome of a request. A conflict is no outcome: the leader evaluates again under the same name.
pub(super) fn remember(
    request: &Request,
    outcome: &Result<u64>,
    view: &View,
    writer: Writer,
    counted: Counted,
    staged: &mut Staged,
) -> Result<Change> {
    if outcome.as_ref().is_err_and(|error| error.kind() == Kind::Conflict) {
        return Ok(Change::default());
    }
    let key = key_of(&request.id);
    let known = read(view, &key)?;
    let mut change = Change::default();
    let begun = u64::from(known.is_none());
    let mut record = known.unwrap_or_default();
    let sequence = match &request.id {
        RequestId::Session { sequence, .. } => {
            change.sessions_begun = begun;
            *sequence
        }
        RequestId::Bare(uuid) => {
            change.requests_begun = begun;
            if counted.requests >= REQUESTS_MAX {
                (change.requests_ended, change.floor_ms) = sweep(u64::MAX, view, writer, staged)?;
            } else if uuid % SWEEP_EVERY == 0 {
                change.requests_ended = sweep(oldest_kept(writer), view, writer, staged)?.0;
            }
            0
        }
    };
    record.last = writer.hlc;
    record.outcomes.iter_mut().for_each(|answered| answered.counts.clear());
    record.outcomes.push_back(Answered {
        sequence,
        fingerprint: request.fingerprint,
        affected: *outcome.as_ref().unwrap_or(&0),
        counts: if request.counts.len() <= COUNTS_MAX { request.counts.clone() } else { Vec::new() },
        error: outcome
            .as_ref()
            .err()
            .map(|error| (error.sqlstate().to_string(), cut(error.message(), ERROR_BYTES_MAX))),
    });
    record.outcomes.make_contiguous().sort_by_key(|answered| answered.sequence);
    while record.outcomes.len() > OUTCOMES_MAX {
        record.outcomes.pop_front();
    }
    let value = postcard::to_stdvec(&record).expect("a record has a plain encoding");
    put_system(staged, SESSIONS, &key, value, writer);
    Ok(change)
}

/// Bare ids created before this (ms) are refused by their age.
fn oldest_kept(writer: Writer) -> u64 {
    writer.hlc.wall().0.saturating_sub(DEDUPE_WINDOW_MS) + 1
}

/// Tombstones for bare ids created before `before_ms`, a bounded number of them, the oldest first: how many, and when the
/// last of them was created.
fn sweep(before_ms: u64, view: &View, writer: Writer, staged: &mut Staged) -> Result<(u64, u64)> {
    let bound = |created_ms: u64| {
        let key = key_of(&RequestId::Bare(u128::from(created_ms) << 80));
        keys::encode(&[Value::Blob(key)])
    };
    // A UUIDv7 has 48 bits of time.
    let to = if before_ms >> 48 == 0 { bound(before_ms) } else { keys::encode(&[Value::Blob(b"s".to_vec())]) };
    let mut scanner = scan(view, KeyRange { from: bound(0), to: Some(to) })?;
    let (mut swept, mut last_ms) = (0, 0);
    while let Some(batch) = scanner.next_batch()? {
        let (keys, _) = batch.keys.expect("keys were asked for");
        for key in keys.iter().take(EVICT_MAX - swept) {
            staged.tombstone(SESSIONS, Key::new(key), stamp(writer));
            last_ms = bare_created_ms(key)?;
            swept += 1;
        }
        if swept >= EVICT_MAX {
            break;
        }
    }
    Ok((swept as u64, last_ms))
}

/// When the bare id of a row was made.
fn bare_created_ms(key: &[u8]) -> Result<u64> {
    let values = keys::decode(key, &[DataType::Blob])?;
    match values.as_slice() {
        [Value::Blob(name)] => match name.get(1..).and_then(|uuid| uuid.try_into().ok()) {
            Some(uuid) => Ok(created_ms(u128::from_be_bytes(uuid))),
            None => Err(Error::not_understood("the name of a request is not there")),
        },
        _ => Err(Error::not_understood("the name of a request is not there")),
    }
}

/// Tombstones for sessions last used before an instant and for bare ids that are too old, a bounded number of each.
pub(super) fn evict(before: Timestamp, view: &View, writer: Writer, staged: &mut Staged) -> Result<Change> {
    let (requests_ended, _) = sweep(oldest_kept(writer), view, writer, staged)?;
    let bound = |head: &[u8]| keys::encode(&[Value::Blob(head.to_vec())]);
    let mut scanner = scan(view, KeyRange { from: bound(b"c"), to: Some(bound(b"d")) })?;
    let mut evicted = 0;
    while let Some(batch) = scanner.next_batch()? {
        let (keys, metadata) = batch.keys.expect("keys were asked for");
        for (row, key) in keys.iter().enumerate() {
            if metadata.hlc[row] < before.0 && evicted < EVICT_MAX as u64 {
                staged.tombstone(SESSIONS, Key::new(key), stamp(writer));
                evicted += 1;
            }
        }
        if evicted >= EVICT_MAX as u64 {
            break;
        }
    }
    Ok(Change { sessions_ended: evicted, requests_ended, ..Change::default() })
}

fn scan(view: &View, range: KeyRange) -> Result<Scanner> {
    view.scan(ScanRequest {
        keyspace: SESSIONS,
        ranges: vec![range],
        columns: vec![],
        bounds: vec![],
        expired_below_ms: 0,
        with_keys: true,
        batch_rows: EVICT_MAX,
    })
}

/// Stages one row of a system keyspace.
pub(super) fn put_system(staged: &mut Staged, keyspace: KeyspaceId, key: &[u8], value: Vec<u8>, writer: Writer) {
    let row = [Value::Blob(key.to_vec()), Value::Blob(value)];
    let encoded = keys::encode(&row[..1]);
    staged.put(keyspace, encoded, stamp(writer), |image| codec::encode(&Layout::system(), &row, image));
}

pub(super) fn stamp(writer: Writer) -> Stamp {
    Stamp { created_ms: writer.hlc.wall().0, hlc: writer.hlc, origin: writer.origin, modified: writer.index }
}

fn key_of(id: &RequestId) -> Vec<u8> {
    match id {
        RequestId::Session { client, .. } => [b"c", client.as_bytes()].concat(),
        RequestId::Bare(uuid) => [b"r", uuid.to_be_bytes().as_slice()].concat(),
    }
}

fn read(view: &View, key: &[u8]) -> Result<Option<Record>> {
    let encoded = keys::encode(&[Value::Blob(key.to_vec())]);
    let Some(values) = view.get(SESSIONS, &encoded, &[ColumnId(2)])?.and_then(|found| found.values) else {
        return Ok(None);
    };
    match values.first() {
        Some(Value::Blob(bytes)) => postcard::from_bytes(bytes)
            .map(Some)
            .map_err(|error| Error::not_understood(format!("the outcome of a request does not decode: {error}"))),
        _ => Err(Error::not_understood("the outcome of a request is not there")),
    }
}
