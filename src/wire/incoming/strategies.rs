//! Random prompts that a format can express, for the property tests of all formats.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::types::{
    Format, LengthLimit, Media, Message, Part, Prompt, Reasoning, ReasoningEffort, ResponseFormat, Role,
    Tool, ToolCall, ToolChoice, ToolResult, VendorFields,
};

/// What the prompts of a format contain. A part of a prompt that is not listed here is possible in every format.
#[derive(Debug, Clone, Copy)]
pub(in crate::wire) struct Abilities {
    pub(in crate::wire) format: Format,
    /// Audio in base64.
    pub(in crate::wire) audio: bool,
    /// Videos in base64.
    pub(in crate::wire) video: bool,
    /// Images that the provider fetches.
    pub(in crate::wire) image_urls: bool,
    /// PDF documents that the provider fetches.
    pub(in crate::wire) document_urls: bool,
    /// Images and PDF documents in base64 in the results of tools.
    pub(in crate::wire) media_results: bool,
    pub(in crate::wire) stop: bool,
    pub(in crate::wire) seed: bool,
    pub(in crate::wire) user: bool,
    pub(in crate::wire) parallel_tool_calls: bool,
    /// The efforts of reasoning; may be empty.
    pub(in crate::wire) reasoning_efforts: &'static [ReasoningEffort],
    /// Reasoning of an earlier answer.
    pub(in crate::wire) reasoning: fn() -> BoxedStrategy<Reasoning>,
}

impl Abilities {
    /// Returns those that all formats have in common.
    pub(in crate::wire) fn common(format: Format) -> Self {
        Self {
            format,
            audio: false,
            video: false,
            image_urls: true,
            document_urls: false,
            media_results: false,
            stop: false,
            seed: false,
            user: false,
            parallel_tool_calls: false,
            reasoning_efforts: &[],
            reasoning: unsigned_reasoning,
        }
    }
}

/// Returns a text that is not blank.
pub(in crate::wire) fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9{\"\\\\é\u{1f30a}][ -~\n\té\u{1f30a}]{0,12}"
}

/// Returns reasoning that is only for the reader.
pub(in crate::wire) fn unsigned_reasoning() -> BoxedStrategy<Reasoning> {
    text().prop_map(Reasoning::new).boxed()
}

/// Returns prompts that pass [`Prompt::check`].
pub(in crate::wire) fn prompt(abilities: Abilities) -> impl Strategy<Value = Prompt> {
    let conversation = (prop::option::of(text()), messages(abilities), response_format());
    let sampling = (
        prop::option::of(0_u32..),
        prop::option::of((0_i32..=200).prop_map(|hundredths| f64::from(hundredths) / 100.0)),
        prop::option::of((0_i32..=100).prop_map(|hundredths| f64::from(hundredths) / 100.0)),
        only_if(abilities.seed, any::<i64>()),
        prop::collection::vec(text(), if abilities.stop { 0..4 } else { 0..1 }),
    );
    let tools = (
        prop::collection::vec(tool(), 0..4),
        any::<prop::sample::Index>(),
        only_if(abilities.parallel_tool_calls, any::<bool>()),
    );
    let rest = (
        only_if(!abilities.reasoning_efforts.is_empty(), any::<prop::sample::Index>()),
        any::<bool>(),
        only_if(abilities.user, text()),
        prop::option::of(vendor_fields()),
    );
    (conversation, sampling, tools, rest).prop_map(move |(conversation, sampling, tools, rest)| {
        let (system, messages, response_format) = conversation;
        let (max_tokens, temperature, top_p, seed, stop) = sampling;
        let (tools, choice, parallel_tool_calls) = tools;
        let (effort, keep_reasoning, user, fields) = rest;
        let tools: Vec<Tool> =
            (0..).zip(tools).map(|(at, tool)| Tool { name: tool_name(at).into(), ..tool }).collect();
        Prompt {
            system: system.map(Into::into),
            messages,
            response_format,
            max_tokens,
            temperature,
            top_p,
            stop: stop.into_iter().map(Into::into).collect(),
            seed,
            reasoning_effort: effort.map(|effort| *effort.get(abilities.reasoning_efforts)),
            keep_reasoning,
            tool_choice: tool_choice(&tools, choice),
            tools,
            parallel_tool_calls,
            user: user.map(Into::into),
            length_limit: LengthLimit::Return,
            vendor_fields: fields
                .map(|fields| VendorFields::new(abilities.format, fields))
                .into_iter()
                .collect(),
            ..Prompt::default()
        }
    })
}

