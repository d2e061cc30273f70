//! A long INSERT means and fails as a short one, whatever one of its rows looks like.
//!
//! The short text is parsed as a whole. The long one has 8,000 rows of literals on either side of the same piece, and an
//! account that is too small for its tokens.

use super::Front;
use chronos::Error;
use chronos::error::SqlState;
use chronos::sql::batch::Batch;
use chronos::sql::bind::{Bound, BoundInsert, bind};
use chronos::sql::insert::{MixedInsert, Parsing, Place};
use chronos::sql::memory::Pool;
use chronos::sql::translate::{ParseLimits, parse, parse_within};
use chronos::sql::value::Value;

const TABLE: &str = "CREATE TABLE t (id INT PRIMARY KEY, i INT NOT NULL, f FLOAT, s VARCHAR(8), at TIMESTAMP, \
                     b BOOL DEFAULT TRUE, x BLOB)";
const COLUMNS: &str = "INSERT INTO t (id, i, f, s) VALUES ";
const PLAIN: &str = "(7, -8, 2.5, 'it''s')";
/// Rows of literals on a side of the piece: of the short text and of the long one.
const AROUND: [usize; 2] = [3, 8_000];

/// A text: what stands before the rows, the row that is special with what stands behind it, and behind the last one.
struct Text<'a> {
    head: &'a str,
    piece: &'a str,
    tail: &'a str,
}

/// Where the piece stands.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stand {
    First,
    Between,
    Last,
}

impl Text<'_> {
    /// The text, and how many characters stand before and behind the piece.
    fn written(&self, place: Stand, around: usize) -> (String, u32, u32) {
        let plain = |rows: usize| vec![PLAIN; rows].join(", ");
        let before = if place == Stand::First { String::new() } else { format!("{}, ", plain(around)) };
        let behind = if place == Stand::Last { String::new() } else { format!(", {}", plain(around)) };
        let sql = format!("{}{before}{}{behind}{}", self.head, self.piece, self.tail);
        (sql, before.chars().count() as u32, behind.chars().count() as u32)
    }
}

type Rows = Vec<Vec<Value>>;

fn rows(insert: &BoundInsert) -> Rows {
    let batch = Batch::new(insert.columns.clone(), insert.rows);
    (0..insert.rows).map(|row| batch.row(row)).collect()
}

fn general(front: &Front, sql: &str) -> Result<Rows, Error> {
    match bind(&parse(sql, &ParseLimits::default())?, &front.context())? {
        Bound::Insert(insert) => Ok(rows(&insert)),
        other => panic!("{other:?}"),
    }
}

/// As the executor reads a long text.
fn long(front: &Front, sql: &str) -> Result<Rows, Error> {
    let memory = Some(Pool::new(16 << 20).query(16 << 20));
    let parsing = Parsing { limits: ParseLimits::default(), memory: memory.clone() };
    if let Some(insert) = MixedInsert::begin(sql, &front.context(), parsing)? {
        let (mut at, mut all) = (insert.first(), Vec::new());
        while at != Place::End {
            let Some(read) = insert.rows(&mut at, 1_000, usize::MAX)? else { break };
            all.extend(rows(&read));
        }
        if at == Place::End {
            return Ok(all);
        }
    }
    parse_within(sql, &ParseLimits::default(), memory.as_ref()).map(|_| panic!("it fits: {}", &sql[..100]))
}

fn head_of(sql: &str) -> String {
    sql.chars().take(300).collect()
}

