//! The settings of a step's requests that shape its answer, besides its texts, its length and its temperature.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::types::ReasoningEffort;

use super::Defaults;
use super::raw::RawStep;
use super::sampling::TopP;

/// The settings of a step, those of `[defaults]` included.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnswerSettings {
    /// Nucleus sampling, from 0 to 1.
    pub top_p: Option<f64>,
    /// Texts before which the answer ends.
    pub stop: Vec<Arc<str>>,
    /// Makes sampling repeatable, as far as the provider can.
    pub seed: Option<i64>,
    /// How much the model reasons.
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Whether the reasoning is kept with the answer.
    pub keep_reasoning: bool,
}

impl AnswerSettings {
    /// Returns the settings of a step.
    pub(super) fn of(step: &RawStep, defaults: &Defaults) -> Self {
        let stop = step.stop.as_ref().or(defaults.stop.as_ref());
        Self {
            top_p: step.top_p.or(defaults.top_p).map(TopP::get),
            stop: stop.map(|stop| stop.0.clone()).unwrap_or_default(),
            seed: step.seed.or(defaults.seed),
            reasoning_effort: step.reasoning_effort.or(defaults.reasoning_effort),
            keep_reasoning: step.keep_reasoning.or(defaults.keep_reasoning).unwrap_or_default(),
        }
    }

    /// Returns the settings that differ from the defaults, by their keys. Fingerprints of stored runs contain them, so
    /// their names and values must not change.
    pub(super) fn non_default_values(&self) -> Map<String, Value> {
        let Self { top_p, stop, seed, reasoning_effort, keep_reasoning } = self;
        let mut values = Map::new();
        let mut add = |key: &str, value: Option<Value>| {
            values.extend(value.map(|value| (key.to_owned(), value)));
        };
        add("top_p", top_p.map(Value::from));
        add("stop", (!stop.is_empty()).then(|| stop.iter().map(|text| &**text).collect()));
        add("seed", seed.map(Value::from));
        add("reasoning_effort", reasoning_effort.map(|effort| effort.as_str().into()));
        add("keep_reasoning", keep_reasoning.then_some(Value::Bool(true)));
        values
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::pipeline::sampling::StopSequences;

    fn settings(step: &str, defaults: &str) -> AnswerSettings {
        AnswerSettings::of(&toml::from_str(step).unwrap(), &toml::from_str(defaults).unwrap())
    }

    #[test]
    fn a_step_overrides_each_default_also_with_an_empty_list_and_false() {
        let defaults = "top_p = 1\nstop = 'END'\nseed = -7\nreasoning_effort = 'low'\nkeep_reasoning = true";
        let expected = AnswerSettings {
            top_p: Some(1.0),
            stop: vec!["END".into()],
            seed: Some(-7),
            reasoning_effort: Some(ReasoningEffort::Low),
            keep_reasoning: true,
        };
        assert_eq!(settings("", defaults), expected);
        let step = "top_p = 0.5\nstop = []\nseed = 0\nreasoning_effort = 'xhigh'\nkeep_reasoning = false";
        let expected = AnswerSettings {
            top_p: Some(0.5),
            stop: Vec::new(),
            seed: Some(0),
            reasoning_effort: Some(ReasoningEffort::XHigh),
            keep_reasoning: false,
        };
        assert_eq!(settings(step, defaults), expected);
        assert_eq!(settings("", ""), AnswerSettings::default());
    }

    #[test]
    fn only_settings_that_differ_from_the_defaults_have_a_value() {
        assert_eq!(AnswerSettings::default().non_default_values(), Map::new());
        assert_eq!(settings("stop = []\nkeep_reasoning = false", "").non_default_values(), Map::new());
        let step = "top_p = 1\nstop = ['a', 'b']\nseed = 3\nreasoning_effort = 'none'\nkeep_reasoning = true";
        let expected = json!({
            "top_p": 1.0,
            "stop": ["a", "b"],
            "seed": 3,
            "reasoning_effort": "none",
            "keep_reasoning": true,
        });
        assert_eq!(Value::Object(settings(step, "").non_default_values()), expected);
    }

    #[test]
    fn invalid_settings_are_refused() {
        let many = format!("stop = {:?}", vec!["x"; StopSequences::MAX + 1]);
        let most = format!("stop = {:?}", vec!["x"; StopSequences::MAX]);
        assert_eq!(settings(&most, "").stop.len(), StopSequences::MAX);
        for text in [
            "top_p = 1.1",
            "top_p = -0.1",
            "top_p = nan",
            "stop = ''",
            "stop = ['a', '']",
            "stop = 3",
            "stop = { a = 1 }",
            "seed = 0.5",
            "seed = '7'",
            "seed = 9223372036854775808",
            "reasoning_effort = 'hihg'",
            "keep_reasoning = 'yes'",
            &many,
        ] {
            assert!(toml::from_str::<RawStep>(text).is_err(), "{text}");
            assert!(toml::from_str::<Defaults>(text).is_err(), "{text}");
        }
    }
}
