//! Statements for a leader that cannot be reached in time, or whose answer has no room: they are not begun, and that is
//! said in time.

use crate::actors::DaemonConfig;
use crate::actors::auth::tests::{certified, guard};
use crate::actors::auth::{Guard, PeerGuard};
use crate::actors::forward::{Elsewhere, Leaders, Leadership};
use crate::actors::messages::Terms;
use crate::actors::node::Node;
use crate::actors::peers::Peers;
use crate::actors::proto::wire::forward_service_server::{ForwardService, ForwardServiceServer};
use crate::actors::proto::wire::{ForwardRequest, ForwardResponse};
use crate::actors::published::Published;
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use crate::actors::tests::node::{statement, terms};
use crate::actors::transit::Side;
use chronos::clock::{Clock, SystemClock};
use chronos::error::{Error, Kind, SqlState};
use chronos::ids::Term;
use chronos::raft::{Member, Membership, NodeId, Role};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

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

/// The way to a node of this role that takes the one at an address for its leader.
fn way(role: Role, leader: &str) -> Router {
    let published = Arc::new(Published::default());
    let member = |address: &str| Member { address: address.to_owned(), ..Member::default() };
    let members = [(NodeId("node1".into()), member("here:1")), (NodeId("leader".into()), member(leader))];
    let mut report = (*published.raft()).clone();
    report.status.role = role;
    (report.status.leader, report.status.membership) = (Some(NodeId("leader".into())), Membership::of(members));
    published.set_raft(report);
    let config = DaemonConfig::new("node1", "nowhere", SocketAddr::from(([127, 0, 0, 1], 0)));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let router = Node::unstarted(&config, &published, &clock);
    router.routes().peers.set_guard(PeerGuard::new(guard(&[])));
    router
}

#[test]
fn a_batch_that_reads_is_handed_on_only_with_room_for_its_answer() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let router = way(Role::Follower, &silent.local_addr().unwrap().to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let transit = &router.routes().transit;
        let taken = transit.admit_now(Side::Answer, transit.answer_bytes_max()).unwrap();
        let failed = async |texts: &[&str]| {
            let batch = texts.iter().map(|sql| statement(sql)).collect();
            let terms = Terms { deadline: Deadline::after(Duration::from_millis(200)), ..terms() };
            router.batch(batch, terms).await.unwrap_err().error
        };
        let error = failed(&["INSERT INTO t VALUES (1)", "SELECT 1"]).await;
        assert_eq!((error.kind(), error.sqlstate()), (Kind::Overloaded, SqlState::OUT_OF_MEMORY), "{error}");
        assert!(silent.accept().is_err(), "it was handed on");
        // What answers with no rows needs no room for them.
        assert_eq!(failed(&["INSERT INTO t VALUES (1)"]).await.kind(), Kind::InDoubt);
        silent.accept().unwrap();
        drop(taken);
        assert_eq!(failed(&["INSERT INTO t VALUES (1)", "SELECT 1"]).await.kind(), Kind::InDoubt);
        assert_eq!(transit.used(), 0, "it is given back");
    });
}

#[test]
fn a_node_that_leads_and_does_not_serve_yet_waits_and_does_not_dial_itself() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let router = way(Role::Leader, &silent.local_addr().unwrap().to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let terms = Terms { deadline: Deadline::after(Duration::from_millis(200)), ..terms() };
    let error = runtime.block_on(router.execute(statement("INSERT INTO t VALUES (1)"), terms)).unwrap_err();
    assert!(error.kind() == Kind::Unavailable && error.message().contains("no leader"), "{error}");
    assert!(silent.accept().is_err(), "it dialled itself");
}

#[test]
fn what_is_too_late_to_be_sent_is_not_in_doubt() {
    let (heard, _) = handed_on(&guard(&[]), Duration::ZERO);
    assert_eq!(not_begun(heard).kind(), Kind::Unavailable);
}

/// A leader that says the same of every statement.
struct Saying(Status);

#[tonic::async_trait]
impl ForwardService for Saying {
    async fn forward(&self, _: Request<ForwardRequest>) -> Result<Response<ForwardResponse>, Status> {
        Err(self.0.clone())
    }
}

/// What becomes of this many writes, one after the other, at such a leader; and over how many connections they went.
fn told(says: Status, writes: usize) -> (Vec<Elsewhere>, usize) {
    let (peers, published) = (Peers::default(), Published::default());
    peers.set_guard(PeerGuard::new(guard(&[])));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let incoming = futures_util::stream::unfold(listener, move |listener| {
            let counted = counted.clone();
            async move {
                let accepted = listener.accept().await.map(|(stream, _)| stream);
                counted.fetch_add(1, Ordering::SeqCst);
                Some((accepted, listener))
            }
        });
        let service = ForwardServiceServer::new(Saying(says));
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        let leadership = Leadership::new(&published.watch_raft(), &NodeId("leader".into()), Term(1));
        let (leaders, statements) = (Leaders::default(), [statement("INSERT INTO t VALUES (1)")]);
        let mut heard = Vec::new();
        for _ in 0..writes {
            let terms = terms();
            let ran = leaders.run(&address, &statements, false, &terms, &leadership, (&peers, 1 << 20));
            heard.push(ran.await);
        }
        (heard, connections.load(Ordering::SeqCst))
    })
}

#[test]
fn an_overloaded_leader_says_so_itself_and_is_not_dialled_again() {
    let (heard, connections) = told(Status::resource_exhausted("limits.in_flight_bytes_max is reached"), 3);
    assert_eq!(connections, 1);
    for heard in heard {
        let Elsewhere::Answered(Err(failure)) = heard else { panic!("that is the answer") };
        assert_eq!(failure.error.kind(), Kind::Overloaded);
        assert!(failure.error.message().contains("limits.in_flight_bytes_max"), "{}", failure.error);
    }
}

#[test]
fn a_write_whose_own_time_is_over_leaves_the_connection_to_others() {
    let (heard, connections) = told(Status::deadline_exceeded("too late"), 3);
    assert_eq!(connections, 1);
    for heard in heard {
        let Elsewhere::Answered(Err(failure)) = heard else { panic!("it may have been begun") };
        assert_eq!(failure.error.kind(), Kind::InDoubt, "{}", failure.error);
    }
}