/// The short text's answer is the long one's.
fn same(front: &Front, text: &Text<'_>, place: Stand) {
    let (short, short_before, short_behind) = text.written(place, AROUND[0]);
    let (whole, before, behind) = text.written(place, AROUND[1]);
    let what = format!("{place:?} {}", head_of(&short));
    match (general(front, &short), long(front, &whole)) {
        (Ok(short), Ok(whole)) => {
            let piece = if place == Stand::First { 0 } else { AROUND[0] };
            let shift = if place == Stand::First { 0 } else { AROUND[1] - AROUND[0] };
            assert_eq!(
                whole.len() - short.len(),
                if place == Stand::Between { 2 } else { 1 } * (AROUND[1] - AROUND[0]),
                "{what}"
            );
            for (at, row) in short.iter().enumerate() {
                let there = if at < piece { at } else { at + shift };
                assert_eq!(format!("{row:?}"), format!("{:?}", whole[there]), "row {at} of {what}");
            }
        }
        (Err(short_error), Err(error)) => {
            assert_eq!(
                (error.sqlstate(), error.to_string()),
                (short_error.sqlstate(), short_error.to_string()),
                "{what}"
            );
            assert_eq!(error.hint_text(), short_error.hint_text(), "{what}");
            let head = text.head.chars().count() as u32;
            let end = |before: u32| head + before + text.piece.chars().count() as u32;
            let expected = short_error.position().map(|position| match () {
                () if position <= head + short_before.saturating_sub(2) => position,
                // In the piece, or in the row behind it.
                () if position <= end(short_before) + 3 + PLAIN.len() as u32 && place != Stand::Last => {
                    position + before - short_before
                }
                () => position + before - short_before + behind - short_behind,
            });
            assert_eq!(error.position(), expected, "{error:?} for {what}");
        }
        (short, whole) => {
            panic!("{:?} became {:?}: {what}", short.map(|rows| rows.len()), whole.map(|rows| rows.len()))
        }
    }
}

fn front() -> Front {
    Front::with(&[TABLE])
}

#[test]
fn the_long_text_does_not_fit_the_parser() {
    let text = Text { head: COLUMNS, piece: PLAIN, tail: "" };
    let memory = Pool::new(16 << 20).query(16 << 20);
    let error = parse_within(&text.written(Stand::Between, AROUND[1]).0, &ParseLimits::default(), Some(&memory));
    assert_eq!(error.unwrap_err().sqlstate(), SqlState::OUT_OF_MEMORY);
}

#[test]
fn a_row_that_is_more_than_literals_is_the_same_in_a_long_insert() {
    let front = front();
    let pieces = [
        "(1 + 1, -(-3), 1e0 / 4, 'a' || 'b')",
        "(DEFAULT, DEFAULT, 1, 'x')",
        "(1, 2, DEFAULT, DEFAULT)",
        "(1, '5', '2.5', 77)",
        "(1, 50000.4, 5, TRUE)",
        "(1, 2, NULL, E'a\\tb')",
        "(1, 2, +3, U&'\\0061')",
        "(1, 2, .5, $$a$$)",
        "(1, 2, 5., $q$it's$q$)",
        "(1, 2, 3, 'x'::text)",
        "(1, CAST('7' AS INT), length('é'), upper('é'))",
        "(1, 2, 3, 'a'\n 'b')",
        "(1, 2, 3, 'a' 'b')",
        "(1, 2, 3, X'00ff')",
        "(1, 2, 3, TIMESTAMP '2024-01-01 00:00:00')",
        "(1, 2, 3, now())",
        "(1, 2, 3, nope())",
        "(1, 2, 3, nope)",
        "(1, 2, 3, 'longer than eight')",
        "(1, 2, 3, 'x'::varchar(3))",
        "(1, NULL, 3, 'x')",
        "(1, 2 + NULL, 3, 'x')",
        "(1, 'x', 3, 'x')",
        "(1, 99999999999999999999, 3, 'x')",
        "(1, 2, 1e999, 'x')",
        "(1, 1 / 0, 3, 'x')",
        "(1, TRUE, 3, 'x')",
        "(1, 2, 3, 'x', 5)",
        "(1, 2, 3)",
        "(1, 2)",
        "()",
        "(1, 2 3, 4, 5)",
        "(1, 2,, 3, 4)",
        "(1, 2, 3, 'x',)",
        "(1, 2, 3, $1)",
        "(1, 7d, 3, 'x')",
        "(1, (2), (((3))), ('x'))",
        "(1, (SELECT 2), 3, 'x')",
        "(1, 2, 3, CASE WHEN 1 < 2 THEN 'y' END)",
        "(1, 2, 3, 'x') -- a comment, (4, 'b')\n",
        "/* one /* nested */ 'it */ (1, 2, 3, 'x')",
        "(1, /* two */ 2, -- three\n 3, 'x')",
        "(1, 2, 3, 'x') /* , */",
        "1, 2, 3, 'x')",
        "(1, 2, 3, 'x'))",
        "((1, 2, 3, 'x')",
        "(1, 2, 3, 'x'",
        "(1, 2, 3, 'x') (1, 2, 3, 'x')",
        "(1, 2, 3, 'x'); (1, 2, 3, 'x')",
        "(1, 2, 3, 'x') extra",
        "ROW(1, 2, 3, 'x')",
        "(1, 2, 3, \u{a0}'x')",
        "(1, 2, 3, \"id\")",
        "(1, 2, 3, ?)",
        "",
    ];
    for piece in pieces {
        for place in [Stand::First, Stand::Between, Stand::Last] {
            same(&front, &Text { head: COLUMNS, piece, tail: "" }, place);
        }
    }
}

