//! Who may do what: the caller of a request and the permission that a handler needs.
//!
//! A handler has one of the extractors [`Reader`], [`Viewer`], [`Runner`], [`Requester`] or [`Administrator`] as an
//! argument. A request without a valid token gets 401, and one whose token lacks the permission 403, before the handler runs.
//!
//! A browser that has logged in sends the cookie of its session instead of a token. It is accepted where a page of another
//! site can do no harm with it: to read, and for the forms of the dashboard, which are proven to come from its own pages.

use std::future::Future;
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HOST, HeaderValue, ORIGIN};
use actix_web::http::uri::Authority;
use actix_web::web::Data;
use actix_web::{FromRequest, HttpMessage, HttpRequest};

use crate::daemon::{Access, Caller, Permission};

use super::api_state::ApiState;
use super::problem::Problem;
use super::session_cookie;

/// The scheme of tokens in `Authorization`.
const BEARER: &str = "Bearer ";

/// A caller that may see everything.
#[derive(Debug, Clone)]
pub(super) struct Reader;

/// A caller that may see its own runs, or all.
#[derive(Debug, Clone)]
pub(super) struct Viewer(pub(super) Caller);

/// A caller that may create runs and control its own.
#[derive(Debug, Clone)]
pub(super) struct Runner(pub(super) Caller);

/// A caller that may send requests.
#[derive(Debug, Clone)]
pub(super) struct Requester(pub(super) Caller);

/// A caller that may do everything.
#[derive(Debug, Clone)]
pub(super) struct Administrator(pub(super) Caller);

/// The name of the token of a request, for the access log.
#[derive(Debug, Clone)]
pub(super) struct CallerName(pub(super) String);

/// Who sends a request.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) caller: Caller,
    /// What a token allows; `None` where none is needed.
    access: Option<Access>,
    /// Whether it is a browser that has logged in.
    pub(super) has_session: bool,
}

impl Identity {
    /// Returns whether it has one of these permissions.
    pub(super) fn has_any(&self, allowed: &[Permission]) -> bool {
        self.access.as_ref().is_none_or(|access| access.has_any(allowed))
    }
}

/// Returns the caller of a request if it has one of these permissions.
async fn caller(request: &HttpRequest, allowed: &[Permission]) -> Result<Caller, Problem> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let identity = identify(request, is_read && !is_from_other_site(request)).await?;
    if identity.has_any(allowed) { Ok(identity.caller) } else { Err(Problem::forbidden(allowed)) }
}

/// Returns who sends a request to read something.
///
/// # Errors
/// If it has no valid token and no session.
pub(super) async fn identify_reader(request: &HttpRequest) -> Result<Identity, Problem> {
    identify(request, !is_from_other_site(request)).await
}

/// Returns who sends a form of the dashboard.
///
/// # Errors
/// If the form does not come from a page of this server, or the request has no valid token and no session.
pub(super) async fn identify_form_sender(request: &HttpRequest) -> Result<Identity, Problem> {
    check_same_origin(request)?;
    identify(request, true).await
}

/// Returns who sends a request. `accepts_session` is whether the session of a browser is enough.
async fn identify(request: &HttpRequest, accepts_session: bool) -> Result<Identity, Problem> {
    let state = request.app_data::<Data<ApiState>>().ok_or_else(Problem::unauthorized)?;
    let token = bearer_token(request);
    if token.is_none() && !state.options.needs_tokens {
        check_local(request, state)?;
        return Ok(Identity { caller: Caller::operator(), access: None, has_session: false });
    }
    let session = session_cookie::session(request).filter(|_| token.is_none() && accepts_session);
    let found = match (token, session) {
        (Some(token), _) => state.daemon.authenticate(token).await?,
        (None, Some(session)) => state.daemon.session_access(session).await?,
        (None, None) => None,
    };
    let Some(access) = found else { return Err(Problem::unauthorized()) };
    request.extensions_mut().insert(CallerName(access.caller.name.clone()));
    Ok(Identity { caller: access.caller.clone(), access: Some(access), has_session: session.is_some() })
}

/// Returns whether a browser says that a page of another site has made it send the request.
fn is_from_other_site(request: &HttpRequest) -> bool {
    header(request, "sec-fetch-site").is_some_and(|site| matches!(site, "cross-site" | "same-site"))
}

/// Refuses a form that is not proven to come from a page of this server. A browser says so itself; one that is too old, or
/// that has no TLS to a distant server, names the origin of the page.
///
/// # Errors
/// 403 without that proof.
pub(super) fn check_same_origin(request: &HttpRequest) -> Result<(), Problem> {
    let is_same = match header(request, "sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => header(request, "origin").is_some_and(|origin| is_own_origin(request, origin)),
    };
    if is_same { Ok(()) } else { Err(Problem::from_other_site()) }
}

fn is_own_origin(request: &HttpRequest, origin: &str) -> bool {
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    own_authority(request).is_some_and(|own| own.eq_ignore_ascii_case(authority))
}

/// Returns the host and port that a request names: those of the page that made a browser send it. `Forwarded` and
/// `X-Forwarded-Host` are not read, because a page can make a browser send them. `None` if there is none, or more than one.
fn own_authority(request: &HttpRequest) -> Option<&str> {
    let mut given = request.headers().get_all(HOST);
    let host = given.next();
    if given.next().is_some() {
        return None;
    }
    let of_uri = request.uri().authority().map(Authority::as_str);
    match (host.map(HeaderValue::to_str), of_uri) {
        (None, of_uri) => of_uri,
        (Some(Ok(host)), None) => Some(host),
        (Some(Ok(host)), Some(of_uri)) => host.eq_ignore_ascii_case(of_uri).then_some(host),
        (Some(Err(_)), _) => None,
    }
}

fn header<'r>(request: &'r HttpRequest, name: &str) -> Option<&'r str> {
    request.headers().get(name).and_then(|value| value.to_str().ok())
}

fn bearer_token(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| token.trim())
}

/// Refuses a request that a page of another site has made a browser send to a server without tokens.
fn check_local(request: &HttpRequest, state: &ApiState) -> Result<(), Problem> {
    if is_from_other_site(request) {
        return Err(Problem::from_other_site());
    }
    let hosts = &state.options.hosts;
    if hosts.is_empty() {
        return Ok(());
    }
    let host = own_authority(request).map(without_port);
    let is_known = host.is_some_and(|host| hosts.iter().any(|known| known.eq_ignore_ascii_case(host)));
    // A value that is not a text is that of another origin.
    let mut origins = request.headers().get_all(ORIGIN);
    let is_own = origins.all(|origin| origin.to_str().is_ok_and(|origin| is_own_origin(request, origin)));
    if is_known && is_own { Ok(()) } else { Err(Problem::of_other_host(hosts)) }
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => authority,
    }
}

macro_rules! permission {
    ($name:ident, $create:expr, $allowed:expr) => {
        impl FromRequest for $name {
            type Error = Problem;
            type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

            fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
                let request = request.clone();
                Box::pin(async move { caller(&request, $allowed).await.map($create) })
            }
        }
    };
}

permission!(Reader, |_| Reader, &[Permission::Read, Permission::Admin]);
permission!(Viewer, Viewer, &[Permission::Read, Permission::Run, Permission::Admin]);
permission!(Runner, Runner, &[Permission::Run, Permission::Admin]);
permission!(Requester, Requester, &[Permission::Request, Permission::Admin]);
permission!(Administrator, Administrator, &[Permission::Admin]);
