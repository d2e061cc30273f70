//! The members of the Raft group, as a configuration or `--peers` names them.
//!
//! * No two members share an id or an address.
//! * A list that is not empty contains this node: with `--peers` it is added, in a file it must be written.

use super::name::{Address, NodeId};
use super::setting::Cluster;
use std::fmt;

/// What a member does in the group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Votes and stores everything.
    #[default]
    Voter,
    /// Becomes a voter once it has caught up; stores everything.
    Learner,
    /// Votes, stores the log only.
    Witness,
    /// Stores everything, never votes.
    Observer,
}

impl Role {
    /// Names as the configuration writes them, and operators who add a member.
    pub const NAMES: [&'static str; 4] = ["voter", "learner", "witness", "observer"];

    /// Reads a role.
    pub fn parse(text: &str) -> Option<Role> {
        match text {
            "voter" => Some(Role::Voter),
            "learner" => Some(Role::Learner),
            "witness" => Some(Role::Witness),
            "observer" => Some(Role::Observer),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Voter => "voter",
            Role::Learner => "learner",
            Role::Witness => "witness",
            Role::Observer => "observer",
        })
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub id: NodeId,
    /// Where the others reach it.
    pub address: Address,
    /// What it does.
    pub role: Role,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.id, self.address)
    }
}

impl Cluster {
    /// The members other than `id`.
    pub fn peers<'a>(&'a self, id: &'a NodeId) -> impl Iterator<Item = &'a Member> {
        self.members.iter().filter(move |member| member.id != *id)
    }
}

/// Reads `node2=127.0.0.1:8001,node3=127.0.0.1:8002` for a node called `id` at `address`.
pub fn parse_peers(text: &str, id: &NodeId, address: &Address) -> Result<Vec<Member>, String> {
    let mut peers: Vec<Member> = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        let (name, at) = part.split_once('=').ok_or_else(|| {
            format!("{part:?} is not ID=HOST:PORT, write for example \"node2=127.0.0.1:8001,node3=127.0.0.1:8002\"")
        })?;
        let peer = Member { id: NodeId::parse(name.trim())?, address: Address::parse(at.trim())?, role: Role::Voter };
        if peer.id == *id {
            return Err(format!("\"{peer}\" is this node itself: name only the others"));
        }
        if peer.address == *address && address.port != 0 {
            return Err(format!("\"{peer}\" has the address of this node itself"));
        }
        peer.address.clone().reachable().map_err(|error| format!("\"{peer}\": {error}"))?;
        distinct(&peers, &peer)?;
        peers.push(peer);
    }
    Ok(peers)
}

/// Refuses a member whose id or address another one has.
pub(super) fn distinct(members: &[Member], new: &Member) -> Result<(), String> {
    if members.iter().any(|member| member.id == new.id) {
        return Err(format!("{:?} is named twice", new.id.as_str()));
    }
    match members.iter().find(|member| member.address == new.address) {
        Some(other) => Err(format!("\"{other}\" and \"{new}\" have the same address")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers(text: &str) -> Result<Vec<Member>, String> {
        let id = NodeId::parse("node1").expect("valid");
        parse_peers(text, &id, &Address::parse("127.0.0.1:8000").expect("valid"))
    }

    #[test]
    fn peers_are_read_in_order() {
        let list = peers("node2=127.0.0.1:8001, node3=127.0.0.1:8002").expect("valid");
        assert_eq!(
            list.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["node2=127.0.0.1:8001", "node3=127.0.0.1:8002"]
        );
    }

    #[test]
    fn wrong_peers_are_named() {
        for (text, says) in [
            ("", "is not ID=HOST:PORT"),
            ("node2", "\"node2\" is not ID=HOST:PORT"),
            ("node2=", "is not HOST:PORT"),
            ("a/b=127.0.0.1:1", "\"a/b\" is not a node id"),
            ("node1=127.0.0.1:8001", "is this node itself"),
            ("node2=127.0.0.1:8000", "has the address of this node itself"),
            ("node2=a:1,node2=b:1", "\"node2\" is named twice"),
            ("node2=a:1,node3=a:1", "have the same address"),
            ("node2=a:1,", "is not ID=HOST:PORT"),
            ("node2=a:0", "\"node2=a:0\": a:0 has port 0"),
            ("node2=0.0.0.0:8001", "0.0.0.0:8001 is where a node may listen"),
            ("node2=a:1,node3=[::]:8002", "[::]:8002 is where a node may listen"),
        ] {
            let error = peers(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
