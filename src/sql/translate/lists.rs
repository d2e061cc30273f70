//! Long IN lists of literals, taken out of a text before it is parsed.
//!
//! ```text
//! ... id IN (1, 2, NULL, 3, ... 500,000) AND ...   ->   ... id IN ($list0, NULL) AND ...
//!                                                       and the values, eight bytes each
//! ```
//!
//! A value takes the parser some 750 bytes, in tokens and in its tree; here it takes what it is.
//!
//! * Taken out are integers, numbers with a point, and strings in single quotes, where a list has many of the kind.
//!   Whatever else stands in it (an expression, a NULL, a lone string) stays for the parser, so there is one meaning and
//!   one source of errors. The order of a list means nothing.
//! * The name that stands for values occurs nowhere in the text, so no user can write it. It is short, however the text
//!   looks: a text that is full of such names keeps its lists.
//! * What values take is measured first, and counted from before they are made until the last one drops them who looks
//!   anything up in them: the stream of a query may live for long.
//! * All of it is one pass over the text, and two more over each list: no deadline is asked in here.

mod items;

use super::scan;
use crate::Result;
use crate::sql::batch::{Column, Strings, Values};
use crate::sql::expression::ValueSet;
use crate::sql::memory::{Counted, QueryMemory};
use crate::sql::statement::Literals;
use items::{Item, Plain, items};
use std::sync::Arc;

/// Bytes of text from which on lists are looked for: what is shorter is cheap to parse.
const TEXT_BYTES_MIN: usize = 16 << 10;

/// Values of a kind from which on they are taken out of a list.
const VALUES_MIN: usize = 1_000;

/// What the names of lists begin with; as many `x` follow as make it a name that the text does not have.
const NAME: &str = "$list";

/// Those `x` at most: a name is far shorter than any list that it stands for.
const NAME_MORE_MAX: usize = 64;

/// What was taken out of a text.
pub(super) struct Lists {
    /// What their names begin with.
    name: String,
    values: Vec<Arc<Literals>>,
    /// Positions of the shorter text, in characters, and how many more characters the whole text has before what stands
    /// behind them; fewer, where a name is longer than its first value. Positions ascend.
    cuts: Vec<(u32, i64)>,
    /// What the cuts take.
    _counted: Counted,
}

impl Lists {
    /// Takes long lists out of a text, and gives it without them; none where it has none.
    ///
    /// # Errors
    /// 53200 where the lists do not fit what is left of `memory`.
    pub(super) fn take_out(sql: &str, memory: Option<&Arc<QueryMemory>>) -> Result<Option<(Lists, String)>> {
        if sql.len() < TEXT_BYTES_MIN {
            return Ok(None);
        }
        let Some(name) = unused_name(sql) else { return Ok(None) };
        let (bytes, mut values) = (sql.as_bytes(), Vec::new());
        let mut text = Shorter {
            sql,
            text: String::new(),
            copied: 0,
            characters: 0,
            removed: 0,
            cuts: Vec::new(),
            counted: Counted::new(memory),
        };
        let (mut at, mut after_in) = (0, false);
        while at < bytes.len() {
            let (is_space, end) = scan::lexeme(bytes, at);
            if after_in
                && bytes[at] == b'('
                && let Some(found) = measure(bytes, end)
            {
                (at, after_in) = (found.close, false);
                take(&mut text, end, &found, (&name, &mut values), memory)?;
                continue;
            }
            after_in = bytes[at..end].eq_ignore_ascii_case(b"in") || (after_in && is_space);
            at = end;
        }
        if values.is_empty() {
            return Ok(None);
        }
        text.copy_to(sql.len());
        Ok(Some((Lists { name, values, cuts: text.cuts, _counted: text.counted }, text.text)))
    }

    /// The list of a name.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Literals>> {
        let number: usize = name.strip_prefix(&self.name)?.parse().ok()?;
        self.values.get(number).cloned()
    }

    /// Where a position of the shorter text is in the whole one.
    pub(super) fn position(&self, position: u32) -> u32 {
        let before = self.cuts.partition_point(|(at, _)| *at < position);
        let removed = before.checked_sub(1).map_or(0, |last| self.cuts[last].1);
        u32::try_from(i64::from(position) + removed).unwrap_or(position)
    }
}

/// What names may begin with, as it occurs nowhere in the text; none where that would be long.
fn unused_name(sql: &str) -> Option<String> {
    let more = |at: usize| sql.as_bytes()[at + NAME.len()..].iter().take_while(|byte| **byte == b'x').count();
    let longest = sql.match_indices(NAME).map(|(at, _)| more(at) + 1).max().unwrap_or(0);
    (longest <= NAME_MORE_MAX).then(|| format!("{NAME}{}", "x".repeat(longest)))
}

