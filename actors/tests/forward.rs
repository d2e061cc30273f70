//! Statements for a leader that cannot be reached in time, or whose answer has no room: they are not begun, and that is
//! said in time. And what a leader says that was reached.

use crate::actors::DaemonConfig;
use crate::actors::auth::tests::{certified, guard};
use crate::actors::auth::{Guard, PeerGuard};
use crate::actors::forward::{Elsewhere, Leaders, Leadership};
use crate::actors::messages::{Statement, Terms};
use crate::actors::node::Node;
use crate::actors::peers::Peers;
use crate::actors::proto::Message;
use crate::actors::proto::wire::forward_service_server::{ForwardService, ForwardServiceServer};
use crate::actors::proto::wire::{ForwardRequest, ForwardResponse, Row, SqlResponse, Value, value};
use crate::actors::published::Published;
use crate::actors::route::Deadline;
use crate::actors::router::Router;
use crate::actors::rows::held_bytes;
use crate::actors::tests::node::{statement, terms};
use crate::actors::transit::Side;
use chronos::clock::{Clock, SystemClock};
use chronos::error::{Error, Kind, SqlState};
use chronos::ids::Term;
use chronos::raft::{Member, Membership, NodeId, Role};
use futures_util::FutureExt;
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
    let config = DaemonConfig::new("node1", "nowhere", SocketAddr::from(([127, 0, 0, 1], 0)));
    way_with(&config, role, leader)
}

fn way_with(config: &DaemonConfig, role: Role, leader: &str) -> Router {
    let published = Arc::new(Published::default());
    let member = |address: &str| Member { address: address.to_owned(), ..Member::default() };
    let members = [(NodeId("node1".into()), member("here:1")), (NodeId("leader".into()), member(leader))];
    let mut report = (*published.raft()).clone();
    report.status.role = role;
    (report.status.leader, report.status.membership) = (Some(NodeId("leader".into())), Membership::of(members));
    published.set_raft(report);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let router = Node::unstarted(config, &published, &clock);
    router.routes().peers.set_guard(PeerGuard::new(guard(&[])));
    router
}

/// A batch that reads.
const READING: [&str; 2] = ["INSERT INTO t VALUES (1)", "SELECT 1"];

fn batch(texts: &[&str]) -> Vec<Statement> {
    texts.iter().map(|sql| statement(sql)).collect()
}

fn within(wait: Duration) -> Terms {
    Terms { deadline: Deadline::after(wait), ..terms() }
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
        let failed =
            async |texts: &[&str], wait: Duration| router.batch(batch(texts), within(wait)).await.unwrap_err().error;
        // What is handed on has to be sent in its time, on a slow machine too.
        let ample = Duration::from_secs(3);
        let error = failed(&READING, Duration::from_millis(200)).await;
        assert_eq!((error.kind(), error.sqlstate()), (Kind::Overloaded, SqlState::OUT_OF_MEMORY), "{error}");
        assert!(silent.accept().is_err(), "it was handed on");
        // What answers with no rows needs no room for them.
        assert_eq!(failed(&READING[..1], ample).await.kind(), Kind::InDoubt);
        silent.accept().unwrap();
        drop(taken);
        assert_eq!(failed(&READING, ample).await.kind(), Kind::InDoubt);
        assert_eq!(transit.used(), 0, "it is given back");
    });
}

#[test]
fn of_batches_that_read_elsewhere_one_at_a_time_has_room() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = DaemonConfig::new("node1", "nowhere", SocketAddr::from(([127, 0, 0, 1], 0)));
    config.limits.in_flight_bytes_max = 100 << 20;
    let router = way_with(&config, Role::Follower, &silent.local_addr().unwrap().to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let transit = &router.routes().transit;
        let mut runs = [(); 2].map(|()| Box::pin(router.batch(batch(&READING), terms())));
        for run in &mut runs {
            assert!(run.now_or_never().is_none());
            assert_eq!(transit.used(), transit.sure_answer_bytes());
        }
        let [first, mut second] = runs;
        drop(first);
        assert_eq!(transit.used(), 0, "it is given back");
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(transit.used(), transit.sure_answer_bytes());
    });
}

