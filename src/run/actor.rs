//! The actor of a run: keeps a bounded window of items in flight, collects the statistics, and sends one line per
//! item to the writer.
//!
//! An item is finished when its run has accepted its result. A second result is ignored, so an item whose actor
//! panics after sending its result and is restarted still has one line. Events stay in the run's [`Inbox`] until
//! they are handled, so a panic loses none. Reads and writes no file itself.

mod completion;
mod handlers;
mod holding;
mod item_start;
mod progress;
mod resume;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::Span;

use crate::chaos;
use crate::guard::Meter;
use crate::ledger::CommitError;
use crate::provider::{self, CapacityShare};
use crate::router::{CallCounts, EmbeddingBatcher, RouteTable, Router, Scope};
use crate::source::{ItemCount, Reader};
use crate::store::ItemNumber;
use crate::supervisor::{Abort, ChildExited, Slot};
use crate::telemetry::run_span;
use crate::types::{Failure, NanoUsd, Priority, RunId, ScopeName};

use super::caps::RunBudgets;
use super::failure_limit::FailureLimit;
use super::forecast::Forecast;
use super::gate::{Gate, RunRoute};
use super::inbox::{Event, Inbox};
use super::job::Job;
use super::messages::{FollowUp, InputError, ItemRecipients, OutputEnded, RequestEnded};
use super::metrics::{ItemInProgress, RunCounts, RunHolding};
use super::persistence::RunPersistence;
use super::preview::ResultPreview;
use super::progress::Progress;
use super::report::{Report, RunOutcome};
use super::setup::RunSetup;
use super::stats::RunStats;
use super::warmup_gate::WarmupGates;
use super::window::Window;
use super::writer::{OutputRecord, RunOutput};
use crate::files::protected::ProtectedFiles;
use crate::pipeline::definition::Pipeline;

/// Interval at which progress is published and the window is updated.
const TICK: Duration = Duration::from_millis(100);

/// Maximum number of items, per item of the window, that do not count against the window because their requests
/// wait to be resent.
const MAX_PARKED_PER_WINDOW_ITEM: usize = 4;

/// The interval instead of [`TICK`] for a run without items in flight whose progress is not watched.
const IDLE_TICK: Duration = Duration::from_secs(2);

