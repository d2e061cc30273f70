//! The ceilings of a node by name: what `/status` shows beside how much of each is used.
//!
//! From the one list of settings, so a ceiling that is added there is shown without anybody thinking of it. Those that
//! are derived from another one where they are unset are shown with what they come to.

use super::setting::{Config, SETTINGS};
use super::unit::Setting;

/// Sections whose numbers are ceilings.
const SECTIONS: [&str; 4] = ["raft", "storage", "ttl", "limits"];

/// One ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceiling {
    /// As the configuration names it, `limits.mailbox`.
    pub name: String,
    /// Bytes, milliseconds or a count.
    pub number: u64,
    /// As the configuration writes it.
    pub text: String,
}

impl Config {
    /// Every ceiling, in the order of the default file.
    pub fn ceilings(&self) -> Vec<Ceiling> {
        let known = SETTINGS.iter().filter(|known| SECTIONS.contains(&known.section));
        let ceiling = |section: &str, name: &str| {
            let derived = match (section, name) {
                ("storage", "disk_reserve") => Some(self.disk_reserve()),
                ("limits", "in_flight_bytes_max") => Some(self.in_flight()),
                ("limits", "query_memory_bytes") => Some(self.query_memory()),
                _ => None,
            };
            let (number, text) = match derived {
                Some(bytes) => (bytes.number(), bytes.to_string()),
                None => (self.number(section, name), self.show(section, name)?),
            };
            let text = text.trim_matches('"').to_owned();
            Some(Ceiling { name: format!("{section}.{name}"), number: number?, text })
        };
        known.filter_map(|known| ceiling(known.section, known.name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_those_sections_is_a_ceiling_even_where_it_is_derived() {
        let ceilings = Config::default().ceilings();
        let find = |name: &str| ceilings.iter().find(|ceiling| ceiling.name == name).expect(name);
        assert_eq!((find("limits.mailbox").number, find("limits.mailbox").text.as_str()), (1024, "1024"));
        assert_eq!(find("storage.disk_reserve").number, 128 << 20);
        assert_eq!(find("limits.in_flight_bytes_max").number, 48 << 20);
        assert_eq!(find("limits.query_memory_bytes").text, Config::default().query_memory().to_string());
        assert_eq!(
            (find("limits.statement_timeout").number, find("limits.statement_timeout").text.as_str()),
            (30_000, "30s")
        );
        let of_sections = SETTINGS.iter().filter(|known| SECTIONS.contains(&known.section)).count();
        assert_eq!(ceilings.len(), of_sections, "all of them are numbers");
    }
}
