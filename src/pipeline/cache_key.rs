//! Keys under which answers are stored and found again: fingerprints of everything that affects an answer.
//!
//! The key of an answer within its run covers the item's key, the step, the complete first request with its attachments,
//! and the model. The route, the API key and the price do not affect answers and are not part of it. Keys are stored, so
//! the bytes that are hashed here must not change: a setting that was added later is hashed only if it is not the default.
//!
//! The key of an answer in the answer cache, which all items and runs share, covers the scope in place of the item and the
//! step, and the address of the model in addition. The response format, which decides how an answer is validated, is a part
//! of the request.

use serde_json::{Map, Value, json};

use crate::types::{
    Fingerprint, ItemKey, LengthLimit, MediaData, Part, Prompt, ResponseFormat, Role, ScopeName, Signature,
    StepName, Tool, ToolChoice,
};
use crate::wire::DropParameter;

/// The settings of a model that affect its answers.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelIdentity<'a> {
    /// The wire format.
    pub format: &'a str,
    /// The provider's name of the model.
    pub model: &'a str,
    /// Whether the provider is simulated, so that its answers are generated.
    pub simulated: bool,
    /// How JSON answers are requested; `None` is the default.
    pub structured_output: Option<&'a str>,
    /// How reasoning between tags is handled; `None` is the default.
    pub reasoning_tags: Option<&'a str>,
    /// `max_tokens` of requests that set none.
    pub max_tokens: Option<u32>,
    /// `temperature` of requests that set none.
    pub temperature: Option<f64>,
    /// Parameters that its requests leave out.
    pub drop_parameters: &'a [DropParameter],
    /// Fields of the vendor that its requests carry in addition.
    pub extra: Option<&'a Map<String, Value>>,
}

impl ModelIdentity<'_> {
    /// Returns the fingerprint of the model.
    pub fn fingerprint(&self) -> Fingerprint {
        let max_tokens = self.max_tokens.map_or_else(Vec::new, |tokens| tokens.to_le_bytes().to_vec());
        let temperature = self.temperature.map_or_else(Vec::new, |number| number.to_le_bytes().to_vec());
        let simulated = [u8::from(self.simulated)];
        let mut parts =
            vec![self.format.as_bytes(), self.model.as_bytes(), &simulated, &max_tokens, &temperature];
        parts.extend(self.structured_output.map(str::as_bytes));
        parts.extend(self.reasoning_tags.map(str::as_bytes));
        let mut dropped: Vec<_> = self.drop_parameters.iter().map(|parameter| parameter.as_str()).collect();
        dropped.sort_unstable();
        dropped.dedup();
        let dropped = dropped.join(",");
        if !dropped.is_empty() {
            parts.extend([&b"drop_parameters"[..], dropped.as_bytes()]);
        }
        let extra = self.extra.filter(|fields| !fields.is_empty()).map(|fields| {
            let mut fields = Value::Object(fields.clone());
            // The order of the keys in the file does not matter.
            fields.sort_all_objects();
            fields.to_string()
        });
        if let Some(extra) = &extra {
            parts.extend([&b"extra"[..], extra.as_bytes()]);
        }
        Fingerprint::of(parts)
    }
}

/// Returns the key of a request of an item's step, without the model.
pub(crate) fn request_key(item: &ItemKey, step: &StepName, prompt: &Prompt) -> Fingerprint {
    fingerprint_of_request(&[item.as_str().as_bytes(), step.as_str().as_bytes()], prompt)
}