/// The actor of one run.
pub struct Run {
    pipeline: Arc<Pipeline>,
    /// Files that its items may not attach.
    protected: Arc<ProtectedFiles>,
    router: Slot<Router>,
    routes: Vec<RunRoute>,
    /// The routes in use when `providers` was determined.
    table: Arc<RouteTable>,
    /// The providers of the targets of its routes; the window follows their capacity.
    providers: Vec<Arc<provider::State>>,
    /// Its shares of the providers' capacity, while it has work.
    capacity_shares: Vec<CapacityShare>,
    priority: Priority,
    id: RunId,
    window: Window,
    /// Requests entries from the source; `None` once no more are needed.
    demand: Option<mpsc::UnboundedSender<usize>>,
    /// Sends records to the writer; `None` once there will be no more.
    records: Option<mpsc::UnboundedSender<OutputRecord>>,
    /// Signals the writer to stop waiting for lines that the reader of the output does not take.
    abort_writer: watch::Sender<bool>,
    progress: Arc<watch::Sender<Progress>>,
    report: Option<oneshot::Sender<Report>>,
    /// The run's own address, to which its items send their messages and exits.
    own: Option<(Arc<ItemRecipients>, Recipient<ChildExited>)>,
    /// Whether lines have the fields of their items.
    lines_need_item: bool,
    /// Keeps the first lines, with fields of their items.
    preview: Option<ResultPreview>,
    inbox: Inbox,
    in_flight: BTreeMap<u64, ActiveItem>,
    next_id: u64,
    /// Entries that were requested and have not arrived.
    outstanding: usize,
    /// Lines that were sent to the writer and are not written yet.
    unwritten: usize,
    items_read: u64,
    /// Entries of the input that were started or rejected.
    entries: u64,
    input_read: Option<f64>,
    /// The number of records of the input, as far as it is known.
    input_count: ItemCount,
    /// The number of records of the whole input, as far as it is known.
    input_total: ItemCount,
    /// Whether the input was read to its end.
    input_ended: bool,
    /// Where answers and results are stored, if they are.
    persistence: Option<Arc<RunPersistence>>,
    /// The last item that has a number in the store.
    last_item: ItemNumber,
    /// Items of this session's input that the store already had.
    known_items_seen: u64,
    /// The budgets that it spends from.
    budgets: RunBudgets,
    /// Why it is paused.
    paused: Option<Failure>,
    /// Where requests wait while it holds.
    gate: Arc<Gate>,
    /// Where requests wait while another one warms the provider's cache.
    warmups: Arc<WarmupGates>,
    /// Joins the requests for embeddings of its items.
    embeddings: Arc<EmbeddingBatcher>,
    /// The scope of its requests.
    scope: ScopeName,
    /// The limits and the budget of that scope, if it has any.
    scope_limits: Option<Arc<Scope>>,
    /// The current hold, once it was logged.
    logged_hold: Option<RunHolding>,
    /// How long it may hold.
    max_hold: Option<Duration>,
    /// Whether requests that are held for longer than `max_hold` fail instead of pausing the run.
    fails_held_items: bool,
    /// When the run began to fail held requests.
    held_items_failed_at: Option<Instant>,
    /// How many items may fail.
    failure_limit: FailureLimit,
    /// Set if too many have failed: the run pauses if there is another item. With the last failure that was
    /// counted.
    pending_pause: Option<(Failure, String)>,
    /// Set if it is paused because too many have failed: the last failure that was counted.
    last_counted_failure: Option<String>,
    /// Why nothing can be stored any more.
    store_failure: Option<CommitError>,
    stats: RunStats,
    /// Counts of all runs of its pipeline.
    metrics: RunCounts,
    items_meter: Meter,
    calls_meter: Meter,
    /// Counts of attempts, updated as they end.
    counts: Arc<CallCounts>,
    /// Signals waiting requests that the run stops.
    stop: watch::Sender<bool>,
    /// Attempts that `calls_meter` has counted.
    metered_calls: u64,
    forecast: Forecast,
    /// Requests and cost of the finished items.
    finished_totals: (u64, NanoUsd),
    /// Requests that have ended.
    requests: u64,
    /// The next tick.
    tick: Option<SpawnHandle>,
    /// Whether the next tick is an [`IDLE_TICK`] away.
    is_tick_idle: bool,
    started: Instant,
    /// The span of the run; disabled after the end.
    span: Span,
    outcome: RunOutcome,
    input_error: Option<InputError>,
    /// How the output ended. The run has nothing more to do then.
    output: Option<OutputEnded>,
}

/// An item that has an actor.
struct ActiveItem {
    job: Arc<Job>,
    started: Instant,
    incarnation: u64,
    abort: Abort,
    _in_progress: ItemInProgress,
}

impl Run {
    pub(super) fn new(
        setup: RunSetup,
        demand: mpsc::UnboundedSender<usize>,
        records: mpsc::UnboundedSender<OutputRecord>,
        abort_writer: watch::Sender<bool>,
        output: &RunOutput,
        reader: &Reader,
    ) -> Self {
        let now = Instant::now();
        let has_earlier_answers =
            setup.persistence.as_ref().is_some_and(|persistence| persistence.has_earlier_answers);
        let steps = setup.pipeline.steps().iter().map(|step| step.name.clone());
        let width = setup.pipeline.max_parallel_steps();
        let min_step_deadline =
            setup.pipeline.steps().iter().map(|step| step.deadline).min().unwrap_or(Duration::MAX);
        let warmups = WarmupGates::new(&setup.pipeline, &setup.routes, reader.known_items());
        let shared_routes = setup.routes.first().map(|route| route.routes.clone()).unwrap_or_default();
        let embeddings = EmbeddingBatcher::new(shared_routes.clone()).with_metrics(setup.request_metrics);
        let max_inputs = embeddings.max_inputs(setup.routes.iter().map(|route| &route.name));
        let number = setup.persistence.as_ref().map(|persistence| persistence.run.0);
        let span = run_span(setup.pipeline.name(), number);
        let items_per_call = setup.pipeline.items_per_call().min(max_inputs);
        Self {
            stats: RunStats::new(steps),
            metrics: setup.metrics.counts_of(&setup.pipeline),
            pipeline: setup.pipeline,
            protected: setup.protected,
            last_item: setup
                .persistence
                .as_ref()
                .map(|persistence| persistence.session.last_item)
                .unwrap_or_default(),
            persistence: setup.persistence,
            budgets: setup.budgets,
            paused: None,
            gate: Gate::new(setup.routes.clone(), has_earlier_answers),
            warmups,
            embeddings,
            max_hold: setup.limits.max_hold,
            fails_held_items: setup.limits.fail_held_items,
            held_items_failed_at: None,
            logged_hold: None,
            failure_limit: FailureLimit::new(setup.limits.max_failures),
            pending_pause: None,
            last_counted_failure: None,
            store_failure: None,
            known_items_seen: 0,
            router: setup.router,
            capacity_shares: Vec::new(),
            table: shared_routes.load(),
            providers: providers_of(&setup.routes),
            routes: setup.routes,
            priority: setup.priority,
            scope: setup.scope,
            scope_limits: setup.scope_limits,
            id: RunId::next(),
            window: Window::new(setup.window, output.ordered, min_step_deadline, width)
                .with_items_per_call(items_per_call),
            demand: Some(demand),
            records: Some(records),
            abort_writer,
            progress: setup.progress,
            report: Some(setup.report),
            own: None,
            lines_need_item: output.lines.needs_item(),
            preview: output.preview.clone(),
            inbox: Inbox::default(),
            in_flight: BTreeMap::new(),
            next_id: 0,
            outstanding: 0,
            unwritten: 0,
            items_read: 0,
            entries: 0,
            input_read: None,
            input_count: reader.count(),
            input_total: reader.total(),
            input_ended: false,
            items_meter: Meter::new(now),
            calls_meter: Meter::new(now),
            counts: Arc::default(),
            stop: watch::Sender::new(false),
            metered_calls: 0,
            forecast: Forecast::default(),
            finished_totals: (0, NanoUsd(0)),
            requests: 0,
            tick: None,
            is_tick_idle: false,
            started: now,
            span,
            outcome: RunOutcome::Completed,
            input_error: None,
            output: None,
        }
    }

