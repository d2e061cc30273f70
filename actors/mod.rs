//! The daemon: the only code that waits.
//!
//! ```text
//!   main thread        actix system: supervisor, signals, HTTP accept
//!   one thread each    storage, raft, executors, janitor, sync, metrics (actors, each on an arbiter of its own)
//!   one thread         gRPC (tonic); one worker for HTTP (actix-web)
//!   three threads      the storage engine's own: log, state, background
//! ```
//!
//! A request goes door -> router -> executor -> raft -> log thread -> state thread, and its answer straight back.
//!
//! * Ports are taken before files are opened: a second daemon by mistake fails without touching anything.
//! * `addresses.json` is written when everything serves, and removed when it no longer does.
//! * The end is the reverse: doors close, storage flushes, actors go (ending.rs); 5 s in all, then the process ends anyway.
//! * Told to stop while it recovers it ends at once: recovery is repeated as a whole, wherever the one before stopped.

pub mod admin;
pub mod analytics;
pub mod audit;
pub mod auth;
pub mod child;
pub mod encode;
pub mod ending;
pub mod entry;
pub mod executor;
pub mod figures;
pub mod format;
pub mod forward;
pub mod freshness;
pub mod front;
pub mod gate;
pub mod grpc;
pub mod http;
pub mod incoming;
pub mod janitor;
pub mod lifeline;
pub mod member;
pub mod messages;
pub mod metrics;
pub mod node;
pub mod outcome;
pub mod pace;
pub mod peers;
pub mod pieces;
pub mod policy;
pub mod process;
pub mod proto;
pub mod published;
pub mod raft;
pub mod route;
pub mod router;
pub mod rows;
pub mod snapshot;
pub mod storage;
pub mod supervisor;
pub mod sync;
#[cfg(test)]
mod tests;
pub mod tls;
pub mod transit;

use crate::actors::auth::{Guard, PeerGuard, Settings};
use crate::actors::grpc::{GrpcDoor, Limits};
use crate::actors::http::HttpDoor;
use crate::actors::node::Node;
use crate::actors::peers::Peers;
use crate::actors::policy::Policy;
use crate::actors::published::{Published, RaftReport};
use crate::actors::route::MAILBOX_MESSAGES_MAX;
use crate::actors::supervisor::End;
use chronos::clock::{Clock, SystemClock};
use chronos::config::{Ceiling, Config};
use chronos::embedded;
use chronos::error::{Error, Kind, Result, SqlState};
use chronos::storage::files::{Files, SystemFiles, replace};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{error, info, warn};

/// From the gRPC port to the HTTP port.
const HTTP_PORT_OFFSET: u16 = 1000;

/// What tells whoever supervises the process to start it again.
const FAILURE: u8 = 1;

/// The file that names the bound addresses.
const ADDRESSES: &str = "addresses.json";

/// What the daemon must know; the command line makes it from flags, environment and file.
#[derive(Clone, Debug)]
pub struct DaemonConfig {
    /// This node's name in its group.
    pub id: String,
    /// The directory that holds the node's directory, `data_dir/id`.
    pub data_dir: PathBuf,
    /// Where gRPC listens; port 0 takes free ports for everything.
    pub address: SocketAddr,
    /// Where HTTP listens, if not on the gRPC port + 1000.
    pub http_address: Option<SocketAddr>,
    /// Where others reach the node, if not at `address`.
    pub advertise: Option<String>,
    /// Executors, a thread each.
    pub executors: usize,
    /// Limits of the doors.
    pub limits: Limits,
    /// How often rows past their time-to-live are dropped.
    pub ttl_cleanup_interval: Duration,
    /// How often every block on disk is read and verified.
    pub scrub_interval: Duration,
    /// How often the members of a group compare their copies.
    pub compare_interval: Duration,
    /// Messages that wait for one actor.
    pub mailbox_messages_max: usize,
    /// Bytes of writes that are proposed and not yet applied.
    pub proposals_bytes_max: usize,
    /// How long no leader is heard before somebody stands for election.
    pub election_timeout: Duration,
    /// How often a leader says that it is there.
    pub heartbeat: Duration,
    /// How far a leader's wall clock may be from those of the others.
    pub clock_drift_max: Duration,
    /// Entries behind from which on a member that has nothing is brought a snapshot.
    pub snapshot_lag: u64,
    /// Bytes of the newest entries that are kept in memory for peers.
    pub raft_memory_bytes_max: usize,
    /// Bytes of log at which this node, where it is a witness, takes no more.
    pub witness_log_bytes_max: u64,
    /// Limits of storage and of statements.
    pub database: embedded::Options,
    /// When to restart actors.
    pub policy: Policy,
    /// Every limit by name, for those who ask.
    pub ceilings: Vec<Ceiling>,
    /// Tokens and certificates.
    pub access: Settings,
}

