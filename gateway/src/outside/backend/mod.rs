//! The HTTP API for an application's own backend: docs/http-api.md.
//!
//! ```text
//! head: path and method → key → scope → rate → body → the protocol's request → link → lanes → the protocol's answer → JSON
//! ```
//!
//! A call is made in a user's name and goes the way of a client's request, so membership, idempotency, limits and durability are the
//! engine's. Invariants: nothing is looked at before the key is known to be good, but path and method; calls, bodies and connections are
//! bounded. Must not do: decide what a user may do, or know more of a conversation than its lane tells.

mod answers;
pub mod bell;
pub mod keys;
mod link;
pub(super) mod problem;
mod requests;
mod routes;
mod shapes;

use std::{
    net::TcpListener,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use antiphon_wire::{
    binary,
    codes::ErrorCode,
    frame::{Account, AccountAction, AccountPage, Request as Asking, SERVER_KEYS, SERVER_KEYS_KNOWN},
    ids::{DeviceId, RequestId, TimestampMs, UserId},
    limits::CLIENT_FRAME_BYTES_MAX,
};
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode, header},
};
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

pub(super) use self::link::Post;
use self::{
    bell::Bell,
    keys::{KeyRing, Scope},
    link::Link,
    problem::{Own, Problem},
    requests::{Asked, Call, Query},
    routes::Operation,
};
use crate::{
    core::{
        gather::Gather, issuer::TokenIssuer, mesh::LaneId, placement::Placement, rate::Rate, session::conversation_of,
    },
    mesh::MeshEnd,
    metrics::{Metrics, Phase},
    uring::Waker,
};

/// Connections at once: a backend's processes with a pool each. More wait in the backlog.
pub(super) const CONNECTIONS_MAX: usize = 512;

/// Longest body: what makes the longest frame of a client.
const BODY_BYTES_MAX: usize = CLIENT_FRAME_BYTES_MAX;

/// How long a token is good that names no time.
const TOKEN_LIFE_MS_DEFAULT: u64 = 3_600_000;

/// Longest life of a token: so long is one good that was stolen and that nobody misses.
const TOKEN_LIFE_MS_MAX: u64 = 30 * 24 * 3_600_000;

/// Shortest: ends are whole seconds.
const TOKEN_LIFE_MS_MIN: u64 = 1_000;

/// A token of the very millisecond of the logging out is refused: who hears of it and issues another at once issues a good one.
const LOGGED_OUT_WAIT: Duration = Duration::from_millis(1);

/// The description of this API.
const DESCRIPTION: &str = include_str!("../../../../docs/openapi.json");

/// What the API is started with.
#[derive(Debug)]
pub struct Backend {
    /// Where it listens.
    pub listener: TcpListener,
    /// Who may use it.
    pub keys: KeyRing,
    /// Signs users' tokens, if the node has a secret for that.
    pub issuer: Option<TokenIssuer>,
    /// Calls a second of one key for long; 0: any number.
    pub requests_per_second_max: u32,
    /// The node's layout.
    pub placement: Placement,
    /// The outside thread's end of the mesh.
    pub end: MeshEnd,
    /// What rings when something came there.
    pub bell: Bell,
    /// All shards' wakers, by number.
    pub wakers: Arc<[Waker]>,
}

/// What a token is asked for with.
#[derive(Deserialize)]
struct TokenBody {
    user: String,
    device: Option<String>,
    life_ms: Option<u64>,
}

/// What a call needs to know.
struct Api {
    keys: KeyRing,
    issuer: Option<TokenIssuer>,
    rate: Rate,
    /// What times of keys count from.
    since: Instant,
    placement: Placement,
    metrics: Arc<Metrics>,
    link: Link,
}

