//! The tokens in memory, by ID, so that a request reads the store seldom.
//!
//! They are read from the store again when they are older than two seconds, because `pointsman token` writes the same store
//! from another process. An unknown ID is looked up at once, because its token may be new. All tokens are read together, and
//! [`MAX_LOOKUPS`] bounds how often unknown IDs make the daemon read the store.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::token_store::{StoredToken, TokenStore};
use super::token_text::{PresentedToken, TokenHash};

/// How old the tokens in memory may be.
const MAX_AGE: Duration = Duration::from_secs(2);

/// How often unknown IDs make the daemon read the store within [`LOOKUP_INTERVAL`], for all callers together.
const MAX_LOOKUPS: u32 = 5;

/// See [`MAX_LOOKUPS`].
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);

/// Interval between two lines in the log about tokens that were refused.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The tokens in memory.
#[derive(Debug)]
pub(super) struct TokenIndex {
    tokens: TokenStore,
    /// Held while the tokens are read or changed.
    reading: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    by_id: HashMap<String, Arc<StoredToken>>,
    last_read: Option<LastRead>,
    /// The last use of each token, by name.
    uses: HashMap<String, LastUse>,
    refusals: Refusals,
    lookups: Lookups,
}

/// Lookups of unknown IDs since `since`.
#[derive(Debug, Default)]
struct Lookups {
    since: Option<Instant>,
    count: u32,
}

#[derive(Debug, Clone, Copy)]
struct LastRead {
    at: Instant,
    has_failed: bool,
}

#[derive(Debug, Clone, Copy)]
struct LastUse {
    version: i64,
    at: i64,
    is_stored: bool,
}

#[derive(Debug, Default)]
struct Refusals {
    since_log: u64,
    logged_at: Option<Instant>,
}

/// Whether the tokens in memory can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// They can.
    Fresh,
    /// They have to be read.
    Stale,
    /// They could not be read a moment ago.
    Unreadable,
}

/// What another reading of the tokens has found.
#[derive(Debug, Default)]
pub(super) struct TokenChanges {
    /// Tokens that are new, or have taken the place of another with their name.
    pub(super) added: Vec<Arc<StoredToken>>,
    /// Tokens that are gone, and those whose place another has taken.
    pub(super) removed: Vec<Arc<StoredToken>>,
}

/// The use of a token that the store does not have yet.
#[derive(Debug)]
pub(super) struct UnstoredUse {
    pub(super) name: String,
    pub(super) version: i64,
    pub(super) at: i64,
}

impl TokenIndex {
    /// Creates an index that has read nothing.
    pub(super) fn new(tokens: TokenStore) -> Self {
        Self { tokens, reading: tokio::sync::Mutex::default(), state: Mutex::default() }
    }

    /// Returns the tokens of the store.
    pub(super) fn tokens(&self) -> &TokenStore {
        &self.tokens
    }

    /// Waits until no other task reads or changes the tokens.
    pub(super) async fn lock_reading(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.reading.lock().await
    }

    /// Returns whether the tokens in memory can be used.
    pub(super) fn freshness(&self, now: Instant) -> Freshness {
        match self.lock().last_read {
            Some(last) if now.saturating_duration_since(last.at) < MAX_AGE => {
                if last.has_failed {
                    Freshness::Unreadable
                } else {
                    Freshness::Fresh
                }
            }
            Some(_) | None => Freshness::Stale,
        }
    }

    /// Returns how these tokens differ from those in memory.
    pub(super) fn compare(&self, loaded: &[Arc<StoredToken>]) -> TokenChanges {
        let state = self.lock();
        let is_same =
            |one: &StoredToken, other: &StoredToken| (&one.name, one.version) == (&other.name, other.version);
        let is_known = |token: &&Arc<StoredToken>| {
            state.by_id.get(token.id()).is_some_and(|known| is_same(known, token))
        };
        let loaded_by_id: HashMap<&str, &Arc<StoredToken>> =
            loaded.iter().map(|token| (token.id(), token)).collect();
        let is_loaded = |token: &&Arc<StoredToken>| {
            loaded_by_id.get(token.id()).is_some_and(|loaded| is_same(loaded, token))
        };
        TokenChanges {
            added: loaded.iter().filter(|token| !is_known(token)).cloned().collect(),
            removed: state.by_id.values().filter(|token| !is_loaded(token)).cloned().collect(),
        }
    }

