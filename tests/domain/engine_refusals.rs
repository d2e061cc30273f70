//! Directories that an engine cannot serve: each is refused by name, and nothing in it is changed.

use crate::statements::support::{World, insert_range, int, run};
use chronos::embedded::{Database, Options};
use chronos::error::{Error, Kind, SqlState};
use chronos::storage::directory::Create;
use chronos::storage::engine::{self, Engine, HotEngine, Stop};
use chronos::storage::faults::Disk;
use chronos::storage::files::{self, Files, Open};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where [`World`] has its database.
const DIRECTORY: &str = "/data/local";

/// Everything on the disk but LOCK, into which whoever opens a directory writes its pid.
fn content(disk: &Disk) -> BTreeMap<PathBuf, Vec<u8>> {
    let is_file = |path: &PathBuf| !path.ends_with("LOCK") && disk.open(path, Open::Read).is_ok();
    let read = |path: PathBuf| (path.clone(), files::read(disk, &path).unwrap());
    disk.paths().into_iter().filter(is_file).map(read).collect()
}

fn put(disk: &Disk, path: &Path, bytes: &[u8]) {
    if disk.exists(path) {
        disk.remove(path).unwrap();
    }
    disk.open(path, Open::Create).unwrap().write_at(bytes, 0).unwrap();
}

fn options(world: &World) -> engine::Options {
    engine::Options {
        files: Arc::new(world.disk.clone()),
        clock: world.clock.clone(),
        hot: HotEngine::Memory,
        boot_id: None,
        limits: world.limits.clone(),
    }
}

fn try_open(world: &World, options_given: &Options) -> Result<Database, Error> {
    Database::open_on("/data", options_given, &options(world))
}

/// A database with sealed rows, and newer ones that are in the log alone.
fn filled() -> World {
    let world = World::new();
    let db = world.open();
    run(&db, "CREATE TABLE t (id INT PRIMARY KEY, v INT)");
    run(&db, &insert_range("t", 0..500));
    db.group().with_engine(Engine::seal).unwrap();
    run(&db, &insert_range("t", 500..600));
    db.group().stop(Stop::Abandon).unwrap();
    world
}

/// Changes a database so that it cannot be served; the error by which it is refused. Changed back, it is whole.
fn refused(change: impl FnOnce(&Disk)) -> Error {
    let world = filled();
    let whole = content(&world.disk);
    change(&world.disk);
    let before = content(&world.disk);
    assert!(whole != before, "something was changed");
    for _ in 0..2 {
        let error = try_open(&world, &Options::default()).map(drop).unwrap_err();
        let after = content(&world.disk);
        let differs: Vec<&PathBuf> =
            before.keys().chain(after.keys()).filter(|path| before.get(*path) != after.get(*path)).collect();
        assert!(differs.is_empty(), "{error}: {differs:?} changed");
    }
    let error = try_open(&world, &Options::default()).map(drop).unwrap_err();
    for path in before.keys().filter(|path| !whole.contains_key(*path)) {
        world.disk.remove(path).unwrap();
    }
    for (path, bytes) in &whole {
        world.disk.create_dir(path.parent().unwrap()).unwrap();
        put(&world.disk, path, bytes);
    }
    assert_eq!(int(&world.open(), "SELECT COUNT(*) FROM t"), 600, "nothing was lost to it");
    error
}

fn changed(disk: &Disk, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
    let path = Path::new(DIRECTORY).join(path);
    let mut bytes = files::read(disk, &path).unwrap();
    change(&mut bytes);
    put(disk, &path, &bytes);
}

