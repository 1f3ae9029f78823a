//! Classification of the error codes and types of OpenAI and compatible servers.
//!
//! Vendor-specific numeric codes are listed as strings.

use crate::types::Class;

/// Returns the class of a code or type in lower case; `None` if the message or the status decides.
pub(super) fn class_of_code(code: &str, status: Option<u16>) -> Option<Class> {
    Some(match code {
        // Too fast a ramp-up is a 429 today and was a 503 before.
        "slow_down" if status == Some(429) => Class::RateLimit,
        "slow_down"
        | "server_is_overloaded"
        | "service_unavailable_error"
        | "serviceunavailableerror"
        | "unavailable_error"
        | "overloaded_error"
        | "overloaded"
        | "engine_overloaded_error"
        | "capacity_exceeded"
        | "service_tier_capacity_exceeded"
        | "queue_exceeded"
        // Mistral, Zhipu, SiliconFlow.
        | "3505" | "1305" | "1312" | "50505" => Class::Overloaded,
        // A server failure despite the status; the statuses 402, 429 and 503 are more specific.
        "server_error" | "internalservererror" if matches!(status, Some(400 | 422)) => Class::ServerError,
        "failed_dependency" | "modelerrorexception" => Class::ServerError,
        // Groq: the model wrote no JSON, or called no tool as it should. A retry may succeed.
        "json_validate_failed" | "tool_use_failed" => Class::ValidationError,
        "rate_limit_exceeded" | "rate_limit_error" | "ratelimiterror" | "too_many_requests"
        // Zhipu.
        | "1302" | "1303" => Class::RateLimit,
        "insufficient_quota"
        | "credit_balance_exhausted"
        | "organization_spend_limit_exceeded"
        | "project_spend_limit_exceeded"
        | "organization_usage_limit_exceeded"
        | "billing_hard_limit_reached"
        | "billing_not_active"
        | "billing_error"
        | "insufficient_balance"
        | "insufficient_balance_error"
        | "insufficient_credits"
        | "credit_limit"
        | "quota_exceeded"
        | "quotaexceeded"
        | "budget_exceeded"
        | "exceeded_current_quota_error"
        | "arrearage"
        | "allocationquota.freetieronly"
        // Zhipu: in arrears, a limit per day or week, an expired plan. SiliconFlow.
        | "1113" | "1304" | "1308" | "1309" | "1310" | "30001" | "30011" => Class::Quota,
        "context_length_exceeded" | "exceed_context_size_error" | "request_too_large"
        // Mistral, Zhipu.
        | "3051" | "1261" => Class::TooLong,
        "content_filter"
        | "content_policy_violation"
        | "responsibleaipolicyviolation"
        | "data_inspection_failed"
        | "datainspectionfailed"
        | "invalid_prompt"
        | "image_content_policy_violation"
        // Zhipu, Huawei.
        | "1301" | "modelarts.81011" => Class::ContentFilter,
        "invalid_api_key"
        | "incorrect_api_key_error"
        | "authentication_error"
        | "authenticationerror"
        | "invalid_authentication_error"
        | "auth_error"
        | "permission_error"
        | "permissiondeniederror"
        | "account_deactivated"
        | "organization_restricted"
        | "model_permission_blocked_org"
        | "model_permission_blocked_project"
        | "model_terms_required"
        | "key_model_access_denied"
        | "team_model_access_denied"
        | "access_denied"
        | "unsupported_country_region_territory"
        // Zhipu: the plan does not include the model.
        | "1311" => Class::Auth,
        "model_not_found" | "not_found_error" | "notfounderror" | "deploymentnotfound" | "invalid_model"
        | "model_not_available" | "model_decommissioned"
        // Zhipu, SiliconFlow, Huawei.
        | "1211" | "20012" | "modelarts.81009" => Class::NotFound,
        // The responses API reports these after a success status.
        "invalid_image"
        | "invalid_image_format"
        | "invalid_base64_image"
        | "invalid_image_url"
        | "invalid_image_mode"
        | "image_too_large"
        | "image_too_small"
        | "image_parse_error"
        | "image_file_too_large"
        | "image_file_not_found"
        | "unsupported_image_media_type"
        | "empty_image_file"
        | "failed_to_download_image" => Class::ApiError,
        _ => return None,
    })
}