/// The text without what was taken out, as far as it is written.
struct Shorter<'a> {
    sql: &'a str,
    text: String,
    /// Bytes of the whole text that are dealt with.
    copied: usize,
    /// Characters written.
    characters: usize,
    removed: i64,
    cuts: Vec<(u32, i64)>,
    counted: Counted,
}

impl Shorter<'_> {
    /// Makes room for the cuts of a list in which so many items stay: each may stand between two of them. The few that
    /// every list has count with its values, of which there are a thousand.
    fn expect(&mut self, stay: usize) -> Result<()> {
        if stay == 0 {
            return Ok(());
        }
        let cuts = (self.cuts.len() + stay).max(self.cuts.capacity());
        self.counted.set(cuts * size_of::<(u32, i64)>())?;
        self.cuts.reserve(stay);
        Ok(())
    }

    fn copy_to(&mut self, to: usize) {
        let more = &self.sql[self.copied..to];
        self.text.push_str(more);
        (self.copied, self.characters) = (to, self.characters + more.chars().count());
    }

    /// Leaves out what stands up to a byte, and writes a name instead, or nothing.
    fn replace_to(&mut self, to: usize, name: Option<&str>) {
        // What stands behind the name is moved, and not the name.
        let at = (self.characters + usize::from(name.is_some())) as u32;
        let name = name.unwrap_or_default();
        self.removed += self.sql[self.copied..to].chars().count() as i64 - name.len() as i64;
        self.text.push_str(name);
        (self.copied, self.characters) = (to, self.characters + name.len());
        match self.cuts.last_mut() {
            Some((last, removed)) if *last == at => *removed = self.removed,
            Some(_) | None => self.cuts.push((at, self.removed)),
        }
    }

    /// The position in the whole text of a byte that is not dealt with yet.
    fn position(&self, byte: usize) -> u32 {
        let before = self.characters as i64 + self.removed;
        (before + self.sql[self.copied..byte].chars().count() as i64 + 1) as u32
    }
}

/// A list, by what can be taken out of it.
#[derive(Default)]
struct Found {
    ints: usize,
    floats: usize,
    strings: usize,
    /// Bytes between the quotes.
    string_bytes: usize,
    /// Items that stay.
    stay: usize,
    /// Where the parenthesis stands that closes it.
    close: usize,
}

/// The size of the list whose items begin at `at`; none where nothing is taken out of it.
fn measure(bytes: &[u8], at: usize) -> Option<Found> {
    let mut found = Found::default();
    let close = items(bytes, at, |item| match item.plain {
        Some(Plain::Int(_)) => found.ints += 1,
        Some(Plain::Float(_)) => found.floats += 1,
        Some(Plain::Quoted(text)) => {
            (found.strings, found.string_bytes) = (found.strings + 1, found.string_bytes + text.len());
        }
        None => found.stay += 1,
    })?;
    // A few of a kind among many of another are as good as any expression, and have their own places in errors.
    for few in [&mut found.ints, &mut found.floats, &mut found.strings] {
        if *few < VALUES_MIN {
            found.stay += std::mem::take(few);
        }
    }
    (found.ints + found.floats + found.strings > 0).then_some(Found { close, ..found })
}

/// Values of one kind on their way.
struct Kind<T> {
    values: T,
    counted: Counted,
    /// The number in their name, once it is written.
    number: Option<usize>,
}

