//! What the operator's page asks the node: docs/operator.md. Behind keys with the scope `operate`.
//!
//! ```text
//! GET    /operator/figures              every figure of /metrics, and whether the node is ready
//! GET    /operator/conversations        the busiest lately
//! GET    /operator/connections          those that do not keep up with what they are sent
//! GET    /operator/users/{user}         a user's devices that are connected
//! POST   /operator/users/{user}/trace   begin to look at what they send and are sent
//! GET    /operator/users/{user}/trace   what was seen since ?since=NUMBER
//! DELETE /operator/users/{user}/trace   look no more
//! ```
//!
//! Invariants: nothing is answered before the key is known to be good; no answer holds what a message says, a title or a token. Must not do:
//! change anything but what is traced.

mod shapes;
mod traces;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use antiphon_wire::{codes::ErrorCode, ids::UserId};
use axum::{
    Extension, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{Response, StatusCode, Uri},
    middleware::{self, Next},
    response::IntoResponse as _,
    routing::get,
};
use serde_json::json;
use tokio::{sync::oneshot, time::timeout_at};

use self::traces::Traces;
use super::{
    api::json_answer,
    backend::{
        bearer,
        keys::{KeyRing, Scope},
        problem::{Own, Problem},
    },
};
use crate::{
    core::{
        enquiry::{Answer, Question, SessionAt},
        mesh::{MeshConnection, ShardId},
        placement::Placement,
    },
    enquiries::Enquiries,
    metrics::Metrics,
};

/// How long shards may take to answer: a thousand times what a turn takes.
const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Conversations and connections in one answer.
const ROWS_MAX: usize = 50;

/// What the operator's page is served with.
#[derive(Debug, Clone)]
pub struct Operator {
    /// Who may look at it.
    pub keys: KeyRing,
    /// How shards are asked.
    pub enquiries: Arc<Enquiries>,
    /// The node's layout.
    pub placement: Placement,
}

struct Office {
    operator: Operator,
    metrics: Arc<Metrics>,
    started: Instant,
    traces: Mutex<Traces>,
}

type Answered = Result<Response<Body>, Problem>;

pub(super) fn router<S: Clone + Send + Sync + 'static>(operator: Operator, metrics: Arc<Metrics>) -> Router<S> {
    let office = Arc::new(Office { operator, metrics, started: Instant::now(), traces: Mutex::default() });
    Router::new()
        .route("/operator/figures", get(figures))
        .route("/operator/conversations", get(conversations))
        .route("/operator/connections", get(connections))
        .route("/operator/users/{user}", get(user))
        .route("/operator/users/{user}/trace", get(poll_trace).post(begin_trace).delete(end_trace))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&office), admit))
        .with_state(office)
}

/// The name of the key that a request came with, for the log.
#[derive(Clone)]
struct KeyName(String);

/// Lets a request in by its key.
async fn admit(State(office): State<Arc<Office>>, mut request: Request, next: Next) -> Response<Body> {
    let may = bearer(request.headers()).and_then(|secret| {
        office.operator.keys.with(secret, |key, _| key.has(Scope::Operate).then(|| KeyName(key.name.clone())))
    });
    match may {
        Some(Some(name)) => {
            request.extensions_mut().insert(name);
            next.run(request).await.into_response()
        }
        Some(None) => Problem::own(Own::MissingScope, format!("this key is not for {}", Scope::Operate)).answer(),
        None => Problem::new(ErrorCode::Unauthenticated, "give a good key: Authorization: Bearer …").answer(),
    }
}

async fn figures(State(office): State<Arc<Office>>) -> Response<Body> {
    let reasons = office.metrics.not_ready_reasons();
    let mut figures = office.metrics.figures();
    figures["time_ms"] = now_ms().into();
    figures["uptime_ms"] = (office.started.elapsed().as_millis() as u64).into();
    figures["version"] = env!("CARGO_PKG_VERSION").into();
    figures["ready"] = reasons.is_empty().into();
    figures["reasons"] = reasons.into();
    let placement = office.operator.placement;
    for lane in placement.lanes() {
        figures["lanes"][usize::from(lane.0)]["shard"] = placement.shard_of(lane).0.into();
    }
    json_answer(StatusCode::OK, &figures)
}

async fn conversations(State(office): State<Arc<Office>>) -> Response<Body> {
    answer(office.conversations().await)
}

