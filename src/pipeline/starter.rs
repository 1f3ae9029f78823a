//! A first pipeline, made from the fields of the items.

/// How many fields the prompt shows. The others are only listed.
const MAX_SHOWN_FIELDS: usize = 20;

/// The longest label of a field in the prompt, in characters.
const MAX_LABEL_CHARS: usize = 60;

/// How many fields are listed.
const MAX_LISTED_FIELDS: usize = 200;

/// The field that names an item.
const KEY_FIELD: &str = "id";

/// Returns the text of a pipeline with the name `name` that asks one question about each item. `fields` are those of the
/// items, in their order. The text has comments that explain it.
pub fn starter(name: &str, fields: &[String]) -> String {
    let asked: Vec<&String> =
        fields.iter().filter(|field| *field != KEY_FIELD || fields.len() == 1).collect();
    let shown = asked.iter().take(MAX_SHOWN_FIELDS);
    let lines: Vec<String> =
        shown.map(|field| format!("{}: {{{{ {} }}}}", label(field), field_expression(field))).collect();
    let question = if lines.is_empty() { "Write one sentence.".to_owned() } else { lines.join("\n") };
    let prompt = format!("Describe this record in one short sentence.\n\n{question}\n");
    let listed = fields.iter().take(MAX_LISTED_FIELDS);
    let listed: String =
        listed.map(|field| format!("#   {}\n", one_line(&field_expression(field)))).collect();
    let more = match fields.len().saturating_sub(MAX_LISTED_FIELDS) {
        0 => String::new(),
        more => format!("#   and {more} more\n"),
    };
    let name = toml::Value::from(name);
    let prompt = toml_text(&prompt);
    format!(
        "\
# A pipeline: what is asked about each item. `pointsman check` with the name of this file checks it.
name = {name}

# The fields of an item, as templates name them:
{listed}{more}
[[step]]
name = \"answer\"
max_tokens = 300
# Replace this by your question.
prompt = {prompt}
# What else a step can have:
#
# An answer out of a list:
# choice = [\"positive\", \"neutral\", \"negative\"]
#
# An answer in JSON with these fields:
# [step.schema]
# type = \"object\"
# required = [\"topic\", \"urgent\"]
# properties = {{ topic = {{ type = \"string\" }}, urgent = {{ type = \"boolean\" }} }}
#
# A model that the configuration calls otherwise than the default:
# route = \"large\"
#
# A second step uses the answer of the first, and runs only if its condition holds:
# [[step]]
# name = \"reply\"
# when = 'answer == \"negative\"'
# prompt = \"Write a reply to a customer whose message was: {{{{ answer }}}}\"
"
    )
}

/// Returns the expression of a field in a template: `item.name`, or `item[\"a name\"]` for a name that is no identifier.
pub fn field_expression(field: &str) -> String {
    let is_first = |letter: char| letter.is_ascii_alphabetic() || letter == '_';
    let is_identifier = field.starts_with(is_first)
        && field.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
    if is_identifier {
        return format!("item.{field}");
    }
    // A text of JSON is one of a template.
    format!("item[{}]", serde_json::Value::from(field))
}

/// Returns the name of a field for the prompt, without what a template or a line would read in it.
fn label(field: &str) -> String {
    let plain = one_line(field);
    let plain = plain.chars().filter(|letter| !"{}%#".contains(*letter)).take(MAX_LABEL_CHARS);
    plain.collect::<String>().trim().to_owned()
}

fn one_line(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// Returns a text of several lines as TOML, as it would be written by hand.
fn toml_text(text: &str) -> String {
    let mut written = String::new();
    for letter in text.chars() {
        match letter {
            '\\' => written.push_str("\\\\"),
            '\n' => written.push('\n'),
            letter if letter.is_control() => written.push_str(&format!("\\u{:04X}", u32::from(letter))),
            letter => written.push(letter),
        }
    }
    // Three quotes would end it.
    format!("\"\"\"\n{}\"\"\"\n", written.replace("\"\"\"", "\"\"\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_with_any_name_is_named_in_a_template() {
        assert_eq!(field_expression("text"), "item.text");
        assert_eq!(field_expression("E-Mail"), "item[\"E-Mail\"]");
        assert_eq!(field_expression("2nd"), "item[\"2nd\"]");
        assert_eq!(field_expression(""), "item[\"\"]");
    }
}
