//! The pipelines of a daemon: files that the configuration names, and versions that are stored.
//!
//! A file is read-only here, and is read again when it has changed. A stored pipeline gets a new version with every change.
//! A name belongs to one of the two: a stored pipeline with the name of a file is hidden by the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use crate::clock;
use crate::config::Config;
use crate::diagnostics::Diagnostics;
use crate::pipeline::Pipeline;
use crate::runtime::Pointsman;
use crate::store::{Document, DocumentKind, ExpectedVersion, Store};
use crate::types::{Fingerprint, utc_time};

use super::error::Error;
use super::parsed_pipelines::{ParsedPipelines, SourceKey, Summary};
use super::text_parser::{TextParser, length_problem};

/// Longest name of a pipeline that is stored, in bytes.
const MAX_NAME_BYTES: usize = 100;

/// How many stored pipelines are read at once.
const PAGE: u32 = 100;

/// The pipelines of a daemon. It is cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Catalogue {
    store: Arc<dyn Store>,
    /// An empty folder: items of stored pipelines may attach files from the configured folders only.
    directory: PathBuf,
    parsed: Arc<ParsedPipelines>,
    /// Parses texts that callers send.
    given: TextParser,
    /// Parses files and stored texts. By itself, so that callers who send texts delay no item.
    known: TextParser,
}

/// A pipeline of the catalogue.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PipelineEntry {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    #[serde(flatten)]
    pub origin: PipelineOrigin,
    /// Identifies the text.
    pub etag: String,
    /// The names of its steps; empty if it is faulty.
    pub steps: Vec<String>,
    /// The routes of its steps; empty if it is faulty.
    pub routes: Vec<String>,
    /// What is wrong with it under the present configuration; empty if it can be run.
    pub problems: Vec<String>,
    /// Its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub text: Option<Arc<str>>,
}

impl PipelineEntry {
    /// Returns what is wrong with it, if it is a faulty file.
    pub(super) fn file_fault(&self) -> Option<String> {
        match self.origin {
            PipelineOrigin::File { .. } if !self.problems.is_empty() => {
                Some(format!("{}: {}", self.name, self.problems.join("; ")))
            }
            PipelineOrigin::File { .. } | PipelineOrigin::Stored { .. } => None,
        }
    }

    /// Returns what is wrong with it, if it is stored and cannot be run. It could when it was stored, so the configuration has
    /// changed.
    pub(super) fn stored_fault(&self) -> Option<String> {
        match self.origin {
            PipelineOrigin::Stored { .. } if !self.problems.is_empty() => {
                Some(format!("{}: {}", self.name, self.problems.join("; ")))
            }
            PipelineOrigin::Stored { .. } | PipelineOrigin::File { .. } => None,
        }
    }
}

/// Where a pipeline comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(tag = "origin", rename_all = "snake_case")]
#[non_exhaustive]
pub enum PipelineOrigin {
    /// A file that the configuration names. It is read-only.
    File {
        /// Its path.
        #[cfg_attr(feature = "server", schema(value_type = String))]
        path: PathBuf,
    },
    /// A version in the store.
    Stored {
        /// Its number, from 1.
        version: i64,
        /// When it was stored, in milliseconds since 1970; a text in JSON.
        #[serde(with = "utc_time")]
        #[cfg_attr(feature = "server", schema(value_type = String, format = DateTime))]
        changed_at: i64,
        /// Who stored it: the name of a token, or empty.
        changed_by: String,
    },
}

/// The result of the check of a text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PipelineCheck {
    /// Whether it can be run under the present configuration.
    pub valid: bool,
    /// The name of the pipeline; null if the text is faulty.
    pub name: Option<String>,
    /// The names of its steps; empty if the text is faulty.
    pub steps: Vec<String>,
    /// What is wrong with it under the present configuration; empty if it is valid.
    pub problems: Vec<String>,
}

/// A pipeline that has been stored.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoredPipeline {
    /// What is stored now.
    pub entry: PipelineEntry,
    /// Whether there was no pipeline of this name before.
    pub is_new: bool,
}

