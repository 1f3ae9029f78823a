use super::*;
use crate::provider::LaneHealth;

fn book(limits: &str) -> Book {
    let text = format!("base_url = 'http://127.0.0.1:9'\nmodels.any = {{}}\nlimits = {{ {limits} }}");
    let settings: Settings = toml::from_str(&text).unwrap();
    let now = Instant::now();
    let keys = Keys::new(settings.format, &[], settings.rotate_every, now).unwrap();
    Book::new(&settings, keys, now)
}

fn unheard(pass: Pass, left: Instant) -> Unheard {
    Unheard { left, pass, step: None, departure: None }
}

#[test]
fn few_items_are_kept_in_flight_where_a_minute_has_room_for_few() {
    let now = Instant::now();
    let mut few = book("tokens_per_minute = 30_000");
    // Before the first call as after many: else a whole window would wait beyond its deadline.
    assert!(few.capacity(Duration::MAX, now) <= 5, "{}", few.capacity(Duration::MAX, now));
    for lane in few.lanes.values_mut() {
        lane.has_read(20_000.0);
    }
    assert!(few.capacity(Duration::MAX, now) <= 3, "{}", few.capacity(Duration::MAX, now));
    assert_eq!(book("concurrency = 64").capacity(Duration::MAX, now), 66);
    assert_eq!(book("requests_per_minute = 600").capacity(Duration::MAX, now), 51);
}

#[test]
fn a_lane_without_a_word_is_poor_until_it_speaks_and_a_slow_call_beside_others_is_not() {
    let (mut book, start) = (book("concurrency = 64"), Instant::now());
    let (model, second) = (ModelName::from("any"), Duration::from_secs(1));
    let lane = book.lanes.get_mut(&model).unwrap();
    let pass = lane.breaker.admit(start, false).unwrap();
    lane.waits_for_word(1, unheard(pass, start));
    assert_eq!(book.look_for_silence(start + 9 * second), []);
    assert_eq!(book.look_for_silence(start + 10 * second), std::slice::from_ref(&model));
    assert_eq!(book.health_of(&model, start + 10 * second), LaneHealth::Poor);
    let lane = book.lanes.get_mut(&model).unwrap();
    lane.had_word(1, start + 11 * second);
    assert_eq!(book.health_of(&model, start + 11 * second), LaneHealth::Good);
    // Of two calls one is answered: the other is slow, and the lane lives.
    let lane = book.lanes.get_mut(&model).unwrap();
    for number in [2, 3] {
        let pass = lane.breaker.admit(start + 12 * second, false).unwrap();
        lane.waits_for_word(number, unheard(pass, start + 12 * second));
    }
    lane.had_word(2, start + 13 * second);
    assert_eq!(book.look_for_silence(start + 40 * second), []);
}

#[test]
fn a_lane_that_is_given_up_for_others_again_and_again_without_a_word_is_silent() {
    let (mut book, start) = (book("concurrency = 64"), Instant::now());
    let (model, second) = (ModelName::from("any"), Duration::from_secs(1));
    let give_up = |book: &mut Book, number: u64, left: Instant, after: Duration| {
        let lane = book.lanes.get_mut(&model).unwrap();
        let pass = lane.breaker.admit(left, true).unwrap();
        lane.waits_for_word(number, unheard(pass, left));
        lane.was_given_up(number, left + after);
        lane.breaker.trouble()
    };
    // As long as nobody knows what is long, it says nothing.
    assert_eq!((0..9).filter_map(|number| give_up(&mut book, number, start + second, second)).count(), 0);
    (0..20).for_each(|_| book.times(&model).unwrap().answered(second));
    // Nor does one that was given up soon, nor one in between that was heard of.
    assert_eq!((0..9).filter_map(|number| give_up(&mut book, number, start + second, second / 2)).count(), 0);
    assert_eq!([1, 2].map(|number| give_up(&mut book, number, start + second, second)), [None; 2]);
    book.lanes.get_mut(&model).unwrap().had_word(3, start + 2 * second);
    let later = start + 3 * second;
    assert_eq!([4, 5].map(|number| give_up(&mut book, number, later, second)), [None; 2]);
    assert_eq!(give_up(&mut book, 6, later, second), Some(Trouble::Silence));
    // A probe that is given up is another proof, and one word ends it.
    let probed = later + 60 * second;
    give_up(&mut book, 7, probed, second);
    assert_eq!(book.health_of(&model, probed + second), LaneHealth::Poor);
    let recovers = book.recovers(probed + second).unwrap();
    assert_eq!(book.health_of(&model, recovers - Duration::from_nanos(1)), LaneHealth::Poor);
    assert_eq!(book.health_of(&model, recovers), LaneHealth::Good);
    book.lanes.get_mut(&model).unwrap().had_word(7, probed + 2 * second);
    assert_eq!(book.health_of(&model, probed + 2 * second), LaneHealth::Good);
    assert_eq!(book.recovers(probed + 2 * second), None);
}

