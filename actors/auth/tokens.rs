//! Tokens, kept as their hashes.
//!
//! * Each token that is set is compared, also after one has matched: the time tells nothing.
//! * The cluster's token is kept as it is too: it is shown to other nodes.
//! * A file of the cluster's token may have several lines: the first is shown, all are accepted. So it is changed while
//!   the group serves: the new one is added everywhere, then comes first everywhere, then stands alone.
//! * No two tokens are the same: who has one would have what the other one gives.

use super::Role;
use chronos::config::{Auth, Secret};
use chronos::error::{Error, Result, SqlState};
use ring::digest::{SHA256, digest};
use std::fmt;
use std::path::PathBuf;
use subtle::ConstantTimeEq;

/// Tokens that a group accepts at a time: the old one, the new one, and some in between.
const CLUSTER_TOKENS_MAX: usize = 4;

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
    /// Those of the group; none where it has none.
    cluster: Vec<Hash>,
    shown_to_peers: Option<Secret>,
}

impl Tokens {
    /// Those of the settings, and of the files that they name.
    pub fn read(auth: &Auth) -> Result<Tokens> {
        let admin = secret("token_admin", auth.token_admin.as_ref(), auth.token_admin_file.as_ref())?;
        let readonly = secret("token_readonly", auth.token_readonly.as_ref(), auth.token_readonly_file.as_ref())?;
        let cluster = secrets("cluster_token", auth.cluster_token.as_ref(), auth.cluster_token_file.as_ref())?;
        if admin.is_some() && admin == readonly {
            return Err(wrong("auth.token_admin and auth.token_readonly are the same".to_owned()));
        }
        for (name, token) in [("token_admin", &admin), ("token_readonly", &readonly)] {
            if token.as_ref().is_some_and(|token| cluster.contains(token)) {
                return Err(wrong(format!("auth.cluster_token and auth.{name} are the same")));
            }
        }
        let hash = |secret: &Secret| Hash::of(secret.reveal());
        Ok(Tokens {
            admin: admin.as_ref().map(hash),
            readonly: readonly.as_ref().map(hash),
            cluster: cluster.iter().map(hash).collect(),
            shown_to_peers: cluster.into_iter().next(),
        })
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
        if self.cluster.is_empty() {
            return None;
        }
        let Some(shown) = token.map(Hash::of) else { return Some(false) };
        Some(self.cluster.iter().fold(false, |is_known, known| known.is(&shown) | is_known))
    }

    /// What this node shows to its peers.
    pub fn shown_to_peers(&self) -> Option<&Secret> {
        self.shown_to_peers.as_ref()
    }
}

/// Which are set, never what they are.
impl fmt::Display for Tokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set = |is_set: bool| if is_set { "set" } else { "not set" };
        let (admin, readonly) = (set(self.admin.is_some()), set(self.readonly.is_some()));
        let cluster = match self.cluster.len() {
            count @ 2.. => format!("set, {count} accepted"),
            count => set(count > 0).to_owned(),
        };
        write!(out, "auth.token_admin {admin}, auth.token_readonly {readonly}, auth.cluster_token {cluster}")
    }
}

fn secret(name: &str, inline: Option<&Secret>, file: Option<&PathBuf>) -> Result<Option<Secret>> {
    let mut read = lines(name, inline, file)?;
    if read.len() > 1 {
        return Err(wrong(format!("auth.{name}_file holds {} lines: one of them is the token", read.len())));
    }
    Ok(read.pop())
}

/// A line each, of a file: as many as are accepted at a time.
fn secrets(name: &str, inline: Option<&Secret>, file: Option<&PathBuf>) -> Result<Vec<Secret>> {
    let read = lines(name, inline, file)?;
    if read.len() > CLUSTER_TOKENS_MAX {
        let count = read.len();
        let path = file.map(|path| format!(" {}", path.display())).unwrap_or_default();
        let text = format!("auth.{name}_file{path} holds {count} lines, and at most {CLUSTER_TOKENS_MAX} count");
        return Err(wrong(text));
    }
    Ok(read)
}

/// Every line of a file, or what stands in the settings themselves.
fn lines(name: &str, inline: Option<&Secret>, file: Option<&PathBuf>) -> Result<Vec<Secret>> {
    let Some(path) = file else { return Ok(inline.cloned().into_iter().collect()) };
    let doing = || format!("read auth.{name}_file {}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(doing(), &error))?;
    let wrong_here = |error: &str| wrong(format!("auth.{name}_file {}: {error}", path.display()));
    // An editor ends the line.
    let lines = text.trim_end_matches(['\r', '\n']).split('\n').map(|line| line.trim_end_matches('\r'));
    lines.map(Secret::parse).collect::<Result<Vec<Secret>, String>>().map_err(|error| wrong_here(&error))
}

fn wrong(what: String) -> Error {
    Error::invalid(SqlState::CONFIG_ERROR, what)
}