/// A version of a stored pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct PipelineVersion {
    /// Its number, from 1.
    pub version: i64,
    /// When it was stored, in milliseconds since 1970; a text in JSON.
    #[serde(with = "utc_time")]
    #[cfg_attr(feature = "server", schema(value_type = String, format = DateTime))]
    pub changed_at: i64,
    /// Who stored it: the name of a token, or empty.
    pub changed_by: String,
    /// Whether this version is the deletion of the pipeline.
    pub is_deletion: bool,
    /// Its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// A pipeline that is ready to run, and where it comes from.
#[derive(Debug)]
pub(super) struct LoadedPipeline {
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) origin: PipelineOrigin,
}

/// A pipeline before it is parsed.
#[derive(Debug, Clone)]
struct Source {
    name: String,
    text: Arc<str>,
    origin: PipelineOrigin,
}

impl Catalogue {
    /// Creates the catalogue. `directory` is an empty folder.
    pub(super) fn new(store: Arc<dyn Store>, directory: PathBuf) -> Self {
        Self { store, directory, parsed: Arc::default(), given: TextParser::new(), known: TextParser::new() }
    }

    /// Returns what parses texts that callers send.
    pub(super) fn given(&self) -> &TextParser {
        &self.given
    }

    /// Returns all pipelines by name, without their texts.
    pub(super) async fn entries(
        &self,
        pointsman: &Pointsman,
        config: &Arc<Config>,
    ) -> Result<Vec<PipelineEntry>, Error> {
        let mut sources = read_files(pointsman, config).await?;
        let mut after = String::new();
        loop {
            let page = self.store.documents(DocumentKind::Pipeline, Some(&after), PAGE).await?;
            let Some(last) = page.last() else { break };
            after.clone_from(&last.name);
            for document in page {
                sources.entry(document.name.clone()).or_insert_with(|| Ok(stored_source(&document)));
            }
        }
        let mut entries = Vec::with_capacity(sources.len());
        for (name, source) in sources {
            entries.push(match source {
                Ok(source) => PipelineEntry { text: None, ..self.entry(pointsman, &source).await? },
                Err(problem) => entry_without_source(name, problem),
            });
        }
        Ok(entries)
    }

    /// Returns the faults of the pipeline files: a text for each faulty file. It reads and parses them on this thread.
    pub(super) fn file_faults(&self, pointsman: &Pointsman, config: &Config) -> Vec<String> {
        let entries = file_sources(config).into_iter().map(|(name, source)| match source {
            Ok(source) => entry_of(&source, &self.parse_known(pointsman, &source).0),
            Err(problem) => entry_without_source(name, problem),
        });
        entries.filter_map(|entry| entry.file_fault()).collect()
    }

    /// Returns a pipeline with its text.
    pub(super) async fn get(
        &self,
        pointsman: &Pointsman,
        config: &Arc<Config>,
        name: &str,
    ) -> Result<PipelineEntry, Error> {
        self.entry(pointsman, &self.source(pointsman, config, name).await?).await
    }

    /// Returns a pipeline that can be run.
    pub(super) async fn load(
        &self,
        pointsman: &Pointsman,
        config: &Arc<Config>,
        name: &str,
    ) -> Result<LoadedPipeline, Error> {
        let source = self.source(pointsman, config, name).await?;
        let origin = source.origin.clone();
        let key = source.key();
        if let Some(pipeline) = self.parsed.pipeline(&pointsman.configuration_version(), &key) {
            return Ok(LoadedPipeline { pipeline, origin });
        }
        let catalogue = self.clone();
        let parsing = pointsman.clone();
        let parse = move || {
            // Another caller may have parsed it meanwhile.
            let parsed = catalogue.parsed.pipeline(&parsing.configuration_version(), &key);
            parsed.map_or_else(|| catalogue.parse_known(&parsing, &source).1, Ok)
        };
        let pipeline = self.known.parse(pointsman, parse).await??;
        Ok(LoadedPipeline { pipeline, origin })
    }

    /// Parses the text of a pipeline whose run is resumed. `directory` is that of its file; `None` if it was stored.
    pub(super) fn parse_again(
        &self,
        pointsman: &Pointsman,
        name: &str,
        text: &str,
        directory: Option<&Path>,
    ) -> Result<Pipeline, Diagnostics> {
        match directory {
            Some(directory) => pointsman.parse_pipeline_of(name, text, directory),
            None => pointsman.parse_isolated_pipeline(name, text, &self.directory),
        }
    }

