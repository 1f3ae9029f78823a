//! A daemon as the source of a command, in place of the store.
//!
//! A command that reads or changes runs asks the daemon if its arguments or the environment name one. Both sources give
//! the same structures, so that the output is the same.

pub(super) mod client;
pub(super) mod download;
pub(super) mod error;
pub(super) mod requests;
pub(super) mod run_list;
pub(super) mod server_args;
pub(super) mod server_url;
pub(super) mod views;
