//! Sizes and durations, written with their units, so that nobody has to guess them.
//!
//! * A duration without a unit is an error; a size without one is in bytes.
//! * What is shown is the shortest exact form, and reads back to the same value.

use super::unit::{Raw, Setting, quoted};
use std::fmt;
use std::time::Duration;

/// A size. Written `64 MiB` (1024 based), `64 MB` (1000 based) or as a plain number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Unit names in lower case, largest first, so that showing picks the shortest exact form.
const SIZE_UNITS: [(&str, &str, u64); 9] = [
    ("tib", "TiB", 1 << 40),
    ("tb", "TB", 1_000_000_000_000),
    ("gib", "GiB", 1 << 30),
    ("gb", "GB", 1_000_000_000),
    ("mib", "MiB", 1 << 20),
    ("mb", "MB", 1_000_000),
    ("kib", "KiB", 1 << 10),
    ("kb", "KB", 1_000),
    ("b", "B", 1),
];

/// Splits `64 MiB` into its number and its unit in lower case.
fn split_unit(text: &str) -> Option<(u64, String)> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let number = text[..digits].replace('_', "").parse().ok()?;
    Some((number, text[digits..].trim().to_ascii_lowercase()))
}

impl Setting for Bytes {
    fn read(raw: &Raw) -> Result<Bytes, String> {
        let wrong = || format!("{raw} is not a size, write for example \"64 MiB\"");
        let (number, unit) = match raw {
            Raw::Integer(number) => (u64::try_from(*number).map_err(|_| wrong())?, String::new()),
            Raw::Text(text) => split_unit(text).ok_or_else(wrong)?,
            Raw::Boolean(_) | Raw::Other(_) => return Err(wrong()),
        };
        let factor = match unit.as_str() {
            "" => 1,
            name => SIZE_UNITS.iter().find(|known| known.0 == name).ok_or_else(wrong)?.2,
        };
        number.checked_mul(factor).map(Bytes).ok_or_else(|| format!("{raw} is more than 64 bits can count"))
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }

    fn number(&self) -> Option<u64> {
        Some(self.0)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS.iter().find(|unit| self.0 >= unit.2 && self.0.is_multiple_of(unit.2));
        let (_, name, factor) = unit.unwrap_or(&("b", "B", 1));
        write!(f, "{} {name}", self.0 / factor)
    }
}

/// A length of time. Written with its unit: `5s`, `100ms`, `10min`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Unit names, largest first, in microseconds.
const TIME_UNITS: [(&str, u64); 8] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("m", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
    ("w", 7 * 86_400_000_000),
];

impl Setting for Span {
    fn read(raw: &Raw) -> Result<Span, String> {
        let wrong = || format!("{raw} is not a duration, write for example \"5s\"");
        let Raw::Text(text) = raw else { return Err(wrong()) };
        let (number, unit) = split_unit(text).ok_or_else(wrong)?;
        if unit.is_empty() {
            return Err(format!("{raw} has no unit, write for example \"{number}s\""));
        }
        let factor = TIME_UNITS.iter().find(|known| known.0 == unit).ok_or_else(wrong)?.1;
        let micros = number.checked_mul(factor).ok_or_else(|| format!("{raw} is longer than 64 bits can count"))?;
        Ok(Span(Duration::from_micros(micros)))
    }

    fn toml(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }

    fn number(&self) -> Option<u64> {
        u64::try_from(self.0.as_millis()).ok()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros() as u64;
        if micros == 0 {
            return f.write_str("0s");
        }
        let unit = TIME_UNITS.iter().find(|unit| micros.is_multiple_of(unit.1));
        let (name, factor) = unit.unwrap_or(&("us", 1));
        write!(f, "{}{name}", micros / factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Raw {
        Raw::Text(text.to_owned())
    }

    #[test]
    fn a_size_is_read_in_both_bases() {
        assert_eq!(Bytes::read(&text("64 MiB")), Ok(Bytes(64 << 20)));
        assert_eq!(Bytes::read(&text("64MB")), Ok(Bytes(64_000_000)));
        assert_eq!(Bytes::read(&text("1_024")), Ok(Bytes(1024)));
        assert_eq!(Bytes::read(&Raw::Integer(5)), Ok(Bytes(5)));
        for wrong in ["", "MiB", "64 MX", "-1", "1.5 GiB", "99999999999 TiB"] {
            assert!(Bytes::read(&text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(Span::read(&text("5s")), Ok(Span(Duration::from_secs(5))));
        assert_eq!(Span::read(&text("10 min")), Ok(Span(Duration::from_mins(10))));
        assert_eq!(Span::read(&text("0ms")), Ok(Span(Duration::ZERO)));
        assert_eq!(Span::read(&text("5")), Err("\"5\" has no unit, write for example \"5s\"".to_owned()));
        assert!(Span::read(&Raw::Integer(5)).is_err());
    }

    #[test]
    fn sizes_and_durations_show_what_reads_back() {
        for bytes in [0, 1, 999, 1000, 1024, 1 << 20, 64_000_000, 64 << 20, 3 << 30, u64::MAX] {
            assert_eq!(Bytes::read(&text(&Bytes(bytes).to_string())), Ok(Bytes(bytes)));
        }
        for micros in [0, 1, 1_500, 2_000_000, 90_000_000, 3_600_000_000, 7 * 86_400_000_000] {
            let span = Span(Duration::from_micros(micros));
            assert_eq!(Span::read(&text(&span.to_string())), Ok(span));
        }
        assert_eq!(Bytes(64_000_000).to_string(), "64 MB");
        assert_eq!(Span(Duration::from_secs(90)).to_string(), "90s");
    }
}
