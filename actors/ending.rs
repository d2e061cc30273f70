//! The end of a node that is told to stop: in order, and in time.
//!
//! ```text
//!   signal ─┬─ doors take nothing new, requests end ─┬─ links end ── storage flushes ── actors go ── exit
//!           └─ leadership to another node ───────────┘
//!              1.5 s                                   200 ms       2.3 s              300 ms       4.8 s in all
//! ```
//!
//! * Whoever supervises the process kills it some seconds after the signal; until then each part has a time of its own,
//!   and what it does not manage is left: everything acknowledged is in the log, which the next start replays.
//! * Links to the other nodes are there until the last request has ended, and are not waited for as if they were requests.

use crate::actors::admin::Admin;
use crate::actors::grpc::GrpcDoor;
use crate::actors::http::HttpDoor;
use crate::actors::lifeline::News;
use crate::actors::messages::Close;
use crate::actors::peers::Peers;
use crate::actors::published::RaftReport;
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use chronos::error::{Error, Kind, Result};
use chronos::raft::Role;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

/// How long the end may take, from the signal on. What is not done by then is left: everything acknowledged is in the log.
const STOP_WAIT: Duration = Duration::from_millis(4800);

/// How long a process that has failed may take to say so.
pub const FAILED_WAIT: Duration = Duration::from_secs(2);

/// How long another node may take to become the leader before this one goes anyway.
const HAND_OVER_WAIT: Duration = Duration::from_millis(1500);

/// How long requests may go on after the signal to stop.
const DOORS_GRACE: Duration = Duration::from_millis(1500);

/// How long what other nodes have open may take to end.
const LINKS_WAIT: Duration = Duration::from_millis(200);

/// How long storage may take to flush. What it does not manage is in the log.
const CLOSE_WAIT: Duration = Duration::from_millis(2300);

/// How long actors may take to end. With those above it is a little less than the whole.
const SHUTDOWN_WAIT: Duration = Duration::from_millis(300);

/// How long a line of the log may take where nothing may hang.
const LINE_WAIT: Duration = Duration::from_millis(100);

/// Ends everything but the process.
pub async fn end(
    router: &Router,
    links: &Peers,
    (mut grpc, http): (GrpcDoor, HttpDoor),
    news: &mpsc::UnboundedSender<News>,
) {
    info!("stopping");
    tokio::join!(hand_over(router), grpc.drain(DOORS_GRACE), async {
        let _ = tokio::time::timeout(DOORS_GRACE, http.close()).await;
    });
    // Not before: a read that was let in asks the leader how fresh it must be, and the successor needs this node's word that
    // it has what is still being written.
    links.close();
    grpc.close(LINKS_WAIT).await;
    let deadline = Deadline::after(CLOSE_WAIT);
    let mut closed = router.routes().storage.ask(Close, deadline).await;
    // Storage may be in the middle of a restart: what was not begun is asked again.
    while closed.as_ref().is_err_and(|error| error.kind() == Kind::Unavailable) && !deadline.left().is_zero() {
        tokio::task::yield_now().await;
        closed = router.routes().storage.ask(Close, deadline).await;
    }
    if let Err(error) = closed {
        // Everything acknowledged is in the log: the next start replays it.
        warn!(%error, "storage was not closed in time");
    }
    let (done, ended) = oneshot::channel();
    let _ = news.send(News::Shutdown(done));
    let _ = tokio::time::timeout(SHUTDOWN_WAIT, ended).await;
    info!("stopped");
}

/// Ends the process some time after it was told to stop, whatever stands in the way: a disk that does not answer keeps
/// threads that nobody can stop, the main one too where it writes to the log there. So this thread hears the signal itself.
pub fn watch() -> Result<()> {
    let failed = |error| Error::io("watch over the end", &error);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let (mut terminate, mut interrupt) = {
        let _entered = runtime.enter();
        (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?)
    };
    let watching = move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tokio::time::sleep(STOP_WAIT).await;
        });
        leave(0);
    };
    std::thread::Builder::new().name("end".to_owned()).spawn(watching).map(drop).map_err(failed)
}

