//! The rows: what each configures, what the provider plays, and what is to be reached.
//!
//! Nothing here runs. `{first}` and `{second}` stand for the addresses of the played providers.

use pointsman::simulator::Vendor;

use super::score::{ANYTHING, Goal};

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// As in a `config.toml`.
    pub(crate) config: &'static str,
    /// As in the `[simulator]` of one.
    pub(crate) simulator: &'static str,
    pub(crate) vendor: Vendor,
    /// The one step that every item asks, where the items are made up.
    pub(crate) step: &'static str,
    pub(crate) scene: Scene,
    pub(crate) goal: Goal,
}

/// What happens in a row.
#[derive(Clone, Copy)]
pub(crate) enum Scene {
    /// Endless work under a limit.
    Steady,
    /// Endless work under a low limit that nothing names.
    Unnamed,
    /// 600 calls at once.
    Bursts,
    /// The limit falls to a third, and comes back.
    Shrinking(Shrink),
    /// The first of two providers goes dark, and comes back.
    Outage(Dark),
    /// Endless work for a provider that fails at random, or takes only so many at once; with so many answers a second
    /// at best.
    Faulty(f64),
    /// Twenty seconds of refusals, of this share of the calls; with so many answers a second before.
    Incident(f64, f64),
}

/// How a limit gets less.
#[derive(Clone, Copy)]
pub(crate) enum Shrink {
    /// The vendor lowers it, and says so.
    Lowered,
    /// Somebody else uses two thirds of the account; no header says so.
    Shared,
}

