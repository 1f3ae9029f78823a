//! Draws the screen. Pure: the frame depends on the view alone.
//!
//! All text is made safe for a terminal before it gets into a cell.

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, TableState};
use serde_json::Value;

use crate::cli::progress_text::{count, counted, money, seconds_text, spent_of};
use crate::cli::remote::views::{LimitView, ProviderView};
use crate::run::Cap;
use crate::terminal_text;

use super::answers::{EventView, ProgressView, RunView};
use super::view::View;

/// The most providers that are shown.
const MAX_PROVIDERS: usize = 6;

/// How many events are shown if there is space.
const EVENT_LINES: u16 = 4;

/// The columns of a bar.
const BAR_WIDTH: usize = 8;

/// Above this part of a cap or a limit, it is shown as a warning.
const HIGH: f64 = 0.9;

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let providers = view.status.as_ref().map_or(0, |status| status.providers.len()).min(MAX_PROVIDERS);
    let heights = [
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(1),
        Constraint::Length(providers as u16 + 1),
        Constraint::Length(EVENT_LINES + 1),
        Constraint::Length(1),
    ];
    let [head, money, runs, detail, provider_area, events, foot] =
        Layout::vertical(heights).areas(frame.area());
    frame.render_widget(Paragraph::new(headline(view)), head);
    frame.render_widget(Paragraph::new(spend(view)), money);
    draw_runs(frame, view, runs);
    frame.render_widget(Paragraph::new(selected_detail(view)), detail);
    draw_providers(frame, view, provider_area);
    draw_events(frame, view, events);
    frame.render_widget(Paragraph::new(footer(view)), foot);
}

fn safe(text: &str) -> String {
    terminal_text::line(text).into_owned()
}

fn colored(view: &View, color: Color) -> Style {
    if view.has_color { Style::new().fg(color) } else { Style::new() }
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn headline(view: &View) -> Line<'static> {
    let Some(status) = &view.status else {
        return Line::from(format!("pointsman at {}", safe(&view.url)));
    };
    let uptime = seconds_text(status.uptime_seconds);
    let start = format!("pointsman {} at {}, up {uptime}: ", safe(&status.version), safe(&view.url));
    if let Some(problem) = &view.problem {
        return Line::from(vec![
            Span::raw(start),
            Span::styled(format!("no answer: {}", safe(problem)), colored(view, Color::Red).patch(bold())),
        ]);
    }
    let state = match status.reasons.first() {
        None => Span::styled("ready", colored(view, Color::Green)),
        Some(reason) => Span::styled(
            format!("not ready: {}", safe(&reason.to_string())),
            colored(view, Color::Red).patch(bold()),
        ),
    };
    Line::from(vec![Span::raw(start), state])
}

/// Returns the runs, the queue, and what is spent. The cap of which most is used comes first.
fn spend(view: &View) -> Line<'static> {
    let Some(status) = &view.status else { return Line::default() };
    let counts = status.runs;
    let mut spans = vec![Span::raw(format!(
        "{} open, {} holding, {} paused | {} queued | today {}",
        counted(counts.open as u64, "run"),
        counts.holding,
        counts.paused,
        count(view.queued() as u64),
        money(status.spent_today_usd)
    ))];
    let mut caps: Vec<&Cap> = status.caps.iter().collect();
    caps.sort_by(|one, other| used(other).total_cmp(&used(one)));
    for cap in caps {
        let color = if used(cap) >= HIGH { Color::Red } else { Color::Green };
        spans.push(Span::raw(" | "));
        spans.push(Span::styled(bar(used(cap)), colored(view, color)));
        spans.push(Span::raw(format!(" {}", safe(&spent_of(cap)))));
    }
    Line::from(spans)
}

fn used(cap: &Cap) -> f64 {
    if cap.cap_usd > 0.0 { cap.spent_usd / cap.cap_usd } else { 1.0 }
}

/// Returns a bar for a fraction.
fn bar(fraction: f64) -> String {
    let filled = (fraction.clamp(0.0, 1.0) * BAR_WIDTH as f64).round() as usize;
    format!("{}{}", "█".repeat(filled), "░".repeat(BAR_WIDTH - filled))
}

