//! API keys: their sources, the set of usable keys, their cool-downs, and the redaction of secrets.

pub(super) mod header_redactor;
pub(super) mod header_source;
pub(super) mod key;
pub(super) mod key_command;
pub(super) mod key_error;
pub(super) mod key_file;
pub(super) mod key_reload;
pub(super) mod key_set;
pub(super) mod key_source;
mod random_word;
pub(super) mod redact;
pub(super) mod refusal_tracker;
mod secret_search;
pub(in crate::provider) mod stream_redactor;