impl DaemonConfig {
    /// A node with every setting at its default.
    pub fn new(id: impl Into<String>, data_dir: impl Into<PathBuf>, address: SocketAddr) -> DaemonConfig {
        let id = id.into();
        let defaults = Config::default();
        DaemonConfig {
            database: embedded::Options {
                id: Some(id.clone()),
                default_id: id.clone(),
                ..embedded::Options::default()
            },
            id,
            data_dir: data_dir.into(),
            address,
            http_address: None,
            advertise: None,
            executors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            limits: Limits {
                statement_bytes_max: 16 << 20,
                response_bytes_max: 16 << 20,
                request_timeout: Duration::from_secs(30),
                in_flight_bytes_max: defaults.in_flight().0 as usize,
                connections: defaults.limits.connections as usize,
                stall_max: rows::STALL_MAX,
            },
            ttl_cleanup_interval: Duration::from_hours(1),
            scrub_interval: defaults.storage.scrub_interval.0,
            compare_interval: defaults.raft.compare_interval.0,
            mailbox_messages_max: MAILBOX_MESSAGES_MAX,
            proposals_bytes_max: defaults.raft.proposals_bytes_max.0 as usize,
            election_timeout: defaults.raft.election_timeout.0,
            heartbeat: defaults.raft.heartbeat.0,
            clock_drift_max: defaults.raft.clock_drift_max.0,
            snapshot_lag: defaults.raft.snapshot_lag,
            raft_memory_bytes_max: defaults.raft.memory_bytes_max.0 as usize,
            witness_log_bytes_max: defaults.raft.witness_log_bytes_max.0,
            policy: Policy::default(),
            ceilings: defaults.ceilings(),
            access: Settings::of(&defaults),
        }
    }

    fn http_address(&self) -> Result<SocketAddr> {
        match (self.http_address, self.address.port()) {
            (Some(address), _) => Ok(address),
            (None, 0) => Ok(SocketAddr::new(self.address.ip(), 0)),
            (None, port) => match port.checked_add(HTTP_PORT_OFFSET) {
                Some(port) => Ok(SocketAddr::new(self.address.ip(), port)),
                None => Err(Error::invalid(
                    SqlState::CONFIG_ERROR,
                    format!("gRPC port {port} leaves no room for HTTP at {port} + {HTTP_PORT_OFFSET}"),
                )
                .hint("choose a lower port, or set [http] address")),
            },
        }
    }
}

/// Reads the settings again and takes what may change while the node runs, handing on what is not its own; says what was
/// taken, or what is wrong. It takes everything or nothing.
pub type Reload<'a> = &'a dyn Fn(TakeAccess) -> Result<String, String>;

/// Takes tokens and certificates; says what it took.
pub type TakeAccess<'a> = &'a dyn Fn(&Settings) -> Result<String>;

