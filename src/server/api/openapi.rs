//! `/api/openapi.json`: the description of the API (OpenAPI 3.1), and `/api/docs`, a page to read it.
//!
//! Both need no token: they are the same for every daemon of this version, and say nothing of one.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{self, Data, ServiceConfig};
use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::Server;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::server::api_state::ApiState;
use crate::server::problem::Problem;

use super::documentation;
use super::problems::AnyProblem;

/// Adds the routes.
pub(super) fn configure(app: &mut ServiceConfig) {
    app.service(web::resource("/openapi.json").route(web::get().to(document)))
        .service(web::resource("/docs").route(web::get().to(page)));
}

/// The document, as the attributes of the handlers describe it.
static DOCUMENT: LazyLock<Document> = LazyLock::new(Api::openapi);

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Pointsman",
        description = "Sends large numbers of requests to language models within the limits of the providers, and resumes \
                       after a crash. Errors are problem details (RFC 9457). Every response has `X-Request-Id`.",
    ),
    paths(
        super::pipelines::list,
        super::pipelines::show,
        super::pipelines::put,
        super::pipelines::delete,
        super::pipelines::check,
        super::pipelines::versions,
        super::pipelines::version,
        super::items::submit,
        super::items::show,
        super::runs::list,
        super::runs::create,
        super::uploads::upload,
        super::runs::show,
        super::runs::delete,
        super::runs::hold,
        super::runs::resume,
        super::runs::cancel,
        super::runs::retry,
        super::run_data::report,
        super::run_data::results,
        super::run_data::failures,
        super::run_data::rejects,
        super::run_data::items,
        super::run_data::item,
        super::events::of_run,
        super::events::all,
        super::requests::send,
        super::providers::list,
        super::providers::show,
        super::providers::set_breaker,
        super::providers::drain,
        super::providers::resume,
        super::providers::reload_keys,
        super::configuration::show,
        super::configuration::check,
        super::configuration::reload,
        super::configuration::prices,
        super::configuration::spending,
        super::configuration::caps,
        super::tokens::list,
        super::tokens::create,
        super::tokens::revoke,
        super::status::show,
        super::operation::health,
        super::operation::ready,
        super::operation::metrics,
        document,
        page,
    ),
    components(schemas(Problem)),
    modifiers(&TokenScheme),
    security(("token" = [])),
    tags(
        (name = "pipelines", description = "Pipelines: files that the configuration names, and stored versions."),
        (name = "items", description = "Items one at a time. They share a run of their pipeline."),
        (name = "runs", description = "Runs: many items through a pipeline."),
        (name = "events", description = "What happens, as event streams."),
        (name = "requests", description = "Single requests, outside of runs."),
        (name = "providers", description = "Providers: their state, breakers and keys."),
        (name = "configuration", description = "The configuration in use."),
        (name = "money", description = "Prices, spending and caps."),
        (name = "tokens", description = "Tokens: who may do what."),
        (name = "operation", description = "Health, metrics and this document."),
    ),
)]
struct Api;

/// Adds the scheme of tokens.
struct TokenScheme;

impl Modify for TokenScheme {
    fn modify(&self, document: &mut Document) {
        let description =
            "A token of `pointsman token new`. A daemon that listens only on this machine needs none.";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

/// Returns this document.
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    tag = "operation",
    operation_id = "show_openapi",
    security(()),
    responses((status = 200, description = "The description of the API (OpenAPI 3.1).", body = Object), AnyProblem),
)]
async fn document(state: Data<ApiState>) -> HttpResponse {
    HttpResponse::Ok().json(mounted_at(&state.options.prefix))
}

/// Returns the document of an API that is mounted under this path.
fn mounted_at(prefix: &str) -> Document {
    let mut document = DOCUMENT.clone();
    document.servers = Some(vec![Server::new(if prefix.is_empty() { "/" } else { prefix })]);
    document
}

