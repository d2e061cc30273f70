//! `chronos node`: settings from everywhere into one configuration, then the daemon.

use super::logging::{self, Levels};
use super::{Environment, Stop, embedded};
use crate::actors::auth as access;
use crate::actors::metrics::RESIDENT_BESIDE_BYTES;
use crate::actors::{self, DaemonConfig, Ports, TakeAccess, process};
use chronos::config::{Address, Config, Flag, GroupName, Loaded, Origin, Problem, Role, Sources, load};
use chronos::embedded::{Begin, Options};
use chronos::error::{Error, SqlState};
use chronos::ids::ClusterId;
use chronos::raft::{Member, MemberRole, Membership, Naming, NodeId};
use chronos::storage::directory::{self, Create, Database};
use chronos::storage::files::SystemFiles;
use chronos::storage::wal::{Wal, WalOptions};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  chronos node                                   # node1 on 127.0.0.1:8000, files in ./data/node1
  chronos node --id edge1 --data-dir /var/lib/chronos --address 0.0.0.0:8000
  chronos node --config config/chronos.toml      # settings from a file; flags still win
  chronos node --clean                           # begin with an empty database

Settings: flags > environment (CHRONOS_SECTION__KEY) > --config file > defaults.
`chronos config default` lists them all, `chronos config show --origin` says which one counts.";

/// The smallest `storage.memory_bytes_max` that may be set.
const MEMORY_BYTES_MIN: u64 = 16_000_000;

/// What `node` takes.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own on the command line")]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// Give the database that --data-dir names (DIR/NAME, the directory itself) the name --id, as in
    /// --data-dir data/local --rename --id node7; the directory keeps its name. It must be the whole of its group
    #[arg(long, conflicts_with = "clean")]
    rename: bool,
    /// Join the running group that --peers names, once `chronos admin add-node` has added this node to it
    #[arg(long, requires = "peers")]
    join: bool,
    /// Remove this node's data first: all its tables. A database of another name than the default's is removed only
    /// where --id names it
    #[arg(long)]
    clean: bool,
    /// Allow --clean for a member of a group
    #[arg(long, requires = "clean")]
    force: bool,
}

/// The flags that set settings; `config show` takes them too.
#[derive(Debug, Default, clap::Args)]
pub struct Settings {
    /// Name of this node [default: the only database in --data-dir, whatever its name; node1 where there is none]
    #[arg(long)]
    id: Option<String>,
    /// Directory of the databases [default: data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where gRPC listens; HTTP is 1000 above, port 0 takes free ports [default: 127.0.0.1:8000]
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Where others reach this node, if not at --address
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// The other members of its group
    #[arg(long, value_name = "ID=HOST:PORT,...")]
    peers: Option<String>,
    /// Settings as TOML
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Cloud node to deliver changes to
    #[arg(long, value_name = "URL")]
    sync_target: Option<String>,
    /// Seconds between deliveries [default: 5]
    #[arg(long, value_name = "SECONDS")]
    sync_interval_secs: Option<String>,
    /// Operations in one delivery [default: 100]
    #[arg(long, value_name = "COUNT")]
    sync_batch_size: Option<String>,
    /// Seconds between clean-ups of expired rows [default: 3600]
    #[arg(long, value_name = "SECONDS")]
    ttl_cleanup_interval_secs: Option<String>,
}

impl Settings {
    /// The configuration that these flags, the environment and the file come to.
    pub fn load(&self, environment: Environment) -> Result<Loaded, Stop> {
        let text = self.config.as_deref().map(read_file).transpose()?;
        let name = self.config.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
        let flags = [
            ("--id", "node", "id", &self.id),
            ("--data-dir", "node", "data_dir", &self.data_dir),
            ("--address", "node", "address", &self.address),
            ("--advertise", "node", "advertise", &self.advertise),
            ("--sync-target", "sync", "target", &self.sync_target),
            ("--sync-interval-secs", "sync", "interval_secs", &self.sync_interval_secs),
            ("--sync-batch-size", "sync", "batch_size", &self.sync_batch_size),
            ("--ttl-cleanup-interval-secs", "ttl", "cleanup_interval_secs", &self.ttl_cleanup_interval_secs),
        ];
        let flags = flags
            .into_iter()
            .filter_map(|(flag, section, name, value)| Some(Flag { flag, section, name, value: value.clone()? }))
            .collect();
        let file = text.as_ref().map(|text| (name.as_str(), text.as_str()));
        load(&Sources { file, environment, flags, peers: self.peers.clone() })
            .map_err(|problems| Stop::Usage(problems.to_string()))
    }
}

