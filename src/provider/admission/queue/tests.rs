use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const RUNS: usize = 4;
const MODELS: [&str; 3] = ["x", "y", "z"];
const ALL_AVAILABLE: u8 = 0b111;

fn key(name: &str, priority: Priority, run: RunId) -> QueueKey {
    QueueKey { model: name.into(), priority, scope: ScopeName::default(), run, rank: 0, tokens: 1 }
}

fn runs<const N: usize>() -> [RunId; N] {
    std::array::from_fn(|_| RunId::next())
}

/// Takes the next call of any model.
fn take<T>(queue: &mut Queue<T>) -> Option<T> {
    take_of(queue, &MODELS)
}

/// Takes the next call of these models.
fn take_of<T>(queue: &mut Queue<T>, available: &[&str]) -> Option<T> {
    let (ticket, _) = queue.next(|model| available.contains(&model.as_str()))?;
    let (call, turn) = queue.take(ticket)?;
    queue.finish(&turn, 1);
    Some(call)
}

#[test]
fn an_interactive_call_precedes_a_batch_call() {
    let mut queue = Queue::new(10);
    let [run] = runs();
    let interactive = key("x", Priority::Interactive, run);
    let batch = key("x", Priority::Batch, run);
    queue.push(batch.clone(), 1);
    queue.push(batch.clone(), 2);
    queue.push(interactive.clone(), 3);
    assert_eq!((queue.ahead_of(&interactive, |_| true), queue.ahead_of(&batch, |_| true)), (1, 3));
    let order: Vec<i32> = std::iter::from_fn(|| take(&mut queue)).collect();
    assert_eq!(order, [3, 1, 2]);
}

#[test]
fn batch_has_every_tenth_turn_while_interactive_calls_wait() {
    let mut queue = Queue::new(1000);
    let [interactive, batch] = runs();
    for number in 0..300 {
        queue.push(key(MODELS[number % 3], Priority::Interactive, interactive), "interactive");
        queue.push(key(MODELS[number % 2], Priority::Batch, batch), "batch");
    }
    let order: Vec<&str> = std::iter::from_fn(|| take(&mut queue)).take(200).collect();
    for (number, priority) in order.iter().enumerate() {
        assert_eq!(*priority == "batch", number % 10 == 9, "turn {number}");
    }
}

#[test]
fn a_model_that_becomes_available_in_step_with_the_turns_serves_both_priorities() {
    let mut queue = Queue::new(10_000);
    let [interactive, batch] = runs();
    for model in ["x", "y"] {
        for _ in 0..1000 {
            queue.push(key(model, Priority::Interactive, interactive), (model, Priority::Interactive));
            queue.push(key(model, Priority::Batch, batch), (model, Priority::Batch));
        }
    }
    for step in [2, 10, 20] {
        let available = (0..400).map(|turn| if turn % step == 0 { &["x", "y"][..] } else { &["y"] });
        let with_x: Vec<_> =
            available.filter_map(|open| Some((open.len(), take_of(&mut queue, open)?))).collect();
        for priority in [Priority::Interactive, Priority::Batch] {
            let had = with_x.iter().any(|(open, (_, served))| *open == 2 && *served == priority);
            assert!(had, "{priority:?} never has a turn while x is open, once in {step}");
        }
    }
}

#[test]
fn a_run_that_arrives_late_waits_for_one_call_of_each_other_run() {
    let mut queue = Queue::new(1000);
    let [large, small] = runs();
    for number in 0..500 {
        queue.push(key("x", Priority::Batch, large), number);
    }
    assert_eq!(take(&mut queue), Some(0));
    assert_eq!(queue.ahead_of(&key("x", Priority::Batch, small), |_| true), 1);
    assert_eq!(queue.ahead_of(&key("x", Priority::Batch, large), |_| true), 499);
    (1000..1003).for_each(|number| queue.push(key("x", Priority::Batch, small), number));
    let order: Vec<i32> = std::iter::from_fn(|| take(&mut queue)).take(7).collect();
    assert_eq!(order, [1, 1000, 2, 1001, 3, 1002, 4]);
}

