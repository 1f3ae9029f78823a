//! Writes the prompt that asks a step again, and the failure of a step that is not asked again.
//!
//! A re-ask is the step's first prompt, the latest refused answer and the reason. An answer may be larger than any
//! prompt should be: of a long one the beginning and the end are quoted.

use std::borrow::Cow;
use std::sync::Arc;

use crate::screen::is_blank;
use crate::types::{Class, Failure, Message, Part, Prompt};

use super::definition::Step;

/// Most bytes of a refused answer that a re-ask quotes.
const MAX_QUOTE: usize = 8 << 10;

/// Returns the prompt that asks again after `said` was refused for `reason`; `None` where its text would be longer than
/// the step allows. `first` is the step's first prompt, with its attachments.
pub(super) fn ask_again(first: &Prompt, step: &Step, said: &str, reason: &str) -> Option<Arc<Prompt>> {
    let request = format!("Your answer was not accepted: {reason}. {}", step.check.wanted());
    let quote = if is_blank(said) { Cow::Borrowed("") } else { quote(said.trim()) };
    let bytes = own_text_bytes(first).saturating_add(quote.len()).saturating_add(request.len());
    if bytes > step.max_prompt_bytes {
        return None;
    }
    let mut prompt = first.clone();
    match prompt.messages.last_mut() {
        // Providers refuse an empty turn, and two turns of one speaker.
        Some(last) if quote.is_empty() => last.parts.push(Part::Text(request.into())),
        _ => prompt.messages.extend([Message::assistant(&*quote), Message::user(request)]),
    }
    Some(Arc::new(prompt))
}

/// Returns the bytes of a first prompt that `max_prompt_bytes` limits. Its text follows its attachments.
fn own_text_bytes(first: &Prompt) -> usize {
    let text = match first.messages.last().and_then(|message| message.parts.last()) {
        Some(Part::Text(text)) => text.len(),
        _ => 0,
    };
    first.system.as_ref().map_or(0, |system| system.len()) + text
}

/// Returns an answer, or the beginning and the end of a long one.
fn quote(said: &str) -> Cow<'_, str> {
    if said.len() <= MAX_QUOTE {
        return said.into();
    }
    let begin = &said[..said.floor_char_boundary(MAX_QUOTE / 2)];
    let end = &said[said.ceil_char_boundary(said.len() - MAX_QUOTE / 2)..];
    let left_out = said.len() - begin.len() - end.len();
    format!("{begin}\n[{left_out} bytes are left out here]\n{end}").into()
}

/// Why a refused answer is not asked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoReask {
    /// The step has used its re-asks.
    Used,
    /// The re-ask would be longer than a prompt may be.
    TooLong,
}

/// Makes the failure of a step whose answer was refused `times` times, and is not asked for again.
pub(super) fn refused(step: &Step, said: &str, reason: &str, times: u32, why: NoReask) -> Failure {
    let times = if times == 1 { "once".to_owned() } else { format!("{times} times") };
    let mut message =
        format!("the answer of step `{}` was refused {times}; at last because {reason}", step.name);
    match why {
        NoReask::Used => {}
        NoReask::TooLong => message.push_str(
            "; it was not asked for again, because the prompt with the refused answer would be longer than \
             `max_prompt_bytes` of [defaults]",
        ),
    }
    Failure::new(Class::ValidationError, message).with_text(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_answer_is_quoted_by_its_beginning_and_its_end_at_whole_letters() {
        assert_eq!(quote("short"), "short");
        let long = format!("a{}z", "ü".repeat(1 << 20));
        let quoted = quote(&long);
        assert!(quoted.len() <= MAX_QUOTE + 100, "{}", quoted.len());
        assert!(quoted.starts_with("aüü") && quoted.ends_with("üüz"), "{quoted}");
        let kept = quoted.matches(['a', 'ü', 'z']).filter(|letter| *letter == "ü").count();
        let left_out = (long.len() - 2) - (kept * "ü".len());
        assert!(left_out > 2_000_000);
        let marked = format!("\n[{left_out} bytes are left out here]\n");
        assert!(quoted.contains(&marked), "{marked} is not there");
    }
}
