//! What the body of `POST /sql` asks for.
//!
//! * An unknown field is an error: a misspelt `consistency` that was ignored would answer something else. So is a field
//!   that stands there twice: which of the two was meant, nobody knows.
//! * Texts are read where they stand and copied once; a general JSON tree would hold the body twice, and a body of
//!   short numbers thirty times. Parameters and statements are counted as they come.

use crate::actors::freshness::{CONSISTENCY, Freshness, MAX_STALENESS};
use chronos::error::{Error, Result, SqlState};
use chronos::sql::execute::BATCH_STATEMENTS_MAX;
use chronos::sql::value::Value;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// Parameters of one statement; as many as PostgreSQL takes.
const PARAMETERS_MAX: usize = 65_535;

/// Characters of an unknown field in the error about it.
const NAME_CHARS_MAX: usize = 64;

/// Characters of the parser's words in an error.
const TOLD_CHARS_MAX: usize = 300;

/// How the parser calls one half of a surrogate pair (RFC 8259, section 7): without the other, with no pair, or before
/// something else.
const HALF_CHARACTER: [&str; 2] = ["lone leading surrogate", "unexpected end of hex escape"];

/// What a body asks for.
#[derive(Debug, PartialEq)]
pub enum Asked {
    /// One statement with its parameters.
    One(Vec<Value>, String),
    /// Statements that take effect together.
    Batch(Vec<String>),
}

impl Asked {
    /// Bytes of all statements and their parameters.
    pub fn bytes(&self) -> usize {
        match self {
            Asked::One(parameters, sql) => sql.len() + parameters.iter().map(value_bytes).sum::<usize>(),
            Asked::Batch(texts) => texts.iter().map(String::len).sum(),
        }
    }
}

fn value_bytes(value: &Value) -> usize {
    let apart = match value {
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Timestamp(_) => 0,
    };
    size_of::<Value>() + apart
}

/// How fresh reads must be, as the head of a request says it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Said<'a> {
    /// The header [`CONSISTENCY`].
    pub consistency: Option<&'a str>,
    /// The header [`MAX_STALENESS`].
    pub max_staleness: Option<&'a str>,
}

/// Reads a body. NaN is not JSON, and is refused by the parser, naming line and column.
pub fn read(body: &[u8], head: Said<'_>) -> Result<(Asked, Freshness)> {
    let malformed = |what: String| Error::invalid(SqlState::INVALID_PARAMETER, what);
    let whole: Whole = serde_json::from_slice(body).map_err(|error| {
        // What is JSON and not what is asked for is told in our own words; a value in them may be as long as the body.
        let told: String = error.to_string().chars().take(TOLD_CHARS_MAX).collect();
        malformed(if error.is_data() {
            told
        } else if HALF_CHARACTER.iter().any(|words| told.starts_with(words)) {
            let place = format!("line {} column {}", error.line(), error.column());
            format!(
                "the body has half a character at {place}: \\ud800 to \\udfff are no characters of their own, two of \
                 them together are one (\\ud83d\\ude00), and text holds whole ones"
            )
        } else {
            format!("the body is not JSON: {told}")
        })
    })?;
    let fields = match whole {
        Whole::Batch(texts) => {
            return Ok((Asked::Batch(some(texts)?), Freshness::parse(head.consistency, head.max_staleness)?));
        }
        Whole::Object(fields) => fields,
    };
    let said = |word: Option<Word>| word.and_then(|Word(text)| text);
    let (level, age) = (said(fields.consistency), said(fields.max_staleness));
    let level = one_of("consistency", level.as_deref(), CONSISTENCY, head.consistency)?;
    let age = one_of("max_staleness", age.as_deref(), MAX_STALENESS, head.max_staleness)?;
    let freshness = Freshness::parse(level, age)?;
    let parameters = fields.params.map_or_else(Vec::new, |Parameters(read)| read);
    let parameters = parameters.into_iter().map(|parameter| parameter.0).collect::<Result<Vec<Value>>>()?;
    match (fields.sql, fields.statements) {
        (Some(sql), None) => Ok((Asked::One(parameters, sql), freshness)),
        (None, Some(_)) if !parameters.is_empty() => Err(Error::unsupported("\"params\" beside \"statements\" are")),
        (None, Some(texts)) => Ok((Asked::Batch(some(texts)?), freshness)),
        (Some(_), Some(_)) | (None, None) => {
            Err(malformed("the body has either \"sql\", a string, or \"statements\", an array".to_string()))
        }
    }
}

