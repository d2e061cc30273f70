//! What a setting's type must be able to do, and the plain ones: numbers, texts, paths, and what may be left unset.
//!
//! Each reads itself from what a person writes and shows itself the way that person would write it, so the commented
//! default file, error messages and `config show` all speak one notation. Sizes and durations are in
//! [`super::quantity`], addresses, names and secrets in [`super::name`].
//!
//! * What [`Setting::toml`] writes, [`Setting::read`] reads back to the same value.

use std::fmt;
use std::path::PathBuf;

/// A value as one layer gave it, before it has a type.
#[derive(Clone, Debug, PartialEq)]
pub enum Raw {
    /// Text: a TOML string, an environment variable or a flag.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Boolean(bool),
    /// A TOML value of another kind, with that kind's name; no setting takes one.
    Other(&'static str),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Raw::Text(text) => write!(f, "{text:?}"),
            Raw::Integer(number) => write!(f, "{number}"),
            Raw::Boolean(_) => f.write_str("a boolean"),
            Raw::Other(kind) => write!(f, "a {kind}"),
        }
    }
}

/// What a setting's type must be able to do.
pub trait Setting: Sized + PartialOrd {
    /// Reads the value; the error completes the sentence `storage.memory_bytes_max: ...`.
    fn read(raw: &Raw) -> Result<Self, String>;
    /// The value as TOML; nothing where it is not set.
    fn toml(&self) -> Option<String>;
    /// The value for people: as TOML, but a secret stays one.
    fn show(&self) -> String {
        self.toml().unwrap_or_else(|| "(not set)".to_owned())
    }
    /// The value as a number: bytes, milliseconds or a count; nothing for what is none.
    fn number(&self) -> Option<u64> {
        None
    }
}

pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

impl Setting for u64 {
    fn read(raw: &Raw) -> Result<u64, String> {
        let wrong = || format!("{raw} is not a whole number");
        match raw {
            Raw::Integer(number) => u64::try_from(*number).map_err(|_| wrong()),
            Raw::Text(text) => text.trim().replace('_', "").parse().map_err(|_| wrong()),
            Raw::Boolean(_) | Raw::Other(_) => Err(wrong()),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(self.to_string())
    }

    fn number(&self) -> Option<u64> {
        Some(*self)
    }
}

impl Setting for bool {
    fn read(raw: &Raw) -> Result<bool, String> {
        match raw {
            Raw::Boolean(value) => Ok(*value),
            Raw::Text(text) if text == "true" => Ok(true),
            Raw::Text(text) if text == "false" => Ok(false),
            Raw::Text(_) | Raw::Integer(_) | Raw::Other(_) => Err(format!("{raw} is not true or false")),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for String {
    fn read(raw: &Raw) -> Result<String, String> {
        match raw {
            Raw::Text(text) => Ok(text.clone()),
            Raw::Integer(_) | Raw::Boolean(_) | Raw::Other(_) => Err(format!("{raw} is not a string")),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Setting for PathBuf {
    fn read(raw: &Raw) -> Result<PathBuf, String> {
        match String::read(raw)? {
            text if text.is_empty() => Err("an empty path".to_owned()),
            text if text.contains('\0') => Err("a path with a NUL byte".to_owned()),
            text => Ok(PathBuf::from(text)),
        }
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

/// An optional setting: the empty text, and only that, leaves it unset.
impl<T: Setting> Setting for Option<T> {
    fn read(raw: &Raw) -> Result<Option<T>, String> {
        match raw {
            Raw::Text(text) if text.is_empty() => Ok(None),
            Raw::Text(_) | Raw::Integer(_) | Raw::Boolean(_) | Raw::Other(_) => T::read(raw).map(Some),
        }
    }

    fn toml(&self) -> Option<String> {
        self.as_ref().and_then(Setting::toml)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(|| "(not set)".to_owned(), Setting::show)
    }

    fn number(&self) -> Option<u64> {
        self.as_ref().and_then(Setting::number)
    }
}
