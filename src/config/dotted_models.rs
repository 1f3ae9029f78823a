//! Names of models with dots: `[provider.openai.models.gpt-4.1]`.
//!
//! A version is read as one name (see [`Document::with_dotted_names`](crate::diagnostics::Document::with_dotted_names)). Any
//! other name with a dot needs quotes.

use crate::diagnostics::{Diagnostics, Spans, key_path, nearest};

/// The tables whose keys are names of models.
pub(super) const MODEL_TABLES: &[&str] = &["provider", "*", "models"];

/// The keys of a model.
const MODEL_KEYS: [&str; 8] =
    ["name", "context", "price", "limits", "max_tokens", "temperature", "extra", "min_cache_tokens"];

/// Changes the help of an unknown key of a model that looks like the second part of a name with a dot.
pub(super) fn advise_quotes(spans: &Spans<'_>, diagnostics: &mut Diagnostics) {
    for key in spans.keys() {
        let [table, _, models, first, second] = key.path.as_slice() else { continue };
        let is_model = table == "provider" && models == "models";
        let is_known = nearest(second, MODEL_KEYS.into_iter()).is_some();
        if !is_model || is_known || !spans.is_table(key) {
            continue;
        }
        let name = key_path(&[format!("{first}.{second}")]);
        let help = format!("if the model is called {first}.{second}, write its name in quotes: {name}");
        diagnostics.set_help_at(&key.span, &format!("unknown key `{second}`"), &help);
    }
}