fn draw_runs(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let header =
        Row::new(["run", "pipeline", "state", "done", "items/s", "failed", "cost", "left"]).style(bold());
    let rows = view.runs.iter().map(|run| run_row(view, run));
    let widths = [
        Constraint::Length(6),
        Constraint::Fill(1),
        Constraint::Length(18),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(9),
        Constraint::Length(8),
    ];
    let table = Table::new(rows, widths)
        .header(header)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(view.selected_index());
    frame.render_stateful_widget(table, area, &mut state);
}

fn run_row(view: &View, run: &RunView) -> Row<'static> {
    let state = match run.class {
        Some(class) => format!("{}: {class}", safe(&run.state)),
        None => safe(&run.state),
    };
    let style = match run.state.as_str() {
        "running" => colored(view, Color::Green),
        "holding" | "paused" => colored(view, Color::Yellow),
        "io_error" | "crashed" => colored(view, Color::Red),
        _ => Style::new(),
    };
    let start =
        [Cell::from(run.run.to_string()), Cell::from(safe(&run.pipeline)), Cell::from(state).style(style)];
    let Some(progress) = &run.progress else { return Row::new(start) };
    let items = &progress.items;
    let done = match progress.input_fraction {
        Some(fraction) => format!("{:.0}%", (fraction * 100.0).clamp(0.0, 100.0)),
        None => count(items.finished()),
    };
    let left = progress.remaining_seconds.filter(|left| *left >= 0.5);
    let numbers = [
        Cell::from(done),
        Cell::from(format!("{:.1}", progress.items_per_second)),
        Cell::from(count(items.failed)).style(if items.failed > 0 {
            colored(view, Color::Red)
        } else {
            Style::new()
        }),
        Cell::from(cost(progress)),
        Cell::from(left.map(seconds_text).unwrap_or_default()),
    ];
    Row::new(start.into_iter().chain(numbers))
}

/// Formats the known part of the cost. The column has no space for "at least".
fn cost(progress: &ProgressView) -> String {
    let sign = if progress.calls_of_unknown_cost > 0 { "≥" } else { "" };
    progress.cost_usd.map_or_else(|| "?".to_owned(), |dollars| format!("{sign}{}", money(dollars)))
}

/// Returns what there is to say about the selected run.
fn selected_detail(view: &View) -> Line<'static> {
    let Some(run) = view.selected_run() else { return Line::from("no runs") };
    let mut text = format!("run {}: ", run.run);
    let progress = run.progress.clone().unwrap_or_default();
    if let Some(holding) = &progress.holding {
        let target = holding.target.as_ref().map_or_else(String::new, |target| format!("{target}: "));
        let retry = seconds_text(holding.retry_in_seconds);
        text.push_str(&format!(
            "holding (retrying in {retry}): {target}{}: {}",
            holding.class, holding.message
        ));
    } else if let Some(wait) = &progress.waiting_for_scope {
        let requests = counted(wait.requests as u64, "request");
        text.push_str(&format!("{requests} waiting for scope {} ({})", wait.scope, wait.limit));
    } else if let Some(reason) = &run.reason {
        text.push_str(reason);
    } else if run.progress.is_some() {
        text.push_str(&format!(
            "{} done, {} in flight",
            counted(progress.items.finished(), "item"),
            count(progress.in_flight)
        ));
    } else {
        text.push_str(&run.state);
    }
    Line::from(safe(&text))
}

fn draw_providers(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let header = Row::new(["provider", "breaker", "in flight", "queued", "limit used", "429"]).style(bold());
    let providers = view.status.iter().flat_map(|status| &status.providers);
    let widths = [
        Constraint::Length(14),
        Constraint::Fill(1),
        Constraint::Length(11),
        Constraint::Length(6),
        Constraint::Length(13),
        Constraint::Length(6),
    ];
    let rows = providers.map(|provider| provider_row(view, provider));
    frame.render_widget(Table::new(rows, widths).header(header), area);
}