    /// Checks the text of a pipeline that may be stored.
    pub(super) async fn check(&self, pointsman: &Pointsman, text: &str) -> Result<PipelineCheck, Error> {
        let faulty = |problems| PipelineCheck { valid: false, name: None, steps: Vec::new(), problems };
        if let Some(problem) = length_problem(text) {
            return Ok(faulty(vec![problem]));
        }
        let directory = self.directory.clone();
        let parsing = pointsman.clone();
        let text = text.to_owned();
        let check = move || match parsing.parse_isolated_pipeline("pipeline", &text, &directory) {
            Ok(pipeline) => PipelineCheck {
                valid: true,
                name: Some(pipeline.name().to_owned()),
                steps: Summary::of(&pipeline).steps,
                problems: Vec::new(),
            },
            Err(diagnostics) => faulty(Summary::of_faulty(&diagnostics).problems),
        };
        self.given.parse(pointsman, check).await
    }

    /// Stores a version of a pipeline.
    pub(super) async fn put(
        &self,
        pointsman: &Pointsman,
        config: &Arc<Config>,
        (name, text): (&str, &str),
        by: &str,
        expected: Expected,
    ) -> Result<StoredPipeline, Error> {
        check_name(name)?;
        if let Some(problem) = length_problem(text) {
            return Err(Error::invalid(problem));
        }
        refuse_file(pointsman, config, name).await?;
        let summary = self.check_text(pointsman, name, text).await?;
        let found = self.store.document(DocumentKind::Pipeline, name, clock::milliseconds()).await?;
        let expected = match (expected, &found) {
            (Expected::Any, _) => ExpectedVersion::Any,
            (Expected::New, None) => ExpectedVersion::None,
            (Expected::New, Some(_)) => {
                return Err(Error::precondition(format!("the pipeline {name:?} exists already")));
            }
            (Expected::Existing, Some(found)) => ExpectedVersion::Is(found.version),
            (Expected::Existing, None) => {
                return Err(Error::precondition(format!("there is no pipeline {name:?} yet")));
            }
            (Expected::Etag(etag), Some(found)) if etag == etag_of(&text_of(found)) => {
                ExpectedVersion::Is(found.version)
            }
            (Expected::Etag(_), _) => {
                return Err(Error::precondition(format!(
                    "the pipeline {name:?} has changed meanwhile: read it again, and repeat the change"
                )));
            }
        };
        let value = json!({ "text": text });
        let stored =
            self.store.put_document(DocumentKind::Pipeline, name, &value, by, None, expected).await?;
        let entry = entry_of(&stored_source(&stored), &summary);
        Ok(StoredPipeline { entry, is_new: found.is_none() })
    }

    /// Deletes a stored pipeline. Its versions stay readable.
    pub(super) async fn delete(
        &self,
        pointsman: &Pointsman,
        config: &Arc<Config>,
        name: &str,
        by: &str,
    ) -> Result<(), Error> {
        refuse_file(pointsman, config, name).await?;
        if self.store.delete_document(DocumentKind::Pipeline, name, by).await? {
            Ok(())
        } else {
            Err(no_pipeline(name))
        }
    }

    /// Returns the versions of a stored pipeline, the newest first, without their texts.
    pub(super) async fn versions(&self, name: &str) -> Result<Vec<PipelineVersion>, Error> {
        let documents = self.store.document_versions(DocumentKind::Pipeline, name).await?;
        if documents.is_empty() {
            return Err(no_pipeline(name));
        }
        Ok(documents.iter().map(|document| PipelineVersion { text: None, ..version_of(document) }).collect())
    }

    /// Returns a version of a stored pipeline.
    pub(super) async fn version(&self, name: &str, version: i64) -> Result<PipelineVersion, Error> {
        let found = self.store.document_version(DocumentKind::Pipeline, name, version).await?;
        found.as_ref().map(version_of).ok_or_else(|| Error::NotFound {
            what: "version of a pipeline",
            name: format!("{name} {version}"),
        })
    }

