//! INT and FLOAT as text.
//!
//! A FLOAT is written with the fewest digits that read back as the same number, plainly where its first digit stands
//! between 10^-4 and 10^14, else with an exponent of at least two digits: what PostgreSQL 12 and later print.

use super::{invalid_syntax, quoted, trim};
use crate::error::{Error, Result, SqlState};
use crate::sql::value::DataType;
use std::io::Write;

/// Powers of ten from here on are written with an exponent.
const PLAIN_EXPONENT_END: i32 = 15;
/// Powers of ten below this one are written with an exponent.
const PLAIN_EXPONENT_MIN: i32 = -4;

/// Appends an integer.
pub fn append_int(out: &mut Vec<u8>, value: i64) {
    // 19 digits of i64::MAX and a sign.
    let mut buffer = [0; 20];
    let mut at = buffer.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    out.extend_from_slice(&buffer[at..]);
}

/// Appends a floating-point number.
pub fn append_float(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if value.is_sign_negative() {
        out.push(b'-');
    }
    let value = value.abs();
    if value.is_infinite() {
        return out.extend_from_slice(b"Infinity");
    }
    // Whole numbers need no search for the shortest digits: below 10^15 each is exact.
    if value < 1e15 && value.fract() == 0.0 {
        return append_int(out, value as i64);
    }
    if append_short(out, value) {
        return;
    }
    // 17 digits, a point, `e`, a sign and 3 digits of exponent.
    let mut buffer = [0; 32];
    let mut free = &mut buffer[..];
    write!(free, "{value:e}").expect("a float in scientific form has at most 24 characters");
    let unused = free.len();
    let written = &buffer[..buffer.len() - unused];
    let split = written.iter().position(|&byte| byte == b'e').expect("scientific form has an exponent");
    let exponent = std::str::from_utf8(&written[split + 1..])
        .ok()
        .and_then(|digits| digits.parse::<i32>().ok())
        .expect("the exponent is a small integer");
    // `d.ddd` without its point is the digits.
    let (first, others) = (&written[..1], written[..split].get(2..).unwrap_or_default());
    if (PLAIN_EXPONENT_MIN..PLAIN_EXPONENT_END).contains(&exponent) {
        append_plain(out, first[0], others, exponent);
    } else {
        out.push(first[0]);
        if !others.is_empty() {
            out.push(b'.');
            out.extend_from_slice(others);
        }
        out.push(b'e');
        out.push(if exponent < 0 { b'-' } else { b'+' });
        if exponent.abs() < 10 {
            out.push(b'0');
        }
        append_int(out, i64::from(exponent.abs()));
    }
}

/// Appends a number of few decimal places, as measurements are, and says whether it was one.
///
/// Where `whole / 10^places` gives the number back, its decimal form reads back as the number, for the division of two
/// exact numbers rounds once. Up to 15 digits no other decimal does, and the fewest places give the fewest digits: so
/// this is the form that the search for the shortest would find, at a tenth of its cost.
#[expect(clippy::float_cmp, reason = "only the very same number will do")]
fn append_short(out: &mut Vec<u8>, value: f64) -> bool {
    const UNITS: [f64; 6] = [10.0, 1e2, 1e3, 1e4, 1e5, 1e6];
    // Nine digits before the point and six behind are the 15; below 1e-4 an exponent is written.
    if !(1e-4..1e9).contains(&value) {
        return false;
    }
    for (places, unit) in (1..).zip(UNITS) {
        let whole = (value * unit).round();
        if whole / unit == value {
            let (whole, unit) = (whole as i64, unit as i64);
            append_int(out, whole / unit);
            let begin = out.len();
            // The one in front keeps the zeros behind the point, and gives its place to the point.
            append_int(out, unit + whole % unit);
            out[begin] = b'.';
            debug_assert!(out.len() == begin + 1 + places, "as many digits as places");
            return true;
        }
    }
    false
}

/// Digits with the decimal point in its place.
fn append_plain(out: &mut Vec<u8>, first: u8, others: &[u8], exponent: i32) {
    if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + (-exponent - 1) as usize, b'0');
        out.push(first);
        out.extend_from_slice(others);
        return;
    }
    let whole = exponent as usize;
    out.push(first);
    if others.len() <= whole {
        out.extend_from_slice(others);
        out.resize(out.len() + whole - others.len(), b'0');
    } else {
        out.extend_from_slice(&others[..whole]);
        out.push(b'.');
        out.extend_from_slice(&others[whole..]);
    }
}

