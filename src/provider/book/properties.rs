//! What holds of a whole provider whatever happens to it: limits, concurrency, breakers, keys, retries,
//! reservations and the queue together, in virtual time.
//!
//! The parts have such tests of their own; here they meet. What never may be is looked for at every step
//! in `world.rs`.

mod bucket;
mod strategies;
mod world;

use proptest::prelude::*;

use super::*;
use crate::types::Priority;
use bucket::Buckets;
use strategies::*;
use world::World;

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// The limits of the account and of every model, counted anew from what left and how it ended.
struct Ledger {
    account: Buckets,
    models: HashMap<ModelName, Buckets>,
    seen: usize,
}

impl Ledger {
    fn new(world: &World, learns: bool) -> Self {
        let own = |(name, model): (&ModelName, &crate::provider::Model)| {
            Some((name.clone(), Buckets::new(model.limits.as_ref()?, learns, world.now)))
        };
        Self {
            account: Buckets::new(&world.settings.limits, learns, world.now),
            models: world.settings.models.iter().filter_map(own).collect(),
            seen: 0,
        }
    }

    /// Lets something happen, and counts what leaves and what comes back.
    fn follow(&mut self, world: &mut World, event: Event) {
        let before: Vec<Taken> = world.out.iter().map(|out| out.taken.clone()).collect();
        let result = match &event {
            Event::Ends { how, .. } => how.clone().result(),
            _ => None,
        };
        // What it gives back is there before others leave for it; and nothing else does meanwhile.
        let gone = match &event {
            Event::Ends { which, .. } if !before.is_empty() => Some(before[which % before.len()].clone()),
            _ => None,
        };
        if let Some(taken) = gone {
            let used = taken.reserved.used(result.as_ref());
            self.both(&taken.model, |buckets| buckets.settles(taken.reserved.need, used, world.now));
        }
        world.happens(event);
        for left in world.departures.split_off(self.seen.min(world.departures.len())) {
            self.both(&left.model, |buckets| buckets.takes(left.need, left.at));
            world.departures.push(left);
            self.seen += 1;
        }
    }

    fn both(&mut self, model: &ModelName, mut each: impl FnMut(&mut Buckets)) {
        each(&mut self.account);
        self.models.get_mut(model).into_iter().for_each(each);
    }
}

