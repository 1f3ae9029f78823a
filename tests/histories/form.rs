//! The form of a history: how items are written, and how results are.

/// What stays the same through a whole history.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Form {
    /// The items are CSV, in which every field is a text, and each has an `id`, empty where there is none.
    pub(crate) csv_items: bool,
    /// The results are CSV.
    pub(crate) csv_out: bool,
    /// Results come in the order of the input.
    pub(crate) ordered: bool,
    /// Records that are no items are written to a file.
    pub(crate) rejects: bool,
    /// The input has such records, and items with one key.
    pub(crate) bad_records: bool,
    /// How often a wrong answer is asked for again.
    pub(crate) reasks: usize,
    /// There is a step with a schema.
    pub(crate) facts: bool,
}

impl Form {
    /// The form of a seed: each part is there in every second one, and half of all seeds have only one part.
    pub(crate) fn of(seed: u64) -> Self {
        let parts =
            if seed.is_multiple_of(2) { 1 << (seed / 2 % 7) } else { seed.wrapping_mul(0x9e37_79b9) >> 16 };
        let has = |part: u32| parts >> part & 1 == 1;
        Self {
            csv_items: has(0),
            csv_out: has(1),
            ordered: has(2),
            rejects: has(3) || has(4),
            bad_records: has(4),
            reasks: usize::from(has(5)),
            facts: has(6),
        }
    }

    pub(crate) fn items_file(self) -> &'static str {
        if self.csv_items { "items.csv" } else { "items.jsonl" }
    }

    pub(crate) fn out_file(self) -> &'static str {
        if self.csv_out { "o.csv" } else { "o.jsonl" }
    }

    /// The command that runs a pipeline in this form.
    pub(crate) fn run(self, pipeline: &str) -> String {
        let ordered = if self.ordered { " --ordered" } else { "" };
        let rejects = if self.rejects { " --rejects r.jsonl" } else { "" };
        format!("run {pipeline} --items {} --out {}{ordered}{rejects}", self.items_file(), self.out_file())
    }
}
