//! A book with everything around it that its state and its actor do, in virtual time.
//!
//! Looks at every call that leaves and after every event whether anything is broken that never may be.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::super::*;
use super::strategies::{Event, How, Question};
use crate::provider::call::Replied;
use crate::provider::key_source::Key;
use crate::provider::keys::Blame;
use crate::provider::permit::Ended;
use crate::supervisor::Later;
use crate::types::{Asker, KeyLabel, Prompt, RunId, Secret};
use crate::wire::Hints;

/// How long a call answers after it left, where all is well.
const ROUND_TRIP: Duration = Duration::from_millis(300);

/// A call must have been out for this long without a word to count as silent, at least.
const SILENT: Duration = Duration::from_secs(5);

/// After so long a probe of the shared breaker is not waited for.
const CONNECTED: Duration = Duration::from_secs(1);

pub(super) struct World {
    pub(super) book: Book,
    pub(super) settings: Settings,
    pub(super) now: Instant,
    pub(super) out: Vec<Out>,
    /// Everybody who still waits for his turn, by the number of the call.
    pub(super) askers: HashMap<u64, Later<Result<Replied, Refused>>>,
    pub(super) asked: u64,
    /// How calls ended that did not leave.
    pub(super) refused: Vec<(u64, Refused)>,
    pub(super) departures: Vec<Departed>,
    pub(super) alarm: Option<Instant>,
    runs: Vec<RunId>,
    /// Until when a model's calls must not leave, as its provider said.
    held: HashMap<ModelName, Instant>,
    /// When a model last took a call.
    accepted: HashMap<ModelName, Instant>,
    /// Likewise with one key; without a model, of all.
    resting: HashMap<(KeyLabel, Option<ModelName>), Instant>,
    /// The keys that have been answered.
    answered: HashSet<KeyLabel>,
}

/// A call that is out.
pub(super) struct Out {
    pub(super) taken: Taken,
    pub(super) left: Instant,
    had_word: bool,
    /// Whether its being a probe binds nobody any more: of the lane's breaker, of the door.
    past: (bool, bool),
}

/// A call as it left.
#[derive(Debug, Clone)]
pub(super) struct Departed {
    pub(super) id: u64,
    pub(super) at: Instant,
    pub(super) model: ModelName,
    pub(super) need: Need,
}

impl World {
    pub(super) fn new(settings: Settings, keys: usize) -> Self {
        let now = Instant::now();
        let key = |number: usize| Key {
            label: number.to_string().as_str().into(),
            secret: Secret::from(format!("secret-{number}")),
            file: None,
        };
        let keys: Vec<Key> = (0..keys).map(key).collect();
        let keys = Keys::new(settings.format, &keys, settings.rotate_every, now).unwrap();
        Self {
            book: Book::new(&settings, keys, now),
            settings,
            now,
            out: Vec::new(),
            askers: HashMap::new(),
            asked: 0,
            refused: Vec::new(),
            departures: Vec::new(),
            alarm: None,
            runs: (0..3).map(|_| RunId::next()).collect(),
            held: HashMap::new(),
            accepted: HashMap::new(),
            resting: HashMap::new(),
            answered: HashSet::new(),
        }
    }

    pub(super) fn model(&self, number: usize) -> ModelName {
        self.settings.models.get_index(number % self.settings.models.len()).unwrap().0.clone()
    }

    pub(super) fn happens(&mut self, event: Event) {
        match event {
            Event::Asks(question) => self.asks(&question),
            Event::Passes(time) => self.passes(time),
            Event::Heard { which, hints, accepted } => self.hears(which, &hints, accepted),
            Event::Ends { which, how } => self.ends(which, how),
            Event::AskerGoes { which } => {
                let mut waiting: Vec<u64> = self.askers.keys().copied().collect();
                waiting.sort_unstable();
                if !waiting.is_empty() {
                    self.askers.remove(&waiting[which % waiting.len()]);
                }
            }
            Event::Sweeps => self.sweeps(),
        }
        self.is_whole();
    }

