use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const RUNS: usize = 4;
const LANES: [&str; 3] = ["x", "y", "z"];
const ALL_OPEN: u8 = 0b111;

fn place(lane: &str, priority: Priority, run: RunId) -> Place {
    Place { lane: lane.into(), priority, run, rank: 0 }
}

fn runs<const N: usize>() -> [RunId; N] {
    std::array::from_fn(|_| RunId::next())
}

/// Takes the next call of any lane.
fn take<T>(queue: &mut Queue<T>) -> Option<T> {
    take_of(queue, &LANES)
}

/// Takes the next call of these lanes.
fn take_of<T>(queue: &mut Queue<T>, open: &[&str]) -> Option<T> {
    let (ticket, _) = queue.next(|lane| open.contains(&lane.as_str()))?;
    queue.take(ticket)
}

#[test]
fn a_person_goes_before_a_batch() {
    let (mut queue, [run]) = (Queue::new(10), runs());
    let (person, batch) = (place("x", Priority::Interactive, run), place("x", Priority::Batch, run));
    queue.push(batch.clone(), 1);
    queue.push(batch.clone(), 2);
    queue.push(person.clone(), 3);
    assert_eq!((queue.ahead_of(&person, |_| true), queue.ahead_of(&batch, |_| true)), (1, 3));
    let order: Vec<i32> = std::iter::from_fn(|| take(&mut queue)).collect();
    assert_eq!(order, [3, 1, 2]);
}

#[test]
fn a_batch_has_every_tenth_turn_while_people_wait() {
    let (mut queue, [person, batch]) = (Queue::new(1000), runs());
    for number in 0..300 {
        queue.push(place(LANES[number % 3], Priority::Interactive, person), "person");
        queue.push(place(LANES[number % 2], Priority::Batch, batch), "batch");
    }
    let order: Vec<&str> = std::iter::from_fn(|| take(&mut queue)).take(200).collect();
    for (number, who) in order.iter().enumerate() {
        assert_eq!(*who == "batch", number % 10 == 9, "turn {number}");
    }
}

#[test]
fn a_lane_that_opens_in_step_with_the_turns_of_others_has_turns_of_both() {
    let (mut queue, [person, batch]) = (Queue::new(10_000), runs());
    for lane in ["x", "y"] {
        for _ in 0..1000 {
            queue.push(place(lane, Priority::Interactive, person), (lane, Priority::Interactive));
            queue.push(place(lane, Priority::Batch, batch), (lane, Priority::Batch));
        }
    }
    for step in [2, 10, 20] {
        let open = (0..400).map(|turn| if turn % step == 0 { &["x", "y"][..] } else { &["y"] });
        let with_x: Vec<_> = open.filter_map(|open| Some((open.len(), take_of(&mut queue, open)?))).collect();
        for priority in [Priority::Interactive, Priority::Batch] {
            let had = with_x.iter().any(|(open, (_, who))| *open == 2 && *who == priority);
            assert!(had, "{priority:?} never has a turn while x is open, once in {step}");
        }
    }
}

#[test]
fn a_run_that_comes_late_waits_for_one_call_of_each_other_and_not_for_all() {
    let (mut queue, [large, small]) = (Queue::new(1000), runs());
    for number in 0..500 {
        queue.push(place("x", Priority::Batch, large), number);
    }
    assert_eq!(take(&mut queue), Some(0));
    assert_eq!(queue.ahead_of(&place("x", Priority::Batch, small), |_| true), 1);
    assert_eq!(queue.ahead_of(&place("x", Priority::Batch, large), |_| true), 499);
    (1000..1003).for_each(|number| queue.push(place("x", Priority::Batch, small), number));
    let order: Vec<i32> = std::iter::from_fn(|| take(&mut queue)).take(7).collect();
    assert_eq!(order, [1, 1000, 2, 1001, 3, 1002, 4]);
}