/// Takes out of a list what was found in it.
fn take(
    text: &mut Shorter<'_>,
    at: usize,
    found: &Found,
    (name, lists): (&str, &mut Vec<Arc<Literals>>),
    memory: Option<&Arc<QueryMemory>>,
) -> Result<()> {
    text.expect(found.stay)?;
    let count = |bytes: usize| {
        let mut counted = Counted::new(memory);
        counted.set(bytes).map(|()| counted)
    };
    let mut ints =
        Kind { counted: count(found.ints * size_of::<i64>())?, values: Vec::with_capacity(found.ints), number: None };
    let mut floats = Kind {
        counted: count(found.floats * size_of::<f64>())?,
        values: Vec::with_capacity(found.floats),
        number: None,
    };
    let string_bytes =
        if found.strings == 0 { 0 } else { found.string_bytes + (2 * found.strings + 1) * size_of::<u32>() };
    let room = (Strings::with_capacity(found.strings, found.string_bytes), Vec::with_capacity(found.strings));
    let mut strings = Kind { counted: count(string_bytes)?, values: room, number: None };
    let mut next = lists.len();
    let mut cut = |text: &mut Shorter<'_>, item: &Item<'_>, number: &mut Option<usize>| {
        if number.is_some() {
            // With the comma before it: the first item of a list is the first of its kind.
            text.copy_to(item.begin - 1);
            return text.replace_to(item.end, None);
        }
        text.copy_to(item.from);
        text.replace_to(item.end, Some(&format!("{name}{next}")));
        *number = Some(next);
        next += 1;
    };
    let (mut plain, mut behind_nothing) = (Vec::new(), false);
    items(text.sql.as_bytes(), at, |item| {
        // Where an item is missing, the error names the one behind it, which must still be there.
        if std::mem::replace(&mut behind_nothing, item.from == item.end) {
            return;
        }
        match item.plain {
            Some(Plain::Int(value)) if found.ints > 0 => {
                ints.values.push(value);
                cut(text, &item, &mut ints.number);
            }
            Some(Plain::Float(value)) if found.floats > 0 => {
                floats.values.push(value);
                cut(text, &item, &mut floats.number);
            }
            Some(Plain::Quoted(value)) if found.strings > 0 => {
                strings.values.1.push(text.position(item.from));
                strings.values.0.push(without_doubles(value, &mut plain));
                cut(text, &item, &mut strings.number);
            }
            Some(Plain::Int(_) | Plain::Float(_) | Plain::Quoted(_)) | None => {}
        }
    });
    // Numbers look the same to every type that they may become, so they are put in order at once.
    let numbers = |values, counted| Literals::Numbers(Arc::new(ValueSet::of(Column::new(values), counted)));
    let (texts, positions) = strings.values;
    let mut made = [
        (ints.number, numbers(Values::Int(ints.values), ints.counted)),
        (floats.number, numbers(Values::Float(floats.values), floats.counted)),
        (strings.number, Literals::Quoted { strings: texts, positions, counted: strings.counted }),
    ];
    made.sort_by_key(|(number, _)| *number);
    lists.extend(made.into_iter().filter(|(number, _)| number.is_some()).map(|(_, values)| Arc::new(values)));
    Ok(())
}

