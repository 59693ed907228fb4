//! The console's routes.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use antiphon_wire::ids::{DeviceId, TimestampMs, UserId};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header},
    middleware::{self, Next},
    routing::{get, post},
};
use serde_json::{Value, json};

use super::{OutsideConfig, operator, page, security};
use crate::{core::token::sign_dev_token, metrics::Metrics};

/// Longest request body: a user's and a device's name in JSON.
pub(super) const BODY_BYTES_MAX: usize = 4 * 1024;

/// How long a development token is good.
pub const DEV_TOKEN_LIFE_MS: u64 = 24 * 60 * 60 * 1000;

struct Console {
    metrics: Arc<Metrics>,
    websocket_url: String,
    dev_key: Option<Vec<u8>>,
    has_operator: bool,
    headers: Vec<(HeaderName, HeaderValue)>,
}

pub(super) fn router(config: &OutsideConfig, metrics: Arc<Metrics>) -> Router {
    let console = Arc::new(Console {
        metrics: Arc::clone(&metrics),
        websocket_url: config.websocket_url.clone(),
        dev_key: config.dev_key.clone(),
        has_operator: config.operator.is_some(),
        headers: security::headers(&config.websocket_url),
    });
    let mut router = Router::new()
        .route("/healthz", get(async || plain(StatusCode::OK, "alive\n")))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .route("/config.json", get(page_config));
    if config.dev_key.is_some() {
        router = router.route("/dev/token", post(dev_token));
    }
    if let Some(operator) = &config.operator {
        router = router.merge(operator::router(operator.clone(), metrics));
    }
    router
        .fallback_service(get(page_file).with_state(Arc::clone(&console)))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&console), guard))
        .with_state(console)
}

/// Refuses rebound names in development, and puts the security headers on every answer.
async fn guard(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response<Body> {
    let mut answer = if console.dev_key.is_some() && !security::host_is_loopback(request.headers()) {
        plain(StatusCode::MISDIRECTED_REQUEST, "a development node answers to localhost, 127.0.0.1 and [::1] only\n")
    } else {
        next.run(request).await
    };
    for (name, value) in &console.headers {
        answer.headers_mut().insert(name.clone(), value.clone());
    }
    answer
}

async fn ready(State(console): State<Arc<Console>>) -> Response<Body> {
    let reasons = console.metrics.not_ready_reasons();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json_answer(status, &json!({"ready": reasons.is_empty(), "reasons": reasons}))
}

async fn metrics_text(State(console): State<Arc<Console>>) -> Response<Body> {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    answer(StatusCode::OK, content_type, console.metrics.render())
}

async fn page_config(State(console): State<Arc<Console>>) -> Response<Body> {
    let dev = console.dev_key.is_some();
    json_answer(
        StatusCode::OK,
        &json!({"websocket_url": console.websocket_url, "dev": dev, "version": env!("CARGO_PKG_VERSION")}),
    )
}

async fn page_file(State(console): State<Arc<Console>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    page::file(uri.path(), &headers, console.has_operator)
}

async fn dev_token(State(console): State<Arc<Console>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let refuse = |status, text: &str| json_answer(status, &json!({"error": text}));
    let Some(key) = &console.dev_key else {
        return refuse(StatusCode::NOT_FOUND, "this is no development node");
    };
    if !security::may_ask_for_a_token(&headers) {
        return refuse(
            StatusCode::FORBIDDEN,
            "a token is given to this node's own page and to scripts, for content-type application/json",
        );
    }
    let request: Value = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(_) => return refuse(StatusCode::BAD_REQUEST, "the body is not JSON"),
    };
    let user = match request.get("user").and_then(Value::as_str).map(UserId::new) {
        Some(Ok(user)) => user,
        Some(Err(error)) => return refuse(StatusCode::BAD_REQUEST, &format!("user {error}")),
        None => return refuse(StatusCode::BAD_REQUEST, "user is missing"),
    };
    let device = match request.get("device") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => match DeviceId::new(name) {
            Ok(device) => Some(device),
            Err(error) => return refuse(StatusCode::BAD_REQUEST, &format!("device {error}")),
        },
        Some(_) => return refuse(StatusCode::BAD_REQUEST, "device is not a text"),
    };
    let (token, expires) = new_dev_token(key, &user, device.as_ref());
    json_answer(StatusCode::OK, &json!({"token": token, "user": user, "device": device, "expires_ms": expires}))
}

/// A development token, and when it ends.
#[must_use]
pub fn new_dev_token(key: &[u8], user: &UserId, device: Option<&DeviceId>) -> (String, TimestampMs) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let expires = TimestampMs(now + DEV_TOKEN_LIFE_MS);
    (sign_dev_token(key, user, device, TimestampMs(now), expires), expires)
}

pub(super) fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    answer(status, "application/json", value.to_string())
}

fn plain(status: StatusCode, text: &'static str) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", text)
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
