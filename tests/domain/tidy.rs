//! The rules of style that a program can check, checked.
//!
//! * A module says why it is there.
//! * A foreign type has one door.
//! * The library does not wait.
//! * Nothing is left for later, and no file is longer than one sitting.

use std::path::{Path, PathBuf};

/// Lines of a file at most. The aim is 400; a file beyond this is two nouns.
const LINES_MAX: usize = 600;

struct Source {
    /// Path from the repository's root, with `/`.
    path: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn collect(directory: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().replace('\\', "/");
            sources.push(Source { path: name, text: std::fs::read_to_string(&path).expect("readable text") });
        }
    }
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for directory in ["src", "actors", "tests", "benches", "examples"] {
        collect(&root().join(directory), &mut sources);
    }
    assert!(sources.len() > 30, "only {} files found below {}", sources.len(), root().display());
    sources
}

/// Fails with every place at once.
fn none(places: &[String]) {
    assert!(places.is_empty(), "\n{}", places.join("\n"));
}

/// `path:line: text` of each line with one of the words, in files that `within` picks.
fn lines_with(words: &[&str], within: impl Fn(&str) -> bool) -> Vec<String> {
    let mut places = Vec::new();
    for source in sources().iter().filter(|source| within(&source.path) && !source.path.ends_with("/tidy.rs")) {
        for (i, line) in source.text.lines().enumerate() {
            if words.iter().any(|word| names(line, word)) {
                places.push(format!("{}:{}: {}", source.path, i + 1, line.trim()));
            }
        }
    }
    places
}

/// True where the line has the word, and not as the end of a longer one: `Monotonic::ZERO` does not name tonic.
fn names(line: &str, word: &str) -> bool {
    let joins = |c: char| c.is_alphanumeric() || c == '_';
    let whole = !word.starts_with(joins);
    line.match_indices(word).any(|(at, _)| whole || !line[..at].ends_with(joins))
}

/// True for code, false for what only speaks about it.
fn is_code(place: &str) -> bool {
    !place.split_once(": ").is_some_and(|(_, text)| text.starts_with("//"))
}

#[test]
fn every_module_begins_with_why() {
    let silent = |source: &&Source| !source.text.starts_with("//! ") && !source.text.starts_with("//!\n");
    none(
        &sources()
            .iter()
            .filter(silent)
            .map(|source| format!("{}: no //! at the top", source.path))
            .collect::<Vec<_>>(),
    );
}

#[test]
fn nothing_is_left_for_later() {
    none(&lines_with(&["TODO", "FIXME", "todo!(", "unimplemented!(", "#[ignore"], |_| true));
}

#[test]
fn no_file_is_longer_than_one_sitting() {
    let long = |source: &&Source| source.text.lines().count() > LINES_MAX;
    let places = sources()
        .iter()
        .filter(long)
        .map(|source| format!("{}: {} lines, {LINES_MAX} allowed", source.path, source.text.lines().count()))
        .collect::<Vec<_>>();
    none(&places);
}

/// Lines of a function that translates, plans or evaluates SQL: a match over all nodes grows by itself. Elsewhere clippy
/// draws the line, at a hundred.
const FUNCTION_LINES_MAX: usize = 70;

/// First line and length of each function, found by what rustfmt makes of it: it ends with a brace below its own indent.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |line: &str| {
        let words = line.trim_start().split(' ').take_while(|word| !word.starts_with("//"));
        words.take(4).any(|word| word == "fn") && !line.ends_with(';') && !line.ends_with('}')
    };
    let first = lines.iter().enumerate().filter(|(_, line)| begins(line));
    first
        .filter_map(|(at, line)| {
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            Some((at + 1, lines[at..].iter().position(|line| *line == end)? + 1))
        })
        .collect()
}

