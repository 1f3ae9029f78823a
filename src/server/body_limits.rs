//! Bounds on the bodies of all requests together: the memory of those that are buffered, and the uploads at once.
//!
//! One body is bounded by the limits of `[serve]`. A thousand callers that each send one of the greatest size, or that each
//! begin an upload and never end it, meet these bounds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::daemon::Caller;

use super::problem::{Problem, ProblemType};

/// The most bytes of bodies that are buffered at once.
const MAX_BUFFERED_BYTES: usize = 256 << 20;

/// How many bytes a permit stands for.
const PERMIT_BYTES: usize = 1 << 10;

/// The most uploads at once.
const MAX_UPLOADS: usize = 16;

/// The most uploads at once of one token. Without tokens all callers are one, and the bound on all uploads is theirs.
const MAX_UPLOADS_PER_TOKEN: usize = 4;

/// How long a caller waits before it sends a body again, in seconds.
const BUFFER_WAIT: u64 = 2;

/// How long a caller waits before it begins an upload again, in seconds.
const UPLOAD_WAIT: u64 = 5;

/// The bounds, and what is used of them. All threads of a server share it.
#[derive(Debug)]
pub(super) struct BodyLimits {
    buffered: Semaphore,
    uploads: Arc<Semaphore>,
    uploads_by_token: UploadCounts,
}

/// A body that is read into memory. It counts until it is dropped.
#[derive(Debug)]
pub(super) struct BodyBuffer<'l> {
    limits: &'l BodyLimits,
    permits: Option<SemaphorePermit<'l>>,
    bytes: Vec<u8>,
}

/// How many uploads each token has in progress.
type UploadCounts = Arc<Mutex<HashMap<String, usize>>>;

/// An upload in progress. It counts until it is dropped.
#[derive(Debug)]
pub(super) struct UploadSlot {
    token: Option<(String, UploadCounts)>,
    _permit: OwnedSemaphorePermit,
}

impl BodyLimits {
    pub(super) fn new() -> Self {
        Self::with_bytes(MAX_BUFFERED_BYTES)
    }

    /// Creates limits with another bound on the bytes that are buffered.
    pub(super) fn with_bytes(max: usize) -> Self {
        Self {
            buffered: Semaphore::new(max.div_ceil(PERMIT_BYTES)),
            uploads: Arc::new(Semaphore::new(MAX_UPLOADS)),
            uploads_by_token: Arc::default(),
        }
    }

    /// Begins a body that is read into memory.
    pub(super) fn buffer(&self) -> BodyBuffer<'_> {
        BodyBuffer { limits: self, permits: None, bytes: Vec::new() }
    }

    /// Begins an upload.
    ///
    /// # Errors
    /// 429 if the token of the caller has too many in progress, 503 if all callers have.
    pub(super) fn begin_upload(&self, caller: &Caller) -> Result<UploadSlot, Problem> {
        let token = match caller.name.as_str() {
            "" => None,
            name => Some(self.count_upload(name)?),
        };
        let Ok(permit) = self.uploads.clone().try_acquire_owned() else {
            if let Some((name, counts)) = &token {
                uncount_upload(counts, name);
            }
            let detail = format!("{MAX_UPLOADS} uploads are in progress, which is the most");
            return Err(Problem::new(ProblemType::Unavailable, detail).with_retry_after(UPLOAD_WAIT));
        };
        Ok(UploadSlot { token, _permit: permit })
    }

    fn count_upload(&self, name: &str) -> Result<(String, UploadCounts), Problem> {
        let mut counts = lock(&self.uploads_by_token);
        let count = counts.entry(name.to_owned()).or_default();
        if *count >= MAX_UPLOADS_PER_TOKEN {
            let detail =
                format!("{MAX_UPLOADS_PER_TOKEN} uploads of this token are in progress, which is the most");
            return Err(Problem::new(ProblemType::TooManyRequests, detail).with_retry_after(UPLOAD_WAIT));
        }
        *count += 1;
        Ok((name.to_owned(), self.uploads_by_token.clone()))
    }
}

impl BodyBuffer<'_> {
    /// Adds a part of the body.
    ///
    /// # Errors
    /// 503 if the bodies of all callers have reached their bound.
    pub(super) fn extend(&mut self, part: &[u8]) -> Result<(), Problem> {
        let needed = self.bytes.len().saturating_add(part.len()).div_ceil(PERMIT_BYTES);
        let held = self.permits.as_ref().map_or(0, SemaphorePermit::num_permits);
        let more = u32::try_from(needed.saturating_sub(held)).unwrap_or(u32::MAX);
        let Ok(permits) = self.limits.buffered.try_acquire_many(more) else {
            let detail = "the server buffers as many bytes of request bodies as it may";
            return Err(Problem::new(ProblemType::Unavailable, detail).with_retry_after(BUFFER_WAIT));
        };
        match &mut self.permits {
            Some(held) => held.merge(permits),
            None => self.permits = Some(permits),
        }
        self.bytes.extend_from_slice(part);
        Ok(())
    }

    /// Returns the number of bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the bytes, which count no longer.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

impl Drop for UploadSlot {
    fn drop(&mut self) {
        if let Some((name, counts)) = &self.token {
            uncount_upload(counts, name);
        }
    }
}

fn uncount_upload(counts: &Mutex<HashMap<String, usize>>, name: &str) {
    let mut counts = lock(counts);
    if let Some(count) = counts.get_mut(name) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(name);
        }
    }
}

fn lock(counts: &Mutex<HashMap<String, usize>>) -> MutexGuard<'_, HashMap<String, usize>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use crate::types::ScopeName;

    use super::*;

    fn token(name: &str) -> Caller {
        Caller::token(name, ScopeName::of_token(name))
    }

    #[test]
    fn the_bodies_of_all_callers_share_a_budget_until_they_are_dropped() {
        let limits = BodyLimits::with_bytes(8 << 10);
        let mut first = limits.buffer();
        // Small parts of one body do not cost a permit each.
        for _ in 0..64 {
            first.extend(&[0; 64]).unwrap();
        }
        let mut second = limits.buffer();
        second.extend(&[0; 4 << 10]).unwrap();
        let problem = first.extend(&[0]).unwrap_err();
        assert_eq!((problem.status, first.len()), (503, 4 << 10));
        assert_eq!(second.bytes().len(), 4 << 10);
        drop(second);
        first.extend(&[0; 4 << 10]).unwrap();
        assert_eq!(first.into_bytes().len(), 8 << 10);
        limits.buffer().extend(&[0; 8 << 10]).unwrap();
        assert_eq!(limits.buffer().extend(&[0; (8 << 10) + 1]).unwrap_err().status, 503);
        assert_eq!(limits.buffered.available_permits(), 8);
    }

    #[test]
    fn uploads_are_bounded_for_a_token_and_for_all() {
        let limits = BodyLimits::new();
        let status = |caller: &Caller| limits.begin_upload(caller).unwrap_err().status;
        let mut slots: Vec<UploadSlot> =
            (0..MAX_UPLOADS_PER_TOKEN).map(|_| limits.begin_upload(&token("a")).unwrap()).collect();
        assert_eq!(status(&token("a")), 429);
        slots.pop();
        slots.push(limits.begin_upload(&token("a")).unwrap());
        while slots.len() < MAX_UPLOADS {
            slots.push(limits.begin_upload(&Caller::operator()).unwrap());
        }
        assert_eq!((status(&token("b")), status(&Caller::operator())), (503, 503));
        slots.clear();
        assert!(lock(&limits.uploads_by_token).is_empty());
        limits.begin_upload(&token("b")).unwrap();
    }
}
