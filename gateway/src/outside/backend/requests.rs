//! What a call says, as the protocol's request: read by the protocol's own rules, so that it means what a client's would.
//!
//! A body becomes the rest of a JSON frame, behind what the path says, and is read by `wire`. Invariants: a parameter or field that is not
//! known is refused; a request that was made is valid. Must not do: know who may do what.

use antiphon_wire::{
    codec::Encoding,
    codes::ErrorCode,
    frame::{
        Account, AccountAction, AccountPage, AskBans, AskSettings, BansAction, Conversations, Delete, Devices,
        DevicesAction, History, Invites, InvitesAction, InvitesPage, ListDevices, Members, MembersAction, MembersList,
        Pins, Reactions, Request, RevokeAll, Roles, RolesAction, UsersPage, is_account_key,
    },
    ids::{ClientMessageId, ConversationId, Sequence, UserId},
    limits::{JSON_INTEGER_MAX, PAGE_ITEMS_MAX},
};
use serde_json::Value;

use super::{
    problem::Problem,
    routes::{Operation, percent_decoded},
    shapes::{self, Shape},
};

/// What a call consists of, but for its method and its key.
pub(super) struct Call<'a> {
    pub(super) operation: Operation,
    /// What the path names, in order.
    pub(super) segments: &'a [String],
    pub(super) query: &'a str,
    pub(super) body: &'a [u8],
}

/// What is to be asked, and in whose name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) user: UserId,
    pub(super) request: Request,
}

/// Whether an operation has a body.
pub(super) fn has_body(operation: Operation) -> bool {
    shape_of(operation).is_some()
}

fn shape_of(operation: Operation) -> Option<&'static Shape> {
    match operation {
        Operation::IssueToken => Some(&shapes::TOKEN),
        Operation::CreateConversation => Some(&shapes::CREATE),
        Operation::SetTitle => Some(&shapes::TITLE),
        Operation::SendMessage => Some(&shapes::SEND),
        Operation::EditMessage => Some(&shapes::EDIT),
        Operation::React => Some(&shapes::REACT),
        Operation::Pin => Some(&shapes::PIN),
        Operation::MarkRead => Some(&shapes::READ),
        Operation::AddMembers | Operation::Ban => Some(&shapes::ADD),
        Operation::MakeInvite => Some(&shapes::INVITE),
        Operation::SetAccount => Some(&shapes::ACCOUNT),
        Operation::SetRoles => Some(&shapes::ROLES),
        Operation::SetSettings => Some(&shapes::SETTINGS),
        _ => None,
    }
}

fn invalid(text: impl Into<String>) -> Problem {
    Problem::new(ErrorCode::Invalid, text)
}

