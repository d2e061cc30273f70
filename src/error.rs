//! One error for the whole crate, sorted by what the caller does next.
//!
//! A caller of a database asks three things of an error: is it my statement, may I try again, did it happen?
//! [`Kind`] answers them; [`SqlState`] names the case for programs, the message for people. Messages are lower case,
//! without a full stop, and name the thing: `table "sensors" does not exist`.
//!
//! * Every error has a SQLSTATE; the codes are PostgreSQL's wherever PostgreSQL has the case.
//! * [`Kind::InDoubt`] is the only kind after which the outcome of a write is unknown.

use std::borrow::Cow;
use std::fmt;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request itself is wrong: change it. Trying again gives the same answer.
    Invalid,
    /// Another writer came first: evaluate again, at once.
    Conflict,
    /// A ceiling was reached (memory, time, size): ask for less, or raise the limit named.
    Limit,
    /// Nothing happened, and it may work later or elsewhere.
    Unavailable,
    /// Nothing happened: too much is in flight. Try again after a pause.
    Overloaded,
    /// The write may or may not have happened: read before writing again.
    InDoubt,
    /// Stored bytes are not what was written: restore from a peer or a backup.
    Damaged,
    /// The operating system refused: disk full, permission, input/output error.
    Io,
    /// A broken promise inside the program: report it.
    Internal,
}

