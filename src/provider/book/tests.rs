use super::*;

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
    assert!(few.capacity(now) <= 5, "{}", few.capacity(now));
    for lane in few.lanes.values_mut() {
        lane.has_read(20_000.0);
    }
    assert!(few.capacity(now) <= 3, "{}", few.capacity(now));
    assert_eq!(book("concurrency = 64").capacity(now), 66);
    assert_eq!(book("requests_per_minute = 600").capacity(now), 51);
}
