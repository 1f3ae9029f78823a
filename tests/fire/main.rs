//! Panics in every actor and at every stage of a call, and what they cost.
//!
//! A program of its own, because a plan of panics is in force for the whole process.
#![cfg(all(feature = "chaos", feature = "server"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::panic, reason = "a test that waited in vain says for what")]

mod everywhere;
mod lost;
mod once;
mod outputs;
mod scene;
mod storms;

#[path = "../it/stage.rs"]
#[expect(dead_code, reason = "the other tests need more of it")]
mod stage;
