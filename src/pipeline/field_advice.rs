//! Advice for what authors write in templates and conditions as in other programs: fields whose names are no identifiers,
//! and braces around a condition.

use std::ops::Range;

use super::starter::field_expression;

const ITEM: &str = "item.";

/// Returns advice for an unknown name at `range` that is a part of a field with dashes: `item.E-Mail` subtracts `Mail`.
pub(super) fn dashed_field_advice(text: &str, range: &Range<usize>) -> Option<String> {
    let before = text.get(..range.start)?;
    let start = before.rfind(|letter: char| !is_name_letter(letter) && letter != '-').map_or(0, |at| at + 1);
    let first_part = before.get(start..)?;
    if !before[..start].ends_with(ITEM) || !first_part.ends_with('-') || first_part.len() < 2 {
        return None;
    }
    let rest = text.get(range.start..)?;
    let end = rest.find(|letter: char| !is_name_letter(letter) && letter != '-').unwrap_or(rest.len());
    let field = format!("{first_part}{}", rest[..end].trim_end_matches('-'));
    Some(format!("`-` subtracts; write {}", field_expression(&field)))
}

/// Returns advice for a template or a condition that is no valid one.
pub(super) fn syntax_advice(text: &str, is_condition: bool) -> Option<String> {
    if is_condition && (text.contains("{{") || text.contains("{%")) {
        let inner = text.trim();
        let inner = inner.strip_prefix("{{").and_then(|inner| inner.strip_suffix("}}")).map(str::trim);
        return Some(match inner.filter(|inner| !inner.is_empty() && !inner.contains(['{', '}'])) {
            Some(inner) => format!("a condition has no braces: write when = {}", toml::Value::from(inner)),
            None => {
                "a condition is an expression without braces, such as when = \"item.amount > 3\"".to_owned()
            }
        });
    }
    let field = text.match_indices(ITEM).find_map(|(at, _)| {
        let is_inside = text[..at].ends_with(|letter: char| is_name_letter(letter) || letter == '.');
        let rest = &text[at + ITEM.len()..];
        let end = rest.find(|letter: char| !is_name_letter(letter) && letter != '-').unwrap_or(rest.len());
        let field = rest[..end].trim_end_matches('-');
        let is_odd = !field.is_empty() && field_expression(field) != format!("{ITEM}{field}");
        (!is_inside && is_odd).then_some(field)
    })?;
    Some(format!("the name of this field is no identifier; write {}", field_expression(field)))
}

fn is_name_letter(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_with_a_dash_is_recognised_at_its_second_part() {
        for (text, name, advice) in [
            ("{{ item.E-Mail }}", "Mail", Some("write item[\"E-Mail\"]")),
            ("{{ item.a-b-c | upper }}", "b", Some("write item[\"a-b-c\"]")),
            ("{{ item.a - b }}", "b", None),
            ("{{ x.a-b }}", "b", None),
            ("{{ a-b }}", "b", None),
        ] {
            let start = text.rfind(name).unwrap();
            let found = dashed_field_advice(text, &(start..start + name.len()));
            assert_eq!(found.is_some(), advice.is_some(), "{text}");
            assert!(found.unwrap_or_default().contains(advice.unwrap_or_default()), "{text}");
        }
    }

    #[test]
    fn braces_in_a_condition_and_odd_fields_have_advice() {
        for (text, is_condition, advice) in [
            ("{{ item.x == 1 }}", true, Some("write when = \"item.x == 1\"")),
            ("{% if item.x %}true{% endif %}", true, Some("without braces")),
            ("item.x ==", true, None),
            ("{{ item.2nd }}", false, Some("write item[\"2nd\"]")),
            ("{{ item.größe }}", false, Some("write item[\"größe\"]")),
            ("{{ my_item.2nd }} {{ item.x }}", false, None),
        ] {
            let found = syntax_advice(text, is_condition);
            assert_eq!(found.is_some(), advice.is_some(), "{text}: {found:?}");
            assert!(found.unwrap_or_default().contains(advice.unwrap_or_default()), "{text}");
        }
    }
}
