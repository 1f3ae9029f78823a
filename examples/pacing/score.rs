//! Measurements, goals, and the lines of the table.

use std::ops::Range;

use pointsman::simulator::Counts;

use super::rows::Row;

/// Measurements of a row. `None` is not measured.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// Percentage of the limit that was used.
    pub(crate) used: Option<f64>,
    /// Percentage of the calls that were answered with 429.
    pub(crate) refused: Option<f64>,
    /// Calls that the provider admitted; in an outage, calls to the unavailable provider.
    pub(crate) calls: u64,
    /// Failed items or requests.
    pub(crate) lost: u64,
    /// Time until all work was done, or until the recovery. Infinite if the maximum wait was exceeded.
    pub(crate) seconds: Option<f64>,
    /// Duration of the slowest request in seconds. Infinite if it had no response.
    pub(crate) slowest: Option<f64>,
    /// Maximum number of attempts of a request.
    pub(crate) attempts: Option<u32>,
}

/// Several measurements of one row. Each figure is evaluated separately.
#[derive(Debug, Clone)]
pub(crate) struct Repetitions(Vec<Measured>);

/// Goal of a row: a minimum for `used`, and maxima for the other figures.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) used: Option<f64>,
    pub(crate) refused: Option<f64>,
    pub(crate) calls: Option<u64>,
    pub(crate) lost: Option<u64>,
    pub(crate) seconds: Option<f64>,
    pub(crate) attempts: Option<u32>,
}

/// A goal that any measurement meets.
pub(crate) const NO_GOAL: Goal =
    Goal { used: None, refused: None, calls: None, lost: None, seconds: None, attempts: None };

/// Returns the header of the table.
pub(crate) fn header() -> String {
    let [used, refused, seconds, slowest, attempts] = ["used", "429", "seconds", "slowest", "attempts"];
    format!(
        "{:4} {:58}{used:>8}{refused:>8}{:>7}{:>6}{seconds:>9}{slowest:>9}{attempts:>9}  {:8}goal",
        "row", "description", "calls", "lost", ""
    )
}

impl Goal {
    /// Returns whether the goal is met.
    pub(crate) fn is_met_by(&self, measured: &Measured) -> bool {
        let at_most =
            |max: Option<f64>, is: Option<f64>| max.is_none_or(|max| is.is_some_and(|is| is <= max));
        self.used.is_none_or(|min| measured.used.is_some_and(|used| used >= min))
            && at_most(self.refused, measured.refused)
            && at_most(self.seconds, measured.seconds)
            && self.calls.is_none_or(|max| measured.calls <= max)
            && self.lost.is_none_or(|max| measured.lost <= max)
            && self.attempts.is_none_or(|max| measured.attempts.is_some_and(|attempts| attempts <= max))
    }

    /// Returns the line of a row.
    pub(crate) fn line(&self, row: &Row, measured: &Measured) -> String {
        let Measured { used, refused, calls, lost, seconds, slowest, attempts } = *measured;
        let used = formatted(used, "%");
        let refused = formatted(refused, "%");
        let seconds = formatted(seconds, "");
        let slowest = formatted(slowest, "");
        let attempts = attempts.map_or("-".to_owned(), |attempts| attempts.to_string());
        let verdict = if self.is_met_by(measured) { "met" } else { "MISSED" };
        let Row { name, description, .. } = row;
        format!(
            "{name:4} {description:58}{used:>8}{refused:>8}{calls:>7}{lost:>6}{seconds:>9}{slowest:>9}{attempts:>9}  {verdict:8}{}",
            self.text()
        )
    }

    fn text(&self) -> String {
        let parts = [
            self.used.map(|min| format!("used >= {min}%")),
            self.refused.map(|max| format!("429 <= {max}%")),
            self.calls.map(|max| format!("calls <= {max}")),
            self.lost.map(|max| format!("lost {max}")),
            self.seconds.map(|max| format!("seconds <= {max:.1}")),
            self.attempts.map(|max| format!("attempts <= {max}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl Repetitions {
    /// Creates repetitions from at least one measurement.
    pub(crate) fn new(measurements: Vec<Measured>) -> Self {
        Self(measurements)
    }

    /// Returns the median of each figure. For an even number of repetitions it is the worse of the two middle
    /// values.
    pub(crate) fn median(&self) -> Measured {
        let middle = self.0.len() / 2;
        let low = |figure: fn(&Measured) -> Option<f64>| {
            self.sorted(figure).get(self.0.len() - 1 - middle).copied()
        };
        let high = |figure: fn(&Measured) -> Option<f64>| self.sorted(figure).get(middle).copied();
        Measured {
            used: low(|measured| measured.used),
            refused: high(|measured| measured.refused),
            calls: high(|measured| Some(measured.calls as f64)).unwrap_or_default() as u64,
            lost: high(|measured| Some(measured.lost as f64)).unwrap_or_default() as u64,
            seconds: high(|measured| measured.seconds),
            slowest: high(|measured| measured.slowest),
            attempts: high(|measured| measured.attempts.map(f64::from)).map(|attempts| attempts as u32),
        }
    }

    /// Returns a line with the minimum and maximum of each figure; `None` for a single repetition.
    pub(crate) fn range(&self) -> Option<String> {
        if self.0.len() < 2 {
            return None;
        }
        let format_range = |figure: fn(&Measured) -> Option<f64>, unit: &str| match self.sorted(figure)[..] {
            [min, .., max] => Some(format!("{min:.1}{unit} to {max:.1}{unit}")),
            _ => None,
        };
        let format_integers = |figure: fn(&Measured) -> Option<f64>| match self.sorted(figure)[..] {
            [min, .., max] => Some(format!("{min} to {max}")),
            _ => None,
        };
        let parts = [
            format_range(|measured| measured.used, "%").map(|range| format!("used {range}")),
            format_range(|measured| measured.refused, "%").map(|range| format!("429 {range}")),
            format_integers(|measured| Some(measured.calls as f64)).map(|range| format!("calls {range}")),
            format_integers(|measured| Some(measured.lost as f64)).map(|range| format!("lost {range}")),
            format_range(|measured| measured.seconds, "").map(|range| format!("seconds {range}")),
            format_range(|measured| measured.slowest, "").map(|range| format!("slowest {range}")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        Some(format!("    of {} repetitions: {}", self.0.len(), parts.join(", ")))
    }

    fn sorted(&self, figure: fn(&Measured) -> Option<f64>) -> Vec<f64> {
        let mut figures: Vec<f64> = self.0.iter().filter_map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures
    }
}

fn formatted(value: Option<f64>, unit: &str) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.1}{unit}"))
}

/// Counts of the provider in a range of seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    pub(crate) admitted: u64,
    refused: u64,
    /// Input and output tokens.
    pub(crate) tokens: u64,
}

impl Window {
    /// Sums the counts of these seconds since the start of the provider.
    pub(crate) fn of(counts: &Counts, seconds: Range<u64>) -> Self {
        let within = counts.seconds.iter().filter(|second| seconds.contains(&second.second));
        within.fold(Self::default(), |sum, second| Self {
            admitted: sum.admitted + second.admitted,
            refused: sum.refused + second.refused,
            tokens: sum.tokens + second.input_tokens + second.output_tokens,
        })
    }

    /// Returns the percentage of the calls that were answered with 429.
    pub(crate) fn refused(&self) -> f64 {
        100.0 * self.refused as f64 / (self.admitted + self.refused).max(1) as f64
    }
}
