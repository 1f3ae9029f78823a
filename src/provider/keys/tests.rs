use std::sync::{Arc, Weak};

use super::*;
use crate::types::Prompt;

const HOUR: Duration = Duration::from_hours(1);

fn keys(labels: &[&str], rotate_every: Option<Duration>, now: Instant) -> Keys {
    let file = |label: &str| label.starts_with('/').then(|| label.into());
    let key = |label: &&str| Key { label: (*label).into(), secret: secret(label), file: file(label) };
    let keys: Vec<Key> = labels.iter().map(key).collect();
    Keys::new(Format::Openai, &keys, rotate_every, now).unwrap()
}

fn model() -> ModelName {
    "m".into()
}

fn secret(text: &str) -> Secret {
    format!("sk-{text}").into()
}

fn refused() -> Failure {
    Failure::new(Class::Auth, "invalid key")
}

fn spent(retry_after: Option<Duration>) -> Failure {
    let mut failure = Failure::new(Class::Quota, "no more today");
    failure.retry_after = retry_after;
    failure
}

fn used(keys: &Keys, now: Instant) -> String {
    keys.pick(&model(), &[], now).unwrap().id.label.to_string()
}

/// Refuses a request of its own with this key.
fn refuse(keys: &mut Keys, key: &KeyId, model: &ModelName, failure: &Failure, now: Instant) -> Blame {
    let request = Arc::new(Prompt::text("?"));
    refuse_it(keys, key, model, failure, &Arc::downgrade(&request), now)
}

fn refuse_it(
    keys: &mut Keys,
    key: &KeyId,
    model: &ModelName,
    failure: &Failure,
    request: &Weak<Prompt>,
    now: Instant,
) -> Blame {
    let is_certain = failure.scope != Scope::Unclear;
    let attempt = RefusedAttempt { request, is_certain, oldest_waiting: None, latest: 0 };
    keys.refused(key, model, failure, attempt, now)
}

/// Lets the key rest that is in use under this label.
fn rest(keys: &mut Keys, label: &str, failure: &Failure, now: Instant) {
    let id = keys.held.iter().map(|held| held.key.id.clone()).find(|id| id.label.as_str() == label);
    assert_eq!(refuse(keys, &id.unwrap(), &model(), failure, now), Blame::TheKey);
}

#[test]
fn a_refused_key_rests_and_the_next_is_used() {
    let now = Instant::now();
    let mut keys = keys(&["a", "b"], None, now);
    rest(&mut keys, "a", &refused(), now);
    assert_eq!(used(&keys, now), "b");
    assert_eq!(used(&keys, now + REST), "a");
}

#[test]
fn a_shorter_rest_that_is_told_later_shortens_no_longer_one() {
    let now = Instant::now();
    let mut keys = keys(&["a", "b"], None, now);
    let long = Failure { retry_after: Some(2 * HOUR), ..refused() };
    rest(&mut keys, "a", &long, now);
    rest(&mut keys, "a", &refused(), now);
    rest(&mut keys, "b", &spent(Some(3 * HOUR)), now);
    rest(&mut keys, "b", &spent(Some(HOUR)), now);
    assert_eq!(keys.pick(&model(), &[], now + HOUR).unwrap_err(), NoKey::Resting(long));
    assert_eq!(used(&keys, now + 2 * HOUR), "a");
}

#[test]
fn when_all_rest_the_reason_is_told() {
    let now = Instant::now();
    let mut keys = keys(&["a", "b"], None, now);
    rest(&mut keys, "a", &refused(), now);
    rest(&mut keys, "b", &spent(None), now + REST);
    assert_eq!(keys.pick(&model(), &[], now).unwrap_err(), NoKey::Resting(refused()));
    assert!(keys.are_out(&model(), now) && !keys.are_out(&model(), now + REST));
}

#[test]
fn a_new_key_in_the_file_does_not_inherit_a_spent_quota() {
    let now = Instant::now();
    let mut keys = keys(&["/a"], None, now);
    rest(&mut keys, "/a", &spent(Some(HOUR)), now);
    assert!(keys.are_out(&model(), now));
    let renewed = keys.renew(&"/a".into(), Ok(Some(secret("new"))), now);
    assert!(matches!(renewed, Renewed::Changed) && !keys.are_out(&model(), now));
}

#[test]
fn a_daily_quota_is_its_models_and_money_is_the_keys() {
    let (now, other) = (Instant::now(), ModelName::from("other"));
    let mut keys = keys(&["a"], None, now);
    rest(&mut keys, "a", &spent(Some(HOUR)), now);
    assert!(keys.are_out(&model(), now) && keys.pick(&other, &[], now).is_ok());
    assert_eq!(keys.resting(now).count(), 1);
    rest(&mut keys, "a", &spent(None), now);
    assert!(keys.are_out(&other, now));
}

