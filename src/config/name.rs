//! Addresses, names of nodes, and secrets.
//!
//! * A node's name is never a path: it becomes the name of a directory.
//! * A secret never shows itself.

use super::unit::{Raw, Setting, quoted};
use std::fmt;

/// Where a node listens or is reached: `127.0.0.1:8000`, `gateway.local:8000`, `[::1]:8000`. Port 0 takes a free one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    /// A name or an IP address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// Reads `HOST:PORT`.
    pub fn parse(text: &str) -> Result<Address, String> {
        let wrong = || format!("{text:?} is not HOST:PORT, write for example \"127.0.0.1:8000\"");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or_else(wrong)?,
            // A bare IPv6 address would be read as host and port at the wrong colon.
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(named) {
            return Err(wrong());
        }
        Ok(Address { host: host.to_owned(), port: port.parse().map_err(|_| wrong())? })
    }

    /// True for the addresses that only this machine reaches.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// True for the addresses that mean "every interface" and that nobody can connect to.
    pub fn is_unspecified(&self) -> bool {
        self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.to_canonical().is_unspecified())
    }

    /// Itself, where others can connect to it.
    ///
    /// # Errors
    ///
    /// Of one that only says where a node may listen.
    pub fn reachable(self) -> Result<Address, String> {
        if self.port == 0 {
            return Err(format!("{self} has port 0: nobody can connect to it"));
        }
        if self.is_unspecified() {
            return Err(format!("{self} is where a node may listen: say where the others reach it"));
        }
        Ok(self)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Setting for Address {
    fn read(raw: &Raw) -> Result<Address, String> {
        Address::parse(&String::read(raw)?)
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

/// Longest node id. It names a directory and travels in every peer message.
const NODE_ID_CHARS_MAX: usize = 64;

/// The name of a node, `[A-Za-z0-9][A-Za-z0-9._-]{0,63}` and not `client`: it is the name of its directory too, so it
/// must not be a path, and `client` is where clients keep their files.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodeId(String);

impl NodeId {
    /// Reads an id.
    pub fn parse(text: &str) -> Result<NodeId, String> {
        let first = text.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if !first || !rest || text.len() > NODE_ID_CHARS_MAX {
            return Err(format!(
                "{text:?} is not a node id: letters, digits, '.', '_' and '-', at most {NODE_ID_CHARS_MAX}, beginning \
                 with a letter or digit"
            ));
        }
        if text == "client" {
            return Err("\"client\" is not a node id: the directory of that name holds the client's files".to_owned());
        }
        Ok(NodeId(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Setting for NodeId {
    fn read(raw: &Raw) -> Result<NodeId, String> {
        NodeId::parse(&String::read(raw)?)
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

/// The name of a group: what a node's may be, for it stands in the same lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupName(String);

impl GroupName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Setting for GroupName {
    fn read(raw: &Raw) -> Result<GroupName, String> {
        let text = String::read(raw)?;
        let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        if text.is_empty() || !is_plain || text.len() > NODE_ID_CHARS_MAX {
            return Err(format!(
                "{text:?} is not the name of a group: letters, digits, '.', '_' and '-', at most {NODE_ID_CHARS_MAX}"
            ));
        }
        Ok(GroupName(text))
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }
}

/// Longest secret: far more than is ever guessed, far less than the headers of a request may have.
const SECRET_BYTES_MAX: usize = 1024;

/// A token. Neither `Debug` nor [`Setting::show`] reveals it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(String);

impl Secret {
    /// Reads a secret: what an HTTP header may carry, and nothing that is lost at its ends.
    pub fn parse(text: &str) -> Result<Secret, String> {
        let is_printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        if text.is_empty() || !is_printable || text.trim() != text || text.len() > SECRET_BYTES_MAX {
            return Err(format!(
                "a secret is printable ASCII without space around it, at most {SECRET_BYTES_MAX} characters"
            ));
        }
        Ok(Secret(text.to_owned()))
    }

    /// The secret itself, for comparing.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Setting for Secret {
    fn read(raw: &Raw) -> Result<Secret, String> {
        match raw {
            Raw::Text(text) => Secret::parse(text),
            Raw::Integer(_) | Raw::Boolean(_) | Raw::Other(_) => Err("a secret is a string".to_owned()),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.0))
    }

    fn show(&self) -> String {
        "***".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        assert_eq!(Address::parse("127.0.0.1:8000").expect("valid").port, 8000);
        assert_eq!(Address::parse("[::1]:0").expect("valid").host, "::1");
        assert_eq!(Address::parse("[::1]:80").expect("valid").to_string(), "[::1]:80");
        for wrong in ["", "8000", ":8000", "a:b", "a:65536", "::1:8000", "[::1:8000", "a b:1", "http://a:1"] {
            assert!(Address::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_of_nowhere_is_reached_by_nobody() {
        let reachable = |text| Address::parse(text).expect("valid").reachable();
        for (nowhere, says) in [
            ("0.0.0.0:8000", "is where a node may listen"),
            ("[::]:8000", "is where a node may listen"),
            ("[::ffff:0.0.0.0]:8000", "is where a node may listen"),
            ("10.0.0.7:0", "has port 0"),
            ("gateway.local:0", "has port 0"),
        ] {
            let error = reachable(nowhere).expect_err(nowhere);
            assert!(error.starts_with(nowhere) && error.contains(says), "{nowhere}: {error}");
        }
        for somewhere in ["10.0.0.7:8000", "[::1]:8000", "gateway.local:8000"] {
            assert_eq!(reachable(somewhere).expect(somewhere).to_string(), somewhere);
        }
    }

    #[test]
    fn a_node_id_is_never_a_path() {
        assert!(NodeId::parse("farm-a.edge_1").is_ok());
        for wrong in ["", ".", "..", "../x", "a/b", "a b", "-a", "client", &"x".repeat(65)] {
            assert!(NodeId::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_stays_one() {
        let secret = Secret::read(&Raw::Text("hunter2".to_owned())).expect("valid");
        assert_eq!(format!("{secret:?} {}", secret.show()), "*** ***");
        for wrong in ["", " x", "x\n", "ä", "a\tb", &"x".repeat(1025)] {
            let error = Secret::parse(wrong).expect_err(wrong);
            assert!(wrong.is_empty() || !error.contains(wrong), "{error}");
        }
    }
}