proptest! {
    #![proptest_config(cases(100))]

    /// The counts of calls out, passes, deadlines, holds, keys and the rest are looked at in `world.rs`.
    #[test]
    fn whatever_happens_a_provider_keeps_its_word_and_every_call_ends(
        settings in settings(),
        keys in 0..3usize,
        events in prop::collection::vec(anything(), 1..120),
    ) {
        let mut world = World::new(settings, keys);
        for event in events {
            world.happens(event);
        }
        // Whoever has gone is swept out; everybody else is answered, or told that he will not be.
        while !world.book.queue.is_empty() || !world.out.is_empty() {
            world.passes(Duration::from_secs(1));
            world.sweeps();
            (0..world.out.len()).for_each(|_| world.ends(0, How::Answered(Some((10, 10)))));
        }
        prop_assert_eq!(world.departures.len() + world.refused.len(), world.asked as usize);
        is_as_new(&mut world);
    }

    /// Doors, silence and forced calls, of a provider without limits.
    #[test]
    fn however_an_outage_goes_one_probe_decides_and_an_answer_ends_it(
        settings in unlimited(),
        events in prop::collection::vec(outage(), 1..150),
    ) {
        let mut world = World::new(settings, 1);
        events.into_iter().for_each(|event| world.happens(event));
        while !world.out.is_empty() {
            world.ends(0, How::Died);
        }
        // After a failure the others wait a moment.
        let took = world.drains();
        prop_assert!(took < Duration::from_hours(2), "{took:?}");
        is_as_new(&mut world);
    }

    #[test]
    fn no_window_sees_more_than_its_time_and_one_burst(
        settings in settings(),
        events in prop::collection::vec(anything_without_limits(), 1..120),
    ) {
        let mut world = World::new(of_minutes(settings), 1);
        let mut ledger = Ledger::new(&world, false);
        events.into_iter().for_each(|event| ledger.follow(&mut world, event));
        while !world.out.is_empty() {
            ledger.follow(&mut world, Event::Ends { which: 0, how: How::Died });
        }
        // What is there now is what the calls have left, neither less nor more.
        let (need, now) = (ledger.account.largest(), world.now);
        let (ours, theirs) = (world.book.limits.expected(0, need, now) - now, ledger.account.expected(need, now));
        prop_assert!(ours.abs_diff(theirs) < Duration::from_millis(5) + theirs / 1_000, "{ours:?}, {theirs:?}");
        for (model, buckets) in &mut ledger.models {
            let need = buckets.largest();
            let ours = world.book.lanes[model].limits.expected(0, need, now) - now;
            let theirs = buckets.expected(need, now);
            prop_assert!(ours.abs_diff(theirs) < Duration::from_millis(5) + theirs / 1_000, "{ours:?}, {theirs:?}");
        }
    }

    #[test]
    fn whatever_headers_say_no_minute_sees_more_than_its_limit_and_what_may_have_been_left(
        settings in settings(),
        events in prop::collection::vec(anything(), 1..120),
    ) {
        let mut world = World::new(settings, 1);
        let mut ledger = Ledger::new(&world, true);
        events.into_iter().for_each(|event| ledger.follow(&mut world, event));
    }

    #[test]
    fn nobody_waits_for_ever_once_all_is_well(
        settings in settings(),
        events in prop::collection::vec(prop_oneof![
            4 => asks().prop_map(patient), 1 => waits(3_000), 2 => ends(failed(5_000)), 1 => ends(answered()),
        ], 1..120),
    ) {
        let mut world = World::new(of_minutes(settings), 1);
        events.into_iter().for_each(|event| world.happens(event));
        let took = world.drains();
        prop_assert!(took < Duration::from_hours(4), "{took:?}");
        prop_assert_eq!(world.departures.len() + world.refused.len(), world.asked as usize);
    }

    #[test]
    fn people_go_before_batches_which_never_starve_and_runs_share(
        settings in settings(),
        events in prop::collection::vec(prop_oneof![
            6 => asks().prop_map(patient), 2 => waits(2_000), 4 => ends(answered()),
        ], 20..200),
    ) {
        let mut settings = settings;
        settings.models.truncate(1);
        settings.queue = std::num::NonZeroUsize::new(1_000).unwrap();
        let mut world = World::new(settings, 1);
        let mut turns = Turns::default();
        for event in events {
            turns.follow(&mut world, event);
        }
    }
}

#[test]
fn a_wait_that_one_of_many_is_told_holds_up_no_other_and_one_that_all_are_told_does() {
    let settings = "base_url = 'http://127.0.0.1:9'\nmodels.m = {}\nlimits.concurrency = 8";
    let mut world = World::new(toml::from_str(settings).unwrap(), 0);
    let question = Question {
        model: 0,
        input: 1,
        max_tokens: Some(1),
        priority: Priority::Batch,
        run: 0,
        step: None,
        patience: Duration::from_hours(1),
        alone: false,
        stay: true,
        retry: false,
    };
    (0..4).for_each(|_| world.asks(&question));
    world.passes(Duration::from_millis(100));
    world.hears(0, &crate::wire::Hints::default(), true);
    let wait = Some(Duration::from_secs(10));
    let overloaded = Failure { retry_after: wait, ..Failure::new(Class::Overloaded, "later") };
    world.ends(1, How::Failed(overloaded.clone()));
    assert_eq!(world.book.limits.held_for(world.now), Duration::ZERO);
    world.passes(Duration::from_millis(100));
    world.asks(&question);
    world.ends(3, How::Failed(overloaded));
    assert_eq!(world.book.limits.held_for(world.now), Duration::from_secs(10));
}

/// Takes away what is limited by the day.
fn of_minutes(mut settings: Settings) -> Settings {
    let own = settings.models.values_mut().filter_map(|model| model.limits.as_mut());
    own.chain([&mut settings.limits]).for_each(|limits| limits.requests_per_day = None);
    settings
}