/// What serves calls, where they come in, and what has to run for them. In a runtime.
pub(super) fn start(
    backend: Backend,
    metrics: Arc<Metrics>,
) -> std::io::Result<(Router, tokio::net::TcpListener, Post)> {
    let Backend { listener, keys, issuer, requests_per_second_max, placement, end, bell, wakers } = backend;
    listener.set_nonblocking(true)?;
    let (link, post) = Link::new(end, &bell, wakers, placement)?;
    let api = Api {
        keys,
        issuer,
        rate: Rate::share(requests_per_second_max, requests_per_second_max, 1),
        since: Instant::now(),
        placement,
        metrics,
        link,
    };
    let router = Router::new().fallback(call).with_state(Arc::new(api));
    Ok((router, tokio::net::TcpListener::from_std(listener)?, post))
}

async fn call(State(api): State<Arc<Api>>, request: Request) -> Response<Body> {
    let answer = api.answer(request).await.unwrap_or_else(Problem::answer);
    api.metrics.api_answered(answer.status().as_u16());
    answer
}

impl Api {
    async fn answer(&self, request: Request) -> Result<Response<Body>, Problem> {
        let (head, body) = request.into_parts();
        let (route, segments) = routes::find(head.method.as_str(), head.uri.path())?;
        let query = head.uri.query().unwrap_or_default();
        let Some(scope) = route.scope else {
            Query::read(query, &[])?;
            return Ok(answers::of_type(StatusCode::OK, "application/json", DESCRIPTION));
        };
        let key = self.admit(&head.headers, scope)?;
        tracing::debug!(key, method = %head.method, path = head.uri.path(), "called");
        let body = if requests::has_body(route.operation) { read(&head.headers, body).await? } else { Vec::new() };
        let call = Call { operation: route.operation, segments: &segments, query, body: &body };
        if route.operation == Operation::IssueToken {
            return self.issue_token(&call);
        }
        let asked = call.asked()?;
        match self.metrics.phase() {
            Phase::Serving => {}
            Phase::Starting => return Err(Problem::new(ErrorCode::Overloaded, "the node is starting")),
            Phase::Draining => return Err(Problem::new(ErrorCode::ShuttingDown, ErrorCode::ShuttingDown.text())),
        }
        match route.operation {
            Operation::ListConversations => self.list_conversations(asked).await,
            Operation::GetConversation => {
                let conversation = segments.get(1).and_then(|text| text.parse().ok());
                let conversation = conversation.expect("it was read before");
                let heard = self.ask(asked, vec![self.placement.lane_of(conversation)]).await?;
                answers::of_conversation(conversation, &heard)
            }
            _ => {
                let conversation = conversation_of(&asked.request, &asked.user).flatten();
                let nobody = || Problem::new(ErrorCode::Invalid, "a direct conversation is with another user");
                let lane = self.placement.lane_of(conversation.ok_or_else(nobody)?);
                let heard = match route.operation {
                    Operation::MarkRead => self.mark(asked, lane).await?,
                    _ => self.ask(asked, vec![lane]).await?,
                };
                let answer = answers::of_lane(&heard);
                match route.operation {
                    // The path of a message that is sent has no other: those are what it answers, or its thread.
                    Operation::SendMessage => answer.map_err(Problem::of_body),
                    Operation::LogDeviceOut | Operation::LogUserOut => {
                        sleep(LOGGED_OUT_WAIT).await;
                        answer
                    }
                    _ => answer,
                }
            }
        }
    }

    /// Lets a call in by its key: the key's name.
    fn admit(&self, headers: &HeaderMap, scope: Scope) -> Result<String, Problem> {
        let refuse = || Problem::new(ErrorCode::Unauthenticated, "give a good key: Authorization: Bearer …");
        let now_ns = self.since.elapsed().as_nanos() as u64;
        let admitted = self.keys.with(bearer(headers).ok_or_else(refuse)?, |key, full_at_ns| {
            if !key.has(scope) {
                return Err(Problem::own(Own::MissingScope, format!("this key is not for {scope}")));
            }
            self.rate.spend(full_at_ns, now_ns).map_err(|wait_ns| {
                let wait_ms = u32::try_from(wait_ns.div_ceil(1_000_000)).unwrap_or(u32::MAX);
                Problem::new(ErrorCode::RateLimited, "more calls than this key may make").after_ms(wait_ms)
            })?;
            Ok(key.name.clone())
        });
        admitted.ok_or_else(refuse)?
    }

