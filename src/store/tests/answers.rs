//! The answer cache: what is added to it, found in it, and removed from it.

use super::*;

/// An hour before and after the times of the store.
const HOUR: Duration = Duration::from_secs(3_600);

fn key(name: &str) -> Fingerprint {
    Fingerprint::of([name.as_bytes()])
}

/// Returns a step with an answer that belongs in the cache.
fn cached(name: &str, answer: Value) -> StepRecord {
    StepRecord { cache_key: Some(key(name)), ..answered("category", answer) }
}

async fn found(store: &Sqlite, names: &[&str]) -> Vec<Value> {
    let keys: Vec<_> = names.iter().map(|name| key(name)).collect();
    let mut answers = store.cached_answers(&keys).await.unwrap();
    let place = |answer: &CachedAnswer| keys.iter().position(|key| *key == answer.key);
    answers.sort_by_key(place);
    answers.into_iter().map(|answer| answer.answer).collect()
}

/// Writes answers of a run, each as an item of its own.
async fn write(store: &Sqlite, run: RunNumber, names: &[&str]) {
    let number = |at: usize| i64::try_from(at).unwrap() + 1;
    let records = names.iter().enumerate();
    let records = records.map(|(at, name)| record(run, number(at), vec![cached(name, json!(name))], None));
    store.write_records(&records.collect::<Vec<_>>()).await.unwrap();
}

#[tokio::test]
async fn only_an_own_complete_answer_is_added_and_found_with_the_attempt_that_gave_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    let with_key = |step: StepRecord| StepRecord { cache_key: Some(key("other")), ..step };
    let reused = Some(Box::new(attempt(Some(7), Outcome::Answered)));
    let steps = vec![
        cached("a", json!({ "x": [1, "é"] })),
        StepRecord { step: "b".into(), ..with_key(failed("b")) },
        StepRecord { step: "c".into(), restored_from: Some(1), ..with_key(answered("c", json!("no"))) },
        StepRecord { step: "d".into(), reused, ..with_key(answered("d", json!("no"))) },
        answered("e", json!("no key")),
    ];
    store.write_records(&[record(run, 1, steps, None)]).await.unwrap();
    let answers = store.cached_answers(&[key("other"), key("a"), key("a"), key("none")]).await.unwrap();
    assert_eq!(answers.len(), 1);
    let CachedAnswer { key: found, answer, answered_by, simulated, bytes } = &answers[0];
    assert_eq!((*found, answer, *simulated), (key("a"), &json!({ "x": [1, "é"] }), false));
    assert_eq!(*answered_by, attempt(Some(40), Outcome::Answered));
    assert!(*bytes > 100);
    assert_eq!(store.cached_answers(&[]).await.unwrap(), []);
    // Many keys take few queries.
    let names: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    write(&store, run, &names).await;
    assert_eq!(found_number(&store, &names).await, 300);
}

async fn found_number(store: &Sqlite, names: &[&str]) -> usize {
    found(store, names).await.len()
}

#[tokio::test]
async fn a_reused_answer_is_read_with_its_attempt_and_has_no_cost() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let first = begun(&store).await;
    write(&store, first, &["a"]).await;
    let second = begun(&store).await;
    let answered_by = attempt(Some(40), Outcome::Answered);
    let reused = StepRecord {
        attempts: AttemptLog::default(),
        reused: Some(Box::new(answered_by.clone())),
        ..cached("a", json!("a"))
    };
    // Twice the same, as after a commit that is repeated.
    for _ in 0..2 {
        store.write_records(&[record(second, 1, vec![reused.clone()], None)]).await.unwrap();
    }
    let restored = StepRecord { restored_from: Some(1), reused: None, cache_key: None, ..reused.clone() };
    let again = Record { session: 2, ..record(second, 1, vec![restored], None) };
    store.write_records(&[again]).await.unwrap();
    let steps = store.items(second, ItemNumber(0), 9).await.unwrap().remove(0).steps;
    assert_eq!(steps.len(), 2);
    for step in &steps {
        assert_eq!((&step.record.answer, step.answered_by.as_ref()), (&json!("a"), Some(&answered_by)));
    }
    assert_eq!(steps[0].record.reused.as_deref(), Some(&answered_by));
    let totals = store.totals(second).await.unwrap();
    assert_eq!((totals.usage.calls, totals.usage.cost), (0, NanoUsd(0)));
    assert_eq!(store.spent_by(second).await.unwrap(), BTreeMap::new());
    let targets = store.cached_targets().await.unwrap();
    assert_eq!(targets.len(), 1);
    assert_eq!((targets[0].target.as_str(), targets[0].entries, targets[0].hits), ("claude/haiku", 1, 2));
    assert_eq!(targets[0].cost, NanoUsd(40));
}

