//! The handlers of the API, one file per resource.

mod configuration;
mod documentation;
mod events;
mod items;
mod money;
mod openapi;
mod operation;
mod pipelines;
mod problems;
mod providers;
mod requests;
mod run_data;
mod runs;
mod status;
mod tokens;
mod uploads;

use actix_web::Route;
use actix_web::web::{self, ServiceConfig};

use crate::server::describe_errors::no_route;

/// Adds the routes below `/api`.
pub(super) fn configure(app: &mut ServiceConfig) {
    let v1 = web::scope("/v1")
        .configure(items::configure)
        .configure(pipelines::configure)
        .configure(uploads::configure)
        .configure(runs::configure)
        .configure(run_data::configure)
        .configure(events::configure)
        .configure(requests::configure)
        .configure(providers::configure)
        .configure(configuration::configure)
        .configure(status::configure)
        .configure(tokens::configure)
        // It does not inherit that of the scope around it.
        .default_service(web::to(no_route));
    app.service(v1).configure(openapi::configure);
}

/// Returns the routes that are not below `/api`.
pub(super) fn operation_routes() -> [(&'static str, Route); 3] {
    [
        ("/health", web::get().to(operation::health)),
        ("/ready", web::get().to(operation::ready)),
        ("/metrics", web::get().to(operation::metrics)),
    ]
}
