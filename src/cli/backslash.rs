//! Lines for the program itself, at the prompt and in scripts alike: `\dt`, `\format csv`. They never reach the database.

use super::output::Format;
use super::session::quote_name;

/// What a line that begins with `\` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backslash {
    /// `\q`
    Leave,
    /// `\d`, `\dt`, `\d TABLE`: this statement is run.
    Statement(String),
    /// `\timing`, with `on` or `off`; without, the other of the two.
    Timing(Option<bool>),
    /// `\format`
    Format(Format),
    /// `\help`
    Help,
}

/// What is said where help is asked for.
pub const HELP: &str = "\
SQL ends with a semicolon and may span lines. Besides SQL:
  \\dt                        list the tables
  \\d                         the same
  \\d TABLE                   columns, indexes and TTL of a table
  \\timing                    show the time a statement took, on or off
  \\format table|csv|json     how results are written
  \\q, exit, quit             leave (also Ctrl-D)
  help, \\help, \\?            this text
Ctrl-C cancels the input or the running statement.";

/// True for a line on which somebody leaves, as `exit` or `quit`. It counts only where a statement could begin.
pub fn leaves(line: &str) -> bool {
    let word = line.trim().trim_end_matches(';').trim_end();
    ["exit", "quit"].iter().any(|leave| word.eq_ignore_ascii_case(leave))
}

impl Backslash {
    /// Reads a line; an error says what to write instead.
    pub fn parse(line: &str) -> Result<Backslash, String> {
        let line = line.trim().trim_end_matches(';').trim_end();
        let (command, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let argument = argument.trim();
        Ok(match (command, argument) {
            ("\\q", "") => Backslash::Leave,
            ("\\d" | "\\dt", "") => Backslash::Statement("SHOW TABLES".to_owned()),
            ("\\d", table) => Backslash::Statement(format!("SHOW COLUMNS FROM {}", as_typed(table))),
            ("\\timing", "") => Backslash::Timing(None),
            ("\\timing", "on") => Backslash::Timing(Some(true)),
            ("\\timing", "off") => Backslash::Timing(Some(false)),
            ("\\timing", _) => return Err("write \\timing, \\timing on or \\timing off".to_owned()),
            ("\\format", "table") => Backslash::Format(Format::Table),
            ("\\format", "csv") => Backslash::Format(Format::Csv),
            ("\\format", "json") => Backslash::Format(Format::Json),
            ("\\format", _) => return Err("write \\format table, \\format csv or \\format json".to_owned()),
            ("\\help" | "\\?" | "\\h", _) => Backslash::Help,
            _ => return Err(format!("unknown command {line:?}; \\help lists them")),
        })
    }
}

/// What `\timing` leads to, and how that is said.
pub fn timing(now: bool, asked: Option<bool>) -> (bool, &'static str) {
    if asked.unwrap_or(!now) { (true, "timing is on") } else { (false, "timing is off") }
}

/// A table name as SQL: typed quotes stay, anything that is not a plain name is quoted.
fn as_typed(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if plain || name.starts_with('"') { name.to_owned() } else { quote_name(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_name_is_quoted_where_it_must_be() {
        assert_eq!(as_typed("sensors"), "sensors");
        assert_eq!(as_typed("\"A b\""), "\"A b\"");
        assert_eq!(as_typed("a;b"), "\"a;b\"");
    }

    #[test]
    fn a_line_is_read_whatever_surrounds_it() {
        assert_eq!(Backslash::parse(" \\dt ; "), Ok(Backslash::Statement("SHOW TABLES".to_owned())));
        assert_eq!(Backslash::parse("\\d\tT1;"), Ok(Backslash::Statement("SHOW COLUMNS FROM T1".to_owned())));
        assert_eq!(Backslash::parse("\\timing off"), Ok(Backslash::Timing(Some(false))));
        assert_eq!(Backslash::parse("\\q"), Ok(Backslash::Leave));
    }

    #[test]
    fn a_word_of_its_own_leaves() {
        assert!(["exit", "quit", " EXIT ; \n", "Quit\r\n"].iter().all(|line| leaves(line)));
        assert!(["", "exit now", "SELECT exit", "exits"].iter().all(|line| !leaves(line)));
    }

    #[test]
    fn what_is_not_known_says_what_is() {
        for (line, says) in
            [("\\format xml", "\\format csv"), ("\\timing maybe", "\\timing on"), ("\\copy t", "\\help")]
        {
            let error = Backslash::parse(line).expect_err("not known");
            assert!(error.contains(says), "{error}");
        }
    }
}
