//! Idempotency keys: a caller that repeats a request with the same key gets the response of the first one.
//!
//! ```text
//! reserve(key) -> check(request) -> Known(response)   the request was answered
//!                       |---------> an error          the key was used for another request
//!                       `---------> New(guard) -> identity() -> (the request is executed) -> finish(response)
//! ```
//!
//! While a request is in progress, another with its key is refused. The response is stored before it is sent. What a request
//! creates is found again by its identity if the process ends between the two: the identity is stored first. A guard that is
//! dropped releases the key, and keeps the identity: the request may have had its effect.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock;
use crate::store::{DocumentKind, ExpectedVersion, Store};
use crate::types::error_chain;

use super::data_folder::random_id;
use super::error::Error;

/// How long a response is kept.
const RETENTION: Duration = Duration::from_hours(24);

/// Longest key, in bytes.
const MAX_KEY_BYTES: usize = 255;

/// The keys of a daemon.
#[derive(Debug, Clone)]
pub(super) struct IdempotencyKeys {
    store: Arc<dyn Store>,
    /// The names of the keys whose requests are in progress.
    in_progress: Arc<Mutex<HashSet<String>>>,
}

/// The response to a request with a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StoredResponse {
    /// The HTTP status.
    pub status: u16,
    /// Where to find what was created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The body.
    pub body: String,
}

/// What is stored of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeyRecord {
    /// The digest of the request.
    request: String,
    /// The identity of what the request creates, if it creates something.
    identity: Option<String>,
    /// `None` until the request has been answered.
    response: Option<StoredResponse>,
}

/// A key that is reserved for one request. It is released when this is dropped.
#[derive(Debug)]
pub struct ReservedKey {
    reservation: Reservation,
    record: Option<KeyRecord>,
}

/// What a key says about a request.
#[derive(Debug)]
pub enum Idempotent {
    /// The request is new: execute it.
    New(IdempotencyGuard),
    /// It was answered with this.
    Known(StoredResponse),
}

/// The right to execute a request with a key. The key is released when this is dropped.
#[derive(Debug)]
pub struct IdempotencyGuard {
    reservation: Reservation,
    record: KeyRecord,
}

/// Removes the name of the key from those in progress when it is dropped.
#[derive(Debug)]
struct Reservation {
    keys: IdempotencyKeys,
    caller: String,
    name: String,
}

/// Computes the digest of a request, for [`ReservedKey::check`].
#[derive(Debug, Clone)]
pub struct RequestDigest(Sha256);