/// What a start needs of its surroundings, taken before any file is touched: a port that is in use or a wrong certificate
/// is no reason to recover a database, and less one to remove it.
pub struct Ports {
    grpc: TcpListener,
    http: TcpListener,
    guard: Arc<Guard>,
}

impl Ports {
    /// Takes the ports, and reads tokens and certificates.
    pub fn take(config: &DaemonConfig) -> Result<Ports> {
        let guard = Guard::open(&config.access)?;
        let grpc = listen(config.address, "gRPC")?;
        let http = listen(config.http_address()?, "HTTP")?;
        Ok(Ports { grpc, http, guard })
    }
}

/// Runs a node until it is told to stop. Errors are those of the start; later ones end in the exit code.
pub fn run(mut config: DaemonConfig, ports: Ports, reload: Reload) -> Result<ExitCode> {
    supervisor::install_panic_hook();
    let Ports { grpc, http, guard } = ports;
    // With port 0 the address is only known now.
    config.address = bound(&grpc)?;
    actix::System::new().block_on(serve(config, (grpc, http), guard, reload))
}

async fn serve(
    config: DaemonConfig,
    (grpc, http): (TcpListener, TcpListener),
    guard: Arc<Guard>,
    reload: Reload<'_>,
) -> Result<ExitCode> {
    // In this order: a signal that only the watch had heard would be acted on when its time is over.
    let mut signals = Signals::listen()?;
    ending::watch()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    // Nothing is acknowledged before the node serves: what recovery was at, the next one begins anew.
    let node = tokio::select! {
        node = Node::start(&config, clock) => node?,
        () = signals.ended() => {
            info!("stopped before it served");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let Node { router, published, parts, peers, supervisor, front } = node;
    let (grpc_address, http_address) = (bound(&grpc)?, bound(&http)?);
    actix::spawn(compare_members(config.database.begin.clone(), published.clone()));
    let news = supervisor.sender();
    let mut supervision = actix::spawn(supervisor.run());
    peers.set_guard(PeerGuard::new(guard.clone()));
    let http = HttpDoor::open(http, router.clone(), published.clone(), config.limits, guard.clone())?;
    let links = peers.clone();
    let grpc = GrpcDoor::open(grpc, &front.handle(), router.clone(), (published, peers), config.limits, guard.clone())?;
    let directory = parts.directory()?;
    write_addresses(&directory, grpc_address, http_address)?;
    info!(node = config.id, grpc = %grpc_address, http = %http_address, "serving");
    actix::spawn(look_for_strangers(links.clone(), router.routes().published.clone()));
    announce(&config, guard.tls().is_some(), grpc_address, http_address);

    let take: TakeAccess = &|settings| {
        let taken = guard.reload(settings)?;
        warn_of_strangers(&links, &router.routes().published.raft());
        Ok(taken)
    };
    let end = tokio::select! {
        end = &mut supervision => Some(end),
        () = signals.stop(reload, take) => None,
    };
    // Whoever reads it while nothing serves would knock on a closed door.
    let addresses = directory.join(ADDRESSES);
    let removed = ending::apart(move || drop(SystemFiles.remove(&addresses)));
    if let Some(end) = end {
        ending::end_by(ending::FAILED_WAIT, FAILURE);
        let code = exit_code(end.map_err(|error| Error::internal(format!("the supervisor failed: {error}"))));
        let _ = removed.recv_timeout(ending::FAILED_WAIT);
        return Ok(code);
    }
    ending::end(&router, &links, (grpc, http), &news).await;
    let _ = removed.recv_timeout(ending::FAILED_WAIT);
    Ok(ExitCode::SUCCESS)
}

/// Says once where the members that the settings name are not those of the group: the log's count, and somebody may wait
/// for the others.
async fn compare_members(begin: embedded::Begin, published: Arc<Published>) {
    let named = match begin {
        embedded::Begin::Together(named) => named,
        embedded::Begin::Alone | embedded::Begin::Joining(_) => return,
    };
    let mut reports = published.watch_raft();
    let known = reports.wait_for(|report| !report.status.membership.members.is_empty()).await;
    // The sender goes with the process.
    let Ok(report) = known.map(|report| report.clone()) else { return };
    let (named, known) = (peers::described(&named), peers::described(&report.status.membership));
    if named != known {
        warn!(
            "the members that are configured are not those of the group, which count: [{named}] and [{known}]; \
             chronos admin add-node and remove-node change them"
        );
    }
}

/// Says where this node belongs to a group that it grew into, and takes none of its members for what they are: the settings,
/// which name nobody, could not know.
fn warn_of_strangers(peers: &Peers, report: &RaftReport) {
    if report.status.membership.members.len() > 1
        && let Err(error) = peers.check_expected()
    {
        warn!("{error}");
    }
}

/// The same once the group is known.
async fn look_for_strangers(peers: Arc<Peers>, published: Arc<Published>) {
    let mut reports = published.watch_raft();
    let known = reports.wait_for(|report| !report.status.membership.members.is_empty()).await;
    // The sender goes with the process.
    let Ok(report) = known.map(|report| report.clone()) else { return };
    warn_of_strangers(&peers, &report);
}

/// The code that tells the next supervisor up (systemd, Docker) whether to start the process again.
fn exit_code(end: Result<End>) -> ExitCode {
    match end {
        Ok(End::Shutdown) => ExitCode::SUCCESS,
        Ok(End::GaveUp(error)) | Err(error) => {
            error!(%error, "the node has failed");
            ExitCode::from(FAILURE)
        }
    }
}

fn listen(address: SocketAddr, what: &str) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(|error| {
        let failed = Error::io(format_args!("listen on {address} for {what}"), &error);
        if error.kind() == std::io::ErrorKind::AddrInUse {
            let message = format!("cannot listen on {address} for {what}: another process uses the port");
            return Error::new(Kind::Io, SqlState::IN_USE, message)
                .hint("is a node running already? choose another --address, or port 0 for a free one");
        }
        failed
    })?;
    incoming::end_stalled(&listener, rows::STALL_MAX)?;
    Ok(listener)
}

fn bound(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|error| Error::io("read the bound address", &error))
}

