//! What a client of `POST /sql` wants to read, by `Accept` (RFC 9110, section 12.5.1).
//!
//! * The type with the greater weight is answered; of equal ones, that which stands first.
//! * What names a type closer weighs more than a wildcard: `*/*;q=1, text/csv;q=0` is no CSV.
//! * Whoever asks for neither gets JSON: an answer that can be read is better than none.

/// What the doors write.
const JSON: &str = "application/json";
const CSV: &str = "text/csv";

/// A weight in thousandths.
type Weight = u16;

/// A weight that is not given.
const WHOLE: Weight = 1000;

/// True where CSV is wanted more than JSON; `accept` are the values of all such headers, in order.
pub fn wants_csv<'a>(accept: impl IntoIterator<Item = &'a str>) -> bool {
    let ranges: Vec<(&str, Weight)> =
        accept.into_iter().flat_map(|value| value.split(',')).map(range).filter(|(name, _)| !name.is_empty()).collect();
    let (csv, json) = (wanted(&ranges, CSV), wanted(&ranges, JSON));
    match (csv, json) {
        (None, _) => false,
        (Some((csv, _)), None) => csv > 0,
        // Two types of one range are equal: then it is JSON.
        (Some((csv, first)), Some((json, second))) => csv > json || (csv == json && csv > 0 && first < second),
    }
}

/// The weight of a type and the place of what gives it.
fn wanted(ranges: &[(&str, Weight)], name: &str) -> Option<(Weight, usize)> {
    let any_of_kind = name.split_once('/').map(|(kind, _)| format!("{kind}/*")).unwrap_or_default();
    [name, &any_of_kind, "*/*"].into_iter().find_map(|closest| {
        let place = ranges.iter().position(|(range, _)| range.eq_ignore_ascii_case(closest))?;
        Some((ranges[place].1, place))
    })
}

/// `text/csv; header=present; q=0.5`
fn range(text: &str) -> (&str, Weight) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (name, weight.map_or(WHOLE, thousandths))
}

/// A weight that is none says that the type is not wanted: nobody is given what he may have refused.
fn thousandths(text: &str) -> Weight {
    match text.parse::<f32>() {
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * f32::from(WHOLE)).round() as Weight,
        Ok(_) | Err(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greater_weight_decides_and_then_the_first() {
        for (accept, csv) in [
            ("", false),
            ("*/*", false),
            ("text/csv", true),
            ("text/*", true),
            ("TEXT/CSV; header=present", true),
            ("text/csv, application/json", true),
            ("application/json, text/csv", false),
            ("application/json;q=0.1, text/csv;q=1", true),
            ("application/json;q=0.1, text/csv", true),
            ("text/csv;q=0.2, application/json;q=0.3", false),
            ("text/csv;q=0.2, */*;q=0.1", true),
            ("*/*, text/csv;q=0", false),
            ("text/csv, */*", true),
            ("text/html, */*;q=0.8", false),
            ("text/html", false),
            ("text/csv;q=much, application/json;q=0.1", false),
            ("text/csv ; q=0.9 , application/json ; q=0.8", true),
        ] {
            assert_eq!(wants_csv([accept]), csv, "{accept}");
        }
        assert!(wants_csv(["application/json;q=0.5", "text/csv"]), "in headers of their own");
    }
}