    async fn ask(&self, asked: Asked, lanes: Vec<LaneId>) -> Result<link::Heard, Problem> {
        let frame = binary::encode_request(Some(RequestId(1)), &asked.request);
        self.link.ask(asked.user, lanes, frame).await
    }

    /// Moves a user's pointers, of which others hear as far as the user's account says: it has been looked up then.
    async fn mark(&self, asked: Asked, lane: LaneId) -> Result<link::Heard, Problem> {
        let (after, limit) = (Some(SERVER_KEYS.to_owned()), Some(SERVER_KEYS_KNOWN.len() as u32));
        let list = Asking::Account(Account { action: AccountAction::List(AccountPage { after, limit }) });
        let look = Asked { user: asked.user.clone(), request: list };
        let home = self.placement.home_of(&asked.user);
        let privacy = answers::privacy(&self.ask(look, vec![home]).await?)?;
        let frame = binary::encode_request(Some(RequestId(1)), &asked.request);
        self.link.ask_showing(asked.user, privacy, vec![lane], frame).await
    }

    /// Asks every lane for its part of a user's list.
    async fn list_conversations(&self, asked: Asked) -> Result<Response<Body>, Problem> {
        let Asking::Conversations(list) = asked.request else { unreachable!("it was made for this") };
        let gather = Gather::new(self.placement.lanes, list.limit);
        let lanes = self.placement.lanes().collect();
        let heard = self.link.ask(asked.user, lanes, Gather::request(list)).await?;
        answers::of_all_lanes(gather, &heard)
    }

    fn issue_token(&self, call: &Call<'_>) -> Result<Response<Body>, Problem> {
        Query::read(call.query, &[])?;
        call.object()?;
        let malformed = |error: serde_json::Error| {
            let text = error.to_string();
            Problem::new(ErrorCode::Malformed, text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text))
        };
        let TokenBody { user, device, life_ms } = serde_json::from_slice(call.body).map_err(malformed)?;
        let wrong = |text: String| Problem::new(ErrorCode::Invalid, text);
        let user: UserId = user.parse().map_err(|error| wrong(format!("user {error}")))?;
        let device = device.map(|text| text.parse::<DeviceId>()).transpose();
        let device = device.map_err(|error| wrong(format!("device {error}")))?;
        let life_ms = life_ms.unwrap_or(TOKEN_LIFE_MS_DEFAULT);
        if !(TOKEN_LIFE_MS_MIN..=TOKEN_LIFE_MS_MAX).contains(&life_ms) {
            return Err(wrong(format!("life_ms is not from {TOKEN_LIFE_MS_MIN} to {TOKEN_LIFE_MS_MAX}")));
        }
        let issuer = self.issuer.as_ref().expect("a key for tokens is refused by a node without a secret for them");
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        // A token's end is a whole second.
        let expires = TimestampMs((now_ms + life_ms).div_ceil(1_000) * 1_000);
        let token = issuer.sign(&user, device.as_ref(), TimestampMs(now_ms), expires);
        let mut answer = json!({"token": token, "user": user, "expires_ms": expires});
        if let Some(device) = device {
            answer["device"] = json!(device);
        }
        Ok(answers::json(StatusCode::OK, &answer))
    }
}

/// The secret of the one key that a request comes with.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, secret) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim_start())
}

/// A body that says that it is JSON, as far as it may be long.
async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Problem::own(Own::UnsupportedMediaType, "the body is to be application/json"));
    }
    let too_large = || Problem::new(ErrorCode::TooLarge, format!("a body is at most {BODY_BYTES_MAX} bytes long"));
    let told = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|length| length > BODY_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let (mut parts, mut bytes) = (body.into_data_stream(), Vec::new());
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| Problem::new(ErrorCode::Malformed, "the body did not come whole"))?;
        if bytes.len() + part.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