/// The text of a configuration file.
pub fn read_file(path: &Path) -> Result<String, Stop> {
    std::fs::read_to_string(path).map_err(|error| Stop::Usage(format!("cannot read {}: {error}", path.display())))
}

/// Runs the daemon until it is told to stop.
pub fn run(arguments: &Arguments, environment: Environment) -> Result<(), Stop> {
    let loaded = arguments.settings.load(environment.clone())?;
    loaded.supported().map_err(|problems| Stop::Usage(problems.to_string()))?;
    logging::check(&loaded.config.log.level).map_err(|message| {
        let origin = loaded.origin("log", "level").clone();
        Stop::Usage(Problem { origin, message }.to_string())
    })?;
    let data_dir = &loaded.config.node.data_dir;
    // Without an id the only database of the directory is meant, whatever its name.
    let named = *loaded.origin("node", "id") != Origin::Default;
    let default = loaded.config.node.id.as_str();
    // There must be something to rename.
    let create = if arguments.rename { Create::Refused } else { Create::Allowed };
    let path = directory::resolve(&SystemFiles, data_dir, named.then_some(default), default, create)?;
    let id = if !named && directory::is_database(&SystemFiles, &path) {
        Database::open(Arc::new(SystemFiles), &path)?.identity.node_id
    } else {
        default.to_owned()
    };
    // Whoever removes data says whose: without an id it would be whatever database happens to be the only one.
    if arguments.clean && !named && id != default {
        return Err(Stop::Usage(format!(
            "--clean would remove {id:?}, the only database in {}, and not {default:?}: say --id {id} to remove it",
            data_dir.display()
        )));
    }
    let mut config = daemon(&loaded.config, id)?;
    if arguments.rename {
        config.database.naming = Naming::Renamed;
    }
    config.database.begin = match &*others(&loaded.config) {
        [] => Begin::Alone,
        // What --clean is to remove knows another group than the one to join.
        others if arguments.join => Begin::Joining(identify(others, &path, arguments.clean, &loaded.config)?),
        _ => Begin::Together(group(&loaded.config)),
    };
    let levels = logging::start(&loaded.config.log)?;
    loaded.config.warnings().iter().for_each(|line| tracing::warn!("{line}"));
    warn_of_memory(&loaded.config);
    // A start that cannot succeed removes nothing: the ports are taken first.
    let ports = Ports::take(&config)?;
    // Only this node's directory, and only under its lock: neither a neighbour's files nor a running node's.
    let may_go = |log: &Path| if arguments.force { Ok(()) } else { check_alone(log) };
    if arguments.clean && directory::clean(&SystemFiles, &path, may_go)? {
        tracing::info!(directory = %path.display(), "removed the database");
    }
    let reload = move |take: TakeAccess| reload(&arguments.settings, environment.clone(), &levels, take);
    actors::run(config, ports, &reload).map_err(Stop::Failed).and_then(|code| Err(Stop::Exit(code)))
}

/// Says where the budget of memory is more than there is, as the control group of a container has it.
fn warn_of_memory(config: &Config) {
    let Some(memory) = process::memory() else { return };
    let budget = config.storage.memory_bytes_max.0;
    if let Some(warning) = process::memory_warning(&memory, budget, RESIDENT_BESIDE_BYTES, MEMORY_BYTES_MIN) {
        tracing::warn!("{warning}");
    }
}