    /// Schedules the next tick: soon while there is work or a watcher.
    fn schedule_tick(&mut self, ctx: &mut Context<Self>) {
        if let Some(tick) = self.tick.take() {
            ctx.cancel_future(tick);
        }
        let is_idle = self.in_flight.is_empty() && self.inbox.is_empty() && self.unwritten == 0;
        if is_idle {
            self.capacity_shares.clear();
        }
        self.is_tick_idle = is_idle && self.progress.is_closed();
        let pause = if self.is_tick_idle { IDLE_TICK } else { TICK };
        let tick = ctx.run_later(pause, |run, ctx| {
            // First, so that a panic cannot end the ticks.
            run.tick = None;
            run.schedule_tick(ctx);
            chaos::point("run.tick");
            run.follow_routes();
            run.window.fit_to(&run.providers);
            run.update_holds();
            run.handle_events(ctx);
            if !run.progress.is_closed() {
                run.publish_progress();
            }
        });
        self.tick = Some(tick);
    }

    /// Changes to the providers of the routes in use, if a reload has replaced the routes.
    fn follow_routes(&mut self) {
        let Some(table) = self.routes.first().map(|route| route.routes.load()) else { return };
        if Arc::ptr_eq(&table, &self.table) {
            return;
        }
        self.table = table;
        self.providers = providers_of(&self.routes);
        if !self.capacity_shares.is_empty() {
            self.capacity_shares = self.providers.iter().map(|provider| provider.share_capacity()).collect();
        }
    }

    /// Requests as many entries as the window has free slots, or ends the output when there are none left.
    fn request_items(&mut self) {
        chaos::point("run.resumes");
        let busy = self.in_flight.len() + self.outstanding + self.inbox.len();
        let oldest = self.in_flight.values().next().map(|item| item.job.item.number);
        // Requests that wait to be sent again use no provider capacity, so they do not count against the
        // window.
        let max_parked = self.window.size().saturating_mul(MAX_PARKED_PER_WINDOW_ITEM);
        let busy = busy - self.gate.parked().min(self.in_flight.len()).min(max_parked);
        let can_start_items = self.demand.is_some() && self.in_flight.len() <= max_parked;
        self.gate.set_can_start_items(can_start_items);
        let is_idle = self.outstanding == 0 && self.inbox.is_empty();
        let free_slots = match self.gate.is_holding() {
            true => usize::from(can_start_items && is_idle && self.gate.should_start_item(Instant::now())),
            false => self.window.free_slots(
                busy,
                self.unwritten,
                oldest,
                self.items_read + self.outstanding as u64,
            ),
        };
        match &self.demand {
            Some(demand) if free_slots > 0 => {
                self.outstanding += free_slots;
                // The source task ends only when the source has ended, which it has reported.
                let _ = demand.send(free_slots);
            }
            Some(_) => {}
            // The writer ends when the channel of records is closed, and then reports to the run.
            None if self.in_flight.is_empty() && self.outstanding == 0 && self.inbox.is_empty() => {
                if self.outcome != RunOutcome::Completed && !self.has_processed_input() {
                    // Items that finished before and were not read in this session have their lines in the
                    // store. If no item was read, the output stays unchanged.
                    let has_stored_lines = self.store_failure.is_none()
                        && self.items_read > 0
                        && self.persistence.as_ref().is_some_and(|persistence| !persistence.is_partial_input);
                    self.record(if has_stored_lines {
                        OutputRecord::StoredLines
                    } else {
                        OutputRecord::LinesMissing
                    });
                }
                self.records = None;
            }
            None => {}
        }
    }

