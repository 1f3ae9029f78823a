//! The keys of one account at a provider: selection, cooldowns, and which key files to read again.
//!
//! Pure: the caller passes `now` and reads the files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::types::{Class, Failure, FailureScope, Format, KeyLabel, ModelName, Secret};

use super::key::{KeyId, ReadyKey};
use super::key_error::KeyError;
use super::key_source::{Key, KeySource};
use super::refusal_tracker::{RefusalTracker, RefusedAttempt};
use crate::provider::health::snapshot::KeySnapshot;

/// First cooldown of a key that was refused or has no credit, when the provider advertises no time. The cooldown
/// doubles each time until a request is answered. It starts short, so that a restored account is used soon.
const INITIAL_COOLDOWN: Duration = Duration::from_secs(5);

/// Limit of that doubling: long enough that the key costs almost no attempts.
const MAX_BACKOFF_COOLDOWN: Duration = Duration::from_mins(5);

/// Minimum cooldown when the provider advertises the time at which the quota is reset. A provider that wrongly
/// advertises the next second would otherwise be called in a loop.
const MIN_ADVERTISED_COOLDOWN: Duration = Duration::from_secs(60);

/// Maximum cooldown: the user may add credit before the end of the month.
const MAX_COOLDOWN: Duration = Duration::from_hours(24);

/// Interval at which key files are read.
const FILE_READ_INTERVAL: Duration = Duration::from_secs(2);

/// How long calls wait for a refused key while its file is read. A disk that hangs must not delay calls for
/// longer.
const MAX_RECHECK_WAIT: Duration = Duration::from_secs(1);

/// The keys, in order of preference.
#[derive(Debug)]
pub(in crate::provider) struct Keys {
    entries: Vec<KeyEntry>,
    format: Format,
    /// Interval after which the next key is preferred; `None` always prefers the first key.
    rotate_every: Option<Duration>,
    started_at: Instant,
    files_read_at: Instant,
}

#[derive(Debug)]
struct KeyEntry {
    key: ReadyKey,
    file: Option<PathBuf>,
    /// Whether an unreadable file has already been reported.
    is_unreadable: bool,
    cooldown: Option<Cooldown>,
    /// Cooldowns for single models: the key may not use the model, or the model's quota is exhausted.
    model_cooldowns: BTreeMap<ModelName, Cooldown>,
    refusals: RefusalTracker,
    /// Cooldowns since the last answered request.
    cooldowns_in_a_row: u32,
    /// Refusals for single models.
    model_refusals: BTreeMap<ModelName, RefusalTracker>,
    /// Until when its file may hold a new key, although this key has no cooldown.
    recheck_until: Option<Instant>,
}

/// A key that is ready to take its place among the keys of a provider.
#[derive(Debug)]
pub(in crate::provider) struct PreparedKey {
    key: ReadyKey,
    /// `None` for a server that requires no key.
    secret: Option<Secret>,
    file: Option<PathBuf>,
}

/// Whether the key caused a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider) enum KeyFault {
    /// The key did not cause it.
    NotAtFault,
    /// Undecided until other requests end.
    Undecided,
    /// The key caused it and gets a cooldown.
    AtFault,
}

impl KeyFault {
    /// Returns the class of a failure once it is known whether the key caused it. A refusal that may concern this
    /// request only is not a failure of the account.
    pub(in crate::provider) fn class_of(self, failure: &Failure) -> Class {
        match (self, failure.scope) {
            (Self::Undecided, FailureScope::Unclear) => Class::ApiError,
            (Self::Undecided | Self::AtFault | Self::NotAtFault, _) => failure.class,
        }
    }
}

#[derive(Debug)]
struct Cooldown {
    until: Instant,
    cause: Failure,
    /// Until when its file may show that the key has already been replaced.
    recheck_until: Option<Instant>,
}

/// Why no key can be used.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::provider) enum NoUsableKey {
    /// A key may be usable when its file has been read, by this instant.
    Rechecking(Instant),
    /// All keys have cooldowns. The failure is that of the cooldown that ends first.
    AllCoolingDown(Failure),
}