/// Refuses to remove a log that says that its node belongs to a group of several, or says nothing.
fn check_alone(log: &Path) -> Result<(), Error> {
    let refused = |message: String| Error::invalid(SqlState::NOT_IN_STATE, message);
    let opened = Wal::open(Arc::new(SystemFiles), log, WalOptions::default()).map_err(|error| {
        refused(format!("whether other nodes count on {} cannot be told: {error}", log.display()))
            .hint("--clean --force removes it anyway")
    })?;
    let group = opened.hard_state.map_or_else(Vec::new, |state| state.membership);
    // A node that was to join and has heard nothing yet belongs to nobody.
    if group.is_empty() {
        return Ok(());
    }
    let members = Membership::decode(&group)?.members;
    if members.len() < 2 {
        return Ok(());
    }
    let names = members.keys().map(|id| id.0.as_str()).collect::<Vec<&str>>().join(", ");
    Err(refused(format!("--clean would remove a member of the group {names}, which counts on its disk")).hint(
        "chronos admin remove-node it first, and add it again afterwards; --clean --force removes it all the same",
    ))
}

/// Reads the settings again and takes what may change while the node runs: tokens, certificates and log levels.
fn reload(settings: &Settings, environment: Environment, levels: &Levels, take: TakeAccess) -> Result<String, String> {
    let loaded = settings.load(environment).map_err(|stop| match stop {
        Stop::Usage(message) | Stop::Message(message) => message,
        Stop::Failed(error) => error.to_string(),
        Stop::Exit(_) | Stop::Quit => "the settings cannot be read".to_owned(),
    })?;
    let level = &loaded.config.log.level;
    logging::check(level)?;
    let taken = take(&access::Settings::of(&loaded.config)).map_err(|error| error.to_string())?;
    levels.set(level)?;
    loaded.config.warnings().iter().for_each(|line| tracing::warn!("{line}"));
    Ok(format!("log.level = {level:?} ({}), {taken}", loaded.origin("log", "level")))
}

/// Where the other members are.
fn others(config: &Config) -> Vec<String> {
    config.cluster.peers(&config.node.id).map(|peer| peer.address.to_string()).collect()
}

/// The group as configured, this node in it as the others reach it.
fn group(config: &Config) -> Membership {
    Membership::of(config.cluster.members.iter().map(|member| {
        let address = match &config.node.advertise {
            Some(advertised) if member.id == config.node.id => advertised.to_string(),
            Some(_) | None => member.address.to_string(),
        };
        let role = match member.role {
            Role::Voter => MemberRole::Voter,
            Role::Learner => MemberRole::Learner,
            Role::Witness => MemberRole::Witness,
            Role::Observer => MemberRole::Observer,
        };
        (NodeId(member.id.to_string()), Member { role, address, disk: None })
    }))
}

/// The group that answers at one of the addresses. Not asked for where this node belongs to one already, and stays in it.
fn identify(addresses: &[String], path: &Path, clean: bool, config: &Config) -> Result<ClusterId, Stop> {
    if !clean && directory::is_database(&SystemFiles, path) {
        return Ok(ClusterId::default());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Stop::Message(format!("cannot start: {error}")))?;
    let guard = access::PeerGuard::new(access::Guard::open(&access::Settings::of(config))?);
    let name = config.cluster.name.as_ref().map(GroupName::as_str);
    runtime.block_on(actors::peers::dial::identify(addresses, name, &guard)).map_err(Stop::Failed)
}

