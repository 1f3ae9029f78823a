//! The keys of one account at a provider: which is used, which rest, and which file is to be read anew.
//!
//! Pure: it is given `now`, and its owner reads the files.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use crate::types::{Class, Failure, KeyLabel, ModelName, Scope, Secret};
use crate::wire::Format;

use super::key::{KeyId, ReadyKey};
use super::key_error::KeyError;
use super::key_source::{Key, KeySource};
use super::suspicion::{RefusedAttempt, Suspicion};

/// How long a key rests that was refused, or whose money is spent, when the provider names no time. The rest doubles each
/// time until a request is answered: short enough that a restored account is used soon, and at last so long that it costs
/// next to no attempts.
const FIRST_REST: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_mins(5);

/// How long a key rests at least whose quota opens again at a time that the provider names: one that
/// names the next second and means it not would otherwise be asked in a circle.
const NAMED_AT_LEAST: Duration = Duration::from_secs(60);

/// How long a key rests at most: somebody may pay before the month is over.
const LONGEST_REST: Duration = Duration::from_hours(24);

/// How often key files are read.
const READ_EVERY: Duration = Duration::from_secs(2);

/// How long a refused key may be waited for while its file is read: a disk that hangs must hold up no call
/// for longer.
const DOUBT: Duration = Duration::from_secs(1);

/// The keys, best first.
#[derive(Debug)]
pub(super) struct Keys {
    held: Vec<Held>,
    format: Format,
    /// After how long the next one is used first; `None` is always the best.
    rotate_every: Option<Duration>,
    began: Instant,
    read: Instant,
}

#[derive(Debug)]
struct Held {
    key: ReadyKey,
    file: Option<PathBuf>,
    /// Whether it has been told that the file gives no key.
    is_unreadable: bool,
    rest: Option<Rest>,
    /// Models that it may not use, or whose own quota is spent for it.
    models: HashMap<ModelName, Rest>,
    suspicion: Suspicion,
    /// How often it came to rest since it was answered last.
    rests: u32,
    /// What is known against its use of single models.
    of_models: HashMap<ModelName, Suspicion>,
    /// Until when its file may hold another one, although this one does not rest.
    doubt: Option<Instant>,
}

/// Whether a failure is about the key that the call had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// It is not.
    NotTheKey,
    /// Other requests will tell.
    Open,
    /// It is: the key rests.
    TheKey,
}

#[derive(Debug)]
struct Rest {
    until: Instant,
    why: Failure,
    /// Until when its file may prove that it has been replaced already.
    doubt: Option<Instant>,
}

/// Why no key can be used.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum NoKey {
    /// One may be there as soon as its file has been read, by this instant.
    Soon(Instant),
    /// All rest; this is why the one that comes back first does.
    Resting(Failure),
}

/// What reading a file has changed.
#[derive(Debug)]
pub(super) enum Renewed {
    /// Nothing that anybody has to hear of.
    Not,
    /// The key is another.
    Changed,
    /// The file gives no key any more; the old one is kept.
    Unreadable(KeyError),
}

impl Keys {
    /// Makes the keys of a provider; none at all is a server that wants none.
    ///
    /// # Errors
    /// `auth` for a key that no header can carry; its text is not repeated.
    pub(super) fn new(
        format: Format,
        keys: &[Key],
        rotate_every: Option<Duration>,
        now: Instant,
    ) -> Result<Self, Failure> {
        let held = |key, file| Held {
            key,
            file,
            is_unreadable: false,
            rest: None,
            models: HashMap::new(),
            suspicion: Suspicion::default(),
            rests: 0,
            of_models: HashMap::new(),
            doubt: None,
        };
        let ready = |key: &Key| {
            let ready = ReadyKey::new(format, key.label.clone(), &key.secret)?;
            Ok(held(ready, key.file.clone()))
        };
        let held = match keys {
            [] => vec![held(ReadyKey::none(), None)],
            keys => keys.iter().map(ready).collect::<Result<_, _>>()?,
        };
        Ok(Self { held, format, rotate_every, began: now, read: now })
    }

