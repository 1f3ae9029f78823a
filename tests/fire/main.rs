//! Panics in every actor and at every stage of a call, and what each panic costs.
//!
//! A separate test binary: a plan of panics applies to the whole process.
#![cfg(all(feature = "chaos", feature = "simulator"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails")]
#![expect(clippy::panic, reason = "a test that times out reports what it waited for")]

mod io_panics;
mod lost_requests;
mod panic_runs;
mod random_panics;
mod repeated_panics;
mod single_panics;

#[path = "../it/support.rs"]
#[expect(dead_code, reason = "shared with the integration tests, which use the rest of it")]
mod support;
