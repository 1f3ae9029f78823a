//! Idempotency keys of the callers of a daemon.

use super::caller::Caller;
use super::daemon::Daemon;
use super::error::Error;
use super::idempotency_keys::{Idempotent, ReservedKey};

impl Daemon {
    /// Reserves an idempotency key of a caller for a request whose body is not known yet.
    ///
    /// # Errors
    /// If a request with this key is in progress, the key is invalid, or the store cannot be read.
    pub async fn reserve_key(&self, caller: &Caller, key: &str) -> Result<ReservedKey, Error> {
        self.idempotency_keys().reserve(&caller.name, key).await
    }

    /// Reserves an idempotency key of a caller for a request with this digest, see
    /// [`RequestDigest`](super::RequestDigest).
    ///
    /// # Errors
    /// As [`reserve_key`](Self::reserve_key), and if the key was used for another request.
    pub async fn idempotency(
        &self,
        caller: &Caller,
        key: &str,
        digest: [u8; 32],
    ) -> Result<Idempotent, Error> {
        self.reserve_key(caller, key).await?.check(digest)
    }
}
