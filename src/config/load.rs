//! From the four places to one [`Config`] that knows where each value came from.
//!
//! ```text
//! file text ──parse──> (section, key, value, line) ─┐
//! environment ───────> (section, key, value, name) ─┼─> set in order, later wins ──> Config + origins
//! flags ─────────────> (section, key, value, flag) ─┘                 └─> Problems, all of them
//! ```

use super::cluster::{Member, Role, distinct, parse_peers};
use super::name::{Address, NodeId};
use super::setting::{Config, Known, SECTIONS, SETTINGS};
use super::suggest::hint;
use super::unit::{Raw, Setting};
use std::collections::BTreeMap;
use std::fmt;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Variables that the first version of `ChronosDB` had; they keep their names. `CHRONOS_AUTH_TOKEN` is the client's.
pub const SEED_VARIABLES: [(&str, &str, &str); 10] = [
    ("RUST_LOG", "log", "level"),
    ("CHRONOS_LOG_FILE", "log", "file"),
    ("CHRONOS_LOG_MAX_SIZE_MB", "log", "max_size_mb"),
    ("CHRONOS_LOG_MAX_FILES", "log", "max_files"),
    ("CHRONOS_AUTH_TOKEN_ADMIN", "auth", "token_admin"),
    ("CHRONOS_AUTH_TOKEN_READONLY", "auth", "token_readonly"),
    ("CHRONOS_TLS_CERT", "tls", "cert"),
    ("CHRONOS_TLS_KEY", "tls", "key"),
    ("CHRONOS_TLS_CA_CERT", "tls", "ca_cert"),
    ("CHRONOS_TLS_DOMAIN", "tls", "domain"),
];

/// Settings that this version cannot honour, and what they belong to.
const UNSUPPORTED: [(&str, &str, &str); 9] = [
    ("sync", "target", "synchronisation is"),
    ("sync", "interval_secs", "synchronisation is"),
    ("sync", "batch_size", "synchronisation is"),
    ("auth", "token_admin", "tokens are"),
    ("auth", "token_readonly", "tokens are"),
    ("tls", "cert", "TLS is"),
    ("tls", "key", "TLS is"),
    ("tls", "ca_cert", "TLS is"),
    ("tls", "domain", "TLS is"),
];

/// Where a value came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// A file.
    File {
        /// Its name as given.
        path: String,
        /// The line, counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag, with its dashes.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{path}:{line}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// What, naming the setting.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => f.write_str(&self.message),
            origin @ (Origin::File { .. } | Origin::Environment(_) | Origin::Flag(_)) => {
                write!(f, "{origin}: {}", self.message)
            }
        }
    }
}

/// Everything that is wrong; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A flag that sets a setting.
#[derive(Clone, Debug)]
pub struct Flag {
    /// As typed, `--data-dir`.
    pub flag: &'static str,
    /// The section it sets.
    pub section: &'static str,
    /// The key it sets.
    pub name: &'static str,
    /// The value as typed.
    pub value: String,
}

/// The places where settings stand.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    /// Name and text of the file.
    pub file: Option<(&'a str, &'a str)>,
    /// The environment; only `CHRONOS_*` and `RUST_LOG` are looked at.
    pub environment: BTreeMap<String, String>,
    /// The flags.
    pub flags: Vec<Flag>,
    /// The value of `--peers`.
    pub peers: Option<String>,
}

/// A configuration, and where each value came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    origins: BTreeMap<(&'static str, &'static str), Origin>,
    members_origin: Origin,
}

impl Loaded {
    /// Where a value came from.
    pub fn origin(&self, section: &str, name: &str) -> &Origin {
        const DEFAULT: &Origin = &Origin::Default;
        self.origins.iter().find(|(key, _)| **key == (section, name)).map_or(DEFAULT, |(_, origin)| origin)
    }