/// How a provider is dark.
#[derive(Clone, Copy)]
pub(crate) enum Dark {
    /// It takes calls and never answers.
    Silent,
    /// Nobody listens.
    Gone,
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
const TWO: &str = r#"
[provider.first]
base_url = "{first}"
models.m = {}

[provider.second]
base_url = "{second}"
models.m = {}
"#;

const STEP: &str = "prompt = 'Name a colour that goes well with number {{ item.id }}.'";
/// Answers are about 266 tokens long, questions 200; nobody knows the former, and most people say too much:
/// here four times as much. One answer of 50,000 is longer still, and cut; more would count as lost rows.
const LONG_STEP: &str = "max_tokens = 1_060\n\
    prompt = \"{% for n in range(28) %}Fact {{ n }} of {{ item.id }}: all is well. {% endfor %}Sum that up.\"";

const STEADY: Goal = Goal { used: Some(97.0), refused: Some(0.5), lost: Some(0), ..ANYTHING };
const LEARNED: Goal = Goal { used: Some(90.0), refused: Some(3.0), lost: Some(0), ..ANYTHING };
const UNNAMED: Goal =
    Goal { used: Some(90.0), refused: Some(5.0), lost: Some(0), attempts: Some(10), ..ANYTHING };
const SHRUNK: Goal = Goal { refused: Some(2.0), seconds: Some(30.0), lost: Some(0), ..ANYTHING };
/// A probe leaves at most ten seconds after the last one, and an outage of a minute costs twelve attempts at most.
const DARK: Goal = Goal { calls: Some(12), seconds: Some(10.0), lost: Some(0), ..ANYTHING };

const FAULTY_GOAL: Goal = Goal { used: Some(90.0), lost: Some(0), ..ANYTHING };
const LEVEL_GOAL: Goal = Goal { used: Some(80.0), refused: Some(5.0), lost: Some(0), ..ANYTHING };
/// A question whose every attempt meets one of two refusals is lost, as it is asked six times.
const INCIDENT_GOAL: Goal = Goal { seconds: Some(10.0), ..ANYTHING };

/// Answers a second of 128 at once that take a second each, where silence of 2 s befalls 1%, 2% and 5% of the calls;
/// other faults come at once.
const IDEAL: f64 = 128.0;
const IDEAL_SILENT: [f64; 3] = [125.5, 123.0, 115.8];

/// Three rows of a fault that befalls 1%, 2% and 5% of the calls.
macro_rules! faulty {
    ($kind:literal, $name:literal, $words:literal, $vendor:ident, $config:ident, $ideal:expr) => {
        [
            faulty!($kind, $name, $words, $vendor, $config, $ideal[0], "1", "0.01"),
            faulty!($kind, $name, $words, $vendor, $config, $ideal[1], "2", "0.02"),
            faulty!($kind, $name, $words, $vendor, $config, $ideal[2], "5", "0.05"),
        ]
    };
    ($kind:literal, $name:literal, $words:literal, $vendor:ident, $config:ident, $ideal:expr, $percent:literal, $share:literal) => {
        Row {
            name: concat!($name, $percent),
            what: concat!("128 at once, ", $percent, "% at random ", $words),
            config: $config,
            simulator: concat!("latency = '1s'\nfaults = [{ kind = '", $kind, "', share = ", $share, " }]"),
            vendor: Vendor::$vendor,
            scene: Scene::Faulty($ideal),
            goal: FAULTY_GOAL,
            ..USUAL
        }
    };
}

/// Rows of faults.
const FAULTS: [Row; 15] = {
    let [f0, f1, f2] = faulty!("unavailable", "u", "503", OpenAi, FAULTY, [IDEAL; 3]);
    let [f3, f4, f5] = faulty!("overloaded", "v", "529", Anthropic, FAULTY_ANTHROPIC, [IDEAL; 3]);
    let [f6, f7, f8] = faulty!("server_error", "s", "500", OpenAi, FAULTY, [IDEAL; 3]);
    let [f9, f10, f11] = faulty!("silent", "t", "silent for 2 s", OpenAi, FAULTY, IDEAL_SILENT);
    let level = Row {
        name: "l",
        what: "40 at once, 503 above that, 128 possible",
        config: FAULTY,
        simulator: "latency = '1s'\nfaults = [{ kind = 'unavailable', above = 40 }]",
        scene: Scene::Faulty(40.0),
        goal: LEVEL_GOAL,
        ..USUAL
    };
    let half = Row {
        name: "ih",
        what: "20 s of 50% 503, 128 at once",
        config: FAULTY,
        simulator: "latency = '1s'",
        scene: Scene::Incident(IDEAL, 0.5),
        goal: INCIDENT_GOAL,
        ..USUAL
    };
    let all =
        Row { name: "ia", what: "20 s of 503, 128 at once", scene: Scene::Incident(IDEAL, 1.0), ..half };
    [f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, level, half, all]
};

/// Three rows of a vendor, which sends no rate-limit headers: a low limit that only refusals show.
macro_rules! unnamed {
    ($vendor:ident, $config:ident, $name:literal, $words:literal, $retry_after:literal) => {
        [
            unnamed!($vendor, $config, $name, $words, $retry_after, "15", "15"),
            unnamed!($vendor, $config, $name, $words, $retry_after, "60", "60"),
            unnamed!($vendor, $config, $name, $words, $retry_after, "300", "300"),
        ]
    };
    ($vendor:ident, $config:ident, $name:literal, $words:literal, $retry_after:literal, $limit:literal, $as:literal) => {
        Row {
            name: concat!($name, $as),
            what: concat!($limit, " requests a minute, no header, ", $words),
            config: $config,
            simulator: concat!(
                "latency = { median = '1s', p95 = '3s' }\nheaders = false\nretry_after = ",
                $retry_after,
                "\nlimits = { requests_per_minute = ",
                $limit,
                ", bucket = '60s' }"
            ),
            vendor: Vendor::$vendor,
            scene: Scene::Unnamed,
            goal: UNNAMED,
            ..USUAL
        }
    };
}

impl Row {
    /// Returns whether it leaves the machine nearly idle.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.scene, Scene::Unnamed)
    }
}

/// What is alike in most rows.
const USUAL: Row = Row {
    name: "",
    what: "",
    config: REQUESTS,
    simulator: "",
    vendor: Vendor::OpenAi,
    step: STEP,
    scene: Scene::Steady,
    goal: STEADY,
};

