//! From the four places to one [`Config`] that knows where each value came from.
//!
//! ```text
//! file text ──parse──> (section, key, value, line) ─┐
//! environment ───────> (section, key, value, name) ─┼─> set in order, later wins ──> Config + origins
//! flags ─────────────> (section, key, value, flag) ─┘                 └─> Problems, all of them
//! ```

mod environment;
mod file;
mod problem;

use super::MEMBERS;
use super::cluster::{Member, Role, parse_peers};
use super::setting::{Config, Known, SETTINGS};
use super::suggest::hint;
use super::unit::Raw;
use std::collections::BTreeMap;

pub use environment::SEED_VARIABLES;
pub use problem::{Origin, Problem, Problems};

/// Settings that this version cannot honour, and what they belong to.
const UNSUPPORTED: [(&str, &str, &str); 3] = [
    ("sync", "target", "synchronisation is"),
    ("sync", "interval_secs", "synchronisation is"),
    ("sync", "batch_size", "synchronisation is"),
];

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
        let default = Config::default();
        for (section, name, what) in UNSUPPORTED {
            // What the commented default file says anyway asks for nothing.
            if self.config.toml(section, name) != default.toml(section, name) {
                let value = self.config.show(section, name).unwrap_or_default();
                refuse(self.origin(section, name), format!("{section}.{name} ({value}): {what}"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Problems::sorted(problems)) }
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
        let wrong = loader.config.contradictions().into_iter();
        let wrong: Vec<Problem> =
            wrong.map(|wrong| Problem { origin: loader.place(wrong.about), message: wrong.message }).collect();
        loader.problems.extend(wrong);
    }
    if !loader.problems.is_empty() {
        return Err(Problems::sorted(loader.problems));
    }
    Ok(Loaded { config: loader.config, origins: loader.origins })
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

    /// Where the first of these settings stands that anybody has set.
    fn place(&self, about: &[(&'static str, &'static str)]) -> Origin {
        let of = |name: &(&'static str, &'static str)| {
            if *name == MEMBERS { Some(&self.members_origin) } else { self.origins.get(name) }
        };
        let set = about.iter().filter_map(of).find(|origin| **origin != Origin::Default);
        set.cloned().unwrap_or_default()
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
        } else if !self.config.cluster.members.is_empty()
            && !self.config.cluster.members.iter().any(|member| member.role == Role::Voter)
        {
            let message = "[[cluster.members]] has no voter: somebody must have the data".to_owned();
            self.problem(self.members_origin.clone(), message);
        }
    }
}
