//! Snapshots of a running node, streamed to whoever asked.
//!
//! ```text
//! CreateSnapshot ──> storage: a backup beside the database ──> thread: pack ──(4 chunks)──> task ──(1)──> gRPC stream
//!                       the end, or the client gone: removed ──┘    └── how it ended ────────┴── stalled ───┘
//! ```
//!
//! * Memory is a handful of chunks, whatever the size; the bytes come from files that no write touches.
//! * One at a time: a backup holds the disk space of what is merged away meanwhile. A second one is told to wait, also
//!   while the backup of a client that has gone away is still being made.
//! * Statements go on beside it: it keeps to a pace, and to a slower one while there are any.
//! * A client that takes nothing for [`STALL_MAX`] is given up, for the same reason.
//! * A stream without an end is an error: see `rows.rs`.
//! * What is damaged is not sent as if it were whole: the stream breaks off and names it, unless it is wanted all the same.
//! * The thread waits for nothing but its channel, which closes with the door: it needs no runtime, and outlives none.

use crate::actors::admin::Admin;
use crate::actors::audit::audit_admin;
use crate::actors::grpc;
use crate::actors::http::json_of;
use crate::actors::messages::BackupDirectory;
use crate::actors::metrics::{Metrics, Work};
use crate::actors::proto::wire;
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use crate::actors::rows::STALL_MAX;
use crate::cli::archive::{Checksums, pack_into};
use chronos::error::{Error, SqlState};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status};
use wire::admin_service_server::{AdminService, AdminServiceServer};

/// Bytes of a message: far below the 4 MiB that any client accepts, far above a frame.
const CHUNK_BYTES: usize = 256 << 10;

/// Chunks between disk and network. One is being read while one is being sent; the others even out.
const CHUNKS_AHEAD: usize = 4;

/// Bytes a second that are sent at most. Without a bound a snapshot takes a core and the disk while it lasts.
const BYTES_PER_SECOND: u64 = 128 << 20;

/// The same while statements run. Median p99 of 8 writers beside snapshots one after another of 300 MB, in times of what it
/// is alone (1.1 ms; six pairs each, in turn): 3.9 (2.6 to 5.7) at 128 MiB/s, 1.7 (1.6 to 1.9) at 32.
const BYTES_PER_SECOND_BESIDE: u64 = 32 << 20;

/// Time behind that pace that is made up for.
const MADE_UP_MAX: Duration = Duration::from_millis(50);

/// How long making the backup may take: a seal of some 64 MiB of log, and copying what came meanwhile.
const BACKUP_WAIT: Duration = Duration::from_mins(2);

struct Door {
    router: Router,
    admin: Admin,
    /// One permit: see above.
    permit: Arc<Semaphore>,
}

/// The service, to be added to the gRPC door.
pub fn service(router: Router) -> AdminServiceServer<impl AdminService> {
    let admin = Admin::new(router.clone());
    AdminServiceServer::new(Door { router, admin, permit: Arc::new(Semaphore::new(1)) })
}

#[tonic::async_trait]
impl AdminService for Door {
    async fn members(&self, _: Request<wire::MembersRequest>) -> Result<Response<wire::MembersResponse>, Status> {
        Ok(Response::new(self.admin.members()))
    }

    async fn change_members(
        &self,
        request: Request<wire::ChangeMembersRequest>,
    ) -> Result<Response<wire::MembersResponse>, Status> {
        let caller = grpc::caller_of(&request)?.clone();
        self.admin.change(request, &caller).await.map(Response::new)
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let caller = grpc::caller_of(&request)?.clone();
        self.admin.transfer(request, &caller).await.map(Response::new)
    }

    async fn report(&self, request: Request<wire::ReportRequest>) -> Result<Response<wire::ReportResponse>, Status> {
        let text = if request.into_inner().metrics {
            self.router.render().await
        } else {
            self.router.status().await.map(|report| json_of(&report).to_string())
        };
        let text = text.map_err(|error| grpc::status(&error))?;
        Ok(Response::new(wire::ReportResponse { text }))
    }

    type CreateSnapshotStream = BoxStream<'static, Result<wire::SnapshotChunk, Status>>;

