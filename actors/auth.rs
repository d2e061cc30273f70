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
use crate::actors::tls::{Material, Moment, Tls};
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
        let tls = Material::read(&settings.tls, Moment::Start)?.map(Tls::new);
        let (names_peers, hosts) = (settings.names_peers, settings.hosts.clone());
        let (refused, reloads) = (AtomicU64::new(0), watch::Sender::new(()));
        Ok(Arc::new(Guard { rules, tls, names_peers, hosts, refused, reloads }))
    }

    /// Reads everything again, and takes all of it or nothing; says what it took.
    pub fn reload(&self, settings: &Settings) -> Result<String> {
        let rules = Rules::read(settings)?;
        let material = Material::read(&settings.tls, Moment::Reload)?;
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
pub mod tests {
    pub use super::peer_guard::tests::certified;
    use super::*;
    use chronos::config::{Config, Flag, Sources, load};

    /// A guard with settings of `[auth]`.
    pub fn guard(settings: &[(&'static str, &str)]) -> Arc<Guard> {
        Guard::open(&with(settings)).unwrap()
    }

    pub fn with(settings: &[(&'static str, &str)]) -> Settings {
        let flag =
            |&(name, value): &(&'static str, &str)| Flag { flag: "-", section: "auth", name, value: value.into() };
        let flags = settings.iter().map(flag).collect();
        Settings::of(&load(&Sources { flags, ..Sources::default() }).unwrap().config)
    }

    fn role(guard: &Guard, authorization: Option<&str>) -> Result<Role> {
        let header = |name: &str| if name == "authorization" { authorization } else { None };
        guard.admit(header, Need::AnyRole).map(|caller| caller.role)
    }

    #[test]
    fn without_tokens_nobody_is_asked() {
        let guard = Guard::open(&Settings::of(&Config::default())).unwrap();
        assert_eq!(role(&guard, None).unwrap(), Role::None);
        assert_eq!(role(&guard, Some("nonsense")).unwrap(), Role::None);
    }

    #[test]
    fn where_nobody_is_asked_a_page_is_this_nodes_under_its_own_names_only() {
        let flag = |section, name, value: &str| Flag { flag: "-", section, name, value: value.into() };
        let named = |more: Vec<Flag>| {
            let address = flag("node", "address", "gateway.local:8000");
            let flags = [vec![address, flag("node", "advertise", "edge7.example:8000")], more].concat();
            Guard::open(&Settings::of(&load(&Sources { flags, ..Sources::default() }).unwrap().config)).unwrap()
        };
        let guard = named(Vec::new());
        for own in ["127.0.0.1:9000", "10.0.0.7", "[::1]:9000", "localhost:9000", "Gateway.Local:9000", "edge7.example"]
        {
            assert!(guard.is_own_host(own), "{own}");
        }
        for other in ["rebound.example:9000", "localhost.example", "127.0.0.1.example:9000", "", ":9000"] {
            assert!(!guard.is_own_host(other), "{other}");
        }
        assert!(named(vec![flag("auth", "token_admin", "adm")]).is_own_host("any.example:9000"), "a page has no token");
    }

    #[test]
    fn a_token_has_its_role_and_nothing_else_has_one() {
        let guard = guard(&[("token_admin", "adm"), ("token_readonly", "ro")]);
        assert_eq!(role(&guard, Some("Bearer adm")).unwrap(), Role::Admin);
        assert_eq!(role(&guard, Some("bearer ro")).unwrap(), Role::ReadOnly);
        for wrong in [
            None,
            Some(""),
            Some("Bearer"),
            Some("Bearer "),
            Some("Bearer ad"),
            Some("Bearer admx"),
            Some("Basic adm"),
            Some("adm"),
        ] {
            let error = role(&guard, wrong).unwrap_err();
            assert_eq!(error.sqlstate(), SqlState::INVALID_AUTHORIZATION, "{wrong:?}");
            assert!(!error.to_string().contains("adm"), "{error}");
        }
        let reader = |name: &str| (name == "authorization").then_some("Bearer ro");
        let refused = guard.admit(reader, Need::Admin).unwrap_err();
        assert_eq!(refused.sqlstate(), SqlState::INSUFFICIENT_PRIVILEGE);
    }

    #[test]
    fn a_reload_takes_all_or_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        std::fs::write(&file, "first\n").unwrap();
        let settings = with(&[("token_admin_file", file.to_str().unwrap()), ("token_readonly", "ro")]);
        let guard = Guard::open(&settings).unwrap();
        std::fs::write(&file, "second\n").unwrap();
        assert!(role(&guard, Some("Bearer first")).is_ok(), "not before it is asked for");
        guard.reload(&settings).unwrap();
        assert!(role(&guard, Some("Bearer first")).is_err());
        assert_eq!(role(&guard, Some("Bearer second")).unwrap(), Role::Admin);
        for wrong in ["", "\u{1}", "ro"] {
            std::fs::write(&file, wrong).unwrap();
            guard.reload(&settings).unwrap_err();
        }
        std::fs::remove_file(&file).unwrap();
        assert!(guard.reload(&settings).unwrap_err().to_string().contains("auth.token_admin_file"));
        assert_eq!(role(&guard, Some("Bearer second")).unwrap(), Role::Admin);
    }

    #[test]
    fn a_file_of_the_groups_tokens_is_rolled_line_by_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let settings = with(&[("cluster_token_file", file.to_str().unwrap()), ("token_admin", "adm")]);
        std::fs::write(&file, "old\r\nnew\n").unwrap();
        let guard = Guard::open(&settings).unwrap();
        let admits = |token: &str| guard.admit(|name| (name == CLUSTER_TOKEN).then_some(token), Need::Peer).is_ok();
        let shown = || guard.rules.load().tokens.shown_to_peers().unwrap().reveal().to_owned();
        assert!(admits("old") && admits("new") && !admits("newer") && shown() == "old");
        std::fs::write(&file, "new\nold\n").unwrap();
        assert!(guard.reload(&settings).unwrap().contains("auth.cluster_token set, 2 accepted"));
        assert!(admits("old") && shown() == "new");
        std::fs::write(&file, "new\n").unwrap();
        guard.reload(&settings).unwrap();
        assert!(!admits("old") && admits("new"));
        // An operator's token is no node's; and more lines than count are a mistake.
        for wrong in ["new\nadm\n", "new\n\nold\n", "1\n2\n3\n4\n5\n"] {
            std::fs::write(&file, wrong).unwrap();
            let told = guard.reload(&settings).unwrap_err().to_string();
            assert!(told.contains("auth.cluster_token"), "{told}");
        }
        assert!(admits("new") && !admits("adm"));
        let token = directory.path().join("admin");
        let settings = with(&[("token_admin_file", token.to_str().unwrap())]);
        for (text, says) in [("one\ntwo\n", "holds 2 lines: one"), ("1\n2\n3\n4\n5\n", "holds 5 lines: one")] {
            std::fs::write(&token, text).unwrap();
            let told = Guard::open(&settings).err().unwrap().to_string();
            assert!(told.contains(says), "{told}");
        }
    }

    #[test]
    fn a_user_is_one_visible_word() {
        let header = |name: &str| (name == USER).then_some("eve role=Admin sql=x");
        let caller = guard(&[]).admit(header, Need::AnyRole).unwrap();
        assert_eq!(caller.user(), "eve_role=Admin_sql=x");
        assert_eq!(one_word(&"x".repeat(100)).len(), USER_CHARS_MAX);
    }
}
