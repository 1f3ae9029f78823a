//! The rows of the table: configuration, simulated provider and goal.
//!
//! `{first}` and `{second}` are placeholders for the URLs of the simulated providers.

use pointsman::simulator::Vendor;

use super::score::{Goal, NO_GOAL};

/// One row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    /// Contents of `config.toml`.
    pub(crate) config: &'static str,
    /// Contents of its table `[simulator]`.
    pub(crate) simulator: &'static str,
    pub(crate) vendor: Vendor,
    /// The step of the pipeline, for rows with generated items.
    pub(crate) step: &'static str,
    pub(crate) scenario: Scenario,
    pub(crate) goal: Goal,
}

/// Scenario of a row.
#[derive(Clone, Copy)]
pub(crate) enum Scenario {
    /// Unlimited work under a limit.
    Steady,
    /// Unlimited work under a low limit that is not advertised.
    UnadvertisedLimit,
    /// 600 calls at once.
    Bursts,
    /// The limit is reduced to a third and restored.
    ReducedLimit(LimitReduction),
    /// An outage of the first of two providers.
    Outage(OutageKind),
    /// Unlimited work for a provider with random failures or limited capacity. The value is the ideal number of
    /// answers per second.
    Faulty(f64),
    /// The provider rejects a share of the calls for 20 seconds. The values are the answers per second before, and
    /// the share.
    Incident(f64, f64),
}

/// How a limit is reduced.
#[derive(Clone, Copy)]
pub(crate) enum LimitReduction {
    /// The vendor reduces it and advertises the new limit.
    Lowered,
    /// Other clients use two thirds of the account. No header reports it.
    Shared,
}

/// Kind of an outage.
#[derive(Clone, Copy)]
pub(crate) enum OutageKind {
    /// The provider receives calls and never responds.
    Silent,
    /// Connections are refused.
    ConnectionRefused,
}

const REQUESTS: &str = r#"
[provider.first]
base_url = "{first}"
limits.requests_per_minute = 1_200
models.m = {}
"#;
const TOKENS: &str = r#"
[provider.first]
base_url = "{first}"
limits.tokens_per_minute = 200_000
models.m = {}
"#;
const BURST: &str = r#"
[provider.first]
base_url = "{first}"
limits.requests_per_minute = 1_000
models.m = {}
"#;
const NO_LIMIT: &str = r#"
[provider.first]
base_url = "{first}"
models.m = {}
"#;
const NO_LIMIT_GEMINI: &str = r#"
[provider.first]
format = "gemini"
base_url = "{first}"
models.m = {}
"#;
const NO_LIMIT_ANTHROPIC: &str = r#"
[provider.first]
format = "anthropic"
base_url = "{first}"
models.m = {}
"#;
const FAULTY: &str = r#"
[provider.first]
base_url = "{first}"
limits.concurrency = 128
timeouts.first_token = "2s"
models.m = {}
"#;
const FAULTY_ANTHROPIC: &str = r#"
[provider.first]
format = "anthropic"
base_url = "{first}"
limits.concurrency = 128
models.m = {}
"#;
const TWO_PROVIDERS: &str = r#"
[provider.first]
base_url = "{first}"
models.m = {}

[provider.second]
base_url = "{second}"
models.m = {}
"#;

const STEP: &str = "prompt = 'Name a colour that goes well with number {{ item.id }}.'";
/// Prompts have about 200 tokens and answers about 266. `max_tokens` is four times the length of an answer,
/// because users typically set it too high. About one answer in 50,000 is longer and is cut; a lower value would
/// result in lost items.
const LONG_STEP: &str = "max_tokens = 1_060\n\
    prompt = \"{% for n in range(28) %}Fact {{ n }} of {{ item.id }}: all is well. {% endfor %}Sum that up.\"";

const STEADY_GOAL: Goal = Goal { used: Some(97.0), refused: Some(0.5), lost: Some(0), ..NO_GOAL };
const ESTIMATED_LIMIT_GOAL: Goal = Goal { used: Some(90.0), refused: Some(3.0), lost: Some(0), ..NO_GOAL };
const UNADVERTISED_LIMIT_GOAL: Goal =
    Goal { used: Some(90.0), refused: Some(5.0), lost: Some(0), attempts: Some(10), ..NO_GOAL };
const REDUCED_LIMIT_GOAL: Goal = Goal { refused: Some(2.0), seconds: Some(30.0), lost: Some(0), ..NO_GOAL };
/// Probes are sent at most 10 seconds apart, and an outage of one minute costs at most 12 attempts.
const OUTAGE_GOAL: Goal = Goal { calls: Some(12), seconds: Some(10.0), lost: Some(0), ..NO_GOAL };

const FAULTY_GOAL: Goal = Goal { used: Some(90.0), lost: Some(0), ..NO_GOAL };
const CAPACITY_GOAL: Goal = Goal { used: Some(80.0), refused: Some(5.0), lost: Some(0), ..NO_GOAL };
/// Lost requests are not limited: with a share of 50% some requests fail in all of their six attempts.
const INCIDENT_GOAL: Goal = Goal { seconds: Some(10.0), ..NO_GOAL };

