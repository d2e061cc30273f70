//! Settings from the environment: `CHRONOS_<SECTION>__<KEY>`, and the names that the first version had.
//!
//! * A variable of a section, whatever the section, is meant for us: where there is no such setting, that is an error.
//! * Others may have variables that begin with `CHRONOS_`: of those only what is nearly one of ours is surely a slip.

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
                None if name == CLIENT_TOKEN => {}
                None => {
                    let near = nearest_variable(name);
                    if !near.is_empty() {
                        self.problem(origin, format!("unknown variable{near}"));
                    }
                }
            }
        }
    }
}

/// The variable of a setting.
fn variable(section: &str, key: &str) -> String {
    format!("{PREFIX}{}__{}", section.to_ascii_uppercase(), key.to_ascii_uppercase())
}

/// The sentence's end: the variable that a whole name is nearest to, or nothing.
fn nearest_variable(name: &str) -> String {
    let settings: Vec<String> = SETTINGS.iter().map(|known| variable(known.section, known.name)).collect();
    hint(name, SEED_VARIABLES.iter().map(|known| known.0).chain(settings.iter().map(String::as_str)))
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
