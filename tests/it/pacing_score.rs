//! Tests of `examples/pacing`: the configurations of its rows, and the evaluation of goals.

use pointsman::Config;
use pointsman::simulator::{Settings, Vendor};

use super::support::start_pointsman;

#[expect(dead_code, reason = "the example measures the rows; the tests only read them")]
#[path = "../../examples/pacing/rows.rs"]
mod rows;
#[expect(dead_code, reason = "the example measures; the tests only evaluate goals")]
#[path = "../../examples/pacing/score.rs"]
mod score;

use rows::ROWS;
use score::{Goal, Measured, NO_GOAL, Repetitions};

#[test]
fn the_configuration_of_each_row_is_valid() {
    for row in &ROWS {
        toml::from_str::<Settings>(row.simulator).unwrap_or_else(|error| panic!("row {}: {error}", row.name));
        let url = if row.vendor == Vendor::OpenAi { "http://127.0.0.1:9/v1" } else { "http://127.0.0.1:9" };
        let text = row.config.replace("{first}", url).replace("{second}", url);
        Config::parse("config.toml", &text, &|_| None)
            .unwrap_or_else(|diagnostics| panic!("row {}: {diagnostics}", row.name));
        let pipeline = format!("name = 'pacing'\n[[step]]\nname = 'answer'\n{}", row.step);
        start_pointsman(&text)
            .parse_pipeline(&pipeline)
            .unwrap_or_else(|diagnostics| panic!("row {}: {diagnostics}", row.name));
    }
}

#[test]
fn a_goal_is_met_at_its_bound_and_missed_beyond_it_or_without_a_measurement() {
    let goal = Goal { used: Some(97.0), refused: Some(0.5), lost: Some(0), ..NO_GOAL };
    let measured = Measured { used: Some(97.0), refused: Some(0.5), ..Measured::default() };
    assert!(goal.is_met_by(&measured));
    assert!(!goal.is_met_by(&Measured { used: Some(96.9), ..measured }));
    assert!(!goal.is_met_by(&Measured { refused: Some(0.6), ..measured }));
    assert!(!goal.is_met_by(&Measured { lost: 1, ..measured }));
    assert!(!goal.is_met_by(&Measured { refused: None, ..measured }));
    let fast = Goal { seconds: Some(30.0), calls: Some(5), ..NO_GOAL };
    assert!(!fast.is_met_by(&Measured { seconds: Some(f64::INFINITY), ..measured }));
    assert!(!fast.is_met_by(&Measured { seconds: Some(1.0), calls: 6, ..measured }));
}

#[test]
fn repetitions_have_a_median_and_a_range() {
    let measured = |used, seconds, slowest| Measured { used, seconds, slowest, ..Measured::default() };
    let three = Repetitions::new(vec![
        measured(Some(90.0), Some(9.0), None),
        measured(Some(99.0), Some(f64::INFINITY), None),
        measured(Some(95.0), Some(5.0), None),
    ]);
    let median = three.median();
    assert_eq!((median.used, median.seconds, median.slowest), (Some(95.0), Some(9.0), None));
    let range = "    of 3 repetitions: used 90.0% to 99.0%, calls 0 to 0, lost 0 to 0, seconds 5.0 to inf";
    assert_eq!(three.range().as_deref(), Some(range));
    let two = Repetitions::new(vec![
        measured(Some(90.0), None, Some(1.0)),
        measured(Some(80.0), None, Some(120.0)),
    ]);
    assert_eq!((two.median().used, two.median().slowest), (Some(80.0), Some(120.0)));
    assert_eq!(Repetitions::new(vec![measured(None, None, None)]).range(), None);
}
