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
    /// Characters of the values of one `enum` that has more than [`LARGE_ENUM`] of them.
    pub(super) enum_characters: usize,
    /// Properties of all objects together that are not required.
    pub(super) optional: usize,
    /// Schemas with `anyOf`, or with more than one `type`.
    pub(super) unions: usize,
    /// `const` is not heeded, and an `enum` of one value is.
    pub(super) const_as_enum: bool,
}

/// Values of one `enum` above which their characters are limited.
pub(super) const LARGE_ENUM: usize = 250;

/// Whether a schema may refer to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recursion {
    Anywhere,
    /// Only below a property that is not required.
    BelowOptional,
    Nowhere,
}

/// Keywords that say nothing about which values are valid.
const REMARKS: [&str; 8] =
    ["default", "examples", "$comment", "$id", "deprecated", "readOnly", "writeOnly", NULLABLE];

/// A keyword of OpenAPI 3.0 that JSON Schema does not know: an answer of `null` is not valid for it, so no vendor may
/// take it for a permission.
const NULLABLE: &str = "nullable";

/// OpenAI with `strict: true`. Its documentation, "Structured Outputs", supported schemas:
/// <https://developers.openai.com/api/docs/guides/structured-outputs#supported-schemas> (as quoted in August and
/// October 2026); that a `$ref` stands alone: <https://github.com/camel-ai/camel/issues/3001>.
///
/// Every property has to be required. A schema with optional ones is sent without `strict`, which OpenAI takes as it
/// is; the union with `null` that its documentation proposes would allow answers that the schema does not.
const OPENAI: Rules = Rules {
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
    enum_characters: 15_000,
    optional: usize::MAX,
    unions: usize::MAX,
    const_as_enum: false,
};

/// OpenAI with `strict: true`.
pub(super) static OPENAI_STRICT: Rules = OPENAI;

/// OpenAI's models at Azure with `strict: true`: the same subset, smaller. Properties and levels by its documentation,
/// <https://learn.microsoft.com/azure/ai-foundry/openai/how-to/structured-outputs>; the other numbers by
/// <https://docs.snaplogic.com/snaps/snaps-machine-learning/sp-azure-openai-llm/azure-openai-structured-outputs.html>,
/// of which <https://portkey.ai/error-library/schema-validation-error-10473> has one as an error.
pub(super) static AZURE_STRICT: Rules = Rules {
    levels: 5,
    properties: 100,
    enum_values: 500,
    characters: 15_000,
    enum_characters: 7_500,
    ..OPENAI
};

/// Anthropic. Its documentation, "Structured outputs", JSON Schema limitations and schema complexity limits:
/// <https://platform.claude.com/docs/en/build-with-claude/structured-outputs> (as quoted in July and August 2026). What
/// else makes a schema too complex it does not say: such a refusal is learned (`parameter.rs`).
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
    left_out: &["examples", "deprecated", "readOnly", "writeOnly", NULLABLE],
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
    enum_characters: usize::MAX,
    optional: 24,
    unions: 16,
    const_as_enum: false,
};

/// Gemini's `responseJsonSchema`, which takes any schema, several types and `anyOf` with `null` among them, and heeds
/// part of it: <https://github.com/googleapis/googleapis/blob/master/google/ai/generativelanguage/v1beta/generative_service.proto>.
/// No number limits its size; a schema that is too complex is refused, and that is learned (`parameter.rs`).
pub(super) static GEMINI: Rules = Rules {
    keywords: None,
    formats: None,
    left_out: &[NULLABLE],
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
    enum_characters: usize::MAX,
    optional: usize::MAX,
    unions: usize::MAX,
    const_as_enum: true,
};