    /// Fails if a text cannot be stored under a name; otherwise returns what a list shows of it.
    async fn check_text(&self, pointsman: &Pointsman, name: &str, text: &str) -> Result<Summary, Error> {
        let directory = self.directory.clone();
        let parsing = pointsman.clone();
        let name = name.to_owned();
        let text = text.to_owned();
        let check = move || {
            let pipeline = parsing.parse_isolated_pipeline(&name, &text, &directory)?;
            if pipeline.name() == name {
                return Ok(Summary::of(&pipeline));
            }
            Err(Error::invalid(format!(
                "the text has name = {:?}, and it is to be stored as {name:?}: use one name for both",
                pipeline.name()
            )))
        };
        self.given.parse(pointsman, check).await?
    }

    async fn source(&self, pointsman: &Pointsman, config: &Arc<Config>, name: &str) -> Result<Source, Error> {
        if let Some(source) = read_files(pointsman, config).await?.remove(name) {
            return source.map_err(Error::invalid);
        }
        let document = self.store.document(DocumentKind::Pipeline, name, clock::milliseconds()).await?;
        document.as_ref().map(stored_source).ok_or_else(|| no_pipeline(name))
    }

    fn parse(&self, pointsman: &Pointsman, source: &Source) -> Result<Pipeline, Diagnostics> {
        match &source.origin {
            PipelineOrigin::File { path } => {
                let directory = path.parent().unwrap_or(Path::new(""));
                pointsman.parse_pipeline_of(&path.display().to_string(), &source.text, directory)
            }
            PipelineOrigin::Stored { .. } => {
                pointsman.parse_isolated_pipeline(&source.name, &source.text, &self.directory)
            }
        }
    }

    /// Parses a file or a stored text, and keeps the result if only the text and the configuration decide it.
    fn parse_known(
        &self,
        pointsman: &Pointsman,
        source: &Source,
    ) -> (Arc<Summary>, Result<Arc<Pipeline>, Diagnostics>) {
        let version = pointsman.configuration_version();
        let parsed = self.parse(pointsman, source).map(Arc::new);
        let summary = Arc::new(match &parsed {
            Ok(pipeline) => Summary::of(pipeline),
            Err(diagnostics) => Summary::of_faulty(diagnostics),
        });
        let is_kept = match (&source.origin, &parsed) {
            (PipelineOrigin::Stored { .. }, _) => true,
            // A schema in another file may change.
            (PipelineOrigin::File { .. }, Ok(pipeline)) => pipeline.protected().is_empty(),
            (PipelineOrigin::File { .. }, Err(_)) => false,
        };
        if is_kept {
            self.parsed.add_summary(&version, source.key(), summary.clone());
            if let Ok(pipeline) = &parsed {
                self.parsed.add_pipeline(&version, source.key(), pipeline.clone());
            }
        }
        (summary, parsed)
    }

    /// Returns the entry of a source, with its text.
    async fn entry(&self, pointsman: &Pointsman, source: &Source) -> Result<PipelineEntry, Error> {
        let key = source.key();
        if let Some(summary) = self.parsed.summary(&pointsman.configuration_version(), &key) {
            return Ok(entry_of(source, &summary));
        }
        let catalogue = self.clone();
        let parsing = pointsman.clone();
        let parsed_source = source.clone();
        let parse = move || {
            // Another caller may have parsed it meanwhile.
            let summary = catalogue.parsed.summary(&parsing.configuration_version(), &key);
            summary.unwrap_or_else(|| catalogue.parse_known(&parsing, &parsed_source).0)
        };
        let summary = self.known.parse(pointsman, parse).await?;
        Ok(entry_of(source, &summary))
    }
}

impl Source {
    fn key(&self) -> SourceKey {
        let file = match &self.origin {
            PipelineOrigin::File { path } => Some(path.clone()),
            PipelineOrigin::Stored { .. } => None,
        };
        SourceKey { name: self.name.clone(), file, text: Fingerprint::of([self.text.as_bytes()]) }
    }
}

/// Returns the entry of a source, with its text.
fn entry_of(source: &Source, summary: &Summary) -> PipelineEntry {
    PipelineEntry {
        name: source.name.clone(),
        origin: source.origin.clone(),
        etag: etag_of(&source.text),
        steps: summary.steps.clone(),
        routes: summary.routes.clone(),
        problems: summary.problems.clone(),
        text: Some(source.text.clone()),
    }
}

