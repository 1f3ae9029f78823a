//! Simulated runs in steps of a tenth of a second, and the forecasts of them.

use std::collections::VecDeque;

use super::*;

const TICK: f64 = 0.1;

/// A simulated run.
struct SimulatedRun {
    items: u64,
    /// Requests of an item, one after the other.
    steps: u64,
    window: u64,
    /// Calls that may be sent per second, and at once.
    rate: fn(f64) -> f64,
    max_in_flight: usize,
    /// Seconds that a call takes, by its number.
    call_seconds: fn(u64) -> f64,
    /// Interval in which no call ends.
    outage: Option<(f64, f64)>,
}

const DEFAULT_RUN: SimulatedRun = SimulatedRun {
    items: 400,
    steps: 1,
    window: 60,
    rate: |_| f64::MAX,
    max_in_flight: 30,
    call_seconds: |_| 1.5,
    outage: None,
};

/// The forecasts, and the real end of the run.
struct SimulationResult {
    /// Time, forecast of the remaining seconds, and forecast of the total cost.
    forecasts: Vec<(f64, Option<f64>, Option<f64>)>,
    seconds: f64,
    dollars: f64,
    /// Half a call, which is not predictable at the end.
    tolerance: f64,
}

impl SimulatedRun {
    fn simulate(&self) -> SimulationResult {
        let mut forecast = Forecast::default();
        let mut work = WorkCounts { requests_per_item: Some(self.steps), ..WorkCounts::default() };
        let mut queue: VecDeque<u64> = VecDeque::new();
        let mut in_flight: Vec<(f64, u64)> = Vec::new();
        let mut requests_of_item = vec![0; self.items as usize];
        let mut started = 0;
        let mut sent = 0;
        let mut send_allowance = 1.0;
        let mut now = 0.0;
        let mut forecasts = Vec::new();
        while work.finished < self.items {
            now += TICK;
            while work.in_flight < self.window && started < self.items {
                queue.push_back(started);
                started += 1;
                work.in_flight += 1;
            }
            send_allowance = (send_allowance + (self.rate)(now) * TICK).min((self.rate)(now).max(1.0));
            while send_allowance >= 1.0 && in_flight.len() < self.max_in_flight {
                let Some(item) = queue.pop_front() else { break };
                in_flight.push((now + (self.call_seconds)(sent), item));
                sent += 1;
                send_allowance -= 1.0;
            }
            if self.outage.is_none_or(|(from, to)| now < from || now > to) {
                let (ended, remaining): (Vec<_>, Vec<_>) =
                    in_flight.into_iter().partition(|(at, _)| *at <= now);
                in_flight = remaining;
                for (_, item) in ended {
                    requests_of_item[item as usize] += 1;
                    work.requests += 1;
                    if requests_of_item[item as usize] < self.steps {
                        queue.push_back(item);
                    } else {
                        work.finished += 1;
                        work.in_flight -= 1;
                        work.requests_of_finished += self.steps;
                    }
                }
            }
            work.unread_items = Some((self.items - started) as f64);
            work.call_seconds = if work.requests > 0 { (self.call_seconds)(0) } else { 0.0 };
            forecast.update(now, &work);
            let dollars = cost(&work, work.requests as f64 * 0.01, work.requests_of_finished as f64 * 0.01);
            forecasts.push((now, forecast.seconds_left(now, &work), dollars));
        }
        SimulationResult {
            forecasts,
            seconds: now,
            dollars: work.requests as f64 * 0.01,
            tolerance: (self.call_seconds)(5) / 2.0,
        }
    }
}

impl SimulationResult {
    /// Asserts that from `from` on everything is forecast to within a fifth, and at the end to within half a
    /// call or three seconds.
    fn assert_accurate_from(&self, from: f64) {
        let mut times = 0;
        let mut costs = 0;
        for (at, seconds_left, dollars) in &self.forecasts {
            let real = self.seconds - at;
            if *at >= from {
                let seconds_left = seconds_left.unwrap_or_else(|| panic!("no forecast at {at:.1} s"));
                assert!(
                    (seconds_left - real).abs() <= (real * 0.2).max(self.tolerance.max(3.0)),
                    "{seconds_left:.1} s forecast at {at:.1} s, {real:.1} s real"
                );
                times += 1;
            }
            if let Some(dollars) = dollars {
                assert!((dollars / self.dollars - 1.0).abs() < 0.2, "${dollars} forecast at {at:.1} s");
                costs += 1;
            }
        }
        assert!(times > 50 && costs > 50, "{times} and {costs} forecasts");
    }