    /// Returns the key to use for a call to `model`: of those that do not rest the best, or the one whose
    /// time it is. One of those in `not_with` is used only where there is no other.
    ///
    /// # Errors
    /// When all rest.
    pub(super) fn pick(
        &self,
        model: &ModelName,
        not_with: &[KeyId],
        now: Instant,
    ) -> Result<&ReadyKey, NoKey> {
        let (later, first) = self.held.split_at(self.first(now));
        let usable = || first.iter().chain(later).filter(|held| held.rests(model, now).is_none());
        let preferred = usable().find(|held| !not_with.contains(&held.key.id));
        if let Some(held) = preferred.or_else(|| usable().next()) {
            return Ok(&held.key);
        }
        let rests = || self.held.iter().filter_map(|held| held.rests(model, now));
        if let Some(soon) = rests().filter_map(|rest| rest.doubt.filter(|by| *by > now)).min() {
            return Err(NoKey::Soon(soon));
        }
        let why = rests().min_by_key(|rest| rest.until).map(|rest| rest.why.clone());
        Err(NoKey::Resting(why.unwrap_or_else(|| Failure::new(Class::Auth, "the provider has no key"))))
    }

    /// Returns the number of the key whose time it is.
    fn first(&self, now: Instant) -> usize {
        let Some(every) = self.rotate_every.filter(|every| !every.is_zero()) else { return 0 };
        let turns = now.saturating_duration_since(self.began).as_nanos() / every.as_nanos();
        (turns % self.held.len().max(1) as u128) as usize
    }

    /// Returns whether every key rests for `model`, and none may be there in a moment.
    pub(super) fn are_out(&self, model: &ModelName, now: Instant) -> bool {
        matches!(self.pick(model, &[], now), Err(NoKey::Resting(_)))
    }

    /// Returns until when every key rests for `model`, and why the one that comes back first does; `None` while one
    /// can be used, or may be there in a moment.
    pub(super) fn rest_of_all(&self, model: &ModelName, now: Instant) -> Option<(Instant, &Failure)> {
        self.are_out(model, now).then_some(())?;
        let rests = self.held.iter().filter_map(|held| held.rests(model, now));
        rests.min_by_key(|rest| rest.until).map(|rest| (rest.until, &rest.why))
    }

    /// Returns whether a key comes from a file, which may be replaced.
    pub(super) fn any_has_file(&self) -> bool {
        self.held.iter().any(|held| held.file.is_some())
    }

    /// Returns whether there is a key for `model` beside those in `not_with`, or may be as soon as a file is read.
    pub(super) fn has_other(&self, model: &ModelName, not_with: &[KeyId], now: Instant) -> bool {
        match self.pick(model, not_with, now) {
            Ok(key) => !not_with.contains(&key.id),
            Err(NoKey::Soon(_)) => true,
            Err(NoKey::Resting(_)) => false,
        }
    }

    /// Learns that the provider has let a call in.
    pub(super) fn let_in(&mut self, key: &KeyId, model: &ModelName) {
        for held in self.held.iter_mut().filter(|held| held.key.id == *key) {
            held.suspicion.let_in();
            held.of_models.entry(model.clone()).or_default().let_in();
        }
    }

    /// Learns that a call was answered.
    pub(super) fn answered(&mut self, key: &KeyId, model: &ModelName) {
        for held in self.held.iter_mut().filter(|held| held.key.id == *key) {
            held.suspicion.answered();
            held.rests = 0;
            held.of_models.entry(model.clone()).or_default().answered();
        }
    }

    /// Lets a key rest if `failure` of a call to `model` says that it, and not the call, is at fault. One that
    /// has been replaced since the call left does not rest for its predecessor. A quota that opens again at a
    /// named time, and a model that the provider names, is a model's own; money and trust are the key's.
    pub(super) fn refused(
        &mut self,
        key: &KeyId,
        model: &ModelName,
        failure: &Failure,
        attempt: RefusedAttempt<'_>,
        now: Instant,
    ) -> Blame {
        if rest(failure, 0).is_none() {
            return Blame::NotTheKey;
        }
        for held in self.held.iter_mut().filter(|held| held.key.id == *key) {
            let doubt = (held.file.is_some() && failure.class == Class::Auth).then(|| now + DOUBT);
            if !held.is_refused(model, failure, attempt) {
                held.doubt = doubt;
                return Blame::Open;
            }
            // Attempts that left together are refused together: that is one rest.
            if held.rests(model, now).is_none() {
                held.rests = held.rests.saturating_add(1);
            }
            let wait = rest(failure, held.rests).unwrap_or_default();
            let rest = Rest { until: now + wait, why: failure.clone(), doubt };
            let opens_again = failure.class == Class::Quota && failure.retry_after.is_some();
            if opens_again || failure.scope == Scope::Model {
                let known = held.models.remove(model);
                held.models.insert(model.clone(), rest.no_shorter_than(known));
            } else {
                held.rest = Some(rest.no_shorter_than(held.rest.take()));
            }
        }
        Blame::TheKey
    }