    pub(super) fn asks(&mut self, question: &Question) {
        let Question { input, max_tokens, priority, retry, alone, stay, .. } = *question;
        let (model, id) = (self.model(question.model), self.asked);
        self.asked += 1;
        let prompt = Prompt { system: Some(id.to_string().as_str().into()), ..Prompt::text("Anybody?") };
        let step = question.step.map(|step| step.to_string().as_str().into());
        let asker = Asker { run: self.runs[question.run], step, ..Asker::default() };
        let (prompt, deadline) = (Arc::new(prompt), self.now + question.patience);
        let call = Call {
            prompt,
            model,
            priority,
            asker,
            retry,
            alone,
            stay,
            not_with: Vec::new(),
            departure: None,
            purse: None,
            held: crate::guard::HeldMemory::default(),
            deadline,
        };
        let models_own = self.settings.models[&call.model].max_tokens.map(|most| u64::from(most.get()));
        let estimate = Estimate { input, max_tokens: max_tokens.or(models_own) };
        let may = self.book.admissible(&"p".into(), &self.settings, &call, estimate, self.now);
        match may {
            Ok(()) => {
                let (reply, later) = Later::promise();
                self.askers.insert(id, later);
                self.book.queue.push(call.place(), Waiting { call, reply, asked: self.now, estimate });
            }
            Err(refused) => self.refused.push((id, refused)),
        }
        self.pump();
    }

    /// Lets time pass, with the alarms that were set for it.
    pub(super) fn passes(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(alarm) = self.alarm.filter(|alarm| *alarm <= end) {
            self.rings(alarm);
        }
        self.now = end;
    }

    fn rings(&mut self, alarm: Instant) {
        (self.now, self.alarm) = (alarm.max(self.now), None);
        self.pump();
    }

    pub(super) fn pump(&mut self) {
        loop {
            match self.book.next(self.now) {
                Turn::Leave(leaving) => {
                    let (waiting, key, taken, _money) = *leaving;
                    self.leaves(waiting, &key, taken);
                }
                Turn::Refuse(waiting, refused) => self.refuses(&waiting, refused),
                Turn::Wait(until) => {
                    assert!(until > self.now, "asked again at once, for ever");
                    if self.alarm.is_none_or(|set| set > until || set <= self.now) {
                        self.alarm = Some(until);
                    }
                    return;
                }
                Turn::Nothing => return,
            }
        }
    }

    fn refuses(&mut self, waiting: &Waiting, refused: Refused) {
        let id = id(&waiting.call);
        let was_there = self.askers.remove(&id).is_some();
        assert!(was_there || waiting.reply.is_abandoned(), "{id} had been answered before");
        self.refused.push((id, refused));
    }

    fn leaves(&mut self, waiting: Waiting, key: &ReadyKey, taken: Taken) {
        let (now, call) = (self.now, waiting.call);
        let id = id(&call);
        assert!(self.askers.remove(&id).is_some(), "{id} left with nobody waiting for it");
        assert!(now < call.deadline, "{id} left too late");
        let held = self.held.get(&call.model).copied();
        assert!(held.is_none_or(|until| until <= now), "{id} left before the provider wanted it");
        for of in [None, Some(call.model.clone())] {
            let rests = self.resting.get(&(key.id.label.clone(), of)).copied();
            assert!(rests.is_none_or(|until| until <= now), "{id} left with a key that rests");
        }
        let (pass, door) = (taken.pass, taken.door);
        assert!(
            call.alone || !pass.is_forced() && !door.is_forced(),
            "{id} was forced, and had elsewhere to go"
        );
        let lane = &self.book.lanes[&call.model];
        let is_down = |breaker: &Breaker| breaker.trouble() == Some(Trouble::Row);
        assert!(!pass.is_forced() || !is_down(&lane.breaker), "{id} was forced into a lane that is down");
        assert!(!door.is_forced() || !is_down(&self.book.door), "{id} was forced through a shut door");
        let of_lane = |out: &&Out| out.taken.model == call.model && out.taken.pass.is_probe();
        if pass.is_probe() {
            assert!(self.out.iter().filter(of_lane).all(|out| out.past.0), "{id} is a second probe");
        }
        if door.is_probe() {
            let mut probes = self.out.iter().filter(|out| out.taken.door.is_probe());
            assert!(probes.all(|out| out.past.1), "{id} is a second probe of the door");
        }
        let is_exempt = pass.is_probe() || door.is_probe();
        let is_silent = |lane: &Lane| lane.breaker.trouble() == Some(Trouble::Silence);
        // Those that hang are in flight and take no room.
        let hung = |lane: &Lane| lane.concurrency.in_flight() - lane.concurrency.counted();
        let silent = |lane: &Lane| if is_silent(lane) { lane.concurrency.in_flight() } else { hung(lane) };
        let silent: usize = self.book.lanes.values().map(silent).sum();
        let counted = if pass.is_forced() || door.is_forced() { 0 } else { silent };
        let bound = self.book.max_in_flight.unwrap_or(usize::MAX);
        assert!(is_exempt || self.book.in_flight - counted <= bound, "{id} is one too many");
        let most = lane.concurrency.reachable(lane.is_paced(&self.book.limits));
        assert!(is_exempt || lane.concurrency.counted() <= most, "{id} is one too many for its lane");
        let model = call.model.clone();
        let need = taken.reserved.need;
        self.departures.push(Departed { id, at: now, model, need });
        self.out.push(Out { taken, left: now, had_word: false, past: (false, false) });
    }