#[test]
fn a_run_with_two_lanes_has_no_more_turns_than_one_with_one() {
    let (mut queue, [both, one]) = (Queue::new(1000), runs());
    for _ in 0..100 {
        queue.push(place("x", Priority::Batch, both), both);
        queue.push(place("y", Priority::Batch, both), both);
        queue.push(place("x", Priority::Batch, one), one);
    }
    let order: Vec<RunId> = std::iter::from_fn(|| take(&mut queue)).take(100).collect();
    assert!(order.windows(2).all(|two| two[0] != two[1]));
}

#[test]
fn a_lane_that_was_held_up_comes_back_with_its_line_and_without_a_lead() {
    let (mut queue, [one, two]) = (Queue::new(1000), runs());
    for run in [one, two] {
        (0..10).for_each(|_| queue.push(place("x", Priority::Batch, run), ("x", run)));
    }
    (0..100).for_each(|_| queue.push(place("y", Priority::Batch, one), ("y", one)));
    (0..50).for_each(|_| assert_eq!(take_of(&mut queue, &["y"]), Some(("y", one))));
    // The second run has waited all the time, yet its turns are one and one with the first's.
    let order: Vec<_> = std::iter::from_fn(|| take_of(&mut queue, &["x", "y"])).take(6).collect();
    let in_turn: Vec<RunId> = order.iter().map(|(_, run)| *run).collect();
    assert_eq!(in_turn, [one, two, one, two, one, two]);
}

#[test]
fn a_call_that_is_not_made_costs_its_run_no_turn() {
    let (mut queue, [one, two]) = (Queue::new(10), runs());
    for (run, number) in [(one, 1), (one, 2), (two, 3)] {
        queue.push(place("x", Priority::Batch, run), number);
    }
    let (ticket, _) = queue.next(|_| true).unwrap();
    assert_eq!(queue.discard(&ticket), Some(1));
    assert_eq!(queue.take(ticket), None, "what is gone cannot be taken");
    let order: Vec<i32> = std::iter::from_fn(|| take(&mut queue)).collect();
    assert_eq!(order, [2, 3]);
}

#[test]
fn what_is_ahead_in_a_lane_that_takes_no_call_is_not_ahead() {
    let (mut queue, [run]) = (Queue::new(100), runs());
    (0..50).for_each(|_| queue.push(place("x", Priority::Batch, run), ()));
    queue.push(place("y", Priority::Batch, run), ());
    assert_eq!(queue.ahead_of(&place("y", Priority::Batch, run), |lane| lane.as_str() != "x"), 1);
    assert_eq!(queue.lanes_waiting().collect::<Vec<_>>(), [(&"x".into(), 50), (&"y".into(), 1)]);
}

#[test]
fn a_queue_is_full_at_its_bound() {
    let (mut queue, [run]) = (Queue::new(1), runs());
    assert!(!queue.is_full() && queue.is_empty());
    queue.push(place("x", Priority::Batch, run), ());
    assert!(queue.is_full());
}

/// What happens to a queue.
#[derive(Debug, Clone)]
enum Event {
    Push {
        lane: usize,
        interactive: bool,
        run: usize,
    },
    /// A turn, with the lanes that are open as bits.
    Turn(u8),
    TakeUnlessEven,
}

fn event(masks: impl Strategy<Value = u8> + 'static) -> impl Strategy<Value = Event> {
    let push = (0..LANES.len(), prop::bool::weighted(0.3), 0..RUNS);
    prop_oneof![
        6 => push.prop_map(|(lane, interactive, run)| Event::Push { lane, interactive, run }),
        5 => masks.prop_map(Event::Turn),
    ]
}

/// A call that waits, in a queue that is watched.
#[derive(Debug, Clone)]
struct Watched {
    lane: usize,
    priority: Priority,
    run: usize,
    /// Older calls of its run and priority that waited when it came.
    behind: usize,
    /// Turns since then at which its lane was open.
    turns: usize,
}

/// A queue beside a list of what waits in it.
struct Play {
    queue: Queue<usize>,
    runs: [RunId; RUNS],
    waiting: BTreeMap<usize, Watched>,
    pushed: usize,
}

impl Play {
    fn new() -> Self {
        Self { queue: Queue::new(usize::MAX), runs: runs(), waiting: BTreeMap::new(), pushed: 0 }
    }

