//! Integration tests: runs of the program, and calls over HTTP with all failures.
#![cfg(feature = "simulator")]
#![expect(clippy::unwrap_used, reason = "a test that cannot continue fails")]
#![expect(clippy::panic, reason = "a test that times out reports what it waited for")]

// The program: its files, its signals, its exit codes.
mod answer_cache;
mod answer_reuse;
mod ask;
mod bad_input;
mod check;
mod check_items;
mod configuration_discovery;
mod deployment;
#[cfg(target_os = "linux")]
mod display;
mod documents;
mod environment;
#[cfg(target_os = "linux")]
mod failed_writes;
mod first_minutes;
mod fuzzed;
mod help_topics;
mod init;
mod inputs;
mod json_listings;
mod limit;
#[cfg(target_os = "linux")]
mod migration;
mod models;
mod moved_items;
mod output_files;
mod packaging;
mod plan;
mod program;
#[cfg(target_os = "linux")]
mod read_only;
mod resume;
mod run;
mod shell;
mod signals;
mod simulate;
mod stored_runs;
mod streams;
#[cfg(unix)]
mod system_failures;
mod templates;
#[cfg(unix)]
mod terminal;
mod untrusted_data;

// The library: embedded, and calls under faults.
#[cfg(all(unix, feature = "server"))]
mod browser;
mod budget;
mod concurrency;
#[cfg(feature = "server")]
mod daemon;
#[cfg(feature = "server")]
mod daemon_api;
#[cfg(feature = "server")]
mod daemon_kill;
#[cfg(all(unix, feature = "server"))]
mod daemon_log;
#[cfg(feature = "server")]
mod daemon_reload;
#[cfg(feature = "server")]
mod daemon_runs;
#[cfg(feature = "server")]
mod daemon_status;
#[cfg(feature = "server")]
mod daemon_tokens;
#[cfg(feature = "server")]
mod dashboard;
mod embed;
mod embed_step;
mod embeddings;
mod example_actor;
mod failed_generation;
mod failover;
mod fairness;
mod hedge;
mod holding;
#[cfg(unix)]
mod holding_program;
mod host;
#[cfg(feature = "chaos")]
mod internal_errors;
mod joined_embeddings;
mod pause_advice;
mod scheduling;
// The tests replace symbolic links as Kubernetes does.
mod actor_restarts;
#[cfg(all(unix, feature = "chaos"))]
mod crash_recovery;
mod failing_items;
#[cfg(unix)]
mod key_files;
mod keys;
mod large_integers;
mod library;
mod matrix;
#[cfg(feature = "exact-numbers")]
mod memory;
mod metrics;
mod no_usable_target;
mod one_line;
mod outage;
mod pacing;
mod pacing_score;
mod pause_messages;
mod prompt_cache;
mod rate_limited_item;
mod refusals;
mod reload;
mod response_parsing;
mod result_columns;
mod schemas;
mod scopes;
mod scripted_server;
#[cfg(unix)]
mod secrets;
#[cfg(all(unix, feature = "cli", feature = "server"))]
mod serve_command;
#[cfg(all(feature = "cli", feature = "server"))]
mod server_commands;
mod support;
mod thread_death;
mod tools;
#[cfg(feature = "cli")]
mod traces;
mod unresponsive;
mod usage;
