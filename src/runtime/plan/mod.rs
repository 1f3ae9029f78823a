//! Foretells a run: its calls, tokens, money and time, without asking anybody, or from a sample that was asked.
//!
//! Without a sample, prompts are rendered with made-up answers and their tokens estimated; how long answers are is
//! a guess, and its range is wide. With one, every figure is the sample's mean, times the number of items, give or
//! take what a sample of that size leaves open.

mod guess;
mod range;
mod sample;
mod time;

use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;

use crate::pipeline::Pipeline;
use crate::provider::{Model, Settings};
use crate::source::{self, Entry, Source};
use crate::types::{ItemKey, LaneName, Price, RouteName, StepName};

use super::error::Error;
use super::pointsman::Pointsman;

pub use range::Range;
pub use sample::Sample;
pub use time::Bound;

/// Items of which prompts are rendered at least, and one in how many of the others.
const RENDERED: u64 = 1_000;
const ONE_IN: u64 = 100;

/// What a run is going to take. Money in US dollars, times in seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The pipeline's name.
    pub pipeline: String,
    /// Items of the input.
    pub items: u64,
    /// Pieces of the input that are no item.
    pub rejected: u64,
    /// Items that were asked for this; 0 when all is guessed.
    pub sampled: u64,
    /// Of the sampled items, those that failed.
    pub sample_failed: u64,
    /// Calls.
    pub calls: Range,
    /// Why none is foreseen, where that is so.
    pub no_calls: Option<NoCalls>,
    /// Tokens that models read.
    pub input: Range,
    /// Tokens that models write.
    pub output: Range,
    /// What all costs; `None` while a price is not known.
    pub cost_usd: Option<Range>,
    /// What the sample has cost already, which is a part of it.
    pub spent_usd: Option<f64>,
    /// By step, in the pipeline's order.
    pub steps: IndexMap<StepName, StepPlan>,
    /// The lanes of each route, in their order.
    pub routes: IndexMap<RouteName, Vec<LanePlan>>,
    /// How long it takes at least by each limit that is known, the longest first.
    pub bounds: Vec<Bound>,
}

/// Why a plan foresees no call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoCalls {
    /// The input has no items.
    NoItems,
    /// Every piece of the input was rejected.
    AllRejected {
        /// Why the first one was.
        reason: String,
    },
    /// Every item that was looked at fails before it asks anything.
    AllFail {
        /// The step that failed the first one.
        step: StepName,
        /// Why.
        message: String,
    },
    /// No step of any item that was looked at is due: every condition is false.
    AllSkipped,
}

impl fmt::Display for NoCalls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoItems => out.write_str("the input has no items"),
            Self::AllRejected { reason } => {
                write!(out, "the whole input is rejected; the first piece because: {reason}")
            }
            Self::AllFail { step, message } => {
                write!(out, "every item fails before it asks anything; the first at step {step}: {message}")
            }
            Self::AllSkipped => {
                out.write_str("no step is due for any item: every condition (`when`) is false")
            }
        }
    }
}

/// What one step is going to take.
#[derive(Debug, Clone, Serialize)]
pub struct StepPlan {
    /// Whom it asks.
    pub route: RouteName,
    /// As in [`Plan`].
    pub calls: Range,
    /// As in [`Plan`].
    pub input: Range,
    /// As in [`Plan`].
    pub output: Range,
    /// As in [`Plan`], of the lanes that answered, or of the route's first.
    pub cost_usd: Option<Range>,
}

/// One lane of a route: what it would cost if it answered everything that the route is asked.
#[derive(Debug, Clone, Serialize)]
pub struct LanePlan {
    /// The lane.
    pub lane: LaneName,
    /// What its tokens cost.
    pub price: Option<Price>,
    /// What all would cost here.
    pub cost_usd: Option<Range>,
    /// The share of the sample's calls that it had.
    pub share: Option<f64>,
    /// Whether the simulator plays it, on this machine.
    pub practice: bool,
    /// Whether it could be asked now; else it has no key.
    pub usable: bool,
}

/// What is known of an input once it has been read.
#[derive(Debug)]
pub struct Counted {
    items: u64,
    rejected: u64,
    first_reject: Option<String>,
    rendered: guess::Rendered,
    /// Some items, each as likely to be among them as any other, with the lines on which they begin.
    picked: Vec<source::Item>,
}

impl Counted {
    /// Returns a source of the items that were picked, for a sample.
    pub fn sample(&self) -> Source {
        let items = self.picked.clone().into_iter().map(|item| (item.line, item.value));
        Source::numbered("the sample", items)
    }

    /// Returns the keys of the items that were picked.
    pub fn keys(&self) -> Vec<ItemKey> {
        self.picked.iter().map(|item| item.key.clone()).collect()
    }

    fn reject(&mut self, line: u64, reason: &dyn fmt::Display) {
        self.rejected += 1;
        self.first_reject.get_or_insert_with(|| format!("line {line}: {reason}"));
    }

    /// Says why no call is foreseen for it.
    fn no_calls(&self) -> NoCalls {
        match (self.items, &self.first_reject) {
            (0, None) => NoCalls::NoItems,
            (0, Some(reason)) => NoCalls::AllRejected { reason: reason.clone() },
            _ => self.rendered.no_calls(),
        }
    }

