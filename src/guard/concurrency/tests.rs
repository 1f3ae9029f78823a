//! The concurrency of a lane, step by step.

use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings(min: u32, start: u32, max: u32) -> ConcurrencySettings {
    let [min, start, max] = [min, start, max].map(|number| NonZeroU32::new(number).unwrap());
    ConcurrencySettings { min, start, max }
}

/// One round trip: as many calls as may leave, all taken, all answered a second later.
fn round_trip(concurrency: &mut Concurrency, now: &mut Instant) {
    let mut out = Vec::new();
    while concurrency.has_room(false) {
        out.push(concurrency.left(false, *now));
    }
    *now += SECOND;
    out.iter().for_each(|ticket| concurrency.accepted(*ticket, *now));
    out.iter().for_each(|ticket| concurrency.ended(*ticket, Ended::Answered, *now));
}

/// Fills the limit, and lets the provider object to the last call.
fn objected(concurrency: &mut Concurrency, now: Instant) {
    let out: Vec<Ticket> = (0..concurrency.limit()).map(|_| concurrency.left(false, now)).collect();
    for (number, ticket) in out.iter().rev().enumerate() {
        let how = if number == 0 { Ended::Throttled } else { Ended::Answered };
        concurrency.ended(*ticket, how, now);
    }
}

#[test]
fn it_doubles_with_every_round_trip_up_to_its_most() {
    let (mut concurrency, mut now) = (Concurrency::new(settings(1, 2, 100)), Instant::now());
    let mut limits = Vec::new();
    for _ in 0..6 {
        round_trip(&mut concurrency, &mut now);
        limits.push(concurrency.limit());
    }
    // Then it waits once or twice until there are enough answers to compare.
    assert_eq!((limits[0], limits[1]), (4, 8));
    while concurrency.limit() < 100 && limits.len() < 20 {
        round_trip(&mut concurrency, &mut now);
        limits.push(concurrency.limit());
    }
    assert!(limits.len() <= 12, "{limits:?}");
}

#[test]
fn a_limit_that_is_not_used_does_not_grow() {
    let (mut concurrency, mut now) = (Concurrency::new(settings(1, 32, 512)), Instant::now());
    for _ in 0..1_000 {
        let out: Vec<Ticket> = (0..25).map(|_| concurrency.left(false, now)).collect();
        now += SECOND;
        out.iter().for_each(|ticket| concurrency.accepted(*ticket, now));
        out.iter().for_each(|ticket| concurrency.ended(*ticket, Ended::Answered, now));
    }
    assert_eq!(concurrency.limit(), 32);
}

#[test]
fn calls_that_left_together_and_are_refused_together_are_one_cut() {
    let (mut concurrency, now) = (Concurrency::new(settings(1, 100, 512)), Instant::now());
    let out: Vec<Ticket> = (0..100).map(|_| concurrency.left(false, now)).collect();
    out.iter().for_each(|ticket| concurrency.ended(*ticket, Ended::Throttled, now));
    assert_eq!((concurrency.limit(), concurrency.in_flight()), (70, 0));
    objected(&mut concurrency, now);
    assert_eq!(concurrency.limit(), 49);
}

#[test]
fn an_objection_while_few_calls_are_out_is_not_about_how_many_they_are() {
    let (mut concurrency, now) = (Concurrency::new(settings(1, 100, 512)), Instant::now());
    for _ in 0..50 {
        let ticket = concurrency.left(false, now);
        concurrency.ended(ticket, Ended::Throttled, now);
    }
    assert_eq!(concurrency.limit(), 100);
}

#[test]
fn after_a_cut_it_grows_by_one_a_round_trip_up_to_just_below_the_ceiling() {
    let (mut concurrency, mut now) = (Concurrency::new(settings(1, 40, 512)), Instant::now());
    objected(&mut concurrency, now);
    assert_eq!(concurrency.limit(), 28);
    for limit in 29..=38 {
        round_trip(&mut concurrency, &mut now);
        assert_eq!(concurrency.limit(), limit);
    }
    // Ten seconds have passed of the thirty that the ceiling of 40 holds.
    for _ in 0..19 {
        round_trip(&mut concurrency, &mut now);
        assert_eq!(concurrency.limit(), 38);
    }
    for limit in 39..=45 {
        round_trip(&mut concurrency, &mut now);
        assert_eq!(concurrency.limit(), limit);
    }
    assert!(concurrency.ceiling.is_none());
}