fn provider_row(view: &View, provider: &ProviderView) -> Row<'static> {
    let breakers = provider.open_breakers();
    let (state, color) = match provider.unavailable() {
        Some(why) => (why.to_owned(), Color::Red),
        None if breakers.is_empty() => ("closed".to_owned(), Color::Green),
        None => (breakers.join(", "), Color::Yellow),
    };
    let limit = provider.limit.as_ref();
    let limit_color =
        if limit.is_some_and(|limit| limit.utilization >= HIGH) { Color::Yellow } else { Color::Green };
    let throttled = if provider.throttled > 0 { colored(view, Color::Yellow) } else { Style::new() };
    Row::new([
        Cell::from(safe(&provider.provider)),
        Cell::from(safe(&state)).style(colored(view, color)),
        Cell::from(format!("{}/{}", provider.in_flight, provider.concurrency)),
        Cell::from(count(provider.queued as u64)),
        Cell::from(limit.map(limit_bar).unwrap_or_default()).style(colored(view, limit_color)),
        Cell::from(count(provider.throttled)).style(throttled),
    ])
}

fn limit_bar(limit: &LimitView) -> String {
    format!("{} {:>3.0}%", bar(limit.utilization), (limit.utilization * 100.0).clamp(0.0, 999.0))
}

fn draw_events(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let space = usize::from(area.height.saturating_sub(1));
    let latest = view.events.iter().skip(view.events.len().saturating_sub(space));
    let lines = std::iter::once(Line::styled("events (UTC)", bold())).chain(latest.map(event_line));
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
}

fn event_line(event: &EventView) -> Line<'static> {
    let at = Timestamp::from_millisecond(event.at).map(|at| at.strftime("%H:%M:%S").to_string());
    let kind = event.kind.replace('_', " ");
    let run = event.run.map_or_else(String::new, |run| format!(" (run {run})"));
    let facts: Vec<String> = match &event.data {
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| match value {
                Value::String(text) => format!("{name} {text}"),
                other => format!("{name} {other}"),
            })
            .collect(),
        _ => Vec::new(),
    };
    Line::from(safe(&format!("{} {kind}{run} {}", at.unwrap_or_default(), facts.join(", "))))
}

