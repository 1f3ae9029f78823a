//! The files of the user: items, a pipeline, a configuration and pictures.

use std::fmt::Write as _;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::options::HistoryOptions;
use super::provider::Provider;

/// The steps, in the order of the pipeline file. `last` depends on the three steps before it. `kind` has a
/// choice, and `facts` has a schema.
pub(crate) const STEPS: [&str; 5] = ["first", "kind", "photo", "last", "facts"];

/// The targets: two at each provider.
pub(crate) const TARGETS: [(&str, &str); 4] = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y")];

/// An item. Every field is a variant, so that an edit and its reversal are equally likely.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) number: u8,
    pub(crate) text: u8,
    pub(crate) tag: u8,
    pub(crate) picture: u8,
    /// Whether it is written as CSV.
    is_csv: bool,
}

impl Item {
    pub(crate) fn new(number: u8, options: HistoryOptions) -> Self {
        Self { number, text: 0, tag: 0, picture: number % 2, is_csv: options.csv_items }
    }

    /// Every third item has no `id`: its key is the hash of its content.
    pub(crate) fn has_id(&self) -> bool {
        self.number % 3 != 2
    }

    /// Returns the text with which every prompt of the item begins. It identifies the key.
    pub(crate) fn name(&self) -> String {
        let Self { number, text, tag, picture, .. } = self;
        if self.has_id() { format!("i{number}") } else { format!("i{number}.{text}{tag}{picture}") }
    }

    pub(crate) fn key(&self) -> String {
        if self.has_id() {
            return self.name();
        }
        let digest = Sha256::digest(self.fields().as_bytes());
        digest[..16].iter().fold("sha-".to_owned(), |mut key, byte| {
            write!(key, "{byte:02x}").unwrap();
            key
        })
    }

    fn fields(&self) -> String {
        let Self { picture, tag, text, .. } = self;
        let id = if self.is_csv { "\"id\":\"\"," } else { "" };
        format!(
            r#"{{{id}"name":"{}","picture":"p{picture}.png","tag":"g{tag}","text":"t{text}"}}"#,
            self.name()
        )
    }

    pub(crate) fn line(&self) -> String {
        if self.is_csv {
            let Self { picture, tag, text, .. } = self;
            let id = if self.has_id() { self.name() } else { String::new() };
            return format!("{id},{},p{picture}.png,g{tag},t{text}\n", self.name());
        }
        let fields = self.fields();
        if !self.has_id() {
            return format!("{fields}\n");
        }
        format!("{{\"id\":\"{}\",{}\n", self.name(), &fields[1..])
    }
}

/// The pipeline, the configuration and the pictures. Together with the items they determine the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setup {
    /// The variant of each step's prompt.
    pub(crate) prompts: [u8; STEPS.len()],
    pub(crate) system: u8,
    pub(crate) limit: u8,
    pub(crate) choices: u8,
    pub(crate) schema: u8,
    pub(crate) condition: u8,
    pub(crate) has_photo: bool,
    pub(crate) photo_is_optional: bool,
    pub(crate) has_last: bool,
    pub(crate) has_facts: bool,
    /// The route of each step.
    pub(crate) route_of: [usize; STEPS.len()],
    /// The targets of the two routes, in their order.
    pub(crate) routes: [Vec<usize>; 2],
    /// The model name that is sent for each target.
    pub(crate) models: [u8; 4],
    /// The price of each target, in US dollars per million tokens.
    pub(crate) prices: [u8; 4],
    /// The content variants of the two pictures.
    pub(crate) pictures: [u8; 2],
    /// How often a step is retried after an invalid answer.
    max_validation_retries: usize,
    /// Whether answers of other runs are reused.
    shares_answers: bool,
}

impl Setup {
    pub(crate) fn new(options: HistoryOptions) -> Self {
        Self {
            prompts: [0; STEPS.len()],
            system: 0,
            limit: 0,
            choices: 0,
            schema: 0,
            condition: 0,
            has_photo: true,
            photo_is_optional: false,
            has_last: true,
            has_facts: options.has_facts_step,
            route_of: [0, 0, 1, 1, 0],
            routes: [vec![0], vec![1, 2]],
            models: [0, 1, 2, 3],
            prices: [1; 4],
            pictures: [0; 2],
            max_validation_retries: options.max_validation_retries,
            shares_answers: options.shares_answers,
        }
    }

    pub(crate) fn has(&self, step: usize) -> bool {
        match step {
            2 => self.has_photo,
            3 => self.has_last,
            4 => self.has_facts,
            _ => true,
        }
    }