impl RequestDigest {
    /// Begins the digest of a request to `path`, with its query.
    pub fn new(method: &str, path: &str) -> Self {
        let mut digest = Self(Sha256::new());
        for part in [method, path] {
            digest.update(&(part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        digest
    }

    /// Adds a part of the body.
    pub fn update(&mut self, part: &[u8]) {
        self.0.update(part);
    }

    /// Returns the digest.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl IdempotencyKeys {
    /// Creates the keys of a store.
    pub(super) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, in_progress: Arc::default() }
    }

    /// Reserves a key of a caller.
    pub(super) async fn reserve(&self, caller: &str, key: &str) -> Result<ReservedKey, Error> {
        let is_valid =
            (1..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_valid {
            return Err(Error::invalid(format!(
                "an idempotency key has 1 to {MAX_KEY_BYTES} visible ASCII characters, without spaces"
            )));
        }
        let name = name_of(caller, key);
        if !self.lock().insert(name.clone()) {
            return Err(Error::conflict(
                "a request with this idempotency key is being processed: wait until it has been answered, then repeat it",
            ));
        }
        // From here on the name is removed again, also if the store fails.
        let reservation = Reservation { keys: self.clone(), caller: caller.to_owned(), name };
        let now = clock::milliseconds();
        let found = self.store.document(DocumentKind::IdempotencyKey, &reservation.name, now).await?;
        let record = match found {
            Some(document) => Some(serde_json::from_value(document.value).map_err(|error| {
                Error::Store(self.store.damage(format!("the response of an idempotency key: {error}")))
            })?),
            None => None,
        };
        Ok(ReservedKey { reservation, record })
    }

    /// Removes the responses that were kept long enough.
    pub(super) async fn remove_expired(&self) -> Result<u64, Error> {
        Ok(self.store.remove_expired(DocumentKind::IdempotencyKey, clock::milliseconds()).await?)
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.in_progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReservedKey {
    /// Compares the request with that for which the key was used, if it was. `digest` is that of the whole request, see
    /// [`RequestDigest`].
    ///
    /// # Errors
    /// If the key was used for another request.
    pub fn check(self, digest: [u8; 32]) -> Result<Idempotent, Error> {
        let Self { reservation, record } = self;
        let request = hex(&digest);
        match record {
            Some(record) if record.request != request => Err(Error::invalid(
                "the idempotency key was used for another request in the last 24 hours: use a new key for a new request",
            )),
            Some(KeyRecord { response: Some(response), .. }) => Ok(Idempotent::Known(response)),
            // The process ended, or the caller left, before the request was answered.
            Some(record) => Ok(Idempotent::New(IdempotencyGuard { reservation, record })),
            None => {
                let record = KeyRecord { request, identity: None, response: None };
                Ok(Idempotent::New(IdempotencyGuard { reservation, record }))
            }
        }
    }
}

impl IdempotencyGuard {
    /// Returns the identity of what the request creates. It is stored, so that the request has the same identity if it is
    /// repeated because it was not answered.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn identity(&mut self) -> Result<String, Error> {
        if let Some(identity) = &self.record.identity {
            return Ok(identity.clone());
        }
        let identity = random_id();
        self.record.identity = Some(identity.clone());
        if let Err(error) = self.reservation.write(&self.record).await {
            self.record.identity = None;
            return Err(error);
        }
        Ok(identity)
    }

    /// Stores the response, which the caller may then send. Repeated requests get it for 24 hours. Only a response that
    /// reports success should be stored: a request that has failed may be repeated.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn finish(mut self, status: u16, location: Option<&str>, body: &str) -> Result<(), Error> {
        let location = location.map(str::to_owned);
        self.record.response = Some(StoredResponse { status, location, body: body.to_owned() });
        self.reservation.write(&self.record).await
    }

    /// Forgets the key, because the request has failed and had no effect: the key may be used for another request.
    pub async fn fail(self) {
        if self.record.identity.is_none() {
            return;
        }
        let Reservation { keys, name, .. } = &self.reservation;
        if let Err(error) = keys.store.remove_document(DocumentKind::IdempotencyKey, name).await {
            // It expires in any case.
            tracing::warn!(error = %error_chain(&error), "an idempotency key was not removed");
        }
    }
}

impl Reservation {
    async fn write(&self, record: &KeyRecord) -> Result<(), Error> {
        let value = serde_json::to_value(record).map_err(Error::json)?;
        let retention = i64::try_from(RETENTION.as_millis()).unwrap_or(i64::MAX);
        let expires_at = Some(clock::milliseconds().saturating_add(retention));
        let kind = DocumentKind::IdempotencyKey;
        // Only the holder of the reservation writes it.
        let expected = ExpectedVersion::Any;
        let store = &self.keys.store;
        store.replace_document(kind, &self.name, &value, &self.caller, expires_at, expected).await?;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.name);
    }
}

/// Returns the name of a document. It has a bounded length, and different callers cannot meet.
fn name_of(caller: &str, key: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update((caller.len() as u64).to_le_bytes());
    hasher.update(caller.as_bytes());
    hasher.update(key.as_bytes());
    hex(&hasher.finalize())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use crate::daemon::Kind;
    use crate::store::Sqlite;

    use super::*;

    async fn keys() -> (tempfile::TempDir, IdempotencyKeys) {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("a.db")).await.unwrap();
        (folder, IdempotencyKeys::new(Arc::new(store)))
    }

