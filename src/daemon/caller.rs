//! Who uses a daemon.

use crate::types::ScopeName;

/// Who asks. It decides what is seen, and from which scope requests are paid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    /// The name of the token; empty for the operator of the machine.
    pub name: String,
    /// The scope of its requests; empty for none.
    pub scope: ScopeName,
    /// Whether it sees the runs of others.
    pub sees_all: bool,
    /// Whether it controls the runs of others.
    pub controls_all: bool,
}

impl Caller {
    /// Returns the operator of the machine, who may do everything.
    pub fn operator() -> Self {
        Self { name: String::new(), scope: ScopeName::default(), sees_all: true, controls_all: true }
    }

    /// Returns the holder of a token, who sees and controls its own runs.
    pub fn token(name: impl Into<String>, scope: ScopeName) -> Self {
        Self { name: name.into(), scope, sees_all: false, controls_all: false }
    }

    /// Sets whether it sees the runs of others.
    #[must_use]
    pub fn with_all_visible(mut self, sees_all: bool) -> Self {
        self.sees_all = sees_all;
        self
    }

    /// Sets whether it controls the runs of others.
    #[must_use]
    pub fn with_all_controlled(mut self, controls_all: bool) -> Self {
        self.controls_all = controls_all;
        self
    }
}
