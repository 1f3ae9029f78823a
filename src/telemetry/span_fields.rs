//! The names of the attributes of spans.
//!
//! Where the semantic conventions of OpenTelemetry name something, their name is used. Other names begin with
//! `pointsman.`. `docs/tracing.md` lists them.

/// What is asked of a model: `chat` or `embeddings`.
pub const OPERATION: &str = "gen_ai.operation.name";
/// The vendor whose API format is spoken.
pub const PROVIDER: &str = "gen_ai.provider.name";
/// The model that is asked for, as it is named to the provider.
pub const REQUEST_MODEL: &str = "gen_ai.request.model";
/// The most tokens that the answer may have.
pub const REQUEST_MAX_TOKENS: &str = "gen_ai.request.max_tokens";
/// Whether the answer is passed on in pieces.
pub const REQUEST_STREAM: &str = "gen_ai.request.stream";
/// The model that answered, as the provider names it.
pub const RESPONSE_MODEL: &str = "gen_ai.response.model";
/// The provider's id of the request.
pub const RESPONSE_ID: &str = "gen_ai.response.id";
/// Why the model stopped.
pub const FINISH_REASONS: &str = "gen_ai.response.finish_reasons";
/// Input tokens, those read from the provider's cache included.
pub const INPUT_TOKENS: &str = "gen_ai.usage.input_tokens";
/// Output tokens, reasoning included.
pub const OUTPUT_TOKENS: &str = "gen_ai.usage.output_tokens";
/// The part of the input tokens that was read from the provider's cache.
pub const CACHED_INPUT_TOKENS: &str = "gen_ai.usage.cache_read.input_tokens";
/// The part of the output tokens that was used for reasoning.
pub const REASONING_OUTPUT_TOKENS: &str = "gen_ai.usage.reasoning.output_tokens";
/// The class of the failure.
pub const ERROR_TYPE: &str = "error.type";
/// The host that an attempt is sent to.
pub const SERVER_ADDRESS: &str = "server.address";
/// The port that an attempt is sent to.
pub const SERVER_PORT: &str = "server.port";

/// The number of a stored run.
pub const RUN: &str = "pointsman.run";
/// How a run ended.
pub const RUN_OUTCOME: &str = "pointsman.run.outcome";
/// The number of items that a run finished.
pub const RUN_ITEMS: &str = "pointsman.run.items";
/// The name of the pipeline of a run.
pub const PIPELINE: &str = "pointsman.pipeline";
/// The key of an item.
pub const ITEM_KEY: &str = "pointsman.item.key";
/// How an item ended.
pub const ITEM_STATUS: &str = "pointsman.item.status";
/// The name of a step.
pub const STEP: &str = "pointsman.step";
/// The route of a step or a request.
pub const ROUTE: &str = "pointsman.route";
/// The scope of a request.
pub const SCOPE: &str = "pointsman.scope";
/// The target that an attempt is sent to, or that answered a request: `provider/model`, as configured.
pub const TARGET: &str = "pointsman.target";
/// The label of the key that an attempt uses.
pub const KEY: &str = "pointsman.key";
/// The known cost, in US dollars.
pub const COST_USD: &str = "pointsman.cost_usd";
/// The number of attempts of a request that were sent.
pub const ATTEMPTS: &str = "pointsman.attempts";
/// The number of an attempt in its request, from 1. Attempts that were not sent count.
pub const ATTEMPT_NUMBER: &str = "pointsman.attempt.number";
/// How an attempt ended: `answered`, `superseded`, `not_sent`, or the class of its failure.
pub const ATTEMPT_OUTCOME: &str = "pointsman.attempt.outcome";
/// Whether an attempt is a hedge of another one.
pub const HEDGE: &str = "pointsman.attempt.hedge";
/// The time from the submission of an attempt to the provider until it was sent, in seconds.
pub const QUEUE_SECONDS: &str = "pointsman.queue_seconds";
/// Whether the provider may have charged for an attempt without a result.
pub const POSSIBLY_CHARGED: &str = "pointsman.possibly_charged";
/// Whether a simulated provider answered.
pub const SIMULATED: &str = "pointsman.simulated";

/// The name of an exported span. Exporters read it and do not export it.
pub const OTEL_NAME: &str = "otel.name";
/// The kind of an exported span. Exporters read it and do not export it.
pub const OTEL_KIND: &str = "otel.kind";
/// The status of an exported span. Exporters read it and do not export it.
pub const OTEL_STATUS: &str = "otel.status_code";
