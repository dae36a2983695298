//! The codes and types of errors that upstreams write, by what they mean.
//!
//! Sources: OpenAI (<https://developers.openai.com/api/docs/guides/error-codes>), Anthropic
//! (<https://platform.claude.com/docs/en/api/errors>), Google (`google.rpc.Code`), Zhipu
//! (<https://docs.z.ai/api-reference/api-code>), Azure (`DeploymentNotFound`), Volcengine (`ModelNotOpen`), and gateways
//! (`monitor/manage.go` of one-api, the 401 and 402 rules of sub2api, the access errors of LiteLLM). To teach the proxy a word, add it to the table of its meaning.

/// The meaning of a code or type. A word has at most one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The credential is not valid, or the account as a whole may not be used, for any request.
    Account,
    /// The credential is valid, but lacks the right to the resource: a scope, a project, an endpoint.
    Resource,
    /// The account does not have the model.
    Model,
    /// The usage of the plan, or the prepaid credit, is used up.
    Quota,
    /// A limit of the current minute is reached.
    Rate,
    /// The upstream is overloaded, for all accounts.
    Overload,
    /// The upstream, or a server behind it, has failed.
    Failure,
    /// The request is at fault, so every upstream would answer the same.
    Request,
}

/// What an error code says is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// An object that an upstream has made.
    Object,
    /// A model, an endpoint, or anything else that the operator of the account has to add.
    Other,
}

/// The tables. A word is in one of them only.
pub(super) const TABLES: [(Meaning, &[&str]); 8] = [
    (Meaning::Account, &ACCOUNT),
    (Meaning::Resource, &RESOURCE),
    (Meaning::Model, &MODEL),
    (Meaning::Quota, &QUOTA),
    (Meaning::Rate, &RATE),
    (Meaning::Overload, &OVERLOAD),
    (Meaning::Failure, &FAILURE),
    (Meaning::Request, &REQUEST),
];

/// The endings of codes for a quota of an organization or a project, for example `project_spend_limit_exceeded`.
const QUOTA_ENDINGS: [&str; 2] = ["_spend_limit_exceeded", "_usage_limit_exceeded"];

/// The beginnings of codes for a fault of the request, for example `unsupported_parameter` and `invalid_image_url`.
const REQUEST_BEGINNINGS: [&str; 3] = ["unsupported_", "invalid_image", "image_"];

/// The beginnings of codes for something missing that is no object of an account, for example `model_not_found`.
const NOT_OBJECTS: [&str; 9] = [
    "deployment",
    "endpoint",
    "method",
    "model",
    "organization",
    "path",
    "project",
    "route",
    "url",
];

/// Words that say no more than the status 401 itself.
const GENERIC: [&str; 8] = [
    "auth_error",
    "authentication_error",
    "authenticationerror",
    "error",
    "invalid_request_error",
    "unauthenticated",
    "unauthorized",
    "unauthorized_error",
];

const ACCOUNT: [&str; 36] = [
    "access_terminated",
    "access_token_expired",
    "account_deactivated",
    "account_disabled",
    "account_state_invalid",
    "account_suspended",
    "api_key_disabled",
    "api_key_expired",
    "api_key_invalid",
    "api_key_revoked",
    "authentication_token_expired",
    "billing_not_active",
    "deactivated_workspace",
    "expired_api_key",
    "expired_token",
    "incorrect_api_key",
    "invalid_access_token",
    "invalid_api_key",
    "invalid_apikey",
    "invalid_authentication",
    "invalid_authentication_error",
    "invalid_credentials",
    "invalid_token",
    "invalidapikey",
    "key_disabled",
    "key_expired",
    "key_revoked",
    "organization_deactivated",
    "organization_disabled",
    "token_expired",
    "token_invalid",
    "token_invalidated",
    "token_revoked",
    "unsupported_country_region_territory",
    "user_deactivated",
    "workspace_deactivated",
];

const RESOURCE: [&str; 18] = [
    "access_token_scope_insufficient",
    "endpoint_not_allowed",
    "forbidden",
    "insufficient_permission",
    "insufficient_permissions",
    "insufficient_scope",
    "invalid_organization",
    "invalid_project",
    "mismatched_organization",
    "mismatched_project",
    "missing_permission",
    "missing_permissions",
    "missing_scope",
    "missing_scopes",
    "organization_not_found",
    "permission_denied",
    "permission_error",
    "project_not_found",
];

const MODEL: [&str; 26] = [
    "deployment_not_found",
    "deploymentnotfound",
    "invalid_model",
    "invalid_model_error",
    "invalidendpointormodel.modelidaccessdisabled",
    "invalidendpointormodel.notfound",
    "key_model_access_denied",
    "model.accessdenied",
    "model_access_denied",
    "model_does_not_exist",
    "model_not_allowed",
    "model_not_available",
    "model_not_exist",
    "model_not_found",
    "model_not_found_error",
    "model_not_supported",
    "model_unavailable",
    "modelnotexist",
    "modelnotfound",
    "modelnotfounderror",
    "modelnotopen",
    "modelnotsupported",
    "team_model_access_denied",
    "unknown_model",
    "unsupported_model",
    "unsupportedmodel",
];

