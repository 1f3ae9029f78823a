//! Made-up runs, played in steps of a tenth of a second, and what is foretold of them.

use std::collections::VecDeque;

use super::*;

const TICK: f64 = 0.1;

/// A run as it may go.
struct Play {
    items: u64,
    /// Questions of an item, one after the other.
    steps: u64,
    window: u64,
    /// Calls that may leave in a second, and at once.
    pace: fn(f64) -> f64,
    out_at_once: usize,
    /// Seconds that a call takes, by its number.
    takes: fn(u64) -> f64,
    /// From when until when no call comes back.
    outage: Option<(f64, f64)>,
}

const PLAY: Play = Play {
    items: 400,
    steps: 1,
    window: 60,
    pace: |_| f64::MAX,
    out_at_once: 30,
    takes: |_| 1.5,
    outage: None,
};

/// What was foretold, and when the run was over.
struct Played {
    /// At what time, how many seconds were to come, and how much the whole was to cost.
    told: Vec<(f64, Option<f64>, Option<f64>)>,
    seconds: f64,
    dollars: f64,
    /// Half of a call, which nobody can tell at the end.
    slack: f64,
}

impl Play {
    fn play(&self) -> Played {
        let (mut forecast, mut work) =
            (Forecast::default(), Work { steps: Some(self.steps), ..Work::default() });
        let (mut queue, mut out): (VecDeque<u64>, Vec<(f64, u64)>) = (VecDeque::new(), Vec::new());
        let mut asked = vec![0; self.items as usize];
        let (mut begun, mut left, mut may_leave, mut now) = (0, 0, 1.0, 0.0);
        let mut told = Vec::new();
        while work.ended < self.items {
            now += TICK;
            while work.in_flight < self.window && begun < self.items {
                queue.push_back(begun);
                (begun, work.in_flight) = (begun + 1, work.in_flight + 1);
            }
            may_leave = (may_leave + (self.pace)(now) * TICK).min((self.pace)(now).max(1.0));
            while may_leave >= 1.0 && out.len() < self.out_at_once {
                let Some(item) = queue.pop_front() else { break };
                out.push((now + (self.takes)(left), item));
                (left, may_leave) = (left + 1, may_leave - 1.0);
            }
            if self.outage.is_none_or(|(from, to)| now < from || now > to) {
                let (back, still): (Vec<_>, Vec<_>) = out.into_iter().partition(|(at, _)| *at <= now);
                out = still;
                for (_, item) in back {
                    asked[item as usize] += 1;
                    work.questions += 1;
                    if asked[item as usize] < self.steps {
                        queue.push_back(item);
                    } else {
                        (work.ended, work.in_flight) = (work.ended + 1, work.in_flight - 1);
                        work.of_ended += self.steps;
                    }
                }
            }
            work.to_come = Some((self.items - begun) as f64);
            work.call_seconds = if work.questions > 0 { (self.takes)(0) } else { 0.0 };
            forecast.learn(now, &work);
            let dollars = cost(&work, work.questions as f64 * 0.01, work.of_ended as f64 * 0.01);
            told.push((now, forecast.seconds_left(now, &work), dollars));
        }
        Played { told, seconds: now, dollars: work.questions as f64 * 0.01, slack: (self.takes)(5) / 2.0 }
    }
}

impl Played {
    /// Asserts that from `from` on everything is foretold, to a fifth, and to half a call or three seconds at the end.
    fn is_right_from(&self, from: f64) {
        let (mut times, mut costs) = (0, 0);
        for (at, left, dollars) in &self.told {
            let real = self.seconds - at;
            if *at >= from {
                let left = left.unwrap_or_else(|| panic!("nothing is told after {at:.1} s"));
                assert!(
                    (left - real).abs() <= (real * 0.2).max(self.slack.max(3.0)),
                    "{left:.1} s told at {at:.1} s, {real:.1} s real"
                );
                times += 1;
            }
            if let Some(dollars) = dollars {
                assert!((dollars / self.dollars - 1.0).abs() < 0.2, "${dollars} told at {at:.1} s");
                costs += 1;
            }
        }
        assert!(times > 50 && costs > 50, "{times} and {costs} were told");
    }

