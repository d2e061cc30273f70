//! The prompt: one line after another until a `;`, then the answer.
//!
//! * Ctrl-C gives up what is typed, Ctrl-D leaves; nothing else ends the session, errors least of all.
//! * Lines that begin with `\` are for the prompt itself and never reach the database.

use super::backslash::{self, Backslash, HELP};
use super::complete::Names;
use super::output::{Format, Writer};
use super::report;
use super::session::{Session, fetch, names, quote_name};
use super::split::Splitter;
use super::{Stdout, Stop};
use chronos::Error;
use chronos::clock::{Clock, SystemClock};
use chronos::sql::translate::first_word;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PROMPT: &str = "chronos> ";
const PROMPT_MORE: &str = "      -> ";

/// Statements kept in the history file.
const HISTORY_MAX: usize = 1000;

/// Tables whose columns are known to completion: a schema beyond that is not worth the questions at start.
const COMPLETED_TABLES_MAX: usize = 50;

/// A conversation at a terminal.
pub struct Repl<'a> {
    session: &'a mut dyn Session,
    format: Format,
    timing: bool,
    editor: Editor<Names, FileHistory>,
    history: PathBuf,
    splitter: Splitter,
    clock: SystemClock,
}

/// What a line leads to.
enum Next {
    Go,
    Leave,
}