/// The effect of reading a key file.
#[derive(Debug)]
pub(in crate::provider) enum ReloadOutcome {
    /// Nothing to report.
    Unchanged,
    /// The file has a new key.
    Replaced,
    /// The file no longer has a key; the old key stays in use.
    Unreadable(KeyError),
}

impl Keys {
    /// Creates the keys of a provider. An empty list means a server that requires no key.
    ///
    /// # Errors
    /// `auth` for a key that is not valid in a header. The error does not contain the key.
    pub(in crate::provider) fn new(
        format: Format,
        keys: &[Key],
        rotate_every: Option<Duration>,
        now: Instant,
    ) -> Result<Self, Failure> {
        let keys = Self::prepare(format, keys)?.into_iter();
        let entries = keys.map(|PreparedKey { key, file, .. }| KeyEntry::new(key, file)).collect();
        Ok(Self { entries, format, rotate_every, started_at: now, files_read_at: now })
    }

    /// Brings keys into the form in which they are sent.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(in crate::provider) fn prepare(format: Format, keys: &[Key]) -> Result<Vec<PreparedKey>, Failure> {
        let ready = |key: &Key| {
            let Key { label, secret, file } = key;
            let key = ReadyKey::new(format, label.clone(), secret)?;
            Ok(PreparedKey { key, secret: Some(secret.clone()), file: file.clone() })
        };
        match keys {
            [] => Ok(vec![PreparedKey { key: ReadyKey::none(), secret: None, file: None }]),
            keys => keys.iter().map(ready).collect(),
        }
    }

    /// Replaces the keys from the next call on. A key that stays keeps its cooldowns; calls in flight end with the key with
    /// which they were sent.
    pub(in crate::provider) fn replace(&mut self, keys: Vec<PreparedKey>, rotate_every: Option<Duration>) {
        let earlier_ids: Vec<KeyId> = self.entries.iter().map(|entry| entry.key.id.clone()).collect();
        let mut earlier = std::mem::take(&mut self.entries);
        self.rotate_every = rotate_every;
        for PreparedKey { mut key, secret, file } in keys {
            let is_same = |entry: &KeyEntry| match &secret {
                Some(secret) => entry.key.has_secret(secret),
                None => entry.key.header().is_none(),
            };
            let mut entry = match earlier.iter().position(is_same) {
                Some(same) => earlier.remove(same),
                None => {
                    earlier_ids.iter().for_each(|earlier| key.succeed(earlier));
                    self.entries.push(KeyEntry::new(key, file));
                    continue;
                }
            };
            if entry.key.id.label != key.id.label {
                earlier_ids.iter().for_each(|earlier| key.succeed(earlier));
                entry.key = key;
            }
            entry.file = file;
            self.entries.push(entry);
        }
    }

    /// Returns the labels of the keys, in the order of preference.
    pub(in crate::provider) fn labels(&self) -> Vec<KeyLabel> {
        self.entries.iter().map(|entry| entry.key.id.label.clone()).collect()
    }

    /// Returns each key with its state.
    pub(in crate::provider) fn snapshots(&self, now: Instant) -> Vec<KeySnapshot> {
        self.entries.iter().map(|entry| entry.snapshot(now)).collect()
    }

    /// Returns the key for a call to `model`: the first one without a cooldown, in the order of preference or
    /// rotation. A key in `excluded` is used only if there is no other.
    ///
    /// # Errors
    /// If all keys have cooldowns.
    pub(in crate::provider) fn pick(
        &self,
        model: &ModelName,
        excluded: &[KeyId],
        now: Instant,
    ) -> Result<&ReadyKey, NoUsableKey> {
        let (later, first) = self.entries.split_at(self.rotation_start(now));
        let usable = || first.iter().chain(later).filter(|entry| entry.active_cooldown(model, now).is_none());
        let preferred = usable().find(|entry| !excluded.contains(&entry.key.id));
        if let Some(entry) = preferred.or_else(|| usable().next()) {
            return Ok(&entry.key);
        }
        let cooldowns = || self.entries.iter().filter_map(|entry| entry.active_cooldown(model, now));
        let rechecks = cooldowns().filter_map(|cooldown| cooldown.recheck_until.filter(|until| *until > now));
        if let Some(until) = rechecks.min() {
            return Err(NoUsableKey::Rechecking(until));
        }
        let cause = cooldowns().min_by_key(|cooldown| cooldown.until).map(|cooldown| cooldown.cause.clone());
        Err(NoUsableKey::AllCoolingDown(
            cause.unwrap_or_else(|| Failure::new(Class::Auth, "the provider has no key")),
        ))
    }

    /// Returns the index of the preferred key by rotation.
    fn rotation_start(&self, now: Instant) -> usize {
        let Some(every) = self.rotate_every.filter(|every| !every.is_zero()) else { return 0 };
        let turns = now.saturating_duration_since(self.started_at).as_nanos() / every.as_nanos();
        (turns % self.entries.len().max(1) as u128) as usize
    }

    /// Returns whether every key has a cooldown for `model`, and no file may have a new one.
    pub(in crate::provider) fn none_usable(&self, model: &ModelName, now: Instant) -> bool {
        matches!(self.pick(model, &[], now), Err(NoUsableKey::AllCoolingDown(_)))
    }

    /// Returns the end and the cause of the cooldown for `model` that ends first; `None` while a key is usable,
    /// or a file may have a new one.
    pub(in crate::provider) fn cooldown_of_all(
        &self,
        model: &ModelName,
        now: Instant,
    ) -> Option<(Instant, &Failure)> {
        self.none_usable(model, now).then_some(())?;
        let cooldowns = self.entries.iter().filter_map(|entry| entry.active_cooldown(model, now));
        cooldowns.min_by_key(|cooldown| cooldown.until).map(|cooldown| (cooldown.until, &cooldown.cause))
    }

    /// Returns whether a key that has not answered yet was refused for a single request only.
    pub(in crate::provider) fn any_is_refused_by_one_request(&self, model: &ModelName, now: Instant) -> bool {
        self.entries.iter().any(|entry| {
            let is_refused = |cooldown: &Cooldown| cooldown.cause.class == Class::Auth;
            let tracker = match entry.active_cooldown(model, now).filter(|cooldown| is_refused(cooldown)) {
                Some(cooldown) if cooldown.cause.scope == FailureScope::Model => {
                    entry.model_refusals.get(model)
                }
                Some(_) => Some(&entry.refusals),
                None => None,
            };
            tracker.is_some_and(RefusalTracker::is_shown_by_one_request)
        })
    }

    /// Returns whether a key comes from a file, which the user may replace.
    pub(in crate::provider) fn any_has_file(&self) -> bool {
        self.entries.iter().any(|entry| entry.file.is_some())
    }

    /// Returns whether a key for `model` outside `excluded` is usable, or may be when a file is read.
    pub(in crate::provider) fn has_other(&self, model: &ModelName, excluded: &[KeyId], now: Instant) -> bool {
        match self.pick(model, excluded, now) {
            Ok(key) => !excluded.contains(&key.id),
            Err(NoUsableKey::Rechecking(_)) => true,
            Err(NoUsableKey::AllCoolingDown(_)) => false,
        }
    }

    /// Records that the provider accepted a call with this key.
    pub(in crate::provider) fn on_accepted(&mut self, key: &KeyId, model: &ModelName) {
        for entry in self.entries.iter_mut().filter(|entry| entry.key.id == *key) {
            entry.refusals.record_accepted();
            entry.model_refusals.entry(model.clone()).or_default().record_accepted();
        }
    }

    /// Records that a call with this key was answered.
    pub(in crate::provider) fn on_answered(&mut self, key: &KeyId, model: &ModelName) {
        for entry in self.entries.iter_mut().filter(|entry| entry.key.id == *key) {
            entry.refusals.record_answered();
            entry.cooldowns_in_a_row = 0;
            entry.model_refusals.entry(model.clone()).or_default().record_answered();
        }
    }

    /// Starts a cooldown if the key, and not the call, caused `failure` of a call to `model`. A key that was
    /// replaced after the call was sent gets no cooldown for its predecessor. A quota that is reset at an
    /// advertised time, and a refusal that names the model, apply to that model only. Exhausted credit and other
    /// refusals apply to the key.
    pub(in crate::provider) fn on_refused(
        &mut self,
        key: &KeyId,
        model: &ModelName,
        failure: &Failure,
        attempt: RefusedAttempt<'_>,
        now: Instant,
    ) -> KeyFault {
        if cooldown_duration(failure, 0).is_none() {
            return KeyFault::NotAtFault;
        }
        for entry in self.entries.iter_mut().filter(|entry| entry.key.id == *key) {
            let recheck_until =
                (entry.file.is_some() && failure.class == Class::Auth).then(|| now + MAX_RECHECK_WAIT);
            if !entry.is_refused(model, failure, attempt) {
                entry.recheck_until = recheck_until;
                return KeyFault::Undecided;
            }
            // Attempts that were sent together are refused together and count as one cooldown.
            if entry.active_cooldown(model, now).is_none() {
                entry.cooldowns_in_a_row = entry.cooldowns_in_a_row.saturating_add(1);
            }
            let wait = cooldown_duration(failure, entry.cooldowns_in_a_row).unwrap_or_default();
            let cooldown = Cooldown { until: now + wait, cause: failure.clone(), recheck_until };
            let has_reset_time = failure.class == Class::Quota && failure.retry_after.is_some();
            if has_reset_time || failure.scope == FailureScope::Model {
                let known = entry.model_cooldowns.remove(model);
                entry.model_cooldowns.insert(model.clone(), cooldown.max_with(known));
            } else {
                entry.cooldown = Some(cooldown.max_with(entry.cooldown.take()));
            }
        }
        KeyFault::AtFault
    }

    /// Returns the label and the failure of every key with a cooldown.
    pub(in crate::provider) fn cooling_down(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (&KeyLabel, &Failure)> {
        self.entries.iter().filter_map(move |entry| {
            let mut cooldowns = entry.cooldown.iter().chain(entry.model_cooldowns.values());
            Some((&entry.key.id.label, &cooldowns.find(|cooldown| cooldown.until > now)?.cause))
        })
    }

    /// Returns whether a key was refused whose file may have a new key.
    pub(in crate::provider) fn needs_recheck(&self, now: Instant) -> bool {
        let rechecks = |entry: &KeyEntry| {
            [entry.recheck_until, entry.cooldown.as_ref().and_then(|cooldown| cooldown.recheck_until)]
        };
        self.entries.iter().flat_map(rechecks).flatten().any(|until| until > now)
    }

    /// Returns the files to read now, with the labels of their keys.
    pub(in crate::provider) fn files_to_read(&mut self, now: Instant) -> Vec<(KeyLabel, KeySource)> {
        if !self.needs_recheck(now) && now < self.files_read_at + FILE_READ_INTERVAL {
            return Vec::new();
        }
        self.files_read_at = now;
        let file =
            |entry: &KeyEntry| Some((entry.key.id.label.clone(), KeySource::File(entry.file.clone()?)));
        self.entries.iter().filter_map(file).collect()
    }

    /// Applies the contents of a key file, whose reading began at `began`. A new key is used at once, without the
    /// cooldowns of the old one.
    pub(in crate::provider) fn apply_file(
        &mut self,
        label: &KeyLabel,
        read: Result<Option<Secret>, KeyError>,
        began: Instant,
    ) -> ReloadOutcome {
        let format = self.format;
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.key.id.label == *label) else {
            return ReloadOutcome::Unchanged;
        };
        // A key that was refused after the file was opened still needs a recheck.
        let checked = Some(began + MAX_RECHECK_WAIT);
        if let Some(cooldown) = entry.cooldown.as_mut().filter(|cooldown| cooldown.recheck_until <= checked) {
            cooldown.recheck_until = None;
        }
        entry.recheck_until = entry.recheck_until.filter(|until| *until > began + MAX_RECHECK_WAIT);
        let read = read.and_then(|secret| secret.ok_or_else(|| KeyError::Empty { label: label.clone() }));
        let replacement = read.map(|secret| {
            let is_new = !entry.key.has_secret(&secret);
            is_new.then(|| {
                entry
                    .key
                    .replacement(format, &secret)
                    .map_err(|_| KeyError::InvalidKey { label: label.clone() })
            })
        });
        match replacement.and_then(Option::transpose) {
            Ok(replacement) => entry.replace_key(replacement),
            Err(error) => entry.keep_key(error),
        }
    }
}

