//! The terminal: prepares it, reads keys, draws, and restores it in every case.

use std::time::Duration;

use anyhow::{Context, anyhow};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};

use crate::cli::args::Top;
use crate::cli::exit::Exit;
use crate::cli::print::stdout_is_terminal;
use crate::cli::progress::Mode;
use crate::cli::remote::views::StatusView;

use super::draw::draw;
use super::feed::Feed;
use super::keys::{self, Reaction};
use super::view::{Update, View};

/// How long a key is waited for before updates are read.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// The terminal while it shows the screen. It is restored when this is dropped, and before the message of a panic.
struct Screen(DefaultTerminal);

impl Screen {
    fn open() -> anyhow::Result<Self> {
        let opened = ratatui::try_init();
        if opened.is_err() {
            // It may be half prepared.
            drop(ratatui::try_restore());
        }
        Ok(Self(opened.context("cannot use the terminal")?))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone cannot be restored.
        drop(ratatui::try_restore());
    }
}

/// Shows the daemon until the user or a signal ends it.
pub(super) fn show(args: &Top) -> anyhow::Result<Exit> {
    if !stdout_is_terminal() {
        let error = anyhow!("`pointsman top` needs a terminal; `pointsman status` writes the state once");
        return Ok(Mode::Lines.fail(&error, Exit::Usage));
    }
    let remote = args.server.remote_or_local()?;
    // First, so that a wrong address or token is shown as text.
    let _: StatusView = remote.get("/status")?;
    let mut view = View::new(remote.url().to_string(), has_color());
    // Another client, because connections belong to the runtime that opened them.
    let feed = Feed::start(args.server.remote_or_local()?.into_client())?;
    let mut screen = Screen::open()?;
    loop {
        screen.0.draw(|frame| draw(frame, &view)).context("cannot draw")?;
        // A resize is drawn like any other event.
        if event::poll(KEY_WAIT).context("cannot read keys")?
            && let Event::Key(key) = event::read().context("cannot read keys")?
        {
            match keys::apply(&mut view, key) {
                Reaction::None => {}
                Reaction::Quit => return Ok(Exit::Success),
                Reaction::Act(action) => view.notice = Some(feed.act(action).to_owned()),
            }
        }
        while let Some(update) = feed.next() {
            match update {
                Update::State(status, runs) => {
                    view.problem = None;
                    view.status = Some(*status);
                    view.set_runs(runs);
                }
                Update::Problem(problem) => view.problem = Some(problem),
                Update::Event(event) => view.add_event(event),
                Update::Notice(notice) => view.notice = Some(notice),
                Update::Stop => return Ok(Exit::Interrupted),
            }
        }
    }
}

/// Returns whether the user wants colors (<https://no-color.org>).
fn has_color() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
