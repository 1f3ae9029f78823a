//! Estimates the calls, tokens, cost and duration of a run, from its prompts alone or from a sample.
//!
//! Without a sample, prompts are rendered with simulated answers and their tokens are estimated. The length of the
//! answers is a guess with wide bounds. With a sample, every figure is the sample's mean times the number of
//! items, with bounds for the sampling error.

mod cache;
mod estimate;
mod input_scan;
mod item_check;
mod joined;
#[expect(clippy::module_inception, reason = "the module is named after its main type")]
mod plan;
mod range;
mod rendered_prompts;
mod sample;
mod time;

pub use input_scan::InputScan;
pub use item_check::{ItemCheck, ItemFault, RenderedPrompt, unknown_columns};
pub use plan::{Bound, CachePlan, JoinedPlan, NoCalls, Plan, StepPlan, TargetPlan};
pub use range::Range;
pub use sample::Sample;
