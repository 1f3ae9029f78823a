//! A page to read the description of the API. It works without JavaScript, and loads nothing.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The style of the page. It is dark where the reader's system is.
const STYLE: &str = include_str!("documentation.css");

/// Keeps the page from loading anything, and from running anything but its own style.
static SECURITY_POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

/// The methods of operations, in the order of the page.
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// An operation of the document.
struct Operation<'d> {
    method: &'static str,
    path: &'d str,
    value: &'d Value,
}

/// Returns the value of `Content-Security-Policy`.
pub(super) fn security_policy() -> &'static str {
    &SECURITY_POLICY
}

/// Renders the page of an API that is mounted under `prefix`.
pub(super) fn render(document: &Value, prefix: &str) -> String {
    let info = &document["info"];
    let title = text(info, "title");
    let operations = operations(document);
    let tags = document["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_tag = |name: &str| {
        let is_of_tag = move |operation: &&Operation<'_>| operation.value["tags"][0].as_str() == Some(name);
        operations.iter().filter(is_of_tag).collect::<Vec<_>>()
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " API" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { (title) " API " (text(info, "version")) }
                    p { (prose(text(info, "description"))) }
                    p {
                        "A request has its token in " code { "Authorization: Bearer TOKEN" }
                        ". This page is made from " a href={ (prefix) "/api/openapi.json" } { "the OpenAPI document" } "."
                    }
                }
                nav aria-label="Operations" {
                    @for tag in tags {
                        h2 { a href={ "#tag-" (text(tag, "name")) } { (text(tag, "name")) } }
                        ul {
                            @for operation in of_tag(text(tag, "name")) {
                                li {
                                    a href={ "#" (text(operation.value, "operationId")) } {
                                        span .method { (operation.method) }
                                        code { (prefix) (operation.path) }
                                    }
                                    " " (prose(text(operation.value, "summary")))
                                }
                            }
                        }
                    }
                }
                main {
                    @for tag in tags {
                        section id={ "tag-" (text(tag, "name")) } {
                            h2 { (text(tag, "name")) }
                            p { (prose(text(tag, "description"))) }
                            @for operation in of_tag(text(tag, "name")) {
                                (section(operation, prefix))
                            }
                        }
                    }
                    section id="schemas" {
                        h2 { "Schemas" }
                        @for (name, schema) in fields(&document["components"]["schemas"]) {
                            section id={ "schema-" (name) } {
                                h3 { code { (name) } }
                                (schema_section(schema))
                            }
                        }
                    }
                }
            }
        }
    };
    page.into_string()
}

fn operations(document: &Value) -> Vec<Operation<'_>> {
    let mut operations = Vec::new();
    for (path, item) in fields(&document["paths"]) {
        for method in METHODS {
            if let Some(value) = item.get(method) {
                operations.push(Operation { method, path, value });
            }
        }
    }
    operations
}

fn section(operation: &Operation<'_>, prefix: &str) -> Markup {
    let Operation { method, path, value } = operation;
    let parameters = value["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    html! {
        article id=(text(value, "operationId")) {
            h3 {
                span .method { (method) }
                code { (prefix) (path) }
            }
            p { (prose(text(value, "summary"))) }
            @if !text(value, "description").is_empty() {
                p { (prose(text(value, "description"))) }
            }
            @if value.get("security").is_some() {
                p { "It needs no token." }
            }
            @if !parameters.is_empty() {
                h4 { "Parameters" }
                div .wide {
                    table {
                        (column_names(&["Name", "In", "Type", "Meaning"]))
                        tbody {
                            @for parameter in parameters {
                                tr {
                                    th scope="row" { code { (text(parameter, "name")) } }
                                    td { (text(parameter, "in")) @if parameter["required"] == true { ", required" } }
                                    td { (type_of(&parameter["schema"])) }
                                    td { (prose(text(parameter, "description"))) }
                                }
                            }
                        }
                    }
                }
            }
            @if let Some(body) = value.get("requestBody") {
                h4 { "Body" }
                @if !text(body, "description").is_empty() {
                    p { (prose(text(body, "description"))) }
                }
                (content(&body["content"]))
            }
            h4 { "Responses" }
            div .wide {
                table {
                    (column_names(&["Status", "Meaning", "Body"]))
                    tbody {
                        @for (status, response) in fields(&value["responses"]) {
                            tr {
                                th scope="row" { code { (status) } }
                                td { (prose(text(response, "description"))) }
                                td { (content(&response["content"])) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn column_names(names: &[&str]) -> Markup {
    html! {
        thead { tr { @for name in names { th scope="col" { (name) } } } }
    }
}

/// Renders the media types of a body with their schemas.
fn content(content: &Value) -> Markup {
    html! {
        @for (media_type, body) in fields(content) {
            div { code { (media_type) } " " (type_of(&body["schema"])) }
        }
    }
}

fn schema_section(schema: &Value) -> Markup {
    html! {
        @if !text(schema, "description").is_empty() {
            p { (prose(text(schema, "description"))) }
        }
        @for part in schema["allOf"].as_array().into_iter().flatten() {
            (schema_section(part))
        }
        @if schema.get("properties").is_some() {
            (properties(schema))
        } @else if schema.get("allOf").is_none() {
            p { (type_of(schema)) }
        }
    }
}

fn properties(schema: &Value) -> Markup {
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_required = |name: &str| required.iter().any(|required| required == name);
    html! {
        div .wide {
            table {
                (column_names(&["Field", "Type", "Meaning"]))
                tbody {
                    @for (name, property) in fields(&schema["properties"]) {
                        tr {
                            th scope="row" { code { (name) } @if is_required(name) { " required" } }
                            td { (type_of(property)) }
                            td { (prose(text(property, "description"))) }
                        }
                    }
                }
            }
        }
    }
}

/// Renders the type of a schema in a few words, with links to named ones.
fn type_of(schema: &Value) -> Markup {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = reference.rsplit('/').next().unwrap_or_default();
        return html! { a href={ "#schema-" (name) } { (name) } };
    }
    for alternatives in ["oneOf", "anyOf", "allOf"] {
        if let Some(all) = schema[alternatives].as_array() {
            return joined(all.iter().map(type_of).collect());
        }
    }
    if let Some(values) = schema["enum"].as_array() {
        return joined(values.iter().map(|value| html! { code { (value) } }).collect());
    }
    let names: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => vec!["any"],
    };
    let one = |name: &str| match name {
        "array" => html! { "list of " (type_of(&schema["items"])) },
        name => html! { (name) },
    };
    joined(names.into_iter().map(one).collect())
}

fn joined(all: Vec<Markup>) -> Markup {
    html! {
        @for (index, one) in all.iter().enumerate() {
            @if index > 0 { " or " }
            (one)
        }
    }
}

/// Renders a text in which code is between backticks.
fn prose(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_of_the_document_are_escaped_and_code_is_marked() {
        assert_eq!(prose("a `<b>` & c").into_string(), "a <code>&lt;b&gt;</code> &amp; c");
    }

    #[test]
    fn a_type_is_written_in_a_few_words() {
        let written = |schema: Value| type_of(&schema).into_string();
        assert_eq!(written(json!({ "type": ["string", "null"] })), "string or null");
        assert_eq!(written(json!({ "type": "array", "items": { "type": "integer" } })), "list of integer");
        assert_eq!(
            written(json!({ "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/Usage" }] })),
            "null or <a href=\"#schema-Usage\">Usage</a>"
        );
        assert_eq!(written(json!({})), "any");
    }

    #[test]
    fn the_policy_allows_the_style_of_the_page_alone() {
        let policy = security_policy();
        assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
