//! The types a setting may have: sizes, durations, addresses, names, secrets.
//!
//! Each reads itself from what a person writes and shows itself the way that person would write it, so the commented
//! default file, error messages and `config show` all speak one notation.
//!
//! * What [`Setting::toml`] writes, [`Setting::read`] reads back to the same value.
//! * A secret never shows itself.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A value as one layer gave it, before it has a type.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// Text: a TOML string, an environment variable or a flag.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML value of another kind, with that kind's name; no setting takes one.
    Other(&'static str),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Text(text) => write!(f, "{text:?}"),
            Raw::Integer(number) => write!(f, "{number}"),
            Raw::Other(kind) => write!(f, "a {kind}"),
        }
    }
}

/// What a setting's type must be able to do.
pub trait Setting: Sized + PartialOrd {
    /// Reads the value; the error completes the sentence `storage.memory_bytes_max: ...`.
    fn read(raw: &Raw) -> Result<Self, String>;
    /// The value as TOML; nothing where it is not set.
    fn toml(&self) -> Option<String>;
    /// The value for people: as TOML, but a secret stays one.
    fn show(&self) -> String {
        self.toml().unwrap_or_else(|| "(not set)".to_owned())
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Setting for u64 {
    fn read(raw: &Raw) -> Result<u64, String> {
        let wrong = || format!("{raw} is not a whole number");
        match raw {
            Raw::Integer(number) => u64::try_from(*number).map_err(|_| wrong()),
            Raw::Text(text) => text.trim().replace('_', "").parse().map_err(|_| wrong()),
            Raw::Other(_) => Err(wrong()),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for String {
    fn read(raw: &Raw) -> Result<String, String> {
        match raw {
            Raw::Text(text) => Ok(text.clone()),
            Raw::Integer(_) | Raw::Other(_) => Err(format!("{raw} is not a string")),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Setting for PathBuf {
    fn read(raw: &Raw) -> Result<PathBuf, String> {
        match String::read(raw)? {
            text if text.is_empty() => Err("an empty path".to_owned()),
            text if text.contains('\0') => Err("a path with a NUL byte".to_owned()),
            text => Ok(PathBuf::from(text)),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

/// An optional setting: the empty text, and only that, leaves it unset.
impl<T: Setting> Setting for Option<T> {
    fn read(raw: &Raw) -> Result<Option<T>, String> {
        match raw {
            Raw::Text(text) if text.is_empty() => Ok(None),
            Raw::Text(_) | Raw::Integer(_) | Raw::Other(_) => T::read(raw).map(Some),
        }
    }

    fn toml(&self) -> Option<String> {
        self.as_ref().and_then(Setting::toml)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "(not set)".to_owned(), Setting::show)
    }
}

/// A size. Written `64 MiB` (1024 based), `64 MB` (1000 based) or as a plain number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Unit names in lower case, largest first, so that showing picks the shortest exact form.
const SIZE_UNITS: [(&str, &str, u64); 9] = [
    ("tib", "TiB", 1 << 40),
    ("tb", "TB", 1_000_000_000_000),
    ("gib", "GiB", 1 << 30),
    ("gb", "GB", 1_000_000_000),
    ("mib", "MiB", 1 << 20),
    ("mb", "MB", 1_000_000),
    ("kib", "KiB", 1 << 10),
    ("kb", "KB", 1_000),
    ("b", "B", 1),
];

/// Splits `64 MiB` into its number and its unit in lower case.
fn split_unit(text: &str) -> Option<(u64, String)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let number = text[..digits].replace('_', "").parse().ok()?;
    Some((number, text[digits..].trim().to_ascii_lowercase()))
}

impl Setting for Bytes {
    fn read(raw: &Raw) -> Result<Bytes, String> {
        let wrong = || format!("{raw} is not a size, write for example \"64 MiB\"");
        let (number, unit) = match raw {
            Raw::Integer(number) => (u64::try_from(*number).map_err(|_| wrong())?, String::new()),
            Raw::Text(text) => split_unit(text).ok_or_else(wrong)?,
            Raw::Other(_) => return Err(wrong()),
        };
        let factor = match unit.as_str() {
            "" => 1,
            name => SIZE_UNITS.iter().find(|known| known.0 == name).ok_or_else(wrong)?.2,
        };
        number.checked_mul(factor).map(Bytes).ok_or_else(|| format!("{raw} is more than 64 bits can count"))
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS.iter().find(|unit| self.0 >= unit.2 && self.0.is_multiple_of(unit.2));
        let (_, name, factor) = unit.unwrap_or(&("b", "B", 1));
        write!(f, "{} {name}", self.0 / factor)
    }
}

/// A length of time. Written with its unit: `5s`, `100ms`, `10min`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Unit names, largest first, in microseconds.
const TIME_UNITS: [(&str, u64); 8] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
    ("w", 7 * 86_400_000_000),
];

impl Setting for Span {
    fn read(raw: &Raw) -> Result<Span, String> {
        let wrong = || format!("{raw} is not a duration, write for example \"5s\"");
        let Raw::Text(text) = raw else { return Err(wrong()) };
        let (number, unit) = split_unit(text).ok_or_else(wrong)?;
        if unit.is_empty() {
            return Err(format!("{raw} has no unit, write for example \"{number}s\""));
        }
        let factor = TIME_UNITS.iter().find(|known| known.0 == unit).ok_or_else(wrong)?.1;
        let micros = number.checked_mul(factor).ok_or_else(|| format!("{raw} is longer than 64 bits can count"))?;
        Ok(Span(Duration::from_micros(micros)))
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros() as u64;
        if micros == 0 {
            return f.write_str("0s");
        }
        let unit = TIME_UNITS.iter().find(|unit| micros.is_multiple_of(unit.1));
        let (name, factor) = unit.unwrap_or(&("us", 1));
        write!(f, "{}{name}", micros / factor)
    }
}

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

    /// True for the addresses that mean "every interface" and that nobody can connect to.
    pub fn is_unspecified(&self) -> bool {
        self.host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
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

/// A token. Neither `Debug` nor [`Setting::show`] reveals it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(String);

impl Secret {
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
            Raw::Text(text) => Ok(Secret(text.clone())),
            Raw::Integer(_) | Raw::Other(_) => Err("a secret is a string".to_owned()),
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

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn a_size_is_read_in_both_bases() {
        assert_eq!(Bytes::read(&text("64 MiB")), Ok(Bytes(64 << 20)));
        assert_eq!(Bytes::read(&text("64MB")), Ok(Bytes(64_000_000)));
        assert_eq!(Bytes::read(&text("1_024")), Ok(Bytes(1024)));
        assert_eq!(Bytes::read(&Raw::Integer(5)), Ok(Bytes(5)));
        for wrong in ["", "MiB", "64 MX", "-1", "1.5 GiB", "99999999999 TiB"] {
            assert!(Bytes::read(&text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(Span::read(&text("5s")), Ok(Span(Duration::from_secs(5))));
        assert_eq!(Span::read(&text("10 min")), Ok(Span(Duration::from_mins(10))));
        assert_eq!(Span::read(&text("0ms")), Ok(Span(Duration::ZERO)));
        assert_eq!(Span::read(&text("5")), Err("\"5\" has no unit, write for example \"5s\"".to_owned()));
        assert!(Span::read(&Raw::Integer(5)).is_err());
    }

    #[test]
    fn sizes_and_durations_show_what_reads_back() {
        for bytes in [0, 1, 999, 1000, 1024, 1 << 20, 64_000_000, 64 << 20, 3 << 30, u64::MAX] {
            assert_eq!(Bytes::read(&text(&Bytes(bytes).to_string())), Ok(Bytes(bytes)));
        }
        for micros in [0, 1, 1_500, 2_000_000, 90_000_000, 3_600_000_000, 7 * 86_400_000_000] {
            let span = Span(Duration::from_micros(micros));
            assert_eq!(Span::read(&text(&span.to_string())), Ok(span));
        }
        assert_eq!(Bytes(64_000_000).to_string(), "64 MB");
        assert_eq!(Span(Duration::from_secs(90)).to_string(), "90s");
    }

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
    fn a_node_id_is_never_a_path() {
        assert!(NodeId::parse("farm-a.edge_1").is_ok());
        for wrong in ["", ".", "..", "../x", "a/b", "a b", "-a", "client", &"x".repeat(65)] {
            assert!(NodeId::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_stays_one() {
        let secret = Secret::read(&text("hunter2")).expect("valid");
        assert_eq!(format!("{secret:?} {}", secret.show()), "*** ***");
    }
}