/// Ends the process after a time with this code, whatever stands in the way.
pub fn end_by(wait: Duration, code: u8) {
    let (kept, never) = std::sync::mpsc::channel::<()>();
    let waiting = move || {
        let _ = never.recv_timeout(wait);
        drop(kept);
        leave(code);
    };
    if let Err(error) = std::thread::Builder::new().name("end".to_owned()).spawn(waiting) {
        warn!(%error, "nothing watches over the end");
    }
}

/// Ends the process. The line is written by another thread, for the log may be on the disk that does not answer.
fn leave(code: u8) {
    let said = apart(|| warn!("stopped in the middle: the next start replays the log"));
    let _ = said.recv_timeout(LINE_WAIT);
    std::process::exit(code.into());
}

/// Does what may hang on a thread of its own, and tells when it is done. Where there is no thread it is left undone.
pub fn apart(work: impl FnOnce() + Send + 'static) -> std::sync::mpsc::Receiver<()> {
    let (done, told) = std::sync::mpsc::channel();
    let working = move || {
        work();
        // Whoever has stopped waiting has gone on without it.
        let _ = done.send(());
    };
    let _ = std::thread::Builder::new().name("apart".to_owned()).spawn(working);
    told
}

/// A leader that goes hands its work to another one first, so that writes go on at once.
async fn hand_over(router: &Router) {
    let until = Deadline::after(HAND_OVER_WAIT);
    let mut reports = router.routes().published.watch_raft();
    // One that was elected a moment ago is no leader yet that others would take over from.
    let is_settled = |report: &Arc<RaftReport>| report.serves || report.status.role != Role::Leader;
    // Nobody reports while what was waited for is looked at.
    let settled = tokio::time::timeout_at(until.instant(), reports.wait_for(is_settled)).await.map(drop);
    let raft = router.routes().published.raft();
    if raft.status.role != Role::Leader || raft.status.membership.voters().count() <= 1 {
        return;
    }
    let handed_over = match settled {
        Ok(()) => Admin::new(router.clone()).hand_over(None, until).await,
        Err(_) => Err(Error::unavailable("this node has only just been elected")),
    };
    match handed_over {
        Ok(to) => info!(%to, "leadership handed over"),
        Err(error) => warn!(%error, "leadership was not handed over: the others elect a leader"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::{Command, Stdio};

    /// Set in the process that is to end.
    const CHILD: &str = "CHRONOS_TEST_ENDS";

    /// What it says before, and the code that it ends with: of nothing else.
    const MARK: &str = "it waits for what never comes";
    const CODE: u8 = 42;

    #[test]
    fn the_process_ends_in_time_whatever_its_threads_wait_for() {
        let (_kept, never) = std::sync::mpsc::channel::<()>();
        if std::env::var_os(CHILD).is_some() {
            println!("{MARK}");
            end_by(Duration::from_millis(50), CODE);
            let _ = never.recv();
            return;
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["the_process_ends_in_time_whatever_its_threads_wait_for", "--nocapture"]).env(CHILD, "1");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = child.stdout.take().unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            // Its end, which comes with that of the process.
            let read = output.read_to_string(&mut text);
            let _ = tell.send(read.map(|_| text));
        });
        let said = told.recv_timeout(Duration::from_secs(20));
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(said.expect("it ends by itself").unwrap().contains(MARK));
        assert_eq!(status.code(), Some(i32::from(CODE)));
    }

    #[test]
    fn all_parts_of_the_end_have_their_time_within_the_whole() {
        assert!(HAND_OVER_WAIT.max(DOORS_GRACE) + LINKS_WAIT + CLOSE_WAIT + SHUTDOWN_WAIT < STOP_WAIT);
        assert!(STOP_WAIT + LINE_WAIT < Duration::from_secs(5));
    }
}