#[test]
fn a_run_with_two_models_has_no_more_turns_than_a_run_with_one() {
    let mut queue = Queue::new(1000);
    let [two, one] = runs();
    for _ in 0..100 {
        queue.push(key("x", Priority::Batch, two), two);
        queue.push(key("y", Priority::Batch, two), two);
        queue.push(key("x", Priority::Batch, one), one);
    }
    let order: Vec<RunId> = std::iter::from_fn(|| take(&mut queue)).take(100).collect();
    assert!(order.windows(2).all(|two| two[0] != two[1]));
}

#[test]
fn a_model_that_was_blocked_keeps_its_order_and_gains_no_turns() {
    let mut queue = Queue::new(1000);
    let [one, two] = runs();
    for run in [one, two] {
        (0..10).for_each(|_| queue.push(key("x", Priority::Batch, run), ("x", run)));
    }
    (0..100).for_each(|_| queue.push(key("y", Priority::Batch, one), ("y", one)));
    (0..50).for_each(|_| assert_eq!(take_of(&mut queue, &["y"]), Some(("y", one))));
    // The second run has waited all the time, yet its turns alternate with the first run's.
    let order: Vec<_> = std::iter::from_fn(|| take_of(&mut queue, &["x", "y"])).take(6).collect();
    let in_turn: Vec<RunId> = order.iter().map(|(_, run)| *run).collect();
    assert_eq!(in_turn, [one, two, one, two, one, two]);
}

#[test]
fn a_call_that_is_not_sent_costs_its_run_no_turn() {
    let mut queue = Queue::new(10);
    let [one, two] = runs();
    for (run, number) in [(one, 1), (one, 2), (two, 3)] {
        queue.push(key("x", Priority::Batch, run), number);
    }
    let (ticket, _) = queue.next(|_| true).unwrap();
    assert_eq!(queue.discard(&ticket), Some(1));
    assert!(queue.take(ticket).is_none(), "a removed call cannot be taken");
    let order: Vec<i32> = std::iter::from_fn(|| take(&mut queue)).collect();
    assert_eq!(order, [2, 3]);
}

#[test]
fn calls_for_a_model_that_takes_none_are_not_ahead() {
    let mut queue = Queue::new(100);
    let [run] = runs();
    (0..50).for_each(|_| queue.push(key("x", Priority::Batch, run), ()));
    queue.push(key("y", Priority::Batch, run), ());
    assert_eq!(queue.ahead_of(&key("y", Priority::Batch, run), |model| model.as_str() != "x"), 1);
    assert_eq!(queue.waiting_by_model().collect::<Vec<_>>(), [(&"x".into(), 50), (&"y".into(), 1)]);
}

#[test]
fn a_queue_is_full_at_its_bound() {
    let none = ScopeName::default();
    let mut queue = Queue::new(1);
    let [run] = runs();
    assert!(!queue.is_full(&none) && queue.is_empty());
    queue.push(key("x", Priority::Batch, run), ());
    assert!(queue.is_full(&none));
}

#[test]
fn a_queue_that_one_scope_has_filled_takes_calls_of_another() {
    let scopes: [ScopeName; 2] = ["team-a".into(), "team-b".into()];
    let of = |scope: &ScopeName, model, priority| {
        let [run] = runs();
        QueueKey { scope: scope.clone(), ..key(model, priority, run) }
    };
    let mut queue = Queue::new(20);
    for number in 0..20 {
        let priority = if number % 2 == 0 { Priority::Batch } else { Priority::Interactive };
        let model = if number % 3 == 0 { "x" } else { "y" };
        assert!(!queue.is_full(&scopes[0]));
        queue.push(of(&scopes[0], model, priority), ());
    }
    assert!(queue.is_full(&scopes[0]) && !queue.is_full(&scopes[1]));
    queue.push(of(&scopes[1], "x", Priority::Batch), ());
    queue.push(of(&scopes[1], "x", Priority::Batch), ());
    assert!(queue.is_full(&scopes[1]), "a tenth is kept for others");
}

