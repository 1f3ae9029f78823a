//! Which waiting calls leave a provider that takes none now, to be taken elsewhere.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::book::Book;
use super::call::Refused;
use super::lane::Lane;
use super::state::Waiting;
use crate::types::ModelName;

/// How long a call waits behind calls that hang before its other lanes are looked at again, although none of them was
/// well when it came.
const LOOKS_ELSEWHERE: Duration = Duration::from_secs(5);

/// Why a lane's calls go elsewhere.
struct Away {
    refused: Refused,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// The provider has asked us to stay away for long.
    Held,
    /// A breaker refuses. `is_full` is whether no call that it lets pass could leave either.
    Open { is_full: bool },
}

impl Book {
    /// Takes out what waits and could go elsewhere, of lanes that the provider has asked us to stay away from for long,
    /// and of those whose breaker refuses it: there it might wait for calls that hang. Says why.
    pub(super) fn turn_away(&mut self, now: Instant) -> Vec<(Waiting, Refused)> {
        let away = |(model, _): (&ModelName, usize)| Some((model.clone(), self.away(model, now)?));
        let away: HashMap<ModelName, Away> = self.queue.lanes_waiting().filter_map(away).collect();
        if away.is_empty() {
            return Vec::new();
        }
        let stays = |waiting: &Waiting| {
            away.get(&waiting.call.model).is_none_or(|away| away.kind.lets_stay(waiting, now))
        };
        let gone = self.queue.take_unless(stays).into_iter();
        gone.filter_map(|waiting| Some((away.get(&waiting.call.model)?.refused.clone(), waiting)))
            .map(|(refused, waiting)| (waiting, refused))
            .collect()
    }

    fn away(&self, model: &ModelName, now: Instant) -> Option<Away> {
        let lane: &Lane = self.lanes.get(model)?;
        if let Some(until) = self.held_for_long(lane, now) {
            return Some(Away { refused: Refused::Busy { until }, kind: Kind::Held });
        }
        let refused = self.check(lane, false, now).err()?;
        let is_full = !self.may(model, now);
        Some(Away { refused, kind: Kind::Open { is_full } })
    }
}

impl Kind {
    fn lets_stay(self, waiting: &Waiting, now: Instant) -> bool {
        let call = &waiting.call;
        match self {
            Self::Held => call.stay,
            Self::Open { is_full } => {
                let is_early = now.saturating_duration_since(waiting.asked) < LOOKS_ELSEWHERE;
                call.stay || call.alone && (!is_full || is_early)
            }
        }
    }
}
