//! What a key does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::store::RunNumber;

use super::view::View;

/// How far a page key moves the selection.
const PAGE: isize = 10;

/// What has to be done after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Draw.
    None,
    /// End.
    Quit,
    /// Ask the daemon.
    Act(Action),
}

/// What the daemon is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Pause a run.
    Hold(RunNumber),
    /// Resume a run.
    Resume(RunNumber),
    /// Cancel a run.
    Cancel(RunNumber),
}

/// Applies a key to the screen.
pub(super) fn apply(view: &mut View, key: KeyEvent) -> Reaction {
    if key.kind == KeyEventKind::Release {
        return Reaction::None;
    }
    // The terminal does not make it a signal while keys are read one by one.
    if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
        return Reaction::Quit;
    }
    view.notice = None;
    if let Some(run) = view.cancel_asked.take() {
        return match key.code {
            KeyCode::Char('y' | 'Y') => Reaction::Act(Action::Cancel(run)),
            _ => Reaction::None,
        };
    }
    let selected = view.selected_run().map(|run| run.run);
    let act =
        |action: fn(RunNumber) -> Action| selected.map_or(Reaction::None, |run| Reaction::Act(action(run)));
    match key.code {
        KeyCode::Char('q') => return Reaction::Quit,
        KeyCode::Char('h') => return act(Action::Hold),
        KeyCode::Char('r') => return act(Action::Resume),
        KeyCode::Char('c') => view.cancel_asked = selected,
        KeyCode::Down | KeyCode::Char('j') => view.move_selection(1),
        KeyCode::Up | KeyCode::Char('k') => view.move_selection(-1),
        KeyCode::PageDown => view.move_selection(PAGE),
        KeyCode::PageUp => view.move_selection(-PAGE),
        KeyCode::Home => view.select(0),
        KeyCode::End => view.select(usize::MAX),
        // Any other key has no meaning.
        _ => {}
    }
    Reaction::None
}

#[cfg(test)]
mod tests {
    use super::super::draw::tests::view;
    use super::*;

    fn press(view: &mut View, code: KeyCode) -> Reaction {
        apply(view, KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn the_selection_stays_on_its_run_when_the_list_changes() {
        let mut view = view();
        assert_eq!(view.selected, Some(RunNumber(3)));
        press(&mut view, KeyCode::Char('j'));
        assert_eq!(view.selected, Some(RunNumber(2)));
        let mut runs = view.runs.clone();
        runs.swap(0, 1);
        view.set_runs(runs);
        assert_eq!((view.selected, view.selected_index()), (Some(RunNumber(2)), Some(0)));
        let others = view.runs.iter().filter(|run| run.run != RunNumber(2)).cloned().collect();
        view.set_runs(others);
        assert_eq!(view.selected, Some(RunNumber(3)));
        press(&mut view, KeyCode::End);
        assert_eq!(view.selected, Some(RunNumber(1)));
        press(&mut view, KeyCode::Down);
        assert_eq!(view.selected, Some(RunNumber(1)));
        press(&mut view, KeyCode::Home);
        press(&mut view, KeyCode::Up);
        assert_eq!(view.selected, Some(RunNumber(3)));
    }

    #[test]
    fn a_run_is_cancelled_only_after_a_confirmation() {
        let mut view = view();
        assert_eq!(press(&mut view, KeyCode::Char('c')), Reaction::None);
        assert_eq!(view.cancel_asked, Some(RunNumber(3)));
        // Any other key leaves the question, and has no other effect.
        assert_eq!(press(&mut view, KeyCode::Char('q')), Reaction::None);
        assert_eq!(view.cancel_asked, None);
        press(&mut view, KeyCode::Char('c'));
        assert_eq!(press(&mut view, KeyCode::Char('y')), Reaction::Act(Action::Cancel(RunNumber(3))));
        assert_eq!(press(&mut view, KeyCode::Char('y')), Reaction::None);
    }

    #[test]
    fn keys_hold_resume_and_end() {
        let mut view = view();
        assert_eq!(press(&mut view, KeyCode::Char('h')), Reaction::Act(Action::Hold(RunNumber(3))));
        assert_eq!(press(&mut view, KeyCode::Char('r')), Reaction::Act(Action::Resume(RunNumber(3))));
        assert_eq!(press(&mut view, KeyCode::Char('q')), Reaction::Quit);
        let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        view.cancel_asked = Some(RunNumber(3));
        assert_eq!(apply(&mut view, control_c), Reaction::Quit);
        view.set_runs(Vec::new());
        assert_eq!(press(&mut view, KeyCode::Char('h')), Reaction::None);
    }
}
