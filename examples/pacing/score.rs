//! What was measured, what was to be reached, and the line that says both.
//!
//! Measures nothing and knows no row.

use std::ops::Range;

use pointsman::simulator::Counts;

use super::rows::Row;

/// What a row showed; `None` where it is no question.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Measured {
    /// Percent of the limit that the provider admitted.
    pub(crate) used: Option<f64>,
    /// Percent of the calls that it answered 429.
    pub(crate) refused: Option<f64>,
    /// Calls that it admitted; in an outage, those that reached the dark one.
    pub(crate) calls: u64,
    /// Items or questions that failed.
    pub(crate) lost: u64,
    /// Until all was done, or as it had been; infinite where that was not waited for any longer.
    pub(crate) seconds: Option<f64>,
    /// Seconds that the slowest question took, from being asked to its answer; infinite where there was none.
    pub(crate) slowest: Option<f64>,
    /// Attempts that any request needed at most.
    pub(crate) attempts: Option<u32>,
}

/// What several goes at one row showed, each figure for itself.
#[derive(Debug, Clone)]
pub(crate) struct Goes(Vec<Measured>);

/// What is to be reached: at least that share used, at most that much of the others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) used: Option<f64>,
    pub(crate) refused: Option<f64>,
    pub(crate) calls: Option<u64>,
    pub(crate) lost: Option<u64>,
    pub(crate) seconds: Option<f64>,
    pub(crate) attempts: Option<u32>,
}

/// The goal that everything reaches.
pub(crate) const ANYTHING: Goal =
    Goal { used: None, refused: None, calls: None, lost: None, seconds: None, attempts: None };

/// Returns the line above all rows.
pub(crate) fn header() -> String {
    let [used, refused, seconds, slowest, attempts] = ["used", "429", "seconds", "slowest", "attempts"];
    format!(
        "{:3} {:48}{used:>8}{refused:>8}{:>7}{:>6}{seconds:>9}{slowest:>9}{attempts:>9}  {:8}goal",
        "row", "what", "calls", "lost", ""
    )
}

impl Goal {
    /// Says whether all of it is reached.
    pub(crate) fn is_met_by(&self, measured: &Measured) -> bool {
        let at_most =
            |most: Option<f64>, is: Option<f64>| most.is_none_or(|most| is.is_some_and(|is| is <= most));
        self.used.is_none_or(|least| measured.used.is_some_and(|used| used >= least))
            && at_most(self.refused, measured.refused)
            && at_most(self.seconds, measured.seconds)
            && self.calls.is_none_or(|most| measured.calls <= most)
            && self.lost.is_none_or(|most| measured.lost <= most)
            && self.attempts.is_none_or(|most| measured.attempts.is_some_and(|attempts| attempts <= most))
    }

    /// Returns a row's line.
    pub(crate) fn line(&self, row: &Row, measured: &Measured) -> String {
        let Measured { used, refused, calls, lost, seconds, slowest, attempts } = *measured;
        let (used, refused) = (shown(used, "%"), shown(refused, "%"));
        let (seconds, slowest) = (shown(seconds, ""), shown(slowest, ""));
        let attempts = attempts.map_or("-".to_owned(), |attempts| attempts.to_string());
        let verdict = if self.is_met_by(measured) { "met" } else { "MISSED" };
        let (name, what) = (row.name, row.what);
        format!(
            "{name:3} {what:48}{used:>8}{refused:>8}{calls:>7}{lost:>6}{seconds:>9}{slowest:>9}{attempts:>9}  {verdict:8}{}",
            self.text()
        )
    }

    fn text(&self) -> String {
        let parts = [
            self.used.map(|least| format!("used >= {least}%")),
            self.refused.map(|most| format!("429 <= {most}%")),
            self.calls.map(|most| format!("calls <= {most}")),
            self.lost.map(|most| format!("lost {most}")),
            self.seconds.map(|most| format!("seconds <= {most:.1}")),
            self.attempts.map(|most| format!("attempts <= {most}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

impl Goes {
    /// Takes what every go showed; at least one.
    pub(crate) fn new(goes: Vec<Measured>) -> Self {
        Self(goes)
    }

    /// Returns the median of each figure: of an even number of goes the worse one of the two in the middle.
    pub(crate) fn median(&self) -> Measured {
        let middle = self.0.len() / 2;
        let low = |figure: fn(&Measured) -> Option<f64>| {
            self.sorted(figure).get(self.0.len() - 1 - middle).copied()
        };
        let high = |figure: fn(&Measured) -> Option<f64>| self.sorted(figure).get(middle).copied();
        Measured {
            used: low(|go| go.used),
            refused: high(|go| go.refused),
            calls: high(|go| Some(go.calls as f64)).unwrap_or_default() as u64,
            lost: high(|go| Some(go.lost as f64)).unwrap_or_default() as u64,
            seconds: high(|go| go.seconds),
            slowest: high(|go| go.slowest),
            attempts: high(|go| go.attempts.map(f64::from)).map(|attempts| attempts as u32),
        }
    }

    /// Returns the line that stands below a row's: from the least to the most of each figure; `None` for a
    /// single go.
    pub(crate) fn range(&self) -> Option<String> {
        if self.0.len() < 2 {
            return None;
        }
        let range = |figure: fn(&Measured) -> Option<f64>, unit: &str| match self.sorted(figure)[..] {
            [least, .., most] => Some(format!("{least:.1}{unit} to {most:.1}{unit}")),
            _ => None,
        };
        let whole = |figure: fn(&Measured) -> Option<f64>| match self.sorted(figure)[..] {
            [least, .., most] => Some(format!("{least} to {most}")),
            _ => None,
        };
        let parts = [
            range(|go| go.used, "%").map(|range| format!("used {range}")),
            range(|go| go.refused, "%").map(|range| format!("429 {range}")),
            whole(|go| Some(go.calls as f64)).map(|range| format!("calls {range}")),
            whole(|go| Some(go.lost as f64)).map(|range| format!("lost {range}")),
            range(|go| go.seconds, "").map(|range| format!("seconds {range}")),
            range(|go| go.slowest, "").map(|range| format!("slowest {range}")),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        Some(format!("    of {} goes: {}", self.0.len(), parts.join(", ")))
    }

    fn sorted(&self, figure: fn(&Measured) -> Option<f64>) -> Vec<f64> {
        let mut figures: Vec<f64> = self.0.iter().filter_map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures
    }
}

fn shown(value: Option<f64>, unit: &str) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.1}{unit}"))
}

/// What the provider counted in some of its seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    pub(crate) admitted: u64,
    refused: u64,
    /// Read and written.
    pub(crate) tokens: u64,
}

impl Window {
    /// Sums up what came in these seconds since the provider's start.
    pub(crate) fn of(counts: &Counts, seconds: Range<u64>) -> Self {
        let within = counts.seconds.iter().filter(|second| seconds.contains(&second.second));
        within.fold(Self::default(), |sum, second| Self {
            admitted: sum.admitted + second.admitted,
            refused: sum.refused + second.refused,
            tokens: sum.tokens + second.input_tokens + second.output_tokens,
        })
    }

    /// Returns the percentage of the calls that were answered 429.
    pub(crate) fn refused(&self) -> f64 {
        100.0 * self.refused as f64 / (self.admitted + self.refused).max(1) as f64
    }
}