    fn forecasts_between(
        &self,
        from: f64,
        to: f64,
    ) -> impl Iterator<Item = &(f64, Option<f64>, Option<f64>)> {
        self.forecasts.iter().filter(move |(at, ..)| (from..to).contains(at))
    }
}

#[test]
fn a_rate_limited_run_is_forecast_although_most_items_only_wait() {
    SimulatedRun { rate: |_| 10.0, max_in_flight: 500, ..DEFAULT_RUN }.simulate().assert_accurate_from(6.0);
}

#[test]
fn a_rate_limited_run_of_three_steps_is_forecast_before_its_first_item_has_finished() {
    let run =
        SimulatedRun { rate: |_| 10.0, max_in_flight: 500, steps: 3, items: 200, ..DEFAULT_RUN }.simulate();
    run.assert_accurate_from(6.0);
    assert!(
        run.forecasts_between(0.0, 10.0).all(|(.., dollars)| dollars.is_none()),
        "a cost forecast without a finished item"
    );
}

#[test]
fn a_run_without_a_rate_limit_is_forecast_from_the_duration_of_its_calls() {
    SimulatedRun { items: 600, ..DEFAULT_RUN }.simulate().assert_accurate_from(8.0);
    SimulatedRun { items: 600, call_seconds: |call| 0.5 + (call * 7 % 20) as f64 / 10.0, ..DEFAULT_RUN }
        .simulate()
        .assert_accurate_from(8.0);
}

#[test]
fn long_calls_with_low_concurrency_are_forecast_after_a_few_of_them() {
    let run = SimulatedRun {
        items: 60,
        max_in_flight: 4,
        window: 8,
        call_seconds: |call| 15.0 + (call % 11) as f64,
        ..DEFAULT_RUN
    };
    run.simulate().assert_accurate_from(90.0);
}

#[test]
fn a_run_that_gets_faster_is_forecast_after_it_did() {
    let slow_start = |now: f64| if now < 20.0 { 1.0 + now / 2.0 } else { 11.0 };
    SimulatedRun { items: 1_000, rate: slow_start, max_in_flight: 500, ..DEFAULT_RUN }
        .simulate()
        .assert_accurate_from(34.0);
}

#[test]
fn there_is_no_forecast_in_an_outage_and_an_accurate_one_after_it() {
    let outage = Some((30.0, 60.0));
    let run =
        SimulatedRun { items: 800, rate: |_| 10.0, max_in_flight: 100, outage, ..DEFAULT_RUN }.simulate();
    assert!(run.forecasts_between(10.0, 30.0).all(|(_, sent, _)| sent.is_some()));
    assert!(run.forecasts_between(40.0, 60.0).all(|(_, sent, _)| sent.is_none()), "a forecast in the outage");
    // Calls that were sent before the outage end at once.
    run.assert_accurate_from(75.0);
}

#[test]
fn there_is_no_forecast_from_few_samples_or_for_an_unknown_number_of_items() {
    let mut forecast = Forecast::default();
    let mut work = WorkCounts { in_flight: 9, unread_items: Some(9.0), ..WorkCounts::default() };
    for second in 1..=60_u64 {
        work.requests = second / 6;
        work.requests_of_finished = second / 6;
        work.finished = second / 6;
        forecast.update(second as f64, &work);
        assert_eq!(forecast.seconds_left(second as f64, &work), None, "{second}");
    }
    assert_eq!(cost(&work, 1.0, 1.0), Some(2.8));
    assert_eq!(cost(&WorkCounts { finished: 9, ..work }, 1.0, 1.0), None);
    work.unread_items = None;
    assert_eq!((forecast.seconds_left(60.0, &work), cost(&work, 1.0, 1.0)), (None, None));
}

#[test]
fn a_long_run_keeps_few_samples() {
    let mut forecast = Forecast::default();
    let mut work = WorkCounts { requests_per_item: Some(1), ..WorkCounts::default() };
    for tick in 0..20_000_u64 {
        work.requests = tick;
        work.requests_of_finished = tick;
        work.finished = tick;
        work.call_seconds = 30.0;
        forecast.update(tick as f64 * TICK, &work);
    }
    assert!(forecast.samples.len() < 300, "{}", forecast.samples.len());
}
