//! Whole runs of the program, and calls over real HTTP with everything that can go wrong.
#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::panic, reason = "a test that waited in vain says for what")]

// The program: its files, its signals, its exit codes.
mod bad_input;
mod bounds;
mod check;
mod documents;
mod environment;
#[cfg(target_os = "linux")]
mod failed_writes;
mod fuzzed;
#[cfg(unix)]
mod interrupted;
mod kept;
mod outputs;
mod planned;
mod program;
#[cfg(target_os = "linux")]
mod read_only;
mod recall;
mod resume;
mod run;
mod simulate;
mod stop;
mod templates;
#[cfg(unix)]
mod terminal;

// The library: embedded, and calls under faults.
mod advised;
mod budget;
mod concurrency;
mod embed;
mod failover;
mod gated;
mod generation;
// Links are swapped as Kubernetes does.
mod hedge;
#[cfg(unix)]
mod held;
mod holding;
mod host;
#[cfg(feature = "chaos")]
mod internal;
#[cfg(unix)]
mod key_files;
mod keys;
#[cfg(all(unix, feature = "chaos"))]
mod killed;
mod kills;
mod library;
mod limited_alone;
mod lives;
mod matrix;
#[cfg(feature = "exact-numbers")]
mod memory;
mod numbers;
mod outage;
mod pacing;
mod pacing_score;
mod paused;
mod poisoned;
mod reading;
mod refusals;
mod schemas;
mod scripted;
#[cfg(unix)]
mod secrets;
mod silent;
mod stage;
mod unusable;
mod usage;
