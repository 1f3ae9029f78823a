use super::*;
use crate::provider::LaneHealth;

fn book(limits: &str) -> Book {
    let text = format!("base_url = 'http://127.0.0.1:9'\nmodels.any = {{}}\nlimits = {{ {limits} }}");
    let settings: Settings = toml::from_str(&text).unwrap();
    let now = Instant::now();
    let keys = Keys::new(settings.format, &[], settings.rotate_every, now).unwrap();
    Book::new(&settings, keys, now)
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
    lane.waits_for_word(1, pass, start);
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
        lane.waits_for_word(number, pass, start + 12 * second);
    }
    lane.had_word(2, start + 13 * second);
    assert_eq!(book.look_for_silence(start + 40 * second), []);
}

#[test]
fn no_more_are_kept_in_flight_than_have_their_turn_in_time() {
    let (book, now) = (book("requests_per_minute = 600"), Instant::now());
    // Nine at once, and ten a second for half of the five seconds that each has.
    assert_eq!(book.capacity(Duration::from_secs(5), now), 36);
}