#[test]
fn no_function_over_sql_is_longer_than_a_screen() {
    let sources = sources();
    let of_sql: Vec<&Source> = sources.iter().filter(|source| source.path.starts_with("src/sql/")).collect();
    let found: usize = of_sql.iter().map(|source| functions(&source.text).len()).sum();
    assert!(found > 500, "only {found} functions found");
    let places = of_sql.iter().flat_map(|source| {
        let long = functions(&source.text).into_iter().filter(|(_, lines)| *lines > FUNCTION_LINES_MAX);
        long.map(|(at, lines)| format!("{}:{at}: {lines} lines", source.path))
    });
    none(&places.collect::<Vec<String>>());
}

#[test]
fn each_foreign_type_has_one_door() {
    let mut places =
        lines_with(&["sqlparser::"], |path| path.starts_with("src/") && !path.starts_with("src/sql/translate"));
    // The trait of the hot tier is implemented in one file; elsewhere the word may name that file's module only.
    places.extend(lines_with(&["sled::"], |path| path.starts_with("src/") && path != "src/storage/sled.rs"));
    places.retain(|place| is_code(place) && !place.contains("crate::storage::sled") && !place.contains("super::sled"));
    // Tests of the wire may speak it.
    let doors =
        |path: &str| path.starts_with("src/cli/") || path.starts_with("tests/") || path.starts_with("actors/proto");
    places.extend(lines_with(&["prost::"], |path| !doors(path)).into_iter().filter(|place| is_code(place)));
    none(&places);
}

#[test]
fn the_library_does_not_wait() {
    let library = |path: &str| path.starts_with("src/") && !path.starts_with("src/cli/") && path != "src/main.rs";
    let words = ["actix", "tonic::", "tokio::net", "tokio::time", "tokio::fs", "clap::", "thread::sleep"];
    none(&lines_with(&words, library).into_iter().filter(|place| is_code(place)).collect::<Vec<_>>());
}

/// Where the tests of a file begin; none where it has none.
fn tests_of(source: &Source) -> Option<&str> {
    if source.path.starts_with("tests/") || source.path.starts_with("actors/tests/") {
        return Some(&source.text);
    }
    source.text.find("#[cfg(test)]\nmod tests {").map(|at| &source.text[at..])
}

/// A test that sleeps is slow where the machine is quick and fails where it is slow. One function waits, with an end.
#[test]
fn tests_do_not_sleep() {
    let sources = sources();
    let sleepers: Vec<&str> = sources
        .iter()
        .filter(|source| !source.path.ends_with("/tidy.rs"))
        .filter(|source| tests_of(source).is_some_and(|text| names(text, "time::sleep")))
        .map(|source| source.path.as_str())
        .collect();
    assert_eq!(sleepers, ["actors/tests/patience.rs"], "use its `until`, or a notification");
}

#[test]
fn time_and_chance_enter_in_one_file() {
    let words = ["SystemTime::now", "Instant::now", "getrandom::"];
    let elsewhere = |path: &str| path.starts_with("src/") && path != "src/clock.rs";
    none(&lines_with(&words, elsewhere).into_iter().filter(|place| is_code(place)).collect::<Vec<_>>());
}

#[test]
fn files_are_named_for_what_they_hold() {
    let vague = |source: &&Source| {
        ["utils.rs", "common.rs", "helpers.rs", "types.rs", "util.rs"]
            .iter()
            .any(|name| source.path.ends_with(&format!("/{name}")))
    };
    none(&sources().iter().filter(vague).map(|source| source.path.clone()).collect::<Vec<_>>());
}

#[test]
fn the_project_speaks_of_itself_alone() {
    // Paths of the machine it was written on; split, so that this file does not name them either.
    let words = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/tm", "p/wt")];
    none(&lines_with(&words, |_| true));
}

#[test]
fn unsafe_code_is_listed() {
    let places = lines_with(&["allow(unsafe_code", "expect(unsafe_code"], |_| true);
    none(&places.into_iter().filter(|place| !place.contains("reason = ")).collect::<Vec<_>>());
}