/// Returns the entry of a file without a usable text.
fn entry_without_source(name: String, problem: String) -> PipelineEntry {
    PipelineEntry {
        origin: PipelineOrigin::File { path: PathBuf::from(&name) },
        name,
        etag: String::new(),
        steps: Vec::new(),
        routes: Vec::new(),
        problems: vec![problem],
        text: None,
    }
}

/// What a change of a pipeline expects to find.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expected {
    /// Anything.
    Any,
    /// No pipeline of this name.
    New,
    /// A pipeline of this name.
    Existing,
    /// The text with this etag.
    Etag(String),
}

/// The pipelines of files by name, each with its text or with why there is none.
type FileSources = BTreeMap<String, Result<Source, String>>;

/// Returns the pipelines of the files that the configuration names. It reads them on a thread that may block.
async fn read_files(pointsman: &Pointsman, config: &Arc<Config>) -> Result<FileSources, Error> {
    if config.serve.pipelines.is_empty() {
        return Ok(BTreeMap::new());
    }
    let config = config.clone();
    let read = pointsman.runtime().spawn_blocking(move || file_sources(&config));
    read.await.map_err(Error::ended_early)
}

/// Returns the pipelines of the files that the configuration names, by name. A file that cannot be read, or whose name is
/// not known, is listed under its path, with the reason.
fn file_sources(config: &Config) -> FileSources {
    let mut sources = BTreeMap::new();
    let files = match config.serve.pipeline_files() {
        Ok(files) => files,
        Err(diagnostics) => {
            let problem = diagnostics.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            sources.insert("[serve] pipelines".to_owned(), Err(problem));
            return sources;
        }
    };
    for path in files {
        let shown = path.display().to_string();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                sources.insert(shown.clone(), Err(format!("cannot read the pipeline {shown}: {error}")));
                continue;
            }
        };
        let table = toml::from_str::<toml::Table>(&text);
        let name = table.as_ref().ok().and_then(|table| table.get("name")?.as_str());
        // A faulty file keeps its problems under the name of the file.
        let stem =
            || path.file_stem().map_or_else(|| shown.clone(), |stem| stem.to_string_lossy().into_owned());
        let name = name.map_or_else(stem, str::to_owned);
        if sources.contains_key(&name) {
            let problem = format!(
                "another pipeline file has the name {name:?} too, and this one is not used; give each a name of its own"
            );
            sources.insert(shown, Err(problem));
            continue;
        }
        let origin = PipelineOrigin::File { path };
        sources.insert(name.clone(), Ok(Source { name, text: text.into(), origin }));
    }
    sources
}

async fn refuse_file(pointsman: &Pointsman, config: &Arc<Config>, name: &str) -> Result<(), Error> {
    match read_files(pointsman, config).await?.remove(name) {
        Some(Ok(Source { origin: PipelineOrigin::File { path }, .. })) => Err(Error::conflict(format!(
            "the pipeline {name:?} comes from the file {}: change the file",
            path.display()
        ))),
        Some(_) | None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_valid = !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && !name.starts_with('.')
        && name.bytes().all(is_allowed);
    if is_valid {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the name of a stored pipeline has 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` or `.`, and does not begin with `.`"
    )))
}

fn stored_source(document: &Document) -> Source {
    let origin = PipelineOrigin::Stored {
        version: document.version,
        changed_at: document.created_at,
        changed_by: document.created_by.clone(),
    };
    Source { name: document.name.clone(), text: text_of(document).into(), origin }
}

fn version_of(document: &Document) -> PipelineVersion {
    PipelineVersion {
        version: document.version,
        changed_at: document.created_at,
        changed_by: document.created_by.clone(),
        is_deletion: document.is_deleted,
        text: document.value.get("text").and_then(Value::as_str).map(str::to_owned),
    }
}

fn text_of(document: &Document) -> String {
    document.value.get("text").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn etag_of(text: &str) -> String {
    Fingerprint::of([text.as_bytes()]).to_string()
}

fn no_pipeline(name: &str) -> Error {
    Error::NotFound { what: "pipeline", name: name.to_owned() }
}