    /// Returns the label and what ails it, of every key that rests.
    pub(super) fn resting(&self, now: Instant) -> impl Iterator<Item = (&KeyLabel, &Failure)> {
        self.held.iter().filter_map(move |held| {
            let mut rests = held.rest.iter().chain(held.models.values());
            Some((&held.key.id.label, &rests.find(|rest| rest.until > now)?.why))
        })
    }

    /// Returns whether a key has been refused whose file may hold another by now.
    pub(super) fn are_in_doubt(&self, now: Instant) -> bool {
        let doubts = |held: &Held| [held.doubt, held.rest.as_ref().and_then(|rest| rest.doubt)];
        self.held.iter().flat_map(doubts).flatten().any(|by| by > now)
    }

    /// Returns the files that are to be read now, with the labels of their keys.
    pub(super) fn files_to_read(&mut self, now: Instant) -> Vec<(KeyLabel, KeySource)> {
        if !self.are_in_doubt(now) && now < self.read + READ_EVERY {
            return Vec::new();
        }
        self.read = now;
        let file = |held: &Held| Some((held.key.id.label.clone(), KeySource::File(held.file.clone()?)));
        self.held.iter().filter_map(file).collect()
    }

    /// Takes what the file of a key held when it was read, from `began` on. Another key is used at once,
    /// whatever was said of the old one.
    pub(super) fn renew(
        &mut self,
        label: &KeyLabel,
        read: Result<Option<Secret>, KeyError>,
        began: Instant,
    ) -> Renewed {
        let format = self.format;
        let Some(held) = self.held.iter_mut().find(|held| held.key.id.label == *label) else {
            return Renewed::Not;
        };
        // What was refused only after the file had been opened is in doubt still.
        if let Some(rest) = held.rest.as_mut().filter(|rest| rest.doubt <= Some(began + DOUBT)) {
            rest.doubt = None;
        }
        held.doubt = held.doubt.filter(|doubt| *doubt > began + DOUBT);
        let read = read.and_then(|secret| secret.ok_or_else(|| KeyError::Empty { label: label.clone() }));
        let successor = read.map(|secret| {
            let is_new = !held.key.is(&secret);
            is_new.then(|| {
                held.key.successor(format, &secret).map_err(|_| KeyError::NoKey { label: label.clone() })
            })
        });
        match successor.and_then(Option::transpose) {
            Ok(successor) => held.take(successor),
            Err(error) => held.keep(error),
        }
    }
}

impl Rest {
    /// Calls that left together may be told of different times: the longest is the one that holds.
    fn no_shorter_than(self, known: Option<Self>) -> Self {
        match known.filter(|known| known.until > self.until) {
            Some(known) => Self { doubt: self.doubt.max(known.doubt), ..known },
            None => self,
        }
    }
}

impl Held {
    fn rests(&self, model: &ModelName, now: Instant) -> Option<&Rest> {
        let rests = self.rest.iter().chain(self.models.get(model));
        rests.filter(|rest| rest.until > now).max_by_key(|rest| rest.until)
    }

    /// Returns whether it is the key that is refused. What is said of money is said of the account.
    fn is_refused(&mut self, model: &ModelName, failure: &Failure, attempt: RefusedAttempt<'_>) -> bool {
        match (failure.class, failure.scope) {
            (Class::Quota, Scope::Class) => true,
            (_, Scope::Model) => self.of_models.entry(model.clone()).or_default().refused(attempt),
            (_, _) => self.suspicion.refused(attempt),
        }
    }

    fn take(&mut self, successor: Option<ReadyKey>) -> Renewed {
        self.is_unreadable = false;
        let Some(successor) = successor else { return Renewed::Not };
        self.key = successor;
        self.rest = None;
        self.doubt = None;
        self.models.clear();
        self.rests = 0;
        self.suspicion = Suspicion::default();
        self.of_models.clear();
        Renewed::Changed
    }

    fn keep(&mut self, error: KeyError) -> Renewed {
        if std::mem::replace(&mut self.is_unreadable, true) {
            Renewed::Not
        } else {
            Renewed::Unreadable(error)
        }
    }
}

/// Returns how long a key rests after `failure` for the `times`th time; `None` when the key is not at fault.
fn rest(failure: &Failure, times: u32) -> Option<Duration> {
    let unnamed = FIRST_REST.saturating_mul(1 << times.saturating_sub(1).min(16)).min(REST);
    match (failure.class, failure.retry_after) {
        (Class::Auth, named) => Some(named.unwrap_or(unnamed).clamp(unnamed, LONGEST_REST)),
        (Class::Quota, Some(named)) => Some(named.clamp(NAMED_AT_LEAST, LONGEST_REST)),
        (Class::Quota, None) => Some(unnamed),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
