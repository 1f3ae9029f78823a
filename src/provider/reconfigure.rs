//! Changes the settings of a running provider without losing what it has learned and what is in use.
//!
//! The first part checks everything that can fail and changes nothing, so that a reload of many providers is applied as a
//! whole or not at all.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;

use crate::guard::SharedBudget;
use crate::types::{KeyLabel, ModelName};

use super::admission::scheduler::Scheduler;
use super::dispatch::client_pool::ClientPool;
use super::dispatch::transport;
use super::keys::key_set::{Keys, PreparedKey};
use super::keys::key_source::Key;
use super::settings::Settings;
use super::state::{Account, State};

/// A checked change of a provider's settings.
#[derive(Debug)]
pub struct PreparedUpdate {
    settings: Settings,
    /// `None` if the clients in use can stay.
    clients: Option<Arc<ClientPool>>,
    keys: Vec<PreparedKey>,
    budgets: Vec<Arc<SharedBudget>>,
}

impl State {
    /// Returns whether the state can take over the settings of `account`. Another address or another format is another
    /// provider.
    pub fn can_become(&self, account: &Account) -> bool {
        self.base_url() == account.base_url
            && self.settings().format == account.settings.format
            && self.is_simulated() == account.settings.is_simulated()
    }

    /// Checks a change of the settings, which [`can_become`](Self::can_become) permits. Changes nothing.
    ///
    /// # Errors
    /// If no HTTP client can be created, or a key is not a valid header value.
    pub fn prepare_update(&self, account: Account) -> Result<PreparedUpdate, transport::Error> {
        let Account { name: _, settings, base_url: _, keys, headers, budgets } = account;
        let keys = Keys::prepare(settings.format, &keys).map_err(transport::Error::Key)?;
        let clients = self.changed_clients(&settings, &headers)?;
        Ok(PreparedUpdate { settings, clients, keys, budgets })
    }

    fn changed_clients(
        &self,
        settings: &Settings,
        headers: &HeaderMap,
    ) -> Result<Option<Arc<ClientPool>>, transport::Error> {
        Ok(self.clients().changed(settings, self.base_url(), headers)?.map(Arc::new))
    }

    /// Applies a change. Calls in flight end with the settings and the key with which they began; the next ones use the new
    /// ones. A model that is no longer configured takes no new calls.
    pub fn apply_update(&self, update: PreparedUpdate) {
        let PreparedUpdate { mut settings, clients, keys, budgets } = update;
        let now = Instant::now();
        let before = self.settings();
        self.inbox.set_max_calls(settings.queue.get());
        if let Some(clients) = clients {
            self.set_clients(clients);
        }
        let mut scheduler = self.lock();
        scheduler.reconfigure(&before, &settings, now);
        scheduler.keys.replace(keys, settings.rotate_every);
        scheduler.budgets.set(budgets);
        // The last calls of a removed model end with its settings.
        let retired = scheduler.targets.iter().filter(|(_, target)| target.is_retired);
        let retired = retired.filter_map(|(name, _)| Some((name.clone(), before.models.get(name)?.clone())));
        settings.models.extend(retired.collect::<Vec<_>>());
        // Under the lock: a call that is admitted from now on finds its model.
        self.set_settings(settings);
        drop(scheduler);
        self.notify_actor(true);
    }

    /// Replaces the keys, and returns their labels.
    ///
    /// # Errors
    /// If a key is not a valid header value. Nothing is changed then.
    pub fn replace_keys(&self, keys: &[Key]) -> Result<Vec<KeyLabel>, transport::Error> {
        let settings = self.settings();
        let keys = Keys::prepare(settings.format, keys).map_err(transport::Error::Key)?;
        let mut scheduler = self.lock();
        scheduler.keys.replace(keys, settings.rotate_every);
        let labels = scheduler.keys.labels();
        drop(scheduler);
        self.notify_actor(true);
        Ok(labels)
    }

    /// Takes over what another state of the same provider has learned: the calls of the last 24 hours and the token
    /// statistics. Its limits and its health may not apply to another address. What an operator has taken out of service
    /// stays so.
    pub fn inherit(&self, earlier: &Self) {
        /// More calls than the earlier state can send before it has ended.
        const MAX_LATER_CALLS: u64 = 1 << 32;
        let mut ours = self.lock();
        let mut theirs = earlier.lock();
        ours.first_number = theirs.first_number + theirs.calls_sent + MAX_LATER_CALLS;
        // Calls that are queued there are still sent there.
        let queued: Vec<(ModelName, u64)> = theirs
            .queue
            .waiting_by_model()
            .map(|(model, calls)| (model.clone(), u64::try_from(calls).unwrap_or(u64::MAX)))
            .collect();
        let now = Instant::now();
        ours.limits.inherit_daily_quota(&mut theirs.limits);
        ours.limits.restore_daily_quota(queued.iter().map(|(_, calls)| (Duration::ZERO, *calls)), now);
        ours.daily_usage_restored = theirs.daily_usage_restored;
        ours.out_of_service = theirs.out_of_service.filter(|reason| !reason.is_final());
        let ours = &mut *ours;
        for (name, target) in &mut theirs.targets {
            if let Some(own) = ours.targets.get_mut(name) {
                own.limits.inherit_daily_quota(&mut target.limits);
                let later = queued.iter().filter(|(model, _)| model == name).map(|(_, calls)| *calls);
                own.limits.restore_daily_quota(later.map(|calls| (Duration::ZERO, calls)), now);
                own.is_forced_open = target.is_forced_open;
                own.token_stats = std::mem::take(&mut target.token_stats);
                own.unstored_calls = std::mem::take(&mut target.unstored_calls);
            }
        }
        take_sums(ours, &mut theirs);
    }

    /// Moves the sums of the calls that have ended since it was replaced to its successor, so that no metric loses them.
    pub fn hand_over_sums(&self) {
        let Some(mut last) = self.successor() else { return };
        // The successor may have been replaced, too.
        while let Some(successor) = last.successor() {
            last = successor;
        }
        let mut theirs = self.lock();
        take_sums(&mut last.lock(), &mut theirs);
    }
}

/// Moves the sums for metrics and snapshots from one state of a provider to another.
fn take_sums(ours: &mut Scheduler, theirs: &mut Scheduler) {
    // The numbers of later calls continue.
    theirs.first_number += theirs.calls_sent;
    ours.calls_sent += std::mem::take(&mut theirs.calls_sent);
    ours.throttled += std::mem::take(&mut theirs.throttled);
    for (name, target) in &mut theirs.targets {
        if let Some(own) = ours.targets.get_mut(name) {
            own.metrics.take_from(&mut target.metrics);
        }
    }
}