#[test]
fn a_ceiling_that_still_holds_is_left_alone_for_twice_as_long() {
    let (mut concurrency, mut now) = (Concurrency::new(settings(1, 40, 512)), Instant::now());
    for holds in [30, 60, 120, 240, 240] {
        while concurrency.limit() < 40 {
            round_trip(&mut concurrency, &mut now);
        }
        objected(&mut concurrency, now);
        assert_eq!(concurrency.ceiling.unwrap().holds.as_secs(), holds);
    }
}

#[test]
fn after_an_outage_it_starts_small_and_doubles_to_where_it_was() {
    let (mut concurrency, mut now) = (Concurrency::new(settings(1, 100, 512)), Instant::now());
    objected(&mut concurrency, now);
    let before: Vec<Ticket> = (0..70).map(|_| concurrency.left(false, now)).collect();
    concurrency.restart();
    assert_eq!((concurrency.limit(), concurrency.in_flight()), (2, 70));
    for (number, ticket) in before.iter().enumerate() {
        concurrency.accepted(*ticket, now);
        let how = [Ended::TimedOut, Ended::Throttled, Ended::Answered, Ended::Other][number % 4];
        concurrency.ended(*ticket, how, now);
    }
    assert_eq!((concurrency.limit(), concurrency.in_flight()), (2, 0));
    for limit in [4, 8, 16, 32, 64, 70, 71, 72] {
        round_trip(&mut concurrency, &mut now);
        assert_eq!(concurrency.limit(), limit);
        // An outage within the way back is no smaller goal.
        if limit == 16 {
            concurrency.restart();
            (0..3).for_each(|_| round_trip(&mut concurrency, &mut now));
        }
    }
}

#[test]
fn settings_out_of_order_are_brought_in_order() {
    assert_eq!(Concurrency::new(settings(1, 32, 10)).limit(), 10);
    assert_eq!(Concurrency::new(settings(50, 32, 100)).limit(), 50);
    assert_eq!(Concurrency::new(settings(50, 32, 10)).limit(), 50);
}

proptest! {
    #[test]
    fn whatever_happens_the_bounds_hold_and_every_call_is_counted(
        (min, start, max) in (1u32..20, 1u32..100, 1u32..200),
        events in proptest::collection::vec((0u64..20_000, 0u8..8, 0usize..64), 1..600),
    ) {
        let (mut concurrency, mut now) = (Concurrency::new(settings(min, start, max)), Instant::now());
        // Each with whether it was accepted, and the cuts there had been when it left.
        let (mut out, mut cuts) = (Vec::<(Ticket, bool, usize)>::new(), 0);
        let (min, max) = (min as usize, max.max(min) as usize);
        for (pause, event, number) in events {
            now += Duration::from_millis(pause);
            let limit = concurrency.limit();
            match event {
                0 | 1 => while concurrency.has_room(false) && out.len() < limit {
                    out.push((concurrency.left(false, now), false, cuts));
                },
                2 => out.push((concurrency.left(false, now), false, cuts)),
                3 => for (ticket, accepted, _) in out.iter_mut().filter(|(_, accepted, _)| !accepted) {
                    concurrency.accepted(*ticket, now);
                    *accepted = true;
                },
                4 if number < 4 => concurrency.restart(),
                _ if out.is_empty() => {}
                _ => {
                    let (ticket, _, before) = out.swap_remove(number % out.len());
                    let how = match event {
                        5 => Ended::Throttled,
                        6 => Ended::TimedOut,
                        7 => Ended::Answered,
                        _ => Ended::Other,
                    };
                    concurrency.ended(ticket, how, now);
                    if matches!(how, Ended::Throttled | Ended::TimedOut) {
                        // One cut an incident.
                        prop_assert!(before == cuts || concurrency.limit() == limit);
                        cuts += usize::from(concurrency.limit() < limit);
                    }
                }
            }
            prop_assert!((min..=max).contains(&concurrency.limit()));
            prop_assert_eq!(concurrency.in_flight(), out.len());
        }
    }
}