/// Returns the key of a request in the answer cache, without the model; `None` if its answer depends on more than the
/// request: the content of an address may change.
pub(crate) fn shared_request_key(scope: &ScopeName, prompt: &Prompt) -> Option<Fingerprint> {
    if prompt.messages.iter().flat_map(|message| &message.parts).any(has_address) {
        return None;
    }
    // The numbers of the parts make the list of all parts unambiguous: requests of different pipelines have this key.
    let choices = match &prompt.response_format {
        ResponseFormat::Choice(choices) => choices.len(),
        ResponseFormat::Text | ResponseFormat::Json(_) => 0,
    };
    let lengths = prompt.messages.iter().map(|message| message.parts.len());
    let numbers: Vec<u8> =
        [choices].into_iter().chain(lengths).flat_map(|number| (number as u64).to_le_bytes()).collect();
    let first = [b"cached answer, version 1".as_slice(), scope.as_str().as_bytes(), numbers.as_slice()];
    Some(fingerprint_of_request(&first, prompt))
}

/// Returns whether the provider reads a part, or a part of it, from an address.
fn has_address(part: &Part) -> bool {
    match part {
        Part::Image(media) | Part::Document(media) | Part::Audio(media) | Part::Video(media) => {
            matches!(media.data, MediaData::Url(_))
        }
        Part::ToolResult(result) => result.parts.iter().any(has_address),
        Part::Text(_) | Part::ToolCall(_) | Part::Reasoning(_) => false,
    }
}

/// Returns the fingerprint of the parts `first` and of a request.
fn fingerprint_of_request(first: &[&[u8]], prompt: &Prompt) -> Fingerprint {
    let Prompt { system, messages, response_format, max_tokens, temperature, .. } = prompt;
    let mut parts: Vec<&[u8]> = first.to_vec();
    let has_system: &[u8] = if system.is_some() { b"system" } else { b"" };
    parts.extend([has_system, system.as_deref().unwrap_or_default().as_bytes()]);
    for message in messages {
        let role = match message.role {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        };
        parts.push(role.as_bytes());
        message.parts.iter().for_each(|part| add_part(part, &mut parts));
    }
    let schema;
    match response_format {
        ResponseFormat::Text => parts.push(b"as text"),
        ResponseFormat::Choice(choices) => {
            parts.push(b"one of");
            parts.extend(choices.iter().map(String::as_bytes));
        }
        ResponseFormat::Json(value) => {
            schema = value.to_string();
            parts.extend([b"as json", schema.as_bytes()]);
        }
    }
    let max_tokens = max_tokens.map_or_else(Vec::new, |tokens| tokens.to_le_bytes().to_vec());
    let temperature = temperature.map_or_else(Vec::new, |number| number.to_le_bytes().to_vec());
    parts.extend([max_tokens.as_slice(), temperature.as_slice()]);
    let settings = non_default_settings(prompt);
    let settings = (!settings.is_empty()).then(|| Value::Object(settings).to_string());
    if let Some(settings) = &settings {
        // No older key has parts of these lengths at its end: it ends with those of two numbers.
        parts.extend([&b"settings"[..], settings.as_bytes()]);
    }
    Fingerprint::of(parts)
}

/// Returns the settings that the first version did not have, as far as they differ from the defaults.
fn non_default_settings(prompt: &Prompt) -> Map<String, Value> {
    let Prompt {
        system: _,
        messages: _,
        response_format: _,
        max_tokens: _,
        temperature: _,
        top_p,
        stop,
        seed,
        reasoning_effort,
        keep_reasoning,
        tools,
        tool_choice,
        parallel_tool_calls,
        // It identifies the end user, and the answer does not depend on it.
        user: _,
        length_limit,
        vendor_fields,
        // It decides only what a provider caches.
        shared_prefix: _,
        embedding,
    } = prompt;
    let mut settings = Map::new();
    let mut add = |name: &str, value: Option<Value>| {
        settings.extend(value.map(|value| (name.to_owned(), value)));
    };
    add("top_p", top_p.map(Value::from));
    add("stop", (!stop.is_empty()).then(|| stop.iter().map(|text| &**text).collect()));
    add("seed", seed.map(Value::from));
    add("reasoning_effort", reasoning_effort.map(|effort| effort.as_str().into()));
    add("keep_reasoning", keep_reasoning.then_some(Value::Bool(true)));
    add("tools", (!tools.is_empty()).then(|| tools.iter().map(tool_value).collect()));
    add(
        "tool_choice",
        match tool_choice {
            ToolChoice::Auto => None,
            ToolChoice::None => Some("none".into()),
            ToolChoice::Required => Some("required".into()),
            ToolChoice::Tool(name) => Some(json!({ "tool": name })),
        },
    );
    add("parallel_tool_calls", parallel_tool_calls.map(Value::Bool));
    add(
        "length_limit",
        match length_limit {
            LengthLimit::Fail => None,
            LengthLimit::Return => Some("return".into()),
        },
    );
    let fields = vendor_fields.iter().map(|fields| json!([fields.format.as_str(), fields.fields]));
    add("vendor_fields", (!vendor_fields.is_empty()).then(|| fields.collect()));
    add("embedding", embedding.map(|options| json!({ "dimensions": options.dimensions })));
    settings
}

