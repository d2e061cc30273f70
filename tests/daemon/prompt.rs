//! The prompt in a real terminal: `script` gives the program one, and we type.
//!
//! What the program draws has colours and cursor movements in it; what is looked for are the texts between them.

use super::process::Node;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// How long the program may draw nothing that is waited for: then it never will, and the test says so.
const PATIENCE: Duration = Duration::from_mins(1);

/// A program at a terminal of its own.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    drawn: Receiver<Vec<u8>>,
    /// What was drawn and not yet waited for.
    seen: String,
}

impl Terminal {
    /// None where there is no `script`.
    fn open(directory: &Path, arguments: &str) -> Option<Terminal> {
        // `exec`: a shell between would get Ctrl-C too, and some end by it once the program has.
        let program = format!("exec {} {arguments}", env!("CARGO_BIN_EXE_chronos"));
        let mut command = Command::new("script");
        command.args(["-q", "-e", "-c", &program, "/dev/null"]).current_dir(directory).env("TERM", "xterm");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHRONOS_")) {
            command.env_remove(name);
        }
        let Ok(mut child) = command.spawn() else {
            crate::skipped::skipped("no `script` (Debian package bsdutils) to make a terminal with");
            return None;
        };
        let (keys, mut screen) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        // Few pieces are read ahead, so a long result waits for its reader as on a slow terminal.
        let (sender, drawn) = std::sync::mpsc::sync_channel(4);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = screen.read(&mut piece) {
                if sender.send(piece[..length].to_vec()).is_err() {
                    break;
                }
            }
        });
        let mut terminal = Terminal { child, keys, drawn, seen: String::new() };
        terminal.until("chronos> ");
        Some(terminal)
    }

    /// Types, without the return key.
    fn keys(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits for a text; gives what was drawn up to it. What comes behind it is for the next wait.
    fn until(&mut self, text: &str) -> String {
        loop {
            if let Some(at) = self.seen.find(text) {
                let rest = self.seen.split_off(at + text.len());
                return std::mem::replace(&mut self.seen, rest);
            }
            let Ok(piece) = self.drawn.recv_timeout(PATIENCE) else { panic!("{text:?} did not come: {}", self.seen) };
            // A piece may end within a character; nothing that is waited for does.
            self.seen.push_str(&String::from_utf8_lossy(&piece));
        }
    }

    /// Types a line and waits for the next prompt; gives what was drawn in between.
    fn line(&mut self, line: &str) -> String {
        self.keys(&format!("{line}\r"));
        // Every key draws the prompt anew; the one behind the line's end is the next.
        self.until("\n") + &self.until("chronos> ")
    }

    /// Waits for the end: its exit code.
    fn end(mut self) -> i32 {
        while self.drawn.recv_timeout(PATIENCE).is_ok() {}
        self.child.wait().unwrap().code().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rows(count: u32) -> String {
    let rows: Vec<String> = (0..count).map(|i| format!("({i}, {i}.5)")).collect();
    format!("INSERT INTO big VALUES {};", rows.join(", "))
}

/// Rows of `big` that no pipe and no terminal holds: their output waits until it is read.
const MANY: u32 = 200_000;

/// What a person sees, on whichever session.
fn converse(terminal: &mut Terminal) {
    assert!(terminal.line("CREATE TABLE t (id INT, name TEXT);").contains("OK ("));
    assert!(terminal.line("INSERT INTO t VALUES (1, 'über'), (2, NULL);").contains("2 rows inserted ("));
    let answer = terminal.line("SELECT id, name FROM t ORDER BY id;");
    assert!(
        answer.contains(" id | name") && answer.contains("  2 | NULL") && answer.contains("(2 rows) ("),
        "{answer}"
    );
    // Lines until the semicolon, and a caret under the right column of the right line.
    terminal.keys("SELECT\r");
    terminal.until("\n");
    terminal.until("      -> ");
    let error = terminal.line("  '日本', nmae FROM t;");
    assert!(error.contains("    '日本', nmae FROM t\r\n            ^\r\n"), "{error}");
    assert!(error.contains("did you mean \"name\"?"), "{error}");
    // Ctrl-C gives up what is typed.
    terminal.keys("SELECT 'open\r");
    terminal.until("\n");
    terminal.until("      -> ");
    terminal.keys("\x03");
    terminal.until("\n");
    terminal.until("chronos> ");
    assert!(terminal.line("\\d t").contains("column_name"));
    assert!(terminal.line("\\dt").contains(" t\r\n"));
    assert!(terminal.line("\\timing").contains("timing is off"));
    assert!(terminal.line("SELECT 7 AS seven;").contains("(1 row)\r\n"));
    terminal.line("\\format csv");
    assert!(terminal.line("SELECT 'a,b' AS x, NULL;").contains("\"a,b\",\r\n"));
    terminal.line("\\format json");
    assert!(terminal.line("SELECT 1.5 AS x;").contains("{\"x\":1.5}"));
    terminal.line("\\format table");
    // What is typed ahead, or pasted, is not lost: the second statement comes while the first one runs.
    terminal.keys("SELECT 11 AS one;\rSELECT\r 22 AS two;\r");
    terminal.until("11\r\n");
    terminal.until("22\r\n");
    terminal.until("chronos> ");
    // Completion of a table, and the line before by the arrow.
    assert!(terminal.line("SELECT name FRO\t t WHERE id = 1;").contains("über"));
    assert!(terminal.line("\x1b[A").contains("über"));
}

/// Ctrl-C while rows come: the statement ends, the session does not.
fn interrupt(terminal: &mut Terminal) {
    terminal.keys("SELECT * FROM big;\r");
    terminal.until("  1 | ");
    terminal.keys("\x03");
    terminal.until("cancelled (57014)");
    terminal.until("chronos> ");
    assert!(terminal.line("SELECT 40 + 2 AS answer;").contains(" 42\r\n"));
}

#[test]
fn a_single_node_talks_at_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let Some(mut terminal) = Terminal::open(directory.path(), "single-node --data-dir data") else { return };
    converse(&mut terminal);
    terminal.keys("\x04");
    assert_eq!(terminal.end(), 0);
    let history = std::fs::read_to_string(directory.path().join("data/client/history")).unwrap();
    assert!(history.contains("SELECT 7 AS seven;") && history.contains("\\timing"), "{history}");
    let database = chronos::embedded::Database::open(directory.path().join("data")).unwrap();
    database.execute("CREATE TABLE big (id INT PRIMARY KEY, v FLOAT)").unwrap();
    database.execute(rows(MANY).trim_end_matches(';')).unwrap();
    database.close().unwrap();
    let Some(mut terminal) = Terminal::open(directory.path(), "single-node --data-dir data") else { return };
    interrupt(&mut terminal);
    terminal.keys("exit\r");
    assert_eq!(terminal.end(), 0);
}

#[test]
fn a_client_talks_at_a_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let node = Node::start(&directory.path().join("node"));
    let arguments = format!("client --leader {} --data-dir data", node.grpc);
    let Some(mut terminal) = Terminal::open(directory.path(), &arguments) else { return };
    converse(&mut terminal);
    let created = node.post_sql(r#"{"sql": "CREATE TABLE big (id INT PRIMARY KEY, v FLOAT)"}"#);
    assert_eq!(created.0, 200, "{}", created.1);
    let filled = node.post_sql(&serde_json::json!({ "sql": rows(MANY) }).to_string());
    assert_eq!(filled.0, 200, "{}", filled.1);
    interrupt(&mut terminal);
    terminal.keys("\\q\r");
    assert_eq!(terminal.end(), 0);
}
