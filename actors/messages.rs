//! What actors say to each other. An imperative asks, a participle reports.
//!
//! ```text
//!   doors ── Execute, Query, ExecuteBatch ──> executor ── Propose ──> raft ── Append ──> storage's threads
//!   doors ── Render, Health, Status ────────> metrics                  ^                     |
//!                                                                      +── Persisted, Applied +
//! ```

use crate::actors::figures::StorageStatus;
pub use crate::actors::freshness::{Consistency, Freshness};
use crate::actors::process::Memory;
use crate::actors::published::RaftReport;
use crate::actors::route::{Deadline, Effect, Question};
use crate::actors::rows::Rows;
use crate::actors::transit::Hold;
use chronos::config::Ceiling;
use chronos::error::{Error, Result, SqlState};
use chronos::ids::{LogIndex, Term};
use chronos::machine::{Outcome, RequestId};
use chronos::raft::{Change, NodeId};
use chronos::sql::batch::Batch;
pub use chronos::sql::bind::OutputColumn;
use chronos::sql::execute::Access;
use chronos::sql::translate::first_word;
use chronos::sql::value::Value;
use chronos::storage::scrub::ScrubReport;
use chronos::storage::snapshot::Staged;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// What every statement brings along.
#[derive(Clone, Debug)]
pub struct Terms {
    /// When its answer, or the first rows of a streamed one, is no longer wanted.
    pub deadline: Deadline,
    /// When the rest of a streamed answer is no longer wanted either, where the client said so.
    pub whole: Option<Deadline>,
    /// How fresh its reads must be.
    pub freshness: Freshness,
    /// Under which name its outcome is remembered, where the client gave one.
    pub request: Option<RequestId>,
    /// What its caller may do.
    pub access: Access,
}

/// Header or metadata: the session that a request belongs to.
pub const CLIENT_ID: &str = "x-chronos-client-id";

/// Header or metadata: which of its session's requests this is.
pub const SEQUENCE: &str = "x-chronos-sequence";

/// Header or metadata: a `UUIDv7` that names one request.
pub const REQUEST_ID: &str = "x-chronos-request-id";

/// Reads the name of a request from what `header` finds under the three names above.
pub fn request_id<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Result<Option<RequestId>> {
    let wrong = |what: String| Error::invalid(SqlState::INVALID_PARAMETER, what);
    match (header(CLIENT_ID), header(SEQUENCE), header(REQUEST_ID)) {
        (None, None, None) => Ok(None),
        (Some(client), Some(sequence), None) => {
            let read = sequence.parse().map_err(|_| wrong(format!("{SEQUENCE} is a number, got \"{sequence}\"")))?;
            Ok(Some(RequestId::Session { client: client.to_string(), sequence: read }))
        }
        (None, None, Some(uuid)) => {
            let digits: String = uuid.chars().filter(|&digit| digit != '-').collect();
            let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32);
            // The version stands in the thirteenth digit; only a v7 says when it was made.
            match number.filter(|number| number >> 76 & 0xf == 7) {
                Some(number) => Ok(Some(RequestId::Bare(number))),
                None => Err(wrong(format!("{REQUEST_ID} is a UUIDv7, got \"{uuid}\""))),
            }
        }
        _ => Err(wrong(format!("a request is named by {CLIENT_ID} with {SEQUENCE}, or by {REQUEST_ID} alone"))),
    }
}

/// One statement.
#[derive(Debug)]
pub struct Statement {
    /// The text.
    pub sql: String,
    /// Values for `$1`, `$2`, ...
    pub parameters: Vec<Value>,
    /// The room that both have. It stays with them: whoever sent them may be gone while they wait in a mailbox, or run.
    pub hold: Hold,
}

impl Statement {
    /// The statements of a batch. They come and go together, so the first of them has the room of all.
    pub fn batch(texts: Vec<String>, mut hold: Hold) -> Vec<Statement> {
        let statement = |sql| Statement { sql, parameters: Vec::new(), hold: std::mem::take(&mut hold) };
        texts.into_iter().map(statement).collect()
    }

