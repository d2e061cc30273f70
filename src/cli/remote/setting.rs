//! `SET consistency` and `SET max_staleness`: what this session says with each statement from then on.
//!
//! A node has no session to keep them in: each request says how fresh its reads must be. So they are kept here, where the
//! session is, and the node refuses a SET that reaches it.

use crate::actors::freshness::{CONSISTENCY, Freshness, MAX_STALENESS};
use chronos::error::{Error, Result, SqlState};
use tonic::Request;

/// What is said with each request, as far as it was set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    consistency: Option<String>,
    max_staleness: Option<String>,
}

impl Settings {
    /// Takes a statement if it sets something that is kept here; none where it is for the node.
    pub fn take(&mut self, statement: &str) -> Option<Result<()>> {
        let rest = after_word(statement.trim(), "set")?;
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let mut next = self.clone();
        let slot = match name.to_ascii_lowercase().as_str() {
            "consistency" => &mut next.consistency,
            "max_staleness" => &mut next.max_staleness,
            _ => return None,
        };
        let Some(value) = value(rest) else {
            let message = format!("write SET {name} = 'value', or SET {name} = DEFAULT");
            return Some(Err(Error::invalid(SqlState::SYNTAX_ERROR, message)));
        };
        *slot = match value {
            To::Default => None,
            To::Value(value) => Some(value),
        };
        let checked = Freshness::parse(next.consistency.as_deref(), next.max_staleness.as_deref());
        Some(checked.map(|_| *self = next))
    }

    /// Says it with a request.
    pub fn sign<T>(&self, request: &mut Request<T>) {
        for (name, value) in [(CONSISTENCY, &self.consistency), (MAX_STALENESS, &self.max_staleness)] {
            // Whatever has been checked is a header.
            if let Some(value) = value.as_ref().and_then(|value| value.parse().ok()) {
                request.metadata_mut().insert(name, value);
            }
        }
    }
}

/// What follows a word and space.
fn after_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(word.len())?;
    let is_apart = rest.starts_with(|c: char| c.is_whitespace());
    (head.eq_ignore_ascii_case(word) && is_apart).then(|| rest.trim_start())
}

/// What something is set to.
enum To {
    /// As if it had not been set.
    Default,
    Value(String),
}

/// The value of `= value` or `TO value`, quoted or not.
fn value(text: &str) -> Option<To> {
    let text = text.trim_start();
    let text = text.strip_prefix('=').or_else(|| after_word(text, "to"))?;
    let text = text.trim_end_matches(|c: char| c == ';' || c.is_whitespace()).trim_start();
    if text.eq_ignore_ascii_case("default") {
        return Some(To::Default);
    }
    let quoted = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\''));
    let bare = || text.chars().all(|c| c.is_ascii_alphanumeric()).then_some(text);
    quoted.or_else(bare).filter(|value| !value.is_empty()).map(|value| To::Value(value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_said_until_it_is_set_again() {
        let mut settings = Settings::default();
        let said = |settings: &Settings| {
            let mut request = Request::new(());
            settings.sign(&mut request);
            let get = |name: &str| request.metadata().get(name).map(|value| value.to_str().unwrap().to_owned());
            (get(CONSISTENCY), get(MAX_STALENESS))
        };
        assert_eq!(said(&settings), (None, None));
        settings.take("SET consistency = 'stale'").unwrap().unwrap();
        settings.take("set MAX_STALENESS to 5s;").unwrap().unwrap();
        assert_eq!(said(&settings), (Some("stale".into()), Some("5s".into())));
        let refused = settings.take("SET consistency = lease").unwrap().unwrap_err();
        assert!(refused.to_string().contains("max_staleness"), "{refused}");
        assert_eq!(said(&settings), (Some("stale".into()), Some("5s".into())), "it stays as it was");
        settings.take("SET max_staleness = DEFAULT").unwrap().unwrap();
        settings.take("SET consistency=lease").unwrap().unwrap();
        assert_eq!(said(&settings), (Some("lease".into()), None));
    }

    #[test]
    fn what_is_not_kept_here_goes_to_the_node() {
        let mut settings = Settings::default();
        for statement in ["SELECT 1", "SET timezone = 'UTC'", "SETTLE", "set", "UPDATE t SET consistency = 'stale'", ""]
        {
            assert!(settings.take(statement).is_none(), "{statement}");
        }
        for statement in [
            "SET consistency",
            "SET consistency =",
            "SET consistency stale",
            "SET consistency = 'a",
            "SET consistency = eventual",
        ] {
            assert!(settings.take(statement).unwrap().is_err(), "{statement}");
        }
        assert_eq!(settings, Settings::default());
    }
}
