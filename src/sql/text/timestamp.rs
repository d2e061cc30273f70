//! TIMESTAMP as text, and the calendar below it.
//!
//! The calendar is the proleptic Gregorian one, as PostgreSQL's. Days and dates are turned into each other by the
//! integer formulas of Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": a few multiplications each, no
//! table, valid over the whole range.
//!
//! * Year 0 is 1 BC; years before 1 are written with ` BC`.
//! * There are no leap seconds: second 60 is the first of the next minute.

use super::{invalid_syntax, number, quoted, trim};
use crate::error::{Error, Result, SqlState};
use crate::sql::value::DataType;

/// Microseconds in a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds in a day.
pub const DAY: i64 = 86_400 * SECOND;

/// Days of 400 years, after which the calendar repeats.
const ERA_DAYS: i64 = 146_097;
/// From 0000-03-01, where the formulas count from, to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;
/// PostgreSQL's limit of a zone's distance from UTC, in seconds.
const ZONE_SECONDS_END: i64 = 16 * 3600;
/// Digits of a year at most: the 64-bit range ends in the year 294247.
const YEAR_DIGITS_MAX: usize = 6;

/// A day of the calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    /// Year; 0 is 1 BC.
    pub year: i64,
    /// 1 to 12.
    pub month: u8,
    /// 1 to 31.
    pub day: u8,
}

impl Date {
    /// The date of a day counted from 1970-01-01.
    pub fn from_days(days: i64) -> Date {
        let days = days + EPOCH_DAYS;
        let era = days.div_euclid(ERA_DAYS);
        let of_era = days.rem_euclid(ERA_DAYS);
        let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year + year / 4 - year / 100);
        // Months are counted from March, so that the leap day is the last of the year.
        let month = (5 * of_year + 2) / 153;
        let day = of_year - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        Date { year: year + era * 400 + i64::from(month <= 2), month: month as u8, day: day as u8 }
    }

    /// Days from 1970-01-01.
    pub fn days(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let of_era = year.rem_euclid(400);
        let month = (i64::from(self.month) + 9) % 12;
        let of_year = (153 * month + 2) / 5 + i64::from(self.day) - 1;
        era * ERA_DAYS + of_era * 365 + of_era / 4 - of_era / 100 + of_year - EPOCH_DAYS
    }

    /// Days of the month.
    fn month_days(self) -> u8 {
        match self.month {
            4 | 6 | 9 | 11 => 30,
            2 if self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0) => 29,
            2 => 28,
            _ => 31,
        }
    }
}

/// Appends a timestamp: `2024-03-10 12:00:00.5`.
pub fn append_timestamp(out: &mut Vec<u8>, micros: i64) {
    let date = Date::from_days(micros.div_euclid(DAY));
    let of_day = micros.rem_euclid(DAY);
    let (seconds, fraction) = (of_day / SECOND, of_day % SECOND);
    let year = if date.year > 0 { date.year } else { 1 - date.year };
    if year < 10_000 {
        append_two(out, year / 100);
        append_two(out, year % 100);
    } else {
        number::append_int(out, year);
    }
    out.push(b'-');
    append_two(out, i64::from(date.month));
    out.push(b'-');
    append_two(out, i64::from(date.day));
    out.push(b' ');
    append_two(out, seconds / 3600);
    out.push(b':');
    append_two(out, seconds / 60 % 60);
    out.push(b':');
    append_two(out, seconds % 60);
    if fraction != 0 {
        out.push(b'.');
        for pair in [fraction / 10_000, fraction / 100 % 100, fraction % 100] {
            append_two(out, pair);
        }
        while out.last() == Some(&b'0') {
            out.pop();
        }
    }
    if date.year <= 0 {
        out.extend_from_slice(b" BC");
    }
}

fn append_two(out: &mut Vec<u8>, value: i64) {
    out.extend_from_slice(&[b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]);
}

/// Reads a timestamp: a date, then perhaps a time of day, a zone (converted to UTC) and `BC`.
///
/// `2024-03-10`, `2024-03-10 12:00`, `2024-03-10T12:00:00.123456Z`, `20240310T120000`, `2024-03-10 12:00:00+05:30`.
/// More than six digits of a fraction are rounded.
///
/// # Errors
/// 22007 where it is no timestamp, 22008 where a field or the whole is out of range.
pub fn parse_timestamp(text: &str) -> Result<i64> {
    let trimmed = trim(text);
    if trimmed.eq_ignore_ascii_case("epoch") {
        return Ok(0);
    }
    let mut reader = Reader { rest: trimmed.as_bytes() };
    let fields = reader.fields().ok_or_else(|| invalid_syntax(DataType::Timestamp, text))?;
    fields.micros().map_err(|out_of_range| {
        let what = match out_of_range {
            OutOfRange::Field => "date/time field value",
            OutOfRange::Zone => "time zone displacement",
            OutOfRange::Whole => "timestamp",
        };
        Error::invalid(SqlState::DATETIME_OVERFLOW, format!("{what} out of range: \"{}\"", quoted(text)))
    })
}

