//! Dates and times as CSV files write them, read into microseconds since 1970.
//!
//! Without a format: what SQL reads (`2015-02-04`, `2015-02-04 17:51`, `2015-02-04T17:51:59.25Z`, with or without a
//! zone), and the same with `/` between the parts of the date. Orders that are ambiguous (is 04/02/2015 in April?) are
//! never guessed: those need `--timestamp-format`.

use chronos::sql::text::parse_timestamp;
use chronos::sql::text::timestamp::{DAY, Date, SECOND};

/// Reads a timestamp in one of the common forms, or in `format` (`%Y %m %d %H %M %S %f %z %s %%`).
pub fn parse(text: &str, format: Option<&str>) -> Option<i64> {
    let text = text.trim();
    match format {
        Some(format) => parse_as(text, format),
        None if is_slashed(text.as_bytes()) => parse_timestamp(&text.replacen('/', "-", 2)).ok(),
        None => parse_timestamp(text).ok(),
    }
}

/// True for `2015/02/04...`.
fn is_slashed(text: &[u8]) -> bool {
    text.len() > 5 && text[..4].iter().all(u8::is_ascii_digit) && text[4] == b'/'
}

/// Reads from the front of a text.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    /// A number of `least` to `most` digits.
    fn number(&mut self, least: usize, most: usize) -> Option<i64> {
        let digits = self.rest.iter().take(most).take_while(|byte| byte.is_ascii_digit()).count();
        if digits < least {
            return None;
        }
        let value = self.rest[..digits].iter().fold(0, |value, digit| value * 10 + i64::from(digit - b'0'));
        self.rest = &self.rest[digits..];
        Some(value)
    }

    fn eat(&mut self, any: &[u8]) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = if any.contains(first) { rest } else { return None };
        Some(*first)
    }

    /// Digits after the point, as microseconds; what is finer is cut off.
    fn fraction(&mut self) -> Option<i64> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=9).contains(&digits) {
            return None;
        }
        let digit = |i: usize| if i < digits { i64::from(self.rest[i] - b'0') } else { 0 };
        let micros = (0..6).fold(0, |value, i| value * 10 + digit(i));
        self.rest = &self.rest[digits..];
        Some(micros)
    }

    /// `Z`, `+0700` or `+07:00`, in seconds.
    fn zone(&mut self) -> Option<i64> {
        let sign = match self.eat(b"Zz+-")? {
            b'-' => -1,
            b'+' => 1,
            _ => return Some(0),
        };
        let hours = self.number(2, 2)?;
        self.eat(b":");
        let minutes = self.number(2, 2)?;
        (hours < 16 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
    }
}

fn parse_as(text: &str, format: &str) -> Option<i64> {
    let mut cursor = Cursor { rest: text.as_bytes() };
    let mut date = Date { year: 1970, month: 1, day: 1 };
    let (mut hour, mut minute, mut second, mut micros, mut zone) = (0, 0, 0, 0, 0);
    let mut format = format.bytes();
    while let Some(byte) = format.next() {
        if byte != b'%' {
            cursor.eat(&[byte])?;
            continue;
        }
        match format.next()? {
            b'Y' => date.year = cursor.number(4, 4)?,
            b'm' => date.month = cursor.number(1, 2)? as u8,
            b'd' => date.day = cursor.number(1, 2)? as u8,
            b'H' => hour = cursor.number(1, 2)?,
            b'M' => minute = cursor.number(1, 2)?,
            b'S' => second = cursor.number(1, 2)?,
            b'f' => micros = cursor.fraction()?,
            b'z' => zone = cursor.zone()?,
            // Seconds since 1970 stand for the whole.
            b's' => {
                let seconds = cursor.number(1, 11)?;
                return cursor.rest.is_empty().then_some(seconds * SECOND);
            }
            b'%' => drop(cursor.eat(b"%")?),
            _ => return None,
        }
    }
    // A month of 13 or a 30th of February comes back as another date.
    let exists = (1..=12).contains(&date.month) && Date::from_days(date.days()) == date;
    let in_range = hour < 24 && minute < 60 && second <= 60;
    (cursor.rest.is_empty() && exists && in_range)
        .then(|| date.days() * DAY + (hour * 3600 + minute * 60 + second - zone) * SECOND + micros)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos::sql::value::Value;

    fn read(text: &str, format: Option<&str>) -> Option<String> {
        parse(text, format).map(|micros| Value::Timestamp(micros).to_string())
    }

    #[test]
    fn the_common_forms_are_read() {
        for (text, means) in [
            ("2015-02-04 17:51:00", "2015-02-04 17:51:00"),
            ("2015-02-04", "2015-02-04 00:00:00"),
            ("2015/2/4 7:51", "2015-02-04 07:51:00"),
            ("2015-02-04T17:51:59.250Z", "2015-02-04 17:51:59.25"),
            ("2015-02-04T17:51:59+07:00", "2015-02-04 10:51:59"),
        ] {
            assert_eq!(read(text, None).as_deref(), Some(means), "{text}");
        }
    }

    #[test]
    fn what_is_no_date_is_no_timestamp() {
        for text in ["", "2015", "04/02/2015", "2015-13-01", "2015-02-29", "2015-02/04", "23.18", "2015/02/30"] {
            assert_eq!(read(text, None), None, "{text}");
        }
    }

    #[test]
    fn a_format_settles_the_order() {
        assert_eq!(read("04.02.2015 17:51", Some("%d.%m.%Y %H:%M")).as_deref(), Some("2015-02-04 17:51:00"));
        assert_eq!(read("1386018900", Some("%s")).as_deref(), Some("2013-12-02 21:15:00"));
        assert_eq!(
            read("17:51:59.25 +0700 2015-2-4", Some("%H:%M:%S.%f %z %Y-%m-%d")).as_deref(),
            Some("2015-02-04 10:51:59.25")
        );
        for (text, format) in
            [("04.02.2015", "%Y-%m-%d"), ("2015-02-30", "%Y-%m-%d"), ("2015-13-01", "%Y-%m-%d"), ("x", "%Q")]
        {
            assert_eq!(read(text, Some(format)), None, "{text}");
        }
    }
}
