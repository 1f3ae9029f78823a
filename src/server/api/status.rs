//! `/status`: the state of the daemon as a whole.

use actix_web::web::{self, Data, Json, ServiceConfig};

use crate::daemon::DaemonStatus;
use crate::server::access::Reader;
use crate::server::api_state::ApiState;
use crate::server::problem::Problem;

use super::problems::Problems;

/// Adds the routes.
pub(super) fn configure(app: &mut ServiceConfig) {
    app.service(web::resource("/status").route(web::get().to(show)));
}

/// Shows the state of the daemon: its version, whether it is ready, its runs, its providers and what was spent today.
#[utoipa::path(
    get,
    path = "/api/v1/status",
    tag = "operation",
    operation_id = "show_status",
    responses((status = 200, description = "The state.", body = DaemonStatus), Problems),
)]
pub(super) async fn show(_: Reader, state: Data<ApiState>) -> Result<Json<DaemonStatus>, Problem> {
    Ok(Json(state.daemon.status().await?))
}
