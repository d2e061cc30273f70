//! Names of types: what PostgreSQL and the seed call the six that we have.

use super::{Translator, place};
use crate::error::{Error, Result, SqlState};
use crate::sql::statement::TypeName;
use crate::sql::suggest;
use crate::sql::value::DataType;
use sqlparser::ast::{self, CharacterLength, ExactNumberInfo};

/// Characters of a VARCHAR at most, as in PostgreSQL.
const LENGTH_MAX: u64 = 10_485_760;

/// Types that PostgreSQL has and we have not, whose names the parser takes for unknown ones.
const KNOWN_TYPES: [&str; 14] = [
    "serial",
    "bigserial",
    "smallserial",
    "serial2",
    "serial4",
    "serial8",
    "money",
    "inet",
    "cidr",
    "macaddr",
    "xml",
    "oid",
    "name",
    "timetz",
];

/// Types for a suggestion.
const OWN_TYPES: [&str; 15] = [
    "bool",
    "boolean",
    "smallint",
    "int",
    "integer",
    "bigint",
    "float",
    "real",
    "double",
    "text",
    "string",
    "varchar",
    "blob",
    "bytea",
    "timestamp",
];

impl Translator {
    /// Reads a type. The parser keeps no place for most of them, so an error points at what has the type.
    pub(super) fn type_name(&self, name: &ast::DataType, position: u32) -> Result<TypeName> {
        let plain = |data_type| Ok((data_type, None));
        let read = match name {
            ast::DataType::Bool | ast::DataType::Boolean => plain(DataType::Bool),
            ast::DataType::SmallInt(None)
            | ast::DataType::Int(None)
            | ast::DataType::Integer(None)
            | ast::DataType::BigInt(None)
            | ast::DataType::Int2(None)
            | ast::DataType::Int4(None)
            | ast::DataType::Int8(None)
            | ast::DataType::Int64 => plain(DataType::Int),
            ast::DataType::Real
            | ast::DataType::Float4
            | ast::DataType::Float8
            | ast::DataType::Float64
            | ast::DataType::Double(ExactNumberInfo::None)
            | ast::DataType::DoublePrecision
            | ast::DataType::Float(ExactNumberInfo::None) => plain(DataType::Float),
            ast::DataType::Float(ExactNumberInfo::Precision(bits)) if (1..=53).contains(bits) => plain(DataType::Float),
            ast::DataType::Text | ast::DataType::String(None) => plain(DataType::Text),
            ast::DataType::String(Some(length)) => text_of(*length),
            ast::DataType::Varchar(length)
            | ast::DataType::CharacterVarying(length)
            | ast::DataType::CharVarying(length) => match length {
                None => plain(DataType::Text),
                Some(length) => text_of_length(*length),
            },
            ast::DataType::Char(length) | ast::DataType::Character(length) => match length {
                // As in PostgreSQL, CHAR is one character.
                None => text_of(1),
                Some(length) => text_of_length(*length),
            },
            ast::DataType::Blob(None) | ast::DataType::Bytea => plain(DataType::Blob),
            // Microseconds are what is kept: another precision would round, which nobody would notice.
            ast::DataType::Timestamp(None | Some(6), _) | ast::DataType::Datetime(None | Some(6)) => {
                plain(DataType::Timestamp)
            }
            ast::DataType::Custom(name, modifiers) => {
                let name = self.object(name.clone())?;
                return Err(place(unknown_type(&name.text, !modifiers.is_empty()), name.position.max(position)));
            }
            other => Err(Error::unsupported(format_args!("type {} is", other.to_string().to_uppercase()))),
        };
        let (data_type, length_max) = read.map_err(|error| place(error, position))?;
        Ok(TypeName { data_type, declared: name.to_string().to_uppercase(), length_max })
    }
}

fn unknown_type(name: &str, modified: bool) -> Error {
    if KNOWN_TYPES.contains(&name) || (modified && OWN_TYPES.contains(&name)) {
        return Error::unsupported(format_args!("type {} is", name.to_uppercase()));
    }
    let error = Error::invalid(SqlState::UNDEFINED_OBJECT, format!("type \"{name}\" does not exist"));
    match suggest::hint(name, OWN_TYPES) {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn text_of_length(length: CharacterLength) -> Result<(DataType, Option<u32>)> {
    match length {
        CharacterLength::IntegerLength { length, unit: None } => text_of(length),
        CharacterLength::IntegerLength { .. } => Err(Error::unsupported("units of length (CHARACTERS, OCTETS) are")),
        CharacterLength::Max => Err(Error::unsupported("VARCHAR(MAX) is")),
    }
}

fn text_of(length: u64) -> Result<(DataType, Option<u32>)> {
    if (1..=LENGTH_MAX).contains(&length) {
        return Ok((DataType::Text, Some(length as u32)));
    }
    let message = format!("the length of a VARCHAR must be between 1 and {LENGTH_MAX}, not {length}");
    Err(Error::invalid(SqlState::INVALID_PARAMETER, message))
}
