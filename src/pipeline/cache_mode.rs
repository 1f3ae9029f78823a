//! Which stored answers a run reuses.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::types::ResponseFormat;

use super::definition::Step;

/// Which stored answers a run reuses instead of sending a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum CacheMode {
    /// As [`Store`](Self::Store) for steps with temperature 0, a schema or choices, and as [`Run`](Self::Run) for all
    /// others and for runs that are simulated.
    #[default]
    Auto,
    /// Answers to the same request that the same item got in the same run.
    Run,
    /// Answers to the same request in the whole store, whatever item, pipeline or run it was sent for.
    Store,
    /// None. Only an item that was interrupted continues with the answers that it has.
    Off,
}

/// Which stored answers one step reuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StepReuse {
    /// Those of an interrupted item only.
    Off,
    /// Those of the same item in the same run.
    Run,
    /// Those in the answer cache, too.
    Store,
}

impl CacheMode {
    /// Returns the word in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Run => "run",
            Self::Store => "store",
            Self::Off => "off",
        }
    }

    /// Returns which stored answers `step` reuses.
    pub(crate) fn of_step(self, step: &Step, is_simulated: bool) -> StepReuse {
        match self {
            Self::Off => StepReuse::Off,
            Self::Run => StepReuse::Run,
            Self::Store => StepReuse::Store,
            // Simulated answers cost nothing, and a simulated run shows how the real one behaves.
            Self::Auto if is_simulated => StepReuse::Run,
            Self::Auto if step.temperature == Some(0.0) => StepReuse::Store,
            Self::Auto => match step.response_format() {
                ResponseFormat::Choice(_) | ResponseFormat::Json(_) => StepReuse::Store,
                ResponseFormat::Text => StepReuse::Run,
            },
        }
    }
}

impl fmt::Display for CacheMode {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pipeline::{Defaults, Pipeline};

    #[test]
    fn the_default_reuses_answers_of_other_runs_for_structured_steps_and_for_temperature_0() {
        let text = "name = \"a\"\n\
                    [[step]]\nname = \"text\"\nprompt = \"a\"\n\
                    [[step]]\nname = \"cold\"\nprompt = \"a\"\ntemperature = 0\n\
                    [[step]]\nname = \"warm\"\nprompt = \"a\"\ntemperature = 0.1\n\
                    [[step]]\nname = \"choice\"\nprompt = \"a\"\nchoice = [\"A\", \"B\"]\n\
                    [[step]]\nname = \"vector\"\nembed = \"a\"\n";
        let routes = ["default".into()];
        let pipeline = Pipeline::parse("a.toml", text, Path::new(""), &Defaults::default(), &routes).unwrap();
        let reuse = |mode: CacheMode, is_simulated| {
            let of = |step: &Step| mode.of_step(step, is_simulated);
            pipeline.steps().iter().map(of).collect::<Vec<_>>()
        };
        use StepReuse::{Off, Run, Store};
        assert_eq!(reuse(CacheMode::Auto, false), [Run, Store, Run, Store, Run]);
        assert_eq!(reuse(CacheMode::Auto, true), [Run; 5]);
        assert_eq!(reuse(CacheMode::Store, true), [Store; 5]);
        assert_eq!(reuse(CacheMode::Run, false), [Run; 5]);
        assert_eq!(reuse(CacheMode::Off, false), [Off; 5]);
    }
}
