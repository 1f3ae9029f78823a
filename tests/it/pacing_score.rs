//! `examples/pacing`: what its rows say is accepted, and its goals judge as they are written.

use pointsman::Config;
use pointsman::simulator::{Settings, Vendor};

use super::stage::start;

#[expect(dead_code, reason = "the program plays them; here they are only read")]
#[path = "../../examples/pacing/rows.rs"]
mod rows;
#[expect(dead_code, reason = "the program measures; here only the judge is asked")]
#[path = "../../examples/pacing/score.rs"]
mod score;

use rows::ROWS;
use score::{ANYTHING, Goal, Goes, Measured};

#[test]
fn every_row_is_accepted_as_it_is_written() {
    for row in &ROWS {
        toml::from_str::<Settings>(row.simulator).unwrap_or_else(|error| panic!("row {}: {error}", row.name));
        let url = if row.vendor == Vendor::OpenAi { "http://127.0.0.1:9/v1" } else { "http://127.0.0.1:9" };
        let text = row.config.replace("{first}", url).replace("{second}", url);
        Config::parse("config.toml", &text, &|_| None)
            .unwrap_or_else(|faults| panic!("row {}: {faults}", row.name));
        let pipeline = format!("name = 'pacing'\n[[step]]\nname = 'answer'\n{}", row.step);
        start(&text).parse_pipeline(&pipeline).unwrap_or_else(|faults| panic!("row {}: {faults}", row.name));
    }
}

#[test]
fn a_goal_is_met_at_its_bound_and_missed_beyond_it_and_where_nothing_was_measured() {
    let goal = Goal { used: Some(97.0), refused: Some(0.5), lost: Some(0), ..ANYTHING };
    let measured = Measured { used: Some(97.0), refused: Some(0.5), ..Measured::default() };
    assert!(goal.is_met_by(&measured));
    assert!(!goal.is_met_by(&Measured { used: Some(96.9), ..measured }));
    assert!(!goal.is_met_by(&Measured { refused: Some(0.6), ..measured }));
    assert!(!goal.is_met_by(&Measured { lost: 1, ..measured }));
    assert!(!goal.is_met_by(&Measured { refused: None, ..measured }));
    let soon = Goal { seconds: Some(30.0), calls: Some(5), ..ANYTHING };
    assert!(!soon.is_met_by(&Measured { seconds: Some(f64::INFINITY), ..measured }));
    assert!(!soon.is_met_by(&Measured { seconds: Some(1.0), calls: 6, ..measured }));
}

#[test]
fn several_goes_show_their_median_and_their_range_and_the_worse_of_two() {
    let go = |used, seconds, slowest| Measured { used, seconds, slowest, ..Measured::default() };
    let three = Goes::new(vec![
        go(Some(90.0), Some(9.0), None),
        go(Some(99.0), Some(f64::INFINITY), None),
        go(Some(95.0), Some(5.0), None),
    ]);
    let median = three.median();
    assert_eq!((median.used, median.seconds, median.slowest), (Some(95.0), Some(9.0), None));
    let range = "    of 3 goes: used 90.0% to 99.0%, calls 0 to 0, lost 0 to 0, seconds 5.0 to inf";
    assert_eq!(three.range().as_deref(), Some(range));
    let two = Goes::new(vec![go(Some(90.0), None, Some(1.0)), go(Some(80.0), None, Some(120.0))]);
    assert_eq!((two.median().used, two.median().slowest), (Some(80.0), Some(120.0)));
    assert_eq!(Goes::new(vec![go(None, None, None)]).range(), None);
}
