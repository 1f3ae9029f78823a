//! Mounts the routes in an actix-web app.

use actix_web::Route;
use actix_web::middleware::from_fn;
use actix_web::web::{self, Data, ServiceConfig};

use crate::daemon::Daemon;

use super::access_log::log_access;
use super::api;
use super::api_state::{ApiState, ServerOptions};
use super::dashboard;
use super::describe_errors::{describe_errors, no_page, no_route, path_config, query_config};
use super::head_request::answer_head;

/// Returns what answers a path that leads to nothing, in an app that has only these routes.
pub(super) fn elsewhere() -> Route {
    web::to(no_page).wrap(from_fn(log_access))
}

/// Returns what mounts the API, `/health`, `/ready`, `/metrics` and the dashboard in an actix-web app or scope.
///
/// ```no_run
/// use actix_web::{App, web};
/// use pointsman::daemon::Daemon;
/// use pointsman::server::{ServerOptions, routes};
///
/// # fn example(daemon: Daemon) {
/// let options = ServerOptions::new().with_prefix("/llm");
/// App::new().service(web::scope("/llm").configure(routes(&daemon, options)));
/// # }
/// ```
pub fn routes(
    daemon: &Daemon,
    options: ServerOptions,
) -> impl FnOnce(&mut ServiceConfig) + Clone + Send + 'static {
    let state = ApiState::new(daemon.clone(), options);
    move |app| {
        let state = Data::new(state);
        app.app_data(state.clone()).app_data(path_config()).app_data(query_config());
        let api = web::scope("/api").wrap(from_fn(answer_head)).wrap(from_fn(describe_errors));
        let api = api.wrap(from_fn(log_access));
        let api = api.configure(api::configure);
        app.service(api.default_service(web::to(no_route)));
        for (path, route) in api::operation_routes() {
            let resource = web::resource(path).wrap(from_fn(answer_head)).wrap(from_fn(describe_errors));
            app.service(resource.wrap(from_fn(log_access)).route(route));
        }
        if state.options.has_dashboard {
            for resource in dashboard::resources() {
                let resource = resource.wrap(from_fn(answer_head)).wrap(from_fn(describe_errors));
                app.service(resource.wrap(from_fn(log_access)));
            }
        }
    }
}
