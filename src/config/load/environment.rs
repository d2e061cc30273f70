//! Settings from the environment: `CHRONOS_<SECTION>__<KEY>`, and the names that the first version had.
//!
//! * A variable of a section, whatever the section, is meant for us: where there is no such setting, that is an error.
//! * So is any other variable that begins with `CHRONOS_`, for a slip would be a setting that never took effect. Passed over
//!   are those that nobody has chosen: what Kubernetes and Docker put into a container beside a service called `chronos`,
//!   and what the tests of this repository hand to the nodes that they start.

use super::super::setting::{SECTIONS, SETTINGS};
use super::super::suggest::{hint, nearest};
use super::super::unit::Raw;
use super::{Loader, Origin, find};
use std::collections::BTreeMap;

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

/// What every variable of a setting begins with.
const PREFIX: &str = "CHRONOS_";

/// The client's own, which it reads itself.
const CLIENT_TOKEN: &str = "CHRONOS_AUTH_TOKEN";

/// What the tests of this repository read; the nodes that they start inherit it.
const OF_TESTS: [&str; 15] = [
    "CHRONOS_CASES",
    "CHRONOS_CRASHES",
    "CHRONOS_CRASH_ROUNDS",
    "CHRONOS_FIRST_SEED",
    "CHRONOS_FLIPPED_BITS",
    "CHRONOS_FUZZ_CORPUS",
    "CHRONOS_FUZZ_INPUTS",
    "CHRONOS_HOT_STORE_LIES",
    "CHRONOS_LEADER_KILLS",
    "CHRONOS_PLANT_GOLDEN",
    "CHRONOS_POWER_CUTS",
    "CHRONOS_SEED",
    "CHRONOS_SEEDS",
    "CHRONOS_TEST_DATA",
    "CHRONOS_TEST_SIX_FAILURES",
];

/// True for what a container is given beside one called `chronos` or `chronos-...`. Kubernetes: `CHRONOS_SERVICE_HOST`,
/// `CHRONOS_EDGE_SERVICE_PORT_GRPC`, and an address by port, as `CHRONOS_PORT` (`tcp://10.0.0.1:8000`) and
/// `CHRONOS_PORT_8000_TCP_ADDR`. Docker's links: the same addresses, `CHRONOS_NAME` (`/gateway/chronos`), and the other's
/// own variables as `CHRONOS_ENV_...`. A plain number in `CHRONOS_PORT` is somebody's slip.
fn is_of_a_service(rest: &str, value: &str) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    let is_pair = |pair: &[&str]| match pair {
        ["SERVICE", "HOST" | "PORT"] => true,
        ["PORT", number] => number.parse::<u16>().is_ok(),
        _ => false,
    };
    words.windows(2).any(is_pair)
        || words.contains(&"ENV")
        || match words.last() {
            Some(&"PORT") => value.contains("://"),
            Some(&"NAME") => value.starts_with('/'),
            Some(_) | None => false,
        }
}

impl Loader {
    pub(super) fn environment(&mut self, environment: &BTreeMap<String, String>) {
        // An empty variable is how compose files and shells say "not set".
        for (name, value) in environment.iter().filter(|(_, value)| !value.is_empty()) {
            let raw = Raw::Text(value.clone());
            let origin = Origin::Environment(name.clone());
            if let Some((_, section, key)) = SEED_VARIABLES.iter().find(|known| known.0 == name) {
                self.set(section, key, &raw, origin);
                continue;
            }
            let Some(rest) = name.strip_prefix(PREFIX) else { continue };
            match rest.split_once("__") {
                Some((section, key)) => {
                    let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
                    if find(&section, &key).is_some() {
                        self.set(&section, &key, &raw, origin);
                    } else {
                        self.problem(origin, unknown(&section, &key));
                    }
                }
                None if name == CLIENT_TOKEN || OF_TESTS.contains(&name.as_str()) || is_of_a_service(rest, value) => {}
                None => self.problem(origin, format!("unknown variable{}", nearest_variable(name, rest))),
            }
        }
    }
}

/// The variable of a setting.
fn variable(section: &str, key: &str) -> String {
    format!("{PREFIX}{}__{}", section.to_ascii_uppercase(), key.to_ascii_uppercase())
}

/// The sentence's end: the variable that a whole name is nearest to, the one of the setting whose key it is without its
/// section, or how variables are made.
fn nearest_variable(name: &str, rest: &str) -> String {
    let settings: Vec<String> = SETTINGS.iter().map(|known| variable(known.section, known.name)).collect();
    let near = hint(name, SEED_VARIABLES.iter().map(|known| known.0).chain(settings.iter().map(String::as_str)));
    if !near.is_empty() {
        return near;
    }
    match SETTINGS.iter().find(|known| known.name.eq_ignore_ascii_case(rest)) {
        Some(known) => format!(", did you mean {:?}?", variable(known.section, known.name)),
        None => {
            format!(": a setting's is {PREFIX}<SECTION>__<KEY>, and `chronos config default` lists the settings")
        }
    }
}

/// What is wrong with a name of two parts, each of which may be a slip, and what it may have meant.
fn unknown(section: &str, key: &str) -> String {
    let sections = || SECTIONS.iter().map(|known| known.name);
    let meant = sections().find(|known| *known == section).or_else(|| nearest(section, sections()));
    let keys = |section: &'static str| SETTINGS.iter().filter(move |known| known.section == section);
    let near = meant.and_then(|section| nearest(key, keys(section).map(|known| known.name)).map(|key| (section, key)));
    // The right key in the wrong section, where the right section holds nothing like it.
    let elsewhere = || SETTINGS.iter().find(|known| known.name == key).map(|known| (known.section, known.name));
    let is_section = sections().any(|known| known == section);
    match near.or_else(elsewhere) {
        Some((meant, near)) => {
            format!("unknown setting \"{section}.{key}\", did you mean {:?}?", variable(meant, near))
        }
        None if is_section => format!("unknown setting \"{section}.{key}\""),
        None => format!("unknown setting \"{section}.{key}\": no section \"{section}\"{}", hint(section, sections())),
    }
}