    fn push(&mut self, lane: usize, interactive: bool, run: usize) {
        let priority = if interactive { Priority::Interactive } else { Priority::Batch };
        let same = |call: &&Watched| (call.run, call.priority) == (run, priority);
        let behind = self.waiting.values().filter(same).count();
        self.queue.push(place(LANES[lane], priority, self.runs[run]), self.pushed);
        self.waiting.insert(self.pushed, Watched { lane, priority, run, behind, turns: 0 });
        self.pushed += 1;
    }

    /// Lets one call leave and returns it, having looked at what must always hold.
    fn turn(&mut self, open: u8) -> Option<Watched> {
        let may = |lane: usize| open & (1 << lane) != 0;
        let index = |name: &ModelName| LANES.iter().position(|lane| *lane == name.as_str()).unwrap();
        let ticket = self.queue.next(|lane| may(index(lane))).map(|(ticket, _)| ticket);
        let Some(taken) = ticket.and_then(|ticket| self.queue.take(ticket)) else {
            assert!(!self.waiting.values().any(|call| may(call.lane)), "a lane is held up by another");
            return None;
        };
        let call = self.waiting.remove(&taken).unwrap();
        assert!(may(call.lane), "a lane takes a call that cannot");
        let same =
            |other: &Watched| (other.lane, other.priority, other.run) == (call.lane, call.priority, call.run);
        let older = self.waiting.range(..taken).find(|(_, other)| same(other));
        assert!(older.is_none(), "{taken} goes before {older:?} of its run");
        self.waiting.values_mut().filter(|call| may(call.lane)).for_each(|call| call.turns += 1);
        assert_eq!(self.queue.len(), self.waiting.len());
        Some(call)
    }

    fn lanes_of(&self, run: usize, priority: Priority) -> BTreeSet<usize> {
        let its = self.waiting.values().filter(|call| (call.run, call.priority) == (run, priority));
        its.map(|call| call.lane).collect()
    }
}

/// How far two runs are apart in what they had while both waited.
#[derive(Default)]
struct Apart {
    now: i64,
    most: i64,
    least: i64,
}

/// Plays the events and looks at every pair of runs while `both` says that they wait for the same.
fn stays_even(events: &[Event], both: impl Fn(&BTreeSet<usize>, &BTreeSet<usize>) -> bool) {
    let mut play = Play::new();
    let mut pairs: BTreeMap<(usize, usize, bool), Apart> = BTreeMap::new();
    for event in events {
        match event {
            Event::Push { lane, interactive, run } => play.push(*lane, *interactive, *run),
            Event::TakeUnlessEven => {}
            Event::Turn(open) => {
                let mut wait = Vec::new();
                for (one, other) in (0..RUNS).flat_map(|one| (one + 1..RUNS).map(move |other| (one, other))) {
                    for priority in [Priority::Interactive, Priority::Batch] {
                        let lanes = |run| play.lanes_of(run, priority);
                        wait.push((one, other, priority, both(&lanes(one), &lanes(other))));
                    }
                }
                let Some(taken) = play.turn(*open) else { continue };
                for (one, other, priority, both) in wait {
                    let pair = pairs.entry((one, other, priority == Priority::Batch)).or_default();
                    if !both {
                        *pair = Apart::default();
                    } else if taken.priority == priority {
                        pair.now += i64::from(taken.run == one) - i64::from(taken.run == other);
                        (pair.most, pair.least) = (pair.most.max(pair.now), pair.least.min(pair.now));
                        assert!(pair.most - pair.least <= 1, "runs {one} and {other} are too far apart");
                    }
                }
            }
        }
    }
}

/// Plays the events and then empties the queue; no call may see more turns than `most` of it.
fn nobody_waits_longer(events: &[Event], open_at_the_end: u8, most: impl Fn(&Watched) -> usize) {
    let mut play = Play::new();
    let turn = Event::Turn(open_at_the_end);
    for event in events.iter().chain(std::iter::repeat_n(&turn, events.len())) {
        match event {
            Event::Push { lane, interactive, run } => play.push(*lane, *interactive, *run),
            Event::TakeUnlessEven => {}
            Event::Turn(open) => {
                if let Some(call) = play.turn(*open) {
                    assert!(call.turns <= most(&call), "{call:?} waited for too long");
                }
            }
        }
    }
    assert_eq!(play.waiting.values().filter(|call| open_at_the_end & (1 << call.lane) != 0).count(), 0);
}

