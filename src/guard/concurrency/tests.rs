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
    out.iter().for_each(|ticket| _ = concurrency.ended(*ticket, Ended::Answered, *now));
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
        out.iter().for_each(|ticket| _ = concurrency.ended(*ticket, Ended::Answered, now));
    }
    assert_eq!(concurrency.limit(), 32);
}

/// Fills the limit, and lets the provider object to the last so many.
fn refuse_last(concurrency: &mut Concurrency, many: usize, now: Instant) {
    let out: Vec<Ticket> = (0..concurrency.limit()).map(|_| concurrency.left(false, now)).collect();
    for (number, ticket) in out.iter().rev().enumerate() {
        let how = if number < many { Ended::Throttled } else { Ended::Answered };
        concurrency.ended(*ticket, how, now);
    }
}

#[test]
fn a_small_share_of_objections_takes_nothing_and_sets_no_ceiling() {
    let (mut concurrency, mut now) = (Concurrency::new(settings(1, 100, 512)), Instant::now());
    for _ in 0..50 {
        refuse_last(&mut concurrency, 5, now);
        now += SECOND;
        assert_eq!(concurrency.limit(), 100);
        assert!(concurrency.ceiling.is_none());
    }
}

#[test]
fn of_calls_that_left_together_as_many_places_go_as_were_refused() {
    let (mut concurrency, now) = (Concurrency::new(settings(1, 100, 512)), Instant::now());
    refuse_last(&mut concurrency, 60, now);
    assert_eq!((concurrency.limit(), concurrency.in_flight()), (40, 0));
    // The 41st was the first that was refused.
    assert_eq!(concurrency.ceiling.unwrap().at, 41);
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
fn a_ceiling_is_approached_at_once_and_tried_when_it_has_held_in_growing_steps() {
    let (mut concurrency, mut now) = (Concurrency::new(settings(1, 100, 512)), Instant::now());
    let out: Vec<Ticket> = (0..100).map(|_| concurrency.left(false, now)).collect();
    // One that was refused had 70 others beside it: those were not too many.
    out[70..].iter().for_each(|ticket| _ = concurrency.ended(*ticket, Ended::Throttled, now));
    out[..70].iter().for_each(|ticket| _ = concurrency.ended(*ticket, Ended::Answered, now));
    assert_eq!((concurrency.limit(), concurrency.ceiling.unwrap().at), (70, 71));
    let mut limits = Vec::new();
    for _ in 0..6 {
        round_trip(&mut concurrency, &mut now);
        limits.push(concurrency.limit());
    }
    assert_eq!(limits, [71, 73, 77, 85, 101, 133]);
    assert!(concurrency.ceiling.is_none());
}

#[test]
fn a_ceiling_holds_for_a_quarter_of_its_age() {
    let (mut concurrency, start) = (Concurrency::new(settings(1, 100, 512)), Instant::now());
    refuse_last(&mut concurrency, 60, start);
    let held = |concurrency: &Concurrency, now: Instant| concurrency.ceiling.unwrap().held_for(now).as_secs();
    assert_eq!(held(&concurrency, start), 1);
    for (age, holds) in [(20, 5), (200, 50), (2_000, 240)] {
        let now = start + SECOND * age;
        concurrency.limit = 50;
        refuse_last(&mut concurrency, 10, now);
        assert_eq!((held(&concurrency, now), concurrency.ceiling.unwrap().at), (holds, 41));
    }
}

#[test]
fn no_ceiling_forbids_growth_from_the_bottom() {
    let (mut concurrency, mut now) = (Concurrency::new(settings(1, 16, 512)), Instant::now());
    for _ in 0..20 {
        refuse_last(&mut concurrency, 16, now);
        now += SECOND;
    }
    assert_eq!(concurrency.limit(), 1);
    // Twenty seconds of refusals: a quarter of that at most before it grows again, and then ever faster.
    (0..16).for_each(|_| round_trip(&mut concurrency, &mut now));
    assert!(concurrency.limit() >= 100, "{}", concurrency.limit());
}

#[test]
fn after_an_outage_it_starts_with_an_eighth_and_is_soon_where_it_was() {
    let (mut concurrency, mut now) = (Concurrency::new(settings(1, 80, 512)), Instant::now());
    let before: Vec<Ticket> = (0..80).map(|_| concurrency.left(false, now)).collect();
    concurrency.restart(now);
    assert_eq!((concurrency.limit(), concurrency.in_flight()), (10, 80));
    for (number, ticket) in before.iter().enumerate() {
        concurrency.accepted(*ticket, now);
        let how = [Ended::Answered, Ended::Other][number % 2];
        concurrency.ended(*ticket, how, now);
    }
    assert_eq!((concurrency.limit(), concurrency.in_flight()), (10, 0));
    for limit in [20, 40, 80] {
        round_trip(&mut concurrency, &mut now);
        assert_eq!(concurrency.limit(), limit);
        // An outage within the way back is no smaller goal.
        if limit == 20 {
            concurrency.restart(now);
            assert_eq!(concurrency.limit(), 10);
            round_trip(&mut concurrency, &mut now);
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
        // Each with whether it was accepted.
        let mut out = Vec::<(Ticket, bool)>::new();
        let (min, max) = (min as usize, max.max(min) as usize);
        for (pause, event, number) in events {
            now += Duration::from_millis(pause);
            let limit = concurrency.limit();
            match event {
                0 | 1 => while concurrency.has_room(false) && out.len() < limit {
                    out.push((concurrency.left(false, now), false));
                },
                2 => out.push((concurrency.left(false, now), false)),
                3 => for (ticket, accepted) in out.iter_mut().filter(|(_, accepted)| !accepted) {
                    concurrency.accepted(*ticket, now);
                    *accepted = true;
                },
                4 if number < 4 => concurrency.restart(now),
                _ if out.is_empty() => {}
                _ => {
                    let (ticket, _) = out.swap_remove(number % out.len());
                    let how = match event {
                        5 => Ended::Throttled,
                        6 => Ended::TimedOut,
                        7 => Ended::Answered,
                        _ => Ended::Other,
                    };
                    concurrency.ended(ticket, how, now);
                }
            }
            prop_assert!((min..=max).contains(&concurrency.limit()));
            prop_assert_eq!(concurrency.in_flight(), out.len());
        }
    }
}
