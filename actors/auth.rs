//! Who may do what: tokens, roles, and the guard that stands before every door.
//!
//! ```text
//!   request ── authorization: Bearer ... ──> Guard ── Caller {role, user} ──> door ── Terms.access ──> statement
//!                                              │ not known: UNAUTHENTICATED, 401
//!                                              └ may not:   PERMISSION_DENIED, 403
//! ```
//!
//! | caller | may |
//! |---|---|
//! | admin token | everything |
//! | read-only token | statements that change nothing, by whatever words; see `chronos::sql::execute::Access` |
//! | none, where no token is set | everything, as `Role::None` |
//! | another node of the group | what it was asked for by somebody who may: statements, and two methods (`grpc::HANDED_ON`) |
//!
//! * Tokens are compared by their SHA-256, in constant time: neither what is right nor how long it is shows in the time.
//! * Who asks is found out before anything of a request's body is read.
//! * Tokens are looked at again for each request, so a reload counts for connections that are there; links between nodes,
//!   which are one request each for as long as they last, look again after it (standing.rs).
//! * A token that was refused is never logged.

mod peer_guard;
mod standing;
mod tokens;

use crate::actors::auth::peer_guard::CLUSTER_TOKEN;
use crate::actors::published::Published;
use crate::actors::tls::{Material, Tls};
use arc_swap::ArcSwap;
use chronos::config;
use chronos::error::{Error, Result, SqlState};
use chronos::sql::execute::Access;
use chronos::sql::outline::Values;
pub use peer_guard::{HANDED_ON, PeerGuard};
pub use standing::Standing;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokens::Tokens;
use tokio::sync::watch;
use tracing::{debug, warn};

/// Header or metadata: who asks, for the audit line.
pub const USER: &str = "x-chronos-user";

/// Characters of a user's name in the log.
const USER_CHARS_MAX: usize = 64;

/// One line in the log for so many refused tokens: guessing must not fill the disk.
const REFUSED_PER_LINE: u64 = 1000;

/// What the settings say about access.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tokens.
    pub auth: config::Auth,
    /// Certificates.
    pub tls: config::Tls,
    /// Whether `/metrics` is for everybody.
    pub metrics_open: bool,
    /// Whether other nodes of a group are named.
    pub names_peers: bool,
    /// The hosts by which the settings name this node.
    pub hosts: Vec<String>,
}

impl Settings {
    /// Those of a configuration.
    pub fn of(config: &config::Config) -> Settings {
        Settings {
            auth: config.auth.clone(),
            tls: config.tls.clone(),
            metrics_open: config.http.metrics_open,
            names_peers: config.cluster.peers(&config.node.id).next().is_some(),
            hosts: hosts(config),
        }
    }
}

/// Where it listens, and where others reach it.
fn hosts(config: &config::Config) -> Vec<String> {
    let node = &config.node;
    let own = config.cluster.members.iter().filter(|member| member.id == node.id).map(|member| &member.address);
    let listens = [&node.address].into_iter().chain(&node.advertise).chain(&config.http.address);
    listens.chain(own).map(|address| address.host.clone()).collect()
}

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Statements that change nothing.
    ReadOnly,
    /// Everything, since nobody is asked who he is.
    None,
    /// What a node of the group hands on. Whoever asked it was admitted there, with a role that comes along.
    Peer,
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Role::Admin => "Admin",
            Role::ReadOnly => "ReadOnly",
            Role::None => "None",
            Role::Peer => "Peer",
        })
    }
}

/// What a service needs of its callers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: it is for everybody.
    Nothing,
    /// That it is a node of the group.
    Peer,
    /// A role; of a statement, the statement decides.
    AnyRole,
    /// The admin's.
    Admin,
    /// The admin's, who may have asked another node of the group that hands it on.
    AdminAnywhere,
}

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// What he may do.
    pub role: Role,
    user: Option<Arc<str>>,
}

impl Caller {
    /// What his statements may do.
    pub fn access(&self) -> Access {
        match self.role {
            Role::Admin | Role::None => Access::ReadWrite,
            // A peer's statements say themselves what their callers may do (forward.rs); without that they only read.
            Role::ReadOnly | Role::Peer => Access::ReadOnly,
        }
    }

    /// As he calls himself, `-` where he does not: one word of visible characters.
    pub fn user(&self) -> &str {
        self.user.as_deref().unwrap_or("-")
    }
}

/// One word, so that nobody writes other fields of the line into it.
fn one_word(text: &str) -> Arc<str> {
    let visible = |c: char| if c.is_ascii_graphic() { c } else { '_' };
    text.chars().take(USER_CHARS_MAX).map(visible).collect::<String>().into()
}

/// Stands before the doors.
pub struct Guard {
    rules: ArcSwap<Rules>,
    tls: Option<Arc<Tls>>,
    names_peers: bool,
    hosts: Vec<String>,
    refused: AtomicU64,
    /// Told of each reload once it counts.
    reloads: watch::Sender<()>,
}

/// What may change while the node runs.
struct Rules {
    tokens: Tokens,
    metrics_open: bool,
    audited: Values,
}

impl Rules {
    fn read(settings: &Settings) -> Result<Rules> {
        let audited = if settings.auth.audit_redact_literals { Values::Hidden } else { Values::Shown };
        Ok(Rules { tokens: Tokens::read(&settings.auth)?, metrics_open: settings.metrics_open, audited })
    }
}

impl Guard {
    /// Reads the files that the settings name.
    pub fn open(settings: &Settings) -> Result<Arc<Guard>> {
        let rules = ArcSwap::from_pointee(Rules::read(settings)?);
        let tls = Material::read(&settings.tls, None)?.map(Tls::new);
        let (names_peers, hosts) = (settings.names_peers, settings.hosts.clone());
        let (refused, reloads) = (AtomicU64::new(0), watch::Sender::new(()));
        Ok(Arc::new(Guard { rules, tls, names_peers, hosts, refused, reloads }))
    }