/// Reads an integer: an optional sign and decimal digits.
///
/// # Errors
/// 22P02 where it is no integer, 22003 where it does not fit 64 bits.
pub fn parse_int(text: &str) -> Result<i64> {
    let digits = trim(text);
    if let Ok(value) = digits.parse::<i64>() {
        return Ok(value);
    }
    let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(out_of_range(DataType::Int, text));
    }
    Err(invalid_syntax(DataType::Int, text))
}

/// Reads a floating-point number: decimal, with or without an exponent, `NaN`, `Infinity`, `inf`.
///
/// # Errors
/// 22P02 where it is no number, 22003 where it is too large, or so small that only zero is left of it.
pub fn parse_float(text: &str) -> Result<f64> {
    let digits = trim(text);
    let value: f64 = digits.parse().map_err(|_| invalid_syntax(DataType::Float, text))?;
    let mantissa = digits.split(['e', 'E']).next().unwrap_or_default();
    let overflowed = value.is_infinite() && mantissa.bytes().any(|byte| byte.is_ascii_digit());
    let vanished = value == 0.0 && mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'));
    if overflowed || vanished {
        return Err(out_of_range(DataType::Float, text));
    }
    Ok(value)
}

fn out_of_range(data_type: DataType, text: &str) -> Error {
    Error::invalid(
        SqlState::NUMERIC_OUT_OF_RANGE,
        format!("value \"{}\" is out of range for type {data_type}", quoted(text)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn float(value: f64) -> String {
        let mut out = Vec::new();
        append_float(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn floats_print_as_postgresql_15_prints_float8() {
        for (value, text) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (-0.0, "-0"),
            (1e20, "1e+20"),
            (1e15, "1e+15"),
            (1e14, "100000000000000"),
            (123_456_789_012_345.6, "123456789012345.6"),
            (1_234_567_890_123_456.0, "1.234567890123456e+15"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1.5e-7, "1.5e-07"),
            (1.0 / 3.0, "0.3333333333333333"),
            (100.25, "100.25"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "5e-324"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn numbers_read_as_postgresql_reads_them() {
        assert_eq!(parse_int(" -42\n").unwrap(), -42);
        assert_eq!(parse_int("+7").unwrap(), 7);
        assert_eq!(parse_int("-9223372036854775808").unwrap(), i64::MIN);
        for wrong in ["", "abc", "1.5", "1e3", "--1", "0x10", "1_000"] {
            assert_eq!(parse_int(wrong).unwrap_err().sqlstate(), SqlState::INVALID_TEXT, "{wrong}");
        }
        let error = parse_int("9223372036854775808").unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::NUMERIC_OUT_OF_RANGE);
        assert_eq!(error.message(), "value \"9223372036854775808\" is out of range for type INT");
        assert!(parse_float(".5") == Ok(0.5) && parse_float("1.") == Ok(1.0));
        assert!(parse_float("-INF") == Ok(f64::NEG_INFINITY) && parse_float("nan").unwrap().is_nan());
        assert_eq!(parse_float("1e400").unwrap_err().sqlstate(), SqlState::NUMERIC_OUT_OF_RANGE);
        assert_eq!(parse_float("1e-400").unwrap_err().sqlstate(), SqlState::NUMERIC_OUT_OF_RANGE);
        assert_eq!(parse_float("0e-400").unwrap().to_bits(), 0);
        assert_eq!(parse_float("1,5").unwrap_err().message(), "invalid input syntax for type FLOAT: \"1,5\"");
    }

    proptest! {
        #[test]
        fn a_float_reads_back_as_itself(bits: u64) {
            let value = f64::from_bits(bits);
            let back = parse_float(&float(value)).unwrap();
            prop_assert!(back.to_bits() == bits || (value.is_nan() && back.is_nan()));
        }

        #[test]
        fn a_number_of_few_places_is_written_as_it_was(whole in 0i64..1_000_000_000, fraction in 1i64..1_000_000) {
            let digits = format!("{whole}.{fraction:06}");
            prop_assert_eq!(float(digits.parse().unwrap()), digits.trim_end_matches('0'));
        }

        #[test]
        fn an_integer_reads_back_as_itself(value: i64) {
            let mut out = Vec::new();
            append_int(&mut out, value);
            prop_assert_eq!(parse_int(std::str::from_utf8(&out).unwrap()).unwrap(), value);
        }
    }
}
