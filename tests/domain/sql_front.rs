//! From text to bound plan: golden scripts for every form that is accepted or refused, and the laws of the front end.
//!
//! In a script, `> statement` binds and optimizes one statement. A query answers its columns and plan, a write what it
//! binds to, a definition is carried out on the script's catalog, and an error shows its code and position.

use chronos::ids::TableId;
use chronos::sql::bind::{BindContext, Bound, BoundInsert, prepare};
use chronos::sql::catalog::{Catalog, Index, IndexState, Table};
use chronos::sql::explain;
use chronos::sql::statement::Statement;
use chronos::sql::translate::{ParseLimits, parse};
use goldenscript::{Command, Context};
use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

#[path = "sql_front/irregular.rs"]
mod irregular;
#[path = "sql_front/laws.rs"]
mod laws;
#[path = "sql_front/ordinary.rs"]
mod ordinary;
#[path = "sql_front/strings.rs"]
mod strings;
#[path = "sql_front/words.rs"]
mod words;

/// 2024-03-10 12:00:00, the instant of every statement here.
pub(crate) const NOW_US: i64 = 1_710_072_000_000_000;

/// A catalog that definitions change.
#[derive(Default)]
pub(crate) struct Front {
    pub(crate) catalog: Catalog,
}

impl Front {
    pub(crate) fn context(&self) -> BindContext<'_> {
        BindContext { catalog: &self.catalog, now_us: NOW_US }
    }

    pub(crate) fn prepare(&self, sql: &str) -> chronos::Result<Bound> {
        prepare(sql, &ParseLimits::default(), &self.context())
    }

    /// A front with tables that statements define.
    pub(crate) fn with(statements: &[&str]) -> Front {
        let mut front = Front::default();
        for sql in statements {
            let bound = front.prepare(sql).expect("a definition");
            front.apply(&bound);
        }
        front
    }

    /// Carries a definition out.
    pub(crate) fn apply(&mut self, bound: &Bound) {
        match bound {
            Bound::CreateTable(create) if !create.exists => {
                let (id, keyspace) = self.catalog.allocate_table();
                self.catalog.put(create.definition.clone().into_table(id, keyspace));
            }
            Bound::DropTable { tables } => {
                for table in tables {
                    self.catalog.remove(*table);
                }
            }
            Bound::CreateIndex(create) if !create.exists => {
                let (id, keyspace) = self.catalog.allocate_index();
                let index = Index {
                    id,
                    name: create.name.clone(),
                    keyspace,
                    columns: create.columns.clone(),
                    unique: false,
                    state: IndexState::Ready,
                };
                self.change(create.table.id, |table| table.indexes.push(index));
            }
            Bound::DropIndex { indexes } => {
                for (table, id) in indexes {
                    self.change(*table, |table| table.indexes.retain(|index| index.id != *id));
                }
            }
            _ => {}
        }
    }

    fn change(&mut self, id: TableId, change: impl FnOnce(&mut Table)) {
        let mut table = Table::clone(self.catalog.table_by_id(id).expect("a bound table"));
        change(&mut table);
        self.catalog.put(table);
    }
}

impl goldenscript::Runner for Front {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn Error>> {
        match self.prepare(&command.name) {
            Ok(bound) => {
                self.apply(&bound);
                Ok(describe(&bound))
            }
            Err(error) => {
                let position = error.position().map_or(String::new(), |position| format!(" at {position}"));
                Ok(format!("{}{position}: {error}\n", error.sqlstate()))
            }
        }
    }
}

fn describe(bound: &Bound) -> String {
    let mut out = String::new();
    match bound {
        Bound::Query { columns, .. } => {
            let columns: Vec<String> =
                columns.iter().map(|column| format!("{} {}", column.name, column.data_type)).collect();
            writeln!(out, "{}", columns.join(", ")).unwrap();
        }
        Bound::Insert(insert) => {
            for row in rows(insert) {
                writeln!(out, "{row}").unwrap();
            }
            return out;
        }
        Bound::CreateTable(create) => describe_table(&mut out, create),
        Bound::CreateIndex(create) => {
            let columns: Vec<&str> =
                create.columns.iter().map(|id| create.table.column_by_id(*id).unwrap().name.as_str()).collect();
            let exists = if create.exists { " exists" } else { "" };
            writeln!(out, "{} on {} ({}){exists}", create.name, create.table.name, columns.join(", ")).unwrap();
            return out;
        }
        Bound::Explain { analyze, .. } => writeln!(out, "explain analyze={analyze}").unwrap(),
        Bound::Update(_) | Bound::Delete(_) | Bound::DropTable { .. } | Bound::DropIndex { .. } => {}
    }
    if !matches!(bound, Bound::CreateTable(_)) {
        for line in explain::render(bound, &[]) {
            writeln!(out, "{line}").unwrap();
        }
    }
    out
}