/// What is said in the body or in the head. Where both say it they agree: which of the two was meant, nobody knows.
fn one_of<'a>(field: &str, body: Option<&'a str>, header: &str, head: Option<&'a str>) -> Result<Option<&'a str>> {
    match (body, head) {
        (Some(body), Some(head)) if body != head => {
            let message = format!("\"{field}\" is \"{body}\" in the body, and {header} is \"{head}\"");
            Err(Error::invalid(SqlState::INVALID_PARAMETER, message))
        }
        (body, head) => Ok(body.or(head)),
    }
}

fn some(texts: Texts) -> Result<Vec<String>> {
    if texts.0.is_empty() {
        return Err(Error::invalid(SqlState::INVALID_PARAMETER, "a batch has at least one statement"));
    }
    Ok(texts.0)
}

/// A body.
enum Whole {
    Batch(Texts),
    Object(Fields),
}

/// The fields of an object, each none until it was there.
#[derive(Default)]
struct Fields {
    sql: Option<String>,
    statements: Option<Texts>,
    params: Option<Parameters>,
    consistency: Option<Word>,
    max_staleness: Option<Word>,
}

struct WholeVisitor;

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Whole, D::Error> {
        deserializer.deserialize_any(WholeVisitor)
    }
}

impl<'de> Visitor<'de> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("an object with \"sql\", or an array of statements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, statements: A) -> Result<Whole, A::Error> {
        TextsVisitor.visit_seq(statements).map(Whole::Batch)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Whole, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = object.next_key::<String>()? {
            match name.as_str() {
                "sql" => once(&mut fields.sql, &name, object.next_value()?)?,
                "statements" => once(&mut fields.statements, &name, object.next_value()?)?,
                "params" => once(&mut fields.params, &name, object.next_value()?)?,
                "consistency" => once(&mut fields.consistency, &name, object.next_value()?)?,
                "max_staleness" => once(&mut fields.max_staleness, &name, object.next_value()?)?,
                _ => return Err(unknown(&name)),
            }
        }
        Ok(Whole::Object(fields))
    }
}

fn once<T, E: serde::de::Error>(field: &mut Option<T>, name: &str, value: T) -> Result<(), E> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::custom(format!("the field \"{name}\" is there twice"))),
    }
}

fn unknown<E: serde::de::Error>(name: &str) -> E {
    E::custom(format!("unknown field \"{}\"", name.chars().take(NAME_CHARS_MAX).collect::<String>()))
}

/// The statements of a batch: strings, or objects with nothing but `sql`.
struct Texts(Vec<String>);

struct TextsVisitor;

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Texts, D::Error> {
        deserializer.deserialize_seq(TextsVisitor)
    }
}

impl<'de> Visitor<'de> for TextsVisitor {
    type Value = Texts;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("an array of statements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut statements: A) -> Result<Texts, A::Error> {
        let mut texts = Vec::new();
        while let Some(Text(text)) = statements.next_element()? {
            if texts.len() == BATCH_STATEMENTS_MAX {
                return Err(A::Error::custom(format!("a batch has at most {BATCH_STATEMENTS_MAX} statements")));
            }
            texts.push(text);
        }
        Ok(Texts(texts))
    }
}

/// A statement of a batch.
struct Text(String);

struct TextVisitor;

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Text, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("a statement: a string, or an object with \"sql\" and nothing else")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Text, A::Error> {
        let mut sql = None;
        while let Some(name) = object.next_key::<String>()? {
            if name != "sql" {
                return Err(unknown(&name));
            }
            once(&mut sql, &name, object.next_value()?)?;
        }
        sql.map(Text).ok_or_else(|| A::Error::missing_field("sql"))
    }
}

/// The name of a consistency, or an age; null is none.
#[derive(Deserialize)]
struct Word(Option<String>);