    pub(crate) fn choices(&self) -> &'static str {
        ["A, B, C", "A, B, D"][usize::from(self.choices % 2)]
    }

    /// Returns the property that the answer of `facts` must have.
    pub(crate) fn property(&self) -> &'static str {
        ["n", "m"][usize::from(self.schema % 2)]
    }

    pub(crate) fn model(&self, target: usize) -> String {
        format!("m{}", self.models[target])
    }

    /// Returns the targets of a step.
    pub(crate) fn targets(&self, step: usize) -> &[usize] {
        &self.routes[self.route_of[step]]
    }

    /// Returns the content of a picture.
    pub(crate) fn picture(&self, picture: u8) -> String {
        format!("picture {picture} variant {}", self.pictures[usize::from(picture % 2)])
    }

    fn pipeline(&self) -> String {
        let mut text = format!(
            "name = \"history\"\n[defaults]\ndeadline = \"20s\"\nmax_validation_retries = {}\nsystem = \"sys{}\"\n",
            self.max_validation_retries, self.system
        );
        if self.limit > 0 {
            writeln!(text, "max_tokens = {}", 100 + u32::from(self.limit)).unwrap();
        }
        for step in (0..STEPS.len()).filter(|step| self.has(*step)) {
            let rest = match step {
                0 => "{{ item.text }}",
                1 => "{{ item.tag }}",
                2 => "",
                4 => "{{ item.text }}",
                _ if self.has_photo => {
                    "{{ first }}/{{ kind }}/{% if photo is none %}-{% else %}{{ photo }}{% endif %}"
                }
                _ => "{{ first }}/{{ kind }}/-",
            };
            let name = STEPS[step];
            let prompt = self.prompts[step];
            writeln!(text, "[[step]]\nname = \"{name}\"\nroute = \"r{}\"", self.route_of[step]).unwrap();
            writeln!(text, "prompt = \"<{{{{ item.name }}}}/{name}/v{prompt}/{rest}>\"").unwrap();
            match step {
                1 => writeln!(text, "choice = [\"{}\"]", self.choices().replace(", ", "\", \"")).unwrap(),
                2 => writeln!(
                    text,
                    "attach = [\"{{{{ item.picture }}}}\"]\noptional = {}",
                    self.photo_is_optional
                )
                .unwrap(),
                4 => {
                    let property = self.property();
                    writeln!(
                        text,
                        "schema = {{ type = \"object\", properties = {{ {property} = {{ type = \"integer\" }} }}, \
                         required = [\"{property}\"], additionalProperties = false }}"
                    )
                    .unwrap();
                }
                3 if self.condition > 0 => {
                    writeln!(text, "when = \"kind != '{}'\"", self.skipped_kind()).unwrap();
                }
                _ => {}
            }
        }
        text
    }

    /// Returns the answer of `kind` for which `last` is skipped.
    pub(crate) fn skipped_kind(&self) -> &'static str {
        ["", "A", "B"][usize::from(self.condition % 3)]
    }

    fn config(&self, provider: &Provider) -> String {
        let mut text =
            "[run]\nmax_in_flight_items = 3\nmax_hold = \"300ms\"\n[retry]\nattempts_per_target = 1\n\
            max_rounds = 1\ninitial_backoff = \"1ms\"\nmax_backoff = \"2ms\"\n"
                .to_owned();
        let cache = if self.shares_answers { "store" } else { "run" };
        text = text.replacen("[run]\n", &format!("[run]\ncache = \"{cache}\"\n"), 1);
        for name in ["a", "b"] {
            let url = provider.url(name);
            writeln!(text, "[provider.{name}]\nbase_url = \"{url}\"").unwrap();
            writeln!(text, "retry_budget = {{ min_per_second = 1000.0 }}").unwrap();
            writeln!(
                text,
                "breaker = {{ consecutive_failures = 1, min_requests = 1000, open_duration = \"50ms\", \
                 max_open_duration = \"100ms\" }}"
            )
            .unwrap();
            for (target, (_, key)) in TARGETS.iter().enumerate().filter(|(_, target)| target.0 == name) {
                let model = self.model(target);
                let price = self.prices[target];
                writeln!(
                    text,
                    "models.{key} = {{ name = \"{model}\", price = {{ input = {price}.0, output = {price}.0 }} }}"
                )
                .unwrap();
            }
        }
        for (route, targets) in self.routes.iter().enumerate() {
            let names =
                targets.iter().map(|target| format!("\"{}/{}\"", TARGETS[*target].0, TARGETS[*target].1));
            let names: Vec<_> = names.collect();
            writeln!(text, "[route.r{route}]\ntargets = [{}]", names.join(", ")).unwrap();
        }
        text
    }

    /// Writes the pipeline, the configuration and the pictures.
    pub(crate) fn write(&self, folder: &Path, provider: &Provider) {
        std::fs::write(folder.join("pipeline.toml"), self.pipeline()).unwrap();
        std::fs::write(folder.join("other.toml"), self.pipeline()).unwrap();
        std::fs::write(folder.join("config.toml"), self.config(provider)).unwrap();
        for picture in 0..2 {
            std::fs::write(folder.join(format!("p{picture}.png")), self.picture(picture)).unwrap();
        }
    }
}