    /// Replaces the tokens in memory.
    pub(super) fn publish(&self, loaded: Vec<Arc<StoredToken>>, now: Instant) {
        let mut state = self.lock();
        let versions: HashMap<&str, i64> =
            loaded.iter().map(|token| (token.name.as_str(), token.version)).collect();
        state.uses.retain(|name, last| versions.get(name.as_str()) == Some(&last.version));
        state.by_id = loaded.into_iter().map(|token| (token.id().to_owned(), token)).collect();
        state.last_read = Some(LastRead { at: now, has_failed: false });
    }

    /// Records that the tokens could not be read.
    pub(super) fn record_unreadable(&self, now: Instant) {
        self.lock().last_read = Some(LastRead { at: now, has_failed: true });
    }

    /// Returns the token that a caller has presented, if it is valid at `now`, in milliseconds since 1970, and records its
    /// use.
    pub(super) fn find(&self, presented: &PresentedToken<'_>, now: i64) -> Option<Arc<StoredToken>> {
        let known = self.lock().by_id.get(presented.id).cloned();
        let hash = known.as_ref().map_or(TokenHash::OF_NONE, |known| known.hash);
        // Compared in any case, so that the time does not show whether the ID exists.
        let is_equal = hash.is(&presented.hash);
        let found = known.filter(|known| is_equal && !known.is_expired(now))?;
        self.record_use(&found, now);
        Some(found)
    }

    /// Returns this version of a token whose holder has presented it before, if it is still valid, and records its use.
    pub(super) fn find_version(&self, id: &str, version: i64, now: i64) -> Option<Arc<StoredToken>> {
        let known = self.lock().by_id.get(id).cloned();
        let found = known.filter(|known| known.version == version && !known.is_expired(now))?;
        self.record_use(&found, now);
        Some(found)
    }

    /// Returns whether the store may be read for a token that [`find`](Self::find) has not found: its ID is unknown, and not too
    /// many were looked up lately. Counts the lookup.
    pub(super) fn may_look_up(&self, presented: &PresentedToken<'_>, now: Instant) -> bool {
        let mut state = self.lock();
        if state.by_id.contains_key(presented.id) {
            return false;
        }
        let lookups = &mut state.lookups;
        if lookups.since.is_none_or(|since| now.saturating_duration_since(since) >= LOOKUP_INTERVAL) {
            *lookups = Lookups { since: Some(now), count: 0 };
        }
        let is_allowed = lookups.count < MAX_LOOKUPS;
        lookups.count += u32::from(is_allowed);
        is_allowed
    }

    fn record_use(&self, found: &StoredToken, now: i64) {
        let mut state = self.lock();
        match state.uses.get_mut(found.name.as_str()) {
            Some(last) if last.version == found.version && last.at >= now => {}
            Some(last) => *last = LastUse { version: found.version, at: now, is_stored: false },
            None => {
                let first = LastUse { version: found.version, at: now, is_stored: false };
                state.uses.insert(found.name.clone(), first);
            }
        }
    }

    /// Returns when a token was last used, as far as this process knows.
    pub(super) fn last_use(&self, name: &str) -> Option<i64> {
        self.lock().uses.get(name).map(|last| last.at)
    }

    /// Returns the uses that the store does not have, and regards them as stored.
    pub(super) fn take_unstored_uses(&self) -> Vec<UnstoredUse> {
        let mut state = self.lock();
        let unstored = state.uses.iter_mut().filter(|(_, last)| !last.is_stored);
        let taken = unstored.map(|(name, last)| {
            last.is_stored = true;
            UnstoredUse { name: name.clone(), version: last.version, at: last.at }
        });
        taken.collect()
    }

    /// Counts a token that was refused. The log shows their number, at most once a second.
    pub(super) fn record_refusal(&self, now: Instant) {
        let mut state = self.lock();
        let Refusals { since_log, logged_at } = &mut state.refusals;
        *since_log += 1;
        let is_due = logged_at.is_none_or(|at| now.saturating_duration_since(at) >= REFUSAL_LOG_INTERVAL);
        if !is_due {
            return;
        }
        let refused = std::mem::take(since_log);
        *logged_at = Some(now);
        drop(state);
        tracing::warn!(refused, "refused requests with an invalid token");
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::daemon::permission::Permission;
    use crate::daemon::token_store::NewToken;
    use crate::store::Sqlite;
    use crate::types::Secret;

    use super::*;

    async fn index() -> (tempfile::TempDir, TokenIndex) {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("a.db")).await.unwrap();
        (folder, TokenIndex::new(TokenStore::new(Arc::new(store))))
    }

    async fn create(index: &TokenIndex, name: &str) -> Secret {
        let new = NewToken::new(name, [Permission::Run]).with_expires_in(Duration::from_secs(60));
        index.tokens().create(&new, "").await.unwrap().1
    }