enum OutOfRange {
    Field,
    Zone,
    Whole,
}

/// What stands in the text, not yet checked.
#[derive(Default)]
struct Fields {
    year: i64,
    month: i64,
    day: i64,
    hour: i64,
    minute: i64,
    second: i64,
    /// Rounded; may be a whole second.
    micros: i64,
    /// Seconds that local time is ahead of UTC.
    zone: i64,
    before_christ: bool,
}

impl Fields {
    fn micros(&self) -> std::result::Result<i64, OutOfRange> {
        let field = |ok: bool| if ok { Ok(()) } else { Err(OutOfRange::Field) };
        field((1..=12).contains(&self.month) && (1..=31).contains(&self.day) && self.year > 0)?;
        let year = if self.before_christ { 1 - self.year } else { self.year };
        let date = Date { year, month: self.month as u8, day: self.day as u8 };
        field(date.day <= date.month_days())?;
        field(self.hour <= 24 && self.minute < 60 && self.second <= 60)?;
        field(self.hour < 24 || (self.minute == 0 && self.second == 0 && self.micros == 0))?;
        if self.zone.abs() >= ZONE_SECONDS_END {
            return Err(OutOfRange::Zone);
        }
        let seconds = (self.hour * 60 + self.minute) * 60 + self.second - self.zone;
        // The sum is taken wide: the first and the last day are reached from outside the range.
        let micros = i128::from(date.days()) * i128::from(DAY)
            + i128::from(seconds) * i128::from(SECOND)
            + i128::from(self.micros);
        i64::try_from(micros).map_err(|_| OutOfRange::Whole)
    }
}