fn tool_value(tool: &Tool) -> Value {
    let Tool { name, description, parameters, strict } = tool;
    json!([name, description, parameters, strict])
}

/// Returns the key of an answer: the key of its request and the fingerprint of its model.
pub(crate) fn answer_key(request: Fingerprint, model: Fingerprint) -> Fingerprint {
    Fingerprint::of([request.0.as_slice(), model.0.as_slice()])
}

/// Returns the fingerprint of a model at an address, with the names and values of the additional headers of its calls.
pub(crate) fn shared_model_key<'a>(
    model: Fingerprint,
    address: Option<&str>,
    headers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
) -> Fingerprint {
    let has_address: &[u8] = if address.is_some() { b"at" } else { b"at the vendor" };
    let mut parts = vec![model.0.as_slice(), has_address, address.unwrap_or_default().as_bytes()];
    parts.extend(headers.into_iter().flat_map(|(name, value)| [name, value]));
    Fingerprint::of(parts)
}

fn add_part<'a>(part: &'a Part, parts: &mut Vec<&'a [u8]>) {
    let (kind, media): (&[u8], _) = match part {
        Part::Text(text) => return parts.extend([&b"text"[..], text.as_bytes()]),
        Part::Image(media) => (b"image", media),
        Part::Document(media) => (b"document", media),
        Part::Audio(media) => (b"audio", media),
        Part::Video(media) => (b"video", media),
        Part::ToolCall(call) => {
            let texts = [&call.id, &call.name, &call.arguments];
            parts.push(b"tool call");
            parts.extend(texts.map(|text| text.as_bytes()));
            return add_signature(call.signature.as_ref(), parts);
        }
        Part::ToolResult(result) => {
            let kind: &[u8] = if result.is_error { b"tool error" } else { b"tool result" };
            parts.extend([kind, result.call_id.as_bytes()]);
            result.parts.iter().for_each(|part| add_part(part, parts));
            return parts.push(b"end of tool result");
        }
        Part::Reasoning(reasoning) => {
            parts.extend([&b"reasoning"[..], reasoning.text.as_bytes()]);
            return add_signature(reasoning.signature.as_ref(), parts);
        }
    };
    let (source, data): (&[u8], _) = match &media.data {
        MediaData::Base64(data) => (b"here", data),
        MediaData::Url(url) => (b"there", url),
    };
    let name = media.name.as_deref().unwrap_or_default();
    parts.extend([kind, media.media_type.as_bytes(), name.as_bytes(), source, data.as_bytes()]);
}

