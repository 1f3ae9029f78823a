//! The time window over which a provider counts a limit.

use std::time::Duration;

/// The time window of an advertised limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LimitWindow {
    /// The vendor's default, a minute or a day: the reset time shows which.
    #[default]
    VendorDefault,
    /// This duration, as the headers state it.
    Fixed(Duration),
    /// Unknown: the headers are those of a gateway, which may also count by the second.
    Unknown,
}

impl LimitWindow {
    /// A limit with a longer window or reset time is not counted by the minute.
    pub const MAX_MINUTE: Duration = Duration::from_secs(70);
}
