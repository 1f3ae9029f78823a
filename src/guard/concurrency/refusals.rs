//! What objections do to the concurrency of a target: random ones, true overload, and incidents; in virtual time.
//!
//! Each case with answers of 1 s and of 10 s, that take the same time each or scatter as widely as they are long, with
//! their headers early or at their end.

use super::simulated::{Fault, PLAYED, Played, Stage, Work};

/// Concurrency as it is where nothing is configured.
const USUAL: (u32, u32, u32) = (1, 32, 512);

/// How long a target is left to find its level, in seconds for answers of that many seconds.
fn settles_in(seconds: f64) -> u64 {
    300 + (30.0 * seconds) as u64
}

fn kinds() -> [(f64, Played); 4] {
    [
        (1.0, Played { work: Work::Constant(1.0), headers_after: 0.25, ..PLAYED }),
        (1.0, Played { work: Work::Scattered(1.0), headers_after: 1.0, ..PLAYED }),
        (10.0, Played { work: Work::Constant(10.0), headers_after: 1.0, ..PLAYED }),
        (10.0, Played { work: Work::Scattered(10.0), headers_after: 0.25, ..PLAYED }),
    ]
}

/// Returns the share of refused attempts, and the answers a second, of that time.
fn measure(stage: &mut Stage, seconds: u64) -> (f64, f64) {
    let (calls, answered, refused) = (stage.calls, stage.answered, stage.refused);
    stage.run(seconds);
    let share = (stage.refused - refused) as f64 / (stage.calls - calls).max(1) as f64;
    (share, (stage.answered - answered) as f64 / seconds as f64)
}

#[test]
fn faults_at_random_cost_no_more_than_themselves() {
    for (seconds, played) in kinds() {
        for share in [0.01, 0.05] {
            for fault in [Fault::Overloaded, Fault::ServerError, Fault::Silence(2.0 * seconds)] {
                let played = Played { faults: Some((fault, share)), ..played };
                let mut stage = Stage::new(played, USUAL, 1);
                stage.run(settles_in(seconds));
                let (_, done) = measure(&mut stage, 200);
                let lost = match fault {
                    Fault::Silence(lasts) => lasts,
                    Fault::Overloaded | Fault::ServerError => played.refuses_after,
                };
                // All places are in use, and each answer has cost the faults before it.
                let ideal = 512.0 / (seconds + share / (1.0 - share) * lost);
                assert!(done >= 0.9 * ideal, "{done} of {ideal} with {share} of {played:?}");
            }
        }
    }
}

#[test]
fn faults_that_begin_at_random_cost_no_more_than_themselves() {
    for (seconds, played) in kinds() {
        for share in [0.02, 0.05, 0.2] {
            let mut stage = Stage::new(played, USUAL, 2);
            stage.run(settles_in(seconds));
            stage.played.faults = Some((Fault::Overloaded, share));
            stage.run(30 * seconds as u64);
            let (_, done) = measure(&mut stage, 200);
            let ideal = 512.0 / (seconds + share / (1.0 - share) * played.refuses_after);
            assert!(done >= 0.9 * ideal, "{done} of {ideal} with {share} of {played:?}");
        }
    }
}

#[test]
fn a_provider_that_refuses_above_some_is_found_within_a_fifth_with_few_refused() {
    for (seconds, played) in kinds() {
        for level in [40, 300] {
            for around in [0.0, 0.01] {
                let faults = Some((Fault::Overloaded, around));
                let mut stage = Stage::new(Played { refuses_above: level, faults, ..played }, USUAL, 3);
                stage.run(settles_in(seconds));
                let (refused, done) = measure(&mut stage, 300);
                let used = done * seconds / level as f64;
                assert!(
                    refused - around < 0.05,
                    "{refused} refused above {level} of {played:?} with {around}"
                );
                assert!((0.8..1.1).contains(&used), "{used} of {level} used of {played:?} with {around}");
                let limit = stage.run(300);
                let bounds = level as f64 * 0.8..level as f64 * 1.2;
                assert!(bounds.contains(&limit), "{limit} instead of {level} of {played:?}");
            }
        }
    }
}

#[test]
fn a_provider_whose_answers_take_longer_above_some_is_found_within_a_fifth() {
    for (seconds, played) in kinds() {
        let mut stage = Stage::new(Played { workers: 40, ..played }, USUAL, 4);
        stage.run(settles_in(seconds) + 300);
        let (_, done) = measure(&mut stage, 900);
        assert!(done * seconds / 40.0 > 0.8, "{done} answers a second of {played:?}");
        let limit = stage.run(900);
        assert!((32.0..=48.0).contains(&limit), "{limit} instead of 40 of {played:?}");
    }
}

/// What a provider does for a while.
#[derive(Debug, Clone, Copy)]
enum Incident {
    /// It refuses a half.
    Half,
    /// It takes 40 at once.
    Level,
}

#[test]
fn an_incident_of_20_seconds_is_made_up_for_within_10() {
    for (seconds, played) in kinds().into_iter().filter(|(seconds, _)| *seconds < 2.0) {
        let cases =
            [(Incident::Half, 0.0), (Incident::Half, 0.02), (Incident::Half, 0.05), (Incident::Level, 0.0)];
        for (incident, around) in cases {
            {
                let calm = Played { faults: Some((Fault::Overloaded, around)), ..played };
                let mut stage = Stage::new(calm, USUAL, 5);
                stage.run(settles_in(seconds));
                stage.played = match incident {
                    Incident::Half => Played { faults: Some((Fault::Overloaded, 0.5)), ..calm },
                    Incident::Level => Played { refuses_above: 40, ..calm },
                };
                stage.run(20);
                stage.played = calm;
                stage.run(10);
                let limit = stage.concurrency.limit();
                assert!(limit >= 460, "{limit} after {incident:?} of {played:?} with {around} around");
            }
        }
    }
}

#[test]
fn after_an_outage_that_a_breaker_has_seen_it_is_as_before_within_10_seconds() {
    for (seconds, played) in kinds().into_iter().filter(|(_, played)| played.headers_after < 1.0) {
        let mut stage = Stage::new(played, USUAL, 6);
        stage.run(settles_in(seconds));
        stage.played.faults = Some((Fault::Overloaded, 1.0));
        stage.run(20);
        stage.played.faults = None;
        stage.restart();
        stage.run(10);
        assert!(stage.concurrency.limit() >= 460, "{} of {played:?}", stage.concurrency.limit());
    }
}