proptest! {
    #[test]
    fn runs_that_wait_have_had_the_same_within_one_call(
        events in prop::collection::vec(event(Just(ALL_OPEN)), 1..200),
    ) {
        stays_even(&events, |one, other| !one.is_empty() && !other.is_empty());
    }

    #[test]
    fn runs_that_wait_for_the_same_lane_have_had_the_same_whatever_other_lanes_do(
        events in prop::collection::vec(event(0..=ALL_OPEN), 1..200),
    ) {
        stays_even(&events, |one, other| one.len() == 1 && one == other);
    }

    /// A call waits for one turn of each run for itself and every older call of its own.
    #[test]
    fn nobody_starves(events in prop::collection::vec(event(Just(ALL_OPEN)), 1..200)) {
        nobody_waits_longer(&events, ALL_OPEN, |call| {
            let turns = (call.behind + 1) * RUNS;
            match call.priority {
                Priority::Interactive => turns + turns / PEOPLE_PER_BATCH + 1,
                Priority::Batch => turns * (PEOPLE_PER_BATCH + 1),
            }
        });
    }

    /// Only turns at which its lane was open count; another run may have a turn out of each lane.
    #[test]
    fn nobody_starves_whichever_lanes_are_held_up(events in prop::collection::vec(event(0..=ALL_OPEN), 1..200)) {
        nobody_waits_longer(&events, ALL_OPEN, |call| {
            let turns = (call.behind + 1) * (1 + (RUNS - 1) * LANES.len());
            let of_ten = match call.priority {
                Priority::Interactive => 2,
                Priority::Batch => PEOPLE_PER_BATCH + 1,
            };
            turns * of_ten * LANES.len()
        });
    }

    #[test]
    fn what_is_taken_out_leaves_the_others_in_their_order(
        events in prop::collection::vec(prop_oneof![
            20 => event(0..=ALL_OPEN),
            1 => Just(Event::TakeUnlessEven),
        ], 1..200),
    ) {
        let mut play = Play::new();
        for event in &events {
            match event {
                Event::Push { lane, interactive, run } => play.push(*lane, *interactive, *run),
                Event::Turn(open) => drop(play.turn(*open)),
                Event::TakeUnlessEven => {
                    let mut odd: Vec<usize> = play.waiting.keys().filter(|number| *number % 2 == 1).copied().collect();
                    odd.sort_by_key(|number| (play.waiting[number].priority == Priority::Batch, *number));
                    prop_assert_eq!(play.queue.take_unless(|number| number % 2 == 0), odd);
                    play.waiting.retain(|number, _| number % 2 == 0);
                    prop_assert_eq!(play.queue.len(), play.waiting.len());
                }
            }
        }
        while play.turn(ALL_OPEN).is_some() {}
        prop_assert!(play.queue.is_empty() && play.waiting.is_empty());
        prop_assert_eq!(play.queue.lanes_waiting().count(), 0);
    }

    #[test]
    fn how_many_are_ahead_is_told_well_enough(
        counts in prop::collection::vec((0_usize..40, 0_usize..40), RUNS),
        interactive: bool,
        run in 0..RUNS,
    ) {
        let mut play = Play::new();
        for (number, (people, batch)) in counts.iter().enumerate() {
            (0..*people).for_each(|_| play.push(0, true, number));
            (0..*batch).for_each(|_| play.push(0, false, number));
        }
        let priority = if interactive { Priority::Interactive } else { Priority::Batch };
        let told = play.queue.ahead_of(&place(LANES[0], priority, play.runs[run]), |_| true);
        let newcomer = play.pushed;
        play.push(0, interactive, run);
        let mut real = 0;
        while play.turn(ALL_OPEN).is_some() && play.waiting.contains_key(&newcomer) {
            real += 1;
        }
        prop_assert!(real <= told + 1 && told <= 2 * real + PEOPLE_PER_BATCH, "{told} for {real}");
    }
}
