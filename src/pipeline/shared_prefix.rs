//! The beginning that all requests of a step share: its system prompt and the constant beginning of its prompt.
//!
//! Determined when the pipeline is loaded. Pure.

use std::sync::Arc;

use crate::provider;
use crate::types::{CacheTtl, Fingerprint, Message, Prompt, ReasoningEffort, ResponseFormat, SharedPrefix};

/// Minimum tokens of a beginning that is cached. No vendor caches less.
const MIN_SHARED_TOKENS: u64 = 1024;

/// What the requests of a step have in common.
pub(super) struct SharedParts<'a> {
    /// The system prompt, or the source of its template. It is the same for every item.
    pub(super) system: Option<&'a str>,
    /// The text with which every prompt begins.
    pub(super) text: &'a str,
    /// The format of the answer. Some vendors put it before the messages.
    pub(super) response_format: ResponseFormat,
    /// How much the model reasons. Some vendors do not share the cache between its values.
    pub(super) reasoning_effort: Option<ReasoningEffort>,
}

/// The beginning that all requests of a step share.
#[derive(Debug, Clone)]
pub(crate) struct StepPrefix {
    shared: SharedPrefix,
    text: Arc<str>,
}

impl StepPrefix {
    /// Creates it from its parts; `None` if it is too short to be cached.
    pub(super) fn new(parts: &SharedParts<'_>, ttl: CacheTtl) -> Option<Self> {
        let SharedParts { system, text, response_format, reasoning_effort } = parts;
        let system = system.filter(|system| !system.trim().is_empty());
        let prompt = Prompt {
            system: system.map(Arc::from),
            messages: vec![Message::user(*text)],
            response_format: response_format.clone(),
            ..Prompt::default()
        };
        let tokens = provider::prompt_tokens(&prompt);
        if tokens < MIN_SHARED_TOKENS {
            return None;
        }
        let format = match response_format {
            ResponseFormat::Text => String::new(),
            ResponseFormat::Choice(choices) => serde_json::Value::from(choices.to_vec()).to_string(),
            ResponseFormat::Json(schema) => schema.to_string(),
        };
        let effort = reasoning_effort.map_or("", ReasoningEffort::as_str);
        let parts = ["shared prefix", system.unwrap_or_default(), text, &format, effort];
        let key = Fingerprint::of(parts.map(str::as_bytes));
        let shared = SharedPrefix::new(key, tokens).with_text_bytes(text.len()).with_ttl(ttl);
        Some(Self { shared, text: Arc::from(*text) })
    }

    /// Returns it as it is in the prompts of the step.
    pub(crate) fn shared(&self) -> SharedPrefix {
        self.shared
    }

