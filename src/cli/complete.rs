//! Completion at the prompt: keywords, tables and their columns.

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

/// The words of the dialect that start or join clauses.
const KEYWORDS: &[&str] = &[
    "ADD",
    "ALL",
    "ALTER",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "AVG",
    "BETWEEN",
    "BOOL",
    "BY",
    "CASE",
    "CAST",
    "COALESCE",
    "COLUMN",
    "COLUMNS",
    "CONFLICT",
    "COUNT",
    "CREATE",
    "CROSS",
    "DEFAULT",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DO",
    "DROP",
    "ELSE",
    "END",
    "EXISTS",
    "EXPLAIN",
    "FALSE",
    "FLOAT",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "ILIKE",
    "IN",
    "INDEX",
    "INNER",
    "INSERT",
    "INT",
    "INTO",
    "IS",
    "JOIN",
    "KEY",
    "LEFT",
    "LIKE",
    "LIMIT",
    "MAX",
    "MIN",
    "NOT",
    "NOTHING",
    "NULL",
    "NULLIF",
    "OFFSET",
    "ON",
    "OR",
    "ORDER",
    "OUTER",
    "PRIMARY",
    "RIGHT",
    "SELECT",
    "SET",
    "SHOW",
    "STRING",
    "SUM",
    "TABLE",
    "TABLES",
    "TEXT",
    "THEN",
    "TIMESTAMP",
    "TRUE",
    "TTL",
    "UNION",
    "UNIQUE",
    "UPDATE",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
];

/// What a line may begin with besides SQL.
const COMMANDS: &[&str] = &["\\d", "\\dt", "\\format", "\\help", "\\q", "\\timing"];

/// Candidates shown at most: a longer list says nothing.
const CANDIDATES_MAX: usize = 100;

/// Completes words; knows the names that the session last saw.
#[derive(Debug, Default)]
pub struct Names {
    names: Vec<String>,
}

impl Names {
    /// Replaces the known tables and columns.
    pub fn set(&mut self, names: Vec<String>) {
        self.names = names;
    }

    /// The words that go on from `word`, in the case it is typed in.
    fn candidates(&self, word: &str, first: bool) -> Vec<String> {
        if word.is_empty() {
            return Vec::new();
        }
        if word.starts_with('\\') {
            let fit = COMMANDS.iter().filter(|command| first && command.starts_with(word));
            return fit.map(|command| (*command).to_owned()).collect();
        }
        let lower = word.to_lowercase();
        let small = word.chars().any(char::is_lowercase);
        let names = self.names.iter().filter(|name| name.to_lowercase().starts_with(&lower)).cloned();
        let keywords = KEYWORDS
            .iter()
            .filter(|keyword| keyword.to_lowercase().starts_with(&lower))
            .map(|keyword| if small { keyword.to_lowercase() } else { (*keyword).to_owned() });
        names.chain(keywords).take(CANDIDATES_MAX).collect()
    }
}

impl Completer for Names {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '\\');
        let start = line[..pos].char_indices().rev().take_while(|(_, c)| part(*c)).last().map_or(pos, |(at, _)| at);
        Ok((start, self.candidates(&line[start..pos], line[..start].trim().is_empty())))
    }
}

impl Hinter for Names {
    type Hint = String;
}

impl Highlighter for Names {}
impl Validator for Names {}
impl Helper for Names {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_before_keywords_and_keep_the_typed_case() {
        let mut names = Names::default();
        names.set(vec!["sensors".to_owned(), "seven".to_owned()]);
        assert_eq!(names.candidates("SE", false), ["sensors", "seven", "SELECT", "SET"]);
        assert_eq!(names.candidates("sel", false), ["select"]);
        assert!(names.candidates("", false).is_empty());
    }

    #[test]
    fn commands_are_completed_only_in_front() {
        assert_eq!(Names::default().candidates("\\d", true), ["\\d", "\\dt"]);
        assert!(Names::default().candidates("\\d", false).is_empty());
    }
}
