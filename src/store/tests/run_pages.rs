//! Pages of runs contain what their filter describes.

use super::*;

async fn stored(store: &Sqlite, identity: &str, name: &str, state: RunState) -> RunNumber {
    let metadata = RunMetadata { name: name.into(), ..metadata("a") };
    let run = store.create(identity, &metadata).await.unwrap();
    store.set_state(run, state).await.unwrap();
    run
}

/// Stores 24 runs that differ in all that a filter describes.
async fn store_runs(store: &Sqlite) -> Vec<StoredRun> {
    let identities = ["daemon:a:1", "daemon:b", "daemon", "daemon:\u{10ffff}x", "emails on %_", ""];
    let names = ["email", "Email", "e%"];
    let states = [
        RunState::Running,
        RunState::Completed,
        RunState::Stopped,
        RunState::Paused,
        RunState::IoFailed,
        RunState::Cancelled,
        RunState::Stopped,
    ];
    for number in 0..24 {
        let identity = identities[number % identities.len()];
        stored(store, identity, names[number / 2 % names.len()], states[number % states.len()]).await;
    }
    let runs = store.runs().await.unwrap();
    assert_eq!(runs.len(), 24);
    runs
}

#[tokio::test]
async fn a_page_has_the_latest_runs_that_its_filter_describes() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let runs = store_runs(&store).await;
    let mut pages = 0;
    let mut found = 0;
    for state in [None, Some(RunState::Running), Some(RunState::Stopped), Some(RunState::Cancelled)] {
        for name in [None, Some("email"), Some("e%"), Some("mail")] {
            for prefix in [None, Some(""), Some("daemon:"), Some("daemon:\u{10ffff}"), Some("%"), Some("é")]
            {
                for (before, max) in [(None, 100), (Some(12), 3), (Some(1), 5), (None, 0), (None, 1)] {
                    let is_in = |run: &&StoredRun| {
                        state.is_none_or(|state| run.state == state)
                            && name.is_none_or(|name| run.metadata.name == name)
                            && prefix.is_none_or(|prefix| run.identity.starts_with(prefix))
                            && before.is_none_or(|before| run.number.0 < before)
                    };
                    let expected: Vec<_> = runs.iter().filter(is_in).take(max as usize).cloned().collect();
                    let filter = RunFilter {
                        state,
                        name: name.map(str::to_owned),
                        identity_prefix: prefix.map(str::to_owned),
                        before: before.map(RunNumber),
                        max,
                    };
                    pages += 1;
                    found += expected.len();
                    assert_eq!(store.runs_page(&filter).await.unwrap(), expected, "{filter:?}");
                }
            }
        }
    }
    assert!(pages == 480 && found > 200, "{pages} pages, {found} runs");
}

#[tokio::test]
async fn pages_that_follow_each_other_have_each_run_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let runs = store_runs(&store).await;
    let mut filter = RunFilter { identity_prefix: Some("daemon".into()), max: 5, ..RunFilter::default() };
    let mut found = Vec::new();
    loop {
        let page = store.runs_page(&filter).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.before = Some(last.number);
        found.extend(page);
        // A run that begins in the meantime is on no later page.
        stored(&store, "daemon:a:2", "email", RunState::Running).await;
    }
    let expected: Vec<_> = runs.into_iter().filter(|run| run.identity.starts_with("daemon")).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn runs_that_are_running_or_stopped_are_unfinished() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut runs = store_runs(&store).await;
    runs.reverse();
    for prefix in ["daemon:", "", "daemon:a:1", "none"] {
        let is_unfinished = |run: &&StoredRun| {
            matches!(run.state, RunState::Running | RunState::Stopped) && run.identity.starts_with(prefix)
        };
        let expected: Vec<_> = runs.iter().filter(is_unfinished).cloned().collect();
        assert_eq!(expected.is_empty(), prefix == "none");
        assert_eq!(store.unfinished_runs(prefix).await.unwrap(), expected, "{prefix}");
    }
}

#[tokio::test]
async fn a_damaged_run_is_reported_by_a_page_that_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let run = stored(&store, "daemon:a", "email", RunState::Completed).await;
    stored(&store, "daemon:b", "email", RunState::Completed).await;
    store.close().await;
    edit(&folder.path().join("a.db"), "UPDATE runs SET state = 'running' WHERE run = 1").await;
    let store = open(folder.path()).await;
    let all = RunFilter { max: 10, ..RunFilter::default() };
    for refused in [store.runs_page(&all).await, store.unfinished_runs("").await] {
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("a row of runs: the checksum"), "{refused}");
    }
    let latest = store.runs_page(&RunFilter { max: 1, ..all }).await.unwrap();
    assert!(latest.len() == 1 && latest[0].number > run);
}