impl Kind {
    /// Every kind with its name, as nodes tell each other.
    const NAMES: [(Kind, &'static str); 9] = [
        (Kind::Invalid, "invalid"),
        (Kind::Conflict, "conflict"),
        (Kind::Limit, "limit"),
        (Kind::Unavailable, "unavailable"),
        (Kind::Overloaded, "overloaded"),
        (Kind::InDoubt, "in doubt"),
        (Kind::Damaged, "damaged"),
        (Kind::Io, "io"),
        (Kind::Internal, "internal"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Kind::NAMES.iter().find(|(kind, _)| *kind == self).map_or("internal", |(_, name)| name)
    }

    /// Reads a name.
    pub fn parse(name: &str) -> Option<Kind> {
        Kind::NAMES.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind)
    }
}

/// A five-character code of the SQL standard, with PostgreSQL's extensions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SqlState([u8; 5]);

macro_rules! states {
    ($($(#[$doc:meta])* $name:ident = $code:literal;)*) => {
        impl SqlState { $($(#[$doc])* pub const $name: SqlState = SqlState(*$code);)* }
    };
}

states! {
    /// 08007: the outcome of a transaction is unknown.
    IN_DOUBT = b"08007";
    /// 08P01: the peer does not speak the protocol.
    PROTOCOL_VIOLATION = b"08P01";
    /// 0A000: the feature is not supported.
    FEATURE_NOT_SUPPORTED = b"0A000";
    /// 22001: a string is longer than its column.
    STRING_TOO_LONG = b"22001";
    /// 22003: a number is out of range.
    NUMERIC_OUT_OF_RANGE = b"22003";
    /// 22007: a date or time cannot be read.
    INVALID_DATETIME = b"22007";
    /// 22008: a date or time is out of range.
    DATETIME_OVERFLOW = b"22008";
    /// 22012: division by zero.
    DIVISION_BY_ZERO = b"22012";
    /// 22021: bytes are not UTF-8, or text has a NUL.
    INVALID_ENCODING = b"22021";
    /// 22023: a parameter has a value that is not allowed.
    INVALID_PARAMETER = b"22023";
    /// 2201W: LIMIT is not a non-negative integer.
    INVALID_LIMIT = b"2201W";
    /// 2201X: OFFSET is not a non-negative integer.
    INVALID_OFFSET = b"2201X";
    /// 22025: a LIKE pattern ends in its escape character.
    INVALID_ESCAPE = b"22025";
    /// 22P02: text cannot be read as the type.
    INVALID_TEXT = b"22P02";
    /// 22P04: a file to copy from is malformed.
    BAD_COPY_FORMAT = b"22P04";
    /// 23502: NULL in a NOT NULL column.
    NOT_NULL_VIOLATION = b"23502";
    /// 23505: a key exists already.
    UNIQUE_VIOLATION = b"23505";
    /// 25006: a write in a read-only place.
    READ_ONLY = b"25006";
    /// 28000: who is asking is not known.
    INVALID_AUTHORIZATION = b"28000";
    /// 40001: another transaction changed what this one saw.
    SERIALIZATION_FAILURE = b"40001";
    /// 42501: who is asking may not.
    INSUFFICIENT_PRIVILEGE = b"42501";
    /// 42601: the statement does not parse.
    SYNTAX_ERROR = b"42601";
    /// 42602: a name is not allowed.
    INVALID_NAME = b"42602";
    /// 42611: a column definition is not allowed.
    INVALID_COLUMN_DEFINITION = b"42611";
    /// 42622: a name is too long.
    NAME_TOO_LONG = b"42622";
    /// 42701: a column is named twice.
    DUPLICATE_COLUMN = b"42701";
    /// 42725: an operator or function fits in more than one way.
    AMBIGUOUS_FUNCTION = b"42725";
    /// 42702: a column name fits more than one table.
    AMBIGUOUS_COLUMN = b"42702";
    /// 42703: no such column.
    UNDEFINED_COLUMN = b"42703";
    /// 42704: no such object (index, type, setting).
    UNDEFINED_OBJECT = b"42704";
    /// 42710: an object exists already.
    DUPLICATE_OBJECT = b"42710";
    /// 42803: a column is neither grouped nor aggregated.
    GROUPING_ERROR = b"42803";
    /// 42804: types do not fit.
    DATATYPE_MISMATCH = b"42804";
    /// 42809: the object is of the wrong kind.
    WRONG_OBJECT_TYPE = b"42809";
    /// 42846: no such cast.
    CANNOT_COERCE = b"42846";
    /// 42883: no such function or operator for these types.
    UNDEFINED_FUNCTION = b"42883";
    /// 42P01: no such table.
    UNDEFINED_TABLE = b"42P01";
    /// 42P07: a table exists already.
    DUPLICATE_TABLE = b"42P07";
    /// 42P10: a column reference is not allowed here.
    INVALID_COLUMN_REFERENCE = b"42P10";
    /// 42P16: a table definition is not allowed.
    INVALID_TABLE_DEFINITION = b"42P16";
    /// 53100: the disk is full.
    DISK_FULL = b"53100";
    /// 53200: out of the memory a query may take.
    OUT_OF_MEMORY = b"53200";
    /// 53300: too much in flight.
    TOO_MANY_REQUESTS = b"53300";
    /// 54000: a limit of the program was exceeded.
    LIMIT_EXCEEDED = b"54000";
    /// 54001: a statement is nested too deeply.
    TOO_COMPLEX = b"54001";
    /// 55000: the object is not in a state that allows this.
    NOT_IN_STATE = b"55000";
    /// 55006: in use by another process.
    IN_USE = b"55006";
    /// 57014: cancelled, or past its deadline.
    QUERY_CANCELED = b"57014";
    /// 57P03: the node cannot serve now.
    CANNOT_CONNECT_NOW = b"57P03";
    /// 58030: input/output error.
    IO_ERROR = b"58030";
    /// 72000: the snapshot is older than what is kept.
    SNAPSHOT_TOO_OLD = b"72000";
    /// F0000: a configuration is wrong.
    CONFIG_ERROR = b"F0000";
    /// RQ001: the name of a request is too old, or too far ahead, for its outcome to be known; it was not executed.
    REQUEST_ID_EXPIRED = b"RQ001";
    /// RQ002: so many requests have names that those as old as this one are forgotten; it was not executed.
    REQUEST_ID_FORGOTTEN = b"RQ002";
    /// RQ003: the request took effect, and its answer is not kept or does not fit.
    REQUEST_APPLIED = b"RQ003";
    /// XX000: a broken promise inside the program.
    INTERNAL = b"XX000";
    /// XX001: stored data is damaged.
    DATA_CORRUPTED = b"XX001";
    /// XX0L1: log or state are whole, and say what this program does not understand.
    NOT_UNDERSTOOD = b"XX0L1";
}

impl SqlState {
    /// The five characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or("XX000")
    }

    /// Reads a code that another node sent; anything but five ASCII characters is `XX000`.
    pub fn parse(code: &str) -> SqlState {
        match <[u8; 5]>::try_from(code.as_bytes()) {
            Ok(bytes) if code.is_ascii() => SqlState(bytes),
            _ => SqlState::INTERNAL,
        }
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The beginning of a text that may be long: a duplicate key is quoted in its error, and can be megabytes.
pub fn cut(text: &str, bytes_max: usize) -> String {
    let end = text.floor_char_boundary(bytes_max);
    if end == text.len() { text.to_owned() } else { format!("{}...", &text[..end]) }
}

/// What went wrong. One pointer wide, so results stay small.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    kind: Kind,
    state: SqlState,
    message: Cow<'static, str>,
    /// Character offset in the statement, counted from 1, as PostgreSQL does.
    position: Option<u32>,
    hint: Option<String>,
}

impl Error {
    /// An error of any kind; the constructors below name the common ones.
    pub fn new(kind: Kind, state: SqlState, message: impl Into<Cow<'static, str>>) -> Error {
        Error(Box::new(Inner { kind, state, message: message.into(), position: None, hint: None }))
    }

    /// The request is wrong.
    pub fn invalid(state: SqlState, message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Invalid, state, message)
    }

    /// The feature is known and not there: `window functions are not supported`.
    pub fn unsupported(what: impl fmt::Display) -> Error {
        Error::invalid(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} not supported"))
    }

    /// Another writer came first.
    pub fn conflict(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Conflict, SqlState::SERIALIZATION_FAILURE, message)
    }

    /// A ceiling was reached.
    pub fn limit(state: SqlState, message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Limit, state, message)
    }

    /// Nothing happened; later it may work.
    pub fn unavailable(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Unavailable, SqlState::CANNOT_CONNECT_NOW, message)
    }

    /// Nothing happened; too much is in flight.
    pub fn overloaded(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Overloaded, SqlState::TOO_MANY_REQUESTS, message)
    }

    /// The write may or may not have happened.
    pub fn in_doubt(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::InDoubt, SqlState::IN_DOUBT, message)
    }

