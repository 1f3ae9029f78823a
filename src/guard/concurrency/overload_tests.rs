//! Effect of overload responses on the concurrency limit of a target: random ones, real overload, and
//! incidents; in virtual time.
//!
//! Each case runs with answers of 1 s and of 10 s, with constant latency or with a scatter as large as the
//! mean, and with headers early or at the end of the answer.

use super::simulated::{Fault, PROVIDER, SimulatedProvider, Simulation, Work};

/// The default settings.
const DEFAULT_SETTINGS: (u32, u32, u32) = (1, 32, 512);

/// Seconds until the limit of a target settles, for answers of this many seconds.
fn settling_seconds(seconds: f64) -> u64 {
    300 + (30.0 * seconds) as u64
}

fn provider_kinds() -> [(f64, SimulatedProvider); 4] {
    [
        (1.0, SimulatedProvider { work: Work::Constant(1.0), headers_after: 0.25, ..PROVIDER }),
        (1.0, SimulatedProvider { work: Work::Scattered(1.0), headers_after: 1.0, ..PROVIDER }),
        (10.0, SimulatedProvider { work: Work::Constant(10.0), headers_after: 1.0, ..PROVIDER }),
        (10.0, SimulatedProvider { work: Work::Scattered(10.0), headers_after: 0.25, ..PROVIDER }),
    ]
}

/// Returns the share of rejected attempts, and the answers per second, over this time.
fn measure(simulation: &mut Simulation, seconds: u64) -> (f64, f64) {
    let calls = simulation.calls;
    let answered = simulation.answered;
    let rejected = simulation.rejected;
    simulation.run(seconds);
    let share = (simulation.rejected - rejected) as f64 / (simulation.calls - calls).max(1) as f64;
    (share, (simulation.answered - answered) as f64 / seconds as f64)
}

#[test]
fn random_faults_cost_only_the_failed_attempts() {
    for (seconds, provider) in provider_kinds() {
        for share in [0.01, 0.05] {
            for fault in [Fault::Overloaded, Fault::ServerError, Fault::NoResponse(2.0 * seconds)] {
                let provider = SimulatedProvider { faults: Some((fault, share)), ..provider };
                let mut simulation = Simulation::new(provider, DEFAULT_SETTINGS, 1);
                simulation.run(settling_seconds(seconds));
                let (_, done) = measure(&mut simulation, 200);
                let lost = match fault {
                    Fault::NoResponse(lasts) => lasts,
                    Fault::Overloaded | Fault::ServerError => provider.rejects_after,
                };
                // The whole limit is in use, and each answer has cost the faults before it.
                let ideal = 512.0 / (seconds + share / (1.0 - share) * lost);
                assert!(done >= 0.9 * ideal, "{done} of {ideal} with {share} of {provider:?}");
            }
        }
    }
}

#[test]
fn faults_that_begin_later_cost_only_the_failed_attempts() {
    for (seconds, provider) in provider_kinds() {
        for share in [0.02, 0.05, 0.2] {
            let mut simulation = Simulation::new(provider, DEFAULT_SETTINGS, 2);
            simulation.run(settling_seconds(seconds));
            simulation.provider.faults = Some((Fault::Overloaded, share));
            simulation.run(30 * seconds as u64);
            let (_, done) = measure(&mut simulation, 200);
            let ideal = 512.0 / (seconds + share / (1.0 - share) * provider.rejects_after);
            assert!(done >= 0.9 * ideal, "{done} of {ideal} with {share} of {provider:?}");
        }
    }
}

#[test]
fn the_limit_of_a_provider_that_rejects_above_a_level_is_found_within_a_fifth() {
    for (seconds, provider) in provider_kinds() {
        for level in [40, 300] {
            for around in [0.0, 0.01] {
                let faults = Some((Fault::Overloaded, around));
                let mut simulation = Simulation::new(
                    SimulatedProvider { rejects_above: level, faults, ..provider },
                    DEFAULT_SETTINGS,
                    3,
                );
                simulation.run(settling_seconds(seconds));
                let (rejected, done) = measure(&mut simulation, 300);
                let used = done * seconds / level as f64;
                assert!(
                    rejected - around < 0.05,
                    "{rejected} rejected above {level} of {provider:?} with {around}"
                );
                assert!((0.8..1.1).contains(&used), "{used} of {level} used of {provider:?} with {around}");
                let limit = simulation.run(300);
                let bounds = level as f64 * 0.8..level as f64 * 1.2;
                assert!(bounds.contains(&limit), "{limit} instead of {level} of {provider:?}");
            }
        }
    }
}

#[test]
fn the_limit_of_a_provider_that_queues_above_a_level_is_found_within_a_fifth() {
    for (seconds, provider) in provider_kinds() {
        let mut simulation =
            Simulation::new(SimulatedProvider { workers: 40, ..provider }, DEFAULT_SETTINGS, 4);
        simulation.run(settling_seconds(seconds) + 300);
        let (_, done) = measure(&mut simulation, 900);
        assert!(done * seconds / 40.0 > 0.8, "{done} answers a second of {provider:?}");
        let limit = simulation.run(900);
        assert!((32.0..=48.0).contains(&limit), "{limit} instead of 40 of {provider:?}");
    }
}

/// What a provider does during an incident.
#[derive(Debug, Clone, Copy)]
enum Incident {
    /// It rejects half of the attempts.
    Half,
    /// It accepts 40 at once.
    Level,
}

#[test]
fn after_an_incident_of_20_seconds_the_limit_recovers_within_10() {
    for (seconds, provider) in provider_kinds().into_iter().filter(|(seconds, _)| *seconds < 2.0) {
        let cases =
            [(Incident::Half, 0.0), (Incident::Half, 0.02), (Incident::Half, 0.05), (Incident::Level, 0.0)];
        for (incident, around) in cases {
            {
                let calm = SimulatedProvider { faults: Some((Fault::Overloaded, around)), ..provider };
                let mut simulation = Simulation::new(calm, DEFAULT_SETTINGS, 5);
                simulation.run(settling_seconds(seconds));
                simulation.provider = match incident {
                    Incident::Half => SimulatedProvider { faults: Some((Fault::Overloaded, 0.5)), ..calm },
                    Incident::Level => SimulatedProvider { rejects_above: 40, ..calm },
                };
                simulation.run(20);
                simulation.provider = calm;
                simulation.run(10);
                let limit = simulation.concurrency.limit();
                assert!(limit >= 460, "{limit} after {incident:?} of {provider:?} with {around} around");
            }
        }
    }
}

#[test]
fn after_an_outage_detected_by_the_breaker_the_limit_recovers_within_10_seconds() {
    for (seconds, provider) in
        provider_kinds().into_iter().filter(|(_, provider)| provider.headers_after < 1.0)
    {
        let mut simulation = Simulation::new(provider, DEFAULT_SETTINGS, 6);
        simulation.run(settling_seconds(seconds));
        simulation.provider.faults = Some((Fault::Overloaded, 1.0));
        simulation.run(20);
        simulation.provider.faults = None;
        simulation.restart();
        simulation.run(10);
        assert!(simulation.concurrency.limit() >= 460, "{} of {provider:?}", simulation.concurrency.limit());
    }
}
