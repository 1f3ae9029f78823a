//! The time over which a provider counts a limit.

use std::time::Duration;

/// Over which time an advertised limit counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LimitWindow {
    /// A minute or a day, as is the vendor's habit: the reset time tells them apart.
    #[default]
    OfVendor,
    /// This time: the headers say so.
    Is(Duration),
    /// Any: the headers are those of a gateway, which may count by the second as well.
    Unknown,
}
