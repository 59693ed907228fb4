//! What a lane's answer is as HTTP: the protocol's own JSON of it, and a status.

use antiphon_wire::{
    binary,
    codes::ErrorCode,
    frame::{HistoryAnswer, MessageState, ServerFrame},
    ids::{ConversationId, Sequence},
};
use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, Response, StatusCode, header},
};
use serde::Serialize;

use super::{link::Heard, problem::Problem};
use crate::core::{gather::Gather, privacy::Privacy};

/// A page of history, with what became of its messages.
#[derive(Serialize)]
struct Page<'a> {
    #[serde(flatten)]
    page: &'a HistoryAnswer,
    /// All entries up to here are in the states; absent if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<Sequence>,
    states: Vec<MessageState>,
}

/// The answer of one lane.
pub(super) fn of_lane(heard: &Heard) -> Result<Response<Body>, Problem> {
    let frame = reply(heard)?;
    match &frame {
        ServerFrame::Created(created) => {
            Ok(json(if created.existing { StatusCode::OK } else { StatusCode::CREATED }, created))
        }
        ServerFrame::Ack(ack) => Ok(json(if ack.duplicate { StatusCode::OK } else { StatusCode::CREATED }, ack)),
        ServerFrame::HistoryAnswer(page) => Ok(json(StatusCode::OK, &with_states(page, &heard.beside))),
        ServerFrame::EditAnswer(ack)
        | ServerFrame::DeleteAnswer(ack)
        | ServerFrame::ReactAnswer(ack)
        | ServerFrame::PinAnswer(ack) => Ok(json(StatusCode::OK, ack)),
        ServerFrame::ReactionsAnswer(answer) => Ok(json(StatusCode::OK, answer)),
        ServerFrame::PinsAnswer(answer) => Ok(json(StatusCode::OK, answer)),
        ServerFrame::ReadAnswer(answer) => Ok(json(StatusCode::OK, answer)),
        ServerFrame::MembersAnswer(answer) => Ok(json(StatusCode::OK, answer)),
        ServerFrame::TitleAnswer(answer) => Ok(json(StatusCode::OK, answer)),
        ServerFrame::RolesAnswer(answer) => Ok(json(StatusCode::OK, answer)),
        ServerFrame::BansAnswer(answer) => Ok(json(StatusCode::OK, answer)),
        ServerFrame::InvitesAnswer(answer) => {
            Ok(json(if answer.code.is_some() { StatusCode::CREATED } else { StatusCode::OK }, answer))
        }
        ServerFrame::DevicesAnswer(answer) => Ok(json(StatusCode::OK, answer)),
        ServerFrame::AccountAnswer(answer) => Ok(json(StatusCode::OK, answer)),
        ServerFrame::SettingsAnswer(answer) => Ok(json(StatusCode::OK, answer)),
        ServerFrame::Error(error) => Err(error.clone().into()),
        other => unreachable!("a lane answers a request with what belongs to it, not {other:?}"),
    }
}

/// One page of a user's conversations, of all lanes' parts.
pub(super) fn of_all_lanes(mut gather: Gather, heard: &Heard) -> Result<Response<Body>, Problem> {
    for frame in &heard.replies {
        gather.take(frame);
    }
    Ok(json(StatusCode::OK, &gather.page()?))
}

/// One conversation, of a page that begins with it if the user has it.
pub(super) fn of_conversation(conversation: ConversationId, heard: &Heard) -> Result<Response<Body>, Problem> {
    match reply(heard)? {
        ServerFrame::ConversationsAnswer(page) => {
            let found = page.conversations.iter().find(|summary| summary.conversation == conversation);
            let found = found.ok_or_else(|| Problem::new(ErrorCode::NotFound, ErrorCode::NotFound.text()))?;
            Ok(json(StatusCode::OK, found))
        }
        ServerFrame::Error(error) => Err(error.into()),
        other => unreachable!("a lane answers a list with a list or an error, not {other:?}"),
    }
}

/// What a user shows others, as the user's account says. Of one that cannot be read it is nothing.
pub(super) fn privacy(heard: &Heard) -> Result<Option<Privacy>, Problem> {
    match reply(heard)? {
        ServerFrame::AccountAnswer(answer) => Ok(Privacy::of(&answer.items.unwrap_or_default())),
        ServerFrame::Error(error) if error.code == ErrorCode::NotFound => Ok(None),
        ServerFrame::Error(error) if error.code.temporary() => Err(error.into()),
        ServerFrame::Error(_) => Ok(Some(Privacy::nothing())),
        other => unreachable!("a lane answers a list with a list or an error, not {other:?}"),
    }
}

fn reply(heard: &Heard) -> Result<ServerFrame, Problem> {
    let frame = heard.replies.first().map_or(&[][..], Vec::as_slice);
    binary::decode_server(frame).map(|(_, frame)| frame).map_err(Problem::from)
}

fn with_states<'a>(page: &'a HistoryAnswer, beside: &[Vec<u8>]) -> Page<'a> {
    let frames = beside.iter().filter_map(|frame| match binary::decode_server(frame) {
        Ok((_, ServerFrame::States(states))) => Some(states),
        _ => None,
    });
    let (mut as_of, mut states) = (None, Vec::new());
    for part in frames {
        as_of = Some(part.as_of);
        states.extend(part.states);
    }
    Page { page, as_of, states }
}

/// An answer in JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(value).expect("frames have a JSON form, and writing to memory does not fail");
    of_type(status, "application/json", body)
}

/// An answer of any type.
pub(super) fn of_type(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = status;
    let of_every: [(HeaderName, &'static str); 3] = [
        (header::CONTENT_TYPE, content_type),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    answer.headers_mut().extend(of_every.map(|(name, value)| (name, HeaderValue::from_static(value))));
    answer
}
