//! Reads TOML and reports all errors of a file at once, each with its position.
//!
//! serde stops at the first error. A [`Document`] that cannot be deserialized as a whole is therefore deserialized
//! part by part. This module does not interpret settings and opens no files.

mod diagnostic;
mod did_you_mean;
mod document;
mod dotted_names;
mod error_context;
mod explain;
mod explained;
mod key_path;
mod likely_key;
mod node;
mod read;
mod renamed;
mod search;
mod spans;
mod suggest;
mod toml_string;

pub use diagnostic::{Diagnostic, Diagnostics, SourceSpan};
pub use did_you_mean::nearest;
pub use document::Document;
pub use key_path::key_path;
pub(crate) use likely_key::{KEY_PREFIXES, REDACTED, hide_likely_secrets, likely_keys, path_may_be_key};
pub use spans::Spans;
pub use toml_string::TomlString;
