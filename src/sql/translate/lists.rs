//! Long IN lists of literals, taken out of a text before it is parsed.
//!
//! ```text
//! ... id IN (1, 2, 3, ... 500,000) AND ...   ->   ... id IN ($list0) AND ...     and the values, eight bytes each
//! ```
//!
//! A value takes the parser some 750 bytes, in tokens and in its tree; here it takes what it is.
//!
//! * Taken out are lists of integers, and of strings in single quotes. Whatever else stands in a list (an expression, a
//!   NULL, a comment, a number with a point) leaves it to the parser, so there is one meaning and one source of errors.
//! * The name that stands for a list occurs nowhere in the text, so no user can write it. It is short, however the text
//!   looks: a text that is full of such names keeps its lists.
//! * What a list takes is measured first, and counted from before it is made until the last one drops it who looks
//!   anything up in it: the stream of a query may live for long.
//! * All of it is one pass over the text, and one more over each list: no deadline is asked in here.

use super::scan;
use crate::Result;
use crate::sql::batch::{Column, Strings, Values};
use crate::sql::expression::ValueSet;
use crate::sql::memory::{Counted, QueryMemory};
use crate::sql::statement::Literals;
use std::sync::Arc;

/// Bytes of text from which on lists are looked for: what is shorter is cheap to parse.
const TEXT_BYTES_MIN: usize = 16 << 10;

/// Values from which on a list is taken out.
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
    /// For each list where its name stands, in characters of the shorter text, and how many more characters this list
    /// and those before it had. Both ascend.
    cuts: Vec<(u32, u32)>,
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
        let bytes = sql.as_bytes();
        let (mut lists, mut shorter) = (Lists { name, values: Vec::new(), cuts: Vec::new() }, String::new());
        let (mut at, mut copied, mut characters, mut removed, mut after_in) = (0, 0, 0, 0, false);
        while at < bytes.len() {
            let (is_space, end) = scan::lexeme(bytes, at);
            if after_in
                && bytes[at] == b'('
                && let Some(found) = measure(bytes, end)
                && found.values >= VALUES_MIN
            {
                let name = format!("{}{}", lists.name, lists.values.len());
                shorter.push_str(&sql[copied..end]);
                characters += sql[copied..end].chars().count();
                // Never below zero: a value has a character, a comma too, and the name far less than those of all.
                removed += sql[end..found.close].chars().count() - name.len();
                lists.cuts.push((characters as u32 + 1, removed as u32));
                shorter.push_str(&name);
                characters += name.len();
                lists.values.push(Arc::new(literals(bytes, end, &found, memory)?));
                (copied, at, after_in) = (found.close, found.close, false);
                continue;
            }
            after_in = bytes[at..end].eq_ignore_ascii_case(b"in") || (after_in && is_space);
            at = end;
        }
        if lists.values.is_empty() {
            return Ok(None);
        }
        shorter.push_str(&sql[copied..]);
        Ok(Some((lists, shorter)))
    }

    /// The list of a name.
    pub(super) fn find(&self, name: &str) -> Option<Arc<Literals>> {
        let number: usize = name.strip_prefix(&self.name)?.parse().ok()?;
        self.values.get(number).cloned()
    }

    /// Where a position of the shorter text is in the whole one.
    pub(super) fn position(&self, position: u32) -> u32 {
        let before = self.cuts.partition_point(|(at, _)| *at < position);
        position + before.checked_sub(1).map_or(0, |last| self.cuts[last].1)
    }
}

/// What names may begin with, as it occurs nowhere in the text; none where that would be long.
fn unused_name(sql: &str) -> Option<String> {
    let more = |at: usize| sql.as_bytes()[at + NAME.len()..].iter().take_while(|byte| **byte == b'x').count();
    let longest = sql.match_indices(NAME).map(|(at, _)| more(at) + 1).max().unwrap_or(0);
    (longest <= NAME_MORE_MAX).then(|| format!("{NAME}{}", "x".repeat(longest)))
}

/// A list that can be taken out.
#[derive(Default)]
struct Found {
    values: usize,
    /// Bytes between the quotes, where they are strings.
    string_bytes: Option<usize>,
    /// Where the parenthesis stands that closes it.
    close: usize,
}

/// One literal.
enum Item<'a> {
    Int(i64),
    /// What stands between the quotes, as it was written.
    Quoted(&'a [u8]),
}

/// The size of the list whose literals begin at `at`.
fn measure(bytes: &[u8], at: usize) -> Option<Found> {
    let mut found = Found::default();
    let close = items(bytes, at, |item| {
        found.values += 1;
        if let Item::Quoted(text) = item {
            *found.string_bytes.get_or_insert_default() += text.len();
        }
    })?;
    Some(Found { close, ..found })
}