/// A call of a scope, in a queue with the batch calls of scopes.
#[derive(Debug, Clone)]
struct ScopeCall {
    scope: usize,
    expected: u64,
    used: u64,
}

/// Keeps calls of each scope waiting, with at most `in_flight` in flight, and returns the tokens that each scope has
/// used, and those that the largest call has used. The call that ends next is chosen by `ends`.
fn serve_backlogged_scopes(
    calls: &[ScopeCall],
    in_flight: usize,
    ends: &[prop::sample::Index],
) -> ([u64; 2], u64) {
    let mut queue = Queue::new(usize::MAX);
    let runs: [RunId; 2] = runs();
    let mut pending = [Vec::new(), Vec::new()];
    calls.iter().for_each(|call| pending[call.scope].push(call.clone()));
    let push = |queue: &mut Queue<ScopeCall>, call: ScopeCall| {
        let name = ScopeName::from(["one", "two"][call.scope]);
        let key = key("x", Priority::Batch, runs[call.scope]);
        queue.push(QueueKey { scope: name, tokens: call.expected, ..key }, call);
    };
    let mut waiting = [0, 0];
    let mut active = Vec::new();
    let mut used = [0, 0];
    let mut largest = 0;
    let mut ends = ends.iter().cycle();
    loop {
        for scope in 0..2 {
            while waiting[scope] < 3
                && let Some(call) = pending[scope].pop()
            {
                push(&mut queue, call);
                waiting[scope] += 1;
            }
        }
        // Only while both wait, their shares must be equal.
        if waiting.contains(&0) {
            return (used, largest);
        }
        if active.len() == in_flight {
            let (call, turn): (ScopeCall, Turn) =
                active.swap_remove(ends.next().unwrap().index(active.len()));
            queue.finish(&turn, call.used);
        }
        let (ticket, _) = queue.next(|_| true).unwrap();
        let (call, turn) = queue.take(ticket).unwrap();
        waiting[call.scope] -= 1;
        used[call.scope] += call.used;
        largest = largest.max(call.used.max(call.expected));
        active.push((call, turn));
    }
}

#[test]
fn a_scope_with_one_large_call_at_a_time_gets_no_more_than_its_half() {
    let mut queue = Queue::new(usize::MAX);
    let runs: [RunId; 2] = runs();
    let name = |scope: usize| ScopeName::from(["one", "two"][scope]);
    let push = |queue: &mut Queue<usize>, scope: usize, tokens| {
        let key = key("x", Priority::Batch, runs[scope]);
        queue.push(QueueKey { scope: name(scope), tokens, ..key }, scope);
    };
    let mut used = [0, 0];
    let mut is_waiting = false;
    (0..10).for_each(|_| push(&mut queue, 1, 10));
    for _ in 0..10_000 {
        if !is_waiting {
            // The first has neither queued calls nor calls in flight when it sends its next one.
            push(&mut queue, 0, 10);
            is_waiting = true;
        }
        let (ticket, _) = queue.next(|_| true).unwrap();
        let (scope, turn) = queue.take(ticket).unwrap();
        let tokens = if scope == 0 { 1_000 } else { 10 };
        queue.finish(&turn, tokens);
        used[scope] += tokens;
        match scope {
            0 => is_waiting = false,
            _ => push(&mut queue, 1, 10),
        }
    }
    assert!(used[0].abs_diff(used[1]) <= 2_000, "{used:?}");
}

