//! Source positions of the key sources, for errors that are found when the keys are read.
//!
//! Contains no key: possible secrets are redacted in the text that a [`SourceSpan`] refers to.

use std::collections::HashMap;

use indexmap::IndexMap;

use crate::diagnostics::{Diagnostics, SourceSpan, Spans};
use crate::provider;
use crate::types::ProviderName;

use super::redact;

/// Position of each key source. The map key is the provider, `"keys"` or `"headers"`, and the index of the key or
/// the name of the header.
#[derive(Debug, Clone, Default)]
pub(super) struct KeySpans(HashMap<(ProviderName, &'static str, String), SourceSpan>);

impl KeySpans {
    pub(super) fn of(providers: &IndexMap<ProviderName, provider::Settings>, spans: &Spans<'_>) -> Self {
        let mut sources = Vec::new();
        let mut diagnostics = Diagnostics::default();
        for (name, settings) in providers {
            let keys = (0..settings.keys.len()).map(|number| ("keys", number.to_string()));
            let headers = settings.headers.keys().map(|header| ("headers", header.to_string()));
            for (table, entry) in keys.chain(headers) {
                let path = ["provider", name.as_str(), table, entry.as_str()];
                if spans.contains(&path[..3]) {
                    diagnostics.push(spans.diagnostic(&path, ""));
                    sources.push((name.clone(), table, entry));
                }
            }
        }
        diagnostics.redact(&redact::find_secrets(spans));
        let spans = sources.into_iter().zip(diagnostics.0);
        Self(spans.filter_map(|(source, diagnostic)| Some((source, diagnostic.span?))).collect())
    }

    pub(super) fn get(
        &self,
        provider: &ProviderName,
        table: &'static str,
        entry: &str,
    ) -> Option<SourceSpan> {
        self.0.get(&(provider.clone(), table, entry.to_owned())).cloned()
    }
}

impl PartialEq for KeySpans {
    /// Always equal: configurations with equal settings are equal, wherever the settings are written.
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