    /// Returns whether the input was read to its end and no item was left unfinished.
    fn has_processed_input(&self) -> bool {
        self.input_ended && self.stats.items.unfinished + self.stats.items.paused == 0
    }

    /// Returns its number in the store, for the log; `None` if it is not stored.
    fn number(&self) -> Option<i64> {
        self.persistence.as_ref().map(|persistence| persistence.run.0)
    }

    fn stop_intake(&mut self, outcome: RunOutcome) {
        self.demand = None;
        self.outstanding = 0;
        if outcome == RunOutcome::Interrupted {
            self.stop.send_replace(true);
        }
        if self.outcome.is_regular() {
            self.outcome = outcome;
        }
    }

    fn abort(&mut self) {
        self.abort_writer.send_replace(true);
        for item in std::mem::take(&mut self.in_flight).into_values() {
            self.stats.items.unfinished += 1;
            item.abort.abort();
        }
        self.request_items();
    }

    fn record(&mut self, record: OutputRecord) {
        if let Some(records) = &self.records {
            self.unwritten += 1;
            // The writer runs until the channel is closed.
            drop(records.send(record));
        }
    }

    /// Handles all events of the inbox. An event takes effect only after the part of its handling that may panic.
    fn handle_events(&mut self, ctx: &mut Context<Self>) {
        while let Some((event, state)) = self.inbox.pop() {
            match event {
                Event::Entry(read) => self.start_or_reject(read, state, ctx),
                Event::RequestEnded(request) => self.count_request(&request),
                Event::ItemFinished(finished) => self.finish_item(finished, state),
                Event::ItemExited(exited) => self.restart_or_fail(exited, state, ctx),
            }
        }
        self.request_items();
    }

    /// Counts a request, at most once: a count that is too low is better than one that is too high.
    fn count_request(&mut self, request: &RequestEnded) {
        self.requests += match request.follow_up {
            FollowUp::Nothing => 1,
            FollowUp::ValidationRetry => {
                self.stats.count_validation_retry();
                self.metrics.count_validation_retry();
                1
            }
            FollowUp::Resend => 0,
        };
        if let Some(step) = self.pipeline.steps().get(request.step) {
            self.stats.count_request(&step.name, &request.attempts, request.simulated);
        }
        if let Some(took) = request.step_duration {
            self.metrics.count_step(request.step, took);
        }
        self.stats.count_lost(request.lost);
    }
}

/// Returns the providers of the targets of these routes, each once.
fn providers_of(routes: &[RunRoute]) -> Vec<Arc<provider::State>> {
    let mut providers: Vec<Arc<provider::State>> = Vec::new();
    for target in routes.iter().flat_map(RunRoute::targets) {
        if !providers.iter().any(|known| Arc::ptr_eq(known, &target.provider)) {
            providers.push(target.provider);
        }
    }
    providers
}

impl Actor for Run {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.schedule_tick(ctx);
        self.window.fit_to(&self.providers);
        self.handle_events(ctx);
        self.report_end(ctx);
    }
}

impl Supervised for Run {
    /// Keeps all counts, because none is half updated. The next incarnation handles the events in the inbox.
    fn restarting(&mut self, _: &mut Self::Context) {
        // The tick ended with the previous incarnation.
        self.tick = None;
    }
}

impl Drop for Run {
    /// Stops its items: they would continue to send requests whose answers nothing receives.
    fn drop(&mut self) {
        self.in_flight.values().for_each(|item| item.abort.abort());
    }
}