#[test]
fn the_runs_of_a_scope_share_its_part() {
    let mut queue = Queue::new(usize::MAX);
    let runs: [RunId; 3] = runs();
    // Two runs in one scope, one in another; the second run has calls twice as large.
    let scopes = ["one", "one", "two"];
    for run in 0..3 {
        for _ in 0..2_000 {
            let tokens = if run == 1 { 20 } else { 10 };
            let key = key("x", Priority::Batch, runs[run]);
            queue.push(QueueKey { scope: scopes[run].into(), tokens, ..key }, (run, tokens));
        }
    }
    let mut used = [0, 0, 0];
    for _ in 0..1_400 {
        let (ticket, _) = queue.next(|_| true).unwrap();
        let ((run, tokens), turn) = queue.take(ticket).unwrap();
        queue.finish(&turn, tokens);
        used[run] += tokens;
    }
    assert!(used[0].abs_diff(used[1]) <= 40, "{used:?}");
    assert!((used[0] + used[1]).abs_diff(used[2]) <= 40, "{used:?}");
}

/// What happens to a queue.
#[derive(Debug, Clone)]
enum Event {
    Push {
        model: usize,
        interactive: bool,
        run: usize,
    },
    /// A turn, with the available models as bits.
    Turn(u8),
    TakeUnlessEven,
}

fn event(masks: impl Strategy<Value = u8> + 'static) -> impl Strategy<Value = Event> {
    let push = (0..MODELS.len(), prop::bool::weighted(0.3), 0..RUNS);
    prop_oneof![
        6 => push.prop_map(|(model, interactive, run)| Event::Push { model, interactive, run }),
        5 => masks.prop_map(Event::Turn),
    ]
}

/// A queued call, in a queue that is checked.
#[derive(Debug, Clone)]
struct Watched {
    model: usize,
    priority: Priority,
    run: usize,
    /// Older queued calls of its run and priority when it was queued.
    behind: usize,
    /// Turns since then at which its model was available.
    turns: usize,
}

/// A queue, with a list of its contents.
struct CheckedQueue {
    queue: Queue<usize>,
    runs: [RunId; RUNS],
    waiting: BTreeMap<usize, Watched>,
    pushed: usize,
}

impl CheckedQueue {
    fn new() -> Self {
        Self { queue: Queue::new(usize::MAX), runs: runs(), waiting: BTreeMap::new(), pushed: 0 }
    }

    fn push(&mut self, model: usize, interactive: bool, run: usize) {
        let priority = if interactive { Priority::Interactive } else { Priority::Batch };
        let same = |call: &&Watched| (call.run, call.priority) == (run, priority);
        let behind = self.waiting.values().filter(same).count();
        self.queue.push(key(MODELS[model], priority, self.runs[run]), self.pushed);
        self.waiting.insert(self.pushed, Watched { model, priority, run, behind, turns: 0 });
        self.pushed += 1;
    }

    /// Takes one call and checks the invariants.
    fn turn(&mut self, available: u8) -> Option<Watched> {
        let can_take = |model: usize| available & (1 << model) != 0;
        let index = |name: &ModelName| MODELS.iter().position(|model| *model == name.as_str()).unwrap();
        let ticket = self.queue.next(|model| can_take(index(model))).map(|(ticket, _)| ticket);
        let Some((taken, turn)) = ticket.and_then(|ticket| self.queue.take(ticket)) else {
            assert!(!self.waiting.values().any(|call| can_take(call.model)), "a model is blocked by another");
            return None;
        };
        self.queue.finish(&turn, 1);
        let call = self.waiting.remove(&taken).unwrap();
        assert!(can_take(call.model), "a call was taken for a model that cannot take one");
        let same = |other: &Watched| {
            (other.model, other.priority, other.run) == (call.model, call.priority, call.run)
        };
        let older = self.waiting.range(..taken).find(|(_, other)| same(other));
        assert!(older.is_none(), "{taken} precedes {older:?} of calls run");
        self.waiting.values_mut().filter(|call| can_take(call.model)).for_each(|call| call.turns += 1);
        assert_eq!(self.queue.len(), self.waiting.len());
        Some(call)
    }

    fn models_of(&self, run: usize, priority: Priority) -> BTreeSet<usize> {
        let calls = self.waiting.values().filter(|call| (call.run, call.priority) == (run, priority));
        calls.map(|call| call.model).collect()
    }
}

