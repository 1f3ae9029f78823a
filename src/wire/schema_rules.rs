//! What each vendor accepts in a JSON Schema for structured output, as a table.
//!
//! A schema with anything that is not accepted is not sent as one to be held to: it is asked for in words, or sent
//! without `strict`, and every answer is checked afterwards against the schema as it was written.

/// What a vendor accepts.
#[derive(Debug)]
pub(super) struct Rules {
    /// Keywords that may stand in a schema; `None` is any.
    pub(super) keywords: Option<&'static [&'static str]>,
    /// Values of `format`; `None` is any.
    pub(super) formats: Option<&'static [&'static str]>,
    /// Keywords that say nothing about which values are valid, and are left out before a schema is sent.
    pub(super) left_out: &'static [&'static str],
    /// The root is `type = "object"` and no `anyOf`.
    pub(super) object_at_root: bool,
    /// Every object says `additionalProperties = false`.
    pub(super) closed: bool,
    /// Every property of an object is required.
    pub(super) all_required: bool,
    /// Every schema has `type`, `$ref` or `anyOf`, and every array `items`.
    pub(super) typed: bool,
    /// Values of `enum` and `const` are no arrays or objects.
    pub(super) scalar_values: bool,
    /// The largest `minItems`.
    pub(super) min_items: Option<u64>,
    pub(super) recursion: Recursion,
    /// Nested levels.
    pub(super) levels: usize,
    /// Properties of all objects together.
    pub(super) properties: usize,
    /// Values of all `enum` together.
    pub(super) enum_values: usize,
    /// Characters of all names of properties and definitions and of all values of `enum` and `const`.
    pub(super) characters: usize,
}

/// Whether a schema may refer to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recursion {
    Anywhere,
    /// Only below a property that is not required.
    BelowOptional,
    Nowhere,
}

/// Keywords that say nothing about which values are valid.
const REMARKS: [&str; 7] = ["default", "examples", "$comment", "$id", "deprecated", "readOnly", "writeOnly"];

/// OpenAI with `strict: true`. Its documentation ("Structured Outputs", supported schemas), captured at
/// <https://jsonschemaprofiles.unitvectorylabs.com/schemas/openai>; that a `$ref` stands alone:
/// <https://github.com/camel-ai/camel/issues/3001>.
pub(super) static OPENAI_STRICT: Rules = Rules {
    keywords: Some(&[
        "$defs",
        "$ref",
        "$schema",
        "additionalProperties",
        "anyOf",
        "const",
        "definitions",
        "description",
        "enum",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "format",
        "items",
        "maxItems",
        "maximum",
        "minItems",
        "minimum",
        "multipleOf",
        "pattern",
        "properties",
        "required",
        "title",
        "type",
    ]),
    formats: Some(&["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"]),
    left_out: &REMARKS,
    object_at_root: true,
    closed: true,
    all_required: true,
    typed: true,
    scalar_values: false,
    min_items: None,
    recursion: Recursion::Anywhere,
    levels: 10,
    properties: 5_000,
    enum_values: 1_000,
    characters: 120_000,
};

/// Anthropic. Its documentation, "Structured outputs", JSON Schema limitations:
/// <https://platform.claude.com/docs/en/build-with-claude/structured-outputs>.
pub(super) static ANTHROPIC: Rules = Rules {
    keywords: Some(&[
        "$comment",
        "$defs",
        "$id",
        "$ref",
        "$schema",
        "additionalProperties",
        "anyOf",
        "const",
        "default",
        "definitions",
        "description",
        "enum",
        "format",
        "items",
        "minItems",
        "properties",
        "required",
        "title",
        "type",
    ]),
    formats: Some(&[
        "date-time",
        "time",
        "date",
        "duration",
        "email",
        "hostname",
        "uri",
        "ipv4",
        "ipv6",
        "uuid",
    ]),
    left_out: &["examples", "deprecated", "readOnly", "writeOnly"],
    object_at_root: false,
    closed: true,
    all_required: false,
    typed: false,
    scalar_values: true,
    min_items: Some(1),
    recursion: Recursion::Nowhere,
    levels: usize::MAX,
    properties: usize::MAX,
    enum_values: usize::MAX,
    characters: usize::MAX,
};

/// Gemini's `responseJsonSchema`, which takes any schema and heeds part of it:
/// <https://pub.dev/documentation/googleapis/latest/aiplatform_v1/GoogleCloudAiplatformV1GenerationConfig/responseJsonSchema.html>.
pub(super) static GEMINI: Rules = Rules {
    keywords: None,
    formats: None,
    left_out: &[],
    object_at_root: false,
    closed: false,
    all_required: false,
    typed: false,
    scalar_values: false,
    min_items: None,
    recursion: Recursion::BelowOptional,
    levels: usize::MAX,
    properties: usize::MAX,
    enum_values: usize::MAX,
    characters: usize::MAX,
};