    pub(super) fn hears(&mut self, which: usize, hints: &Hints, accepted: bool) {
        if self.out.is_empty() {
            return;
        }
        let which = which % self.out.len();
        if std::mem::replace(&mut self.out[which].had_word, true) {
            return;
        }
        if accepted {
            self.accepted.insert(self.out[which].taken.model.clone(), self.now);
        }
        let heard = self.book.heard(&self.out[which].taken, hints, accepted, self.now);
        let lane = &self.book.lanes[&self.out[which].taken.model];
        assert_ne!(lane.breaker.trouble(), Some(Trouble::Silence), "it has spoken");
        self.moves_on();
        if heard.calls || heard.health {
            self.pump();
        }
    }

    pub(super) fn ends(&mut self, which: usize, how: How) {
        if self.out.is_empty() {
            return;
        }
        let out = self.out.swap_remove(which % self.out.len());
        let result = how.result();
        let took = self.now - out.left;
        let began = out.had_word && matches!(result, Some(Ok(_)));
        let ended = result.as_ref().map(|result| Ended { result, took, began });
        let news = self.book.settle(&out.taken, ended.as_ref(), self.now);
        let failed = matches!(result, Some(Err(_)));
        if let Some(Err(failure)) = &result {
            self.obeys(&out, failure, news.blame);
        }
        if let Some(Ok(_)) = &result {
            self.answered.insert(out.taken.key.label.clone());
            self.is_closed_by(&out);
        }
        self.moves_on();
        if failed || news.health {
            self.turns_away();
        }
        if news.health || !self.book.queue.is_empty() {
            self.pump();
        }
    }

    /// Remembers what the provider wants, in its own words.
    fn obeys(&mut self, out: &Out, failure: &Failure, blame: Blame) {
        let taken = &out.taken;
        let others_are_taken = self.accepted.get(&taken.model).is_some_and(|accepted| *accepted >= out.left);
        let day = Duration::from_hours(24);
        let label = &taken.key.label;
        // It may be open whether the key is refused: of one that has answered, or while others are out with it.
        if failure.class == Class::Auth && blame == Blame::Open {
            return;
        }
        let (key, rest) = match (failure.class, failure.retry_after) {
            (Class::Quota, Some(wait)) => ((label.clone(), Some(taken.model.clone())), wait.min(day)),
            (Class::Auth | Class::Quota, wait) => {
                ((label.clone(), None), wait.unwrap_or_default().clamp(Duration::from_secs(5), day))
            }
            // While others are taken it is only for the one that was told.
            (Class::Overloaded | Class::ServerError, _) if others_are_taken => return,
            (Class::RateLimit | Class::Overloaded | Class::ServerError, Some(wait)) if wait < day => {
                let held = self.held.entry(taken.model.clone()).or_insert(self.now);
                *held = (*held).max(self.now + wait);
                return;
            }
            _ => return,
        };
        let until = self.resting.entry(key).or_insert(self.now);
        *until = (*until).max(self.now + rest);
    }