    async fn create_snapshot(
        &self,
        request: Request<wire::SnapshotRequest>,
    ) -> Result<Response<Self::CreateSnapshotStream>, Status> {
        audit_admin(grpc::caller_of(&request)?, "snapshot");
        let checksums = Checksums::unless(request.into_inner().no_verify_checksums);
        let permit = self.permit.clone().try_acquire_owned();
        let permit = permit.map_err(|_| Status::resource_exhausted("another snapshot is being made: try later"))?;
        let backup = self.router.backup(permit, Deadline::after(BACKUP_WAIT)).await;
        let backup = backup.map_err(|error| grpc::status(&error))?;
        let (chunks, packed) = mpsc::channel(CHUNKS_AHEAD);
        let (end, ended) = oneshot::channel();
        let send = move || {
            let outcome = pack(&backup, checksums, Chunks { sender: chunks, buffer: Vec::new() });
            if let Err(error) = &outcome {
                tracing::warn!(%error, "a snapshot was not sent to its end");
            }
            // A client that hears of the end may ask for the next one.
            drop(backup);
            // One that has gone away needs no reason.
            let _ = end.send(outcome);
        };
        // Ends with the file, or when the client is gone or stalls.
        std::thread::Builder::new()
            .name("snapshot".to_string())
            .spawn(send)
            .map_err(|error| grpc::status(&Error::io("start the snapshot thread", &error)))?;
        let pace = pace(self.router.routes().counters.clone());
        Ok(Response::new(paced(packed, ended, STALL_MAX, pace).boxed()))
    }
}

/// How many bytes a second may be sent now: fewer where statements have ended since the last time that it was asked.
fn pace(counters: Arc<Metrics>) -> impl FnMut() -> u64 + Send + 'static {
    let ended = move || [Work::Read, Work::Write].map(|work| counters.statements(work).count);
    let mut before = ended();
    move || {
        let now = ended();
        let is_beside = std::mem::replace(&mut before, now) != now;
        if is_beside { BYTES_PER_SECOND_BESIDE } else { BYTES_PER_SECOND }
    }
}

/// How long so many bytes take.
fn time_of(bytes: usize, bytes_per_second: u64) -> Duration {
    Duration::from_nanos(bytes as u64 * 1_000_000_000 / bytes_per_second)
}

/// What is packed, at the client's pace or ours, and how it ended. Where nothing is taken for `stall_max`, both ends are let go,
/// the thread's by closing its channel.
fn paced(
    mut packed: mpsc::Receiver<Vec<u8>>,
    ended: oneshot::Receiver<io::Result<()>>,
    stall_max: Duration,
    mut bytes_per_second: impl FnMut() -> u64 + Send + 'static,
) -> impl Stream<Item = Result<wire::SnapshotChunk, Status>> + Send {
    let (out, taken) = mpsc::channel(1);
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let mut due = Instant::now();
        while let Some(data) = packed.recv().await {
            tokio::time::sleep_until(due).await;
            // What a slow client has not taken is made up for only as far as it may have synced a file meanwhile.
            due = due.max(Instant::now() - MADE_UP_MAX) + time_of(data.len(), bytes_per_second());
            match tokio::time::timeout(stall_max, out.send(wire::SnapshotChunk { data })).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => {
                    let reason = format!("nothing of it was taken for {stall_max:?}");
                    let _ = tell.send(Err(broken_off(&reason, false)));
                    return;
                }
            }
        }
        let lost = || Err(io::Error::other("its thread ended"));
        let end = ended.await.unwrap_or_else(|_| lost());
        let is_damaged = |error: &io::Error| error.kind() == io::ErrorKind::InvalidData;
        let _ = tell.send(end.map_err(|error| broken_off(&error.to_string(), is_damaged(&error))));
    });
    stream::unfold((taken, Some(told)), |(mut taken, told)| async {
        if let Some(chunk) = taken.recv().await {
            return Some((Ok(chunk), (taken, told)));
        }
        let end = told?.await.unwrap_or_else(|_| Err(broken_off("the node is stopping", false)));
        Some((Err(end.err()?), (taken, None)))
    })
}

