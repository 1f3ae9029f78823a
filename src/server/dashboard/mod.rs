//! The dashboard: pages that are rendered here, work without a script, and load nothing from elsewhere.
//!
//! ```text
//! browser -> page (whole) -> stream of updates -> parts of the page that differ
//!         -> form (hold, resume, cancel, retry) -> page
//! ```
//!
//! A page shows what the [`Daemon`](crate::daemon::Daemon) returns, and decides nothing. Where tokens are needed, a browser
//! presents one at `/login` and has a session from then on.

mod assets;
mod charts;
mod fragment;
mod item_page;
mod layout;
mod live;
mod login;
mod overview_page;
mod run_page;
mod run_parts;
mod shown;
mod visitor;

use actix_web::Resource;
use actix_web::web::{get, post, resource};

/// Returns the resources of the dashboard.
pub(super) fn resources() -> Vec<Resource> {
    vec![
        resource(["", "/"]).route(get().to(overview_page::show)),
        resource("/events").route(get().to(live::overview)),
        resource("/login").route(get().to(login::show)).route(post().to(login::log_in)),
        resource("/logout").route(post().to(login::log_out)),
        resource("/runs/{run}").route(get().to(run_page::show)),
        resource("/runs/{run}/events").route(get().to(live::run)),
        resource("/runs/{run}/hold").route(post().to(run_page::hold)),
        resource("/runs/{run}/resume").route(post().to(run_page::resume)),
        resource("/runs/{run}/cancel").route(post().to(run_page::cancel)),
        resource("/runs/{run}/retry").route(post().to(run_page::retry)),
        resource("/runs/{run}/item").route(get().to(item_page::show_by_query)),
        resource("/runs/{run}/items/{key}").route(get().to(item_page::show)),
        resource("/assets/pointsman.css").route(get().to(assets::style)),
        resource("/assets/pointsman.js").route(get().to(assets::script)),
        resource("/assets/pointsman.svg").route(get().to(assets::icon)),
    ]
}