/// Gives a call all the time that there is, and one try.
fn patient(event: Event) -> Event {
    match event {
        Event::Asks(question) => Event::Asks(Question {
            patience: Duration::from_hours(48),
            retry: false,
            stay: true,
            input: question.input.min(900),
            ..question
        }),
        event => event,
    }
}

/// Whether every lane can be called after a day without calls, and is well after a call that was answered.
fn is_as_new(world: &mut World) {
    assert_eq!((world.book.in_flight, world.book.queue.len()), (0, 0));
    world.passes(Duration::from_hours(49));
    for number in 0..world.settings.models.len() {
        let model = world.model(number);
        for _ in 0..2 {
            world.asks(&Question {
                model: number,
                input: 1,
                max_tokens: Some(1),
                priority: Priority::Batch,
                run: 0,
                step: None,
                patience: Duration::from_hours(10),
                alone: false,
                stay: true,
                retry: false,
            });
            let needed = world.drains();
            assert!(needed < Duration::from_hours(2), "{needed:?}");
            assert_eq!(
                world.departures.last().map(|left| left.id),
                Some(world.asked - 1),
                "{:?}",
                world.refused.last()
            );
        }
        let lane = &world.book.lanes[&model];
        assert_eq!(world.book.breaker_of(&model, world.now), Some(BreakerState::Closed));
        assert_eq!((lane.breaker.trouble(), lane.breaker.calls_out(), lane.calls_unheard()), (None, 0, 0));
        assert_eq!(world.book.door.calls_out(), 0);
    }
}

/// Who has had how many turns while others waited.
#[derive(Default)]
struct Turns {
    /// Who waits, in order of arrival: the call, its priority and its run.
    waiting: Vec<(u64, Priority, usize)>,
    people_in_a_row: usize,
    had: HashMap<(Priority, usize), usize>,
}

impl Turns {
    fn follow(&mut self, world: &mut World, event: Event) {
        let seen = world.departures.len();
        if let Event::Asks(question) = &event {
            self.waiting.push((world.asked, question.priority, question.run));
            self.joins(question.priority, question.run);
        }
        let before = world.refused.len();
        world.happens(event);
        let gone: Vec<u64> = world.refused[before..].iter().map(|(id, _)| *id).collect();
        self.waiting.retain(|(id, ..)| !gone.contains(id));
        for left in &world.departures[seen..] {
            self.leaves(left.id);
        }
    }

    /// Whoever comes anew begins where the others are.
    fn joins(&mut self, priority: Priority, run: usize) {
        if self.waiting.iter().filter(|(_, of, who)| (*of, *who) == (priority, run)).count() == 1 {
            let others = self.waiting.iter().filter(|(_, of, who)| *of == priority && *who != run);
            let most = others.filter_map(|(_, of, who)| self.had.get(&(*of, *who))).max().copied();
            self.had.insert((priority, run), most.unwrap_or_default());
        }
    }

    fn leaves(&mut self, id: u64) {
        let place = self.waiting.iter().position(|(waiting, ..)| *waiting == id).unwrap();
        let (_, priority, run) = self.waiting[place];
        let first = self.waiting.iter().find(|(_, of, who)| (*of, *who) == (priority, run));
        assert_eq!(first.map(|(id, ..)| *id), Some(id), "it overtook one of its own run");
        let wait = |of: Priority| self.waiting.iter().any(|(_, priority, _)| *priority == of);
        match priority {
            Priority::Interactive if wait(Priority::Batch) => self.people_in_a_row += 1,
            Priority::Interactive => self.people_in_a_row = 0,
            Priority::Batch => {
                let had = self.people_in_a_row;
                assert!(had >= 9 || !wait(Priority::Interactive), "a batch went after {had} people");
                self.people_in_a_row = 0;
            }
        }
        assert!(self.people_in_a_row <= 9, "a batch starves");
        self.waiting.remove(place);
        *self.had.entry((priority, run)).or_default() += 1;
        let had = self.had[&(priority, run)];
        for (_, of, who) in self.waiting.iter().filter(|(_, of, _)| *of == priority) {
            let theirs = self.had.get(&(*of, *who)).copied().unwrap_or_default();
            assert!(had <= theirs + 1, "run {run} has had {had}, and run {who} {theirs}");
        }
    }
}