    /// Returns how many were picked.
    pub fn picked(&self) -> usize {
        self.picked.len()
    }
}

impl Pointsman {
    /// Reads an input to its end, and picks `pick` items of it at random, always the same ones.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn count(
        &self,
        pipeline: &Arc<Pipeline>,
        source: Source,
        pick: usize,
    ) -> Result<Counted, Error> {
        let judge = pipeline.clone();
        let source = source.fit(move |item| judge.validate_item(item));
        let mut reader = source.read().map_err(Error::Source)?;
        let rendered = guess::Rendered::new(pipeline.clone());
        let mut counted = Counted { items: 0, rejected: 0, first_reject: None, rendered, picked: Vec::new() };
        let mut random = fastrand::Rng::with_seed(7);
        while let Some(entry) = reader.next().await {
            let item = match entry.map_err(Error::Source)? {
                Entry::Item(item) => item,
                Entry::Rejected(rejected) => {
                    counted.reject(rejected.line, &rejected.reason);
                    continue;
                }
            };
            if counted.items < RENDERED || counted.items.is_multiple_of(ONE_IN) {
                counted.rendered.add(counted.items, &item.value);
            }
            // Reservoir sampling (Waterman's algorithm R): the n-th item takes a place with chance pick/n.
            if counted.picked.len() < pick {
                counted.picked.push(item);
            } else {
                let place = random.u64(0..=counted.items);
                if let Some(place) =
                    usize::try_from(place).ok().and_then(|place| counted.picked.get_mut(place))
                {
                    *place = item;
                }
            }
            counted.items += 1;
        }
        counted.picked.sort_by_key(|item| item.line);
        Ok(counted)
    }

    /// Foretells the run of what was counted; by `sample`, if some of it was asked.
    pub fn plan(&self, pipeline: &Pipeline, counted: &Counted, sample: Option<&Sample>) -> Plan {
        let mut steps: IndexMap<StepName, StepPlan> = IndexMap::new();
        for (at, step) in pipeline.steps().iter().enumerate() {
            let first = self.configured(&step.route).next();
            let price = first.and_then(|(_, settings, model)| guess::price(settings, model));
            let plan = match sample {
                Some(sample) => sample.step(&step.name, &step.route, counted.items),
                None => counted.rendered.step(at, &step.route, counted.items, price),
            };
            steps.insert(step.name.clone(), plan);
        }
        let sum = |of: fn(&StepPlan) -> Range| steps.values().map(of).sum::<Range>();
        let cost: Option<Vec<Range>> = steps.values().map(|step| step.cost_usd).collect();
        let guessed = cost.map(|costs| costs.into_iter().sum());
        let mut plan = Plan {
            pipeline: pipeline.name().to_owned(),
            items: counted.items,
            rejected: counted.rejected,
            sampled: sample.map_or(0, Sample::items),
            sample_failed: sample.map_or(0, Sample::failed),
            no_calls: None,
            calls: sum(|step| step.calls),
            input: sum(|step| step.input),
            output: sum(|step| step.output),
            cost_usd: sample.map_or(guessed, |sample| sample.cost(counted.items)),
            spent_usd: sample.and_then(Sample::spent),
            routes: IndexMap::new(),
            bounds: Vec::new(),
            steps,
        };
        plan.no_calls = (plan.calls.likely == 0.0).then(|| counted.no_calls());
        plan.routes = self.side_by_side(&plan, sample);
        plan.bounds = time::bounds(self, &plan, sample);
        plan
    }

    /// Returns the lanes of the routes of `plan`, each with what everything would cost there.
    fn side_by_side(&self, plan: &Plan, sample: Option<&Sample>) -> IndexMap<RouteName, Vec<LanePlan>> {
        let mut routes: IndexMap<RouteName, (Range, Range)> = IndexMap::new();
        for step in plan.steps.values() {
            let (input, output) = routes.entry(step.route.clone()).or_default();
            (*input, *output) = (*input + step.input, *output + step.output);
        }
        let lanes = |(route, (input, output)): (RouteName, (Range, Range))| {
            let lanes = self.configured(&route).map(|(lane, settings, model)| {
                let price = guess::price(settings, model);
                LanePlan {
                    lane: lane.clone(),
                    price: model.price,
                    cost_usd: price.map(|price| range::cost(&price, input, output, plan.calls)),
                    share: sample.map(|sample| sample.share_of(lane)),
                    practice: self.config().simulate || settings.is_practice(),
                    usable: self.usable().providers.contains_key(&lane.provider),
                }
            });
            let lanes = lanes.collect();
            (route, lanes)
        };
        routes.into_iter().map(lanes).collect()
    }

    /// Returns the lanes of a route as they are configured, those without a key too: what they would cost is worth
    /// knowing before one is bought.
    fn configured(&self, route: &RouteName) -> impl Iterator<Item = (&LaneName, &Settings, &Model)> {
        let config = self.config();
        let lanes = config.routes.get(route).map(|route| route.lanes.as_slice()).unwrap_or_default();
        lanes.iter().filter_map(|lane| {
            let settings = config.providers.get(&lane.name.provider)?;
            Some((&lane.name, settings, settings.models.get(&lane.name.model)?))
        })
    }
}