/// Values for `$1`, `$2`, ...; null is none.
struct Parameters(Vec<Parameter>);

struct ParametersVisitor;

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parameters, D::Error> {
        deserializer.deserialize_any(ParametersVisitor)
    }
}

impl<'de> Visitor<'de> for ParametersVisitor {
    type Value = Parameters;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("an array of parameters")
    }

    fn visit_unit<E>(self) -> Result<Parameters, E> {
        Ok(Parameters(Vec::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parameters: A) -> Result<Parameters, A::Error> {
        let mut read = Vec::new();
        while let Some(parameter) = parameters.next_element()? {
            if read.len() == PARAMETERS_MAX {
                return Err(A::Error::custom(format!("a statement has at most {PARAMETERS_MAX} parameters")));
            }
            read.push(parameter);
        }
        Ok(Parameters(read))
    }
}

/// One value; a number may be JSON and no value of ours, which has a code of its own.
struct Parameter(Result<Value>);

struct ParameterVisitor;

impl<'de> Deserialize<'de> for Parameter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parameter, D::Error> {
        deserializer.deserialize_any(ParameterVisitor)
    }
}

impl Visitor<'_> for ParameterVisitor {
    type Value = Parameter;

    fn expecting(&self, out: &mut fmt::Formatter) -> fmt::Result {
        out.write_str("a number, a string, a boolean or null")
    }

    fn visit_unit<E>(self) -> Result<Parameter, E> {
        Ok(Parameter(Ok(Value::Null)))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Parameter, E> {
        Ok(Parameter(Ok(Value::Bool(value))))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Parameter, E> {
        Ok(Parameter(Ok(Value::Int(value))))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Parameter, E> {
        let wide = || Error::invalid(SqlState::NUMERIC_OUT_OF_RANGE, format!("{value} is out of range for INT"));
        Ok(Parameter(i64::try_from(value).map(Value::Int).map_err(|_| wide())))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Parameter, E> {
        Ok(Parameter(Ok(Value::Float(value))))
    }

    fn visit_str<E>(self, value: &str) -> Result<Parameter, E> {
        Ok(Parameter(Ok(Value::Text(value.to_owned()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &[u8]) -> Result<(Asked, Freshness)> {
        super::read(body, Said::default())
    }

    #[test]
    fn the_head_says_how_fresh_reads_are_where_the_body_does_not() {
        let head = Said { consistency: Some("stale"), max_staleness: Some("3s") };
        for body in [&br#"{"sql": "A"}"#[..], br#"["A"]"#, br#"{"sql": "A", "consistency": "stale"}"#] {
            let (_, freshness) = super::read(body, head).unwrap();
            assert_eq!((freshness.consistency.name(), freshness.max_staleness.unwrap().as_secs()), ("stale", 3));
        }
        let told = |body: &[u8], head| super::read(body, head).unwrap_err().to_string();
        let both = told(br#"{"sql": "A", "consistency": "lease"}"#, head);
        assert!(both.contains("\"consistency\" is \"lease\" in the body"), "{both}");
        let wrong = Said { consistency: Some("eventual"), max_staleness: None };
        assert!(told(br#"["A"]"#, wrong).contains("linearizable"), "{}", told(br#"["A"]"#, wrong));
    }

    #[test]
    fn an_object_is_one_statement_and_an_array_a_batch() {
        let (asked, freshness) =
            read(br#"{"sql": "SELECT $1", "params": [1, 0.5, "a", null], "consistency": "stale"}"#).unwrap();
        let parameters = vec![Value::Int(1), Value::Float(0.5), Value::Text("a".into()), Value::Null];
        assert_eq!(asked.bytes(), "SELECT $1".len() + 4 * size_of::<Value>() + 1);
        assert_eq!(asked, Asked::One(parameters, "SELECT $1".into()));
        assert_eq!(freshness.consistency.name(), "stale");
        let (_, freshness) = read(br#"{"sql": "A", "max_staleness": "3s", "consistency": null}"#).unwrap();
        assert_eq!((freshness.consistency.name(), freshness.max_staleness.unwrap().as_secs()), ("stale", 3));
        let batch = Asked::Batch(vec!["A".into(), "B".into()]);
        assert_eq!(read(br#"["A", {"sql": "B"}]"#).unwrap().0, batch);
        assert_eq!(read(br#"{"statements": ["A", "B"]}"#).unwrap().0, batch);
    }

    #[test]
    fn a_wrong_body_is_told_what_is_wrong() {
        let told = |body: &[u8]| read(body).unwrap_err().to_string();
        assert!(told(b"{\"sql\": NaN}").contains("not JSON"), "{}", told(b"{\"sql\": NaN}"));
        assert!(told(br#"{"sql": "A", "sqll": 1}"#).contains("unknown field \"sqll\""));
        assert!(told(br#"{"sql": "A", "params": [18446744073709551615]}"#).contains("out of range for INT"));
        assert!(told(br#"{"sql": "A", "consistency": "eventual"}"#).contains("linearizable"));
        assert!(told(br#"{"sql": "A", "consistency": "lease", "max_staleness": "3s"}"#).contains("stale reads"));
        assert!(told(b"[]").contains("at least one"));
        assert!(told(b"7").contains("object"));
        assert!(told(br#"{"sql": "A", "statements": ["B"]}"#).contains("either"));
        assert!(told(br#"{"sql": "A", "params": [[1]]}"#).contains("a number, a string, a boolean or null"));
        assert!(told(br#"[{"sql": "A", "params": []}]"#).contains("unknown field \"params\""));
        assert!(told(b"[{}]").contains("sql"));
        let long = format!(r#"{{"params": "{}"}}"#, "v".repeat(1000));
        assert!(told(long.as_bytes()).len() < 400, "{}", told(long.as_bytes()));
        let long = format!("{{\"{}\": 1}}", "n".repeat(1000));
        assert!(told(long.as_bytes()).len() < 200, "{}", told(long.as_bytes()));
    }

    #[test]
    fn half_a_character_is_told_from_other_mistakes() {
        let told = |body: &[u8]| read(body).unwrap_err().to_string();
        for half in [r"\ud83d", r"\ude00", r"\ud83d\ud83d", r"\ud83dx", r"\ud83d\n"] {
            let told = told(format!(r#"{{"sql": "SELECT '{half}'"}}"#).as_bytes());
            assert!(told.contains("half a character at line 1 column "), "{half}: {told}");
        }
        assert!(told(br#"{"sql": "\u12"}"#).contains("not JSON"));
        let (asked, _) = read(br#"{"sql": "\ud83d\ude00"}"#).unwrap();
        assert_eq!(asked, Asked::One(Vec::new(), "\u{1f600}".into()));
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused() {
        let told = |body: &[u8]| read(body).unwrap_err().to_string();
        assert!(told(br#"{"sql": "A", "sql": "B"}"#).contains("the field \"sql\" is there twice"));
        assert!(told(br#"{"sql": "A", "s\u0071l": "B"}"#).contains("twice"), "however it is written");
        assert!(told(br#"{"sql": "A", "params": null, "params": [1]}"#).contains("\"params\" is there twice"));
        assert!(told(br#"{"sql": "A", "consistency": null, "consistency": null}"#).contains("twice"));
        assert!(told(br#"[{"sql": "A", "sql": "B"}]"#).contains("twice"));
    }

    #[test]
    fn what_may_be_many_is_counted_as_it_comes() {
        let many = |count: usize| format!(r#"{{"sql": "A", "params": [{}1]}}"#, "1,".repeat(count - 1));
        assert!(read(many(PARAMETERS_MAX).as_bytes()).is_ok());
        assert!(read(many(PARAMETERS_MAX + 1).as_bytes()).unwrap_err().to_string().contains("at most 65535"));
        let many = |count: usize| format!(r#"[{}"A"]"#, r#""A","#.repeat(count - 1));
        assert!(read(many(BATCH_STATEMENTS_MAX).as_bytes()).is_ok());
        assert!(read(many(BATCH_STATEMENTS_MAX + 1).as_bytes()).unwrap_err().to_string().contains("at most 10000"));
    }
}