fn only_if<S: Strategy>(is_possible: bool, strategy: S) -> impl Strategy<Value = Option<S::Value>> {
    prop::option::of(strategy).prop_map(move |value| value.filter(|_| is_possible))
}

fn tool_name(at: usize) -> String {
    format!("tool_{at}")
}

fn tool() -> impl Strategy<Value = Tool> {
    (prop::option::of(text()), object_schema(), prop::option::of(any::<bool>())).prop_map(
        |(description, parameters, strict)| Tool {
            description: description.map(Into::into),
            strict,
            ..Tool::new("", parameters)
        },
    )
}

fn tool_choice(tools: &[Tool], choice: prop::sample::Index) -> ToolChoice {
    let mut choices = vec![ToolChoice::Auto, ToolChoice::None];
    if !tools.is_empty() {
        choices.push(ToolChoice::Required);
        choices.push(ToolChoice::Tool(choice.get(tools).name.clone()));
    }
    choice.get(&choices).clone()
}

/// Returns schemas that no vendor translates: those that all accept, and one that some do not accept.
pub(in crate::wire) fn object_schema() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!({ "type": "object", "properties": {}, "required": [], "additionalProperties": false }),
        json!({
            "type": "object",
            "properties": { "a": { "type": "string", "enum": ["x", "y"] }, "b": { "type": "integer" } },
            "required": ["a", "b"],
            "additionalProperties": false,
        }),
        json!({
            "type": "object",
            "properties": { "a": { "type": "array", "items": { "type": "boolean" } } },
            "required": ["a"],
            "additionalProperties": false,
            "description": "A list.",
        }),
    ])
}

fn response_format() -> impl Strategy<Value = ResponseFormat> {
    prop_oneof![Just(ResponseFormat::Text), object_schema().prop_map(ResponseFormat::json)]
}

fn vendor_fields() -> impl Strategy<Value = Map<String, Value>> {
    let value = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        text().prop_map(Value::from),
        text().prop_map(|text| json!({ "inner": [text, null, 1] })),
    ];
    prop::collection::btree_map("x_[a-z]{1,4}", value, 1..3).prop_map(|fields| fields.into_iter().collect())
}

/// One or two messages of a conversation, without the ids of its calls.
#[derive(Debug, Clone)]
enum Turn {
    System(Vec<Part>),
    User(Vec<Part>),
    Assistant {
        before: Vec<Part>,
        /// The calls with their results.
        calls: Vec<(ToolCall, ToolResult)>,
        /// Whether each result is a message of its own.
        are_apart: bool,
    },
}

fn messages(abilities: Abilities) -> impl Strategy<Value = Vec<Message>> {
    let texts = || prop::collection::vec(text().prop_map(Part::text), 1..3);
    let earlier = prop_oneof![
        2 => text().prop_map(Part::text),
        1 => (abilities.reasoning)().prop_map(Part::Reasoning),
    ];
    let calls = prop::collection::vec((call(), result(abilities)), 0..3);
    let turn = prop_oneof![
        1 => texts().prop_map(Turn::System),
        3 => prop::collection::vec(user_part(abilities), 1..4).prop_map(Turn::User),
        3 => (prop::collection::vec(earlier, 0..3), calls, any::<bool>())
            .prop_filter("an empty message", |(before, calls, _)| !before.is_empty() || !calls.is_empty())
            .prop_map(|(before, calls, are_apart)| Turn::Assistant { before, calls, are_apart }),
    ];
    prop::collection::vec(turn, 0..6).prop_map(|turns| {
        let mut all = vec![];
        let mut ids = 0..;
        for turn in turns {
            add_turn(turn, &mut ids, &mut all);
        }
        all
    })
}

