//! The state of a run as views show it, which says more than what the store has.

use crate::store::RunState;

/// The state of a run as [`RunView::state`](super::RunView::state) shows it. Lists select by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShownState {
    /// In progress.
    Running,
    /// In progress, and waits by itself for an account or a provider.
    Holding,
    /// Waits for its user.
    Paused,
    /// All of the input was processed.
    Completed,
    /// The daemon stopped; it continues at the next start.
    Stopped,
    /// Its user cancelled it.
    Cancelled,
    /// The input, the output or the store failed.
    IoError,
    /// Its process ended without closing it.
    Crashed,
    /// Its process ended before its first session.
    Empty,
}

impl ShownState {
    /// All states.
    pub const ALL: [Self; 9] = [
        Self::Running,
        Self::Holding,
        Self::Paused,
        Self::Completed,
        Self::Stopped,
        Self::Cancelled,
        Self::IoError,
        Self::Crashed,
        Self::Empty,
    ];

    /// Returns the word in views.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Holding => "holding",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
            Self::IoError => "io_error",
            Self::Crashed => "crashed",
            Self::Empty => "empty",
        }
    }

    /// Returns the state with this word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Returns the state that the store has of runs that are shown with this one.
    pub(super) fn stored(self) -> RunState {
        match self {
            Self::Running | Self::Holding | Self::Crashed | Self::Empty => RunState::Running,
            Self::Paused => RunState::Paused,
            Self::Completed => RunState::Completed,
            Self::Stopped => RunState::Stopped,
            Self::Cancelled => RunState::Cancelled,
            Self::IoError => RunState::IoFailed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_as_it_is_written() {
        for state in ShownState::ALL {
            assert_eq!(ShownState::parse(state.as_str()), Some(state));
        }
        assert_eq!(ShownState::parse("done"), None);
    }
}