/// What a string says: of two quotes beside each other the first one is left out.
fn without_doubles<'a>(text: &'a [u8], plain: &'a mut Vec<u8>) -> &'a [u8] {
    if !text.contains(&b'\'') {
        return text;
    }
    plain.clear();
    let mut pairs = text.iter().peekable();
    while let Some(byte) = pairs.next() {
        plain.push(*byte);
        pairs.next_if(|next| *byte == b'\'' && **next == b'\'');
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::memory::Pool;
    use crate::sql::value::Value;

    fn taken(list: &str) -> Option<(Lists, String)> {
        let sql = format!("SELECT * FROM t WHERE -- note\n a IN ({list}) AND b iN\n (7) AND c = 'IN (1)'");
        Lists::take_out(&sql, None).unwrap()
    }

    fn listed(ids: std::ops::Range<i64>) -> String {
        ids.map(|id| id.to_string()).collect::<Vec<String>>().join(",")
    }

    #[test]
    fn a_long_list_of_one_kind_is_taken_out() {
        let ints: Vec<String> = (-5000..5000).map(|i| i.to_string()).collect();
        let (lists, text) = taken(&ints.join(" ,\n")).unwrap();
        assert_eq!(text, "SELECT * FROM t WHERE -- note\n a IN ($list0) AND b iN\n (7) AND c = 'IN (1)'");
        let list = lists.find("$list0").unwrap();
        let Literals::Numbers(set) = &*list else { panic!("{text}") };
        assert_eq!((set.len(), set.value(0), set.value(9999)), (10_000, Value::Int(-5000), Value::Int(4999)));
        assert!(lists.find("$list1").is_none() && lists.find("$1").is_none());
        let texts: Vec<String> = (0..2000).map(|i| format!("'é{i}''$list'")).collect();
        let (lists, text) = taken(&texts.join(",")).unwrap();
        assert!(text.contains("a IN ($listx0) AND"), "{text}");
        assert_eq!(lists.find("$listx0").unwrap().expression(7, 1), {
            use crate::sql::statement::{Expr, Literal, Node};
            let position = ("SELECT * FROM t WHERE -- note\n a IN (".len() + 7 * "'?0''$list',".len() + 1) as u32;
            Expr { node: Node::Literal(Literal::Quoted("é7'$list".into())), position }
        });
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_parser() {
        let with = |item: &str| {
            let mut items = vec!["100000000".to_owned(); 3000];
            items[1500] = item.to_owned();
            taken(&items.join(","))
                .map(|(_, text)| text[text.find("a IN (").unwrap() + 6..text.find(") AND").unwrap()].to_owned())
        };
        for item in ["5", " -5 ", "/* */ 5", "-- five\n5\n"] {
            assert_eq!(with(item).as_deref(), Some("$list0"), "{item}");
        }
        for item in
            ["1.5", "1e3", "NULL", "'5'", "5 + 1", "99999999999999999999", "- 5", "(5)", "f(5, 6)", "5.", "x -- 5,\n"]
        {
            assert_eq!(with(item), Some(format!("$list0,{item}")), "{item}");
        }
        // The error names what stands behind the missing one.
        assert_eq!(with("").as_deref(), Some("$list0,,100000000"));
        for item in ["x IN (1)", "(", "'", "5; 6"] {
            assert!(with(item).is_none(), "{item}");
        }
        assert!(taken("1, 2, 3").is_none());
    }

    #[test]
    fn kinds_are_taken_out_of_one_list_and_positions_are_kept() {
        let items: Vec<String> = (0..6000)
            .map(|i| match i % 4 {
                0 => format!("{i}.5"),
                1 => format!("'é{i}'"),
                2 => format!("\n{i}"),
                _ if i % 1000 == 3 => format!(" odd{i}"),
                _ => format!("-{i}"),
            })
            .collect();
        let sql = format!("SELECT é FROM t WHERE a IN ({}) AND end", items.join(","));
        let (lists, text) = Lists::take_out(&sql, None).unwrap().unwrap();
        assert!(text.contains("IN ($list0,$list1,\n$list2, odd3, odd1003, odd2003"), "{text}");
        let position = |text: &str, part: &str| text[..text.find(part).unwrap()].chars().count() as u32 + 1;
        for part in ["odd3,", "odd1003", "odd5003", ") AND", "end", "FROM"] {
            assert_eq!(lists.position(position(&text, part)), position(&sql, part), "{part}");
        }
        let lengths = ["$list0", "$list1", "$list2"].map(|name| lists.find(name).unwrap().len());
        assert_eq!(lengths, [1500, 1500, 3000 - 6]);
        let last = lists.find("$list1").unwrap().expression(1499, 0);
        assert_eq!(last.position, position(&sql, "'é5997'"));
    }

    #[test]
    fn a_position_behind_a_list_is_that_of_the_whole_text() {
        let ints: Vec<String> = (10_000..20_000).map(|i| i.to_string()).collect();
        let sql = format!("SELECT é FROM t WHERE b IN ({0}) AND a IN ({0}) AND wrong", ints.join(","));
        let (lists, text) = Lists::take_out(&sql, None).unwrap().unwrap();
        let position = |text: &str, part: &str| text[..text.find(part).unwrap()].chars().count() as u32 + 1;
        for part in ["wrong", "FROM", "a IN", ") AND", ") AND wrong"] {
            assert_eq!(lists.position(position(&text, part)), position(&sql, part), "{part}");
        }
    }

    #[test]
    fn a_text_full_of_names_of_lists_keeps_its_lists() {
        let with = |names: &str| Lists::take_out(&format!("{names} IN ({})", listed(0..5000)), None).unwrap();
        let (_, text) = with("$listxx $list $listxxx0 $lists").unwrap();
        assert!(text.ends_with("IN ($listxxxx0)"), "{text}");
        assert!(with(&format!("${}", "list$".repeat(1000))).is_some());
        // A name for each list, as long as half of the text, would be text of the square of its length.
        assert!(with(&format!("$list{}", "x".repeat(NAME_MORE_MAX))).is_none());
        assert!(with(&format!("'$list{}'", "x".repeat(1 << 20))).is_none());
    }

    #[test]
    fn a_list_is_counted_for_as_long_as_it_lives_and_once_where_its_values_repeat() {
        let pool = Pool::new(1 << 20);
        let memory = pool.query(80_000);
        let take = |list: &str| Lists::take_out(&format!("a IN ({list})"), Some(&memory));
        let (lists, _) = take(&listed(0..10_000)).unwrap().unwrap();
        assert_eq!(pool.used(), 80_000);
        assert!(take(&listed(0..10_000)).is_err());
        let list = lists.find("$list0").unwrap();
        drop(lists);
        assert_eq!(pool.used(), 80_000);
        drop(list);
        assert_eq!(pool.used(), 0);
        assert!(take(&listed(0..10_001)).is_err(), "what does not fit is refused");
        let (repeated, _) = take(&vec!["7"; 10_000].join(",")).unwrap().unwrap();
        assert_eq!(pool.used(), 8);
        drop(repeated);
        let (_texts, _) = take(&vec!["'it''s'"; 4_000].join(",")).unwrap().unwrap();
        assert_eq!(pool.used(), 4_000 * ("it''s".len() + 8) + 4);
    }
}