#[test]
fn the_end_of_a_long_insert_is_that_of_a_short_one() {
    let tails = [
        ";",
        ";;",
        " ; ; ",
        " -- end",
        " /* end */ ; -- end\n",
        " ON CONFLICT DO NOTHING",
        " ON CONFLICT (id) DO UPDATE SET i = 1",
        " RETURNING id",
        " RETURNING",
        " nonsense",
        " LIMIT 1",
        " ORDER BY 1",
        ")",
        ",",
        ", ",
        "; SELECT 1",
        " UNION SELECT 1",
        " 'open",
        " /* open",
        " \"open",
        ", (1, 2, 3, 'open)",
        ", (1, 2, 3, 'x'",
        ", (1, 2",
    ];
    for tail in tails {
        same(&front(), &Text { head: COLUMNS, piece: "(1, 2, 3, 'x')", tail }, Stand::Last);
        same(&front(), &Text { head: COLUMNS, piece: "(1, 2, 1 + 2, 'x')", tail }, Stand::Last);
    }
}

#[test]
fn the_head_of_a_long_insert_is_that_of_a_short_one() {
    let heads = [
        "INSERT INTO u (id, i, f, s) VALUES ",
        "INSERT INTO tt VALUES ",
        "INSERT INTO t (id, i, f, ss) VALUES ",
        "INSERT INTO t (id, i, f, nothing_like_it) VALUES ",
        "INSERT INTO t (id, i, f, f) VALUES ",
        "INSERT INTO t (id, i, f) VALUES ",
        "INSERT INTO t (id, i, f, s, at) VALUES ",
        "INSERT INTO t (id, f, s, at) VALUES ",
        "INSERT INTO t (id, f, i, s VALUES ",
        "INSERT INTO t id, i, f, s) VALUES ",
        "INSERT INTO t () VALUES ",
        "INSERT INTO t VALUES ",
        "INSERT INTO \"t\" (\"id\", i, F, \"s\") VALUES",
        "INSERT INTO \"T\" VALUES ",
        "INSERT INTO public.t (id, i, f, s) VALUES ",
        "INSERT INTO t AS x (id, i, f, s) VALUES ",
        "INSERT t (id, i, f, s) VALUES ",
        "INSERT OR REPLACE INTO t (id, i, f, s) VALUES ",
        "-- head\nINSERT /* to */ INTO t (id, i, f, /* four */ s) -- now\n VALUES ",
        "INSERT INTO t (id, i, f, s) OVERRIDING SYSTEM VALUE VALUES ",
        "INSERT INTO t (values, id, i, s) VALUES ",
        "INSERT INTO t (id, i, f, s) VALUE ",
        "INSERT INTO VALUES ",
        "INSERT VALUES ",
    ];
    for head in heads {
        for piece in [PLAIN, "(7, 8, 1 + 1, 'x')"] {
            same(&front(), &Text { head, piece, tail: "" }, Stand::Between);
        }
    }
}