#[tokio::test]
async fn a_later_answer_takes_the_place_of_an_earlier_one_and_its_run_owns_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let first = begun(&store).await;
    let second = begun(&store).await;
    write(&store, first, &["a", "b"]).await;
    let later = record(second, 1, vec![cached("a", json!("later"))], None);
    store.write_records(&[later]).await.unwrap();
    assert_eq!(found(&store, &["a", "b"]).await, [json!("later"), json!("b")]);
    store.delete_runs(&[first]).await.unwrap();
    assert_eq!(found(&store, &["a", "b"]).await, [json!("later")]);
    store.delete_runs(&[second]).await.unwrap();
    assert_eq!(found(&store, &["a", "b"]).await, Vec::<Value>::new());
}

#[tokio::test]
async fn the_answers_that_were_not_used_for_the_longest_time_are_removed_first() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    write(&store, run, &["a", "b", "c"]).await;
    // Their last uses, in hours before now.
    for (name, hours) in [("a", 5_i64), ("b", 50), ("c", 20)] {
        let digits: String = key(name).0.iter().map(|byte| format!("{byte:02x}")).collect();
        let sql = format!(
            "UPDATE answers SET last_used_at = last_used_at - 3600000 * {hours} WHERE key = x'{digits}'"
        );
        store.execute(&sql).await;
    }
    let limits = |hours: u32| CacheLimits { max_age: Some(HOUR * hours), ..CacheLimits::NONE };
    assert_eq!(store.prune_cache(CacheLimits::default()).await.unwrap(), PrunedAnswers::default());
    assert_eq!(store.prune_cache(limits(60)).await.unwrap().entries, 0);
    assert_eq!(store.prune_cache(limits(30)).await.unwrap().entries, 1);
    assert_eq!(found(&store, &["a", "b", "c"]).await, [json!("a"), json!("c")]);
    // A use makes an answer young.
    let reused = Some(Box::new(attempt(Some(40), Outcome::Answered)));
    let used = StepRecord { reused, ..cached("c", json!("c")) };
    store.write_records(&[record(run, 9, vec![used], None)]).await.unwrap();
    let bytes = store.cached_targets().await.unwrap()[0].bytes;
    let pruned = store.prune_cache(CacheLimits { max_bytes: Some(bytes - 1), max_age: None }).await.unwrap();
    assert_eq!((pruned.entries, found(&store, &["a", "c"]).await), (1, vec![json!("c")]));
    assert!(pruned.bytes > 0 && pruned.bytes < bytes);
    assert_eq!(
        store.prune_cache(CacheLimits { max_bytes: Some(0), max_age: None }).await.unwrap().entries,
        1
    );
}

#[tokio::test]
async fn a_cached_answer_that_is_not_what_was_written_is_not_used_and_the_others_are() {
    for change in [
        "UPDATE answers SET answer = '\"b\"'",
        "UPDATE answers SET attempt = replace(attempt, 'haiku', 'other')",
        "UPDATE answers SET simulated = 1",
        "UPDATE answers SET run = run + 1",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path()).await;
        let run = begun(&store).await;
        write(&store, run, &["a", "b"]).await;
        let digits: String = key("a").0.iter().map(|byte| format!("{byte:02x}")).collect();
        store.execute(&format!("{change} WHERE key = x'{digits}'")).await;
        assert_eq!(found(&store, &["a", "b"]).await, [json!("b")], "{change}");
    }
    // The numbers of uses are not a part of the answer.
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = begun(&store).await;
    write(&store, run, &["a"]).await;
    store.execute("UPDATE answers SET hits = 7").await;
    assert_eq!(found(&store, &["a"]).await, [json!("a")]);
}

#[tokio::test]
async fn a_database_of_an_earlier_version_gets_an_empty_cache() {
    let folder = tempfile::tempdir().unwrap();
    copy_of_version_3(folder.path());
    let store = open(folder.path()).await;
    assert_eq!(store.cached_targets().await.unwrap(), []);
    let items = store.items(RunNumber(1), ItemNumber(0), 99).await.unwrap();
    assert!(items.iter().flat_map(|item| &item.steps).all(|step| step.record.reused.is_none()));
    let run = begun(&store).await;
    write(&store, run, &["a"]).await;
    assert_eq!(found(&store, &["a"]).await, [json!("a")]);
}
