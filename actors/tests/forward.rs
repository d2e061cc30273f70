//! Statements for a leader that cannot be reached in time: they are not begun, and that is said in time.

use crate::actors::auth::tests::{certified, guard};
use crate::actors::auth::{Guard, PeerGuard};
use crate::actors::forward::{Elsewhere, Leaders, Leadership};
use crate::actors::peers::Peers;
use crate::actors::published::Published;
use crate::actors::route::Deadline;
use crate::actors::tests::node::{statement, terms};
use chronos::error::{Error, Kind};
use chronos::ids::Term;
use chronos::raft::NodeId;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Hands a write on to what takes connections and says nothing in them; what became of it, and how long that took.
fn handed_on(guard: &Arc<Guard>, wait: Duration) -> (Elsewhere, Duration) {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let (peers, published) = (Peers::default(), Published::default());
    peers.set_guard(PeerGuard::new(guard.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let began = Instant::now();
        let leadership = Leadership::new(&published.watch_raft(), &NodeId("leader".into()), Term(1));
        let mut terms = terms();
        terms.deadline = Deadline::after(wait);
        let statements = [statement("INSERT INTO t VALUES (1)")];
        let leaders = Leaders::default();
        let ran = leaders.run(&address, &statements, false, &terms, &leadership, (&peers, 1 << 20)).await;
        (ran, began.elapsed())
    })
}

fn not_begun(heard: Elsewhere) -> Error {
    match heard {
        Elsewhere::NotBegun(error) => error,
        Elsewhere::Answered(Err(failure)) => panic!("it says {}", failure.error),
        Elsewhere::Answered(Ok(_)) | Elsewhere::Unknown(_) => panic!("nothing was sent"),
    }
}

#[test]
fn a_leader_that_shakes_no_hands_is_waited_for_as_long_as_the_statement_has() {
    let directory = tempfile::tempdir().unwrap();
    let (heard, took) = handed_on(&certified(directory.path()), Duration::from_millis(200));
    assert_eq!(not_begun(heard).kind(), Kind::Unavailable);
    assert!(took < Duration::from_secs(1), "{took:?}");
    // With all the time there is, as long as a connection may take.
    let (heard, took) = handed_on(&certified(directory.path()), Duration::from_secs(30));
    assert_eq!(not_begun(heard).kind(), Kind::Unavailable);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn what_is_too_late_to_be_sent_is_not_in_doubt() {
    let (heard, _) = handed_on(&guard(&[]), Duration::ZERO);
    assert_eq!(not_begun(heard).kind(), Kind::Unavailable);
}
