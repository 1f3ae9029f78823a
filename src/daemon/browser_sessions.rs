//! The sessions of browsers that have presented a token once.
//!
//! A session is a random text that only its browser knows. It stands for the token as long as that is valid: a token that is
//! revoked or expires ends its sessions. They are in memory only, so a restart ends all of them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// How long a session lasts.
pub(super) const LIFETIME: Duration = Duration::from_hours(12);

/// The most sessions. One more ends the one that would end first.
const MAX_SESSIONS: usize = 1_000;

/// The most sessions of one token, so that its holder cannot end those of others.
const MAX_SESSIONS_PER_TOKEN: usize = 20;

/// Longest text that can be one of a session, in bytes.
const MAX_TEXT_BYTES: usize = 128;

/// The version of a token, by which its holder is found again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenVersion {
    pub(super) id: String,
    pub(super) version: i64,
}

/// The sessions, by the hash of their texts, so that the time of a look-up shows nothing of a text.
#[derive(Debug, Default)]
pub(super) struct BrowserSessions(Mutex<HashMap<[u8; 32], Session>>);

#[derive(Debug)]
struct Session {
    token: TokenVersion,
    ends: Instant,
}

impl BrowserSessions {
    /// Adds a session.
    pub(super) fn insert(&self, text: &str, token: TokenVersion, now: Instant) {
        let mut sessions = self.lock();
        sessions.retain(|_, session| session.ends > now);
        let of_token = sessions.values().filter(|session| session.token.id == token.id).count();
        if of_token >= MAX_SESSIONS_PER_TOKEN {
            remove_first(&mut sessions, |session| session.token.id == token.id);
        } else if sessions.len() >= MAX_SESSIONS {
            remove_first(&mut sessions, |_| true);
        }
        sessions.insert(hash_of(text), Session { token, ends: now + LIFETIME });
    }

    /// Returns the token of a session; `None` if there is none or it has ended.
    pub(super) fn token(&self, text: &str, now: Instant) -> Option<TokenVersion> {
        if text.len() > MAX_TEXT_BYTES {
            return None;
        }
        let sessions = self.lock();
        sessions.get(&hash_of(text)).filter(|session| session.ends > now).map(|session| session.token.clone())
    }

    /// Ends a session.
    pub(super) fn remove(&self, text: &str) {
        self.lock().remove(&hash_of(text));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the session that would end first, of those that match.
fn remove_first(sessions: &mut HashMap<[u8; 32], Session>, matches: impl Fn(&Session) -> bool) {
    let matching = sessions.iter().filter(|(_, session)| matches(session));
    let first = matching.min_by_key(|(_, session)| session.ends).map(|(hash, _)| *hash);
    first.and_then(|hash| sessions.remove(&hash));
}

fn hash_of(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(version: i64) -> TokenVersion {
        TokenVersion { id: "0f3a9c21".to_owned(), version }
    }

    #[test]
    fn a_session_lasts_until_its_end_or_until_it_is_removed() {
        let now = Instant::now();
        let sessions = BrowserSessions::default();
        sessions.insert("a", token(1), now);
        sessions.insert("b", token(2), now);
        assert_eq!(sessions.token("a", now), Some(token(1)));
        assert_eq!(sessions.token("b", now + LIFETIME - Duration::from_secs(1)), Some(token(2)));
        assert_eq!(sessions.token("b", now + LIFETIME), None);
        assert_eq!((sessions.token("", now), sessions.token(&"a".repeat(1_000), now)), (None, None));
        sessions.remove("a");
        assert_eq!(sessions.token("a", now), None);
    }

    #[test]
    fn sessions_are_bounded_and_the_one_that_would_end_first_goes() {
        let now = Instant::now();
        let sessions = BrowserSessions::default();
        for number in 0..=MAX_SESSIONS {
            let token = TokenVersion { id: format!("{:08x}", number / 10), version: 1 };
            sessions.insert(&number.to_string(), token, now + Duration::from_millis(number as u64));
        }
        assert_eq!(sessions.lock().len(), MAX_SESSIONS);
        assert_eq!(sessions.token("0", now), None);
        assert!(sessions.token("1", now).is_some());
        sessions.insert("later", token(1), now + 2 * LIFETIME);
        assert_eq!(sessions.lock().len(), 1);
    }

    #[test]
    fn a_token_that_logs_in_often_ends_only_its_own_sessions() {
        let now = Instant::now();
        let sessions = BrowserSessions::default();
        let other = TokenVersion { id: "5b5b5b5b".to_owned(), version: 1 };
        sessions.insert("other", other.clone(), now);
        for number in 0..=MAX_SESSIONS {
            sessions.insert(&number.to_string(), token(1), now + Duration::from_millis(number as u64));
        }
        assert_eq!(sessions.lock().len(), 1 + MAX_SESSIONS_PER_TOKEN);
        assert_eq!(sessions.token("other", now), Some(other));
        assert!(sessions.token(&MAX_SESSIONS.to_string(), now).is_some());
        assert_eq!(sessions.token(&(MAX_SESSIONS - MAX_SESSIONS_PER_TOKEN).to_string(), now), None);
    }
}
