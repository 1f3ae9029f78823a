//! The memory that the prompts of an item need while their requests are in flight, and that its embeddings need.

use crate::types::{Completion, MediaData, Part, Prompt, Signature};

/// Bytes of one number of an embedding: as a value, for the templates, in the record and in the output line.
const BYTES_PER_NUMBER: usize = 128;

/// How many copies of a prompt are in memory.
const PROMPT_COPIES_IN_MEMORY: usize = 4;

/// Returns the memory for a prompt: in the item, in its request and in the connection.
pub(super) fn memory_of_prompt(prompt: &Prompt) -> usize {
    prompt_bytes(prompt).saturating_mul(PROMPT_COPIES_IN_MEMORY)
}

/// Returns the memory that a validation retry needs besides that of the first prompt, whose attachments and texts
/// it shares.
pub(super) fn memory_of_validation_retry(prompt: &Prompt) -> usize {
    validation_retry_bytes(prompt).saturating_mul(PROMPT_COPIES_IN_MEMORY)
}

/// Returns the memory for the embeddings of an answer.
pub(super) fn memory_of_embedding(completion: &Completion) -> usize {
    let numbers: usize = completion.embeddings.iter().map(|vector| vector.len()).sum();
    numbers.saturating_mul(BYTES_PER_NUMBER)
}

fn prompt_bytes(prompt: &Prompt) -> usize {
    let parts = prompt.messages.iter().flat_map(|message| &message.parts);
    prompt.system.as_ref().map_or(0, |text| text.len()) + parts.map(part_bytes).sum::<usize>()
}

fn part_bytes(part: &Part) -> usize {
    let signature_bytes =
        |signature: &Option<Signature>| signature.as_ref().map_or(0, |signature| signature.value.len());
    match part {
        Part::Text(text) => text.len(),
        Part::Image(media) | Part::Audio(media) | Part::Document(media) | Part::Video(media) => {
            match &media.data {
                MediaData::Base64(text) | MediaData::Url(text) => text.len(),
            }
        }
        Part::ToolCall(call) => {
            call.id.len() + call.name.len() + call.arguments.len() + signature_bytes(&call.signature)
        }
        Part::ToolResult(result) => result.call_id.len() + result.parts.iter().map(part_bytes).sum::<usize>(),
        Part::Reasoning(reasoning) => reasoning.text.len() + signature_bytes(&reasoning.signature),
    }
}

/// Returns the bytes that a validation retry adds to the first prompt: the quoted answer and the new instruction.
fn validation_retry_bytes(prompt: &Prompt) -> usize {
    let added = prompt.messages.iter().skip(1).flat_map(|message| &message.parts);
    added.map(|part| if let Part::Text(text) = part { text.len() } else { 0 }).sum()
}
