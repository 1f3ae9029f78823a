//! Pipelines that were parsed, so that an item, a run and a readiness check do not parse them again.
//!
//! A pipeline depends on its text and on the configuration in use. Those of another configuration are dropped.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::diagnostics::Diagnostics;
use crate::pipeline::Pipeline;
use crate::runtime::ConfigurationVersion;
use crate::types::Fingerprint;

/// Most summaries that are kept.
const MAX_SUMMARIES: usize = 10_000;

/// Most pipelines that are kept.
const MAX_PIPELINES: usize = 100;

/// Most bytes of the texts of the pipelines that are kept. A parsed pipeline takes many times the memory of its text.
const MAX_KEPT_BYTES: usize = 512 << 10;

/// Most bytes of the problems of a summary that is kept.
const MAX_PROBLEM_BYTES: usize = 16 << 10;

/// Identifies a text and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SourceKey {
    /// The name of the pipeline.
    pub(super) name: String,
    /// Its file; `None` if it is stored.
    pub(super) file: Option<PathBuf>,
    /// Its text.
    pub(super) text: Fingerprint,
}

/// What a list shows of a parsed pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) steps: Vec<String>,
    pub(super) routes: Vec<String>,
    pub(super) problems: Vec<String>,
}

impl Summary {
    pub(super) fn of(pipeline: &Pipeline) -> Self {
        let routes: BTreeSet<String> = pipeline.routes().map(ToString::to_string).collect();
        Self {
            steps: pipeline.steps().iter().map(|step| step.name.to_string()).collect(),
            routes: routes.into_iter().collect(),
            problems: Vec::new(),
        }
    }

    pub(super) fn of_faulty(diagnostics: &Diagnostics) -> Self {
        Self { steps: Vec::new(), routes: Vec::new(), problems: diagnostics.texts() }
    }
}

/// The pipelines that were parsed under one configuration.
#[derive(Debug, Default)]
pub(super) struct ParsedPipelines(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    version: Option<ConfigurationVersion>,
    summaries: HashMap<SourceKey, Arc<Summary>>,
    pipelines: HashMap<SourceKey, Arc<Pipeline>>,
    /// The bytes of the texts of `pipelines`.
    text_bytes: usize,
}

impl ParsedPipelines {
    /// Returns the summary of a text that was parsed under this configuration.
    pub(super) fn summary(&self, version: &ConfigurationVersion, key: &SourceKey) -> Option<Arc<Summary>> {
        self.kept_under(version).summaries.get(key).cloned()
    }

    /// Returns the pipeline of a text that was parsed under this configuration.
    pub(super) fn pipeline(&self, version: &ConfigurationVersion, key: &SourceKey) -> Option<Arc<Pipeline>> {
        self.kept_under(version).pipelines.get(key).cloned()
    }

    /// Keeps a summary. The version is that before the text was parsed.
    pub(super) fn add_summary(&self, version: &ConfigurationVersion, key: SourceKey, summary: Arc<Summary>) {
        if summary.problems.iter().map(String::len).sum::<usize>() > MAX_PROBLEM_BYTES {
            return;
        }
        let mut kept = self.kept_under(version);
        if kept.summaries.len() >= MAX_SUMMARIES {
            kept.summaries.clear();
        }
        kept.summaries.insert(key, summary);
    }

    /// Keeps a pipeline, in place of all others if they are too many. The version is that before its text was parsed.
    pub(super) fn add_pipeline(
        &self,
        version: &ConfigurationVersion,
        key: SourceKey,
        pipeline: Arc<Pipeline>,
    ) {
        let bytes = pipeline.text().len();
        if bytes > MAX_KEPT_BYTES {
            return;
        }
        let mut kept = self.kept_under(version);
        if kept.pipelines.len() >= MAX_PIPELINES || kept.text_bytes + bytes > MAX_KEPT_BYTES {
            kept.pipelines.clear();
            kept.text_bytes = 0;
        }
        if kept.pipelines.insert(key, pipeline).is_none() {
            kept.text_bytes += bytes;
        }
    }

    /// Returns what is kept under a configuration. What is kept under another is dropped.
    fn kept_under(&self, version: &ConfigurationVersion) -> MutexGuard<'_, Kept> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.version.as_ref() != Some(version) {
            *kept = Kept { version: Some(version.clone()), ..Kept::default() };
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pipeline::Defaults;
    use crate::types::RouteName;

    fn pipeline(name: &str, bytes: usize) -> Arc<Pipeline> {
        let text = format!("name = '{name}'\n[[step]]\nname = 's'\nprompt = '{}'\n", "x".repeat(bytes));
        let routes = [RouteName::from("only")];
        let parsed = Pipeline::parse(name, &text, Path::new(""), &Defaults::default(), &routes);
        Arc::new(parsed.unwrap_or_else(|diagnostics| panic!("{diagnostics}")))
    }

    fn key(name: &str) -> SourceKey {
        SourceKey { name: name.to_owned(), file: None, text: Fingerprint::of([name.as_bytes()]) }
    }

    #[test]
    fn what_another_configuration_has_parsed_is_not_used() {
        let parsed = ParsedPipelines::default();
        let versions = [ConfigurationVersion::unique(), ConfigurationVersion::unique()];
        parsed.add_pipeline(&versions[0], key("a"), pipeline("a", 1));
        parsed.add_summary(&versions[0], key("a"), Arc::new(Summary::of(&pipeline("a", 1))));
        assert_eq!(parsed.pipeline(&versions[0], &key("a")).unwrap().name(), "a");
        assert_eq!(parsed.summary(&versions[0], &key("a")).unwrap().steps, ["s"]);
        assert!(parsed.pipeline(&versions[0], &key("b")).is_none());
        assert!(parsed.summary(&versions[1], &key("a")).is_none());
        assert!(parsed.pipeline(&versions[1], &key("a")).is_none());
        assert!(parsed.pipeline(&versions[0], &key("a")).is_none());
    }

    #[test]
    fn the_kept_pipelines_are_bounded_by_number_and_size() {
        let parsed = ParsedPipelines::default();
        let version = ConfigurationVersion::unique();
        for number in 0..MAX_PIPELINES {
            parsed.add_pipeline(&version, key(&number.to_string()), pipeline("p", 1));
        }
        assert!(parsed.pipeline(&version, &key("0")).is_some());
        parsed.add_pipeline(&version, key("one more"), pipeline("p", 1));
        assert!(parsed.pipeline(&version, &key("0")).is_none());
        assert!(parsed.pipeline(&version, &key("one more")).is_some());
        parsed.add_pipeline(&version, key("large"), pipeline("p", MAX_KEPT_BYTES - 50));
        assert!(parsed.pipeline(&version, &key("one more")).is_none());
        assert!(parsed.pipeline(&version, &key("large")).is_some());
        parsed.add_pipeline(&version, key("too large"), pipeline("p", MAX_KEPT_BYTES));
        assert!(parsed.pipeline(&version, &key("too large")).is_none());
    }
}
