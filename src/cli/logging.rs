//! Where log lines go: standard error, or a file that is rotated by size.
//!
//! ```text
//! chronos.log  ──full──>  chronos.log.1  ──>  chronos.log.2  ──>  ...  ──> deleted after log.max_files
//! ```
//!
//! The rotating writer is our own: the crates at hand rotate by time only, or panic inside a log call when the file
//! was moved away, or drop lines silently when it cannot be opened.
//!
//! * Writing a line never panics and never ends the process; what cannot be written to the file goes to standard error.
//! * The `log` macros of dependencies arrive here too.
//! * Levels may change while the process runs ([`Levels::set`]); where lines go may not.

use super::Stop;
use chronos::config::{Log, did_you_mean};
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

/// What is logged, by level and module; can be set anew while the process runs.
pub struct Levels {
    handle: reload::Handle<Targets, Registry>,
}

impl Levels {
    /// Sets the levels, as `log.level` writes them. What cannot be read changes nothing.
    pub fn set(&self, level: &str) -> Result<(), String> {
        self.handle.reload(filter(level)?).map_err(|error| error.to_string())?;
        // The bridge for the `log` macros looks at this first, and has it from the start.
        log::set_max_level(match LevelFilter::current() {
            LevelFilter::OFF => log::LevelFilter::Off,
            LevelFilter::ERROR => log::LevelFilter::Error,
            LevelFilter::WARN => log::LevelFilter::Warn,
            LevelFilter::INFO => log::LevelFilter::Info,
            LevelFilter::DEBUG => log::LevelFilter::Debug,
            LevelFilter::TRACE => log::LevelFilter::Trace,
        });
        Ok(())
    }
}

/// The library of the HTTP door; whoever names it in `log.level` decides about it.
const HTTP_SERVER: &str = "actix_http";

/// Where it tells of connections: as ERROR, a line for each request that is malformed or given up. Any client can send
/// as many as it likes, and each has its answer; so they are for whoever asks for debugging.
const HTTP_CONNECTIONS: &str = "actix_http::h1";

/// The levels by name.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The crates of this build that log (those that depend on `log` or `tracing`), and the target of the audit.
const LOGGING: [&str; 18] = [
    "chronos",
    "chronos_audit",
    "actix",
    "actix_codec",
    "actix_http",
    "actix_router",
    "actix_server",
    "actix_tls",
    "actix_web",
    "h2",
    "hyper_util",
    "mio",
    "rustls",
    "rustyline",
    "sled",
    "sqlparser",
    "tonic",
    "tower",
];

/// Refuses a word by itself that is nearly a level or a crate that logs: it would be read as the name of another module.
/// Any other may be one that `RUST_LOG` names for programs beside this one.
fn check_words(level: &str) -> Result<(), String> {
    let words = level.split(',').map(str::trim).filter(|word| !word.is_empty() && !word.contains('='));
    for word in words {
        let root = word.split("::").next().unwrap_or(word);
        if word.parse::<LevelFilter>().is_err() && !LOGGING.contains(&root) {
            let near = did_you_mean(word, LEVELS.into_iter().chain(LOGGING));
            if !near.is_empty() {
                let known = LEVELS.join(", ");
                return Err(format!("log.level: {word:?} is neither a level ({known}) nor a crate that logs{near}"));
            }
        }
    }
    Ok(())
}

/// Levels by module, such as `info` or `warn,chronos=debug`. `EnvFilter` would also take names and fields of spans, of
/// which there are none here, and brings a third of a megabyte of regular expressions.
fn filter(level: &str) -> Result<Targets, String> {
    if level.contains(['[', '{']) {
        return Err(format!("log.level: {level:?} names spans; it takes levels by module, such as warn,chronos=debug"));
    }
    check_words(level)?;
    let mut levels: Targets =
        level.parse().map_err(|error| format!("log.level: {level:?} is not a log filter: {error}"))?;
    // Where only modules are named, errors of the others are told none the less.
    if levels.default_level().is_none() {
        levels = levels.with_default(LevelFilter::ERROR);
    }
    let is_quiet = levels.default_level().is_none_or(|default| default < LevelFilter::DEBUG);
    if is_quiet && !level.contains(HTTP_SERVER) {
        return Ok(levels.with_target(HTTP_CONNECTIONS, LevelFilter::OFF));
    }
    Ok(levels)
}

/// Refuses levels that cannot be read.
pub fn check(level: &str) -> Result<(), String> {
    filter(level).map(drop)
}

/// Starts logging for the life of the process.
pub fn start(log: &Log) -> Result<Levels, Stop> {
    // Named one by one, so that a setting which is added and not looked at here does not compile.
    let Log { level, file, max_size_mb, max_files } = log;
    let filter = filter(level).map_err(Stop::Usage)?;
    let lines: Box<dyn Layer<_> + Send + Sync> = match file {
        None => fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).boxed(),
        Some(path) => {
            let file = Rotating::open(path, max_size_mb * 1_000_000, *max_files)
                .map_err(|error| Stop::Message(format!("log.file: cannot open {}: {error}", path.display())))?;
            fmt::layer().with_writer(Mutex::new(file)).with_ansi(false).boxed()
        }
    };
    let (filter, handle) = reload::Layer::new(filter);
    let begun = tracing_subscriber::registry().with(filter).with(lines).try_init();
    begun.map_err(|error| Stop::Message(format!("cannot start logging: {error}")))?;
    Ok(Levels { handle })
}

