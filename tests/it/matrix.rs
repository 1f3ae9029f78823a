//! Every failure in every format, with and without a second target, with and without a stream: its class, the number
//! of attempts at each target, the duration, and the result.
//!
//! Each cell measures one request. `failover` tests many simultaneous failures.

mod cell;
mod failure_mode;
mod latency_monitor;
mod rows;
mod stream_reader;
mod table;

use futures_util::{StreamExt, stream};
use pointsman::simulator::{FaultKind, Settings};

use self::cell::{Cell, Delivery, Measurement};
use self::failure_mode::FaultyServer;
use self::latency_monitor::LatencyMonitor;
use self::rows::Row;
use super::support::*;

/// The default numbers of attempts and rounds, with short backoffs.
const RETRY_CONFIG: &str = "[retry]\ninitial_backoff = \"10ms\"\nmax_backoff = \"40ms\"\n";

/// Number of cells that are measured concurrently: enough to overlap their waits, and few enough for a slow
/// machine.
const MAX_CONCURRENT_CELLS: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_failure_is_handled_as_its_row_and_the_documentation_say() {
    let rows = rows::all();
    let mut measured = Vec::new();
    let mut deviations = Vec::new();
    let mut cells = cells(&rows);
    // On a machine that is too slow, unexpected timeouts occur. Only then the wrong cells are measured again.
    for _ in 0..3 {
        let (results, on_time) = measure(&rows, &cells).await;
        let has_deviation = |(_, deviation): &(Measurement, Option<String>)| deviation.is_some();
        let (wrong, right): (Vec<_>, Vec<_>) = results.into_iter().partition(has_deviation);
        measured.extend(right.into_iter().map(|(measured, _)| measured));
        cells = wrong.iter().map(|(measured, _)| measured.cell).collect();
        deviations = wrong.into_iter().filter_map(|(_, deviation)| deviation).collect();
        if on_time || deviations.is_empty() {
            break;
        }
    }
    assert!(deviations.is_empty(), "\n{}\n", deviations.join("\n"));
    table::compare_with_docs(&rows, &measured);
}

/// Measures the cells, each with its own provider. Returns the deviation of each, and whether the machine was
/// fast enough.
async fn measure(rows: &[Row], cells: &[Cell]) -> (Vec<(Measurement, Option<String>)>, bool) {
    let mut servers = Vec::new();
    for row in rows {
        servers.push([
            FaultyServer::start(&row.failure_mode, false).await,
            FaultyServer::start(&row.failure_mode, true).await,
        ]);
    }
    let healthy = start_simulator(Settings::default());
    let probed = start_simulator(Settings::default());
    let mut config = RETRY_CONFIG.to_owned() + &provider_config("latency_probe", &probed, LONG_TIMEOUTS);
    for (format, vendor) in FORMATS {
        let settings = format!("format = \"{format}\"\n{}", rows::LONG_TIMEOUTS);
        config += &provider_config_at(&format!("good_{format}"), &healthy.base_url(vendor), &settings);
    }
    for cell in cells {
        let server = &servers[cell.row][usize::from(cell.fails_once())];
        config += &cell.config(&rows[cell.row], server.base_url(cell.format));
    }
    let pointsman = start_pointsman(&(config + "[route.latency_probe]\ntargets = [\"latency_probe/m\"]\n"));

    let monitor = LatencyMonitor::start(&pointsman);
    let measuring = cells.iter().map(|cell| cell.measure(&rows[cell.row], &pointsman));
    let measured: Vec<_> = stream::iter(measuring).buffer_unordered(MAX_CONCURRENT_CELLS).collect().await;
    let on_time = monitor.was_on_time();

    let received_calls = |cell: Cell| servers[cell.row][usize::from(cell.fails_once())].request_count();
    let reported_calls = |cell: Cell| {
        let is_same =
            |other: &&Measurement| (other.cell.row, other.cell.fails_once()) == (cell.row, cell.fails_once());
        measured.iter().filter(is_same).map(|other| other.calls[0]).sum::<usize>()
    };
    // The server has received exactly the reported calls.
    let miscounted = |cell| {
        let received = received_calls(cell)?;
        let reported = reported_calls(cell);
        let name = &rows[cell.row].name;
        (received != reported)
            .then(|| format!("{name}: {reported} calls were reported, and {received} received"))
    };
    let deviation_of =
        |one: &Measurement| one.deviation(&rows[one.cell.row]).or_else(|| miscounted(one.cell));
    let deviations: Vec<_> = measured.iter().map(deviation_of).collect();
    if on_time {
        let reported: usize = measured.iter().map(|one| one.calls[1]).sum();
        assert_eq!(healthy.counts().requests, reported as u64);
    }
    (measured.into_iter().zip(deviations).collect(), on_time)
}

/// Returns every cell that is measured, the slow ones first.
fn cells(rows: &[Row]) -> Vec<Cell> {
    let mut cells = Vec::new();
    let scenarios = 0..4;
    let variants = scenarios.flat_map(|scenario| Delivery::ALL.map(|delivery| (scenario, delivery)));
    for (scenario, delivery) in variants {
        let is_measured = |row: &Row| row.expected_attempts(scenario, delivery).is_some();
        for (row, measured_row) in rows.iter().enumerate().filter(|(_, row)| is_measured(row)) {
            let slow = !matches!(measured_row.expected_wait, rows::ExpectedWait::Zero);
            let formats = 0..FORMATS.len();
            cells.extend(formats.map(|format| (!slow, Cell { row, format, scenario, delivery })));
        }
    }
    cells.sort_by_key(|(fast, _)| *fast);
    cells.into_iter().map(|(_, cell)| cell).collect()
}

#[test]
fn fault_kind_all_lists_every_fault() {
    let error = serde_json::from_str::<FaultKind>("\"none\"").unwrap_err().to_string();
    let (_, known) = error.split_once("expected one of ").unwrap();
    assert_eq!(known.split('`').skip(1).step_by(2).count(), FaultKind::ALL.len(), "{known}");
}
