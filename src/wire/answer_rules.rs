//! What a request allows its answer to be.

use std::sync::Arc;

use crate::types::{Format, LengthLimit, Prompt};

use super::structured_output::needs_wrapping;
use super::{Dialect, ReasoningTags};

/// What a request allows its answer to be.
#[derive(Debug)]
pub(super) struct AnswerRules {
    pub(super) format: Format,
    /// Whether the JSON answer is the only field of an object.
    pub(super) wrapped: bool,
    /// What happens to tagged reasoning before the answer.
    pub(super) reasoning_tags: ReasoningTags,
    pub(super) keep_reasoning: bool,
    pub(super) length_limit: LengthLimit,
    /// The output token limit of the request.
    pub(super) max_tokens: Option<u32>,
    /// `None` if the request has neither tools nor calls of tools. Boxed because the decoder that contains the rules
    /// is moved, and most requests have none.
    tools: Option<Box<ToolRules>>,
}

/// What a request with tools allows.
#[derive(Debug)]
struct ToolRules {
    offered: OfferedTools,
    /// The ids of the tool calls in the conversation.
    earlier_ids: Vec<Arc<str>>,
}

/// The tools that the request offers.
#[derive(Debug)]
enum OfferedTools {
    Named(Vec<Arc<str>>),
    /// The fields of the vendor contain tools, which are not read.
    Any,
}

impl AnswerRules {
    pub(super) fn of(prompt: &Prompt, format: Format, dialect: &Dialect) -> Self {
        Self {
            format,
            wrapped: needs_wrapping(&prompt.response_format, dialect.structured_output),
            reasoning_tags: dialect.reasoning_tags,
            // A conversation with tools needs its reasoning back; without it some vendors refuse the next request.
            keep_reasoning: prompt.keep_reasoning || !prompt.tools.is_empty(),
            length_limit: prompt.length_limit,
            max_tokens: prompt.max_tokens,
            tools: ToolRules::of(prompt, format, dialect).map(Box::new),
        }
    }

    /// Returns whether the request offers this tool.
    pub(super) fn offers(&self, name: &str) -> bool {
        self.tools.as_ref().is_some_and(|tools| match &tools.offered {
            OfferedTools::Any => true,
            OfferedTools::Named(names) => names.iter().any(|offered| &**offered == name),
        })
    }

    /// Returns whether a tool call in the conversation has this id.
    pub(super) fn is_earlier_id(&self, id: &str) -> bool {
        self.tools.as_ref().is_some_and(|tools| tools.earlier_ids.iter().any(|earlier| &**earlier == id))
    }
}

impl ToolRules {
    fn of(prompt: &Prompt, format: Format, dialect: &Dialect) -> Option<Self> {
        let fields = prompt.vendor_fields.iter().filter(|fields| fields.format == format);
        let mut fields = fields.map(|fields| &fields.fields).chain(dialect.extra.as_ref());
        let earlier_ids: Vec<_> = prompt.tool_calls().map(|call| call.id.clone()).collect();
        if fields.any(|fields| fields.contains_key("tools")) {
            return Some(Self { offered: OfferedTools::Any, earlier_ids });
        }
        if prompt.tools.is_empty() && earlier_ids.is_empty() {
            return None;
        }
        let names = prompt.tools.iter().map(|tool| tool.name.clone()).collect();
        Some(Self { offered: OfferedTools::Named(names), earlier_ids })
    }
}