    /// Refuses by name what this version cannot do yet. Being configured and ignored would be worse than either.
    pub fn supported(&self) -> Result<(), Problems> {
        let mut problems = Vec::new();
        let mut refuse = |origin: &Origin, what: String| {
            problems.push(Problem { origin: origin.clone(), message: format!("{what} not supported by this version") });
        };
        let peers: Vec<String> = self.config.cluster.peers(&self.config.node.id).map(ToString::to_string).collect();
        if !peers.is_empty() {
            refuse(&self.members_origin, format!("peers ({}): groups of more than one node are", peers.join(", ")));
        }
        let default = Config::default();
        for (section, name, what) in UNSUPPORTED {
            // What the commented default file says anyway asks for nothing.
            if self.config.toml(section, name) != default.toml(section, name) {
                let value = self.config.show(section, name).unwrap_or_default();
                refuse(self.origin(section, name), format!("{section}.{name} ({value}): {what}"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }
}

/// Reads all places into one configuration, or says everything that is wrong.
pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
    let mut loader = Loader::default();
    if let Some((path, text)) = sources.file {
        loader.file(path, text);
    }
    loader.environment(&sources.environment);
    for flag in &sources.flags {
        loader.set(flag.section, flag.name, &Raw::Text(flag.value.clone()), Origin::Flag(flag.flag));
    }
    loader.members(sources.peers.as_deref());
    if loader.problems.is_empty() {
        let wrong = loader.config.contradictions();
        loader.problems.extend(wrong.into_iter().map(|message| Problem { origin: Origin::Default, message }));
    }
    if !loader.problems.is_empty() {
        return Err(Problems(loader.problems));
    }
    Ok(Loaded { config: loader.config, origins: loader.origins, members_origin: loader.members_origin })
}

fn find(section: &str, name: &str) -> Option<&'static Known> {
    SETTINGS.iter().find(|known| known.section == section && known.name == name)
}

/// The end of an error about an unknown name: what it may have meant.
fn meant(section: &str, name: &str) -> String {
    let here = SETTINGS.iter().filter(|known| known.section == section).map(|known| known.name);
    let near = hint(name, here);
    if !near.is_empty() {
        return near;
    }
    match SETTINGS.iter().find(|known| known.name == name) {
        Some(known) => format!(", did you mean \"{}.{}\"?", known.section, known.name),
        None => String::new(),
    }
}

#[derive(Default)]
struct Loader {
    config: Config,
    origins: BTreeMap<(&'static str, &'static str), Origin>,
    members_origin: Origin,
    problems: Vec<Problem>,
}

impl Loader {
    fn problem(&mut self, origin: Origin, message: String) {
        self.problems.push(Problem { origin, message });
    }

    fn set(&mut self, section: &str, name: &str, raw: &Raw, origin: Origin) {
        let Some(known) = find(section, name) else {
            return self.problem(origin, format!("unknown setting \"{section}.{name}\"{}", meant(section, name)));
        };
        match self.config.set(section, name, raw) {
            Ok(()) => {
                self.origins.insert((known.section, known.name), origin);
            }
            Err(error) => self.problem(origin, format!("{section}.{name}: {error}")),
        }
    }

    fn file(&mut self, path: &str, text: &str) {
        let at = |offset: usize| Origin::File {
            path: path.to_owned(),
            line: text.as_bytes()[..offset.min(text.len())].split(|byte| *byte == b'\n').count(),
        };
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in &errors {
            let offset = error.span().map_or(0, |span| span.start);
            self.problem(at(offset), error.message().replace('\n', ", "));
        }
        if !errors.is_empty() {
            return;
        }
        for (key, value) in document.get_ref() {
            self.table(key, value, &at);
        }
    }

    fn table(&mut self, key: &Spanned<std::borrow::Cow<str>>, value: &Spanned<DeValue>, at: &dyn Fn(usize) -> Origin) {
        let section = key.get_ref().as_ref();
        let origin = at(key.span().start);
        let table = match value.get_ref() {
            DeValue::Table(table) => table,
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => {
                let message = format!("\"{section}\" stands outside a section{}", meant("", section));
                return self.problem(origin, message);
            }
        };
        if section == "cluster" {
            return self.cluster(table, at);
        }
        let sections = SECTIONS.iter().map(|section| section.name);
        if !sections.clone().any(|known| known == section) {
            let near = hint(section, sections.chain(["cluster"]));
            return self.problem(origin, format!("unknown section \"[{section}]\"{near}"));
        }
        for (key, value) in table {
            self.set(section, key.get_ref(), &raw(value.get_ref()), at(key.span().start));
        }
    }

    fn cluster(&mut self, table: &DeTable, at: &dyn Fn(usize) -> Origin) {
        for (key, value) in table {
            let origin = at(key.span().start);
            match (key.get_ref().as_ref(), value.get_ref().as_array()) {
                ("members", Some(members)) => {
                    self.members_origin = origin;
                    for member in members {
                        self.member(member, at);
                    }
                }
                ("members", None) => {
                    self.problem(origin, "cluster.members is written as [[cluster.members]] tables".to_owned());
                }
                (name, _) => {
                    let message = format!("unknown setting \"cluster.{name}\"{}", hint(name, ["members"]));
                    self.problem(origin, message);
                }
            }
        }
    }

    fn member(&mut self, value: &Spanned<DeValue>, at: &dyn Fn(usize) -> Origin) {
        let origin = at(value.span().start);
        let Some(table) = value.get_ref().as_table() else {
            return self.problem(origin, "cluster.members is written as [[cluster.members]] tables".to_owned());
        };
        let (mut id, mut address, mut role) = (None, None, Role::Voter);
        for (key, value) in table {
            let here = at(key.span().start);
            let name = key.get_ref().as_ref();
            let raw = raw(value.get_ref());
            let outcome = match name {
                "id" => NodeId::read(&raw).map(|value| id = Some(value)),
                "address" => Address::read(&raw).map(|value| address = Some(value)),
                "role" => match String::read(&raw).map(|text| Role::parse(&text)) {
                    Ok(Some(value)) => {
                        role = value;
                        Ok(())
                    }
                    Ok(None) | Err(_) => Err(format!("{raw} is not one of {}", Role::NAMES.join(", "))),
                },
                _ => Err(format!("unknown setting{}", hint(name, ["id", "address", "role"]))),
            };
            if let Err(error) = outcome {
                self.problem(here, format!("cluster.members.{name}: {error}"));
            }
        }
        let (Some(id), Some(address)) = (id, address) else {
            return self.problem(origin, "a member needs id and address".to_owned());
        };
        let member = Member { id, address, role };
        match distinct(&self.config.cluster.members, &member) {
            Ok(()) => self.config.cluster.members.push(member),
            Err(error) => self.problem(origin, format!("cluster.members: {error}")),
        }
    }

    fn environment(&mut self, environment: &BTreeMap<String, String>) {
        // An empty variable is how compose files and shells say "not set".
        for (name, value) in environment.iter().filter(|(_, value)| !value.is_empty()) {
            let raw = Raw::Text(value.clone());
            let origin = Origin::Environment(name.clone());
            if let Some((_, section, key)) = SEED_VARIABLES.iter().find(|known| known.0 == name) {
                self.set(section, key, &raw, origin);
                continue;
            }
            let Some(rest) = name.strip_prefix("CHRONOS_") else { continue };
            match rest.split_once("__") {
                Some((section, key)) => {
                    self.set(&section.to_ascii_lowercase(), &key.to_ascii_lowercase(), &raw, origin);
                }
                None if name == "CHRONOS_AUTH_TOKEN" => {}
                // Others may have variables of that prefix; only what is nearly one of ours is surely a slip.
                None => {
                    let near = hint(name, SEED_VARIABLES.iter().map(|known| known.0));
                    if !near.is_empty() {
                        self.problem(origin, format!("unknown variable{near}"));
                    }
                }
            }
        }
    }

    /// `--peers` replaces the members of a file; this node is then added by itself.
    fn members(&mut self, peers: Option<&str>) {
        let node = &self.config.node;
        let address = node.advertise.clone().unwrap_or_else(|| node.address.clone());
        if let Some(text) = peers {
            let origin = Origin::Flag("--peers");
            match parse_peers(text, &node.id, &address) {
                Ok(peers) => {
                    let own = Member { id: node.id.clone(), address, role: Role::Voter };
                    self.config.cluster.members = std::iter::once(own).chain(peers).collect();
                    self.members_origin = origin;
                }
                Err(error) => self.problem(origin, error),
            }
        } else if !self.config.cluster.members.is_empty()
            && !self.config.cluster.members.iter().any(|member| member.id == node.id)
        {
            let message = format!("[[cluster.members]] does not name this node, \"{}\"", node.id);
            self.problem(self.members_origin.clone(), message);
        }
    }
}

fn raw(value: &DeValue) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Raw::Integer(number),
            Err(_) => Raw::Other("number beyond 64 bits"),
        },
        DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Raw::Other(value.type_str())
        }
    }
}
