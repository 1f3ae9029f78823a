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

fn quota_exhausted(retry_after: Option<Duration>) -> Failure {
    let mut failure = Failure::new(Class::Quota, "no more today");
    failure.retry_after = retry_after;
    failure
}

fn used(keys: &Keys, now: Instant) -> String {
    keys.pick(&model(), &[], now).unwrap().id.label.to_string()
}

/// Refuses a new request with this key.
fn refuse(keys: &mut Keys, key: &KeyId, model: &ModelName, failure: &Failure, now: Instant) -> KeyFault {
    let request = Arc::new(Prompt::text("?"));
    refuse_request(keys, key, model, failure, &Arc::downgrade(&request), now)
}

fn refuse_request(
    keys: &mut Keys,
    key: &KeyId,
    model: &ModelName,
    failure: &Failure,
    request: &Weak<Prompt>,
    now: Instant,
) -> KeyFault {
    let is_explicit = failure.scope != FailureScope::Unclear;
    let attempt = RefusedAttempt { request, is_explicit, oldest_pending: None, latest_sent: 0 };
    keys.on_refused(key, model, failure, attempt, now)
}

/// Starts a cooldown of the key with this label.
fn start_cooldown(keys: &mut Keys, label: &str, failure: &Failure, now: Instant) {
    let id = keys.entries.iter().map(|entry| entry.key.id.clone()).find(|id| id.label.as_str() == label);
    assert_eq!(refuse(keys, &id.unwrap(), &model(), failure, now), KeyFault::AtFault);
}

#[test]
fn a_refused_key_gets_a_cooldown_and_the_next_key_is_used() {
    let now = Instant::now();
    let mut keys = keys(&["a", "b"], None, now);
    start_cooldown(&mut keys, "a", &refused(), now);
    assert_eq!(used(&keys, now), "b");
    assert_eq!(used(&keys, now + MAX_BACKOFF_COOLDOWN), "a");
}

#[test]
fn a_later_shorter_cooldown_does_not_replace_a_longer_one() {
    let now = Instant::now();
    let mut keys = keys(&["a", "b"], None, now);
    let long = Failure { retry_after: Some(2 * HOUR), ..refused() };
    start_cooldown(&mut keys, "a", &long, now);
    start_cooldown(&mut keys, "a", &refused(), now);
    start_cooldown(&mut keys, "b", &quota_exhausted(Some(3 * HOUR)), now);
    start_cooldown(&mut keys, "b", &quota_exhausted(Some(HOUR)), now);
    assert_eq!(keys.pick(&model(), &[], now + HOUR).unwrap_err(), NoUsableKey::AllCoolingDown(long));
    assert_eq!(used(&keys, now + 2 * HOUR), "a");
}

#[test]
fn when_no_key_is_usable_the_failure_that_ends_first_is_returned() {
    let now = Instant::now();
    let mut keys = keys(&["a", "b"], None, now);
    start_cooldown(&mut keys, "a", &refused(), now);
    start_cooldown(&mut keys, "b", &quota_exhausted(None), now + MAX_BACKOFF_COOLDOWN);
    assert_eq!(keys.pick(&model(), &[], now).unwrap_err(), NoUsableKey::AllCoolingDown(refused()));
    assert!(keys.none_usable(&model(), now) && !keys.none_usable(&model(), now + MAX_BACKOFF_COOLDOWN));
}

#[test]
fn a_new_key_in_the_file_does_not_inherit_an_exhausted_quota() {
    let now = Instant::now();
    let mut keys = keys(&["/a"], None, now);
    start_cooldown(&mut keys, "/a", &quota_exhausted(Some(HOUR)), now);
    assert!(keys.none_usable(&model(), now));
    let outcome = keys.apply_file(&"/a".into(), Ok(Some(secret("new"))), now);
    assert!(matches!(outcome, ReloadOutcome::Replaced) && !keys.none_usable(&model(), now));
}

#[test]
fn a_daily_quota_applies_to_its_model_and_exhausted_credit_to_the_key() {
    let now = Instant::now();
    let other = ModelName::from("other");
    let mut keys = keys(&["a"], None, now);
    start_cooldown(&mut keys, "a", &quota_exhausted(Some(HOUR)), now);
    assert!(keys.none_usable(&model(), now) && keys.pick(&other, &[], now).is_ok());
    assert_eq!(keys.cooling_down(now).count(), 1);
    start_cooldown(&mut keys, "a", &quota_exhausted(None), now);
    assert!(keys.none_usable(&other, now));
}

