//! Where calls leave: threads of one runtime each, and on each of them connections of the provider's own.
//!
//! What comes back on a connection is dealt with on the thread that waits for it, and wakes no other: with one
//! runtime of many workers, half of the answers did. Decides nothing about a call.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::HeaderMap;
use tokio::runtime::Handle;

use super::header_source::HeaderSource;
use super::settings::Settings;
use super::transport::{Error, Transport};

/// The runtimes that calls run on, best with a thread each; there is one at least.
#[derive(Debug, Clone)]
pub struct CallThreads {
    first: Handle,
    others: Vec<Handle>,
}

impl CallThreads {
    /// Makes calls run on all of them, in equal shares.
    pub fn new(first: Handle, others: Vec<Handle>) -> Self {
        Self { first, others }
    }

    fn len(&self) -> usize {
        1 + self.others.len()
    }
}

/// Where all calls run on one runtime.
impl From<Handle> for CallThreads {
    fn from(runtime: Handle) -> Self {
        Self::new(runtime, Vec::new())
    }
}

/// A thread, and a provider's connections on it.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) runtime: Handle,
    pub(super) transport: Transport,
    /// Series of calls that run here.
    series: AtomicUsize,
}

/// Attempts in flight that connections are prepared for at most: with very many models few are used at once.
const MAX_PREPARED_FOR: usize = 4_096;

/// The outlets of one provider.
#[derive(Debug)]
pub(super) struct Outlets {
    first: Outlet,
    others: Vec<Outlet>,
}

impl Outlets {
    pub(super) fn new(
        threads: CallThreads,
        settings: &Settings,
        base_url: &str,
        headers: &HeaderMap,
    ) -> Result<Self, Error> {
        let most = settings.max_in_flight().min(MAX_PREPARED_FOR).div_ceil(threads.len());
        let outlet = |runtime: Handle| {
            let is_secret = |name: &_| matches!(settings.headers.get(name), Some(HeaderSource::Read(_)));
            let connect = settings.timeouts.connect;
            let transport = Transport::new(base_url, headers.clone(), is_secret, connect, most)?;
            Ok(Outlet { runtime, transport, series: AtomicUsize::new(0) })
        };
        let CallThreads { first, others } = threads;
        Ok(Self { first: outlet(first)?, others: others.into_iter().map(outlet).collect::<Result<_, _>>()? })
    }

    /// Returns the runtime for what is no call.
    pub(super) fn runtime(&self) -> &Handle {
        &self.first.runtime
    }

    /// Returns the number of the outlet that a series of calls is to leave by: of those with the fewest the first,
    /// so that few calls share few connections. The series is counted until [`ended`](Self::ended).
    pub(super) fn begin(&self) -> usize {
        let number = (0..=self.others.len()).min_by_key(|number| self.get(*number).series.load(Relaxed));
        let number = number.unwrap_or(0);
        self.get(number).series.fetch_add(1, Relaxed);
        number
    }

    /// Notes that a series of calls has ended.
    pub(super) fn ended(&self, number: usize) {
        self.get(number).series.fetch_sub(1, Relaxed);
    }

    /// Returns the outlet of that number.
    pub(super) fn get(&self, number: usize) -> &Outlet {
        number.checked_sub(1).and_then(|other| self.others.get(other)).unwrap_or(&self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn calls_are_shared_out_and_one_at_a_time_takes_the_first() {
        let here = Handle::current();
        let threads = CallThreads::new(here.clone(), vec![here.clone(), here]);
        let settings = Settings::default();
        let outlets = Outlets::new(threads, &settings, "http://127.0.0.1:9", &HeaderMap::new()).unwrap();
        for _ in 0..3 {
            let alone = outlets.begin();
            assert_eq!(alone, 0);
            outlets.ended(alone);
        }
        let taken: Vec<_> = (0..7).map(|_| outlets.begin()).collect();
        assert_eq!(taken, [0, 1, 2, 0, 1, 2, 0]);
        outlets.ended(1);
        assert_eq!(outlets.begin(), 1);
    }
}