    fn told_between(&self, from: f64, to: f64) -> impl Iterator<Item = &(f64, Option<f64>, Option<f64>)> {
        self.told.iter().filter(move |(at, ..)| (from..to).contains(at))
    }
}

#[test]
fn a_paced_run_is_foretold_though_most_items_only_wait() {
    Play { pace: |_| 10.0, out_at_once: 500, ..PLAY }.play().is_right_from(6.0);
}

#[test]
fn a_paced_run_of_three_steps_is_foretold_before_its_first_item_has_ended() {
    let run = Play { pace: |_| 10.0, out_at_once: 500, steps: 3, items: 200, ..PLAY }.play();
    run.is_right_from(6.0);
    assert!(run.told_between(0.0, 10.0).all(|(.., dollars)| dollars.is_none()), "a price without an item");
}

#[test]
fn a_run_without_a_limit_is_foretold_in_the_rhythm_of_its_calls() {
    Play { items: 600, ..PLAY }.play().is_right_from(8.0);
    Play { items: 600, takes: |call| 0.5 + (call * 7 % 20) as f64 / 10.0, ..PLAY }.play().is_right_from(8.0);
}

#[test]
fn long_calls_few_at_once_are_foretold_after_a_few_of_them() {
    let run = Play { items: 60, out_at_once: 4, window: 8, takes: |call| 15.0 + (call % 11) as f64, ..PLAY };
    run.play().is_right_from(90.0);
}

#[test]
fn a_run_that_gets_faster_is_foretold_once_it_has() {
    let slow_start = |now: f64| if now < 20.0 { 1.0 + now / 2.0 } else { 11.0 };
    Play { items: 1_000, pace: slow_start, out_at_once: 500, ..PLAY }.play().is_right_from(34.0);
}

#[test]
fn in_an_outage_nothing_is_foretold_and_after_it_what_comes_then() {
    let outage = Some((30.0, 60.0));
    let run = Play { items: 800, pace: |_| 10.0, out_at_once: 100, outage, ..PLAY }.play();
    assert!(run.told_between(10.0, 30.0).all(|(_, left, _)| left.is_some()));
    assert!(run.told_between(40.0, 60.0).all(|(_, left, _)| left.is_none()), "a guess in the outage");
    // What had left before comes back at once.
    run.is_right_from(75.0);
}

#[test]
fn nothing_is_foretold_from_little_or_of_an_end_that_nobody_knows() {
    let (mut forecast, mut work) =
        (Forecast::default(), Work { in_flight: 9, to_come: Some(9.0), ..Work::default() });
    for second in 1..=60_u64 {
        (work.questions, work.of_ended, work.ended) = (second / 6, second / 6, second / 6);
        forecast.learn(second as f64, &work);
        assert_eq!(forecast.seconds_left(second as f64, &work), None, "{second}");
    }
    assert_eq!(cost(&work, 1.0, 1.0), Some(2.8));
    assert_eq!(cost(&Work { ended: 9, ..work }, 1.0, 1.0), None);
    work.to_come = None;
    assert_eq!((forecast.seconds_left(60.0, &work), cost(&work, 1.0, 1.0)), (None, None));
}

#[test]
fn a_long_run_keeps_a_short_memory() {
    let (mut forecast, mut work) = (Forecast::default(), Work { steps: Some(1), ..Work::default() });
    for tick in 0..20_000_u64 {
        (work.questions, work.of_ended, work.ended) = (tick, tick, tick);
        work.call_seconds = 30.0;
        forecast.learn(tick as f64 * TICK, &work);
    }
    assert!(forecast.samples.len() < 300, "{}", forecast.samples.len());
}
