//! The JSON Schema features that each vendor accepts for structured output, as a table.
//!
//! A schema with other features is not sent as a strict schema: it is put into the prompt, or sent without
//! `strict`. Every answer is then validated against the original schema.

/// The rules of a vendor.
#[derive(Debug)]
pub(super) struct SchemaRules {
    /// Accepted keywords; `None` is any.
    pub(super) keywords: Option<&'static [&'static str]>,
    /// Accepted values of `format`; `None` is any.
    pub(super) formats: Option<&'static [&'static str]>,
    /// Annotation keywords, which do not affect validation, that are removed before a schema is sent.
    pub(super) removed_keywords: &'static [&'static str],
    /// Whether the root must be `type = "object"` without `anyOf`.
    pub(super) object_at_root: bool,
    /// Whether every object needs `additionalProperties = false`.
    pub(super) closed: bool,
    /// Whether every property of an object must be required.
    pub(super) all_required: bool,
    /// Whether every schema needs `type`, `$ref` or `anyOf`, and every array `items`.
    pub(super) typed: bool,
    /// Whether values of `enum` and `const` must not be arrays or objects.
    pub(super) scalar_values: bool,
    /// The maximum `minItems`.
    pub(super) min_items: Option<u64>,
    pub(super) recursion: Recursion,
    /// The maximum number of nested levels.
    pub(super) levels: usize,
    /// The maximum number of properties of all objects together.
    pub(super) properties: usize,
    /// The maximum number of values of all `enum` together.
    pub(super) enum_values: usize,
    /// The maximum number of characters of all names of properties and definitions and all values of `enum` and
    /// `const`.
    pub(super) characters: usize,
    /// The maximum number of characters of the values of one `enum` that has more than [`LARGE_ENUM_VALUES`] of
    /// them.
    pub(super) enum_characters: usize,
    /// The maximum number of optional properties of all objects together.
    pub(super) optional: usize,
    /// The maximum number of schemas with `anyOf` or more than one `type`.
    pub(super) unions: usize,
    /// Whether the vendor ignores `const` but not an `enum` of one value.
    pub(super) const_as_enum: bool,
}

/// The number of values of one `enum` above which their characters are limited.
pub(super) const LARGE_ENUM_VALUES: usize = 250;

/// The maximum number of schemas that a check visits or a translation writes, so that references that fan out
/// cannot take long.
pub(super) const MAX_SCHEMAS: usize = 20_000;

/// Whether a schema may refer to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recursion {
    Anywhere,
    /// Only below an optional property.
    BelowOptional,
    Nowhere,
}

/// Keywords that do not affect validation.
const ANNOTATIONS: [&str; 8] =
    ["default", "examples", "$comment", "$id", "deprecated", "readOnly", "writeOnly", NULLABLE];

/// A keyword of OpenAPI 3.0 that JSON Schema does not define: `null` is not valid for it, so no vendor may read
/// it as permission for `null`.
const NULLABLE: &str = "nullable";

/// OpenAI with `strict: true`. Its documentation, "Structured Outputs", supported schemas:
/// <https://developers.openai.com/api/docs/guides/structured-outputs#supported-schemas> (as quoted in August and
/// October 2026); that no keyword may stand beside a `$ref`: <https://github.com/camel-ai/camel/issues/3001>.
///
/// Every property must be required. A schema with optional properties is sent without `strict`, which OpenAI
/// accepts; the union with `null` that its documentation proposes would allow answers that the schema forbids.
const OPENAI: SchemaRules = SchemaRules {
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
    removed_keywords: &ANNOTATIONS,
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
pub(super) static OPENAI_STRICT: SchemaRules = OPENAI;

/// OpenAI's models at Azure with `strict: true`: the same subset with lower limits. Properties and levels by its
/// documentation, <https://learn.microsoft.com/azure/ai-foundry/openai/how-to/structured-outputs>; the other
/// numbers by
/// <https://docs.snaplogic.com/snaps/snaps-machine-learning/sp-azure-openai-llm/azure-openai-structured-outputs.html>,
/// one of which <https://portkey.ai/error-library/schema-validation-error-10473> quotes as an error.
pub(super) static AZURE_STRICT: SchemaRules = SchemaRules {
    levels: 5,
    properties: 100,
    enum_values: 500,
    characters: 15_000,
    enum_characters: 7_500,
    ..OPENAI
};

/// Anthropic. Its documentation, "Structured outputs", JSON Schema limitations and schema complexity limits:
/// <https://platform.claude.com/docs/en/build-with-claude/structured-outputs> (as quoted in July and August
/// 2026). It does not document what else makes a schema too complex: such an error is detected in
/// `rejected_parameter.rs`.
pub(super) static ANTHROPIC: SchemaRules = SchemaRules {
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
    removed_keywords: &["examples", "deprecated", "readOnly", "writeOnly", NULLABLE],
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

/// Gemini's `responseJsonSchema`, which accepts any schema, including several types and `anyOf` with `null`, and
/// applies part of it:
/// <https://github.com/googleapis/googleapis/blob/master/google/ai/generativelanguage/v1beta/generative_service.proto>.
/// Its size has no documented limit. A schema that is too complex is rejected, which `rejected_parameter.rs`
/// detects.
pub(super) static GEMINI: SchemaRules = SchemaRules {
    keywords: None,
    formats: None,
    removed_keywords: &[NULLABLE],
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