/// Ideal answers per second with 128 concurrent calls of one second each. In `IDEAL_RATES_SILENT`, 1%, 2% and 5%
/// of the calls have no response for 2 s; other faults respond at once.
const IDEAL_RATE: f64 = 128.0;
const IDEAL_RATES_SILENT: [f64; 3] = [125.5, 123.0, 115.8];

/// Three rows with a fault for 1%, 2% and 5% of the calls.
macro_rules! faulty {
    ($kind:literal, $name:literal, $description:literal, $vendor:ident, $config:ident, $ideal:expr) => {
        [
            faulty!($kind, $name, $description, $vendor, $config, $ideal[0], "1", "0.01"),
            faulty!($kind, $name, $description, $vendor, $config, $ideal[1], "2", "0.02"),
            faulty!($kind, $name, $description, $vendor, $config, $ideal[2], "5", "0.05"),
        ]
    };
    ($kind:literal, $name:literal, $description:literal, $vendor:ident, $config:ident, $ideal:expr, $percent:literal, $share:literal) => {
        Row {
            name: concat!($name, $percent),
            description: concat!("128 at once, ", $percent, "% random ", $description),
            config: $config,
            simulator: concat!("latency = '1s'\nfaults = [{ kind = '", $kind, "', share = ", $share, " }]"),
            vendor: Vendor::$vendor,
            scenario: Scenario::Faulty($ideal),
            goal: FAULTY_GOAL,
            ..DEFAULT_ROW
        }
    };
}

/// Rows with faults.
const FAULT_ROWS: [Row; 15] = {
    let [f0, f1, f2] = faulty!("unavailable", "u", "503", OpenAi, FAULTY, [IDEAL_RATE; 3]);
    let [f3, f4, f5] = faulty!("overloaded", "v", "529", Anthropic, FAULTY_ANTHROPIC, [IDEAL_RATE; 3]);
    let [f6, f7, f8] = faulty!("server_error", "s", "500", OpenAi, FAULTY, [IDEAL_RATE; 3]);
    let [f9, f10, f11] = faulty!("silent", "t", "silences of 2 s", OpenAi, FAULTY, IDEAL_RATES_SILENT);
    let capacity = Row {
        name: "l",
        description: "40 at once, 503 above that, 128 possible",
        config: FAULTY,
        simulator: "latency = '1s'\nfaults = [{ kind = 'unavailable', above = 40 }]",
        scenario: Scenario::Faulty(40.0),
        goal: CAPACITY_GOAL,
        ..DEFAULT_ROW
    };
    let half = Row {
        name: "ih",
        description: "20 s of 50% 503, 128 at once",
        config: FAULTY,
        simulator: "latency = '1s'",
        scenario: Scenario::Incident(IDEAL_RATE, 0.5),
        goal: INCIDENT_GOAL,
        ..DEFAULT_ROW
    };
    let all = Row {
        name: "ia",
        description: "20 s of 503, 128 at once",
        scenario: Scenario::Incident(IDEAL_RATE, 1.0),
        ..half
    };
    [f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, capacity, half, all]
};

/// Three rows of a vendor without rate-limit headers, with a low limit that is visible only by 429 responses.
macro_rules! unadvertised {
    ($vendor:ident, $config:ident, $name:literal, $description:literal, $retry_after:literal) => {
        [
            unadvertised!($vendor, $config, $name, $description, $retry_after, "15", "15"),
            unadvertised!($vendor, $config, $name, $description, $retry_after, "60", "60"),
            unadvertised!($vendor, $config, $name, $description, $retry_after, "300", "300"),
        ]
    };
    ($vendor:ident, $config:ident, $name:literal, $description:literal, $retry_after:literal, $limit:literal, $as:literal) => {
        Row {
            name: concat!($name, $as),
            description: concat!($limit, " requests per minute, no header, ", $description),
            config: $config,
            simulator: concat!(
                "latency = { median = '1s', p95 = '3s' }\nheaders = false\nretry_after = ",
                $retry_after,
                "\nlimits = { requests_per_minute = ",
                $limit,
                ", bucket = '60s' }"
            ),
            vendor: Vendor::$vendor,
            scenario: Scenario::UnadvertisedLimit,
            goal: UNADVERTISED_LIMIT_GOAL,
            ..DEFAULT_ROW
        }
    };
}

impl Row {
    /// Returns whether the row uses little CPU.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.scenario, Scenario::UnadvertisedLimit)
    }
}

/// Defaults of the rows.
const DEFAULT_ROW: Row = Row {
    name: "",
    description: "",
    config: REQUESTS,
    simulator: "",
    vendor: Vendor::OpenAi,
    step: STEP,
    scenario: Scenario::Steady,
    goal: STEADY_GOAL,
};

