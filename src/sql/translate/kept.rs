//! No word is dropped in silence: what the parser has kept of a statement is written out, and its words looked for.
//!
//! The parser reads the words of fifty dialects, and some of them in one condition with the dialect, which then fails:
//! the word is gone. `a INT AUTO_INCREMENT` became `a INT`, `count(*) FILTER` became `count(*)`. No field of the tree
//! tells, so nothing that looks at the tree can; but what was read and kept is in the text that the tree prints.
//!
//! * Of a definition every word is looked for that is not in quotes: what is dropped there stays wrong for years.
//! * Of other statements, the parser's keywords that are none of ours. Most have none, which costs a glance at each
//!   word; one with a column called `value` is printed, which takes less than parsing it did. That none of our own
//!   words is dropped is a law of the tests, which plant each of them everywhere.
//! * A statement with a longer chain of operators than can be printed (`guard::PRINTED_MAX`) is a query or a write, and
//!   is left to that law.
//! * A word that is printed more often than it was written is no concern: the parser prints an AS that nobody wrote.

use super::{printable, scan, word};
use sqlparser::ast;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::{Span, Token, TokenWithSpan};
use std::collections::HashMap;

/// A word that must be found again.
struct Wanted {
    /// In lower case.
    text: String,
    /// Its number among the tokens.
    at: usize,
    span: Span,
}

/// The words of a statement that must be found again; none where it must not be printed.
#[derive(Default)]
pub(super) struct Words(Vec<Wanted>);

impl Words {
    /// Notes them down, before the parser takes the tokens.
    pub(super) fn of(tokens: &[TokenWithSpan]) -> Words {
        let definition = matches!(word(tokens, 0).as_str(), "CREATE" | "DROP");
        let wanted = tokens.iter().enumerate().filter_map(|(at, token)| match &token.token {
            Token::Word(word) if word.quote_style.is_none() && (definition || is_foreign(word.keyword)) => {
                Some(Wanted { text: word.value.to_ascii_lowercase(), at, span: token.span })
            }
            _ => None,
        });
        Words(wanted.collect())
    }

    /// The first words that are not in what the parser made of them, in upper case, with their place.
    pub(super) fn lost(&self, statement: &ast::Statement) -> Option<(String, Span)> {
        if self.0.is_empty() {
            return None;
        }
        let mut missing: HashMap<&str, usize> = HashMap::new();
        for wanted in &self.0 {
            *missing.entry(wanted.text.as_str()).or_default() += 1;
        }
        let printed = printable::print(statement);
        // As long as the same words follow each other, none is lost: of `PRIMARY KEY DESC, PRIMARY KEY (a DESC)` the
        // first DESC is.
        let (mut same, mut in_step) = (0, true);
        for text in words(&printed) {
            let text = text.to_ascii_lowercase();
            if let Some(count) = missing.get_mut(text.as_str()) {
                *count = count.saturating_sub(1);
                in_step &= self.0.get(same).is_some_and(|wanted| wanted.text == text);
                same += usize::from(in_step);
            }
        }
        let is_lost = |wanted: &Wanted| missing.get(wanted.text.as_str()).is_some_and(|&count| count > 0);
        let first = same + self.0[same..].iter().position(is_lost)?;
        let mut phrase = self.0[first].text.to_ascii_uppercase();
        for (distance, next) in self.0[first..].iter().enumerate().skip(1) {
            if next.at != self.0[first].at + distance || !is_lost(next) {
                break;
            }
            phrase.push(' ');
            phrase.push_str(&next.text.to_ascii_uppercase());
        }
        Some((phrase, self.0[first].span))
    }
}

/// The words of a printed statement that are not in quotes, numbers among them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < text.len() {
            let from = at;
            at = scan::lexeme(text.as_bytes(), at).1;
            if text[from..].starts_with(|char: char| char.is_alphanumeric() || char == '_' || !char.is_ascii()) {
                return Some(&text[from..at]);
            }
        }
        None
    })
}

/// True for a keyword of the parser's that no statement of ours has: it is a name, or was meant for a clause that we
/// do not have.
fn is_foreign(keyword: Keyword) -> bool {
    keyword != Keyword::NoKeyword && !OURS.contains(&keyword)
}

/// The keywords of statements about rows.
const OURS: [Keyword; 75] = [
    Keyword::ABS,
    Keyword::ALL,
    Keyword::AND,
    Keyword::AS,
    Keyword::ASC,
    Keyword::AVG,
    Keyword::BETWEEN,
    Keyword::BIGINT,
    Keyword::BLOB,
    Keyword::BOOL,
    Keyword::BOOLEAN,
    Keyword::BY,
    Keyword::BYTEA,
    Keyword::CASE,
    Keyword::CAST,
    Keyword::CEIL,
    Keyword::COALESCE,
    Keyword::COUNT,
    Keyword::DEFAULT,
    Keyword::DELETE,
    Keyword::DESC,
    Keyword::DISTINCT,
    Keyword::DOUBLE,
    Keyword::ELSE,
    Keyword::END,
    Keyword::ESCAPE,
    Keyword::FALSE,
    Keyword::FIRST,
    Keyword::FLOAT,
    Keyword::FLOOR,
    Keyword::FROM,
    Keyword::GROUP,
    Keyword::HAVING,
    Keyword::ILIKE,
    Keyword::IN,
    Keyword::INSERT,
    Keyword::INT,
    Keyword::INTEGER,
    Keyword::INTERVAL,
    Keyword::INTO,
    Keyword::IS,
    Keyword::LAST,
    Keyword::LIKE,
    Keyword::LIMIT,
    Keyword::LOWER,
    Keyword::MAX,
    Keyword::MIN,
    Keyword::NOT,
    Keyword::NULL,
    Keyword::NULLIF,
    Keyword::NULLS,
    Keyword::OFFSET,
    Keyword::OR,
    Keyword::ORDER,
    Keyword::PRECISION,
    Keyword::REAL,
    Keyword::ROW,
    Keyword::ROWS,
    Keyword::SELECT,
    Keyword::SET,
    Keyword::SMALLINT,
    Keyword::SQRT,
    Keyword::STRING,
    Keyword::SUM,
    Keyword::TEXT,
    Keyword::THEN,
    Keyword::TIMESTAMP,
    Keyword::TRUE,
    Keyword::UNKNOWN,
    Keyword::UPDATE,
    Keyword::UPPER,
    Keyword::VALUES,
    Keyword::VARCHAR,
    Keyword::WHEN,
    Keyword::WHERE,
];