async fn connections(State(office): State<Arc<Office>>) -> Response<Body> {
    answer(office.connections().await)
}

async fn user(State(office): State<Arc<Office>>, Path(user): Path<String>) -> Response<Body> {
    answer(office.user(&user).await)
}

async fn begin_trace(
    State(office): State<Arc<Office>>,
    Extension(KeyName(key)): Extension<KeyName>,
    Path(user): Path<String>,
) -> Response<Body> {
    answer(office.begin_trace(&user, &key).await)
}

async fn poll_trace(State(office): State<Arc<Office>>, Path(user): Path<String>, uri: Uri) -> Response<Body> {
    answer(office.poll_trace(&user, uri.query().unwrap_or_default()).await)
}

async fn end_trace(State(office): State<Arc<Office>>, Path(user): Path<String>) -> Response<Body> {
    answer(office.end_trace(&user))
}

fn answer(answered: Answered) -> Response<Body> {
    answered.unwrap_or_else(Problem::answer)
}

impl Office {
    async fn conversations(&self) -> Answered {
        let mut found = Vec::new();
        for (_, answer) in self.ask_all(|_| Question::Busiest).await? {
            let Answer::Busiest(lanes) = answer else { continue };
            found.extend(lanes.into_iter().flat_map(|(lane, busy)| busy.into_iter().map(move |busy| (lane, busy))));
        }
        found.sort_by(|(_, one), (_, other)| one.busier_first(other));
        found.truncate(ROWS_MAX);
        let rows: Vec<_> = found.into_iter().map(|(lane, busy)| shapes::busy(lane, busy)).collect();
        Ok(json_answer(StatusCode::OK, &json!({"conversations": rows})))
    }

    async fn connections(&self) -> Answered {
        let (mut found, mut count, mut uncounted) = (Vec::new(), 0, 0);
        for (shard, answer) in self.ask_all(|_| Question::Slow).await? {
            let Answer::Slow(slow) = answer else { continue };
            count += slow.count;
            uncounted += slow.uncounted;
            found.extend(slow.connections.into_iter().map(|slow| (shard, slow)));
        }
        found.sort_by_key(|(_, slow)| std::cmp::Reverse(slow.bytes));
        found.truncate(ROWS_MAX);
        let rows: Vec<_> = found.into_iter().map(|(shard, slow)| shapes::slow(shard, &slow)).collect();
        Ok(json_answer(StatusCode::OK, &json!({"connections": rows, "count": count, "uncounted": uncounted})))
    }

    async fn user(&self, user: &str) -> Answered {
        let user = user_of(user)?;
        let sessions = self.sessions(&user).await?;
        let of_shards = by_shard(&sessions);
        let mut waiting = BTreeMap::new();
        for (shard, connections) in of_shards {
            let answer = self.ask(shard, Question::Waiting(connections.clone())).await?;
            let Answer::Waiting(of) = answer else { continue };
            waiting.extend(connections.iter().map(|connection| (shard, connection.slot)).zip(of));
        }
        let mut devices: Vec<_> = sessions
            .iter()
            .map(|at| shapes::device(at, waiting.get(&(at.shard, at.connection.slot)).copied().flatten()))
            .collect();
        devices.sort_by(|one, other| one["device"].as_str().cmp(&other["device"].as_str()));
        let trace = self.traces().ends_in(&user, Instant::now());
        let body = json!({
            "user": user,
            "lane": self.operator.placement.home_of(&user).0,
            "devices": devices,
            "trace": trace.map(|left| json!({"ends_in_ms": left.as_millis() as u64})),
        });
        Ok(json_answer(StatusCode::OK, &body))
    }

    async fn begin_trace(&self, user: &str, key: &str) -> Answered {
        let user = user_of(user)?;
        self.forget_ended();
        let (number, is_new) = self.traces().begin(&user, Instant::now())?;
        if is_new && let Err(problem) = self.trace_in_shards(number, &user).await {
            self.traces().remove(&user);
            self.end_in_shards(number);
            return Err(problem);
        }
        if is_new {
            tracing::info!(key, user = user.as_str(), "a user is traced for an operator");
        }
        let left = self.traces().ends_in(&user, Instant::now()).unwrap_or_default();
        let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
        Ok(json_answer(status, &json!({"user": user, "ends_in_ms": left.as_millis() as u64})))
    }