/// A file that makes room for itself.
struct Rotating {
    path: PathBuf,
    file: File,
    written: u64,
    size_bytes_max: u64,
    files_max: u64,
}

impl Rotating {
    fn open(path: &Path, size_bytes_max: u64, files_max: u64) -> io::Result<Rotating> {
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory)?;
        }
        let file = append(path)?;
        let written = file.metadata()?.len();
        Ok(Rotating { path: path.to_owned(), file, written, size_bytes_max, files_max })
    }

    fn numbered(&self, number: u64) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    /// Moves every file one number up, the oldest out, and begins anew.
    fn rotate(&mut self) -> io::Result<()> {
        for number in (1..self.files_max).rev() {
            match std::fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        match std::fs::rename(&self.path, self.numbered(1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        self.file = append(&self.path)?;
        self.written = 0;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Write for Rotating {
    /// Takes a whole line: tracing hands over one event at a time, so none is torn by a rotation.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.written > 0 && self.written + line.len() as u64 > self.size_bytes_max {
            // Where rotation fails (a directory made read-only, say) the line still has its old file, however long.
            if let Err(error) = self.rotate() {
                let _ = writeln!(io::stderr(), "cannot rotate {}: {error}", self.path.display());
            }
        }
        match self.file.write_all(line) {
            Ok(()) => self.written += line.len() as u64,
            Err(_) => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_levels_by_module() {
        for level in ["info", "WARN,chronos=debug", "off,chronos::actors=trace"] {
            filter(level).expect(level);
        }
        for level in ["chronos=loud", "[span]=info", "chronos[{id=1}]=debug"] {
            assert!(filter(level).is_err_and(|error| error.contains(level)), "{level}");
        }
    }

    #[test]
    fn a_word_that_is_nearly_a_level_is_refused_and_not_taken_for_a_module() {
        let levels = ["off", "3", "chronos", "warn,chronos::storage", "info,sled=warn", "info,other=debug", "info,"];
        for level in levels.into_iter().chain(["gateway", "info,gateway"]) {
            filter(level).expect(level);
        }
        for (level, says) in [
            (
                "inof",
                "\"inof\" is neither a level (off, error, warn, info, debug, trace) nor a crate that logs, did you \
                      mean \"info\"?",
            ),
            ("wran", ", did you mean \"warn\"?"),
            ("info,chronso", ", did you mean \"chronos\"?"),
        ] {
            assert!(filter(level).is_err_and(|error| error.ends_with(says)), "{level}");
        }
    }

    #[test]
    fn errors_are_told_by_all_where_only_modules_are_named() {
        let tells = |level: &str, at: tracing::Level| filter(level).expect(level).would_enable("chronos::storage", &at);
        for level in ["gateway", "sled=debug", "info"] {
            assert!(tells(level, tracing::Level::ERROR), "{level}");
        }
        assert!(!tells("gateway", tracing::Level::WARN) && !tells("off,gateway", tracing::Level::ERROR));
    }

    #[test]
    fn what_clients_do_to_connections_is_told_where_it_is_asked_for() {
        let tells = |level: &str| {
            let levels = filter(level).expect(level);
            levels.would_enable("actix_http::h1::dispatcher", &tracing::Level::ERROR)
        };
        assert!(["info", "warn,chronos=debug", "trace,actix_http=off"].iter().all(|level| !tells(level)));
        assert!(["debug", "info,actix_http=info"].iter().all(|level| tells(level)));
        assert!(filter("info").expect("levels").would_enable("actix_web::server", &tracing::Level::ERROR));
    }

    #[test]
    fn a_full_log_file_moves_up_and_the_oldest_goes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("deep/x.log");
        let mut log = Rotating::open(&path, 10, 2).expect("opens");
        for line in ["one.....\n", "two.....\n", "three...\n", "four....\n"] {
            log.write_all(line.as_bytes()).expect("writes");
        }
        let read = |path: PathBuf| std::fs::read_to_string(path).expect("is there");
        assert_eq!(read(path), "four....\n");
        assert_eq!(read(log.numbered(1)), "three...\n");
        assert_eq!(read(log.numbered(2)), "two.....\n");
        assert!(!log.numbered(3).exists());
    }

    #[test]
    fn a_line_is_never_torn_by_a_rotation() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("x.log");
        let mut log = Rotating::open(&path, 4, 1).expect("opens");
        assert_eq!(log.write(b"longer than the limit\n").expect("writes"), 22);
        assert_eq!(std::fs::read_to_string(&path).expect("is there"), "longer than the limit\n");
    }

    #[test]
    fn a_file_moved_away_is_begun_again_at_the_next_rotation() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("x.log");
        let mut log = Rotating::open(&path, 4, 1).expect("opens");
        log.write_all(b"a\n").expect("writes");
        std::fs::remove_file(&path).expect("removes");
        log.write_all(b"bcde\n").expect("writes");
        assert_eq!(std::fs::read_to_string(&path).expect("is there"), "bcde\n");
    }
}