    fn digest(body: &str) -> [u8; 32] {
        let mut digest = RequestDigest::new("POST", "/runs");
        digest.update(body.as_bytes());
        digest.finish()
    }

    /// Reserves a key, and returns the guard of a new request.
    async fn begin(keys: &IdempotencyKeys, key: &str, body: &str) -> IdempotencyGuard {
        match keys.reserve("ci", key).await.unwrap().check(digest(body)).unwrap() {
            Idempotent::New(guard) => guard,
            Idempotent::Known(response) => panic!("the request was answered: {response:?}"),
        }
    }

    #[tokio::test]
    async fn a_repeated_request_gets_the_first_response_and_another_request_is_refused() {
        let (_folder, keys) = keys().await;
        begin(&keys, "k", "one").await.finish(201, Some("/runs/1"), "{\"run\":1}").await.unwrap();
        let repeated = keys.reserve("ci", "k").await.unwrap().check(digest("one")).unwrap();
        let Idempotent::Known(response) = repeated else { panic!("it is executed again") };
        let location = Some("/runs/1".to_owned());
        assert_eq!(response, StoredResponse { status: 201, location, body: "{\"run\":1}".to_owned() });
        let error = keys.reserve("ci", "k").await.unwrap().check(digest("two")).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        // The key of another caller is another key.
        let other = keys.reserve("", "k").await.unwrap().check(digest("two")).unwrap();
        assert!(matches!(other, Idempotent::New(_)));
    }

    #[tokio::test]
    async fn a_key_has_one_request_at_a_time_and_is_released_without_a_response() {
        let (_folder, keys) = keys().await;
        let guard = begin(&keys, "k", "one").await;
        let error = keys.reserve("ci", "k").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{error}");
        drop(guard);
        begin(&keys, "k", "two").await.finish(200, None, "").await.unwrap();
        drop(keys.reserve("ci", "k").await.unwrap());
        assert!(keys.lock().is_empty());
    }

    #[tokio::test]
    async fn an_unanswered_request_keeps_its_identity_and_a_failed_one_does_not() {
        let (_folder, keys) = keys().await;
        let mut guard = begin(&keys, "k", "one").await;
        let identity = guard.identity().await.unwrap();
        assert_eq!(guard.identity().await.unwrap(), identity);
        drop(guard);
        // As after a restart.
        let keys = IdempotencyKeys::new(keys.store.clone());
        let mut guard = begin(&keys, "k", "one").await;
        assert_eq!(guard.identity().await.unwrap(), identity);
        drop(guard);
        assert!(keys.reserve("ci", "k").await.unwrap().check(digest("two")).is_err());
        begin(&keys, "k", "one").await.fail().await;
        let mut guard = begin(&keys, "k", "two").await;
        assert_ne!(guard.identity().await.unwrap(), identity);
    }

    #[tokio::test]
    async fn an_invalid_key_is_refused() {
        let (_folder, keys) = keys().await;
        for key in ["", "a b", "a\n", "gr\u{fc}n", &"x".repeat(256)] {
            let error = keys.reserve("ci", key).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{key:?}: {error}");
        }
        keys.reserve("ci", &"x".repeat(255)).await.unwrap();
    }

    #[test]
    fn the_digest_depends_on_the_method_the_path_and_the_body() {
        let of = |method, path, body: &[&str]| {
            let mut digest = RequestDigest::new(method, path);
            body.iter().for_each(|part| digest.update(part.as_bytes()));
            digest.finish()
        };
        let one = of("POST", "/runs", &["ab"]);
        assert_eq!(one, of("POST", "/runs", &["a", "b"]));
        for other in [of("PUT", "/runs", &["ab"]), of("POST", "/runsa", &["b"]), of("POST", "/runs", &["a"])]
        {
            assert_ne!(one, other);
        }
        assert_ne!(name_of("a", "bc"), name_of("ab", "c"));
    }
}
