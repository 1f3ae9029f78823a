//! Who looks at a page or sends a form, and the page that they get if something is wrong.

use std::fmt;
use std::pin::Pin;

use actix_web::body::BoxBody;
use actix_web::dev::Payload;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, LOCATION};
use actix_web::web::Data;
use actix_web::{FromRequest, HttpRequest, HttpResponse, ResponseError};
use maud::html;

use crate::daemon::{Caller, Permission};
use crate::server::access::{Identity, identify_form_sender, identify_reader};
use crate::server::api_state::ApiState;
use crate::server::problem::{Problem, ProblemType};

use super::layout::{Layout, respond};
use super::shown;

/// Who may see pages: a caller that sees everything, or at least its own runs.
const MAY_SEE: [Permission; 3] = [Permission::Read, Permission::Run, Permission::Admin];

/// Who may control runs.
const MAY_CONTROL: [Permission; 2] = [Permission::Run, Permission::Admin];

/// A reader of pages.
#[derive(Debug, Clone)]
pub(super) struct Visitor {
    pub(super) caller: Caller,
    /// Whether they may control runs.
    pub(super) can_control: bool,
    /// Whether they have logged in.
    pub(super) has_session: bool,
    /// The path under which the routes are mounted.
    pub(super) prefix: String,
}

/// The sender of a form.
#[derive(Debug, Clone)]
pub(super) struct FormSender(pub(super) Visitor);

/// An error, as a page. A reader without a token or a session gets the page to log in.
#[derive(Debug)]
pub(super) struct PageError {
    problem: Box<Problem>,
    prefix: String,
}

impl Visitor {
    fn of(identity: Identity, prefix: String) -> Self {
        let can_control = identity.has_any(&MAY_CONTROL);
        Self { can_control, has_session: identity.has_session, caller: identity.caller, prefix }
    }

    /// Returns an error as a page for this reader.
    pub(super) fn error(&self, error: impl Into<Problem>) -> PageError {
        PageError { problem: Box::new(error.into()), prefix: self.prefix.clone() }
    }

    /// Returns the page of an address that leads to nothing.
    pub(super) fn missing(&self) -> PageError {
        self.error(Problem::not_found("there is no such page"))
    }

    /// Returns what is around a page.
    pub(super) fn layout<'p>(&'p self, title: &'p str, live: Option<&'p str>) -> Layout<'p> {
        Layout { title, prefix: &self.prefix, has_session: self.has_session, live }
    }
}

impl PageError {
    /// Returns an error as a page, for a request whose sender is not known.
    pub(super) fn new(request: &HttpRequest, problem: Problem) -> Self {
        Self { problem: Box::new(problem), prefix: prefix_of(request) }
    }
}

fn prefix_of(request: &HttpRequest) -> String {
    let state = request.app_data::<Data<ApiState>>();
    state.map(|state| state.options.prefix.clone()).unwrap_or_default()
}

impl FromRequest for Visitor {
    type Error = PageError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, PageError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let found = identify_reader(&request).await;
            let allowed = found.and_then(|identity| allowed(identity, &MAY_SEE));
            let identity = allowed.map_err(|problem| PageError::new(&request, problem))?;
            Ok(Self::of(identity, prefix_of(&request)))
        })
    }
}

impl FromRequest for FormSender {
    type Error = PageError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, PageError>>>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move {
            let found = identify_form_sender(&request).await;
            let allowed = found.and_then(|identity| allowed(identity, &MAY_CONTROL));
            let identity = allowed.map_err(|problem| PageError::new(&request, problem))?;
            Ok(Self(Visitor::of(identity, prefix_of(&request))))
        })
    }
}

fn allowed(identity: Identity, permissions: &[Permission]) -> Result<Identity, Problem> {
    if identity.has_any(permissions) { Ok(identity) } else { Err(Problem::forbidden(permissions)) }
}

impl fmt::Display for PageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.problem, out)
    }
}

impl ResponseError for PageError {
    fn status_code(&self) -> StatusCode {
        self.problem.status_code()
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        let Self { problem, prefix } = self;
        let status = problem.status_code();
        if status == StatusCode::UNAUTHORIZED {
            return HttpResponse::SeeOther()
                .insert_header((LOCATION, format!("{prefix}/login")))
                .insert_header((CACHE_CONTROL, "no-store"))
                .finish();
        }
        let content = html! {
            h1 { (problem.title) }
            p .warning role="alert" { (shown::inline(&problem.detail)) }
            @for fault in &problem.diagnostics {
                pre { (shown::plain_lines(fault)) }
            }
            @if problem.kind == ProblemType::Changed {
                // The advice is for a program that sends JSON.
                p { "Repeat it with the box “although its models have changed” checked, or create a new run." }
            } @else if let Some(advice) = &problem.advice {
                p { (shown::inline(advice)) }
            }
            p { a href={ (prefix) "/" } { "To the overview" } }
            @if status == StatusCode::FORBIDDEN {
                p { a href={ (prefix) "/login" } { "Log in with another token" } }
            }
        };
        let layout = Layout { title: problem.title, prefix, has_session: false, live: None };
        respond(status, layout.page(&content))
    }
}