/// The difference between two runs in turns while both waited.
#[derive(Default)]
struct Difference {
    now: i64,
    max: i64,
    min: i64,
}

/// Applies the events and checks every pair of the first `runs` runs while `are_comparable` returns true.
fn check_fair_turns(
    events: &[Event],
    runs: usize,
    are_comparable: impl Fn(&BTreeSet<usize>, &BTreeSet<usize>) -> bool,
) {
    let mut checked = CheckedQueue::new();
    let mut pairs: BTreeMap<(usize, usize, bool), Difference> = BTreeMap::new();
    for event in events {
        match event {
            Event::Push { model, interactive, run } => checked.push(*model, *interactive, *run),
            Event::TakeUnlessEven => {}
            Event::Turn(available) => {
                let mut pairs_waiting = Vec::new();
                for (one, other) in (0..runs).flat_map(|one| (one + 1..runs).map(move |other| (one, other))) {
                    for priority in [Priority::Interactive, Priority::Batch] {
                        let models = |run| checked.models_of(run, priority);
                        pairs_waiting.push((
                            one,
                            other,
                            priority,
                            are_comparable(&models(one), &models(other)),
                        ));
                    }
                }
                let Some(taken) = checked.turn(*available) else { continue };
                for (one, other, priority, are_comparable) in pairs_waiting {
                    let pair = pairs.entry((one, other, priority == Priority::Batch)).or_default();
                    if !are_comparable {
                        *pair = Difference::default();
                    } else if taken.priority == priority {
                        pair.now += i64::from(taken.run == one) - i64::from(taken.run == other);
                        pair.max = pair.max.max(pair.now);
                        pair.min = pair.min.min(pair.now);
                        assert!(pair.max - pair.min <= 1, "runs {one} and {other} are too far apart");
                    }
                }
            }
        }
    }
}

/// Applies the events and then empties the queue; no call may see more turns than `max` of it.
fn check_max_turns(events: &[Event], finally_available: u8, max: impl Fn(&Watched) -> usize) {
    let mut checked = CheckedQueue::new();
    let turn = Event::Turn(finally_available);
    for event in events.iter().chain(std::iter::repeat_n(&turn, events.len())) {
        match event {
            Event::Push { model, interactive, run } => checked.push(*model, *interactive, *run),
            Event::TakeUnlessEven => {}
            Event::Turn(available) => {
                if let Some(call) = checked.turn(*available) {
                    assert!(call.turns <= max(&call), "{call:?} waited for too long");
                }
            }
        }
    }
    assert_eq!(checked.waiting.values().filter(|call| finally_available & (1 << call.model) != 0).count(), 0);
}

