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
//! * The end is the reverse: doors close, storage flushes, actors go; 5 s in all, then the process ends anyway.

pub mod encode;
pub mod executor;
pub mod grpc;
pub mod http;
pub mod janitor;
pub mod lifeline;
pub mod messages;
pub mod metrics;
pub mod node;
pub mod policy;
pub mod process;
pub mod proto;
pub mod published;
pub mod raft;
pub mod route;
pub mod router;
pub mod storage;
pub mod supervisor;
pub mod sync;
#[cfg(test)]
mod tests;

use crate::actors::grpc::{GrpcDoor, Limits};
use crate::actors::http::HttpDoor;
use crate::actors::lifeline::News;
use crate::actors::messages::Close;
use crate::actors::node::Node;
use crate::actors::policy::Policy;
use crate::actors::route::Deadline;
use crate::actors::supervisor::End;
use chronos::clock::{Clock, SystemClock};
use chronos::embedded;
use chronos::error::{Error, Kind, Result, SqlState};
use chronos::storage::files::{Files, SystemFiles, replace};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

/// From the gRPC port to the HTTP port.
const HTTP_PORT_OFFSET: u16 = 1000;

/// How long requests may go on after the signal to stop.
const DOORS_GRACE: Duration = Duration::from_millis(1500);

/// How long storage may take to flush. What it does not manage is in the log.
const CLOSE_WAIT: Duration = Duration::from_millis(2500);

/// How long actors may take to end.
const SHUTDOWN_WAIT: Duration = Duration::from_millis(500);

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
    /// Executors, a thread each.
    pub executors: usize,
    /// Limits of the doors.
    pub limits: Limits,
    /// How often rows past their time-to-live are dropped.
    pub ttl_cleanup_interval: Duration,
    /// Limits of storage and of statements.
    pub database: embedded::Options,
    /// When to restart actors.
    pub policy: Policy,
}

impl DaemonConfig {
    /// A node with every setting at its default.
    pub fn new(id: impl Into<String>, data_dir: impl Into<PathBuf>, address: SocketAddr) -> DaemonConfig {
        let id = id.into();
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
            executors: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            limits: Limits {
                statement_bytes_max: 16 << 20,
                response_bytes_max: 16 << 20,
                request_timeout: Duration::from_secs(30),
            },
            ttl_cleanup_interval: Duration::from_hours(1),
            policy: Policy::default(),
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

/// Runs a node until it is told to stop. Errors are those of the start; later ones end in the exit code.
pub fn run(config: DaemonConfig) -> Result<ExitCode> {
    supervisor::install_panic_hook();
    let grpc = listen(config.address, "gRPC")?;
    let http = listen(config.http_address()?, "HTTP")?;
    actix::System::new().block_on(serve(config, grpc, http))
}

async fn serve(config: DaemonConfig, grpc: TcpListener, http: TcpListener) -> Result<ExitCode> {
    // Handlers first: a signal during recovery must not kill the process in the middle of it.
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| Error::io("handle SIGTERM", &error))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| Error::io("handle SIGINT", &error))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let Node { router, published, parts, supervisor } = Node::start(&config, clock).await?;
    let (grpc_address, http_address) = (bound(&grpc)?, bound(&http)?);
    let news = supervisor.sender();
    let mut supervision = actix::spawn(supervisor.run());
    let http = HttpDoor::open(http, router.clone(), published.clone(), config.limits)?;
    let grpc = GrpcDoor::open(grpc, router.clone(), published, config.limits)?;
    let directory = parts.directory()?;
    write_addresses(&directory, grpc_address, http_address)?;
    info!(node = config.id, grpc = %grpc_address, http = %http_address, "serving");
    announce(&config.id, grpc_address, http_address);

    let end = tokio::select! {
        end = &mut supervision => Some(end),
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
    };
    // Whoever reads it while nothing serves would knock on a closed door.
    let _ = SystemFiles.remove(&directory.join(ADDRESSES));
    if let Some(end) = end {
        return Ok(exit_code(end.map_err(|error| Error::internal(format!("the supervisor failed: {error}")))));
    }
    info!("stopping");
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
    Ok(ExitCode::SUCCESS)
}

/// The code that tells the next supervisor up (systemd, Docker) whether to start the process again.
fn exit_code(end: Result<End>) -> ExitCode {
    match end {
        Ok(End::Shutdown) => ExitCode::SUCCESS,
        Ok(End::GaveUp(error)) | Err(error) => {
            error!(%error, "the node has failed");
            ExitCode::FAILURE
        }
    }
}

fn listen(address: SocketAddr, what: &str) -> Result<TcpListener> {
    TcpListener::bind(address).map_err(|error| {
        let failed = Error::io(format_args!("listen on {address} for {what}"), &error);
        if error.kind() == std::io::ErrorKind::AddrInUse {
            let message = format!("cannot listen on {address} for {what}: another process uses the port");
            return Error::new(Kind::Io, SqlState::IN_USE, message)
                .hint("is a node running already? choose another --address, or port 0 for a free one");
        }
        failed
    })
}

fn bound(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|error| Error::io("read the bound address", &error))
}

fn write_addresses(directory: &Path, grpc: SocketAddr, http: SocketAddr) -> Result<()> {
    let content = serde_json::json!({ "grpc": grpc.to_string(), "http": http.to_string() }).to_string();
    replace(&SystemFiles, &directory.join(ADDRESSES), content.as_bytes())
}

/// Tells whoever started it by hand what to do next.
fn announce(id: &str, grpc: SocketAddr, http: SocketAddr) {
    let reach = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(IpAddr::from([127, 0, 0, 1]), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), address.port())
        }
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    };
    println!("{id} serves gRPC on {grpc} and HTTP on http://{}", reach(http));
    println!("connect with: chronos client --leader {}", reach(grpc));
}