impl<'a> Repl<'a> {
    /// Prepares the editor; the history is kept in `directory`.
    pub fn new(session: &'a mut dyn Session, directory: &Path, format: Format) -> Result<Repl<'a>, Stop> {
        let failed = |error: ReadlineError| Stop::Message(format!("cannot use the terminal: {error}"));
        let config = Config::builder()
            .completion_type(CompletionType::List)
            .max_history_size(HISTORY_MAX)
            .map_err(failed)?
            .history_ignore_space(true)
            .build();
        let mut editor = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Names::default()));
        let history = directory.join("history");
        // A session without its history is still a session; a directory that cannot be written is said once.
        match std::fs::create_dir_all(directory) {
            Ok(()) => {
                let _ = editor.load_history(&history);
            }
            Err(error) => eprintln!("no history: cannot create {}: {error}", directory.display()),
        }
        Ok(Repl { session, format, timing: true, editor, history, splitter: Splitter::default(), clock: SystemClock })
    }

    /// Talks until the user leaves.
    pub fn run(&mut self) -> Result<(), Stop> {
        self.learn_names();
        loop {
            let prompt = if self.splitter.is_blank() { PROMPT } else { PROMPT_MORE };
            match self.editor.readline(prompt) {
                Ok(line) => {
                    if let Next::Leave = self.line(&line)? {
                        break;
                    }
                }
                Err(ReadlineError::Interrupted) => self.splitter.clear(),
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(Stop::Message(format!("cannot read from the terminal: {error}"))),
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str) -> Result<Next, Stop> {
        if self.splitter.is_blank() {
            if backslash::leaves(line) {
                return Ok(Next::Leave);
            }
            if line.trim().trim_end_matches(';').trim_end().eq_ignore_ascii_case("help") {
                println!("{HELP}");
                return Ok(Next::Go);
            }
        }
        for statement in self.splitter.push(&format!("{line}\n")) {
            if statement.is_backslash() {
                self.remember(&statement.text);
                if let Next::Leave = self.command(&statement.text)? {
                    return Ok(Next::Leave);
                }
                continue;
            }
            self.remember(&format!("{};", statement.text));
            self.statement(&statement.text)?;
        }
        Ok(Next::Go)
    }

    fn remember(&mut self, entry: &str) {
        if self.editor.add_history_entry(entry).unwrap_or(false) {
            // Written at once, so that a killed terminal loses nothing.
            let _ = self.editor.append_history(&self.history);
        }
    }

    fn statement(&mut self, text: &str) -> Result<(), Stop> {
        let begin = self.clock.monotonic();
        let mut stdout = Stdout::lock();
        let mut writer = Writer::new(&mut stdout, self.format);
        let outcome = self.session.run(text, &mut writer);
        writer.finish(outcome.is_err()).map_err(|error| Stop::output(&error))?;
        let (has_columns, rows) = (writer.has_columns(), writer.rows());
        let took = self.clock.monotonic().saturating_sub(begin);
        let outcome = match outcome {
            Ok(affected) => {
                let mut line = summary(text, has_columns, rows, affected);
                if self.timing {
                    line = format!("{line} {}", elapsed(took));
                }
                writeln!(stdout, "{line}")
            }
            Err(error) => write!(stdout, "{}", report::describe(&error, text)),
        };
        outcome.and_then(|()| stdout.flush()).map_err(|error| Stop::output(&error))?;
        drop(stdout);
        if changes_names(text) {
            self.learn_names();
        }
        Ok(())
    }

    fn command(&mut self, line: &str) -> Result<Next, Stop> {
        match Backslash::parse(line) {
            Ok(Backslash::Leave) => return Ok(Next::Leave),
            Ok(Backslash::Statement(statement)) => self.statement(&statement)?,
            Ok(Backslash::Timing(asked)) => {
                let (timing, said) = backslash::timing(self.timing, asked);
                self.timing = timing;
                println!("{said}");
            }
            Ok(Backslash::Format(format)) => self.format = format,
            Ok(Backslash::Help) => println!("{HELP}"),
            Err(said) => println!("{said}"),
        }
        Ok(Next::Go)
    }

    /// Asks for the names that completion offers. A node that does not answer costs completion, nothing else.
    fn learn_names(&mut self) {
        let known = self.names().unwrap_or_default();
        if let Some(helper) = self.editor.helper_mut() {
            helper.set(known);
        }
    }

    fn names(&mut self) -> Result<Vec<String>, Error> {
        let tables = names(&fetch(self.session, "SHOW TABLES")?);
        let mut known = tables.clone();
        for table in tables.iter().take(COMPLETED_TABLES_MAX) {
            known.extend(names(&fetch(self.session, &format!("SHOW COLUMNS FROM {}", quote_name(table)))?));
        }
        known.sort();
        known.dedup();
        Ok(known)
    }
}

fn changes_names(statement: &str) -> bool {
    let word = first_word(statement);
    ["create", "drop", "alter"].iter().any(|changing| word.eq_ignore_ascii_case(changing))
}

/// The line below a result: `(2 rows)`, or what a statement without rows did.
pub fn summary(statement: &str, has_columns: bool, rows: u64, affected: u64) -> String {
    let plural = |count: u64| if count == 1 { "row" } else { "rows" };
    if has_columns {
        return format!("({rows} {})", plural(rows));
    }
    match first_word(statement).to_ascii_lowercase().as_str() {
        "insert" => format!("{affected} {} inserted", plural(affected)),
        "update" => format!("{affected} {} updated", plural(affected)),
        "delete" => format!("{affected} {} deleted", plural(affected)),
        _ => "OK".to_owned(),
    }
}

/// `(1.2 ms)`
pub fn elapsed(took: Duration) -> String {
    match took.as_secs_f64() {
        seconds if seconds >= 1.0 => format!("({seconds:.2} s)"),
        seconds => format!("({:.1} ms)", seconds * 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_below_a_result_counts() {
        assert_eq!(summary("SELECT 1", true, 1, 0), "(1 row)");
        assert_eq!(summary("SELECT 1", true, 0, 0), "(0 rows)");
        assert_eq!(summary("INSERT INTO t", false, 0, 2), "2 rows inserted");
        assert_eq!(summary("create table t", false, 0, 0), "OK");
        assert_eq!(summary("/* c */ INSERT INTO t", false, 0, 1), "1 row inserted");
        assert_eq!(summary("-- c\nDELETE FROM t", false, 0, 2), "2 rows deleted");
    }

    #[test]
    fn names_are_learnt_again_after_a_change_behind_a_comment_too() {
        assert!(changes_names("drop table t") && changes_names("-- c\n/* d */ CREATE TABLE t (a INT)"));
        assert!(!changes_names("INSERT INTO created VALUES (1)"));
    }

    #[test]
    fn time_is_shown_in_the_unit_that_fits() {
        assert_eq!(elapsed(Duration::from_micros(1234)), "(1.2 ms)");
        assert_eq!(elapsed(Duration::from_millis(2500)), "(2.50 s)");
    }
}
