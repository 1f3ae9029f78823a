//! Calls over real HTTP, with everything that can go wrong.
#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod failover;
mod keys;
mod lives;
mod pacing;
mod scripted;
mod stage;
