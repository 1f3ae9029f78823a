//! Charts of the last hour, drawn on the server. Each has a sentence and a table with the same content.

use std::fmt::Write;

use maud::{Markup, html};

use crate::daemon::HistorySample;

use super::shown;

/// The width of a chart in its own units: one for each sample of an hour.
const WIDTH: usize = 360;

/// The height of a chart in its own units.
const HEIGHT: f64 = 80.0;

/// An hour in milliseconds.
const HOUR: i64 = 3_600_000;

/// How many samples a row of the table has: those of five minutes.
const SAMPLES_PER_ROW: usize = 30;

/// A line of a chart.
struct Series {
    name: &'static str,
    /// The class that gives it its pattern and its colour.
    class: &'static str,
    values: Vec<Option<f64>>,
}

/// A chart.
struct Chart<'s> {
    id: &'static str,
    title: &'static str,
    series: [Series; 2],
    /// Writes a value with its unit.
    unit: fn(f64) -> String,
    samples: &'s [HistorySample],
}

/// Shows the charts of the last hour.
pub(super) fn charts(samples: &[HistorySample]) -> Markup {
    let series = |name, class, value: fn(&HistorySample) -> Option<f64>| Series {
        name,
        class,
        values: samples.iter().map(value).collect(),
    };
    let throughput = Chart {
        id: "throughput",
        title: "Throughput",
        series: [
            series("items", "first", |sample| Some(sample.items_per_second)),
            series("requests", "second", |sample| Some(sample.requests_per_second)),
        ],
        unit: |value| format!("{}/s", shown::decimal(value)),
        samples,
    };
    let latency = Chart {
        id: "latency",
        title: "Duration of attempts",
        series: [
            series("median", "first", |sample| sample.p50_seconds),
            series("95th percentile", "second", |sample| sample.p95_seconds),
        ],
        unit: shown::seconds,
        samples,
    };
    html! {
        @if samples.is_empty() {
            p { "There are no samples yet. The first comes after ten seconds." }
        } @else {
            div .charts { (throughput.show()) (latency.show()) }
        }
    }
}

impl Chart<'_> {
    fn show(&self) -> Markup {
        let highest = self.highest();
        // The left edge is an hour before the last sample, however many samples there are.
        let start = self.samples.last().map_or(String::new(), |sample| shown::clock_time(sample.at - HOUR));
        let end = self.samples.last().map_or(String::new(), |sample| shown::clock_time(sample.at));
        html! {
            figure .chart {
                figcaption {
                    h3 { (self.title) }
                    @for series in &self.series {
                        span .legend {
                            svg .key aria-hidden="true" viewBox="0 0 24 8" {
                                line class=(series.class) x1="0" x2="24" y1="4" y2="4" {}
                            }
                            (series.name) ": " (self.present(series))
                        }
                    }
                }
                svg role="img" aria-label=(self.sentence()) viewBox={ "0 0 " (WIDTH) " " (HEIGHT) }
                    preserveAspectRatio="none" {
                    @for series in &self.series {
                        @for points in lines(&series.values, highest) {
                            polyline class=(series.class) points=(points) {}
                        }
                    }
                }
                p .axis aria-hidden="true" {
                    span { (start) }
                    span { "0 to " ((self.unit)(highest)) }
                    span { (end) " UTC" }
                }
                details id={ (self.id) "-values" } {
                    summary id={ (self.id) "-summary" } { "Values of " (self.title.to_lowercase()) }
                    (self.table())
                }
            }
        }
    }

    fn highest(&self) -> f64 {
        let values = self.series.iter().flat_map(|series| &series.values).flatten();
        values.copied().fold(0.0, f64::max)
    }

    fn present(&self, series: &Series) -> String {
        match series.values.last().copied().flatten() {
            Some(value) => (self.unit)(value),
            None => "none".to_owned(),
        }
    }

    /// Says what the chart shows.
    fn sentence(&self) -> String {
        let mut sentence = format!("{} in the last hour.", self.title);
        for series in &self.series {
            let highest = series.values.iter().flatten().copied().fold(0.0, f64::max);
            // Writing to a string cannot fail.
            let _ = write!(
                sentence,
                " {}: now {}, at most {}.",
                series.name,
                self.present(series),
                (self.unit)(highest)
            );
        }
        sentence
    }

    /// Shows the means of five minutes each, the latest first.
    fn table(&self) -> Markup {
        let rows: Vec<(usize, &[HistorySample])> = self.samples.chunks(SAMPLES_PER_ROW).enumerate().collect();
        html! {
            table {
                caption .hidden { (self.title) ", means of five minutes" }
                thead {
                    tr {
                        th scope="col" { "From, UTC" }
                        @for series in &self.series { th scope="col" { (series.name) } }
                    }
                }
                tbody {
                    @for (index, row) in rows.iter().rev() {
                        tr {
                            th scope="row" { (row.first().map_or(String::new(), |sample| shown::clock_time(sample.at))) }
                            @for series in &self.series {
                                td { (self.mean(series, index * SAMPLES_PER_ROW)) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn mean(&self, series: &Series, first: usize) -> String {
        let values: Vec<f64> =
            series.values.iter().skip(first).take(SAMPLES_PER_ROW).flatten().copied().collect();
        if values.is_empty() {
            return "none".to_owned();
        }
        (self.unit)(values.iter().sum::<f64>() / values.len() as f64)
    }
}

/// Returns the points of a line for each sequence of values without a gap. The last value is at the right edge.
fn lines(values: &[Option<f64>], highest: f64) -> Vec<String> {
    let offset = WIDTH.saturating_sub(values.len());
    let scale = if highest > 0.0 { (HEIGHT - 2.0) / highest } else { 0.0 };
    let mut lines = Vec::new();
    let mut line = String::new();
    for (index, value) in values.iter().enumerate() {
        match value {
            Some(value) => {
                let x = (offset + index) as f64;
                let y = HEIGHT - 1.0 - value * scale;
                // Writing to a string cannot fail. A single point is a short line, so that it can be seen.
                let _ = write!(line, "{x:.0},{y:.1} {:.0},{y:.1} ", x + 1.0);
            }
            None if line.is_empty() => {}
            None => lines.push(std::mem::take(&mut line)),
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_ends_at_the_right_edge_and_has_gaps() {
        let shown = lines(&[Some(1.0), None, Some(2.0)], 2.0);
        assert_eq!(shown, ["357,40.0 358,40.0 ", "359,1.0 360,1.0 "]);
        assert_eq!(lines(&[Some(0.0)], 0.0), ["359,79.0 360,79.0 "]);
        assert!(lines(&[None], 1.0).is_empty());
    }
}
