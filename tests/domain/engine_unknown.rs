//! A log that is whole, and holds what this program does not understand: it stops by name, and gives nothing up.

use super::snapshots::{append, engine, history, open};
use chronos::embedded;
use chronos::error::{Error, SqlState};
use chronos::ids::LogIndex;
use chronos::machine::COMMAND_VERSION;
use chronos::raft::{Entry, Payload, Position};
use chronos::storage::engine::{Engine, Event, Recovered, Stop};
use chronos::storage::faults::{Crash, Disk};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

/// The member `b`, and what its engine fails with.
fn watched(disk: &Disk) -> chronos::Result<(Engine, Recovered, Receiver<Error>)> {
    let options = embedded::Options { id: Some("b".into()), default_id: "b".into(), ..embedded::Options::default() };
    let directory = embedded::open_directory(Path::new("/data"), &options, &engine(disk))?;
    let (failed, failures) = channel();
    let events = Arc::new(move |event| {
        if let Event::Failed(error) = event {
            let _ = failed.send(error);
        }
    });
    let (engine, recovered) = Engine::recover(directory, &engine(disk), events)?;
    Ok((engine, recovered, failures))
}

/// What a newer leader may have put into the log, with what is said of it.
fn unknown() -> Vec<(Vec<u8>, &'static str)> {
    let command = |bytes: &[u8]| Payload::Command(bytes).encode().to_vec();
    vec![
        (command(&[COMMAND_VERSION + 1, 7]), "start a newer one"),
        (command(&[1, 0xFF]), "a command of version 1 does not decode"),
        (command(&[]), "a command without content"),
        (vec![9, 1, 2], "an entry of kind 9"),
    ]
}

#[test]
fn an_entry_that_is_not_understood_stops_its_member_by_name_each_time_and_stays_where_it_is() {
    let entries = history();
    for (payload, says) in unknown() {
        let disk = Disk::new();
        open(&disk, "b").unwrap().0.stop(Stop::Abandon).unwrap();
        let (engine, _, failures) = watched(&disk).unwrap();
        let last = Entry { payload: payload.as_slice().into(), ..entries[5].clone() };
        let log = [&entries[1..5], std::slice::from_ref(&last)].concat();
        append(&engine, &log, 9);
        let is_membership = payload[0] != 2;
        let mut disk = disk;
        let mut running = Some((engine, failures));
        for round in 0..3 {
            let Some((engine, failures)) = running.take() else { break };
            engine.handle().commit(Position { index: last.index, term: last.term });
            let error = failures.recv().unwrap();
            assert_eq!(error.sqlstate(), SqlState::NOT_UNDERSTOOD, "{error}");
            let text = error.to_string();
            assert!(text.starts_with(&format!("entry {}: ", last.index)) && text.contains(says), "{text}");
            let _ = engine.stop(Stop::Abandon);
            disk = disk.crash(round, Crash::Keep);
            match watched(&disk) {
                Ok((engine, recovered, failures)) => {
                    assert_eq!(
                        (recovered.terms.last().index, recovered.hard_state.quarantined_until),
                        (last.index, None)
                    );
                    let (send, read) = channel();
                    engine.handle().read_log(last.index, 1, move |entries| send.send(entries).unwrap());
                    let there = read.recv().unwrap();
                    assert_eq!(there, std::slice::from_ref(&last), "a newer program goes on from there");
                    running = Some((engine, failures));
                }
                Err(error) => {
                    assert!(is_membership, "{error}");
                    let text = error.to_string();
                    assert!(text.starts_with(&format!("entry {}: ", last.index)) && text.contains(says), "{text}");
                }
            }
        }
        let is_aside = |path: &std::path::PathBuf| path.starts_with("/data/b/state-damaged");
        assert!(!disk.paths().iter().any(is_aside));
    }
}

#[test]
fn a_group_in_a_log_that_is_not_understood_stops_a_start_by_name_and_changes_nothing() {
    let entries = history();
    let disk = Disk::new();
    open(&disk, "b").unwrap().0.stop(Stop::Abandon).unwrap();
    let (engine, ..) = watched(&disk).unwrap();
    let last = Entry { payload: [1, 0xFF, 200].as_slice().into(), ..entries[5].clone() };
    append(&engine, &[&entries[1..5], std::slice::from_ref(&last)].concat(), 9);
    let _ = engine.stop(Stop::Abandon);
    let disk = disk.crash(0, Crash::Keep);
    let before = disk.paths();
    for _ in 0..2 {
        let error = watched(&disk).map(|_| ()).unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::NOT_UNDERSTOOD, "{error}");
        assert!(error.message().starts_with("entry 6: a membership of version 200"), "{error}");
        assert_eq!(disk.paths(), before);
    }
    assert!(last.index == LogIndex(6));
}
