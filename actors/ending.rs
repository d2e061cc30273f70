//! The end of a node that is told to stop: in order, and in time.
//!
//! ```text
//!   signal ── leadership to another node ── doors close ── storage flushes ── actors go ── exit
//!             600 ms                        1.5 s          2.3 s              300 ms       4.8 s in all
//! ```
//!
//! * Whoever supervises the process kills it some seconds after the signal; until then each part has a time of its own,
//!   and what it does not manage is left: everything acknowledged is in the log, which the next start replays.

use crate::actors::admin::Admin;
use crate::actors::grpc::GrpcDoor;
use crate::actors::http::HttpDoor;
use crate::actors::lifeline::News;
use crate::actors::messages::Close;
use crate::actors::peers::Peers;
use crate::actors::published::RaftReport;
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use chronos::error::{Error, Kind};
use chronos::raft::Role;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

/// How long the end may take, from the signal on. What is not done by then is left: everything acknowledged is in the log.
const STOP_WAIT: Duration = Duration::from_millis(4800);

/// How long another node may take to become the leader before this one goes anyway.
const HAND_OVER_WAIT: Duration = Duration::from_millis(600);

/// How long requests may go on after the signal to stop.
const DOORS_GRACE: Duration = Duration::from_millis(1500);

/// How long storage may take to flush. What it does not manage is in the log.
const CLOSE_WAIT: Duration = Duration::from_millis(2300);

/// How long actors may take to end. With those above it is a little less than the whole.
const SHUTDOWN_WAIT: Duration = Duration::from_millis(300);

/// Ends everything but the process.
pub async fn end(
    router: &Router,
    links: &Peers,
    (grpc, http): (GrpcDoor, HttpDoor),
    news: &mpsc::UnboundedSender<News>,
) {
    info!("stopping");
    end_by(STOP_WAIT);
    hand_over(router).await;
    // Streams of peers would be waited for as if they were requests.
    links.close();
    tokio::join!(grpc.close(DOORS_GRACE), async {
        let _ = tokio::time::timeout(DOORS_GRACE, http.close()).await;
    });
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

/// Ends the process after a time, whatever stands in the way: a disk that does not answer keeps threads that nobody can stop.
fn end_by(wait: Duration) {
    let (kept, never) = std::sync::mpsc::channel::<()>();
    let watch = std::thread::Builder::new().name("end".to_owned()).spawn(move || {
        let _ = never.recv_timeout(wait);
        drop(kept);
        warn!("stopped in the middle: the next start replays the log");
        std::process::exit(0);
    });
    if let Err(error) = watch {
        warn!(%error, "nothing watches over the end");
    }
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
    use chronos::clock::{Clock, SystemClock};

    /// Set in the process that is to end.
    const CHILD: &str = "CHRONOS_TEST_ENDS";

    #[test]
    fn the_process_ends_in_time_whatever_its_threads_wait_for() {
        if std::env::var_os(CHILD).is_some() {
            end_by(Duration::from_millis(50));
            let (_kept, never) = std::sync::mpsc::channel::<()>();
            let _ = never.recv();
            return;
        }
        let began = SystemClock.monotonic();
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["actors::ending::tests::the_process_ends_in_time_whatever_its_threads_wait_for", "--exact"])
            .env(CHILD, "1")
            .output()
            .unwrap();
        let took = SystemClock.monotonic().saturating_sub(began);
        assert!(child.status.success() && took < Duration::from_secs(20), "{took:?}");
        assert!(HAND_OVER_WAIT + DOORS_GRACE + CLOSE_WAIT + SHUTDOWN_WAIT < STOP_WAIT);
        assert!(STOP_WAIT < Duration::from_secs(5));
    }
}