#[test]
fn what_a_provider_asks_for_names_the_time_from_which_it_is_good_again() {
    let (mut book, now) = (book("requests_per_minute = 600"), Instant::now());
    let model = ModelName::from("any");
    book.limits.hold(now + Duration::from_secs(9));
    assert_eq!(book.health_of(&model, now), LaneHealth::Poor);
    let recovers = book.recovers(now).unwrap();
    assert_eq!(recovers, now + Duration::from_secs(7));
    assert_eq!(book.health_of(&model, recovers), LaneHealth::Good);
}

#[test]
fn a_forced_call_waits_while_as_many_are_out_as_may_be_and_a_probe_does_not() {
    let text = "base_url = 'http://127.0.0.1:9'\nmodels.any = {}\nmodels.other = {}\nmax_concurrency = 1";
    let settings: Settings = toml::from_str(text).unwrap();
    let now = Instant::now();
    let keys = Keys::new(settings.format, &[], settings.rotate_every, now).unwrap();
    let mut book = Book::new(&settings, keys, now);
    let lane = book.lanes.get_mut("any").unwrap();
    let pass = lane.breaker.admit(now, false).unwrap();
    lane.breaker.silent(pass, now, now, 0.5);
    let due = lane.breaker.rests_until(now).unwrap();
    book.in_flight = 1;
    let call = |alone| Call {
        prompt: Arc::new(crate::types::Prompt::text("Anybody?")),
        model: "any".into(),
        priority: crate::types::Priority::Batch,
        asker: crate::types::Asker::default(),
        retry: false,
        alone,
        stay: true,
        not_with: Vec::new(),
        departure: None,
        purse: None,
        held: crate::guard::HeldMemory::default(),
        deadline: now + Duration::from_secs(60),
    };
    // One that is not alone is refused at once, rather than wait for that.
    assert_eq!([true, false].map(|alone| book.needs_room(&call(alone), now)), [true, false]);
    assert!(!book.needs_room(&call(true), due));
}

#[test]
fn more_wait_where_calls_end_sooner_than_others_can_follow() {
    let now = Instant::now();
    let capacity = |milliseconds: f64| {
        let mut book = book("concurrency = { min = 64, max = 64 }");
        book.seconds.learn(milliseconds / 1000.0);
        book.capacity(Duration::MAX, now)
    };
    assert_eq!([1_000.0, 100.0, 10.0, 2.0, 0.0].map(capacity), [99, 105, 162, 258, 258]);
}

#[test]
fn no_more_are_kept_in_flight_than_have_their_turn_in_time() {
    let (book, now) = (book("requests_per_minute = 600"), Instant::now());
    // Nine at once, and ten a second for half of the five seconds that each has.
    assert_eq!(book.capacity(Duration::from_secs(5), now), 36);
}

#[test]
fn after_a_failure_no_further_call_leaves_while_those_that_are_out_can_tell_whether_all_fail() {
    let (mut book, now) = (book("concurrency = 64"), Instant::now());
    let limits = Limits::new(&crate::guard::RateLimits::default(), now);
    let lane = book.lanes.get_mut("any").unwrap();
    let passes: Vec<_> = (0..5).map(|_| lane.breaker.admit(now, false).unwrap()).collect();
    assert!(lane.may(&limits, false, now), "nothing has failed");
    lane.breaker.failed(passes[0], now, 0.5);
    lane.has_failed(now, now);
    // One has failed and four are out, as many as open the breaker.
    assert!(!lane.may(&limits, false, now));
    // They may hang.
    assert!(lane.may(&limits, false, now + Duration::from_secs(1)));
    assert_eq!(lane.looked_at_again(), Some(now + Duration::from_secs(1)));
    lane.breaker.succeeded(passes[1], now);
    lane.breaker.failed(passes[2], now, 0.5);
    lane.has_failed(now, now);
    assert!(lane.may(&limits, false, now), "two are out and one has failed since the answer");
}

#[test]
fn a_failure_of_a_call_older_than_one_that_was_accepted_holds_no_other_back() {
    let (mut book, left) = (book("concurrency = 64"), Instant::now());
    let limits = Limits::new(&crate::guard::RateLimits::default(), left);
    let lane = book.lanes.get_mut("any").unwrap();
    let passes: Vec<_> = (0..5).map(|_| lane.breaker.admit(left, false).unwrap()).collect();
    let accepted = left + Duration::from_secs(1);
    let failed = left + Duration::from_secs(2);
    lane.took_on(accepted, accepted + Duration::from_millis(100));
    lane.breaker.failed(passes[0], failed, 0.5);
    lane.has_failed(left, failed);
    assert!(lane.may(&limits, false, failed));
    lane.breaker.failed(passes[1], failed, 0.5);
    lane.has_failed(accepted, failed);
    assert!(!lane.may(&limits, false, failed), "it left no earlier than the one that was accepted");
}