impl Cooldown {
    /// Returns the longer of two cooldowns: calls that were sent together may get different times.
    fn max_with(self, known: Option<Self>) -> Self {
        match known.filter(|known| known.until > self.until) {
            Some(known) => Self { recheck_until: self.recheck_until.max(known.recheck_until), ..known },
            None => self,
        }
    }
}

impl KeyEntry {
    fn new(key: ReadyKey, file: Option<PathBuf>) -> Self {
        Self {
            key,
            file,
            is_unreadable: false,
            cooldown: None,
            model_cooldowns: BTreeMap::new(),
            refusals: RefusalTracker::default(),
            cooldowns_in_a_row: 0,
            model_refusals: BTreeMap::new(),
            recheck_until: None,
        }
    }

    fn snapshot(&self, now: Instant) -> KeySnapshot {
        let is_active = |cooldown: &&Cooldown| cooldown.until > now;
        let of_models = || self.model_cooldowns.iter().filter(|(_, cooldown)| is_active(cooldown));
        let of_all = self.cooldown.as_ref().filter(is_active);
        let shown = of_all.or_else(|| of_models().map(|(_, cooldown)| cooldown).next());
        KeySnapshot {
            key: self.key.id.label.clone(),
            usable: of_all.is_none(),
            models_in_cooldown: of_models().map(|(model, _)| model.clone()).collect(),
            usable_in: shown
                .map(|cooldown| cooldown.until.saturating_duration_since(now))
                .unwrap_or_default(),
            class: shown.map(|cooldown| cooldown.cause.class),
            message: shown.map(|cooldown| cooldown.cause.message.clone()),
        }
    }