/// All rows in the order of the table.
pub(crate) const ROWS: [Row; 45] = {
    let [u0, u1, u2] = unadvertised!(OpenAi, NO_LIMIT, "o", "openai, Retry-After", "true");
    let [u3, u4, u5] = unadvertised!(OpenAi, NO_LIMIT, "p", "openai", "false");
    let [u6, u7, u8] = unadvertised!(Anthropic, NO_LIMIT_ANTHROPIC, "a", "anthropic, Retry-After", "true");
    let [u9, u10, u11] = unadvertised!(Anthropic, NO_LIMIT_ANTHROPIC, "b", "anthropic", "false");
    let [u12, u13, u14] = unadvertised!(Gemini, NO_LIMIT_GEMINI, "g", "gemini, RetryInfo", "true");
    let [u15, u16, u17] = unadvertised!(Gemini, NO_LIMIT_GEMINI, "h", "gemini", "false");
    let [f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14] = FAULT_ROWS;
    let [r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12] = OTHER_ROWS;
    [
        r1, r2, r3, r4, r5, r6, r7, r8, u0, u1, u2, u3, u4, u5, u6, u7, u8, u9, u10, u11, u12, u13, u14, u15,
        u16, u17, r9, r10, r11, r12, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14,
    ]
};

/// The rows with a high or advertised limit, and the rows about outages.
const OTHER_ROWS: [Row; 12] = [
    Row {
        name: "1",
        description: "1,200 requests per minute, bucket of 60 s",
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            limits = { requests_per_minute = 1_200, bucket = "60s" }"#,
        ..DEFAULT_ROW
    },
    Row {
        name: "2",
        description: "1,200 requests per minute, bucket of 1 s",
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            limits = { requests_per_minute = 1_200, bucket = "1s" }"#,
        ..DEFAULT_ROW
    },
    Row {
        name: "3",
        description: "200,000 tokens per minute, bucket of 60 s",
        config: TOKENS,
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            answer_tokens = { median = 250, p95 = 450 }
            limits = { tokens_per_minute = 200_000, bucket = "60s" }"#,
        step: LONG_STEP,
        ..DEFAULT_ROW
    },
    Row {
        name: "4",
        description: "200,000 tokens per minute, bucket of 1 s",
        config: TOKENS,
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            answer_tokens = { median = 250, p95 = 450 }
            limits = { tokens_per_minute = 200_000, bucket = "1s" }"#,
        step: LONG_STEP,
        ..DEFAULT_ROW
    },
    Row {
        name: "5",
        description: "600 calls at 1,000 per minute, bucket of 60 s",
        config: BURST,
        simulator: r#"
            latency = "1.5s"
            limits = { requests_per_minute = 1_000, bucket = "60s" }"#,
        scenario: Scenario::Bursts,
        goal: Goal { seconds: Some(6.0), lost: Some(0), ..NO_GOAL },
        ..DEFAULT_ROW
    },
    Row {
        name: "6",
        description: "600 calls at 1,000 per minute, bucket of 1 s",
        config: BURST,
        simulator: r#"
            latency = "1.5s"
            limits = { requests_per_minute = 1_000, bucket = "1s" }"#,
        scenario: Scenario::Bursts,
        goal: Goal { seconds: Some(36.5 * 1.05), refused: Some(0.0), lost: Some(0), ..NO_GOAL },
        ..DEFAULT_ROW
    },
    Row {
        name: "7",
        description: "no limit configured, 3,000 requests per minute",
        config: NO_LIMIT,
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            limits = { requests_per_minute = 3_000, bucket = "1s" }"#,
        goal: ESTIMATED_LIMIT_GOAL,
        ..DEFAULT_ROW
    },
    Row {
        name: "7b",
        description: "the same without headers (gemini)",
        config: NO_LIMIT_GEMINI,
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            limits = { requests_per_minute = 3_000, bucket = "1s" }"#,
        vendor: Vendor::Gemini,
        goal: ESTIMATED_LIMIT_GOAL,
        ..DEFAULT_ROW
    },
    Row {
        name: "8",
        description: "the limit is reduced to a third and restored",
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            limits = { requests_per_minute = 1_200, bucket = "1s" }"#,
        scenario: Scenario::ReducedLimit(LimitReduction::Lowered),
        goal: REDUCED_LIMIT_GOAL,
        ..DEFAULT_ROW
    },
    Row {
        name: "8b",
        description: "other clients use two thirds of the limit for a while",
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            limits = { requests_per_minute = 1_200, bucket = "1s" }"#,
        scenario: Scenario::ReducedLimit(LimitReduction::Shared),
        goal: REDUCED_LIMIT_GOAL,
        ..DEFAULT_ROW
    },
    Row {
        name: "9",
        description: "the first of two providers is silent for a while",
        config: TWO_PROVIDERS,
        simulator: r#"latency = "500ms""#,
        scenario: Scenario::Outage(OutageKind::Silent),
        goal: OUTAGE_GOAL,
        ..DEFAULT_ROW
    },
    Row {
        name: "9b",
        description: "the first of two providers refuses connections",
        config: TWO_PROVIDERS,
        simulator: r#"latency = "500ms""#,
        scenario: Scenario::Outage(OutageKind::ConnectionRefused),
        goal: OUTAGE_GOAL,
        ..DEFAULT_ROW
    },
];