/// The checksum that ends a record, made to fit.
fn sign(bytes: &mut Vec<u8>) {
    let body = bytes.len() - 4;
    bytes.truncate(body);
    let crc = crc32c::crc32c(bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

fn in_directory(disk: &Disk, name: &str) -> Vec<PathBuf> {
    let directory = Path::new(DIRECTORY).join(name);
    disk.list(&directory).unwrap().into_iter().filter(|path| disk.open(path, Open::Read).is_ok()).collect()
}

#[track_caller]
fn is(error: &Error, kind: Kind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    let text = format!("{error} {:?}", error.hint_text());
    assert!(parts.iter().all(|part| text.contains(part)), "{text}: {parts:?}");
}

#[test]
fn a_directory_of_a_newer_version_is_refused_by_the_number_of_its_format() {
    let error = refused(|disk| {
        changed(disk, "CLUSTER", |bytes| {
            bytes[8..12].copy_from_slice(&7u32.to_le_bytes());
            sign(bytes);
        });
    });
    is(&error, Kind::Invalid, &["/data/local/CLUSTER has format 7", "start the newer version"]);
}

#[test]
fn a_state_of_a_newer_version_is_refused_by_the_number_of_its_format() {
    let error = refused(|disk| {
        changed(disk, "state/CURRENT", |bytes| {
            bytes[4..6].copy_from_slice(&9u16.to_le_bytes());
            sign(bytes);
        });
    });
    is(&error, Kind::Invalid, &["/data/local/state/CURRENT has format 9"]);
}

#[test]
fn a_log_of_a_newer_version_is_refused_by_the_number_of_its_format() {
    let error = refused(|disk| {
        for path in in_directory(disk, "raft").iter().filter(|path| path.extension().is_some_and(|end| end == "wal")) {
            let (_, sequence) = path.file_stem().unwrap().to_str().unwrap().rsplit_once('-').unwrap();
            // The header's checksum covers the segment's number, and no salt.
            let seed = [sequence.parse::<u64>().unwrap().to_le_bytes(), 0u64.to_le_bytes()].concat();
            changed(disk, path.strip_prefix(DIRECTORY).unwrap().to_str().unwrap(), |bytes| {
                bytes[4..6].copy_from_slice(&3u16.to_le_bytes());
                let crc = crc32c::crc32c_append(crc32c::crc32c(&seed), &bytes[..36]);
                bytes[36..40].copy_from_slice(&crc.to_le_bytes());
            });
        }
    });
    is(&error, Kind::Invalid, &["/data/local/raft/", "has log format 3"]);
}

#[test]
fn a_directory_of_another_kind_is_no_database() {
    let error = refused(|disk| changed(disk, "CLUSTER", |bytes| *bytes = b"members: a, b, c\n".to_vec()));
    is(&error, Kind::Damaged, &["/data/local/CLUSTER is damaged"]);
    let error = refused(|disk| changed(disk, "CLUSTER", |bytes| bytes[20] ^= 1));
    is(&error, Kind::Damaged, &["/data/local/CLUSTER is damaged"]);
    let error = refused(|disk| changed(disk, "state/CURRENT", |bytes| *bytes = b"MANIFEST-000005\n".to_vec()));
    is(&error, Kind::Damaged, &["/data/local/state/CURRENT"]);
}

#[test]
fn parts_that_are_missing_are_named() {
    let gone = |disk: &Disk, path: &str| disk.remove(&Path::new(DIRECTORY).join(path)).unwrap();
    is(&refused(|disk| gone(disk, "state/CURRENT")), Kind::Damaged, &["/data/local/state/CURRENT is missing"]);
    is(&refused(|disk| gone(disk, "CLUSTER")), Kind::Damaged, &["holds data and CLUSTER is missing"]);
    let error = refused(|disk| {
        let sealed =
            in_directory(disk, "state").into_iter().find(|path| path.extension().is_some_and(|end| end == "blk"));
        disk.remove(&sealed.expect("something is sealed")).unwrap();
    });
    is(&error, Kind::Damaged, &["/data/local/state/", ".blk"]);
    let error = refused(|disk| in_directory(disk, "raft").iter().for_each(|path| disk.remove(path).unwrap()));
    is(&error, Kind::Damaged, &["/data/local/raft"]);
}

#[test]
fn the_log_of_another_disk_is_not_taken_for_its_own() {
    let other = filled();
    let error = refused(|disk| {
        in_directory(disk, "raft").iter().for_each(|path| disk.remove(path).unwrap());
        for path in in_directory(&other.disk, "raft") {
            put(disk, &path, &files::read(&other.disk, &path).unwrap());
        }
    });
    is(&error, Kind::Damaged, &["/data/local/raft/", "another disk"]);
}

#[test]
fn a_directory_of_another_node_is_refused_by_both_names() {
    let world = filled();
    let before = content(&world.disk);
    let given = Options { id: Some("other".into()), ..Options::default() };
    let error = Database::open_on(DIRECTORY, &given, &options(&world)).map(drop).unwrap_err();
    is(&error, Kind::Invalid, &["/data/local belongs to node \"local\", not \"other\"", "--id local"]);
    assert!(content(&world.disk) == before);
    let given = Options { id: Some("absent".into()), create: Create::Refused, ..Options::default() };
    let error = try_open(&world, &given).map(drop).unwrap_err();
    is(&error, Kind::Invalid, &["/data/absent is not a database directory"]);
    assert!(content(&world.disk) == before);
}

#[test]
fn a_directory_in_use_is_refused_and_goes_on() {
    let world = filled();
    let db = world.open();
    let error = try_open(&world, &Options::default()).map(drop).unwrap_err();
    assert_eq!(error.sqlstate(), SqlState::IN_USE, "{error}");
    assert_eq!(int(&db, "SELECT COUNT(*) FROM t"), 600);
}

#[test]
fn a_file_is_not_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("notes.txt");
    fs::write(&file, "mine").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = Database::open(&path).map(drop).unwrap_err();
        is(&error, Kind::Io, &["notes.txt"]);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

#[test]
fn a_directory_that_may_not_be_written_is_refused_by_name() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let closed = directory.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    if fs::write(closed.join("probe"), "").is_ok() {
        crate::skipped::skipped("this user may write everywhere, as root may");
        return;
    }
    let error = Database::open(&closed).map(drop).unwrap_err();
    is(&error, Kind::Io, &["closed"]);
    assert_eq!(fs::read_dir(&closed).unwrap().count(), 0);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
}
