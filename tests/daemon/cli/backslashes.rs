//! Lines for the program itself mean in scripts what they mean at the prompt.

use super::*;

const COLUMNS: &str = "column_name,";

fn lines(out: &str) -> Vec<&str> {
    out.lines().map(str::trim).collect()
}

#[test]
fn a_script_may_ask_for_tables_and_columns() {
    let inside = directory();
    assert_eq!(piped(inside.path(), &[], SENSORS).code, 0);
    let asked = |arguments: &[&str]| {
        let all = [&["single-node", "--data-dir", "d", "--format", "csv"], arguments].concat();
        let ran = run_in(inside.path(), &all);
        assert_eq!(ran.code, 0, "{}", ran.err);
        ran.out
    };
    let columns = asked(&["-e", "\\d sensors"]);
    assert!(columns.starts_with(COLUMNS) && columns.contains("\ntemperature,"), "{columns}");
    assert_eq!(columns, asked(&["-e", "SHOW COLUMNS FROM sensors"]));
    let tables = asked(&["-e", "\\dt"]);
    assert_eq!(tables, asked(&["-e", "SHOW TABLES"]));
    assert!(lines(&tables).contains(&"sensors"), "{tables}");
    // In a file, behind a comment, and behind a statement of the same line.
    std::fs::write(inside.path().join("s.sql"), "-- what is there\n\\dt;\nSELECT 1 AS one; \\d sensors\n")
        .expect("writes");
    assert_eq!(asked(&["-f", "s.sql"]), format!("{tables}one\n1\n{columns}"));
    let through_a_pipe = piped(inside.path(), &["--format", "csv"], "\\d\n\\q\nSELECT nothing;");
    assert_eq!((through_a_pipe.code, through_a_pipe.out), (0, tables));
}

#[test]
fn format_and_timing_change_what_follows() {
    let inside = directory();
    let script = "SELECT 1 AS a;\n\\format csv\nSELECT 2 AS b;\n\\timing\nSELECT 3 AS c;\n\\timing off\n\\format json\nSELECT 4 AS d;\n";
    let ran = piped(inside.path(), &[], script);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(lines(&ran.out), ["a", "---", "1", "(1 row)", "b", "2", "c", "3", "{\"d\":4}"]);
    let said = lines(&ran.err);
    assert_eq!((said.len(), said[0], said[2]), (3, "timing is on", "timing is off"), "{}", ran.err);
    assert!(said[1].starts_with('(') && said[1].ends_with("s)"), "{}", ran.err);
}

#[test]
fn a_line_that_is_not_known_ends_a_script_with_its_place() {
    let inside = directory();
    let ran = piped(inside.path(), &[], "SELECT 1;\n\n\\format xml\nSELECT 2;\n");
    assert_eq!(ran.code, 1);
    let expected = "standard input, statement 2, line 3: write \\format table, \\format csv or \\format json\n";
    assert_eq!(ran.err, expected);
    assert!(!ran.out.contains('2'), "{}", ran.out);
    let unknown = run_in(inside.path(), &["single-node", "--data-dir", "d", "-e", "\\copy t"]);
    assert_eq!(
        (unknown.code, unknown.err.as_str()),
        (1, "-e, statement 1, line 1: unknown command \"\\\\copy t\"; \\help lists them\n")
    );
    let missing = run_in(inside.path(), &["single-node", "--data-dir", "d", "-e", "\\d nothing"]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("\"nothing\" does not exist"), "{}", missing.err);
}