    /// Returns it for a prompt with this text; `None` if the text does not begin with it.
    pub(super) fn of_text(&self, text: &str) -> Option<SharedPrefix> {
        text.starts_with(&*self.text).then_some(self.shared)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::pipeline::{Defaults, ItemState, Pipeline};

    /// About 1,600 tokens.
    fn long_text() -> String {
        "Sort the message of a customer. ".repeat(215)
    }

    fn pipeline(text: &str) -> Arc<Pipeline> {
        let routes = ["default".into()];
        let parsed = Pipeline::parse("p", text, Path::new(""), &Defaults::default(), &routes);
        Arc::new(parsed.unwrap_or_else(|diagnostics| panic!("{text}\n{}", diagnostics.render(false))))
    }

    fn with_steps(steps: &str) -> Arc<Pipeline> {
        pipeline(&format!("name = 'p'\n{steps}"))
    }

    fn prefixes(steps: &str) -> Vec<Option<SharedPrefix>> {
        let pipeline = with_steps(steps);
        let prefixes =
            pipeline.steps().iter().map(|step| step.shared_prefix.as_ref().map(StepPrefix::shared));
        prefixes.collect()
    }

    fn step(prompt: &str, more: &str) -> Option<SharedPrefix> {
        let text = toml::Value::from(prompt).to_string();
        prefixes(&format!("[[step]]\nname = 'a'\nprompt = {text}\n{more}\n"))[0]
    }

    #[test]
    fn the_constant_beginning_ends_at_the_first_expression_or_statement() {
        let long = long_text();
        for (rest, more_bytes) in [
            ("", 0),
            ("{{ item.text }}", 0),
            ("It: {{ item.text }}", 4),
            ("{% if item.a %}b{% endif %}", 0),
            ("It.{# a comment #} Or: {{ item.text }}", 8),
            ("It:\n\n{#- a comment #}{{ item.text }}", 3),
            ("It: {# a comment -#} \n not {{ item.text }}", 8),
            ("{% raw %}{{ x }}{% endraw %}: {{ item.text }}", 9),
        ] {
            let prefix = step(&format!("{long}{rest}"), "").unwrap();
            assert_eq!(prefix.text_bytes, long.len() + more_bytes, "{rest}");
        }
        let trimmed = step(&format!("{long}{{{{- item.text }}}}"), "").unwrap();
        assert_eq!(trimmed.text_bytes, long.trim_end().len());
    }

    #[test]
    fn the_prompt_of_a_request_carries_the_beginning() {
        let text = toml::Value::from(format!("{}{{{{ item.text }}}}", long_text())).to_string();
        let pipeline = with_steps(&format!("[[step]]\nname = 'a'\nprompt = {text}\n"));
        let requests = ItemState::new(pipeline, &json!({ "text": "It crashes." })).ready_steps();
        let prefix = requests[0].prompt.shared_prefix.unwrap();
        assert_eq!((prefix.text_bytes, prefix.ttl), (long_text().len(), CacheTtl::FiveMinutes));
        let short = with_steps("[[step]]\nname = 'a'\nprompt = 'Sort: {{ item.text }}'\n");
        let requests = ItemState::new(short, &json!({ "text": "It crashes." })).ready_steps();
        assert_eq!(requests[0].prompt.shared_prefix, None);
    }

    #[test]
    fn a_system_prompt_counts_and_must_be_the_same_for_all_items() {
        let long = long_text();
        let prompt = "{{ item.text }}";
        let with_system = |system: &str| step(prompt, &format!("system = {}", toml::Value::from(system)));
        let constant = with_system(&long).unwrap();
        assert_eq!(constant.text_bytes, 0);
        assert_eq!(with_system(&format!("{long}{{# a comment #}}")).unwrap().text_bytes, 0);
        assert!(with_system(&format!("{long}{{{{ 'a' | upper }}}}")).is_some());
        assert_eq!(with_system(&format!("{long}{{{{ item.language }}}}")), None);
        assert_eq!(step(&long, "system = '{{ item.language }}'"), None);
        let by_default = prefixes(&format!(
            "[defaults]\nsystem = {}\n[[step]]\nname = 'a'\nprompt = '{prompt}'\n",
            toml::Value::from(long.as_str())
        ));
        assert_eq!(by_default[0], Some(constant));
    }

    #[test]
    fn the_key_depends_on_what_precedes_the_items_and_on_nothing_else() {
        let prompt = format!("{}{{{{ item.text }}}}", long_text());
        let key = |prompt: &str, more: &str| step(prompt, more).unwrap().key;
        let plain = key(&prompt, "");
        assert_eq!(plain, key(&format!("{prompt} End."), "temperature = 0.5\nprompt_cache = '1h'"));
        let keys = [
            plain,
            key(&format!("A. {prompt}"), ""),
            key(&prompt, "system = 'Be brief.'"),
            key(&prompt, "choice = ['A', 'B']"),
            key(&prompt, "schema = { type = 'array' }"),
            key(&prompt, "reasoning_effort = 'low'"),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn less_than_the_minimum_is_not_shared_and_the_setting_decides() {
        let prompt = |words: usize| format!("{}{{{{ item.text }}}}", "word ".repeat(words));
        let shared = step(&prompt(1024), "").unwrap();
        assert!((1024..1100).contains(&shared.tokens), "{shared:?}");
        assert_eq!(step(&prompt(900), ""), None);
        assert_eq!(step(&prompt(2000), "prompt_cache = 'off'"), None);
        assert_eq!(step(&prompt(2000), "prompt_cache = '1h'").unwrap().ttl, CacheTtl::OneHour);
        let text = toml::Value::from(prompt(2000)).to_string();
        let steps = format!(
            "[defaults]\nprompt_cache = 'off'\n[[step]]\nname = 'a'\nprompt = {text}\n\
             [[step]]\nname = 'b'\nprompt_cache = 'auto'\nprompt = {text}\n"
        );
        let ttls: Vec<_> =
            prefixes(&steps).into_iter().map(|prefix| prefix.map(|prefix| prefix.ttl)).collect();
        assert_eq!(ttls, [None, Some(CacheTtl::FiveMinutes)]);
    }

    /// A piece of a template.
    fn piece() -> impl Strategy<Value = String> {
        let fixed = [
            "{# c #}",
            "{#- c -#}",
            "{#- c #}",
            "{# c -#}",
            "{{ item.a }}",
            "{{- item.a -}}",
            "{% if item.b %}x{% else %}y{% endif %}",
            "{%- if item.b -%} x {%- endif -%}",
            "{% raw %}{{ z }} {% endraw %}",
            "{%- raw -%} {{ z }} {%- endraw -%}",
            "{% set c = 1 %}",
            "\n",
            "\r\n",
            " ",
            "{ ",
            "é",
        ];
        prop_oneof![prop::sample::select(fixed.to_vec()).prop_map(str::to_owned), "[a-z \n]{0,6}"]
    }

    proptest! {
        #[test]
        fn every_rendered_prompt_begins_with_the_constant_text(
            pieces in prop::collection::vec(piece(), 0..8),
            value in "[a-z \n]{0,5}",
            condition in any::<bool>(),
        ) {
            // The words make it long enough; the last text keeps the prompt from being blank.
            let source = format!("{}{}end", "word ".repeat(1100), pieces.concat());
            let text = toml::Value::from(source.as_str()).to_string();
            let pipeline = with_steps(&format!("[[step]]\nname = 'a'\nprompt = {text}\n"));
            let prefix = pipeline.steps()[0].shared_prefix.clone().unwrap();
            let item = json!({ "a": value, "b": condition });
            let requests = ItemState::new(pipeline, &item).ready_steps();
            let prompt = &requests[0].prompt;
            prop_assert_eq!(prompt.shared_prefix, Some(prefix.shared()), "{}", source);
            let crate::types::Part::Text(rendered) = &prompt.messages[0].parts[0] else { panic!("no text") };
            prop_assert!(rendered.starts_with(&*prefix.text));
            prop_assert!(prefix.text.len() >= "word ".len() * 1100 - 1);
            if !source.contains("{{") && !source.contains("{%") {
                prop_assert_eq!(&**rendered, &*prefix.text);
            }
        }
    }
}
