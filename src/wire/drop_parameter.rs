//! The parameters of requests that the configuration may drop.

use serde::{Deserialize, Serialize};

/// A parameter that the configuration may drop for a provider whose format cannot express it, or whose models refuse
/// it: `drop_parameters` in `[provider.NAME]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropParameter {
    /// The sampling temperature.
    Temperature,
    /// Nucleus sampling.
    TopP,
    /// The stop sequences.
    Stop,
    /// The seed of sampling.
    Seed,
    /// How much the model reasons.
    ReasoningEffort,
    /// Whether one answer may call several tools.
    ParallelToolCalls,
    /// The end user.
    User,
    /// Reasoning of an earlier answer that another vendor has signed.
    Reasoning,
}

impl DropParameter {
    /// Returns the name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Temperature => "temperature",
            Self::TopP => "top_p",
            Self::Stop => "stop",
            Self::Seed => "seed",
            Self::ReasoningEffort => "reasoning_effort",
            Self::ParallelToolCalls => "parallel_tool_calls",
            Self::User => "user",
            Self::Reasoning => "reasoning",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_read_by_its_name() {
        for parameter in [
            DropParameter::Temperature,
            DropParameter::TopP,
            DropParameter::Stop,
            DropParameter::Seed,
            DropParameter::ReasoningEffort,
            DropParameter::ParallelToolCalls,
            DropParameter::User,
            DropParameter::Reasoning,
        ] {
            let name = serde_json::Value::from(parameter.as_str());
            assert_eq!(serde_json::from_value::<DropParameter>(name).unwrap(), parameter);
        }
    }
}
