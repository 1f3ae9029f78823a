//! The providers of the progress display: a line for each, in columns. Pure.

use crate::cli::progress_text::{count, limit, seconds_text};
use crate::guard::BreakerState;
use crate::provider::{OutOfService, Snapshot, TargetSnapshot};
use crate::run::Progress;

use super::line::{Line, Paint, columns, cut};

/// Above this part of a limit it is shown as a warning.
const HIGH_UTILIZATION: f64 = 0.9;

/// The space between two columns.
const GAP: usize = 2;

/// How much the lines say. A narrower terminal gets less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// Everything.
    Full,
    /// Without the size of a limit.
    Medium,
    /// With short words for the health.
    Short,
    /// With short words for limits, and short names.
    Least,
}

/// A cell with its color.
type Cell = (Paint, String);

/// Returns the lines of the providers under a header, in at most `width` columns; nothing without providers.
pub(super) fn lines(progress: &Progress, width: usize) -> Vec<Line> {
    if progress.providers.is_empty() {
        return Vec::new();
    }
    let details = [Detail::Full, Detail::Medium, Detail::Short, Detail::Least];
    let tables = details.map(|detail| table(progress, detail));
    let is_narrow_enough = |table: &Table| table.width() <= width;
    let [.., least] = &tables;
    let table = tables.iter().find(|table| is_narrow_enough(table)).unwrap_or(least);
    table.lines().into_iter().map(|line| line.fitted(width)).collect()
}

/// The rows with the header, and the width of each column.
struct Table {
    rows: Vec<[Cell; 6]>,
    widths: [usize; 6],
}

/// The columns whose cells are numbers.
const RIGHT_ALIGNED: [bool; 6] = [false, false, true, true, false, true];

/// The least width of each column, so that it does not change with every digit.
const MIN_WIDTHS: [usize; 6] = [0, 2, 5, 6, 0, 4];

fn table(progress: &Progress, detail: Detail) -> Table {
    let in_flight = if detail == Detail::Least { "calls" } else { "in flight" };
    let header = ["provider", "health", in_flight, "queued", "limit used", "429"];
    let header = header.map(|text| (Paint::Dim, text.to_owned()));
    let providers = progress.providers.iter().map(|provider| row(provider, progress, detail));
    let rows: Vec<[Cell; 6]> = std::iter::once(header).chain(providers).collect();
    let mut widths = MIN_WIDTHS;
    for row in &rows {
        for (width, (_, text)) in widths.iter_mut().zip(row) {
            *width = (*width).max(columns(text));
        }
    }
    Table { rows, widths }
}

impl Table {
    fn width(&self) -> usize {
        self.widths.iter().map(|width| width + GAP).sum()
    }

    fn lines(&self) -> Vec<Line> {
        self.rows.iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &[Cell; 6]) -> Line {
        let mut line = Line::default();
        let mut start = 0;
        for (((paint, text), width), is_right) in row.iter().zip(self.widths).zip(RIGHT_ALIGNED) {
            start += GAP;
            let before = if is_right { width - columns(text) } else { 0 };
            line = line.padded_to(start + before).with(*paint, text);
            start += width;
        }
        line
    }
}

fn row(provider: &Snapshot, progress: &Progress, detail: Detail) -> [Cell; 6] {
    let max_name = if detail == Detail::Least { 8 } else { 20 };
    let max_health = match detail {
        Detail::Full => 60,
        Detail::Medium => 40,
        Detail::Short => 16,
        Detail::Least => 10,
    };
    let (health_paint, health) = health(provider, progress, detail);
    let throttled = if provider.throttled > 0 { Paint::Warning } else { Paint::Plain };
    [
        (Paint::Plain, cut(provider.provider.as_str(), max_name)),
        (health_paint, cut(&health, max_health)),
        (Paint::Plain, format!("{}/{}", provider.in_flight, provider.concurrency)),
        (Paint::Plain, count(provider.queued as u64)),
        limit_cell(provider, detail),
        (throttled, count(provider.throttled)),
    ]
}