fn write_addresses(directory: &Path, grpc: SocketAddr, http: SocketAddr) -> Result<()> {
    let content = serde_json::json!({ "grpc": grpc.to_string(), "http": http.to_string() }).to_string();
    replace(&SystemFiles, &directory.join(ADDRESSES), content.as_bytes())
}

/// The signals that a daemon minds.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> Result<Signals> {
        let listen = |kind, name| signal(kind).map_err(|error| Error::io(format_args!("handle {name}"), &error));
        Ok(Signals {
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
            hangup: listen(SignalKind::hangup(), "SIGHUP")?,
        })
    }

    /// Waits until the process is to stop.
    async fn ended(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// The same; until then settings are read again whenever that is asked for.
    async fn stop(&mut self, reload: Reload<'_>, take: TakeAccess<'_>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => match reload(take) {
                    Ok(taken) => info!("read the settings again: {taken}"),
                    // As it was, it runs; a typo in a file is no reason to stop.
                    Err(wrong) => error!("the settings stay as they are: {wrong}"),
                },
            }
        }
    }
}

/// Tells whoever started it by hand what to do next.
fn announce(config: &DaemonConfig, is_encrypted: bool, grpc: SocketAddr, http: SocketAddr) {
    let reach = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(IpAddr::from([127, 0, 0, 1]), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), address.port())
        }
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    };
    let scheme = if is_encrypted { "https" } else { "http" };
    println!("{} serves gRPC on {grpc} and HTTP on {scheme}://{}", config.id, reach(http));
    let leader = config.advertise.clone().unwrap_or_else(|| reach(grpc).to_string());
    println!("connect with: chronos client --leader {leader}");
}