#[test]
fn a_failure_of_the_call_does_not_rest_the_key() {
    let now = Instant::now();
    let mut keys = keys(&["a"], None, now);
    let id = keys.pick(&model(), &[], now).unwrap().id.clone();
    let failure = Failure::new(Class::RateLimit, "slow down");
    assert_eq!(refuse(&mut keys, &id, &model(), &failure, now), Blame::NotTheKey);
}

#[test]
fn a_key_that_is_refused_again_rests_twice_as_long_until_it_is_answered() {
    let mut now = Instant::now();
    let mut keys = keys(&["a"], None, now);
    for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
        // Attempts that left together are one rest.
        rest(&mut keys, "a", &spent(None), now);
        rest(&mut keys, "a", &spent(None), now);
        let until = now + Duration::from_secs(seconds);
        assert!(keys.are_out(&model(), until - Duration::from_millis(1)), "{seconds}");
        assert!(!keys.are_out(&model(), until), "{seconds}");
        now = until;
    }
    let id = keys.pick(&model(), &[], now).unwrap().id.clone();
    keys.answered(&id, &model());
    rest(&mut keys, "a", &spent(None), now);
    assert!(!keys.are_out(&model(), now + FIRST_REST));
}

#[test]
fn a_spent_quota_rests_its_key_for_as_long_as_the_provider_says_and_else_for_a_while() {
    let seconds = Duration::from_secs;
    let mut short = refused();
    short.retry_after = Some(seconds(5));
    for (failure, rests) in [
        (spent(Some(seconds(120))), seconds(120)),
        (spent(Some(9 * HOUR)), 9 * HOUR),
        (spent(Some(seconds(1))), NAMED_AT_LEAST),
        (spent(None), FIRST_REST),
        (short, FIRST_REST),
    ] {
        let now = Instant::now();
        let mut keys = keys(&["a"], None, now);
        rest(&mut keys, "a", &failure, now);
        assert!(
            keys.are_out(&model(), now + rests - seconds(1)) && !keys.are_out(&model(), now + rests),
            "{failure:?}"
        );
    }
}

#[test]
fn keys_take_turns_on_schedule_and_those_that_rest_are_passed_over() {
    let now = Instant::now();
    let mut keys = keys(&["a", "b", "c"], Some(HOUR), now);
    let day = |keys: &Keys| (0..6).map(|hour| used(keys, now + hour * HOUR)).collect::<String>();
    assert_eq!(day(&keys), "abcabc");
    assert_eq!(used(&keys, now + HOUR - Duration::from_secs(1)), "a");
    rest(&mut keys, "b", &spent(Some(4 * HOUR)), now);
    assert_eq!(day(&keys), "accabc");
}

#[test]
fn without_a_schedule_the_best_key_is_used_for_ever() {
    let now = Instant::now();
    assert_eq!(used(&keys(&["a", "b"], None, now), now + 1000 * HOUR), "a");
}

#[test]
fn another_key_in_the_file_is_used_at_once_and_what_was_said_of_the_old_one_is_forgotten() {
    let now = Instant::now();
    let mut keys = keys(&["/a"], None, now);
    let old = keys.pick(&model(), &[], now).unwrap().id.clone();
    refuse(&mut keys, &old, &model(), &spent(None), now);
    assert!(keys.are_out(&model(), now));
    assert!(matches!(keys.renew(&old.label, Ok(Some(secret("new"))), now), Renewed::Changed));
    assert!(keys.pick(&model(), &[], now).unwrap().is(&secret("new")));
    // Calls that left with the old key come back refused: that is no word on the new one.
    assert_eq!(refuse(&mut keys, &old, &model(), &refused(), now), Blame::TheKey);
    assert!(keys.pick(&model(), &[], now).is_ok());
}

#[test]
fn a_refused_key_is_waited_for_while_its_file_is_read() {
    let now = Instant::now();
    let mut keys = keys(&["/a"], None, now);
    assert!(keys.files_to_read(now).is_empty());
    rest(&mut keys, "/a", &refused(), now);
    assert_eq!(keys.pick(&model(), &[], now).unwrap_err(), NoKey::Soon(now + DOUBT));
    assert!(
        !keys.are_out(&model(), now) && keys.are_out(&model(), now + DOUBT),
        "a disk that hangs is not waited for"
    );
    assert_eq!(keys.files_to_read(now).len(), 1);
    let before = now.checked_sub(Duration::from_millis(1)).unwrap();
    keys.renew(&"/a".into(), Ok(Some(secret("/a"))), before);
    assert!(!keys.are_out(&model(), now), "what was read before it was refused proves nothing");
    keys.renew(&"/a".into(), Ok(Some(secret("/a"))), now);
    assert!(keys.are_out(&model(), now));
}

