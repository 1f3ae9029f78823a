//! Errors of orders to a supervisor.

use std::fmt;
use std::sync::Arc;

/// Why a supervisor rejected an order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// No child has this name.
    Unknown {
        /// The name.
        name: Arc<str>,
    },
    /// Another child has this name.
    NameTaken {
        /// The name.
        name: Arc<str>,
    },
    /// A later order replaced this one.
    Superseded {
        /// Its name.
        name: Arc<str>,
    },
    /// The child blocks its thread and cannot be ended. The order is carried out if the child ends later.
    Stuck {
        /// Its name.
        name: Arc<str>,
    },
    /// The child cannot be restarted by name.
    ManualRestartRefused {
        /// Its name.
        name: Arc<str>,
        /// What to do instead.
        advice: &'static str,
    },
    /// The children are being stopped, and none is started any more.
    Draining,
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown { name } => write!(out, "no child is named {name}"),
            Self::NameTaken { name } => write!(out, "another child is named {name}"),
            Self::Superseded { name } => write!(out, "a later order about {name} replaced this one"),
            Self::Stuck { name } => write!(out, "{name} blocks its thread and cannot be ended"),
            Self::ManualRestartRefused { name, advice } => {
                write!(out, "{name} cannot be restarted by name: {advice}")
            }
            Self::Draining => out.write_str("all children are being stopped"),
        }
    }
}

impl std::error::Error for Error {}