    fn active_cooldown(&self, model: &ModelName, now: Instant) -> Option<&Cooldown> {
        let cooldowns = self.cooldown.iter().chain(self.model_cooldowns.get(model));
        cooldowns.filter(|cooldown| cooldown.until > now).max_by_key(|cooldown| cooldown.until)
    }

    /// Returns whether the failure is a refusal of the key. Exhausted credit always concerns the account.
    fn is_refused(&mut self, model: &ModelName, failure: &Failure, attempt: RefusedAttempt<'_>) -> bool {
        match (failure.class, failure.scope) {
            (Class::Quota, FailureScope::Class) => true,
            (_, FailureScope::Model) => {
                self.model_refusals.entry(model.clone()).or_default().record_refused(attempt)
            }
            (_, _) => self.refusals.record_refused(attempt),
        }
    }

    fn replace_key(&mut self, replacement: Option<ReadyKey>) -> ReloadOutcome {
        self.is_unreadable = false;
        let Some(replacement) = replacement else { return ReloadOutcome::Unchanged };
        self.key = replacement;
        self.cooldown = None;
        self.recheck_until = None;
        self.model_cooldowns.clear();
        self.cooldowns_in_a_row = 0;
        self.refusals = RefusalTracker::default();
        self.model_refusals.clear();
        ReloadOutcome::Replaced
    }

    fn keep_key(&mut self, error: KeyError) -> ReloadOutcome {
        if std::mem::replace(&mut self.is_unreadable, true) {
            ReloadOutcome::Unchanged
        } else {
            ReloadOutcome::Unreadable(error)
        }
    }
}

/// Returns the cooldown after `failure` for the `times`th time; `None` if the key did not cause the failure.
fn cooldown_duration(failure: &Failure, times: u32) -> Option<Duration> {
    let backoff =
        INITIAL_COOLDOWN.saturating_mul(1 << times.saturating_sub(1).min(16)).min(MAX_BACKOFF_COOLDOWN);
    match (failure.class, failure.retry_after) {
        (Class::Auth, advertised) => Some(advertised.unwrap_or(backoff).clamp(backoff, MAX_COOLDOWN)),
        (Class::Quota, Some(advertised)) => Some(advertised.clamp(MIN_ADVERTISED_COOLDOWN, MAX_COOLDOWN)),
        (Class::Quota, None) => Some(backoff),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
