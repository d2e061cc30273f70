//! How fresh a request's reads must be, as doors and clients say it.
//!
//! | consistency | `max_staleness` | what is read |
//! |---|---|---|
//! | `linearizable`, the default | refused | all that was committed when the request came |
//! | `lease` | refused | the same, if clocks run at about the same speed |
//! | `stale` | none | what this node has, however old |
//! | `stale`, or not said | `5s` | what this node has, if a leader has shown that it held everything 5 s ago |
//!
//! What is older than it may be is refused as unavailable: another node may have it, and whoever would rather wait reads
//! linearizable.

use chronos::config::{Raw, Setting, Span};
use chronos::error::{Error, Result, SqlState};
use std::time::Duration;

/// Header or metadata: how fresh reads must be.
pub const CONSISTENCY: &str = "x-chronos-consistency";

/// Header or metadata: how old what a stale read finds may be.
pub const MAX_STALENESS: &str = "x-chronos-max-staleness";

/// How fresh a read must be, from cheapest to dearest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// What this node has.
    Stale,
    /// What the leader has, by its clock.
    Lease,
    /// What the leader has, confirmed.
    #[default]
    Linearizable,
}

impl Consistency {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Consistency::Stale => "stale",
            Consistency::Lease => "lease",
            Consistency::Linearizable => "linearizable",
        }
    }

    /// Reads a level's name.
    pub fn parse(name: &str) -> Result<Consistency> {
        match name {
            "stale" => Ok(Consistency::Stale),
            "lease" => Ok(Consistency::Lease),
            "linearizable" => Ok(Consistency::Linearizable),
            _ => Err(Error::invalid(
                SqlState::INVALID_PARAMETER,
                format!("consistency is stale, lease or linearizable, got \"{name}\""),
            )),
        }
    }
}

/// How fresh a request's reads must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freshness {
    /// Whose word counts.
    pub consistency: Consistency,
    /// How old what is read may be, where only this node's word counts.
    pub max_staleness: Option<Duration>,
}

impl Freshness {
    /// Reads both, as far as they are said.
    ///
    /// # Errors
    ///
    /// 22023 for what is no level or no duration, and for an age beside a level that has none.
    pub fn parse(consistency: Option<&str>, max_staleness: Option<&str>) -> Result<Freshness> {
        let wrong = |what: String| Error::invalid(SqlState::INVALID_PARAMETER, what);
        let named = consistency.map(Consistency::parse).transpose()?;
        let Some(age) = max_staleness else {
            return Ok(Freshness { consistency: named.unwrap_or_default(), max_staleness: None });
        };
        let read = Span::read(&Raw::Text(age.to_owned())).map_err(|error| wrong(format!("max_staleness: {error}")))?;
        match named {
            None | Some(Consistency::Stale) => {
                Ok(Freshness { consistency: Consistency::Stale, max_staleness: Some(read.0) })
            }
            Some(level @ (Consistency::Lease | Consistency::Linearizable)) => {
                let name = level.name();
                Err(wrong(format!("max_staleness is for stale reads, and consistency is {name}, which is never old")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_means_a_stale_read() {
        let parse = |level, age| Freshness::parse(level, age).map_err(|error| error.to_string());
        assert_eq!(parse(None, None).unwrap(), Freshness::default());
        let aged = Freshness { consistency: Consistency::Stale, max_staleness: Some(Duration::from_secs(5)) };
        assert_eq!(parse(None, Some("5s")), Ok(aged));
        assert_eq!(parse(Some("stale"), Some("5s")), Ok(aged));
        assert_eq!(parse(Some("lease"), None).unwrap().consistency, Consistency::Lease);
        assert!(parse(Some("lease"), Some("5s")).unwrap_err().contains("for stale reads"));
        assert!(parse(Some("linearizable"), Some("5s")).unwrap_err().contains("for stale reads"));
        for age in ["", "5", "fast", "-1s"] {
            assert!(parse(None, Some(age)).unwrap_err().contains("max_staleness"), "{age}");
        }
        assert!(parse(Some("eventual"), None).unwrap_err().contains("linearizable"));
    }
}