fn add_signature<'a>(signature: Option<&'a Signature>, parts: &mut Vec<&'a [u8]>) {
    let Some(Signature { format, value, is_redacted }) = signature else { return parts.push(b"unsigned") };
    let kind: &[u8] = if *is_redacted { b"redacted" } else { b"signed" };
    parts.extend([kind, format.as_str().as_bytes(), value.as_bytes()]);
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use super::*;
    use crate::types::{
        CacheTtl, EmbeddingOptions, Format, Media, Message, Reasoning, ReasoningEffort, SharedPrefix,
        ToolCall, ToolResult, VendorFields,
    };

    fn fields(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn key(prompt: &Prompt) -> Fingerprint {
        request_key(&"item-1".into(), &"category".into(), prompt)
    }

    #[test]
    fn everything_that_affects_an_answer_changes_its_key() {
        let plain = || Prompt::text("What is it about?");
        let image = |data| Media { media_type: "image/png".into(), name: None, data };
        let with = |part| {
            let mut prompt = plain();
            prompt.messages[0].parts.insert(0, part);
            prompt
        };
        let prompts = [
            plain(),
            Prompt::text("What is it about"),
            Prompt { system: Some("".into()), ..plain() },
            Prompt { system: Some("Be brief.".into()), ..plain() },
            Prompt {
                response_format: ResponseFormat::Choice(Arc::new(["A".to_owned(), "B".to_owned()])),
                ..plain()
            },
            Prompt { response_format: ResponseFormat::Choice(Arc::new(["AB".to_owned()])), ..plain() },
            Prompt {
                response_format: ResponseFormat::Json(Arc::new(serde_json::json!({ "type": "array" }))),
                ..plain()
            },
            Prompt { max_tokens: Some(7), ..plain() },
            Prompt { temperature: Some(0.0), ..plain() },
            Prompt { messages: vec![Message::assistant("What is it about?")], ..plain() },
            with(Part::Image(image(MediaData::Base64("AAAA".into())))),
            with(Part::Document(image(MediaData::Base64("AAAA".into())))),
            with(Part::Image(image(MediaData::Url("AAAA".into())))),
            with(Part::Text("image".into())),
            with(Part::Video(image(MediaData::Base64("AAAA".into())))),
            with(Part::Reasoning(Reasoning::new("a"))),
            with(Part::Reasoning(Reasoning::new("a").with_signature(Signature::new(Format::Anthropic, "b")))),
            with(Part::Reasoning(Reasoning::new("a").with_signature(Signature::new(Format::Gemini, "b")))),
            with(Part::Reasoning(Reasoning::new("a").with_signature(Signature::redacted("b")))),
            with(Part::ToolCall(ToolCall::new("a", "b", "{}"))),
            with(Part::ToolCall(ToolCall::new("a", "b", "{ }"))),
            with(Part::ToolCall(
                ToolCall::new("a", "b", "{}").with_signature(Signature::new(Format::Gemini, "c")),
            )),
            with(Part::ToolResult(ToolResult::new("a", "b"))),
            with(Part::ToolResult(ToolResult::error("a", "b"))),
            with(Part::ToolResult(ToolResult::new("a", "b").with_part(Part::text("What is it about?")))),
            Prompt {
                messages: vec![Message::new(Role::System, plain().messages[0].parts.clone())],
                ..plain()
            },
            Prompt { messages: vec![Message::new(Role::Tool, plain().messages[0].parts.clone())], ..plain() },
            plain().with_top_p(0.5),
            plain().with_stop(["a"]),
            plain().with_stop(["a", "b"]),
            plain().with_seed(0),
            plain().with_seed(-1),
            plain().with_reasoning_effort(ReasoningEffort::None),
            plain().with_reasoning_effort(ReasoningEffort::Low),
            plain().with_keep_reasoning(true),
            plain().with_tool(Tool::new("a", json!({ "type": "object" }))),
            plain().with_tool(Tool::new("a", json!({ "type": "object" })).with_description("b")),
            plain().with_tool(Tool::new("a", json!({ "type": "object" })).with_strict(false)),
            plain().with_tool_choice(ToolChoice::None),
            plain().with_tool_choice(ToolChoice::Required),
            plain().with_tool_choice(ToolChoice::Tool("a".into())),
            plain().with_parallel_tool_calls(false),
            plain().with_length_limit(LengthLimit::Return),
            plain().with_vendor_fields(VendorFields::new(Format::Openai, fields(&json!({ "a": 1 })))),
            plain().with_vendor_fields(VendorFields::new(Format::Gemini, fields(&json!({ "a": 1 })))),
            Prompt::embeddings(["What is it about?"], EmbeddingOptions::default()),
            Prompt::embeddings(["What is it about?"], EmbeddingOptions::new(NonZeroU32::new(256))),
            Prompt::embeddings(["What is it about?", ""], EmbeddingOptions::default()),
        ];
        let all: std::collections::BTreeSet<_> = prompts.iter().map(key).collect();
        assert_eq!(all.len(), prompts.len(), "two requests have the same key");
        assert_ne!(key(&plain()), request_key(&"item-2".into(), &"category".into(), &plain()));
        assert_ne!(key(&plain()), request_key(&"item-1".into(), &"reply".into(), &plain()));
        assert_eq!(key(&plain()), key(&plain()));
    }

    #[test]
    fn the_key_of_a_cached_answer_depends_on_the_scope_the_request_and_the_address_of_the_model() {
        let scope = ScopeName::from("team-a");
        let shared = |prompt: &Prompt| shared_request_key(&scope, prompt);
        let choice = |choices: &[&str]| {
            let choices: Vec<_> = choices.iter().map(|choice| (*choice).to_owned()).collect();
            Prompt {
                response_format: ResponseFormat::Choice(choices.into()),
                ..Prompt::text("What is it about?")
            }
        };
        let prompts = [
            Prompt::text("What is it about?"),
            Prompt::text("What is it?"),
            Prompt::text("What is it about?").with_temperature(0.0),
            Prompt::text("What is it about?").with_seed(1),
            Prompt::text("What is it about?").with_system(""),
            Prompt::text("What is it about?").with_tool(Tool::new("a", json!({ "type": "object" }))),
            choice(&["A", "B"]),
            choice(&["B", "A"]),
            choice(&["A"]),
            choice(&["A", ""]),
        ];
        let all: std::collections::BTreeSet<_> = prompts.iter().map(shared).collect();
        assert_eq!(all.len(), prompts.len(), "two requests have the same key");
        assert_ne!(shared(&prompts[0]), shared_request_key(&ScopeName::default(), &prompts[0]));
        assert_eq!(shared(&prompts[0]), shared(&prompts[0].clone()));
        // Who asks does not matter.
        assert_eq!(shared(&prompts[0]), shared(&prompts[0].clone().with_user("someone")));

        let image = |data| Part::Image(Media { media_type: "image/png".into(), name: None, data });
        let attached = prompts[0].clone().with_part(image(MediaData::Base64("AAAA".into())));
        let other = prompts[0].clone().with_part(image(MediaData::Base64("AAAB".into())));
        assert_ne!(shared(&attached), shared(&other));
        let at_address = prompts[0].clone().with_part(image(MediaData::Url("https://a.test/b.png".into())));
        assert_eq!(shared(&at_address), None, "the content of an address may change");

        let model = Fingerprint::of([b"m".as_slice()]);
        let headers = |value: &'static [u8]| [(b"x-version".as_slice(), value)];
        let models = [
            shared_model_key(model, None, []),
            shared_model_key(model, Some("http://a.test"), []),
            shared_model_key(model, Some("http://b.test"), []),
            shared_model_key(model, None, headers(b"1")),
            shared_model_key(model, None, headers(b"2")),
            shared_model_key(Fingerprint::of([b"n".as_slice()]), None, []),
        ];
        assert_eq!(models.iter().collect::<std::collections::BTreeSet<_>>().len(), models.len());
    }

    #[test]
    fn keys_of_earlier_versions_are_still_found() {
        let prompt = Prompt::text("What is it about?")
            .with_system("Be brief.")
            .with_response_format(ResponseFormat::choice(["A", "B"]))
            .with_max_tokens(7)
            .with_temperature(0.5);
        let image = Media {
            media_type: "image/png".into(),
            name: Some("a.png".into()),
            data: MediaData::Url("u".into()),
        };
        let retried = prompt
            .clone()
            .with_part(Part::Image(image))
            .with_message(Message::assistant("C"))
            .with_message(Message::user("Answer with A or B."));
        assert_eq!(key(&prompt).to_string(), "437c07fd7bd7fe69943eb458fb4a5aa4");
        assert_eq!(key(&retried).to_string(), "b47579187869213ed8e46342d95c9888");
        assert_eq!(key(&Prompt::text("Hello?")).to_string(), "b5e7dd40b905a1f03cda0cf4f51461b4");
        let identity = ModelIdentity {
            format: "openai",
            model: "gpt",
            simulated: false,
            structured_output: Some("json"),
            reasoning_tags: None,
            max_tokens: Some(9),
            temperature: None,
            drop_parameters: &[],
            extra: Some(&Map::new()),
        };
        assert_eq!(identity.fingerprint().to_string(), "86b0397f2183d7c4aa57161e86c7ddfa");
    }

    #[test]
    fn the_end_user_does_not_change_the_key() {
        let prompt = Prompt::text("What is it about?");
        assert_eq!(key(&prompt), key(&prompt.clone().with_user("user-1")));
    }

    #[test]
    fn a_shared_prefix_does_not_change_the_key() {
        let prompt = Prompt::text("What is it about?");
        let prefix = SharedPrefix::new(Fingerprint([1; 16]), 2000).with_text_bytes(5);
        let prefix = prefix.with_ttl(CacheTtl::OneHour);
        assert_eq!(key(&prompt), key(&prompt.clone().with_shared_prefix(prefix)));
    }

    #[test]
    fn the_order_of_dropped_parameters_and_of_vendor_fields_does_not_change_the_fingerprint() {
        use DropParameter::{Seed, Stop};
        let first = fields(&json!({ "a": { "x": 1, "y": 2 }, "b": 3 }));
        let second = fields(&json!({ "b": 3, "a": { "y": 2, "x": 1 } }));
        let identity = |drop_parameters, extra| ModelIdentity {
            format: "openai",
            model: "gpt",
            simulated: false,
            structured_output: None,
            reasoning_tags: None,
            max_tokens: None,
            temperature: None,
            drop_parameters,
            extra: Some(extra),
        };
        assert_eq!(
            identity(&[Seed, Stop], &first).fingerprint(),
            identity(&[Stop, Seed, Stop], &second).fingerprint()
        );
    }

    #[test]
    fn every_setting_of_a_model_changes_its_fingerprint() {
        let flex = fields(&json!({ "service_tier": "flex" }));
        let priority = fields(&json!({ "service_tier": "priority" }));
        let base = ModelIdentity {
            format: "openai",
            model: "gpt",
            simulated: false,
            structured_output: None,
            reasoning_tags: None,
            max_tokens: None,
            temperature: None,
            drop_parameters: &[],
            extra: None,
        };
        let identities = [
            base.clone(),
            ModelIdentity { simulated: true, ..base.clone() },
            ModelIdentity { model: "gpt-2", ..base.clone() },
            ModelIdentity { format: "gemini", ..base.clone() },
            ModelIdentity { structured_output: Some("json"), ..base.clone() },
            ModelIdentity { reasoning_tags: Some("keep"), ..base.clone() },
            ModelIdentity { reasoning_tags: Some("strip"), ..base.clone() },
            ModelIdentity { structured_output: Some("prompt"), ..base.clone() },
            ModelIdentity { max_tokens: Some(1), ..base.clone() },
            ModelIdentity { temperature: Some(1.0), ..base.clone() },
            ModelIdentity { drop_parameters: &[DropParameter::Seed], ..base.clone() },
            ModelIdentity { drop_parameters: &[DropParameter::Seed, DropParameter::Stop], ..base.clone() },
            ModelIdentity { extra: Some(&flex), ..base.clone() },
            ModelIdentity { extra: Some(&priority), ..base },
        ];
        let all: std::collections::BTreeSet<_> = identities.iter().map(ModelIdentity::fingerprint).collect();
        assert_eq!(all.len(), identities.len());
    }
}