fn add_turn(turn: Turn, ids: &mut impl Iterator<Item = u32>, all: &mut Vec<Message>) {
    let (mut parts, calls, are_apart) = match turn {
        Turn::System(parts) => return all.push(Message::new(Role::System, parts)),
        Turn::User(parts) => return all.push(Message::new(Role::User, parts)),
        Turn::Assistant { before, calls, are_apart } => (before, calls, are_apart),
    };
    let mut results = Vec::new();
    for (id, (call, result)) in ids.zip(calls) {
        let id = format!("call_{id}");
        results.push(ToolResult { call_id: id.as_str().into(), ..result });
        parts.push(Part::ToolCall(ToolCall { id: id.into(), ..call }));
    }
    all.push(Message::new(Role::Assistant, parts));
    if are_apart {
        all.extend(results.into_iter().map(|result| Message::tool([result])));
    } else if !results.is_empty() {
        all.push(Message::tool(results));
    }
}

fn call() -> impl Strategy<Value = ToolCall> {
    (0_usize..4, prop::option::of(text())).prop_map(|(tool, value)| {
        let arguments = value.map_or_else(|| json!({}), |value| json!({ "a": value, "b": [1, null] }));
        ToolCall::new("", tool_name(tool), arguments.to_string())
    })
}

fn result(abilities: Abilities) -> impl Strategy<Value = ToolResult> {
    let text_part = text().prop_map(Part::text).boxed();
    let part = prop_oneof![
        3 => text_part.clone(),
        1 => if abilities.media_results { prop_oneof![image(), pdf()].boxed() } else { text_part },
    ];
    (prop::collection::vec(part, 1..3), any::<bool>()).prop_map(|(parts, is_error)| ToolResult {
        parts,
        is_error,
        ..ToolResult::new("", "")
    })
}

fn user_part(abilities: Abilities) -> BoxedStrategy<Part> {
    let mut kinds = vec![
        text().prop_map(Part::text).boxed(),
        text().prop_map(Part::text).boxed(),
        image(),
        pdf(),
        text_document(),
    ];
    if abilities.image_urls {
        let url = |(name, (extension, media_type)): (String, (&str, &str))| {
            Part::Image(Media::url(media_type, format!("https://example.com/{name}.{extension}")))
        };
        let types = vec![("png", "image/png"), ("jpg", "image/jpeg"), ("webp", "image/webp")];
        kinds.push(("[a-z]{1,5}", prop::sample::select(types)).prop_map(url).boxed());
    }
    if abilities.document_urls {
        let url =
            |name| Part::Document(Media::url("application/pdf", format!("https://example.com/{name}.pdf")));
        kinds.push("[a-z]{1,5}".prop_map(url).boxed());
    }
    if abilities.audio {
        kinds.push(media(&["audio/wav", "audio/mpeg"]).prop_map(Part::Audio).boxed());
    }
    if abilities.video {
        kinds.push(media(&["video/mp4"]).prop_map(Part::Video).boxed());
    }
    prop::strategy::Union::new(kinds).boxed()
}

fn image() -> BoxedStrategy<Part> {
    media(&["image/png", "image/jpeg", "image/webp"]).prop_map(Part::Image).boxed()
}

fn pdf() -> BoxedStrategy<Part> {
    (media(&["application/pdf"]), prop::option::of("[a-z]{1,5}\\.pdf"))
        .prop_map(|(media, name)| Part::Document(Media { name: name.map(Into::into), ..media }))
        .boxed()
}

fn text_document() -> BoxedStrategy<Part> {
    (text(), prop::option::of("[a-z]{1,5}\\.txt"))
        .prop_map(|(text, name)| {
            let media = Media::bytes("text/plain", text.as_bytes());
            Part::Document(Media { name: name.map(Into::into), ..media })
        })
        .boxed()
}

fn media(types: &'static [&'static str]) -> impl Strategy<Value = Media> {
    (prop::sample::select(types), prop::collection::vec(any::<u8>(), 1..20))
        .prop_map(|(media_type, bytes)| Media::base64(media_type, BASE64_STANDARD.encode(bytes)))
}