proptest! {
    #[test]
    fn scopes_that_wait_get_equal_tokens_whatever_their_calls_use(
        calls in prop::collection::vec(
            (0_usize..2, 1_u64..500, 0_u64..2_000)
                .prop_map(|(scope, expected, used)| ScopeCall { scope, expected, used }),
            1..400,
        ),
        in_flight in 1_usize..20,
        ends in prop::collection::vec(any::<prop::sample::Index>(), 1..50),
    ) {
        let (used, largest) = serve_backlogged_scopes(&calls, in_flight, &ends);
        // Calls in flight count by expectation, until they have ended.
        let max = 2 * largest * (in_flight as u64 + 1);
        prop_assert!(used[0].abs_diff(used[1]) <= max, "{used:?}, {max} allowed");
    }

    #[test]
    fn waiting_runs_have_had_equal_turns_within_one_call(
        events in prop::collection::vec(event(Just(ALL_AVAILABLE)), 1..200),
    ) {
        check_fair_turns(&events, RUNS, |one, other| !one.is_empty() && !other.is_empty());
    }

    /// Two of the runs have calls for one model only. A run that also waits for other models has turns there, which
    /// count for it.
    #[test]
    fn runs_that_wait_for_the_same_model_have_had_equal_turns_whatever_other_models_do(
        events in prop::collection::vec(event(0..=ALL_AVAILABLE), 1..200),
    ) {
        let of_one_model = |event: Event| match event {
            Event::Push { interactive, run: run @ (0 | 1), .. } => Event::Push { model: 0, interactive, run },
            Event::Push { .. } | Event::Turn(_) | Event::TakeUnlessEven => event,
        };
        let events: Vec<Event> = events.into_iter().map(of_one_model).collect();
        check_fair_turns(&events, 2, |one, other| !one.is_empty() && !other.is_empty());
    }

    /// A call waits for one turn of each run, for itself and for every older call of its own run.
    #[test]
    fn no_call_starves(events in prop::collection::vec(event(Just(ALL_AVAILABLE)), 1..200)) {
        check_max_turns(&events, ALL_AVAILABLE, |call| {
            let turns = (call.behind + 1) * RUNS;
            match call.priority {
                Priority::Interactive => turns + turns / INTERACTIVE_PER_BATCH + 1,
                Priority::Batch => turns * (INTERACTIVE_PER_BATCH + 1),
            }
        });
    }

    /// Only turns at which its model was available count; another run may have a turn for each model.
    #[test]
    fn no_call_starves_whichever_models_are_blocked(events in prop::collection::vec(event(0..=ALL_AVAILABLE), 1..200)) {
        check_max_turns(&events, ALL_AVAILABLE, |call| {
            let turns = (call.behind + 1) * (1 + (RUNS - 1) * MODELS.len());
            let of_ten = match call.priority {
                Priority::Interactive => 2,
                Priority::Batch => INTERACTIVE_PER_BATCH + 1,
            };
            turns * of_ten * MODELS.len()
        });
    }

    #[test]
    fn removed_calls_leave_the_others_in_their_order(
        events in prop::collection::vec(prop_oneof![
            20 => event(0..=ALL_AVAILABLE),
            1 => Just(Event::TakeUnlessEven),
        ], 1..200),
    ) {
        let mut checked = CheckedQueue::new();
        for event in &events {
            match event {
                Event::Push { model, interactive, run } => checked.push(*model, *interactive, *run),
                Event::Turn(available) => drop(checked.turn(*available)),
                Event::TakeUnlessEven => {
                    let mut odd: Vec<usize> = checked.waiting.keys().filter(|number| *number % 2 == 1).copied().collect();
                    odd.sort_by_key(|number| (checked.waiting[number].priority == Priority::Batch, *number));
                    prop_assert_eq!(checked.queue.take_unless(|number| number % 2 == 0), odd);
                    checked.waiting.retain(|number, _| number % 2 == 0);
                    prop_assert_eq!(checked.queue.len(), checked.waiting.len());
                }
            }
        }
        while checked.turn(ALL_AVAILABLE).is_some() {}
        prop_assert!(checked.queue.is_empty() && checked.waiting.is_empty());
        prop_assert_eq!(checked.queue.waiting_by_model().count(), 0);
    }

    #[test]
    fn the_number_of_calls_ahead_is_estimated_well_enough(
        counts in prop::collection::vec((0_usize..40, 0_usize..40), RUNS),
        interactive: bool,
        run in 0..RUNS,
    ) {
        let mut checked = CheckedQueue::new();
        for (number, (interactive_calls, batch_calls)) in counts.iter().enumerate() {
            (0..*interactive_calls).for_each(|_| checked.push(0, true, number));
            (0..*batch_calls).for_each(|_| checked.push(0, false, number));
        }
        let priority = if interactive { Priority::Interactive } else { Priority::Batch };
        let estimated = checked.queue.ahead_of(&key(MODELS[0], priority, checked.runs[run]), |_| true);
        let newcomer = checked.pushed;
        checked.push(0, interactive, run);
        let mut exact = 0;
        while checked.turn(ALL_AVAILABLE).is_some() && checked.waiting.contains_key(&newcomer) {
            exact += 1;
        }
        prop_assert!(exact <= estimated + 1 && estimated <= 2 * exact + INTERACTIVE_PER_BATCH, "{estimated} for {exact}");
    }
}