/// Every row, in the order of the table.
pub(crate) const ROWS: [Row; 45] = {
    let [u0, u1, u2] = unnamed!(OpenAi, NO_LIMIT, "o", "openai, Retry-After", "true");
    let [u3, u4, u5] = unnamed!(OpenAi, NO_LIMIT, "p", "openai", "false");
    let [u6, u7, u8] = unnamed!(Anthropic, NO_LIMIT_ANTHROPIC, "a", "anthropic, Retry-After", "true");
    let [u9, u10, u11] = unnamed!(Anthropic, NO_LIMIT_ANTHROPIC, "b", "anthropic", "false");
    let [u12, u13, u14] = unnamed!(Gemini, NO_LIMIT_GEMINI, "g", "gemini, RetryInfo", "true");
    let [u15, u16, u17] = unnamed!(Gemini, NO_LIMIT_GEMINI, "h", "gemini", "false");
    let [f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14] = FAULTS;
    let [r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12] = NAMED;
    [
        r1, r2, r3, r4, r5, r6, r7, r8, u0, u1, u2, u3, u4, u5, u6, u7, u8, u9, u10, u11, u12, u13, u14, u15,
        u16, u17, r9, r10, r11, r12, f0, f1, f2, f3, f4, f5, f6, f7, f8, f9, f10, f11, f12, f13, f14,
    ]
};

/// The rows whose limit is high, or named, or not what they are about.
const NAMED: [Row; 12] = [
    Row {
        name: "1",
        what: "1,200 requests a minute, a minute's at once",
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            limits = { requests_per_minute = 1_200, bucket = "60s" }"#,
        ..USUAL
    },
    Row {
        name: "2",
        what: "1,200 requests a minute, a second's at once",
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            limits = { requests_per_minute = 1_200, bucket = "1s" }"#,
        ..USUAL
    },
    Row {
        name: "3",
        what: "200,000 tokens a minute, a minute's at once",
        config: TOKENS,
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            answer_tokens = { median = 250, p95 = 450 }
            limits = { tokens_per_minute = 200_000, bucket = "60s" }"#,
        step: LONG_STEP,
        ..USUAL
    },
    Row {
        name: "4",
        what: "200,000 tokens a minute, a second's at once",
        config: TOKENS,
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            answer_tokens = { median = 250, p95 = 450 }
            limits = { tokens_per_minute = 200_000, bucket = "1s" }"#,
        step: LONG_STEP,
        ..USUAL
    },
    Row {
        name: "5",
        what: "600 calls at 1,000 a minute, a minute's at once",
        config: BURST,
        simulator: r#"
            latency = "1.5s"
            limits = { requests_per_minute = 1_000, bucket = "60s" }"#,
        scene: Scene::Bursts,
        goal: Goal { seconds: Some(6.0), lost: Some(0), ..ANYTHING },
        ..USUAL
    },
    Row {
        name: "6",
        what: "600 calls at 1,000 a minute, a second's at once",
        config: BURST,
        simulator: r#"
            latency = "1.5s"
            limits = { requests_per_minute = 1_000, bucket = "1s" }"#,
        scene: Scene::Bursts,
        goal: Goal { seconds: Some(36.5 * 1.05), refused: Some(0.0), lost: Some(0), ..ANYTHING },
        ..USUAL
    },
    Row {
        name: "7",
        what: "nothing configured, 3,000 requests a minute",
        config: NO_LIMIT,
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            limits = { requests_per_minute = 3_000, bucket = "1s" }"#,
        goal: LEARNED,
        ..USUAL
    },
    Row {
        name: "7b",
        what: "likewise, and no header tells (gemini)",
        config: NO_LIMIT_GEMINI,
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            limits = { requests_per_minute = 3_000, bucket = "1s" }"#,
        vendor: Vendor::Gemini,
        goal: LEARNED,
        ..USUAL
    },
    Row {
        name: "8",
        what: "the limit falls to a third, and returns",
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            limits = { requests_per_minute = 1_200, bucket = "1s" }"#,
        scene: Scene::Shrinking(Shrink::Lowered),
        goal: SHRUNK,
        ..USUAL
    },
    Row {
        name: "8b",
        what: "others use two thirds of it, and leave",
        simulator: r#"
            latency = { median = "1s", p95 = "3s" }
            limits = { requests_per_minute = 1_200, bucket = "1s" }"#,
        scene: Scene::Shrinking(Shrink::Shared),
        goal: SHRUNK,
        ..USUAL
    },
    Row {
        name: "9",
        what: "the first of two never answers, and returns",
        config: TWO,
        simulator: r#"latency = "500ms""#,
        scene: Scene::Outage(Dark::Silent),
        goal: DARK,
        ..USUAL
    },
    Row {
        name: "9b",
        what: "the first of two refuses, and returns",
        config: TWO,
        simulator: r#"latency = "500ms""#,
        scene: Scene::Outage(Dark::Gone),
        goal: DARK,
        ..USUAL
    },
];