impl Call<'_> {
    /// The request, whose user and conversation stand in the path.
    pub(super) fn asked(&self) -> Result<Asked, Problem> {
        let user: UserId = self.segment(0, "user")?;
        let request = match self.operation {
            Operation::ListConversations => {
                let mut query = Query::read(self.query, &["after", "limit"])?;
                let after = query.take("after")?;
                Request::Conversations(Conversations { after, limit: query.limit()? })
            }
            Operation::CreateConversation => self.frame("create", "", "")?,
            Operation::ListAccount => {
                let mut query = Query::read(self.query, &["after", "limit"])?;
                let after: Option<String> = query.take("after")?;
                if after.as_ref().is_some_and(|after| !is_account_key(after)) {
                    return Err(invalid("after is no key"));
                }
                Request::Account(Account { action: AccountAction::List(AccountPage { after, limit: query.limit()? }) })
            }
            Operation::SetAccount => self.frame("account", "", "set")?,
            Operation::ListDevices => self.devices(DevicesAction::List(ListDevices {}))?,
            Operation::LogDeviceOut => self.devices(DevicesAction::Revoke(vec![self.segment(1, "device")?]))?,
            Operation::LogUserOut => self.devices(DevicesAction::RevokeAll(RevokeAll::default()))?,
            _ => self.about(self.segment(1, "conversation")?)?,
        };
        Ok(Asked { user, request })
    }

    /// A request about a conversation.
    fn about(&self, conversation: ConversationId) -> Result<Request, Problem> {
        let place = format!("\"conversation\":\"{conversation}\"");
        Ok(match self.operation {
            // One conversation is a page that begins right before it and has room for one.
            Operation::GetConversation => {
                Query::read(self.query, &[])?;
                let before = u128::from_be_bytes(conversation.0).checked_sub(1);
                let after = before.map(|number| ConversationId(number.to_be_bytes()));
                Request::Conversations(Conversations { after, limit: Some(1) })
            }
            Operation::SetTitle => self.frame("title", &place, "")?,
            Operation::SendMessage => self.frame("send", &place, "")?,
            Operation::History => {
                let mut query = Query::read(self.query, &["before", "after", "around", "limit"])?;
                let [before, after, around] =
                    [query.sequence("before")?, query.sequence("after")?, query.sequence("around")?];
                if [before, after, around].iter().flatten().count() > 1 {
                    return Err(invalid("at most one of before, after and around"));
                }
                Request::History(History { conversation, before, after, around, limit: query.limit()? })
            }
            Operation::EditMessage => self.frame("edit", &format!("{place},\"target\":{}", self.target()?.0), "")?,
            Operation::DeleteMessage => {
                let mut query = Query::read(self.query, &["client_message_id"])?;
                let client_message_id: Option<ClientMessageId> = query.take("client_message_id")?;
                let missing = || invalid("client_message_id is missing: a retry would be another deletion");
                let (client_message_id, target) = (client_message_id.ok_or_else(missing)?, self.target()?);
                Request::Delete(Delete { conversation, client_message_id, target })
            }
            Operation::ListReactions => {
                let mut query = Query::read(self.query, &["after", "limit"])?;
                let (target, after) = (self.target()?, query.take("after")?);
                Request::Reactions(Reactions { conversation, target, after, limit: query.limit()? })
            }
            Operation::React => self.frame("react", &format!("{place},\"target\":{}", self.target()?.0), "")?,
            Operation::ListPins => {
                Query::read(self.query, &[])?;
                Request::Pins(Pins { conversation })
            }
            Operation::Pin => self.frame("pin", &format!("{place},\"target\":{}", self.target()?.0), "")?,
            Operation::MarkRead => self.frame("read", &place, "")?,
            Operation::ListMembers => {
                let mut query = Query::read(self.query, &["after", "limit"])?;
                let list = MembersList { after: query.take("after")?, limit: query.limit()? };
                Request::Members(Members { conversation, action: MembersAction::List(list) })
            }
            Operation::AddMembers => self.frame("members", &place, "")?,
            Operation::RemoveMember => {
                Query::read(self.query, &[])?;
                let action = MembersAction::Remove(vec![self.segment(2, "member")?]);
                Request::Members(Members { conversation, action })
            }
            Operation::ListRoles => Request::Roles(Roles { conversation, action: RolesAction::List(self.users()?) }),
            Operation::SetRoles => self.frame("roles", &place, "")?,
            Operation::ListBans => Request::Bans(AskBans { conversation, action: BansAction::List(self.users()?) }),
            Operation::Ban => self.frame("bans", &place, "")?,
            Operation::LiftBan => {
                Query::read(self.query, &[])?;
                let action = BansAction::Remove(vec![self.segment(2, "banned")?]);
                Request::Bans(AskBans { conversation, action })
            }
            Operation::ListInvites => {
                let mut query = Query::read(self.query, &["after", "limit"])?;
                let list = InvitesPage { after: query.sequence("after")?, limit: query.limit()? };
                Request::Invites(Invites { conversation, action: InvitesAction::List(list) })
            }
            Operation::MakeInvite => self.frame("invites", &place, "make")?,
            Operation::RevokeInvite => {
                Query::read(self.query, &[])?;
                let action = InvitesAction::Revoke(vec![self.sequence(2, "invite")?]);
                Request::Invites(Invites { conversation, action })
            }
            Operation::GetSettings => {
                Query::read(self.query, &[])?;
                Request::Settings(AskSettings { conversation, set: None })
            }
            Operation::SetSettings => self.frame("settings", &place, "set")?,
            Operation::Describe
            | Operation::IssueToken
            | Operation::ListConversations
            | Operation::CreateConversation
            | Operation::ListAccount
            | Operation::SetAccount
            | Operation::ListDevices
            | Operation::LogDeviceOut
            | Operation::LogUserOut => unreachable!("not about a conversation"),
        })
    }

    fn devices(&self, action: DevicesAction) -> Result<Request, Problem> {
        Query::read(self.query, &[])?;
        Ok(Request::Devices(Devices { action }))
    }

    /// A protocol's frame of that kind, with these fields, and then the body: its fields, or all of it under a name.
    fn frame(&self, kind: &str, fields: &str, under: &str) -> Result<Request, Problem> {
        Query::read(self.query, &[])?;
        self.object()?;
        let body = std::str::from_utf8(self.body).unwrap_or_default().trim();
        let (open, rest) = body.split_at_checked(1).unwrap_or_default();
        let is_alone = fields.is_empty() || (under.is_empty() && rest.trim_start() == "}");
        let comma = if is_alone { "" } else { "," };
        let frame = if under.is_empty() {
            format!("{{\"id\":1,\"{kind}\":{open}{fields}{comma}{rest}}}")
        } else {
            format!("{{\"id\":1,\"{kind}\":{{{fields}{comma}\"{under}\":{body}}}}}")
        };
        Ok(Encoding::Json.decode_request(frame.as_bytes())?.1)
    }

    /// The body, an object with no other fields than it may have.
    pub(super) fn object(&self) -> Result<Value, Problem> {
        let value: Value = serde_json::from_slice(self.body)
            .map_err(|error| Problem::new(ErrorCode::Malformed, format!("the body is not JSON: {error}")))?;
        if !value.is_object() {
            return Err(Problem::new(ErrorCode::Malformed, "the body is not a JSON object"));
        }
        if let Some(shape) = shape_of(self.operation) {
            shape.check(&value).map_err(|text| Problem::new(ErrorCode::Malformed, text))?;
        }
        Ok(value)
    }

    fn target(&self) -> Result<Sequence, Problem> {
        self.sequence(2, "sequence")
    }

    fn sequence(&self, index: usize, name: &str) -> Result<Sequence, Problem> {
        match number(self.segments.get(index).map_or("", String::as_str)) {
            Some(sequence @ 1..) => Ok(Sequence(sequence)),
            _ => Err(invalid(format!("{name} is not a number from 1 to {JSON_INTEGER_MAX}"))),
        }
    }

    /// Which page of users the query asks for.
    fn users(&self) -> Result<UsersPage, Problem> {
        let mut query = Query::read(self.query, &["after", "limit"])?;
        Ok(UsersPage { after: query.take("after")?, limit: query.limit()? })
    }

    fn segment<T: std::str::FromStr<Err: std::fmt::Display>>(&self, index: usize, name: &str) -> Result<T, Problem> {
        let text = self.segments.get(index).map_or("", String::as_str);
        text.parse().map_err(|error| invalid(format!("{name} {error}")))
    }
}

