//! Statements from flags, a file or a pipe: plain output, and an end at the first error.
//!
//! * Lines that begin with `\` mean what they mean at the prompt. What they say, and times, go to standard error, so that
//!   standard output holds results alone; help was asked for, and is a result.

use super::backslash::{self, Backslash, HELP};
use super::output::{Format, Writer};
use super::repl::{elapsed, summary};
use super::report;
use super::session::Session;
use super::split::{Splitter, Statement};
use super::{Stdout, Stop};
use chronos::Error;
use chronos::clock::{Clock, SystemClock};
use std::io::{BufRead, Write};

/// Runs statements and writes their results.
pub struct Script<'a> {
    /// Where statements go.
    pub session: &'a mut dyn Session,
    /// How results are written.
    pub format: Format,
    /// Whether each statement is followed by the time it took.
    timing: bool,
    count: usize,
    clock: SystemClock,
}

impl<'a> Script<'a> {
    /// A script that has run nothing yet.
    pub fn new(session: &'a mut dyn Session, format: Format) -> Script<'a> {
        Script { session, format, timing: false, count: 0, clock: SystemClock }
    }

    /// Runs the statements of one `-e`.
    pub fn text(&mut self, text: &str) -> Result<(), Stop> {
        let mut splitter = Splitter::default();
        let mut statements = splitter.push(text);
        statements.extend(splitter.finish());
        self.all(statements, "-e")
    }

    /// Runs the statements of a file or a pipe, each as soon as it is complete.
    pub fn lines(&mut self, mut input: impl BufRead, name: &str) -> Result<(), Stop> {
        let mut splitter = Splitter::default();
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            number += 1;
            let read = input.read_until(b'\n', &mut line);
            if read.map_err(|error| Stop::Failed(Error::io(format!("read {name}"), &error)))? == 0 {
                break;
            }
            let text = std::str::from_utf8(&line)
                .map_err(|_| Stop::Message(format!("{name}, line {number}: not valid UTF-8")))?;
            // The first line of a file may carry a byte order mark.
            let text = if number == 1 { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
            // What people type last in a script meant for the prompt, where nothing has to end it either.
            if splitter.is_blank() && backslash::leaves(text) {
                return Err(Stop::Quit);
            }
            self.all(splitter.push(text), name)?;
            if splitter.is_too_long() {
                return Err(Stop::Message(format!("{name}: a statement before line {number} does not end")));
            }
        }
        self.all(splitter.finish(), name)
    }

    fn all(&mut self, statements: impl IntoIterator<Item = Statement>, name: &str) -> Result<(), Stop> {
        statements.into_iter().try_for_each(|statement| self.one(&statement, name))
    }

    fn one(&mut self, statement: &Statement, name: &str) -> Result<(), Stop> {
        self.count += 1;
        let place = format!("{name}, statement {}, line {}", self.count, statement.line);
        if backslash::leaves(&statement.text) {
            return Err(Stop::Quit);
        }
        if !statement.is_backslash() {
            return self.run(&statement.text, &place);
        }
        match Backslash::parse(&statement.text) {
            Ok(Backslash::Leave) => return Err(Stop::Quit),
            Ok(Backslash::Statement(sql)) => return self.run(&sql, &place),
            Ok(Backslash::Timing(asked)) => {
                let (timing, said) = backslash::timing(self.timing, asked);
                self.timing = timing;
                eprintln!("{said}");
            }
            Ok(Backslash::Format(format)) => self.format = format,
            Ok(Backslash::Help) => writeln!(Stdout::lock(), "{HELP}").map_err(|error| Stop::output(&error))?,
            Err(said) => return Err(Stop::Message(format!("{place}: {said}"))),
        }
        Ok(())
    }

    fn run(&mut self, sql: &str, place: &str) -> Result<(), Stop> {
        let begin = self.clock.monotonic();
        let mut stdout = Stdout::lock();
        let mut writer = Writer::new(&mut stdout, self.format);
        let outcome = self.session.run(sql, &mut writer);
        writer.finish(outcome.is_err()).map_err(|error| Stop::output(&error))?;
        let (has_columns, rows) = (writer.has_columns(), writer.rows());
        match outcome {
            Ok(affected) => {
                if self.format == Format::Table {
                    let summary = summary(sql, has_columns, rows, affected);
                    writeln!(stdout, "{summary}").map_err(|error| Stop::output(&error))?;
                }
                stdout.flush().map_err(|error| Stop::output(&error))?;
                if self.timing {
                    eprintln!("{}", elapsed(self.clock.monotonic().saturating_sub(begin)));
                }
                Ok(())
            }
            Err(error) => {
                let flushed = stdout.flush();
                let text = report::describe(&error, sql);
                flushed.map_err(|error| Stop::output(&error))?;
                Err(Stop::Message(format!("{place}: {}", text.trim_end().trim_start_matches("error: "))))
            }
        }
    }
}