/// Returns a page to read this document.
///
/// It works without JavaScript and loads nothing from elsewhere.
#[utoipa::path(
    get,
    path = "/api/docs",
    tag = "operation",
    operation_id = "show_documentation",
    security(()),
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"), AnyProblem),
)]
async fn page(state: Data<ApiState>) -> HttpResponse {
    let prefix = &state.options.prefix;
    let document = serde_json::to_value(mounted_at(prefix)).unwrap_or_default();
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header(("content-security-policy", documentation::security_policy()))
        .insert_header(("x-content-type-options", "nosniff"))
        .insert_header(("referrer-policy", "no-referrer"))
        .body(documentation::render(&document, prefix))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    const METHODS: [&str; 5] = ["get", "put", "post", "delete", "patch"];

    fn json() -> Value {
        serde_json::to_value(mounted_at("")).unwrap()
    }

    /// Returns the method, the path and the description of each operation.
    fn operations(document: &Value) -> Vec<(String, String, &Value)> {
        let mut found = Vec::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in METHODS {
                if let Some(operation) = item.get(method) {
                    found.push((method.to_owned(), path.clone(), operation));
                }
            }
        }
        found
    }

    /// Returns the routes in the text of a handler file: `web::resource("/a").route(web::get()` and
    /// `.route("/a", web::get()`.
    fn routes(text: &str, prefix: &str) -> BTreeSet<(String, String)> {
        let code = text.split("#[cfg(test)]").next().unwrap();
        let mut found = BTreeSet::new();
        let mut path = "";
        let mut rest = code;
        while let Some(at) = rest.find(['"', 'w']) {
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("\"/") {
                let end = after.find('"').unwrap();
                path = &rest[1..end + 2];
                rest = &after[end + 1..];
                continue;
            }
            let method = rest.strip_prefix("web::").and_then(|after| {
                METHODS
                    .into_iter()
                    .find(|method| after.strip_prefix(*method).is_some_and(|after| after.starts_with("()")))
            });
            if let Some(method) = method {
                found.insert((method.to_owned(), format!("{prefix}{path}")));
            }
            rest = &rest[1..];
        }
        found
    }

    #[test]
    fn the_document_has_every_route_and_no_other() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/server/api");
        let mut registered = BTreeSet::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let prefix = match path.file_name().unwrap().to_str().unwrap() {
                "mod.rs" => "",
                "openapi.rs" => "/api",
                _ => "/api/v1",
            };
            let text = std::fs::read_to_string(&path).unwrap();
            registered.extend(routes(&text, prefix));
        }
        let document = json();
        let described: BTreeSet<_> =
            operations(&document).into_iter().map(|(method, path, _)| (method, path)).collect();
        let missing: Vec<_> = registered.difference(&described).collect();
        let unknown: Vec<_> = described.difference(&registered).collect();
        assert!(registered.len() > 40, "the test has read nothing: {registered:?}");
        assert!(
            missing.is_empty() && unknown.is_empty(),
            "not described: {missing:#?}\nno such route: {unknown:#?}"
        );
    }

    #[test]
    fn every_operation_says_how_it_fails_and_has_a_name_and_a_tag_of_its_own() {
        let document = json();
        let tags: Vec<&str> =
            document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
        let mut ids = BTreeSet::new();
        for (method, path, operation) in operations(&document) {
            let at = format!("{method} {path}");
            let responses = operation["responses"].as_object().unwrap();
            let failures: Vec<_> =
                responses.iter().filter(|(status, _)| !status.starts_with(['2', '3'])).collect();
            let is_open = operation.get("security").is_some();
            assert!(failures.iter().any(|(status, _)| *status == "default"), "{at}");
            assert!(is_open || responses.contains_key("401") && responses.contains_key("403"), "{at}");
            for (status, response) in failures {
                let schema =
                    response["content"].as_object().unwrap().values().next().unwrap()["schema"]["$ref"]
                        .as_str();
                let is_readiness = path == "/ready" && status == "503";
                assert!(
                    schema == Some("#/components/schemas/Problem") || is_readiness,
                    "{at} {status}: {response}"
                );
            }
            assert!(operation["summary"].as_str().is_some_and(|summary| summary.ends_with('.')), "{at}");
            assert!(tags.contains(&operation["tags"][0].as_str().unwrap()), "{at}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{at}");
        }
    }

    /// Collects the values of all `$ref`.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    found.insert(reference.to_owned());
                }
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(all) => all.iter().for_each(|value| references(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = json();
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
        }
    }

    /// Two types with one name would have one schema.
    #[test]
    fn every_schema_has_a_name_of_its_own() {
        let mut names = BTreeSet::new();
        for folder in ["src/daemon", "src/config", "src/server", "src/server/api"] {
            for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_none_or(|extension| extension != "rs") {
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                for part in code.split("ToSchema)").skip(1) {
                    let renamed = part.split("struct ").next().unwrap().split("schema(as = ").nth(1);
                    let declared = part.split(['{', '(', ';']).find_map(|head| {
                        let (_, name) = head.split_once("struct ").or_else(|| head.split_once("enum "))?;
                        name.split_whitespace().next()
                    });
                    let name = renamed.and_then(|name| name.split(')').next()).or(declared).unwrap();
                    assert!(names.insert(name.to_owned()), "{}: {name}", path.display());
                }
            }
        }
        assert!(names.len() > 20, "the test has read nothing: {names:?}");
    }

    #[test]
    fn only_what_says_nothing_of_the_daemon_needs_no_token() {
        let document = json();
        assert_eq!(document["security"], serde_json::json!([{ "token": [] }]));
        let open: Vec<_> = operations(&document)
            .into_iter()
            .filter(|(_, _, operation)| operation.get("security").is_some())
            .map(|(_, path, _)| path)
            .collect();
        assert_eq!(open, ["/api/docs", "/api/openapi.json", "/health", "/ready"]);
        assert_eq!(document["openapi"], "3.1.0");
    }

    #[test]
    fn a_mounted_api_has_its_prefix_as_the_server() {
        let mounted = serde_json::to_value(mounted_at("/llm")).unwrap();
        assert_eq!(mounted["servers"][0]["url"], "/llm");
    }

    #[test]
    fn the_page_shows_every_operation_and_loads_nothing() {
        let document = json();
        let page = documentation::render(&document, "/llm");
        for (_, path, operation) in operations(&document) {
            assert!(
                page.contains(&format!("id=\"{}\"", operation["operationId"].as_str().unwrap())),
                "{path}"
            );
            assert!(page.contains(&format!("/llm{path}")), "{path}");
        }
        for loading in ["<script", "src=", "@import", "url(", "href=\"http"] {
            assert!(!page.contains(loading), "{loading}");
        }
    }
}