#[test]
fn a_leader_is_waited_for_anew_once_there_is_room() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut config = DaemonConfig::new("node1", "nowhere", SocketAddr::from(([127, 0, 0, 1], 0)));
    config.election_timeout = Duration::from_millis(60);
    let router = way_with(&config, Role::Follower, &gone);
    let leader_wait = router.routes().leader_wait;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let transit = &router.routes().transit;
        let taken = transit.admit_now(Side::Answer, transit.answer_bytes_max()).unwrap();
        let mut run = Box::pin(router.batch(batch(&READING), terms()));
        tokio::time::timeout(leader_wait * 2, &mut run).await.expect_err("it waits for room");
        let began = Instant::now();
        drop(taken);
        let ran = run.await;
        assert_eq!(ran.unwrap_err().error.kind(), Kind::Unavailable);
        assert!(began.elapsed() >= leader_wait, "{:?}", began.elapsed());
    });
}

#[test]
fn a_node_that_leads_and_does_not_serve_yet_waits_and_does_not_dial_itself() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let router = way(Role::Leader, &silent.local_addr().unwrap().to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let terms = within(Duration::from_millis(200));
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
struct Saying(Result<ForwardResponse, Status>);

#[tonic::async_trait]
impl ForwardService for Saying {
    async fn forward(&self, _: Request<ForwardRequest>) -> Result<Response<ForwardResponse>, Status> {
        self.0.clone().map(Response::new)
    }
}

/// A leader that says this: where it is, and how many connections it has taken.
async fn leader(says: Result<ForwardResponse, Status>) -> (String, Arc<AtomicUsize>) {
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
    (address, connections)
}

/// What becomes of this many writes, one after the other, at such a leader; and over how many connections they went.
fn told(says: Status, writes: usize) -> (Vec<Elsewhere>, usize) {
    let (peers, published) = (Peers::default(), Published::default());
    peers.set_guard(PeerGuard::new(guard(&[])));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (address, connections) = leader(Err(says)).await;
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

/// What a leader answers a write and a query, with as many columns as rows, of these values in turn.
fn done_and_found(size: usize, values: [Option<i64>; 2]) -> ForwardResponse {
    let value = |at: usize| Value { value: values[at % 2].map(value::Value::IntValue) };
    let found = SqlResponse {
        success: true,
        columns: vec!["n".into(); size],
        types: vec!["INT".into(); size],
        rows: (0..size).map(|at| Row { values: vec![value(at); size] }).collect(),
        ..SqlResponse::default()
    };
    let done = SqlResponse { success: true, affected: 1, ..SqlResponse::default() };
    let responses = [done, found].iter().map(|one| one.encode_to_vec().into()).collect();
    ForwardResponse { responses, ..ForwardResponse::default() }
}

/// Bytes that this node holds of an answer, and the room that they have, where all other room is taken.
fn held_of(says: ForwardResponse) -> (usize, usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (address, _) = leader(Ok(says)).await;
        let mut config = DaemonConfig::new("node1", "nowhere", SocketAddr::from(([127, 0, 0, 1], 0)));
        config.limits.response_bytes_max = 512 << 10;
        let router = way_with(&config, Role::Follower, &address);
        let transit = &router.routes().transit;
        let others = transit.answer_bytes_max() - transit.sure_answer_bytes();
        let taken = transit.admit_now(Side::Answer, others).unwrap();
        let outputs = router.batch(batch(&READING), terms()).await;
        let outputs = outputs.unwrap_or_else(|failure| panic!("it took effect: {}", failure.error));
        let held = outputs.iter().flat_map(|output| &output.batches).map(held_bytes).sum();
        let room = transit.used() - taken.bytes();
        drop((outputs, taken));
        assert_eq!(transit.used(), 0, "it is given back");
        (held, room)
    })
}

#[test]
fn a_batch_that_took_effect_is_answered_whatever_room_its_rows_take_here() {
    // Half a megabyte on its way, and more than twice that in columns with marks.
    let (held, room) = held_of(done_and_found(350, [None, Some(1)]));
    assert!(held > 1 << 20 && room <= 512 << 10, "{held} in {room}");
    // One value for all rows of a column is one value on both nodes.
    let (held, room) = held_of(done_and_found(350, [None, None]));
    assert!(held < 40 << 10 && room == held, "{held} in {room}");
}
