//! The names of writes, by which a group knows one that comes again.
//!
//! A session that talks to several nodes gives each of its writes a `UUIDv7`: where the leader dies under one, the next node
//! is sent it under the same name, and the group answers what became of it, or executes it now.
//!
//! * Bare names and no session of the group's: those are kept for 90 days and have a ceiling, and a script a minute would
//!   come to it.
//! * A name carries the time. A machine whose clock is wrong by more than ten minutes has its first name refused, and its
//!   writes go without from then on, as they do where there is only one node.

use super::reads;
use chronos::clock::{Clock, SystemClock, random_u128};
use chronos::error::{Error, Result, SqlState};
use tonic::metadata::{Ascii, MetadataValue};

/// Draws the names of a session's writes.
pub struct Names {
    is_wanted: bool,
}

impl Names {
    /// Names, or none.
    pub fn new(is_wanted: bool) -> Names {
        Names { is_wanted }
    }

    /// The name of a statement; none for one that only reads.
    pub fn next(&self, statement: &str) -> Result<Option<MetadataValue<Ascii>>> {
        if !self.is_wanted || reads(statement) {
            return Ok(None);
        }
        let name = uuid(SystemClock.wall().0, random_u128()?);
        let value = name.parse().map_err(|_| Error::internal(format!("the name {name} is no header")));
        value.map(Some)
    }

    /// True where a node has refused a name because of the time in it; there are no names from then on. Several writes may
    /// be on their way with one.
    pub fn refused(&mut self, error: &Error) -> bool {
        let of_the_time = [SqlState::REQUEST_ID_EXPIRED, SqlState::REQUEST_ID_FORGOTTEN];
        let is_refused = of_the_time.contains(&error.sqlstate());
        if is_refused && self.is_wanted {
            eprintln!("this machine's clock is not the group's: writes go without a name, and may end in doubt");
            self.is_wanted = false;
        }
        is_refused
    }
}

/// A `UUIDv7` (RFC 9562): 48 bits of milliseconds, version and variant, chance.
fn uuid(wall_ms: u64, chance: u128) -> String {
    let number = u128::from(wall_ms) << 80 | chance & ((1 << 80) - 1);
    let number = number & !(0xf << 76) & !(0b11 << 62) | 7 << 76 | 0b10 << 62;
    let digits = format!("{number:032x}");
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::messages::{REQUEST_ID, request_id};
    use chronos::machine::RequestId;

    #[test]
    fn a_name_is_a_version_seven_of_now() {
        let uuid = uuid(0x0123_4567_89ab, u128::MAX);
        assert_eq!(uuid, "01234567-89ab-7fff-bfff-ffffffffffff");
        let read = request_id(|name| (name == REQUEST_ID).then_some(uuid.as_str())).unwrap();
        assert!(matches!(read, Some(RequestId::Bare(number)) if number >> 80 == 0x0123_4567_89ab), "{read:?}");
    }

    #[test]
    fn only_writes_to_several_nodes_have_names_and_none_twice() {
        let names = Names::new(true);
        let name = |statement| names.next(statement).unwrap();
        assert!(name("SELECT 1").is_none() && Names::new(false).next("INSERT INTO t VALUES (1)").unwrap().is_none());
        assert_ne!(name("INSERT INTO t VALUES (1)"), name("INSERT INTO t VALUES (1)"));
    }

    #[test]
    fn a_wrong_clock_ends_names_and_nothing_else_does() {
        let mut names = Names::new(true);
        let wrong = |state| Error::invalid(state, "the request id is older than it may be");
        assert!(!names.refused(&wrong(SqlState::INVALID_PARAMETER)));
        assert!(names.refused(&wrong(SqlState::REQUEST_ID_EXPIRED)));
        assert!(names.next("INSERT INTO t VALUES (1)").unwrap().is_none());
        assert!(names.refused(&wrong(SqlState::REQUEST_ID_EXPIRED)), "of another write that was on its way");
        assert!(Names::new(true).refused(&wrong(SqlState::REQUEST_ID_FORGOTTEN)));
    }
}
