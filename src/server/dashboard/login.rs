//! `/login` and `/logout`: a browser presents a token once, and has a session from then on.

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, LOCATION, SET_COOKIE};
use actix_web::web::{Data, Payload, Query};
use actix_web::{HttpRequest, HttpResponse};
use maud::{Markup, html};
use serde::Deserialize;

use crate::server::access::check_same_origin;
use crate::server::api_state::ApiState;
use crate::server::body;
use crate::server::problem::Problem;
use crate::server::session_cookie;

use super::layout::{Layout, respond};
use super::visitor::PageError;

/// The media type of forms.
const FORM: &str = "application/x-www-form-urlencoded";

/// The longest body of a form, in bytes.
const MAX_FORM_BYTES: usize = 8 << 10;

/// The fields of the form.
#[derive(Deserialize)]
struct LoginForm {
    token: String,
}

/// Shows the form.
pub(super) async fn show(state: Data<ApiState>) -> HttpResponse {
    page(&state, StatusCode::OK, None)
}

/// Begins a session.
pub(super) async fn log_in(
    request: HttpRequest,
    state: Data<ApiState>,
    payload: Payload,
) -> Result<HttpResponse, PageError> {
    let problem = |problem: Problem| PageError::new(&request, problem);
    check_same_origin(&request).map_err(problem)?;
    let form: LoginForm = read_form(&request, payload, &state).await.map_err(problem)?;
    let login = state.daemon.log_in(form.token.trim()).await.map_err(|error| problem(error.into()))?;
    let Some(login) = login else {
        return Ok(page(&state, StatusCode::FORBIDDEN, Some("The token is not valid.")));
    };
    let cookie = session_cookie::begin(&request, &state.options.prefix, &login);
    Ok(redirect(&state, "/", Some(cookie)))
}

/// Ends the session.
pub(super) async fn log_out(request: HttpRequest, state: Data<ApiState>) -> Result<HttpResponse, PageError> {
    check_same_origin(&request).map_err(|problem| PageError::new(&request, problem))?;
    if let Some(session) = session_cookie::session(&request) {
        state.daemon.log_out(session);
    }
    let cookie = session_cookie::end(&request, &state.options.prefix);
    Ok(redirect(&state, "/login", Some(cookie)))
}

/// Reads the fields of a form.
///
/// # Errors
/// If the body is no form, or is too large or too slow.
pub(super) async fn read_form<T: serde::de::DeserializeOwned>(
    request: &HttpRequest,
    payload: Payload,
    state: &ApiState,
) -> Result<T, Problem> {
    body::expect_type(request, &[FORM])?;
    let text = body::short_text(request, payload, state, MAX_FORM_BYTES).await?;
    // A body of a form is written as the query of a URL.
    let fields = Query::<T>::from_query(&text);
    fields.map(Query::into_inner).map_err(|_| Problem::bad_request("the form has not the expected fields"))
}

/// Returns the response that leads to another page.
pub(super) fn redirect(state: &ApiState, path: &str, cookie: Option<String>) -> HttpResponse {
    let mut response = HttpResponse::SeeOther();
    response.insert_header((LOCATION, format!("{}{path}", state.options.prefix)));
    response.insert_header((CACHE_CONTROL, "no-store"));
    if let Some(cookie) = cookie {
        response.insert_header((SET_COOKIE, cookie));
    }
    response.finish()
}

fn page(state: &ApiState, status: StatusCode, error: Option<&str>) -> HttpResponse {
    let prefix = state.options.prefix.as_str();
    let layout = Layout { title: "Log in", prefix, has_session: false, live: None };
    respond(status, layout.page(&form(prefix, error)))
}

fn form(prefix: &str, error: Option<&str>) -> Markup {
    html! {
        h1 { "Log in" }
        @if let Some(error) = error {
            p #error .warning role="alert" { (error) }
        }
        form .login method="post" action={ (prefix) "/login" } {
            label for="token" { "Token" }
            input #token type="password" name="token" required autocomplete="current-password" spellcheck="false"
                aria-describedby=[error.map(|_| "error")];
            button type="submit" { "Log in" }
        }
        p .note {
            code { "pointsman token new" }
            " creates a token. The session lasts for 12 hours, and ends when the token is revoked."
        }
        p { a href={ (prefix) "/" } { "I have logged in already" } }
    }
}