fn footer(view: &View) -> Line<'static> {
    if let Some(run) = view.cancel_asked {
        let text = format!(
            "cancel run {run}? Its finished items stay stored. y: cancel it; any other key: leave it"
        );
        return Line::styled(text, bold());
    }
    match &view.notice {
        Some(notice) => Line::styled(safe(notice), bold()),
        None => Line::from("q quit  j/k select  h hold  r resume  c cancel"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    /// Returns a screen with three runs, of which the first is selected.
    pub(in crate::cli::top) fn view() -> View {
        let progress = json!({
            "items": {
                "completed": 40, "failed": 2, "skipped": 0, "finished_before": 0, "missing_from_input": 0,
                "rejected": 0, "unfinished": 0, "paused": 0, "not_processed": 0, "unwritten": 0
            },
            "in_flight": 7, "items_per_second": 12.34, "cost_usd": 0.5, "calls_of_unknown_cost": 0,
            "remaining_seconds": 75.0, "input_fraction": 0.42, "holding": null, "waiting_for_scope": null
        });
        let mut held = progress.clone();
        held["holding"] = json!({
            "target": "a/m", "class": "quota", "message": "no\u{1b}[31m credit", "retry_in_seconds": 240.0
        });
        let run = |run: i64, state: &str, class: Value, progress: Value| {
            serde_json::from_value(json!({
                "run": run, "pipeline": "email", "state": state, "reason": null, "class": class, "updated_at": "2026-11-30T08:15:00.000Z",
                "sessions": 1, "progress": progress
            }))
            .unwrap()
        };
        let mut view = View::new("http://127.0.0.1:7700".to_owned(), true);
        view.status = Some(
            serde_json::from_value(json!({
                "version": "0.1.0", "uptime_seconds": 7_300.0, "ready": true, "reasons": [],
                "runs": { "open": 2, "holding": 1, "paused": 1 }, "spent_today_usd": 1.25, "caps": [{
                    "scope": "day", "cap_usd": 5.0, "spent_usd": 1.25, "uncertain_usd": 0.0, "reserved_usd": 0.0,
                    "overshoot_usd": 0.0, "reached": null
                }],
                "providers": [{
                    "provider": "claude", "simulated": false, "out_of_service": null, "draining": false, "up": true,
                    "in_flight": 3, "concurrency": 10, "queued": 12, "calls": 100, "throttled": 2,
                    "limit": { "model": null, "limit": "requests", "per_minute": 600.0, "utilization": 0.5 },
                    "held_for_seconds": 0.0,
                    "targets": [{ "model": "haiku", "breaker": "half_open", "forced_open": false }],
                    "keys_in_cooldown": []
                }]
            }))
            .unwrap(),
        );
        view.set_runs(vec![
            run(3, "holding", json!("quota"), held),
            run(2, "running", Value::Null, progress),
            run(1, "completed", Value::Null, Value::Null),
        ]);
        view.add_event(EventView {
            number: 1,
            at: 0,
            kind: "run_created".to_owned(),
            run: Some(crate::store::RunNumber(3)),
            data: json!({ "pipeline": "email\nq", "by": null }),
        });
        view
    }

    fn lines(view: &View, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        (0..height).map(line).collect()
    }

    #[test]
    fn a_screen_of_80_columns_and_24_lines_shows_everything() {
        let shown = lines(&view(), 80, 24);
        assert_eq!(shown[0], "pointsman 0.1.0 at http://127.0.0.1:7700, up 2h 01m: ready");
        assert_eq!(
            shown[1],
            "2 runs open, 1 holding, 1 paused | 12 queued | today $1.25 | ██░░░░░░ today $1.2"
        );
        assert_eq!(shown[2], "run    pipeline     state              done    items/s failed cost      left");
        assert_eq!(
            shown[3],
            "3      email        holding: quota     42%     12.3    2      $0.50     1m 15s"
        );
        assert_eq!(
            shown[4],
            "2      email        running            42%     12.3    2      $0.50     1m 15s"
        );
        assert_eq!(shown[5], "1      email        completed");
        let providers = shown.iter().position(|line| line.starts_with("provider ")).unwrap();
        assert_eq!(
            shown[providers - 1],
            "run 3: holding (retrying in 4m 00s): a/m: quota: no\u{fffd}[31m credit"
        );
        let provider = &shown[providers + 1];
        for part in ["claude ", "haiku half", " 3/10 ", " 12 ", "████░░░░  50%", " 2"] {
            assert!(provider.contains(part), "{part:?}: {provider:?}");
        }
        let events = shown.iter().position(|line| line == "events (UTC)").unwrap();
        assert_eq!(shown[events + 1], "00:00:00 run created (run 3) pipeline email q");
        assert_eq!(shown[23], "q quit  j/k select  h hold  r resume  c cancel");
    }

    #[test]
    fn a_screen_of_any_size_is_drawn() {
        let mut view = view();
        for width in [1, 2, 10, 40, 79, 200] {
            for height in [1, 2, 5, 12, 23, 60] {
                assert_eq!(lines(&view, width, height).len(), usize::from(height));
            }
        }
        view.set_runs(Vec::new());
        view.status = None;
        let shown = lines(&view, 80, 24);
        assert_eq!(shown[0], "pointsman at http://127.0.0.1:7700");
        assert!(shown.contains(&"no runs".to_owned()));
    }

    #[test]
    fn without_colors_no_cell_has_one() {
        let mut view = view();
        for has_color in [true, false] {
            view.has_color = has_color;
            let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
            terminal.draw(|frame| draw(frame, &view)).unwrap();
            let cells = &terminal.backend().buffer().content;
            assert_eq!(cells.iter().any(|cell| cell.fg != Color::Reset), has_color);
            assert!(cells.iter().any(|cell| cell.modifier.contains(Modifier::REVERSED)), "the selected run");
        }
    }

    #[test]
    fn a_daemon_that_does_not_answer_is_shown_with_its_last_state() {
        let mut view = view();
        view.problem = Some("connection refused".to_owned());
        view.cancel_asked = view.selected;
        let shown = lines(&view, 100, 24);
        assert!(shown[0].ends_with("up 2h 01m: no answer: connection refused"), "{}", shown[0]);
        assert!(shown[3].starts_with("3 "));
        assert!(shown[23].starts_with("cancel run 3?"), "{}", shown[23]);
    }

    #[test]
    fn the_selected_run_is_visible_in_a_long_list() {
        let mut view = view();
        let one = view.runs[2].clone();
        let many =
            (1..=90).rev().map(|number| RunView { run: crate::store::RunNumber(number), ..one.clone() });
        view.set_runs(many.collect());
        view.select(usize::MAX);
        let shown = lines(&view, 80, 24);
        assert!(shown.iter().any(|line| line.starts_with("1      email")), "{shown:?}");
    }
}
