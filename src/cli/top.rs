//! `pointsman top`: a daemon in the terminal.
//!
//! A thread asks the daemon once a second and receives its events. The main thread reads keys and draws. The state that is
//! drawn is a plain struct, and drawing has no effect besides the frame.

#[cfg(feature = "tui")]
mod answers;
#[cfg(feature = "tui")]
mod draw;
#[cfg(feature = "tui")]
mod events;
#[cfg(feature = "tui")]
mod feed;
#[cfg(feature = "tui")]
mod keys;
#[cfg(feature = "tui")]
mod screen;
#[cfg(feature = "tui")]
mod view;

use super::args::Top;
use super::exit::Exit;
#[cfg(feature = "tui")]
use super::open_store::fail;
use super::progress::Mode;

/// Shows the daemon until the user ends it.
#[cfg(feature = "tui")]
pub(super) fn top(args: &Top) -> Exit {
    screen::show(args).unwrap_or_else(|error| fail(Mode::Lines, error))
}

/// Says how to build a program that has the command.
#[cfg(not(feature = "tui"))]
pub(super) fn top(_: &Top) -> Exit {
    let error = anyhow::anyhow!(
        "this program was built without the terminal view: build it with `cargo build --release --features tui`, or use \
         `pointsman status` and the page at the address of the daemon"
    );
    Mode::Lines.fail(&error, Exit::Usage)
}