#[test]
fn a_failure_of_the_call_starts_no_cooldown() {
    let now = Instant::now();
    let mut keys = keys(&["a"], None, now);
    let id = keys.pick(&model(), &[], now).unwrap().id.clone();
    let failure = Failure::new(Class::RateLimit, "slow down");
    assert_eq!(refuse(&mut keys, &id, &model(), &failure, now), KeyFault::NotAtFault);
}

#[test]
fn the_cooldown_doubles_with_each_refusal_until_a_call_is_answered() {
    let mut now = Instant::now();
    let mut keys = keys(&["a"], None, now);
    for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
        // Attempts that were sent together count as one cooldown.
        start_cooldown(&mut keys, "a", &quota_exhausted(None), now);
        start_cooldown(&mut keys, "a", &quota_exhausted(None), now);
        let until = now + Duration::from_secs(seconds);
        assert!(keys.none_usable(&model(), until - Duration::from_millis(1)), "{seconds}");
        assert!(!keys.none_usable(&model(), until), "{seconds}");
        now = until;
    }
    let id = keys.pick(&model(), &[], now).unwrap().id.clone();
    keys.on_answered(&id, &model());
    start_cooldown(&mut keys, "a", &quota_exhausted(None), now);
    assert!(!keys.none_usable(&model(), now + INITIAL_COOLDOWN));
}

#[test]
fn an_exhausted_quota_starts_the_advertised_cooldown_or_the_initial_one() {
    let seconds = Duration::from_secs;
    let mut short = refused();
    short.retry_after = Some(seconds(5));
    for (failure, cooldown) in [
        (quota_exhausted(Some(seconds(120))), seconds(120)),
        (quota_exhausted(Some(9 * HOUR)), 9 * HOUR),
        (quota_exhausted(Some(seconds(1))), MIN_ADVERTISED_COOLDOWN),
        (quota_exhausted(None), INITIAL_COOLDOWN),
        (short, INITIAL_COOLDOWN),
    ] {
        let now = Instant::now();
        let mut keys = keys(&["a"], None, now);
        start_cooldown(&mut keys, "a", &failure, now);
        assert!(
            keys.none_usable(&model(), now + cooldown - seconds(1))
                && !keys.none_usable(&model(), now + cooldown),
            "{failure:?}"
        );
    }
}

#[test]
fn keys_rotate_on_schedule_and_keys_with_a_cooldown_are_skipped() {
    let now = Instant::now();
    let mut keys = keys(&["a", "b", "c"], Some(HOUR), now);
    let day = |keys: &Keys| (0..6).map(|hour| used(keys, now + hour * HOUR)).collect::<String>();
    assert_eq!(day(&keys), "abcabc");
    assert_eq!(used(&keys, now + HOUR - Duration::from_secs(1)), "a");
    start_cooldown(&mut keys, "b", &quota_exhausted(Some(4 * HOUR)), now);
    assert_eq!(day(&keys), "accabc");
}

#[test]
fn without_rotation_the_first_key_is_always_used() {
    let now = Instant::now();
    assert_eq!(used(&keys(&["a", "b"], None, now), now + 1000 * HOUR), "a");
}

#[test]
fn a_new_key_in_the_file_is_used_at_once_without_the_cooldowns_of_the_old_key() {
    let now = Instant::now();
    let mut keys = keys(&["/a"], None, now);
    let old = keys.pick(&model(), &[], now).unwrap().id.clone();
    refuse(&mut keys, &old, &model(), &quota_exhausted(None), now);
    assert!(keys.none_usable(&model(), now));
    assert!(matches!(keys.apply_file(&old.label, Ok(Some(secret("new"))), now), ReloadOutcome::Replaced));
    assert!(keys.pick(&model(), &[], now).unwrap().has_secret(&secret("new")));
    // A refusal of a call that was sent with the old key does not affect the new key.
    assert_eq!(refuse(&mut keys, &old, &model(), &refused(), now), KeyFault::AtFault);
    assert!(keys.pick(&model(), &[], now).is_ok());
}

