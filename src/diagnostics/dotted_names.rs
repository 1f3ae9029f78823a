//! Names with dots that are written without quotes, such as `[provider.openai.models.gpt-4.1]`.
//!
//! TOML reads such a name as two keys. Where one ends with a digit and the next one begins with a digit, they are a version,
//! and one name is meant.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::node::{Key, Node};

/// Any key, in the path of tables.
const ANY: &str = "*";

/// Returns `table` with the names joined in the tables at `place`, a path in which `*` is any key.
pub(super) fn with_joined_names<'i>(table: DeTable<'i>, place: &[&str]) -> DeTable<'i> {
    let Some((first, rest)) = place.split_first() else { return joined(table) };
    let mut changed = DeTable::new();
    for (key, value) in table {
        let is_on_path = *first == ANY || key.get_ref() == first;
        let span = value.span();
        let value = match value.into_inner() {
            DeValue::Table(inner) if is_on_path => DeValue::Table(with_joined_names(inner, rest)),
            other => other,
        };
        changed.insert(key, Spanned::new(span, value));
    }
    changed
}

/// Joins the names of the entries of a table.
fn joined<'i>(table: DeTable<'i>) -> DeTable<'i> {
    let written: Vec<String> = table.keys().map(|key| key.get_ref().to_string()).collect();
    let mut changed = DeTable::new();
    for (key, value) in table {
        add(key, value, &written, &mut changed);
    }
    changed
}

/// Adds an entry, and in place of its inner keys that continue its name the entries that are meant.
fn add<'i>(key: Key<'i>, value: Node<'i>, written: &[String], into: &mut DeTable<'i>) {
    let span = value.span();
    let DeValue::Table(inner) = value.get_ref() else {
        into.insert(key, value);
        return;
    };
    let continues = |name: &DeString<'_>| {
        let joined = format!("{}.{name}", key.get_ref());
        key.get_ref().ends_with(|letter: char| letter.is_ascii_digit())
            && name.starts_with(|letter: char| letter.is_ascii_digit())
            && !written.contains(&joined)
    };
    if !inner.keys().any(|name| continues(name.get_ref())) {
        into.insert(key, value);
        return;
    }
    let DeValue::Table(inner) = value.into_inner() else { return };
    let mut own = DeTable::new();
    let mut others = Vec::new();
    for (name, value) in inner {
        if continues(name.get_ref()) {
            let joined = format!("{}.{}", key.get_ref(), name.get_ref());
            let span = span_of_both(key.span(), name.span());
            others.push((Spanned::new(span, DeString::Owned(joined)), value));
        } else {
            own.insert(name, value);
        }
    }
    if !own.is_empty() {
        into.insert(key, Spanned::new(span, DeValue::Table(own)));
    }
    for (name, value) in others {
        add(name, value, written, into);
    }
}

/// Returns the span of two keys with a dot between them; that of the second if they stand apart.
fn span_of_both(first: Range<usize>, second: Range<usize>) -> Range<usize> {
    if first.end + 1 == second.start { first.start..second.end } else { second }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let table = DeTable::parse(text).unwrap().into_inner();
        let table = with_joined_names(table, &["p", ANY, "models"]);
        let mut found = Vec::new();
        let provider = table.get("p").unwrap().get_ref().as_table().unwrap();
        for (_, provider) in provider {
            let Some(models) = provider.get_ref().as_table().and_then(|provider| provider.get("models"))
            else {
                continue;
            };
            for (name, model) in models.get_ref().as_table().unwrap() {
                let keys = model.get_ref().as_table().into_iter().flat_map(|model| model.keys());
                let keys: Vec<String> = keys.map(|key| key.get_ref().to_string()).collect();
                let written = &text[name.span()];
                found.push(format!("{}={written}{{{}}}", name.get_ref(), keys.join(",")));
            }
        }
        found
    }

    #[test]
    fn a_version_is_one_name() {
        for (text, expected) in [
            ("[p.a.models.gpt-4.1]\nprice = 1\n", &["gpt-4.1=gpt-4.1{price}"][..]),
            ("[p.a]\nmodels.gpt-4.1-mini = { context = 1 }\n", &["gpt-4.1-mini=gpt-4.1-mini{context}"]),
            (
                "[p.a.models]\nllama3.2 = {}\nqwen2.5.1-x.price = 1\n",
                &["llama3.2=llama3.2{}", "qwen2.5.1-x=qwen2.5.1-x{price}"],
            ),
            (
                "[p.a.models.gpt-4]\ncontext = 1\n[p.a.models.gpt-4.1]\nprice = 1\n",
                &["gpt-4=gpt-4{context}", "gpt-4.1=1{price}"],
            ),
            ("[p.a.models.m]\nlimits.x = 1\n", &["m=m{limits}"]),
            ("[p.a.models.mistral.large]\n", &["mistral=mistral{large}"]),
            (
                "[p.a.models.\"gpt-4.1\"]\nprice = 1\n[p.a.models.gpt-4.1]\n",
                &["gpt-4.1=\"gpt-4.1\"{price}", "gpt-4=gpt-4{1}"],
            ),
            ("[p.b4.1]\nx = 1\n", &[]),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
    }
}