fn describe_table(out: &mut String, create: &chronos::sql::bind::BoundCreateTable) {
    let definition = &create.definition;
    let exists = if create.exists { " exists" } else { "" };
    let ttl = definition.ttl.map_or(String::new(), |ttl| format!(" ttl={}s", ttl.as_secs()));
    writeln!(out, "{}{ttl}{exists}", definition.name).unwrap();
    for column in &definition.columns {
        let key = definition.primary_key.iter().position(|id| *id == column.id);
        let key = key.map_or(String::new(), |key| format!(" key {}", key + 1));
        let not_null = if column.not_null { " not null" } else { "" };
        let default = column.default.as_ref().map_or(String::new(), |default| format!(" default {default}"));
        let length = column.length_max.map_or(String::new(), |length| format!(" length {length}"));
        let (name, data_type, declared) = (&column.name, column.data_type, &column.declared_type);
        writeln!(out, "  {name} {data_type} ({declared}){length}{not_null}{key}{default}").unwrap();
    }
}

/// The rows of an INSERT as text.
pub(crate) fn rows(insert: &BoundInsert) -> Vec<String> {
    let row = |row| {
        let values: Vec<String> = insert
            .columns
            .iter()
            .map(|column| match column.value(row) {
                chronos::sql::value::Value::Text(text) => format!("'{text}'"),
                value => value.to_string(),
            })
            .collect();
        values.join(", ")
    };
    (0..insert.rows).map(row).collect()
}

macro_rules! scripts {
    ($($name:ident: $file:literal;)*) => {$(
        #[test]
        fn $name() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/domain/scripts/sql/", $file);
            goldenscript::run(&mut Front::default(), path).unwrap();
        }
    )*};
}

scripts! {
    definitions_bind_or_are_refused: "definitions";
    inserts_bind_or_are_refused: "inserts";
    expressions_have_the_types_and_names_of_postgresql: "expressions";
    queries_become_plans: "queries";
    conditions_become_key_ranges: "access";
    updates_and_deletes_find_their_rows: "writes";
    what_is_not_supported_is_refused_by_name: "refused";
    errors_point_at_their_place: "errors";
}

#[test]
fn ten_thousand_parentheses_are_refused() {
    let front = Front::default();
    for (open, close) in
        [("(", ")"), ("[", "]"), ("NOT ", ""), ("- ", ""), ("CASE WHEN ", ""), ("f(", ")"), ("ARRAY[", "]")]
    {
        let sql = format!("SELECT {}1{}", open.repeat(10_000), close.repeat(10_000));
        let error = front.prepare(&sql).expect_err("too deep");
        assert!(["54001", "42601"].contains(&error.sqlstate().as_str()), "{open}: {error:?}");
    }
    let error = front.prepare(&format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000))).expect_err("too deep");
    assert_eq!(error.sqlstate().as_str(), "54001");
    assert_eq!(error.position(), Some(136));
}

#[test]
fn long_chains_are_refused_and_moderate_ones_pass() {
    let front = Front::with(&["CREATE TABLE t (id INT PRIMARY KEY, x INT)"]);
    for chain in ["1 + ", "x AND ", "'a' || ", "x = ", "1::INT + "] {
        let sql = format!("SELECT * FROM t WHERE {}", chain.repeat(100_000));
        assert_eq!(front.prepare(&sql).expect_err("too long").sqlstate().as_str(), "54001", "{chain}");
        // Just below the limit, and wrong at its end: the tree is torn down by the parser.
        let sql = format!("SELECT * FROM t WHERE {} FROM", chain.repeat(1_900));
        assert!(front.prepare(&sql).is_err(), "{chain}");
    }
    let terms: Vec<String> = (0..1_000).map(|i| format!("id = {i}")).collect();
    front.prepare(&format!("SELECT * FROM t WHERE {}", terms.join(" OR "))).expect("a thousand terms");
    let list: Vec<String> = (0..50_000).map(|i| i.to_string()).collect();
    front.prepare(&format!("SELECT * FROM t WHERE id IN ({})", list.join(", "))).expect("a long list");
}