    /// False only where the first word, behind comments, is one of those that never write.
    pub fn may_write(&self) -> bool {
        const READING: [&str; 7] = ["SELECT", "SHOW", "EXPLAIN", "DESCRIBE", "DESC", "VALUES", "TABLE"];
        let word = first_word(&self.sql);
        !READING.iter().any(|reading| word.eq_ignore_ascii_case(reading))
    }

    fn effect(&self) -> Effect {
        if self.may_write() { Effect::Write } else { Effect::None }
    }
}

/// A whole result.
#[derive(Debug, Default)]
pub struct Output {
    /// Columns; none for a write without RETURNING.
    pub columns: Vec<OutputColumn>,
    /// Rows.
    pub batches: Vec<Batch>,
    /// Rows written.
    pub affected: u64,
    /// The room that the rows have on their way to the client.
    pub hold: Hold,
}

impl Output {
    /// What a write without RETURNING answers.
    pub fn done(affected: u64) -> Output {
        Output { affected, ..Output::default() }
    }
}

/// Runs a statement; its whole result comes at once.
#[derive(Debug)]
pub struct Execute {
    /// What to run.
    pub statement: Statement,
    /// How.
    pub terms: Terms,
}

impl Question for Execute {
    type Answer = Output;
    fn effect(&self) -> Effect {
        self.statement.effect()
    }
}

/// Runs a statement; its rows come as they are found.
#[derive(Debug)]
pub struct Query {
    /// What to run.
    pub statement: Statement,
    /// How.
    pub terms: Terms,
}

/// What a streamed statement answers.
pub enum Streamed {
    /// Rows are coming.
    Rows(Rows),
    /// It was a write.
    Whole(Output),
}

impl Question for Query {
    type Answer = Streamed;
    fn effect(&self) -> Effect {
        self.statement.effect()
    }
}

/// A statement has met damage: it is to be known like what a scrub finds, and every block is to be read soon.
#[derive(Debug)]
pub struct DamageMet {
    /// As the statement was told.
    pub found: String,
}

impl Question for DamageMet {
    type Answer = ();
    fn effect(&self) -> Effect {
        Effect::None
    }
}

/// Runs statements as one: all of them, or none.
#[derive(Debug)]
pub struct ExecuteBatch {
    /// What to run, in order.
    pub statements: Vec<Statement>,
    /// How.
    pub terms: Terms,
}

/// Why a batch failed.
#[derive(Debug)]
pub struct BatchFailure {
    /// The statement that failed, counted from 0.
    pub statement: usize,
    /// Why.
    pub error: Error,
}

impl Question for ExecuteBatch {
    type Answer = Result<Vec<Output>, BatchFailure>;
    fn effect(&self) -> Effect {
        if self.statements.iter().any(Statement::may_write) { Effect::Write } else { Effect::None }
    }
}

/// Puts a command into the log. Answered by the state machine; where raft refuses it, at once.
pub struct Propose {
    /// The encoded command.
    pub command: Vec<u8>,
}

impl Question for Propose {
    type Answer = Outcome;
    fn effect(&self) -> Effect {
        Effect::Write
    }
}

/// Asks up to where this node must have applied, to read all that is committed now.
#[derive(Debug)]
pub struct ReadIndex {
    /// A leader's lease is enough: it rests on clocks that run at about the same speed.
    pub lease: bool,
}

impl Question for ReadIndex {
    type Answer = LogIndex;
}

/// Asks how old what this node has is at most; none where no leader has shown it.
#[derive(Debug)]
pub struct Staleness;

impl Question for Staleness {
    type Answer = Option<Duration>;
}

/// Changes the group. Answered once that is committed.
#[derive(Debug)]
pub struct ChangeGroup(pub Change);

impl Question for ChangeGroup {
    type Answer = ();

    fn effect(&self) -> Effect {
        Effect::Change
    }
}