    async fn read(index: &TokenIndex) -> TokenChanges {
        let loaded: Vec<_> = index.tokens().load().await.unwrap().into_iter().map(Arc::new).collect();
        let changes = index.compare(&loaded);
        index.publish(loaded, Instant::now());
        changes
    }

    fn names(tokens: &[Arc<StoredToken>]) -> Vec<&str> {
        tokens.iter().map(|token| token.name.as_str()).collect()
    }

    #[tokio::test]
    async fn a_token_is_found_until_it_expires_and_only_with_its_whole_text() {
        let (_folder, index) = index().await;
        let secret = create(&index, "ci").await;
        let presented = PresentedToken::parse(secret.expose()).unwrap();
        let now = crate::clock::milliseconds();
        assert!(index.find(&presented, now).is_none(), "nothing was read yet");
        read(&index).await;
        assert_eq!(index.find(&presented, now).unwrap().name, "ci");
        assert!(index.find(&presented, now + 70_000).is_none());
        let other = token_with_id_of(secret.expose());
        assert!(index.find(&PresentedToken::parse(&other).unwrap(), now).is_none());
        index.tokens().revoke("ci", "").await.unwrap();
        read(&index).await;
        assert!(index.find(&presented, now).is_none());
    }

    /// Returns another text with the same ID.
    fn token_with_id_of(text: &str) -> String {
        let last = if text.ends_with('A') { 'B' } else { 'A' };
        format!("{}{last}", &text[..text.len() - 1])
    }

    #[tokio::test]
    async fn a_second_reading_shows_what_has_changed() {
        let (_folder, index) = index().await;
        create(&index, "a").await;
        create(&index, "b").await;
        assert_eq!(names(&read(&index).await.added), ["a", "b"]);
        index.tokens().revoke("a", "").await.unwrap();
        index.tokens().revoke("b", "").await.unwrap();
        create(&index, "b").await;
        let TokenChanges { added, removed } = read(&index).await;
        let mut removed = names(&removed);
        removed.sort_unstable();
        assert_eq!((names(&added), removed), (vec!["b"], vec!["a", "b"]));
        let unchanged = read(&index).await;
        assert!(unchanged.added.is_empty() && unchanged.removed.is_empty());
    }

    #[tokio::test]
    async fn tokens_are_fresh_for_two_seconds_and_so_is_a_failure() {
        let (_folder, index) = index().await;
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(index.freshness(start), Freshness::Stale);
        index.publish(Vec::new(), start);
        assert_eq!(index.freshness(after(1_999)), Freshness::Fresh);
        assert_eq!(index.freshness(after(2_000)), Freshness::Stale);
        index.record_unreadable(after(2_000));
        assert_eq!(index.freshness(after(3_999)), Freshness::Unreadable);
        assert_eq!(index.freshness(after(4_000)), Freshness::Stale);
    }

    #[tokio::test]
    async fn unknown_tokens_are_looked_up_a_few_times_a_second_and_known_ones_are_not() {
        let (_folder, index) = index().await;
        let secret = create(&index, "ci").await;
        let presented = PresentedToken::parse(secret.expose()).unwrap();
        let start = Instant::now();
        let allowed = |at| (0..9).filter(|_| index.may_look_up(&presented, at)).count();
        assert_eq!(allowed(start), 5);
        assert_eq!(allowed(start + Duration::from_millis(999)), 0);
        assert_eq!(allowed(start + Duration::from_secs(1)), 5);
        read(&index).await;
        assert_eq!(allowed(start + Duration::from_secs(2)), 0, "its ID is known");
    }

    #[tokio::test]
    async fn a_use_is_taken_once_and_that_of_a_revoked_token_is_dropped() {
        let (_folder, index) = index().await;
        let secret = create(&index, "ci").await;
        read(&index).await;
        let presented = PresentedToken::parse(secret.expose()).unwrap();
        let now = crate::clock::milliseconds();
        for at in [now, now + 5, now + 1] {
            index.find(&presented, at).unwrap();
        }
        assert_eq!(index.last_use("ci"), Some(now + 5));
        let taken = index.take_unstored_uses();
        assert_eq!(
            taken.iter().map(|one| (one.name.as_str(), one.at)).collect::<Vec<_>>(),
            [("ci", now + 5)]
        );
        assert!(index.take_unstored_uses().is_empty());
        index.find(&presented, now + 9).unwrap();
        index.tokens().revoke("ci", "").await.unwrap();
        read(&index).await;
        assert!(index.take_unstored_uses().is_empty());
        assert_eq!(index.last_use("ci"), None);
    }
}