/// Returns how much of its binding limit a provider uses, and which limit that is.
fn limit_cell(provider: &Snapshot, detail: Detail) -> Cell {
    let Some(used) = &provider.limit else { return (Paint::Plain, "-".to_owned()) };
    let paint = if used.utilization >= HIGH_UTILIZATION { Paint::Warning } else { Paint::Good };
    let percent = (used.utilization * 100.0).clamp(0.0, 999.0);
    let text = match detail {
        Detail::Full => limit(used),
        Detail::Medium | Detail::Short => format!("{percent:.0}% {}", used.limit),
        Detail::Least => format!("{percent:.0}% {}", short_limit(used.limit)),
    };
    (paint, cut(&text, 60))
}

/// Returns a short word for what a limit counts.
fn short_limit(limit: &str) -> &str {
    match limit {
        "requests" => "req",
        "tokens" => "tok",
        "input tokens" => "in tok",
        "output tokens" => "out tok",
        "requests per day" => "req/day",
        other => other,
    }
}

/// Returns the health of a provider: the most severe of what prevents calls.
fn health(provider: &Snapshot, progress: &Progress, detail: Detail) -> Cell {
    let is_long = matches!(detail, Detail::Full | Detail::Medium);
    let words = |long: String, short: String| if is_long { long } else { short };
    if let Some(why) = provider.out_of_service {
        return (Paint::Problem, out_of_service(why).to_owned());
    }
    if !provider.up {
        return (Paint::Problem, "down".to_owned());
    }
    let holding = progress.holding.as_ref().filter(|held| {
        let target = held.target.as_deref().and_then(|target| target.split_once('/'));
        target.is_some_and(|(name, _)| name == provider.provider.as_str())
    });
    if let Some(held) = holding {
        return (Paint::Warning, words(format!("holding ({})", held.class), "holding".to_owned()));
    }
    if let Some(target) = worst_target(provider) {
        return breaker(target, provider.targets.len() == 1, is_long);
    }
    if !provider.held_for.is_zero() {
        let wait = seconds_text(provider.held_for.as_secs_f64());
        return (Paint::Warning, words(format!("backing off {wait}"), format!("waits {wait}")));
    }
    if let Some(cooldown) = provider.keys_in_cooldown.first() {
        let long = format!("key {} cooling down ({})", cooldown.key, cooldown.class);
        return (Paint::Warning, words(long, format!("key {}", cooldown.key)));
    }
    if provider.draining {
        return (Paint::Warning, "draining".to_owned());
    }
    let simulated = if provider.simulated { "ok (simulated)" } else { "ok" };
    (Paint::Good, words(simulated.to_owned(), "ok".to_owned()))
}

/// Returns the target whose breaker prevents its calls longest.
fn worst_target(provider: &Snapshot) -> Option<&TargetSnapshot> {
    let rank = |target: &TargetSnapshot| match target.breaker {
        _ if target.forced_open => 3,
        BreakerState::Open => 2,
        BreakerState::HalfOpen => 1,
        BreakerState::Closed => 0,
    };
    let not_closed = provider.targets.iter().filter(|target| rank(target) > 0);
    not_closed.max_by_key(|target| (rank(target), target.probed_in))
}

fn breaker(target: &TargetSnapshot, is_only_target: bool, is_long: bool) -> Cell {
    let whose = if is_only_target { String::new() } else { format!(": {}", target.model) };
    let probe = seconds_text(target.probed_in.as_secs_f64());
    let (paint, long, short) = match target.breaker {
        _ if target.forced_open => {
            (Paint::Problem, "breaker opened by hand".to_owned(), "forced open".to_owned())
        }
        BreakerState::Open if target.probed_in.is_zero() => {
            (Paint::Problem, "breaker open".to_owned(), "open".to_owned())
        }
        BreakerState::Open => {
            (Paint::Problem, format!("breaker open, probe in {probe}"), format!("open {probe}"))
        }
        BreakerState::HalfOpen | BreakerState::Closed => {
            (Paint::Warning, "breaker half-open".to_owned(), "half-open".to_owned())
        }
    };
    (paint, if is_long { long + &whose } else { short + &whose })
}

fn out_of_service(why: OutOfService) -> &'static str {
    match why {
        OutOfService::Drained => "drained",
        OutOfService::Removed | OutOfService::ModelRemoved => "removed",
        OutOfService::Replaced => "replaced",
        OutOfService::BreakerForcedOpen => "forced open",
    }
}