    async fn trace_in_shards(&self, number: u64, user: &UserId) -> Result<(), Problem> {
        let question = |connections| Question::Trace { number, user: user.clone(), connections };
        // Whoever comes from here on is traced; so nobody is missed who comes between the two.
        let answers = self.ask_all(|_| question(Vec::new())).await?;
        if answers.iter().any(|(_, answer)| *answer != Answer::Trace(true)) {
            return Err(traces::too_many());
        }
        let of_shards = by_shard(&self.sessions(user).await?);
        for (shard, connections) in of_shards {
            self.ask(shard, question(connections)).await?;
        }
        Ok(())
    }

    async fn poll_trace(&self, user: &str, query: &str) -> Answered {
        let (user, asked) = (user_of(user)?, traces::Asked::read(query)?);
        self.forget_ended();
        let number = self.traces().number(&user)?;
        let answers = self.ask_all(|_| Question::TakeTrace(number)).await?;
        let mut traces = self.traces();
        // Another may have ended it meanwhile.
        let trace = traces.get(&user)?;
        let taken = answers.into_iter().filter_map(|(shard, answer)| match answer {
            Answer::TakeTrace(traced) => Some((shard, traced?)),
            _ => None,
        });
        trace.take(taken);
        Ok(json_answer(StatusCode::OK, &trace.shown(asked, Instant::now())))
    }

    fn end_trace(&self, user: &str) -> Answered {
        let user = user_of(user)?;
        let number = self.traces().number(&user)?;
        self.traces().remove(&user);
        self.end_in_shards(number);
        Ok(json_answer(StatusCode::OK, &json!({"user": user})))
    }

    /// Traces whose time is up are over in shards, too.
    fn forget_ended(&self) {
        let ended = self.traces().take_ended(Instant::now());
        ended.into_iter().for_each(|number| self.end_in_shards(number));
    }

    /// Nobody waits for it: a shard that does not hear of it ends the trace by itself when its time is up.
    fn end_in_shards(&self, number: u64) {
        for shard in 0..self.operator.enquiries.shards() {
            drop(self.operator.enquiries.ask(ShardId(shard), Question::EndTrace(number)));
        }
    }

    /// A user's sessions, as the home lane has them.
    async fn sessions(&self, user: &UserId) -> Result<Vec<SessionAt>, Problem> {
        let placement = self.operator.placement;
        let home = placement.shard_of(placement.home_of(user));
        match self.ask(home, Question::Sessions(user.clone())).await? {
            Answer::Sessions(sessions) => Ok(sessions),
            other => unreachable!("a question is answered by its name, not {other:?}"),
        }
    }

    async fn ask(&self, shard: ShardId, question: Question) -> Result<Answer, Problem> {
        let answered = self.operator.enquiries.ask(shard, question);
        wait(answered, tokio::time::Instant::now() + ANSWER_WAIT).await
    }

    /// Asks all shards at once.
    async fn ask_all(&self, question: impl Fn(ShardId) -> Question) -> Result<Vec<(ShardId, Answer)>, Problem> {
        let until = tokio::time::Instant::now() + ANSWER_WAIT;
        let shards = (0..self.operator.enquiries.shards()).map(ShardId);
        let asked: Vec<_> = shards.map(|shard| (shard, self.operator.enquiries.ask(shard, question(shard)))).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for (shard, answered) in asked {
            answers.push((shard, wait(answered, until).await?));
        }
        Ok(answers)
    }

    fn traces(&self) -> MutexGuard<'_, Traces> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn wait(answered: Option<oneshot::Receiver<Answer>>, until: tokio::time::Instant) -> Result<Answer, Problem> {
    let answered = answered.ok_or_else(|| Problem::new(ErrorCode::Overloaded, "a shard has too many questions"))?;
    match timeout_at(until, answered).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(Problem::new(ErrorCode::ShuttingDown, ErrorCode::ShuttingDown.text())),
        Err(_) => Err(Problem::own(Own::TimedOut, "a shard did not answer in time")),
    }
}

fn by_shard(sessions: &[SessionAt]) -> BTreeMap<ShardId, Vec<MeshConnection>> {
    let mut of_shards: BTreeMap<ShardId, Vec<MeshConnection>> = BTreeMap::new();
    for at in sessions {
        of_shards.entry(at.shard).or_default().push(at.connection);
    }
    of_shards
}

fn user_of(text: &str) -> Result<UserId, Problem> {
    UserId::new(text).map_err(|error| Problem::new(ErrorCode::Invalid, format!("user {error}")))
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests;