/// Hands leadership to another node; answers to whom.
#[derive(Debug)]
pub struct TransferLead {
    /// Whom; none for the fittest that has all that is committed.
    pub to: Option<NodeId>,
}

impl Question for TransferLead {
    type Answer = NodeId;

    fn effect(&self) -> Effect {
        Effect::Transfer
    }
}

/// Asks for the text of `/metrics`.
#[derive(Debug)]
pub struct Render;

impl Question for Render {
    type Answer = String;
}

/// Asks how the node is.
#[derive(Debug)]
pub struct Health;

/// How the node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthReport {
    /// Its role, as `/health` says it.
    pub role: &'static str,
    /// Its term.
    pub term: Term,
    /// What is wrong, where something is.
    pub degraded: Option<String>,
}

impl Question for Health {
    type Answer = HealthReport;
}

impl Question for Status {
    type Answer = StatusReport;
}

/// Asks for everything an operator may want to see.
#[derive(Debug)]
pub struct Status;

/// Everything an operator may want to see.
#[derive(Clone, Debug)]
pub struct StatusReport {
    /// The node's name.
    pub id: String,
    /// Where others reach it.
    pub address: String,
    /// What an acknowledged write rests on, in words.
    pub fsync: String,
    /// When the process began, in milliseconds since 1970.
    pub started_ms: u64,
    /// How the node is.
    pub health: HealthReport,
    /// Where the consensus stands.
    pub raft: RaftReport,
    /// How storage is.
    pub storage: StorageStatus,
    /// Its levels of blocks, newest first.
    pub levels: Vec<LevelReport>,
    /// What reading every block has found.
    pub scrub: ScrubReport,
    /// Every limit, with how much of it is used.
    pub ceilings: Vec<CeilingReport>,
    /// Each actor with its queue and its restarts.
    pub actors: Vec<ActorReport>,
    /// How far the queue to the sync target is.
    pub sync: SyncReport,
    /// The newest hash of the content that is known.
    pub content: Option<Content>,
    /// How much memory there is for the process, where that is known.
    pub memory: Option<Memory>,
}

/// One level of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LevelReport {
    /// Its blocks.
    pub blocks: u64,
    /// Rows in them, tombstones and superseded ones included.
    pub rows: u64,
    /// Their encoded bytes.
    pub bytes: u64,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeilingReport {
    /// Its name and where it stands.
    pub ceiling: Ceiling,
    /// How much of it is used, in the same unit; none where that cannot be told.
    pub now: Option<u64>,
    /// Of a reserve, what there is where it is to be kept free.
    pub free: Option<u64>,
}

/// Asks the janitor to hash everything that the newest view shows, where that is not known yet.
#[derive(Debug)]
pub struct ContentHash;

impl Question for ContentHash {
    type Answer = Hashed;
}

/// What became of that. The hash itself is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hashed {
    /// What is published is of the newest view.
    Present,
    /// Somebody hashes now, though maybe an older view.
    UnderWay,
    /// What is published is older, and is left at that for a while.
    Resting,
}

/// The content of the database in one number, and where in the log that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// Position of the view.
    pub index: LogIndex,
    /// See `storage::content_hash`.
    pub hash: u128,
}

/// One actor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActorReport {
    /// Its name.
    pub name: &'static str,
    /// Questions waiting for it or with it.
    pub waiting: usize,
    /// Restarts after its own failure.
    pub restarts: u64,
}

/// Asks storage for a backup: a directory on its own disk, which goes when the answer is dropped.
#[derive(Debug)]
pub struct Backup {
    /// The right to make one. It goes with the work: whoever asked may be gone long before the work is done.
    pub permit: OwnedSemaphorePermit,
}

impl Question for Backup {
    type Answer = BackupDirectory;
}

/// A backup on its way out of the node.
#[derive(Debug)]
pub struct BackupDirectory {
    /// Where it is.
    pub path: PathBuf,
    /// The node's id.
    pub id: String,
    /// Given back once the directory has gone.
    _permit: OwnedSemaphorePermit,
}