#[test]
fn calls_wait_while_the_file_of_a_refused_key_is_read() {
    let now = Instant::now();
    let mut keys = keys(&["/a"], None, now);
    assert!(keys.files_to_read(now).is_empty());
    start_cooldown(&mut keys, "/a", &refused(), now);
    assert_eq!(keys.pick(&model(), &[], now).unwrap_err(), NoUsableKey::Rechecking(now + MAX_RECHECK_WAIT));
    assert!(
        !keys.none_usable(&model(), now) && keys.none_usable(&model(), now + MAX_RECHECK_WAIT),
        "calls do not wait for a disk that hangs"
    );
    assert_eq!(keys.files_to_read(now).len(), 1);
    let before = now.checked_sub(Duration::from_millis(1)).unwrap();
    keys.apply_file(&"/a".into(), Ok(Some(secret("/a"))), before);
    assert!(!keys.none_usable(&model(), now), "a file that was read before the refusal proves nothing");
    keys.apply_file(&"/a".into(), Ok(Some(secret("/a"))), now);
    assert!(keys.none_usable(&model(), now));
}

#[test]
fn another_key_is_used_without_waiting_for_a_file() {
    let now = Instant::now();
    let mut keys = keys(&["/a", "b"], None, now);
    start_cooldown(&mut keys, "/a", &refused(), now);
    assert_eq!(used(&keys, now), "b");
}

#[test]
fn an_unreadable_key_file_keeps_the_old_key_and_is_reported_once() {
    let now = Instant::now();
    let mut keys = keys(&["/a"], None, now);
    let empty = || Err(KeyError::Empty { label: "/a".into() });
    let label = KeyLabel::from("/a");
    assert!(matches!(keys.apply_file(&label, empty(), now), ReloadOutcome::Unreadable(_)));
    assert!(matches!(keys.apply_file(&label, empty(), now), ReloadOutcome::Unchanged));
    assert!(keys.pick(&model(), &[], now).unwrap().has_secret(&secret("/a")));
    assert!(matches!(keys.apply_file(&label, Ok(Some(secret("/a"))), now), ReloadOutcome::Unchanged));
    assert!(
        matches!(keys.apply_file(&label, empty(), now), ReloadOutcome::Unreadable(_)),
        "it is reported again"
    );
}

#[test]
fn key_files_are_read_every_two_seconds_and_other_keys_never() {
    let now = Instant::now();
    let mut keys = keys(&["/a", "b"], None, now);
    assert!(keys.files_to_read(now).is_empty());
    let due: Vec<_> =
        keys.files_to_read(now + FILE_READ_INTERVAL).into_iter().map(|(label, _)| label).collect();
    assert_eq!(due, ["/a".into()]);
    assert!(keys.files_to_read(now + FILE_READ_INTERVAL).is_empty());
}

#[test]
fn a_key_that_has_worked_gets_a_cooldown_only_after_three_refusals_in_a_row() {
    let now = Instant::now();
    let mut keys = keys(&["a"], None, now);
    let key = keys.pick(&model(), &[], now).unwrap().id.clone();
    keys.on_answered(&key, &model());
    for fault in [KeyFault::Undecided, KeyFault::Undecided, KeyFault::AtFault] {
        assert!(!keys.none_usable(&model(), now));
        assert_eq!(refuse(&mut keys, &key, &model(), &refused(), now), fault);
    }
    assert!(keys.none_usable(&model(), now));
}

#[test]
fn answers_between_refusals_keep_a_key_in_use() {
    let now = Instant::now();
    let mut keys = keys(&["a"], None, now);
    let key = keys.pick(&model(), &[], now).unwrap().id.clone();
    for _ in 0..100 {
        keys.on_answered(&key, &model());
        assert_eq!(refuse(&mut keys, &key, &model(), &refused(), now), KeyFault::Undecided);
        assert_eq!(refuse(&mut keys, &key, &model(), &refused(), now), KeyFault::Undecided);
    }
    assert!(!keys.none_usable(&model(), now));
}