#[test]
fn what_is_printed_to_be_kept_or_compared_is_not_too_long_for_the_stack() {
    let front = Front::with(&["CREATE TABLE t (id INT PRIMARY KEY, value INT, ok BOOL)"]);
    for (chain, state) in [("TRUE AND ", None), ("ok OR ", None), ("1 = 1 AND ", None), ("1 + ", Some("54001"))] {
        let refused = |sql: &str| front.prepare(sql).err().map(|error| error.sqlstate().as_str().to_owned());
        let sql = format!("CREATE TABLE x (a BOOL DEFAULT {}TRUE)", chain.repeat(1_900));
        assert_eq!(refused(&sql).as_deref(), Some("54001"), "{chain}");
        // `value` is a keyword of the parser's, which is looked for.
        for terms in [200, 1_900] {
            let sql = format!("SELECT value FROM t WHERE {}value = 1", chain.repeat(terms));
            assert_eq!(refused(&sql).as_deref(), state, "{chain} {terms}");
        }
    }
}

#[test]
fn a_text_like_the_names_of_lists_is_read_in_one_pass() {
    let front = Front::with(&["CREATE TABLE t (id INT PRIMARY KEY, s TEXT)"]);
    let (more, list) = ("x".repeat(1 << 20), vec!["7"; 2_000].join(","));
    front.prepare(&format!("SELECT '$list{more}'")).expect("text");
    front.prepare(&format!("SELECT 1 FROM t WHERE s = '$list{more}' AND id IN ({list})")).expect("a list too");
    let names: Vec<&str> = (0..100_000).flat_map(|i| ["$list", &more[..i % 16]]).collect();
    let names = names.concat();
    front.prepare(&format!("SELECT 1 FROM t WHERE s = '{names}' AND id IN ({list})")).expect("many names");
    let error = front.prepare(&format!("SELECT $list{more}, 1 FROM t WHERE id IN ({list})")).expect_err("no name");
    assert_eq!(error.position(), Some(8), "{error}");
}

#[test]
fn a_depth_within_the_limit_fits_the_stack() {
    let front = Front::default();
    let sql = format!("SELECT {}1{}", "(1 + ".repeat(100), ")".repeat(100));
    assert!(matches!(front.prepare(&sql), Ok(Bound::Query { .. })));
    for (open, close) in [("abs(", ")"), ("CASE WHEN TRUE THEN ", " END"), ("CAST(", " AS INT)"), ("coalesce(1, ", ")")]
    {
        let sql = format!("SELECT {}1{}", open.repeat(60), close.repeat(60));
        front.prepare(&sql).unwrap_or_else(|error| panic!("{open}: {error:?}"));
    }
}

#[test]
fn a_statement_beyond_the_limit_of_bytes_is_refused() {
    let front = Front::default();
    let error = front.prepare(&format!("SELECT '{}'", "a".repeat(17 << 20))).expect_err("too long");
    assert_eq!(error.sqlstate().as_str(), "54000");
    let error = front.prepare(&format!("SELECT 1{}", ", 1".repeat(2_000_000))).expect_err("too many tokens");
    assert_eq!(error.sqlstate().as_str(), "54000");
}

#[test]
fn statements_know_whether_they_only_read() {
    let read_only =
        |sql: &str| parse(sql, &ParseLimits::default()).map(|statement: Statement| statement.is_read_only());
    assert_eq!(read_only("SELECT 1"), Ok(true));
    assert_eq!(read_only("SHOW TABLES"), Ok(true));
    assert_eq!(read_only("EXPLAIN DELETE FROM t"), Ok(true));
    assert_eq!(read_only("EXPLAIN ANALYZE DELETE FROM t"), Ok(false));
    assert_eq!(read_only("DROP TABLE t"), Ok(false));
}

#[test]
fn catalogs_share_tables_with_what_is_bound() {
    let front = Front::with(&["CREATE TABLE t (id INT)"]);
    let Ok(Bound::Insert(insert)) = front.prepare("INSERT INTO t VALUES (1)") else { panic!("an insert") };
    assert!(Arc::ptr_eq(&insert.table, front.catalog.table("t").unwrap()));
}