    fn is_closed_by(&self, out: &Out) {
        let lane = &self.book.lanes[&out.taken.model];
        if out.taken.pass.is_probe() && !out.past.0 {
            assert_eq!(lane.breaker.state(self.now), BreakerState::Closed, "its probe was answered");
            assert_eq!(lane.breaker.trouble(), None);
        }
        if out.taken.door.is_probe() && !out.past.1 {
            assert_eq!(self.book.door.state(self.now), BreakerState::Closed, "its probe was answered");
            assert_eq!(self.book.door.trouble(), None);
        }
    }

    pub(super) fn sweeps(&mut self) {
        let now = self.now;
        let worth = |waiting: &Waiting| !waiting.reply.is_abandoned() && waiting.call.deadline > now;
        for waiting in self.book.queue.take_unless(worth) {
            self.refuses(&waiting, Refused::Busy { until: now });
        }
        self.book.look_for_silence(now);
        self.turns_away();
        for out in &mut self.out {
            out.past.0 |= !out.had_word && now - out.left >= SILENT;
            // It has connected, or it would have failed.
            out.past.1 |= now - out.left >= CONNECTED;
        }
        self.moves_on();
        self.pump();
    }

    fn turns_away(&mut self) {
        for (waiting, refused) in self.book.turn_away(self.now) {
            assert!(!waiting.call.stay, "it has nowhere else to go");
            self.refuses(&waiting, refused);
        }
        // What could go elsewhere does not wait where a breaker refuses it.
        for model in self.book.lanes.keys().cloned().collect::<Vec<_>>() {
            let lane = &self.book.lanes[&model];
            let refuses = self.book.check(lane, false, self.now).is_err();
            let away = self.book.queue.take_unless(|waiting| {
                !refuses || waiting.call.model != model || waiting.call.alone || waiting.call.stay
            });
            assert!(away.is_empty(), "{} wait for {model} in vain", away.len());
        }
    }

    /// Probes of breakers that have closed bind nobody any more.
    fn moves_on(&mut self) {
        let is_closed = |breaker: &Breaker| breaker.trouble().is_none();
        for out in &mut self.out {
            out.past.0 |= is_closed(&self.book.lanes[&out.taken.model].breaker);
            out.past.1 |= is_closed(&self.book.door);
        }
    }

    /// Whether every count is what it counts.
    fn is_whole(&self) {
        assert_eq!(self.book.in_flight, self.out.len());
        for (model, lane) in &self.book.lanes {
            let out = self.out.iter().filter(|out| out.taken.model == *model).count();
            assert_eq!(lane.concurrency.in_flight(), out, "{model}");
        }
        assert!(self.book.queue.len() >= self.askers.len(), "calls were lost");
        assert!(self.book.queue.len() <= self.settings.queue.get(), "too many wait");
    }

    /// Lets everything be answered, calls and all, until nobody waits, without anybody looking from time to
    /// time. Returns how long that took.
    pub(super) fn drains(&mut self) -> Duration {
        let began = self.now;
        while !self.book.queue.is_empty() || !self.out.is_empty() {
            let first = self.out.iter().enumerate().min_by_key(|(_, out)| out.left);
            let due = first.map(|(which, out)| (which, (out.left + ROUND_TRIP).max(self.now)));
            match (due, self.alarm) {
                (Some((_, at)), Some(alarm)) if alarm < at => self.rings(alarm),
                (Some((which, at)), _) => {
                    self.now = at;
                    self.hears(which, &Hints::default(), true);
                    // Hearing may let others leave, which go behind it.
                    self.ends(which, How::Answered(Some((10, 10))));
                }
                (None, Some(alarm)) => self.rings(alarm),
                (None, None) => panic!("{} wait, and nothing will ever wake them", self.book.queue.len()),
            }
            self.is_whole();
        }
        self.now - began
    }
}

fn id(call: &Call) -> u64 {
    call.prompt.system.as_deref().unwrap().parse().unwrap()
}
