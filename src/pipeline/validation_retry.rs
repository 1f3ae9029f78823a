//! Retries after invalid responses: the prompt of the retry, and the failure of a step without further retries.
//!
//! The prompt of a retry is the step's first prompt, the latest invalid response and the reason. A long response
//! is quoted by its beginning and its end only.

use std::borrow::Cow;
use std::sync::Arc;

use crate::terminal_text::is_blank;
use crate::types::{Class, Failure, Message, Part, Prompt};

use super::definition::Step;

/// Longest quote of an invalid response in the prompt of a retry, in bytes.
const MAX_QUOTE_BYTES: usize = 8 << 10;

/// Returns the prompt of a retry after `response` was refused for `reason`; `None` if its text would be longer
/// than the step allows. `first` is the step's first prompt, with its attachments.
pub(super) fn retry_prompt(first: &Prompt, step: &Step, response: &str, reason: &str) -> Option<Arc<Prompt>> {
    let instruction =
        format!("Your answer was not accepted: {reason}. {}", step.validator.retry_instruction());
    let quote = if is_blank(response) { Cow::Borrowed("") } else { quote(response.trim()) };
    let bytes = limited_text_bytes(first).saturating_add(quote.len()).saturating_add(instruction.len());
    if bytes > step.max_prompt_bytes {
        return None;
    }
    let mut prompt = first.clone();
    match prompt.messages.last_mut() {
        // Providers refuse an empty message, and two consecutive messages of one role.
        Some(last) if quote.is_empty() => last.parts.push(Part::Text(instruction.into())),
        _ => prompt.messages.extend([Message::assistant(&*quote), Message::user(instruction)]),
    }
    Some(Arc::new(prompt))
}

/// Returns the size of the texts of a first prompt that `max_prompt_bytes` limits. The text follows the
/// attachments.
fn limited_text_bytes(first: &Prompt) -> usize {
    let text = match first.messages.last().and_then(|message| message.parts.last()) {
        Some(Part::Text(text)) => text.len(),
        _ => 0,
    };
    first.system.as_ref().map_or(0, |system| system.len()) + text
}

/// Returns a response, or the beginning and the end of a long response.
fn quote(response: &str) -> Cow<'_, str> {
    if response.len() <= MAX_QUOTE_BYTES {
        return response.into();
    }
    let beginning = &response[..response.floor_char_boundary(MAX_QUOTE_BYTES / 2)];
    let end = &response[response.ceil_char_boundary(response.len() - MAX_QUOTE_BYTES / 2)..];
    let omitted = response.len() - beginning.len() - end.len();
    format!("{beginning}\n[{omitted} bytes omitted]\n{end}").into()
}

/// Why a request is not repeated after an invalid response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRetryReason {
    /// The step has no retries left.
    RetriesExhausted,
    /// The prompt of the retry would be longer than the step allows.
    PromptTooLong,
}

/// Creates the failure of a step after `count` invalid responses.
pub(super) fn validation_failure(
    step: &Step,
    response: &str,
    reason: &str,
    count: u32,
    why: NoRetryReason,
) -> Failure {
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    let mut message =
        format!("the answer of step `{}` was invalid {times}; the last time because {reason}", step.name);
    match why {
        NoRetryReason::RetriesExhausted => {}
        NoRetryReason::PromptTooLong => message.push_str(
            "; the request was not repeated, because the prompt with the invalid answer would be longer than \
             `max_prompt_bytes` of [defaults]",
        ),
    }
    Failure::new(Class::ValidationError, message).with_text(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_response_is_quoted_by_its_beginning_and_its_end_at_character_boundaries() {
        assert_eq!(quote("short"), "short");
        let long = format!("a{}z", "ü".repeat(1 << 20));
        let quoted = quote(&long);
        assert!(quoted.len() <= MAX_QUOTE_BYTES + 100, "{}", quoted.len());
        assert!(quoted.starts_with("aüü") && quoted.ends_with("üüz"), "{quoted}");
        let quoted_letters = quoted.matches(['a', 'ü', 'z']).filter(|letter| *letter == "ü").count();
        let omitted = (long.len() - 2) - (quoted_letters * "ü".len());
        assert!(omitted > 2_000_000);
        let marked = format!("\n[{omitted} bytes omitted]\n");
        assert!(quoted.contains(&marked), "{marked} is missing");
    }
}