const QUOTA: [&str; 27] = [
    "1113",
    "1308",
    "1310",
    "402",
    "arrearage",
    "billing_error",
    "billing_hard_limit_reached",
    "credit_balance_exhausted",
    "credits_exhausted",
    "daily_limit_exceeded",
    "exceeded_current_quota_error",
    "insufficient_balance",
    "insufficient_credit",
    "insufficient_credits",
    "insufficient_funds",
    "insufficient_quota",
    "insufficient_user_quota",
    "monthly_limit_exceeded",
    "payment_required",
    "quota_exceeded",
    "quota_exhausted",
    "spend_limit_exceeded",
    "spending_limit_reached",
    "usage_limit_exceeded",
    "usage_limit_reached",
    "usage_not_included",
    "weekly_limit_exceeded",
];

const RATE: [&str; 18] = [
    "1302",
    "1303",
    "429",
    "rate_limit",
    "rate_limit_error",
    "rate_limit_exceeded",
    "rate_limit_reached",
    "rate_limit_reached_error",
    "rate_limited",
    "ratelimiterror",
    "ratelimitexceeded",
    "requests",
    "resource_exhausted",
    "slow_down",
    "throttled",
    "throttlingexception",
    "tokens",
    "too_many_requests",
];

const OVERLOAD: [&str; 11] = [
    "503",
    "529",
    "engine_overloaded",
    "engine_overloaded_error",
    "overloaded",
    "overloaded_error",
    "server_is_overloaded",
    "server_overloaded",
    "service_unavailable",
    "service_unavailable_error",
    "unavailable",
];

const FAILURE: [&str; 18] = [
    "500",
    "502",
    "504",
    "api_connection_error",
    "api_error",
    "bad_gateway",
    "deadline_exceeded",
    "gateway_timeout",
    "internal",
    "internal_error",
    "internal_server_error",
    "internalservererror",
    "provider_error",
    "server_error",
    "timeout",
    "timeout_error",
    "upstream_error",
    "vector_store_timeout",
];

/// The list is closed: a failed stream with any other word is tried elsewhere.
const REQUEST: [&str; 47] = [
    "400",
    "404",
    "413",
    "422",
    "array_above_max_length",
    "badrequesterror",
    "bio_policy",
    "content_filter",
    "content_policy_violation",
    "context_length_exceeded",
    "context_window_exceeded",
    "conversation_not_found",
    "cyber_policy",
    "duplicate_item",
    "empty_image_file",
    "failed_to_download_image",
    "failed_to_parse_image",
    "file_not_found",
    "integer_above_max_value",
    "integer_below_min_value",
    "invalid_argument",
    "invalid_base64_image",
    "invalid_encrypted_content",
    "invalid_file",
    "invalid_function_parameters",
    "invalid_json",
    "invalid_prompt",
    "invalid_request",
    "invalid_request_error",
    "invalid_schema",
    "invalid_type",
    "invalid_value",
    "item_not_found",
    "json_validate_failed",
    "max_output_tokens",
    "missing_required_parameter",
    "moderation_blocked",
    "not_found",
    "not_found_error",
    "previous_response_not_found",
    "prompt_too_long",
    "request_too_large",
    "responsible_ai_policy_violation",
    "string_above_max_length",
    "string_below_min_length",
    "tool_use_failed",
    "unknown_parameter",
];

/// The meaning of a code or type, in letters of any case; `None` if the word is not known.
pub(super) fn meaning_of(word: &str) -> Option<Meaning> {
    let word = word.to_ascii_lowercase();
    let word = word.as_str();
    let listed = TABLES.iter().find(|(_, words)| words.contains(&word));
    let by_ending = || {
        QUOTA_ENDINGS
            .iter()
            .any(|end| word.ends_with(end))
            .then_some(Meaning::Quota)
    };
    let by_beginning = || {
        let is_request = REQUEST_BEGINNINGS.iter().any(|start| word.starts_with(start));
        is_request.then_some(Meaning::Request)
    };
    listed
        .map(|(meaning, _)| *meaning)
        .or_else(by_ending)
        .or_else(by_beginning)
}

/// What the code `word`, in letters of any case, says is missing; `None` if it says nothing of that kind.
pub(super) fn names_missing(word: &str) -> Option<Missing> {
    const ENDINGS: [&str; 3] = ["_not_found", "notfound", "_not_exist"];
    let word = word.to_ascii_lowercase();
    match word.as_str() {
        "invalid_encrypted_content" => Some(Missing::Object),
        // The status in words.
        "not_found" | "notfound" => None,
        _ if !ENDINGS.iter().any(|end| word.ends_with(end)) => None,
        _ if NOT_OBJECTS.iter().any(|start| word.starts_with(start)) => Some(Missing::Other),
        _ => Some(Missing::Object),
    }
}

/// Whether `word` says no more than the status of its answer: it is a number, or a word like `unauthorized`.
pub(super) fn is_generic(word: &str) -> bool {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    is_number || GENERIC.contains(&word.to_ascii_lowercase().as_str())
}