fn pack(backup: &BackupDirectory, checksums: Checksums, out: Chunks) -> io::Result<()> {
    pack_into(&backup.path, &backup.id, checksums, out).map(drop)
}

/// Why a stream ends before its end. That of a damaged database says so, for there is another way to have it.
fn broken_off(reason: &str, is_damaged: bool) -> Status {
    let mut status = Status::data_loss(format!("the snapshot broke off: {reason}"));
    if is_damaged && let Ok(state) = MetadataValue::try_from(SqlState::DATA_CORRUPTED.as_str()) {
        status.metadata_mut().insert(grpc::SQLSTATE, state);
    }
    status
}

/// What is written becomes messages.
struct Chunks {
    sender: mpsc::Sender<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Chunks {
    fn send(&mut self) -> io::Result<()> {
        let data = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone away, or took nothing");
        self.sender.blocking_send(data).map_err(gone)
    }
}

impl io::Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(CHUNK_BYTES - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..taken]);
        if self.buffer.len() == CHUNK_BYTES {
            self.send()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALL: Duration = Duration::from_millis(20);

    fn on_a_runtime<F: Future>(work: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    /// How many chunks came, and whether they were all.
    async fn read(stream: impl Stream<Item = Result<wire::SnapshotChunk, Status>>) -> (usize, Option<Status>) {
        let read: Vec<_> = stream.collect().await;
        let count = read.iter().filter(|item| item.is_ok()).count();
        (count, read.into_iter().find_map(Result::err))
    }

    #[test]
    fn the_pace_is_slower_beside_statements() {
        let counters = Arc::new(Metrics::new(0));
        counters.statement(Work::Read, Duration::ZERO, None);
        let mut pace = pace(counters.clone());
        assert_eq!(pace(), BYTES_PER_SECOND);
        counters.statement(Work::Write, Duration::ZERO, None);
        assert_eq!((pace(), pace()), (BYTES_PER_SECOND_BESIDE, BYTES_PER_SECOND));
    }

    #[test]
    fn only_a_snapshot_that_is_complete_ends_well() {
        on_a_runtime(async {
            let ends: [Option<io::Result<()>>; 3] = [Some(Ok(())), Some(Err(io::Error::other("disk"))), None];
            for (at, end) in ends.into_iter().enumerate() {
                let (chunks, packed) = mpsc::channel(CHUNKS_AHEAD);
                let (tell, ended) = oneshot::channel();
                chunks.send(vec![1]).await.unwrap();
                drop(chunks);
                match end {
                    Some(end) => tell.send(end).unwrap(),
                    None => drop(tell),
                }
                let (count, error) = read(paced(packed, ended, STALL, || BYTES_PER_SECOND)).await;
                assert_eq!((count, error.is_some()), (1, at > 0));
            }
        });
    }

    #[test]
    fn a_client_that_stalls_is_given_up_and_told_so() {
        on_a_runtime(async {
            let (chunks, packed) = mpsc::channel(CHUNKS_AHEAD);
            let (_tell, ended) = oneshot::channel();
            let stream = paced(packed, ended, STALL, || BYTES_PER_SECOND);
            while chunks.send(vec![1]).await.is_ok() {}
            let (count, error) = read(stream).await;
            assert!(count > 0);
            assert_eq!(error.unwrap().code(), tonic::Code::DataLoss);
        });
    }

    #[test]
    fn the_thread_outlives_the_runtime_of_the_door() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (sender, packed) = mpsc::channel(CHUNKS_AHEAD);
        let (_tell, ended) = oneshot::channel();
        let stream = runtime.block_on(async { paced(packed, ended, STALL_MAX, || BYTES_PER_SECOND) });
        let thread = std::thread::spawn(move || {
            let (mut chunks, piece) = (Chunks { sender, buffer: Vec::new() }, vec![7; CHUNK_BYTES]);
            while io::Write::write_all(&mut chunks, &piece).is_ok() {}
        });
        runtime.shutdown_background();
        assert!(thread.join().is_ok(), "it ends, and without a panic");
        drop(stream);
    }
}
