//! The configuration in use as TOML, each value with its source in a comment. Secrets are masked.

use std::fmt;

use serde_json::Value;

use crate::diagnostics::key_path;

use super::effective::ValueSource;
use super::settings::Config;

/// The tables whose entries have names: each entry gets a header of its own.
const NAMED_TABLES: [&str; 3] = ["provider", "route", "scope"];

/// Where comments begin, if the value is short enough.
const COMMENT_COLUMN: usize = 48;

impl Config {
    /// Returns all values that are set or have a default as TOML, each with its source in a comment. No value is secret.
    pub fn effective_toml(&self) -> String {
        let mut text = String::new();
        let mut header = Vec::new();
        for (path, value, source) in self.effective_paths() {
            let Some(value) = toml_value(&value) else { continue };
            let is_named = path.first().is_some_and(|name| NAMED_TABLES.contains(&name.as_str()));
            let depth = if is_named && path.len() > 2 { 2 } else { 1 }.min(path.len() - 1);
            let (table, key) = path.split_at(depth);
            if table != header {
                text.push_str(if text.is_empty() { "" } else { "\n" });
                text.push_str(&format!("[{}]\n", key_path(table)));
                table.clone_into(&mut header);
            }
            let line = format!("{} = {value}", key_path(key));
            text.push_str(&format!("{line:COMMENT_COLUMN$}  # {}\n", one_line(&source.to_string())));
        }
        text
    }
}

/// Returns a value as TOML; `None` for null, which TOML does not have.
fn toml_value(value: &Value) -> Option<toml::Value> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(switch) => (*switch).into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.to_string().into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(all) => {
            all.iter().map(without_default_weight).filter_map(toml_value).collect::<Vec<_>>().into()
        }
        Value::Object(fields) => {
            let fields = fields.iter().filter_map(|(name, value)| Some((name.clone(), toml_value(value)?)));
            fields.collect::<toml::Table>().into()
        }
    })
}

/// Returns the target of a route by its name alone if its weight is the default one: a weight is an error with most policies.
fn without_default_weight(value: &Value) -> &Value {
    let named = || {
        Some(value.as_object()?).filter(|fields| fields.len() == 2 && fields.get("weight") == Some(&1.into()))
    };
    named().and_then(|fields| fields.get("target")).unwrap_or(value)
}

/// Returns a text that does not end its comment: a file may have any name.
fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

impl fmt::Display for ValueSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File { file, line } => write!(out, "{file}:{line}"),
            Self::Environment { variable } => write!(out, "environment variable {variable}"),
            Self::DotEnv { file, line, variable } => write!(out, "{variable} in {file}:{line}"),
            Self::CommandLine => out.write_str("command line"),
            Self::PriceList => out.write_str("built-in price list"),
            Self::Program => out.write_str("program"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_a_configuration_with_the_same_values() {
        let text = "
[provider.'a b']
base_url = 'http://127.0.0.1:1/v1'
keys = ['env:KEY']
limits.concurrency = 4
models.'gpt-4.1' = { price = { input = 1, output = 2.5 } }
[route.main]
targets = ['a b/gpt-4.1']
[defaults]
system = \"two\\nlines\"
";
        let config = Config::parse("c.toml", text, &|_| None).unwrap();
        let shown = config.effective_toml();
        assert!(shown.contains("[provider.\"a b\"]\n"), "{shown}");
        assert!(shown.contains("# c.toml:") || shown.contains("# :4"), "{shown}");
        assert!(shown.contains("# default\n"), "{shown}");
        let again =
            Config::parse("shown.toml", &shown, &|_| None).unwrap_or_else(|error| panic!("{error}\n{shown}"));
        let values = |config: &Config| -> Vec<(String, Value)> {
            config.effective().into_iter().map(|value| (value.key, value.value)).collect()
        };
        assert_eq!(values(&again), values(&config));
    }

    #[test]
    fn a_source_is_named() {
        let env = |name: &str| (name == "ANTHROPIC_API_KEY").then(|| "sk-secret-0123456789".to_owned());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a\nb.toml");
        std::fs::write(&file, "[retry]\nmax_rounds = 2\n").unwrap();
        std::fs::write(folder.path().join(".env"), "\nANTHROPIC_MODEL=claude-haiku-4-5\n").unwrap();
        let shown = Config::load_with(Some(&file), &env).unwrap().effective_toml();
        for part in
            ["b.toml:2\n", "# environment variable ANTHROPIC_API_KEY\n", ".env:2\n", "built-in price list"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains("sk-secret"), "{shown}");
        assert!(shown.parse::<toml::Table>().is_ok(), "{shown}");
    }
}