    /// Stored bytes are damaged; `what` names file and place.
    pub fn damaged(what: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Damaged, SqlState::DATA_CORRUPTED, what)
    }

    /// What is stored is whole, and this program does not understand it: most likely a newer one has written it. It is the
    /// same on every replica, so nothing is fetched anew for it and nothing is given up: the process ends.
    pub fn not_understood(what: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Internal, SqlState::NOT_UNDERSTOOD, what)
    }

    /// A promise inside the program was broken.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Error {
        Error::new(Kind::Internal, SqlState::INTERNAL, message)
    }

    /// The operating system refused; `doing` says what was tried: `write raft/7.wal`.
    pub fn io(doing: impl fmt::Display, source: &std::io::Error) -> Error {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let is_full = matches!(source.kind(), StorageFull | QuotaExceeded);
        let state = if is_full { SqlState::DISK_FULL } else { SqlState::IO_ERROR };
        Error::new(Kind::Io, state, format!("cannot {doing}: {source}"))
    }

    /// The same error, pointing where `place` moves its position, if it has one.
    #[must_use]
    pub fn moved(mut self, place: impl FnOnce(u32) -> u32) -> Error {
        self.0.position = self.0.position.map(place);
        self
    }

    /// The same error, pointing at a character of the statement (counted from 1).
    #[must_use]
    pub fn at(mut self, position: u32) -> Error {
        self.0.position.get_or_insert(position);
        self
    }

    /// The same error, with a sentence on what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same error, with what was being done in front: `table "t": ...`.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Error {
        self.0.message = format!("{what}: {}", self.0.message).into();
        self
    }

    /// What the caller does next.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The stable code.
    pub fn sqlstate(&self) -> SqlState {
        self.0.state
    }

    /// The text alone, without the hint.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where in the statement, counted in characters from 1.
    pub fn position(&self) -> Option<u32> {
        self.0.position
    }

    /// What to do about it, where there is something to say.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// True where the same request may succeed later and has changed nothing so far.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, Kind::Conflict | Kind::Unavailable | Kind::Overloaded)
    }

    /// True where every replica comes to the same error from the same log: such an outcome of apply is an answer.
    /// Any other error of apply stops the node, since its state can no longer be trusted to equal its peers'.
    pub fn is_deterministic(&self) -> bool {
        matches!(self.0.kind, Kind::Invalid | Kind::Conflict)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}: {self}", self.0.kind, self.0.state)
    }
}

impl std::error::Error for Error {}
