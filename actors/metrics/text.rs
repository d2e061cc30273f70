//! Prometheus text 0.0.4, and nothing else of that world.
//!
//! ```text
//!   # HELP chronos_sql_requests_total Statements answered, by what they did
//!   # TYPE chronos_sql_requests_total counter
//!   chronos_sql_requests_total{kind="read"} 7
//! ```
//!
//! Forty lines, since the library of choice (`prometheus-client`) writes `OpenMetrics`: there a counter's `# TYPE` line
//! lacks the `_total` of its samples, which readers of this older format take for two families, one without a type and
//! one without samples. `promtool check metrics` refuses that page and passes this one (`tests/daemon`).
//!
//! * A family is described once, before its samples, which follow it without a gap.
//! * A counter's name ends in `_total`, and no other's does.
//! * Labels come from fixed sets of plain words, so nothing is escaped and no request can make a new series.

use chronos::storage::engine::Distribution;
use std::fmt::{Display, Write as _};

/// What a family counts like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes either way.
    Gauge,
}

/// The text as it grows.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
}

impl Text {
    /// A family of one sample without labels.
    pub fn one(&mut self, kind: Kind, name: &str, help: &str, value: impl Display) {
        self.describe(kind, name, help);
        self.line(name, "", "", value);
    }

    /// A family with a sample for each value of one label.
    pub fn labelled<'a, V: Display>(
        &mut self,
        kind: Kind,
        name: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'a str, V)>,
    ) {
        self.describe(kind, name, help);
        for (word, value) in samples {
            self.line(name, label, word, value);
        }
    }

    /// A histogram of durations, with a series for each value of one label, or a single one under an empty label.
    pub fn histogram(&mut self, name: &str, help: &str, label: &str, readings: &[(&'static str, Distribution)]) {
        self.head(name, help, "histogram");
        for (word, reading) in readings {
            let (own, comma) =
                if label.is_empty() { (String::new(), "") } else { (format!("{label}=\"{word}\""), ",") };
            for (end, below) in &reading.buckets {
                let _ = writeln!(self.out, "{name}_bucket{{{own}{comma}le=\"{}\"}} {below}", end.as_secs_f64());
            }
            let _ = writeln!(self.out, "{name}_bucket{{{own}{comma}le=\"+Inf\"}} {}", reading.count);
            self.line(&format!("{name}_sum"), label, word, reading.sum.as_secs_f64());
            self.line(&format!("{name}_count"), label, word, reading.count);
        }
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.out
    }

    fn describe(&mut self, kind: Kind, name: &str, help: &str) {
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        assert!(name.ends_with("_total") == (kind == Kind::Counter), "{name} is a {word}");
        self.head(name, help, word);
    }

    fn head(&mut self, name: &str, help: &str, word: &str) {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {word}");
    }

    fn line(&mut self, name: &str, label: &str, word: &str, value: impl Display) {
        let _ = if label.is_empty() {
            writeln!(self.out, "{name} {value}")
        } else {
            writeln!(self.out, "{name}{{{label}=\"{word}\"}} {value}")
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronos::storage::engine::Histogram;
    use std::time::Duration;

    #[test]
    fn a_family_is_described_and_its_samples_follow() {
        let mut text = Text::default();
        text.one(Kind::Gauge, "a_bytes", "Bytes of a", 7);
        text.labelled(Kind::Counter, "b_total", "Calls of b", "kind", [("read", 1), ("write", 2)]);
        assert_eq!(
            text.finish(),
            "# HELP a_bytes Bytes of a\n# TYPE a_bytes gauge\na_bytes 7\n\
             # HELP b_total Calls of b\n# TYPE b_total counter\nb_total{kind=\"read\"} 1\nb_total{kind=\"write\"} 2\n"
        );
    }

    #[test]
    fn a_histogram_ends_with_everything() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(20));
        histogram.record(Duration::from_secs(600));
        let mut text = Text::default();
        text.histogram("t_seconds", "Time of t", "kind", &[("read", histogram.distribution())]);
        text.histogram("u_seconds", "Time of u", "", &[("", histogram.distribution())]);
        let text = text.finish();
        for line in [
            "t_seconds_bucket{kind=\"read\",le=\"0.000016\"} 0",
            "t_seconds_bucket{kind=\"read\",le=\"0.000032\"} 1",
            "t_seconds_bucket{kind=\"read\",le=\"+Inf\"} 2",
            "t_seconds_sum{kind=\"read\"} 600.00002",
            "t_seconds_count{kind=\"read\"} 2",
            "u_seconds_bucket{le=\"134.217728\"} 1",
            "u_seconds_count 2",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is missing in\n{text}");
        }
    }
}