#[test]
fn another_key_is_used_without_waiting_for_a_file() {
    let now = Instant::now();
    let mut keys = keys(&["/a", "b"], None, now);
    rest(&mut keys, "/a", &refused(), now);
    assert_eq!(used(&keys, now), "b");
}

#[test]
fn a_file_that_gives_no_key_keeps_the_old_one_and_is_told_once() {
    let now = Instant::now();
    let mut keys = keys(&["/a"], None, now);
    let empty = || Err(KeyError::Empty { label: "/a".into() });
    let label = KeyLabel::from("/a");
    assert!(matches!(keys.renew(&label, empty(), now), Renewed::Unreadable(_)));
    assert!(matches!(keys.renew(&label, empty(), now), Renewed::Not));
    assert!(keys.pick(&model(), &[], now).unwrap().is(&secret("/a")));
    assert!(matches!(keys.renew(&label, Ok(Some(secret("/a"))), now), Renewed::Not));
    assert!(matches!(keys.renew(&label, empty(), now), Renewed::Unreadable(_)), "it is news again");
}

#[test]
fn files_are_read_every_few_seconds_and_other_keys_never() {
    let now = Instant::now();
    let mut keys = keys(&["/a", "b"], None, now);
    assert!(keys.files_to_read(now).is_empty());
    let due: Vec<_> = keys.files_to_read(now + READ_EVERY).into_iter().map(|(label, _)| label).collect();
    assert_eq!(due, ["/a".into()]);
    assert!(keys.files_to_read(now + READ_EVERY).is_empty());
}

#[test]
fn a_key_that_has_answered_rests_only_after_three_refusals_in_a_row() {
    let now = Instant::now();
    let mut keys = keys(&["a"], None, now);
    let key = keys.pick(&model(), &[], now).unwrap().id.clone();
    keys.answered(&key, &model());
    for blame in [Blame::Open, Blame::Open, Blame::TheKey] {
        assert!(!keys.are_out(&model(), now));
        assert_eq!(refuse(&mut keys, &key, &model(), &refused(), now), blame);
    }
    assert!(keys.are_out(&model(), now));
}

#[test]
fn answers_between_refusals_keep_a_key_in_use() {
    let now = Instant::now();
    let mut keys = keys(&["a"], None, now);
    let key = keys.pick(&model(), &[], now).unwrap().id.clone();
    for _ in 0..100 {
        keys.answered(&key, &model());
        assert_eq!(refuse(&mut keys, &key, &model(), &refused(), now), Blame::Open);
        assert_eq!(refuse(&mut keys, &key, &model(), &refused(), now), Blame::Open);
    }
    assert!(!keys.are_out(&model(), now));
}

#[test]
fn a_refusal_that_names_the_model_rests_the_key_for_that_model_only() {
    let now = Instant::now();
    let other = ModelName::from("other");
    let mut keys = keys(&["a", "b"], None, now);
    let blocked = refused().reaching(Scope::Model);
    rest(&mut keys, "a", &blocked, now);
    assert_eq!(used(&keys, now), "b");
    assert_eq!(keys.pick(&other, &[], now).unwrap().id.label.as_str(), "a");
}

#[test]
fn a_key_that_a_request_was_refused_with_is_used_for_it_only_where_there_is_no_other() {
    let now = Instant::now();
    let mut keys = keys(&["a", "b"], None, now);
    let ids: Vec<KeyId> = keys.held.iter().map(|held| held.key.id.clone()).collect();
    assert_eq!(keys.pick(&model(), &ids[..1], now).unwrap().id.label.as_str(), "b");
    assert!(keys.has_other(&model(), &ids[..1], now) && !keys.has_other(&model(), &ids, now));
    rest(&mut keys, "b", &refused(), now);
    assert_eq!(keys.pick(&model(), &ids[..1], now).unwrap().id.label.as_str(), "a");
    assert!(!keys.has_other(&model(), &ids[..1], now));
}

#[test]
fn a_file_is_read_at_the_first_refusal_of_a_key_that_has_answered() {
    let now = Instant::now();
    let mut keys = keys(&["/a"], None, now);
    let key = keys.pick(&model(), &[], now).unwrap().id.clone();
    keys.answered(&key, &model());
    assert_eq!(refuse(&mut keys, &key, &model(), &refused(), now), Blame::Open);
    assert_eq!(keys.files_to_read(now).len(), 1);
    keys.renew(&"/a".into(), Ok(Some(secret("/a"))), now);
    assert!(!keys.are_in_doubt(now) && !keys.are_out(&model(), now));
}