/// The literals of a list that was measured.
fn literals(bytes: &[u8], at: usize, found: &Found, memory: Option<&Arc<QueryMemory>>) -> Result<Literals> {
    let mut counted = Counted::new(memory);
    let Some(string_bytes) = found.string_bytes else {
        counted.set(found.values * size_of::<i64>())?;
        let mut values = Vec::with_capacity(found.values);
        items(bytes, at, |item| {
            if let Item::Int(value) = item {
                values.push(value);
            }
        });
        // Integers look the same to every type that they may become, so they are put in order at once.
        return Ok(Literals::Ints(Arc::new(ValueSet::of(Column::new(Values::Int(values)), counted))));
    };
    counted.set(string_bytes + (found.values + 1) * size_of::<u32>())?;
    let (mut strings, mut plain) = (Strings::with_capacity(found.values, string_bytes), Vec::new());
    items(bytes, at, |item| match item {
        Item::Quoted(text) if text.contains(&b'\'') => {
            plain.clear();
            // Of two quotes beside each other the first one is left out.
            let mut pairs = text.iter().peekable();
            while let Some(byte) = pairs.next() {
                plain.push(*byte);
                pairs.next_if(|next| *byte == b'\'' && **next == b'\'');
            }
            strings.push(&plain);
        }
        Item::Quoted(text) => strings.push(text),
        Item::Int(_) => {}
    });
    Ok(Literals::Quoted { strings, counted })
}

/// Gives each literal from `at` on, all of one kind, and where the parenthesis stands that closes them.
fn items<'a>(bytes: &'a [u8], mut at: usize, mut each: impl FnMut(Item<'a>)) -> Option<usize> {
    at = skip_space(bytes, at);
    let are_quoted = *bytes.get(at)? == b'\'';
    loop {
        at = skip_space(bytes, at);
        let (item, end) = if are_quoted { quoted(bytes, at)? } else { integer(bytes, at)? };
        each(item);
        at = skip_space(bytes, end);
        match bytes.get(at)? {
            b',' => at += 1,
            b')' => return Some(at),
            _ => return None,
        }
    }
}

fn skip_space(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|byte| !byte.is_ascii_whitespace()).map_or(bytes.len(), |space| at + space)
}

fn integer(bytes: &[u8], at: usize) -> Option<(Item<'_>, usize)> {
    let negative = bytes.get(at) == Some(&b'-');
    let from = at + usize::from(negative);
    let digits = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let end = from + digits;
    // What is longer is no integer, or is left to the parser to refuse.
    if digits == 0 || !matches!(bytes.get(end)?, b',' | b')' | b' ' | b'\n' | b'\t' | b'\r') {
        return None;
    }
    let value = std::str::from_utf8(&bytes[at..end]).ok()?.parse().ok()?;
    Some((Item::Int(value), end))
}

fn quoted(bytes: &[u8], at: usize) -> Option<(Item<'_>, usize)> {
    if *bytes.get(at)? != b'\'' {
        return None;
    }
    let mut end = at + 1;
    loop {
        end += bytes[end..].iter().position(|&byte| byte == b'\'')?;
        if bytes.get(end + 1) != Some(&b'\'') {
            return Some((Item::Quoted(&bytes[at + 1..end]), end + 1));
        }
        end += 2;
    }
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
        let Literals::Ints(set) = &*list else { panic!("{text}") };
        assert_eq!((set.len(), set.value(0), set.value(9999)), (10_000, Value::Int(-5000), Value::Int(4999)));
        assert!(lists.find("$list1").is_none() && lists.find("$1").is_none());
        let texts: Vec<String> = (0..2000).map(|i| format!("'é{i}''$list'")).collect();
        let (lists, text) = taken(&texts.join(",")).unwrap();
        assert!(text.contains("a IN ($listx0) AND"), "{text}");
        assert_eq!(lists.find("$listx0").unwrap().expression(7, 1), {
            use crate::sql::statement::{Expr, Literal, Node};
            Expr { node: Node::Literal(Literal::Quoted("é7'$list".into())), position: 1 }
        });
    }

    #[test]
    fn what_is_not_plain_is_left_to_the_parser() {
        let with = |item: &str| {
            let mut items = vec!["100000000".to_owned(); 3000];
            items[1500] = item.to_owned();
            taken(&items.join(","))
        };
        assert!(with("5").is_some());
        for item in ["1.5", "1e3", "NULL", "'5'", "5 + 1", "99999999999999999999", "/* */ 5", "- 5", "", "(5)", "x"] {
            assert!(with(item).is_none(), "{item}");
        }
        assert!(taken("1, 2, 3").is_none());
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
        assert_eq!(pool.used(), 4_000 * ("it''s".len() + 4) + 4);
    }
}
