//! The options of a history: formats of items and results, and which features are used.

/// Options that stay the same through a whole history.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HistoryOptions {
    /// The items are CSV: every field is a text, and an item without an `id` has an empty one.
    pub(crate) csv_items: bool,
    /// The results are CSV.
    pub(crate) csv_output: bool,
    /// Results are in the order of the input.
    pub(crate) ordered: bool,
    /// Rejected records are written to a file.
    pub(crate) rejects: bool,
    /// The input contains malformed records and items with duplicate keys.
    pub(crate) bad_records: bool,
    /// How often a step is retried after an invalid answer.
    pub(crate) max_validation_retries: usize,
    /// The pipeline has a step with a schema.
    pub(crate) has_facts_step: bool,
    /// Answers of other runs are reused.
    pub(crate) shares_answers: bool,
}

impl HistoryOptions {
    /// Returns the options of a seed. Half of all seeds enable exactly one feature. In the other half each
    /// feature is enabled with probability 1/2.
    pub(crate) fn for_seed(seed: u64) -> Self {
        let features =
            if seed.is_multiple_of(2) { 1 << (seed / 2 % 7) } else { seed.wrapping_mul(0x9e37_79b9) >> 16 };
        let has = |feature: u32| features >> feature & 1 == 1;
        Self {
            csv_items: has(0),
            csv_output: has(1),
            ordered: has(2),
            rejects: has(3) || has(4),
            bad_records: has(4),
            max_validation_retries: usize::from(has(5)),
            has_facts_step: has(6),
            shares_answers: false,
        }
    }

    /// Returns these options with answers that all runs share.
    pub(crate) fn sharing_answers(self) -> Self {
        Self { shares_answers: true, ..self }
    }

    pub(crate) fn items_file(self) -> &'static str {
        if self.csv_items { "items.csv" } else { "items.jsonl" }
    }

    pub(crate) fn output_file(self) -> &'static str {
        if self.csv_output { "o.csv" } else { "o.jsonl" }
    }

    /// Returns the arguments that run `pipeline` with these options.
    pub(crate) fn run_arguments(self, pipeline: &str) -> String {
        let ordered = if self.ordered { " --ordered" } else { "" };
        let rejects = if self.rejects { " --rejects r.jsonl" } else { "" };
        let columns = if self.csv_output { " --output-columns full" } else { "" };
        format!(
            "run {pipeline} --items {} --out {}{ordered}{rejects}{columns}",
            self.items_file(),
            self.output_file()
        )
    }
}