/// Takes fields off the front of a text. `None` is a syntax error.
struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn fields(&mut self) -> Option<Fields> {
        let mut fields = Fields::default();
        self.date(&mut fields)?;
        let spaced = self.spaces();
        let marked = !spaced && (self.take(b'T') || self.take(b't'));
        if marked || (spaced && self.rest.first().is_some_and(u8::is_ascii_digit)) {
            self.time(&mut fields)?;
            self.spaces();
            self.zone(&mut fields)?;
        }
        self.spaces();
        match self.rest {
            b"" | b"AD" | b"ad" => {}
            b"BC" | b"bc" => fields.before_christ = true,
            _ => return None,
        }
        Some(fields)
    }

    fn date(&mut self, fields: &mut Fields) -> Option<()> {
        let (year, digits) = self.number(8)?;
        if digits == 8 {
            (fields.year, fields.month, fields.day) = (year / 10_000, year / 100 % 100, year % 100);
            return Some(());
        }
        if !(4..=YEAR_DIGITS_MAX).contains(&digits) || !self.take(b'-') {
            return None;
        }
        fields.year = year;
        fields.month = self.number(2)?.0;
        if !self.take(b'-') {
            return None;
        }
        fields.day = self.number(2)?.0;
        Some(())
    }

    fn time(&mut self, fields: &mut Fields) -> Option<()> {
        let (first, digits) = self.number(6)?;
        match digits {
            6 => (fields.hour, fields.minute, fields.second) = (first / 10_000, first / 100 % 100, first % 100),
            4 => (fields.hour, fields.minute) = (first / 100, first % 100),
            1 | 2 => {
                fields.hour = first;
                if !self.take(b':') {
                    return None;
                }
                fields.minute = self.number(2)?.0;
                if self.take(b':') {
                    fields.second = self.number(2)?.0;
                }
            }
            _ => return None,
        }
        if self.take(b'.') {
            fields.micros = self.fraction();
        }
        Some(())
    }

    /// Digits after the point as microseconds, rounded by the seventh.
    fn fraction(&mut self) -> i64 {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (fraction, rest) = self.rest.split_at(digits);
        self.rest = rest;
        let digit = |i: usize| fraction.get(i).map_or(0, |&byte| i64::from(byte - b'0'));
        (0..6).fold(0, |micros, i| micros * 10 + digit(i)) + i64::from(digit(6) >= 5)
    }

    fn zone(&mut self, fields: &mut Fields) -> Option<()> {
        for name in ["UTC", "GMT", "Z"] {
            if self.rest.len() >= name.len() && self.rest[..name.len()].eq_ignore_ascii_case(name.as_bytes()) {
                self.rest = &self.rest[name.len()..];
                return Some(());
            }
        }
        let sign = match self.rest.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Some(()),
        };
        self.rest = &self.rest[1..];
        let (first, digits) = self.number(4)?;
        let (hours, mut minutes) = if digits > 2 { (first / 100, first % 100) } else { (first, 0) };
        let mut seconds = 0;
        if digits <= 2 && self.take(b':') {
            minutes = self.number(2)?.0;
            if self.take(b':') {
                seconds = self.number(2)?.0;
            }
        }
        if minutes >= 60 || seconds >= 60 {
            return None;
        }
        fields.zone = sign * ((hours * 60 + minutes) * 60 + seconds);
        Some(())
    }

    /// A number of at most so many digits, and how many it has.
    fn number(&mut self, digits_max: usize) -> Option<(i64, usize)> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 || digits > digits_max {
            return None;
        }
        let (number, rest) = self.rest.split_at(digits);
        self.rest = rest;
        Some((number.iter().fold(0, |value, byte| value * 10 + i64::from(byte - b'0')), digits))
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.rest.first() == Some(&byte);
        self.rest = &self.rest[usize::from(found)..];
        found
    }

    fn spaces(&mut self) -> bool {
        let count = self.rest.iter().take_while(|byte| **byte == b' ').count();
        self.rest = &self.rest[count..];
        count > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(micros: i64) -> String {
        let mut out = Vec::new();
        append_timestamp(&mut out, micros);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn timestamps_print_as_postgresql_prints_them() {
        for (micros, expected) in [
            (0, "1970-01-01 00:00:00"),
            (1_710_072_000_500_000, "2024-03-10 12:00:00.5"),
            (1_709_164_800_000_001, "2024-02-29 00:00:00.000001"),
            (-1, "1969-12-31 23:59:59.999999"),
            (253_402_300_800_000_000, "10000-01-01 00:00:00"),
            (-62_135_596_800_000_000, "0001-01-01 00:00:00"),
            (-62_135_596_800_000_001, "0001-12-31 23:59:59.999999 BC"),
            (i64::MAX, "294247-01-10 04:00:54.775807"),
        ] {
            assert_eq!(text(micros), expected);
        }
    }

    #[test]
    fn timestamps_read_in_the_forms_of_rfc_3339_and_postgresql() {
        let noon = 1_710_072_000_000_000;
        for form in [
            "2024-03-10 12:00:00",
            "2024-03-10T12:00:00Z",
            "2024-3-10 12:00",
            " 2024-03-10 12:00:00.000 ",
            "2024-03-10 14:00:00+02",
            "2024-03-10T07:00:00-05:00",
            "2024-03-10 17:30:00 +0530",
            "2024-03-10 12:00:00 UTC",
            "20240310T120000",
            "20240310 120000Z",
            "2024-03-10 11:59:60",
            "2024-03-10 11:59:59.9999996",
        ] {
            assert_eq!(parse_timestamp(form).unwrap(), noon, "{form}");
        }
        assert_eq!(parse_timestamp("2024-03-10").unwrap(), noon - 43_200 * SECOND);
        assert_eq!(parse_timestamp("2024-03-09 24:00:00").unwrap(), noon - 43_200 * SECOND);
        assert_eq!(parse_timestamp("2024-03-10 12:00:00.1234567").unwrap(), noon + 123_457);
        assert_eq!(parse_timestamp("epoch").unwrap(), 0);
    }

    #[test]
    fn wrong_timestamps_are_refused_by_what_is_wrong() {
        for wrong in
            ["", "abc", "2024-03", "2024-03-10x", "2024-03-10 12", "12:00", "2024-03-10 12:00:00 Mars", "24-1-1"]
        {
            let error = parse_timestamp(wrong).unwrap_err();
            assert_eq!(error.sqlstate(), SqlState::INVALID_DATETIME, "{wrong}");
            assert_eq!(error.message(), format!("invalid input syntax for type TIMESTAMP: \"{wrong}\""));
        }
        for outside in
            ["2024-13-01", "2023-02-29", "2024-04-31", "2024-01-01 25:00:00", "2024-01-01 00:60", "0000-01-01"]
        {
            let error = parse_timestamp(outside).unwrap_err();
            assert_eq!(error.sqlstate(), SqlState::DATETIME_OVERFLOW, "{outside}");
            assert_eq!(error.message(), format!("date/time field value out of range: \"{outside}\""));
        }
        assert_eq!(parse_timestamp("300000-01-01").unwrap_err().message(), "timestamp out of range: \"300000-01-01\"");
    }

    proptest! {
        #[test]
        fn a_timestamp_reads_back_as_itself(micros: i64) {
            prop_assert_eq!(parse_timestamp(&text(micros)).unwrap(), micros);
        }

        #[test]
        fn a_date_is_the_day_it_came_from(days in -110_000_000i64..110_000_000) {
            let date = Date::from_days(days);
            prop_assert_eq!(date.days(), days);
            prop_assert!((1..=date.month_days()).contains(&date.day));
        }
    }
}
