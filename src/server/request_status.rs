//! The status of a failed request, which its class decides.

use actix_web::http::StatusCode;

use crate::types::Class;

/// Returns the status of a class. No `_` arm, so that a new class does not compile without a decision.
pub(super) fn status_of(class: Class) -> StatusCode {
    match class {
        // A budget is one of a day: its caller has to wait, as for a rate limit.
        Class::RateLimit | Class::Budget => StatusCode::TOO_MANY_REQUESTS,
        // Not 401 or 402, which would be about the caller's token and money.
        Class::Quota | Class::Auth | Class::Overloaded | Class::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Class::ServerError | Class::NetworkError | Class::Unreadable | Class::NotFound => {
            StatusCode::BAD_GATEWAY
        }
        Class::Timeout | Class::Deadline => StatusCode::GATEWAY_TIMEOUT,
        // Not 413, which would be about the size of the body.
        Class::TooLong | Class::ApiError => StatusCode::BAD_REQUEST,
        Class::ContentFilter | Class::Truncated | Class::ValidationError | Class::TemplateError => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
