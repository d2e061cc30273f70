//! What a caller may do, decided by what a statement is and never by how it begins.
//!
//! A caller that may only read is stopped in three places, each of which would do alone:
//!
//! * its text is parsed first, and a statement that is not made of reading alone is refused
//!   ([`Statement::is_read_only`]: EXPLAIN ANALYZE is judged by what it runs);
//! * what was bound and yields no rows is refused before it is evaluated;
//! * the daemon's members of a group refuse to propose for it.
//!
//! The ways that read a text without parsing it (an INSERT of literals, short or long) are never taken for such a caller.

use super::Executor;
use crate::error::SqlState;
use crate::sql::statement::Statement;
use crate::{Error, Result};

/// What a caller may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    #[default]
    ReadWrite,
    /// Statements that change nothing.
    ReadOnly,
}

impl Access {
    /// Refuses who may not write.
    ///
    /// # Errors
    /// 42501.
    pub fn check_write(self) -> Result<()> {
        match self {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => {
                let message = "permission denied: this token may only read";
                Err(Error::invalid(SqlState::INSUFFICIENT_PRIVILEGE, message)
                    .hint("send the statement with the admin token"))
            }
        }
    }
}

impl Executor {
    /// The tree of a text whose caller may only read; none for callers who may do everything.
    ///
    /// # Errors
    /// 42501 for what is more than a read, and what is wrong with a text that cannot be parsed.
    pub(super) fn permitted(&self, sql: &str, access: Access) -> Result<Option<Statement>> {
        match access {
            Access::ReadWrite => Ok(None),
            Access::ReadOnly => {
                self.limits.parse.check_text(sql)?;
                let statement = self.parse(sql)?;
                if !statement.is_read_only() {
                    access.check_write()?;
                }
                Ok(Some(statement))
            }
        }
    }
}
