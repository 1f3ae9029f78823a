//! The progress display of a run on a terminal. Pure: the lines depend on the progress, the time and the size alone.
//!
//! ```text
//! feedback  ███████░░░░░░░░░░░░░░░░░  2,910/10,000   29%  2m 51s left
//!   41.2 items/s, 64.0 calls/s, 12 in flight, 1m 10s elapsed
//!   cost $1.23 of $5.00, in all about $4.10; tokens 1.20M in, 85.3k out
//!   7 failed: 5 timeout, 2 content_filter
//!   provider  health                          in flight  queued  limit used                 429
//!   openai    ok                                  12/32       3  45% of 600 requests/min      2
//!   claude    breaker open, probe in 12s           0/8        0  3% of 50 requests/min        0
//! ```

use jiff::Timestamp;

use crate::cli::progress_text::{
    Completion, counted, holding, money, money_so_far, pace, retries, seconds_text, waiting_for_scope,
    with_separators,
};
use crate::run::{Cap, CapScope, Progress};
use crate::types::Class;

use super::line::{Line, Paint, columns, cut};
use super::providers;

/// The most columns of the bar.
const MAX_BAR_COLUMNS: usize = 40;

/// A bar with fewer columns shows nothing, and is left out.
const MIN_BAR_COLUMNS: usize = 6;

/// The most columns of the name of the run.
const MAX_TITLE_COLUMNS: usize = 24;

/// The most columns of the key of the oldest item. A key that is made from an item's content has 64 digits.
const MAX_KEY_COLUMNS: usize = 20;

/// From this time on, the oldest item in flight is shown.
const MIN_SHOWN_ITEM_SECONDS: f64 = 5.0;

/// Above this part of a cap, the cost is shown as a warning.
const HIGH_SPEND: f64 = 0.9;

/// What the space of a line begins with that belongs to the first one.
const INDENT: &str = "  ";

/// Returns the lines of the display, at most `height` lines of at most `width` columns.
pub(super) fn lines(title: &str, progress: &Progress, now: Timestamp, size: (usize, usize)) -> Vec<Line> {
    let (height, width) = size;
    let mut lines = vec![headline(title, progress, width), pace_line(progress), cost_line(progress)];
    lines.extend(failures(progress));
    lines.extend(retries(progress).map(|text| Line::of(Paint::Dim, &format!("{INDENT}{text}"))));
    let free_columns = width.saturating_sub(INDENT.len());
    lines.extend(progress.holding.iter().map(|held| {
        let text = holding(held, now, free_columns);
        Line::of(Paint::Warning, &format!("{INDENT}{text}"))
    }));
    lines.extend(progress.waiting_for_scope.iter().map(|wait| {
        let text = waiting_for_scope(wait, free_columns);
        Line::of(Paint::Warning, &format!("{INDENT}{text}"))
    }));
    lines.extend(providers::lines(progress, width));
    let hidden = lines.len().saturating_sub(height);
    if hidden > 0 && height > 0 {
        lines.truncate(height - 1);
        let more = format!("{INDENT}and {} more lines", hidden + 1);
        lines.push(Line::of(Paint::Dim, &more));
    }
    lines.truncate(height);
    lines.into_iter().map(|line| line.fitted(width)).collect()
}

/// Returns the name of the run, the bar, how many items are done, and the time left.
fn headline(title: &str, progress: &Progress, width: usize) -> Line {
    let completion = Completion::of(progress);
    let title = cut(title, MAX_TITLE_COLUMNS.min(width / 4));
    let mut parts = vec![(Paint::Plain, completion.count_text())];
    parts.extend(completion.percent().map(|percent| (Paint::Title, format!("{percent:>3}%"))));
    let left = progress.remaining_seconds.filter(|left| *left >= 0.5 && !completion.is_done());
    parts.extend(left.map(|left| (Paint::Plain, format!("{} left", seconds_text(left)))));
    if progress.stopping {
        parts.push((Paint::Warning, "stopping".to_owned()));
    }
    if progress.simulated {
        parts.push((Paint::Dim, "[simulated]".to_owned()));
    }
    let used: usize = parts.iter().map(|(_, text)| columns(text) + 2).sum();
    let mut line = Line::of(Paint::Title, &title);
    let free = width.saturating_sub(line.columns() + 2 + used);
    if let Some(fraction) = completion.fraction()
        && free >= MIN_BAR_COLUMNS
    {
        let columns = free.min(MAX_BAR_COLUMNS);
        let done = ((fraction * columns as f64) as usize).min(columns);
        let paint = if progress.holding.is_some() { Paint::Warning } else { Paint::Done };
        line = line.with(Paint::Plain, INDENT);
        line = line.with(paint, &"█".repeat(done)).with(Paint::Dim, &"░".repeat(columns - done));
    }
    parts.into_iter().fold(line, |line, (paint, text)| line.with(Paint::Plain, INDENT).with(paint, &text))
}

fn pace_line(progress: &Progress) -> Line {
    let mut text = format!("{INDENT}{}", pace(progress));
    if let Some((key, seconds)) = &progress.oldest_item
        && *seconds >= MIN_SHOWN_ITEM_SECONDS
    {
        text.push_str(&format!(", oldest {} {}", cut(key.as_str(), MAX_KEY_COLUMNS), seconds_text(*seconds)));
    }
    Line::of(Paint::Plain, &text)
}

/// Returns what is spent, against the caps, and the tokens.
fn cost_line(progress: &Progress) -> Line {
    let line = Line::of(Paint::Plain, INDENT);
    if progress.calls.sent == 0 && progress.caps.iter().all(|cap| cap.spent_usd <= 0.0) {
        let cap = progress.caps.iter().find(|cap| cap.scope == CapScope::Run);
        let cap = cap.map_or_else(String::new, |cap| format!("; cap {}", money(cap.cap_usd)));
        return line.with(Paint::Plain, &format!("no response yet{cap}"));
    }
    let is_high = |cap: &Cap| cap.spent_usd >= cap.cap_usd * HIGH_SPEND;
    let paint = if progress.caps.iter().any(is_high) { Paint::Warning } else { Paint::Plain };
    line.with(paint, &money_so_far(progress)).with(Paint::Plain, &format!("; {}", tokens(progress)))
}

fn tokens(progress: &Progress) -> String {
    use crate::cli::progress_text::count;
    let tokens = &progress.tokens;
    format!("tokens {} in, {} out", count(tokens.input.0), count(tokens.output.0))
}

/// Returns the failed items by class, and the rejected records; `None` if there are none.
fn failures(progress: &Progress) -> Option<Line> {
    let items = &progress.items;
    let mut line = Line::of(Paint::Plain, INDENT);
    if items.failed > 0 {
        let mut classes: Vec<(&Class, &u64)> = progress.failed_items.iter().collect();
        classes.sort_by_key(|(_, number)| std::cmp::Reverse(**number));
        let mut parts: Vec<String> =
            classes.iter().map(|(class, number)| format!("{} {class}", with_separators(**number))).collect();
        let earlier = items.failed.saturating_sub(progress.failed_items.values().sum());
        if earlier > 0 {
            parts.push(format!("{} in earlier sessions", with_separators(earlier)));
        }
        let failed = format!("{} failed: {}", with_separators(items.failed), parts.join(", "));
        line = line.with(Paint::Problem, &failed);
    }
    if items.rejected > 0 {
        let start = if items.failed > 0 { "; " } else { "" };
        let rejected = format!("{start}{} of the input rejected", counted(items.rejected, "record"));
        line = line.with(Paint::Warning, &rejected);
    }
    (items.failed + items.rejected > 0).then_some(line)
}