#[test]
fn a_refusal_that_names_the_model_starts_a_cooldown_for_that_model_only() {
    let now = Instant::now();
    let other = ModelName::from("other");
    let mut keys = keys(&["a", "b"], None, now);
    let blocked = refused().with_scope(FailureScope::Model);
    start_cooldown(&mut keys, "a", &blocked, now);
    assert_eq!(used(&keys, now), "b");
    assert_eq!(keys.pick(&other, &[], now).unwrap().id.label.as_str(), "a");
}

#[test]
fn an_excluded_key_is_used_only_if_there_is_no_other() {
    let now = Instant::now();
    let mut keys = keys(&["a", "b"], None, now);
    let ids: Vec<KeyId> = keys.entries.iter().map(|entry| entry.key.id.clone()).collect();
    assert_eq!(keys.pick(&model(), &ids[..1], now).unwrap().id.label.as_str(), "b");
    assert!(keys.has_other(&model(), &ids[..1], now) && !keys.has_other(&model(), &ids, now));
    start_cooldown(&mut keys, "b", &refused(), now);
    assert_eq!(keys.pick(&model(), &ids[..1], now).unwrap().id.label.as_str(), "a");
    assert!(!keys.has_other(&model(), &ids[..1], now));
}

#[test]
fn the_key_file_is_read_at_the_first_refusal_of_a_key_that_has_worked() {
    let now = Instant::now();
    let mut keys = keys(&["/a"], None, now);
    let key = keys.pick(&model(), &[], now).unwrap().id.clone();
    keys.on_answered(&key, &model());
    assert_eq!(refuse(&mut keys, &key, &model(), &refused(), now), KeyFault::Undecided);
    assert_eq!(keys.files_to_read(now).len(), 1);
    keys.apply_file(&"/a".into(), Ok(Some(secret("/a"))), now);
    assert!(!keys.needs_recheck(now) && !keys.none_usable(&model(), now));
}

#[test]
fn a_refusal_that_may_concern_one_request_is_no_failure_of_the_account_until_its_key_is_at_fault() {
    let unclear = refused().with_scope(FailureScope::Unclear);
    let explicit = refused().with_scope(FailureScope::Class);
    for (key_fault, of_unclear) in [
        (KeyFault::Undecided, Class::ApiError),
        (KeyFault::AtFault, Class::Auth),
        (KeyFault::NotAtFault, Class::Auth),
    ] {
        assert_eq!((key_fault.class_of(&unclear), key_fault.class_of(&explicit)), (of_unclear, Class::Auth));
    }
}

fn prepared(labels: &[(&str, &str)]) -> Vec<PreparedKey> {
    let key =
        |(label, value): &(&str, &str)| Key { label: (*label).into(), secret: secret(value), file: None };
    let keys: Vec<Key> = labels.iter().map(key).collect();
    Keys::prepare(Format::Openai, &keys).unwrap()
}

#[test]
fn a_key_that_stays_keeps_its_cooldown_and_a_changed_one_begins_without() {
    let now = Instant::now();
    let mut keys = keys(&["a", "b"], None, now);
    start_cooldown(&mut keys, "a", &quota_exhausted(None), now);
    start_cooldown(&mut keys, "b", &quota_exhausted(None), now);
    let old = keys.entries[0].key.id.clone();
    // The first source has another key, and the second one moves to the front.
    keys.replace(prepared(&[("b", "b"), ("a", "other")]), None);
    assert_eq!(keys.labels().iter().map(KeyLabel::as_str).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(used(&keys, now), "a", "only the new key has no cooldown");
    // A call in flight with the old key says nothing about the new one.
    let failure = quota_exhausted(None);
    refuse(&mut keys, &old, &model(), &failure, now);
    assert_eq!(used(&keys, now), "a");
    // The same key under another label.
    keys.replace(prepared(&[("c", "b")]), None);
    assert!(keys.none_usable(&model(), now));
    assert!(!keys.snapshots(now)[0].usable);
}

#[test]
fn a_provider_may_come_to_need_a_key_or_need_none_any_more() {
    let now = Instant::now();
    let mut keys = keys(&[], None, now);
    keys.replace(prepared(&[("a", "a")]), None);
    assert_eq!(used(&keys, now), "a");
    keys.replace(prepared(&[]), None);
    assert_eq!(used(&keys, now), "no key");
}
