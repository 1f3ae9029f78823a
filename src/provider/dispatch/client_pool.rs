//! HTTP clients of a provider: one per I/O thread, each with its own connections.
//!
//! A response is handled on the thread that waits for it, and wakes no other. With one runtime of many workers,
//! half of the responses did. Decides nothing about a call.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderMap;
use tokio::runtime::Handle;

use super::transport::{Error, Transport};
use crate::provider::keys::header_source::HeaderSource;
use crate::provider::settings::Settings;

/// The runtimes that calls run on, ideally with one thread each; at least one.
#[derive(Debug, Clone)]
pub struct IoThreads {
    first: Handle,
    others: Vec<Handle>,
}

impl IoThreads {
    /// Distributes calls evenly over all of them.
    pub fn new(first: Handle, others: Vec<Handle>) -> Self {
        Self { first, others }
    }

    fn len(&self) -> usize {
        1 + self.others.len()
    }
}

/// All calls run on one runtime.
impl From<Handle> for IoThreads {
    fn from(runtime: Handle) -> Self {
        Self::new(runtime, Vec::new())
    }
}

/// An I/O thread with a provider's connections.
#[derive(Debug)]
pub(in crate::provider) struct PooledClient {
    pub(in crate::provider) runtime: Handle,
    pub(in crate::provider) transport: Transport,
    /// Dispatch workers that run here.
    workers: AtomicUsize,
}

/// Maximum concurrency that connections are prepared for: a provider with very many models uses few at once.
const MAX_PREPARED_CONCURRENCY: usize = 4_096;

/// The HTTP clients of one provider.
#[derive(Debug)]
pub(in crate::provider) struct ClientPool {
    first: PooledClient,
    others: Vec<PooledClient>,
    /// What they were created with.
    headers: HeaderMap,
    connect: Duration,
    connections: usize,
}

impl ClientPool {
    pub(in crate::provider) fn new(
        threads: IoThreads,
        settings: &Settings,
        base_url: &str,
        headers: &HeaderMap,
    ) -> Result<Self, Error> {
        let connections = settings.max_in_flight().min(MAX_PREPARED_CONCURRENCY).div_ceil(threads.len());
        let client = |runtime: Handle| {
            let is_secret = |name: &_| matches!(settings.headers.get(name), Some(HeaderSource::Read(_)));
            let connect = settings.timeouts.connect;
            let transport = Transport::new(base_url, headers.clone(), is_secret, connect, connections)?;
            Ok(PooledClient { runtime, transport, workers: AtomicUsize::new(0) })
        };
        let IoThreads { first, others } = threads;
        Ok(Self {
            first: client(first)?,
            others: others.into_iter().map(client).collect::<Result<_, _>>()?,
            headers: headers.clone(),
            connect: settings.timeouts.connect,
            connections,
        })
    }

    /// Returns the clients for changed settings, on the same threads; `None` if these can be used for them.
    pub(in crate::provider) fn changed(
        &self,
        settings: &Settings,
        base_url: &str,
        headers: &HeaderMap,
    ) -> Result<Option<Self>, Error> {
        let threads = self.others.len() + 1;
        let connections = settings.max_in_flight().min(MAX_PREPARED_CONCURRENCY).div_ceil(threads);
        let is_same = self.headers == *headers
            && self.connect == settings.timeouts.connect
            && self.connections >= connections;
        if is_same {
            return Ok(None);
        }
        let others = self.others.iter().map(|client| client.runtime.clone()).collect();
        let threads = IoThreads::new(self.first.runtime.clone(), others);
        Self::new(threads, settings, base_url, headers).map(Some)
    }

    /// Returns the runtime for other work than calls.
    pub(in crate::provider) fn runtime(&self) -> &Handle {
        &self.first.runtime
    }

    /// Returns the index of the client for a new worker: the first of those with the fewest workers, so that
    /// few calls share few connections. The worker counts until [`release`](Self::release).
    pub(in crate::provider) fn acquire(&self) -> usize {
        let number = (0..=self.others.len()).min_by_key(|number| self.get(*number).workers.load(Relaxed));
        let number = number.unwrap_or(0);
        self.get(number).workers.fetch_add(1, Relaxed);
        number
    }

    /// Counts a worker that continues with the client with that index.
    pub(in crate::provider) fn acquire_at(&self, number: usize) {
        self.get(number).workers.fetch_add(1, Relaxed);
    }

    /// Removes a worker that has ended.
    pub(in crate::provider) fn release(&self, number: usize) {
        self.get(number).workers.fetch_sub(1, Relaxed);
    }

    /// Returns the client with that index.
    pub(in crate::provider) fn get(&self, number: usize) -> &PooledClient {
        number.checked_sub(1).and_then(|other| self.others.get(other)).unwrap_or(&self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn workers_are_distributed_evenly_and_a_single_one_takes_the_first_client() {
        let here = Handle::current();
        let threads = IoThreads::new(here.clone(), vec![here.clone(), here]);
        let settings = Settings::default();
        let clients = ClientPool::new(threads, &settings, "http://127.0.0.1:9", &HeaderMap::new()).unwrap();
        for _ in 0..3 {
            let index = clients.acquire();
            assert_eq!(index, 0);
            clients.release(index);
        }
        let acquired: Vec<_> = (0..7).map(|_| clients.acquire()).collect();
        assert_eq!(acquired, [0, 1, 2, 0, 1, 2, 0]);
        clients.release(1);
        assert_eq!(clients.acquire(), 1);
    }
}