/// A whole number as JSON writes it.
fn number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|number| is_plain && *number <= JSON_INTEGER_MAX)
}

/// What stands behind the question mark.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads it; no other parameters than the known ones may be there, and none twice.
    pub(super) fn read(text: &str, known: &[&str]) -> Result<Self, Problem> {
        let mut query: Vec<(String, String)> = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(name), Some(value)) = (percent_decoded(name), percent_decoded(value)) else {
                return Err(invalid("the query is not percent-encoded UTF-8"));
            };
            if !known.contains(&name.as_str()) {
                let name: String = name.chars().take(40).collect();
                return Err(invalid(format!("unknown parameter {name:?}")));
            }
            if query.iter().any(|(earlier, _)| *earlier == name) {
                return Err(invalid(format!("parameter {name} stands twice")));
            }
            query.push((name, value));
        }
        Ok(Self(query))
    }

    fn take<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, name: &str) -> Result<Option<T>, Problem> {
        let Some(at) = self.0.iter().position(|(known, _)| known == name) else { return Ok(None) };
        let (_, value) = self.0.swap_remove(at);
        value.parse().map(Some).map_err(|error| invalid(format!("{name} {error}")))
    }

    fn sequence(&mut self, name: &str) -> Result<Option<Sequence>, Problem> {
        let Some(text) = self.take::<String>(name)? else { return Ok(None) };
        let wrong = || invalid(format!("{name} is not a number from 0 to {JSON_INTEGER_MAX}"));
        number(&text).map(|number| Some(Sequence(number))).ok_or_else(wrong)
    }

    fn limit(&mut self) -> Result<Option<u32>, Problem> {
        let Some(text) = self.take::<String>("limit")? else { return Ok(None) };
        let limit = number(&text).and_then(|limit| u32::try_from(limit).ok());
        let limit = limit.filter(|limit| (1..=PAGE_ITEMS_MAX).contains(limit));
        limit.map(Some).ok_or_else(|| invalid(format!("limit is not a number from 1 to {PAGE_ITEMS_MAX}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVERSATION: &str = "01020304-0506-8708-890a-0b0c0d0e0f10";

    /// The protocol's frame that a call becomes, or the code and text of why it becomes none.
    fn check(operation: Operation, path: &str, query: &str, body: &str, expected: &str) {
        let segments: Vec<String> = path.split(' ').map(|part| part.replace("$C", CONVERSATION)).collect();
        let body = body.replace("$C", CONVERSATION);
        let call = Call { operation, segments: &segments, query, body: body.as_bytes() };
        let got = match call.asked() {
            Ok(asked) => String::from_utf8(Encoding::Json.encode_request(None, &asked.request)).unwrap(),
            Err(problem) => format!("{}: {}", problem.code(), problem.text()),
        };
        assert_eq!(got, expected.replace("$C", CONVERSATION), "{operation:?} {path} {query} {body}");
    }

    #[test]
    fn calls_become_the_protocols_requests() {
        use Operation as O;
        check(O::CreateConversation, "a", "", r#"{"direct":"bob"}"#, r#"{"create":{"direct":"bob"}}"#);
        check(O::ListConversations, "a", "limit=3&after=$C", "", "invalid: after is not a hyphenated UUID");
        let after = format!("after={CONVERSATION}&limit=200");
        check(O::ListConversations, "a", &after, "", r#"{"conversations":{"after":"$C","limit":200}}"#);
        let before = r#"{"conversations":{"after":"01020304-0506-8708-890a-0b0c0d0e0f0f","limit":1}}"#;
        check(O::GetConversation, "a $C", "", "", before);
        check(O::SetTitle, "a $C", "", r#" { "title" : "é" } "#, r#"{"title":{"conversation":"$C","title":"é"}}"#);
        check(
            O::SendMessage,
            "a $C",
            "",
            r#"{"client_message_id":"$C","text":"hi"}"#,
            r#"{"send":{"conversation":"$C","client_message_id":"$C","text":"hi"}}"#,
        );
        check(
            O::EditMessage,
            "a $C 7",
            "",
            r#"{"client_message_id":"$C","text":"hi"}"#,
            r#"{"edit":{"conversation":"$C","client_message_id":"$C","target":7,"text":"hi"}}"#,
        );
        let id = format!("client_message_id={CONVERSATION}");
        check(
            O::DeleteMessage,
            "a $C 7",
            &id,
            "",
            r#"{"delete":{"conversation":"$C","client_message_id":"$C","target":7}}"#,
        );
        check(O::History, "a $C", "before=9&limit=2", "", r#"{"history":{"conversation":"$C","before":9,"limit":2}}"#);
        check(O::AddMembers, "a $C", "", r#"{"add":["b"]}"#, r#"{"members":{"conversation":"$C","add":["b"]}}"#);
        check(O::RemoveMember, "a $C b", "", "", r#"{"members":{"conversation":"$C","remove":["b"]}}"#);
        check(O::ListMembers, "a $C", "after=b%2Bc", "", r#"{"members":{"conversation":"$C","list":{"after":"b+c"}}}"#);
        check(
            O::SetRoles,
            "a $C",
            "",
            r#"{"set":[{"user":"b","role":"admin"}]}"#,
            r#"{"roles":{"conversation":"$C","set":[{"user":"b","role":"admin"}]}}"#,
        );
        let react = r#"{"client_message_id":"$C","reaction":"👍","on":true}"#;
        let frame = r#"{"react":{"conversation":"$C","client_message_id":"$C","target":7,"reaction":"👍","on":true}}"#;
        check(O::React, "a $C 7", "", react, frame);
        let frame = r#"{"reactions":{"conversation":"$C","target":7,"after":"b","limit":2}}"#;
        check(O::ListReactions, "a $C 7", "after=b&limit=2", "", frame);
        let frame = r#"{"pin":{"conversation":"$C","client_message_id":"$C","target":7,"on":false}}"#;
        check(O::Pin, "a $C 7", "", r#"{"client_message_id":"$C","on":false}"#, frame);
        check(O::ListPins, "a $C", "", "", r#"{"pins":{"conversation":"$C"}}"#);
        check(O::MarkRead, "a $C", "", r#"{"sequence":7}"#, r#"{"read":{"conversation":"$C","sequence":7}}"#);
        check(O::Ban, "a $C", "", r#"{"add":["b"]}"#, r#"{"bans":{"conversation":"$C","add":["b"]}}"#);
        check(O::LiftBan, "a $C b", "", "", r#"{"bans":{"conversation":"$C","remove":["b"]}}"#);
        check(O::ListBans, "a $C", "limit=2", "", r#"{"bans":{"conversation":"$C","list":{"limit":2}}}"#);
        check(O::MakeInvite, "a $C", "", "{ }", r#"{"invites":{"conversation":"$C","make":{}}}"#);
        check(O::MakeInvite, "a $C", "", r#"{"uses":2}"#, r#"{"invites":{"conversation":"$C","make":{"uses":2}}}"#);
        check(O::ListInvites, "a $C", "after=7", "", r#"{"invites":{"conversation":"$C","list":{"after":7}}}"#);
        check(O::RevokeInvite, "a $C 7", "", "", r#"{"invites":{"conversation":"$C","revoke":[7]}}"#);
        check(O::ListAccount, "a", "after=draft%3A1", "", r#"{"account":{"list":{"after":"draft:1"}}}"#);
        check(O::SetAccount, "a", "", r#"{"key":"k","value":[1]}"#, r#"{"account":{"set":{"key":"k","value":[1]}}}"#);
        check(O::ListDevices, "a", "", "", r#"{"devices":{"list":{}}}"#);
        check(O::LogDeviceOut, "a phone:1", "", "", r#"{"devices":{"revoke":["phone:1"]}}"#);
        check(O::LogUserOut, "a", "", "", r#"{"devices":{"revoke_all":{}}}"#);
        check(O::GetSettings, "a $C", "", "", r#"{"settings":{"conversation":"$C"}}"#);
        check(
            O::SetSettings,
            "a $C",
            "",
            r#"{"description":"d"}"#,
            r#"{"settings":{"conversation":"$C","set":{"description":"d"}}}"#,
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        use Operation as O;
        let of_character = "has a character outside visible ASCII, or one of \" ' \\ / , < >";
        check(O::CreateConversation, "ä", "", "{}", &format!("invalid: user {of_character}"));
        check(O::SendMessage, "a x", "", "{}", "invalid: conversation is not a hyphenated UUID");
        check(O::CreateConversation, "a", "", "{}", "malformed: create needs exactly one of direct and group");
        check(O::CreateConversation, "a", "x=1", "{}", "invalid: unknown parameter \"x\"");
        check(O::SetTitle, "a $C", "", "[]", "malformed: the body is not a JSON object");
        check(O::SetTitle, "a $C", "", "{}", "malformed: missing field `title`");
        check(O::SetTitle, "a $C", "", r#"{"titel":1}"#, "malformed: unknown field \"titel\"; there are title");
        check(O::SetTitle, "a $C", "", r#"{"title":"a","title":"b"}"#, "malformed: duplicate field `title`");
        check(O::SendMessage, "a $C", "", r#"{"text":"hi"}"#, "malformed: missing field `client_message_id`");
        check(
            O::SendMessage,
            "a $C",
            "",
            r#"{"conversation":"$C"}"#,
            concat!(
                "malformed: unknown field \"conversation\"; there are client_message_id, text, content_type, data, json, mentions, ",
                "everybody, reply_to, thread, forwarded"
            ),
        );
        check(O::AddMembers, "a $C", "", r#"{"add":[]}"#, "invalid: add must name a user");
        check(O::ListAccount, "a", "after=%20", "", "invalid: after is no key");
        check(O::SetAccount, "a", "", "{}", "malformed: missing field `key`");
        check(O::LogDeviceOut, "a /", "", "", &format!("invalid: device {of_character}"));
        check(O::LogDeviceOut, "a ", "", "", "invalid: device must be 1 to 64 bytes long");
        check(O::LogUserOut, "a", "but_this=true", "", "invalid: unknown parameter \"but_this\"");
        check(O::ListDevices, "a", "limit=1", "", "invalid: unknown parameter \"limit\"");
        check(O::RevokeInvite, "a $C 0", "", "", "invalid: invite is not a number from 1 to 9007199254740991");
        for sequence in ["0", "-1", "+1", "01", "1.0", "9007199254740992", "x", ""] {
            let expected = "invalid: sequence is not a number from 1 to 9007199254740991";
            check(O::EditMessage, &format!("a $C {sequence}"), "", "{}", expected);
        }
        for limit in ["0", "201", "x", "", "1e1"] {
            check(O::History, "a $C", &format!("limit={limit}"), "", "invalid: limit is not a number from 1 to 200");
        }
        check(O::History, "a $C", "before=1&after=1", "", "invalid: at most one of before, after and around");
        check(O::History, "a $C", "limit=1&limit=1", "", "invalid: parameter limit stands twice");
        check(O::History, "a $C", "limit=%zz", "", "invalid: the query is not percent-encoded UTF-8");
        let missing = "invalid: client_message_id is missing: a retry would be another deletion";
        check(O::DeleteMessage, "a $C 7", "", "", missing);
    }
}