/// What the daemon must know.
fn daemon(config: &Config, id: String) -> Result<DaemonConfig, Stop> {
    let address = resolve(&config.node.address)?;
    let mut daemon = DaemonConfig::new(id.clone(), &config.node.data_dir, address);
    daemon.database = Options { id: Some(id.clone()), default_id: id, ..embedded::options(config) };
    daemon.http_address = config.http.address.as_ref().map(resolve).transpose()?;
    daemon.limits.statement_bytes_max = config.limits.statement_bytes_max.0 as usize;
    daemon.limits.response_bytes_max = config.limits.response_bytes_max.0 as usize;
    daemon.limits.in_flight_bytes_max = config.in_flight().0 as usize;
    daemon.limits.request_timeout = config.limits.statement_timeout.0;
    daemon.limits.connections = config.limits.connections as usize;
    daemon.mailbox_messages_max = config.limits.mailbox as usize;
    daemon.proposals_bytes_max = config.raft.proposals_bytes_max.0 as usize;
    daemon.election_timeout = config.raft.election_timeout.0;
    daemon.heartbeat = config.raft.heartbeat.0;
    daemon.clock_drift_max = config.raft.clock_drift_max.0;
    daemon.snapshot_lag = config.raft.snapshot_lag;
    daemon.raft_memory_bytes_max = config.raft.memory_bytes_max.0 as usize;
    daemon.witness_log_bytes_max = config.raft.witness_log_bytes_max.0;
    daemon.scrub_interval = config.storage.scrub_interval.0;
    daemon.compare_interval = config.raft.compare_interval.0;
    daemon.advertise = config.node.advertise.as_ref().map(ToString::to_string);
    daemon.ceilings = config.ceilings();
    daemon.access = access::Settings::of(config);
    daemon.ttl_cleanup_interval = Duration::from_secs(config.ttl.cleanup_interval_secs);
    Ok(daemon)
}

/// The address to listen on; of a name with several, the first.
fn resolve(address: &Address) -> Result<SocketAddr, Stop> {
    let resolved = (address.host.as_str(), address.port).to_socket_addrs();
    resolved
        .ok()
        .and_then(|mut addresses| addresses.next())
        .ok_or_else(|| Stop::Usage(format!("node.address: {:?} has no address on this machine", address.host)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos::config::SETTINGS;

    /// Values of every kind; for each setting one of them is valid and not its default.
    const OTHERS: [&str; 11] =
        ["true", "7", "77", "77ms", "7s", "77s", "7 MiB", "77 MiB", "127.0.0.1:7777", "other", "http://127.0.0.1:7777"];

    /// What the daemon is started with, without the list of ceilings, which shows everything anyway.
    fn started_with(config: &Config) -> String {
        let daemon = daemon(config, config.node.id.to_string()).expect("the addresses are numbers");
        format!("{:?}", DaemonConfig { ceilings: Vec::new(), ..daemon })
    }

    #[test]
    fn the_least_budget_is_the_bound_of_the_setting() {
        let set = |bytes: u64| {
            let value = format!("{bytes} B");
            let flag = Flag { flag: "--x", section: "storage", name: "memory_bytes_max", value };
            load(&Sources { flags: vec![flag], ..Sources::default() }).is_ok()
        };
        assert!(set(MEMORY_BYTES_MIN) && !set(MEMORY_BYTES_MIN - 1));
    }

    #[test]
    fn every_setting_reaches_the_daemon_or_is_refused_by_name() {
        let default = started_with(&Config::default());
        let mut ignored = Vec::new();
        for known in SETTINGS {
            let changed = |value: &&str| {
                let flag = Flag { flag: "--x", section: known.section, name: known.name, value: (*value).to_owned() };
                let loaded = load(&Sources { flags: vec![flag], ..Sources::default() }).ok()?;
                let differs =
                    loaded.config.toml(known.section, known.name) != Config::default().toml(known.section, known.name);
                differs.then_some(loaded)
            };
            let name = format!("{}.{}", known.section, known.name);
            // A part of TLS alone is a contradiction, and so refused.
            let Some(loaded) = OTHERS.iter().find_map(changed) else {
                assert_eq!(known.section, "tls", "{name}: no other value is valid");
                continue;
            };
            // Logging takes its section apart by name (`logging::start`).
            let is_read =
                known.section == "log" || loaded.supported().is_err() || started_with(&loaded.config) != default;
            if !is_read {
                ignored.push(name);
            }
        }
        assert!(ignored.is_empty(), "set and ignored: {ignored:?}");
    }
}
