//! Everything that can go wrong, in every format, with and without a second lane: what it is taken for, how
//! often it is asked again and where, how long that takes, and how it ends.
//!
//! One question at a time is measured; what many failures at once lead to is told in `failover`.

mod cell;
mod pulse;
mod rows;
mod table;
mod trouble;

use futures_util::{StreamExt, stream};
use pointsman::simulator::{FaultKind, Settings};

use self::cell::{Cell, Measured};
use self::pulse::Pulse;
use self::rows::Row;
use self::trouble::Stage;
use super::stage::*;

/// As many attempts and rounds as by default, with short waits between.
const RETRY: &str = "[retry]\nbase = \"10ms\"\nmax = \"40ms\"\n";

/// Cells measured at once: enough that their waits pass together, too few for a machine to be late for them.
const AT_ONCE: usize = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_fault_is_what_its_row_and_the_documentation_say() {
    let rows = rows::all();
    let (mut measured, mut spoilt) = (Vec::new(), Vec::new());
    let mut cells = cells(&rows);
    // On a machine that is late for everything timeouts strike where none should. Only there is anything
    // measured again.
    for _ in 0..3 {
        let (these, on_time) = measure(&rows, &cells).await;
        let is_spoilt = |(_, complaint): &(Measured, Option<String>)| complaint.is_some();
        let (wrong, right): (Vec<_>, Vec<_>) = these.into_iter().partition(is_spoilt);
        measured.extend(right.into_iter().map(|(measured, _)| measured));
        cells = wrong.iter().map(|(measured, _)| measured.cell).collect();
        spoilt = wrong.into_iter().filter_map(|(_, complaint)| complaint).collect();
        if on_time || spoilt.is_empty() {
            break;
        }
    }
    assert!(spoilt.is_empty(), "\n{}\n", spoilt.join("\n"));
    table::compare(&rows, &measured);
}

/// Measures these cells, each at a provider of its own. Returns what is wrong with each, and whether the
/// machine was on time meanwhile.
async fn measure(rows: &[Row], cells: &[Cell]) -> (Vec<(Measured, Option<String>)>, bool) {
    let mut stages = Vec::new();
    for row in rows {
        stages.push([Stage::open(&row.trouble, false).await, Stage::open(&row.trouble, true).await]);
    }
    let (healthy, at_rest) = (play(Settings::default()), play(Settings::default()));
    let mut config = RETRY.to_owned() + &provider("pulse", &at_rest, PATIENT);
    for (format, vendor) in FORMATS {
        let more = format!("format = \"{format}\"\n{}", rows::PATIENT);
        config += &provider_at(&format!("good_{format}"), &healthy.base_url(vendor), &more);
    }
    for cell in cells {
        let stage = &stages[cell.row][usize::from(cell.is_once())];
        config += &cell.config(&rows[cell.row], stage.base_url(cell.format));
    }
    let pointsman = start(&(config + "[route.pulse]\nlanes = [\"pulse/m\"]\n"));

    let pulse = Pulse::feel(&pointsman);
    let measuring = cells.iter().map(|cell| cell.measure(&rows[cell.row], &pointsman));
    let measured: Vec<_> = stream::iter(measuring).buffer_unordered(AT_ONCE).collect().await;
    let on_time = pulse.was_on_time();

    let seen = |cell: Cell| stages[cell.row][usize::from(cell.is_once())].seen();
    let told = |cell: Cell| {
        let same = |other: &&Measured| (other.cell.row, other.cell.is_once()) == (cell.row, cell.is_once());
        measured.iter().filter(same).map(|other| other.calls[0]).sum::<usize>()
    };
    // The other side's books: not one call more or less than was told of.
    let miscounted = |cell| {
        let (seen, told) = (seen(cell)?, told(cell));
        let name = &rows[cell.row].name;
        (seen != told).then(|| format!("{name}: {told} calls were told of, and {seen} seen"))
    };
    let wrong = |one: &Measured| one.complaint(&rows[one.cell.row]).or_else(|| miscounted(one.cell));
    let complaints: Vec<_> = measured.iter().map(wrong).collect();
    if on_time {
        let told: usize = measured.iter().map(|one| one.calls[1]).sum();
        assert_eq!(healthy.counts().requests, told as u64);
    }
    (measured.into_iter().zip(complaints).collect(), on_time)
}

/// Returns every cell that is played, those first that take long.
fn cells(rows: &[Row]) -> Vec<Cell> {
    let mut cells = Vec::new();
    for course in 0..4 {
        for (row, played) in rows.iter().enumerate().filter(|(_, row)| row.follows[course].is_some()) {
            let slow = !matches!(played.due, rows::Due::Nothing);
            cells.extend([0, 1, 2].map(|format| (!slow, Cell { row, format, course })));
        }
    }
    cells.sort_by_key(|(fast, _)| *fast);
    cells.into_iter().map(|(_, cell)| cell).collect()
}

#[test]
fn no_fault_is_missing_among_all_of_them() {
    let error = serde_json::from_str::<FaultKind>("\"none\"").unwrap_err().to_string();
    let (_, known) = error.split_once("expected one of ").unwrap();
    assert_eq!(known.split('`').skip(1).step_by(2).count(), FaultKind::ALL.len(), "{known}");
}