    /// Reads everything again, and takes all of it or nothing; says what it took.
    pub fn reload(&self, settings: &Settings) -> Result<String> {
        let rules = Rules::read(settings)?;
        let material = Material::read(&settings.tls, self.material().as_deref())?;
        let told = format!("{}, tls = {}", rules.tokens, if self.tls.is_some() { "on" } else { "off" });
        match (&self.tls, material) {
            (Some(tls), Some(material)) => tls.swap(material),
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => {
                let message = "TLS is switched on and off by a restart, not while connections are open";
                return Err(Error::invalid(SqlState::CONFIG_ERROR, message));
            }
        }
        self.rules.store(Arc::new(rules));
        self.reloads.send_replace(());
        Ok(told)
    }

    /// The certificates, where there are any.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// By what the certificates of other nodes are looked at; none where links are not encrypted.
    fn material(&self) -> Option<Arc<Material>> {
        self.tls().map(|tls| tls.material())
    }

    /// True where whoever was taken by that would be taken now.
    fn trusts(&self, known_by: Option<&Material>) -> bool {
        self.tls().zip(known_by).is_none_or(|(tls, known_by)| tls.material().trusts_all_of(known_by))
    }

    /// Whether `/metrics` is for everybody.
    pub fn metrics_open(&self) -> bool {
        self.rules.load().metrics_open
    }

    /// What becomes of values in the audit line.
    pub fn audited(&self) -> Values {
        self.rules.load().audited
    }

    /// False where the settings name no other nodes and this one is the whole of its group.
    pub fn expects_peers(&self, published: &Published) -> bool {
        self.names_peers || published.raft().status.membership.members.len() != 1
    }

    /// True where a browser that shows a page under this host (`Host`, with a port or without) has it from this node. A name
    /// of somebody else's may lead to any address (DNS rebinding); a number leads nowhere else, and who knows a token, or
    /// shows a certificate for the name, was not led there.
    pub fn is_own_host(&self, host: &str) -> bool {
        if self.asks_for_tokens() || self.tls.is_some() {
            return true;
        }
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            Some(_) | None => host,
        };
        let number = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        let is_local = name.eq_ignore_ascii_case("localhost");
        number.parse::<IpAddr>().is_ok() || is_local || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// True where requests need a token.
    pub fn asks_for_tokens(&self) -> bool {
        self.rules.load().tokens.is_asked_for()
    }

    /// Finds out who asks, from what `header` finds, and whether he may.
    ///
    /// # Errors
    ///
    /// 28000 for who is not known, 42501 for who may not.
    pub fn admit<'a>(&self, header: impl Fn(&str) -> Option<&'a str>, need: Need) -> Result<Caller> {
        let user = header(USER).map(one_word);
        let is_peer = self.rules.load().tokens.is_cluster(header(CLUSTER_TOKEN));
        match (need, is_peer) {
            (Need::Peer, _) => {
                self.admit_peer(is_peer)?;
                return Ok(Caller { role: Role::Peer, user });
            }
            // What another node has handed on was asked for by somebody who may.
            (Need::AdminAnywhere, Some(true)) if header(HANDED_ON).is_some() => {
                return Ok(Caller { role: Role::Peer, user });
            }
            (Need::Nothing | Need::AnyRole | Need::Admin | Need::AdminAnywhere, _) => {}
        }
        let role = match (need, self.role(header("authorization"))) {
            (Need::Nothing, found) => found.unwrap_or(Role::None),
            (Need::Peer | Need::AnyRole | Need::Admin | Need::AdminAnywhere, found) => found?,
        };
        match (need, role) {
            (Need::Admin | Need::AdminAnywhere, Role::ReadOnly) => {
                Access::ReadOnly.check_write()?;
                Err(Error::internal("a reader was let in"))
            }
            (
                Need::Nothing | Need::Peer | Need::AnyRole | Need::Admin | Need::AdminAnywhere,
                Role::Admin | Role::ReadOnly | Role::None | Role::Peer,
            ) => Ok(Caller { role, user }),
        }
    }

    /// Whether a caller is a node of the group, by what it has shown of the group's token; none where there is none.
    fn admit_peer(&self, has_shown: Option<bool>) -> Result<()> {
        match has_shown {
            Some(false) => Err(peer_guard::no_member()),
            // Roles would mean nothing to whoever need only call itself a peer.
            None if self.asks_for_tokens() => Err(peer_guard::no_token()),
            Some(true) | None => Ok(()),
        }
    }

    fn role(&self, authorization: Option<&str>) -> Result<Role> {
        let rules = self.rules.load();
        if !rules.tokens.is_asked_for() {
            return Ok(Role::None);
        }
        let unknown = |message: &'static str| Error::invalid(SqlState::INVALID_AUTHORIZATION, message);
        let Some(authorization) = authorization else {
            return Err(unknown("a token is required").hint("send the header authorization: Bearer TOKEN"));
        };
        let bearer = authorization.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = bearer else {
            return Err(unknown("authorization is not Bearer TOKEN"));
        };
        rules.tokens.role(token.trim()).ok_or_else(|| {
            let before = self.refused.fetch_add(1, Ordering::Relaxed);
            if before.is_multiple_of(REFUSED_PER_LINE) {
                warn!(refused = before + 1, "a wrong token was refused (one line for {REFUSED_PER_LINE} of them)");
            } else {
                debug!("a wrong token was refused");
            }
            unknown("the token is not known")
        })
    }
}

#[cfg(test)]
pub mod tests;
