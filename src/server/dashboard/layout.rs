//! What all pages have: their head, their header, and the headers of their responses.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use maud::{DOCTYPE, Markup, html};

/// Lets a page load and send to nothing but this server, and run nothing but its script.
const SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; \
                               connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// What is around the content of a page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout<'p> {
    /// The title of the page.
    pub(super) title: &'p str,
    /// The path under which the routes are mounted.
    pub(super) prefix: &'p str,
    /// Whether the reader has logged in, so that they can log out.
    pub(super) has_session: bool,
    /// The path of the stream with the updates of the page; `None` for a page that does not change.
    pub(super) live: Option<&'p str>,
}

impl Layout<'_> {
    /// Renders a page.
    pub(super) fn page(&self, content: &Markup) -> Markup {
        let Self { title, prefix, has_session, live } = *self;
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (title) " - Pointsman" }
                    link rel="icon" href={ (prefix) "/assets/pointsman.svg" };
                    link rel="stylesheet" href={ (prefix) "/assets/pointsman.css" };
                    script src={ (prefix) "/assets/pointsman.js" } defer {}
                }
                body data-live=[live] {
                    a .skip href="#main" { "Skip to content" }
                    header .top {
                        a .brand href={ (prefix) "/" } { "Pointsman" }
                        nav aria-label="Main" {
                            a href={ (prefix) "/" } { "Overview" }
                            a href={ (prefix) "/api/docs" } { "API" }
                        }
                        @if live.is_some() {
                            p .connection {
                                span #connection role="status" {}
                                button #pause type="button" hidden { "Pause updates" }
                            }
                        }
                        @if has_session {
                            form method="post" action={ (prefix) "/logout" } { button type="submit" { "Log out" } }
                        }
                    }
                    main #main tabindex="-1" { (content) }
                    footer { "Pointsman " (env!("CARGO_PKG_VERSION")) }
                }
            }
        }
    }
}

/// Returns the response with a page.
pub(super) fn respond(status: StatusCode, page: Markup) -> HttpResponse {
    HttpResponse::build(status)
        .insert_header((CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((CONTENT_SECURITY_POLICY, SECURITY_POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        // Not `no-referrer`: with that a browser hides the origin of the forms, which has to be checked.
        .insert_header((REFERRER_POLICY, "same-origin"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(page.into_string())
}
