//! Lets `benches/admission.rs` admit calls while many wait, without a network.
//!
//! No part of the API: it is there only under the feature `bench`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::supervisor::Reply as ReplyTo;
use crate::types::{Asker, ModelName, Priority, Prompt, RunId};

use super::arrivals::{Arrival, Awaited};
use super::call::Call;
use super::model::Model;
use super::queue::{Place, Queue};
use super::settings::Settings;
use super::state::{Account, Next, State};
use super::transport;

/// The names of the lanes that calls wait for.
const LANES: [&str; 3] = ["a", "b", "c"];

/// A queue in which a number of calls always wait.
#[derive(Debug)]
pub struct Standing {
    queue: Queue<usize>,
    crowd: Crowd,
}

impl Standing {
    /// Makes a queue in which so many calls of so many runs wait.
    pub fn new(waiting: usize, runs: usize) -> Self {
        let mut standing = Self { queue: Queue::new(waiting + 1), crowd: Crowd::new(runs) };
        (0..waiting).for_each(|_| standing.push());
        standing
    }

    /// Lets one call come and one go; returns the one that goes.
    pub fn turn(&mut self) -> Option<usize> {
        self.push();
        let (ticket, _) = self.queue.next(|_| true)?;
        self.queue.take(ticket)
    }

    fn push(&mut self) {
        let place = self.crowd.next();
        self.queue.push(place, self.crowd.came);
    }
}

/// A provider for which a number of calls always wait.
#[derive(Debug)]
pub struct Admission {
    state: Arc<State>,
    crowd: Crowd,
    prompt: Arc<Prompt>,
    /// Those who ask, in the order in which their calls leave.
    askers: VecDeque<Awaited>,
}

impl Admission {
    /// Makes a provider for which so many calls of so many runs wait; it calls nobody.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(waiting: usize, runs: usize, runtime: Handle) -> Result<Self, transport::Error> {
        let models = LANES.map(|lane| (ModelName::from(lane), Model::default())).into();
        let queue = std::num::NonZeroUsize::MIN.saturating_add(waiting);
        let settings = Settings { models, queue, ..Settings::default() };
        let (name, base_url) = ("bench".into(), "http://127.0.0.1:9".to_owned());
        let account = Account {
            name,
            settings,
            base_url,
            keys: Vec::new(),
            headers: HeaderMap::new(),
            purses: Vec::new(),
        };
        let state = State::new(account, runtime)?;
        let prompt = Arc::new(Prompt::text("How long does it take until you may be asked?"));
        let mut admission = Self { state, crowd: Crowd::new(runs), prompt, askers: VecDeque::new() };
        (0..waiting).for_each(|_| admission.ask());
        Ok(admission)
    }

    /// Lets one call come, another leave, and that one end. Returns whether one left.
    pub fn turn(&mut self) -> bool {
        self.ask();
        let left = matches!(self.state.next(Instant::now()), Next::Leave(_));
        self.askers.pop_front();
        left
    }

    fn ask(&mut self) {
        let (Place { lane: model, priority, run, rank: _ }, now) = (self.crowd.next(), Instant::now());
        let asker = Asker { run, ..Asker::default() };
        let (prompt, deadline) = (self.prompt.clone(), now + Duration::from_hours(24));
        let (retry, alone, stay, departure, not_with) = (false, false, true, None, Vec::new());
        let purse = None;
        let held = crate::guard::HeldMemory::default();
        let call = Call {
            prompt,
            model,
            priority,
            asker,
            retry,
            alone,
            stay,
            not_with,
            departure,
            purse,
            held,
            deadline,
        };
        let (reply, awaited) = ReplyTo::awaited();
        self.state.enqueue(Arrival { call, reply, asked: now }, now);
        self.askers.push_back(awaited);
    }
}

/// Runs that ask in turn, so that their calls leave in the order in which they came.
#[derive(Debug)]
struct Crowd {
    runs: Vec<RunId>,
    lanes: [ModelName; 3],
    came: usize,
}

impl Crowd {
    fn new(runs: usize) -> Self {
        Self { runs: (0..runs).map(|_| RunId::next()).collect(), lanes: LANES.map(ModelName::from), came: 0 }
    }

    fn next(&mut self) -> Place {
        let run = self.runs[self.came % self.runs.len()];
        let lane = self.lanes[self.came % self.lanes.len()].clone();
        self.came += 1;
        Place { lane, priority: Priority::Batch, run, rank: 0 }
    }
}