impl BackupDirectory {
    /// A directory that is to be written.
    pub fn new(path: PathBuf, id: String, permit: OwnedSemaphorePermit) -> BackupDirectory {
        BackupDirectory { path, id, _permit: permit }
    }
}

impl Drop for BackupDirectory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %self.path.display(), "a backup was not removed; the next start does it");
        }
    }
}

/// Has storage go on from a snapshot instead of what it has. It starts again for that, and so does everything after it.
/// Refused where the snapshot is not ahead of what is committed here, or where its sender has been succeeded.
#[derive(Debug)]
pub struct Install {
    /// The snapshot.
    pub staged: Staged,
    /// The term in which its sender leads.
    pub term: Term,
}

impl Question for Install {
    type Answer = ();
}

/// Asks storage to make what it has tidy and durable, and to stop. The daemon's last question.
#[derive(Debug)]
pub struct Close;

impl Question for Close {
    type Answer = ();
}

/// Asks how far an edge is behind its target.
#[derive(Debug)]
pub struct SyncProgress;

/// An edge offers operations. No version takes them yet.
#[derive(Debug)]
pub struct Receive;

/// How far an edge is behind its target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncReport {
    /// When the last batch was acknowledged, in milliseconds since 1970.
    pub last_sync_ms: u64,
    /// Operations in it.
    pub last_applied: u64,
    /// Operations that wait.
    pub pending: u64,
    /// What went wrong last.
    pub last_error: String,
    /// How long the oldest operation has waited.
    pub oldest: Duration,
    /// Deliveries that failed.
    pub errors: u64,
    /// Operations that the target refuses for good.
    pub dead_letters: u64,
}

impl Question for Receive {
    type Answer = std::convert::Infallible;
    fn effect(&self) -> Effect {
        Effect::None
    }
}

impl Question for SyncProgress {
    type Answer = SyncReport;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(headers: &[(&str, &'static str)]) -> Result<Option<RequestId>> {
        request_id(|name| headers.iter().find(|(one, _)| *one == name).map(|(_, value)| *value))
    }

    #[test]
    fn a_request_is_named_in_one_of_two_ways() {
        assert_eq!(named(&[]).unwrap(), None);
        let session = named(&[(CLIENT_ID, "edge1"), (SEQUENCE, "7")]).unwrap();
        assert_eq!(session, Some(RequestId::Session { client: "edge1".into(), sequence: 7 }));
        let bare = named(&[(REQUEST_ID, "01890a5d-ac96-774b-bcce-b302099a8057")]).unwrap();
        assert_eq!(bare, Some(RequestId::Bare(0x0189_0a5d_ac96_774b_bcce_b302_099a_8057)));
        assert!(named(&[(CLIENT_ID, "edge1")]).is_err());
        assert!(named(&[(REQUEST_ID, "01890a5d-ac96-474b-bcce-b302099a8057")]).is_err(), "a v4 has no time");
        assert!(named(&[(CLIENT_ID, "edge1"), (SEQUENCE, "-1")]).is_err());
    }

    #[test]
    fn only_what_never_writes_is_taken_for_a_read() {
        let may_write =
            |sql: &str| Statement { sql: sql.into(), parameters: vec![], hold: Hold::nothing() }.may_write();
        assert!(!may_write("  select 1") && !may_write("EXPLAIN SELECT 1") && !may_write("SHOW TABLES"));
        assert!(!may_write("/* app */ SELECT 1") && !may_write("-- why\n(select 1)") && !may_write("SELECT(1)"));
        assert!(may_write("/* SELECT */ UPDATE t SET v = 1") && may_write("/* /* */ SELECT */ DROP TABLE t"));
        assert!(may_write("INSERT INTO t VALUES (1)") && may_write("WITH x AS (SELECT 1) DELETE FROM t"));
        assert!(may_write("SELECTED") && may_write("-- SELECT\nDROP TABLE t") && may_write(""));
    }
}
