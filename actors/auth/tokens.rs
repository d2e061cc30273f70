//! Tokens, kept as their hashes.
//!
//! * Each token that is set is compared, also after one has matched: the time tells nothing.
//! * The cluster's token is kept as it is too: it is shown to other nodes.

use super::Role;
use chronos::config::{Auth, Secret};
use chronos::error::{Error, Result, SqlState};
use ring::digest::{SHA256, digest};
use std::fmt;
use std::path::PathBuf;
use subtle::ConstantTimeEq;

/// The SHA-256 of a token.
struct Hash([u8; 32]);

impl Hash {
    fn of(token: &str) -> Hash {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Hash(bytes)
    }

    fn is(&self, other: &Hash) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// The tokens that count.
pub struct Tokens {
    admin: Option<Hash>,
    readonly: Option<Hash>,
    cluster: Option<Hash>,
    shown_to_peers: Option<Secret>,
}

impl Tokens {
    /// Those of the settings, and of the files that they name.
    pub fn read(auth: &Auth) -> Result<Tokens> {
        let admin = secret("token_admin", auth.token_admin.as_ref(), auth.token_admin_file.as_ref())?;
        let readonly = secret("token_readonly", auth.token_readonly.as_ref(), auth.token_readonly_file.as_ref())?;
        let cluster = secret("cluster_token", auth.cluster_token.as_ref(), auth.cluster_token_file.as_ref())?;
        if admin.is_some() && admin == readonly {
            return Err(wrong("auth.token_admin and auth.token_readonly are the same".to_owned()));
        }
        let hash = |secret: &Option<Secret>| secret.as_ref().map(|secret| Hash::of(secret.reveal()));
        Ok(Tokens { admin: hash(&admin), readonly: hash(&readonly), cluster: hash(&cluster), shown_to_peers: cluster })
    }

    /// True where callers need one.
    pub fn is_asked_for(&self) -> bool {
        self.admin.is_some() || self.readonly.is_some()
    }

    /// What the bearer of a token may do; none where it is not known.
    pub fn role(&self, token: &str) -> Option<Role> {
        let shown = Hash::of(token);
        let matches = |known: &Option<Hash>| known.as_ref().is_some_and(|known| known.is(&shown));
        match (matches(&self.admin), matches(&self.readonly)) {
            (true, _) => Some(Role::Admin),
            (false, true) => Some(Role::ReadOnly),
            (false, false) => None,
        }
    }

    /// Whether a peer has shown the cluster's token; none where there is none.
    pub fn is_cluster(&self, token: Option<&str>) -> Option<bool> {
        let known = self.cluster.as_ref()?;
        Some(token.is_some_and(|token| known.is(&Hash::of(token))))
    }

    /// What this node shows to its peers.
    pub fn shown_to_peers(&self) -> Option<&Secret> {
        self.shown_to_peers.as_ref()
    }
}

/// Which are set, never what they are.
impl fmt::Display for Tokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |token: &Option<Hash>| if token.is_some() { "set" } else { "not set" };
        let (admin, readonly, cluster) = (set(&self.admin), set(&self.readonly), set(&self.cluster));
        write!(out, "auth.token_admin {admin}, auth.token_readonly {readonly}, auth.cluster_token {cluster}")
    }
}

fn secret(name: &str, inline: Option<&Secret>, file: Option<&PathBuf>) -> Result<Option<Secret>> {
    let Some(path) = file else { return Ok(inline.cloned()) };
    let doing = || format!("read auth.{name}_file {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(doing(), &error))?;
    // An editor ends the line.
    let secret = Secret::parse(text.trim_end_matches(['\r', '\n']));
    secret.map(Some).map_err(|error| wrong(format!("auth.{name}_file {}: {error}", path.display())))
}

fn wrong(what: String) -> Error {
    Error::invalid(SqlState::CONFIG_ERROR, what)
}
