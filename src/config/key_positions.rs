//! Positions of the key sources, for errors that are found when the keys are read.
//!
//! Contains no key: possible secrets are redacted in the text that a position refers to.

use std::collections::HashMap;

use indexmap::IndexMap;

use crate::diagnostics::{Diagnostic, Diagnostics, Document, Spans};
use crate::provider;
use crate::types::ProviderName;

/// Position of each key source, as a diagnostic without a message. The map key is the provider, `"keys"` or
/// `"headers"`, and the index of the key or the name of the header.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyPositions(HashMap<(ProviderName, &'static str, String), Diagnostic>);

impl KeyPositions {
    pub(super) fn of(
        providers: &IndexMap<ProviderName, provider::Settings>,
        document: &Document,
        spans: &Spans<'_>,
    ) -> Self {
        let mut sources = Vec::new();
        let mut positions = Diagnostics::default();
        for (name, settings) in providers {
            let keys = (0..settings.keys.len()).map(|number| ("keys", number.to_string()));
            let headers = settings.headers.keys().map(|header| ("headers", header.to_string()));
            for (table, entry) in keys.chain(headers) {
                let path = ["provider", name.as_str(), table, entry.as_str()];
                if spans.contains(&path[..3]) {
                    positions.push(spans.diagnostic(&path, ""));
                    sources.push((name.clone(), table, entry));
                }
            }
        }
        positions.redact(&provider::find_secrets(spans));
        document.locate_by_key(&mut positions);
        Self(sources.into_iter().zip(positions.0).collect())
    }

    /// Returns `diagnostic` at the position of a key source, if the source has one.
    pub(super) fn locate(
        &self,
        provider: &ProviderName,
        table: &'static str,
        entry: &str,
        diagnostic: Diagnostic,
    ) -> Diagnostic {
        match self.0.get(&(provider.clone(), table, entry.to_owned())) {
            Some(position) => diagnostic.with_position_of(position),
            None => diagnostic,
        }
    }
}

impl PartialEq for KeyPositions {
    /// Always equal: configurations with equal settings are equal, wherever the settings are written.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
