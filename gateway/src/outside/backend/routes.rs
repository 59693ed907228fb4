//! What there is: the table of paths and methods, and how a request finds its row.
//!
//! Invariant: docs/openapi.json describes this table; a test compares them. Must not do: look at anything but path and method.

use super::{
    keys::Scope,
    problem::{Own, Problem},
};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Describe,
    IssueToken,
    CreateConversation,
    ListConversations,
    GetConversation,
    SetTitle,
    SendMessage,
    History,
    EditMessage,
    DeleteMessage,
    ListReactions,
    React,
    ListPins,
    Pin,
    MarkRead,
    ListMembers,
    AddMembers,
    RemoveMember,
    ListRoles,
    SetRoles,
    ListBans,
    Ban,
    LiftBan,
    ListInvites,
    MakeInvite,
    RevokeInvite,
    GetSettings,
    SetSettings,
    ListAccount,
    SetAccount,
    ListDevices,
    LogDeviceOut,
    LogUserOut,
}

/// One row.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: &'static str,
    /// Segments in braces stand for any.
    pub(super) path: &'static str,
    /// What the key must be for; without one there is no key.
    pub(super) scope: Option<Scope>,
    pub(super) operation: Operation,
}

const fn route(method: &'static str, path: &'static str, scope: Scope, operation: Operation) -> Route {
    Route { method, path, scope: Some(scope), operation }
}

const CONVERSATIONS: &str = "/v1/users/{user}/conversations";
const CONVERSATION: &str = "/v1/users/{user}/conversations/{conversation}";
const MESSAGES: &str = "/v1/users/{user}/conversations/{conversation}/messages";
const MESSAGE: &str = "/v1/users/{user}/conversations/{conversation}/messages/{sequence}";
const REACTIONS: &str = "/v1/users/{user}/conversations/{conversation}/messages/{sequence}/reactions";
const PIN: &str = "/v1/users/{user}/conversations/{conversation}/messages/{sequence}/pin";
const PINS: &str = "/v1/users/{user}/conversations/{conversation}/pins";
const READ: &str = "/v1/users/{user}/conversations/{conversation}/read";
const MEMBERS: &str = "/v1/users/{user}/conversations/{conversation}/members";
const MEMBER: &str = "/v1/users/{user}/conversations/{conversation}/members/{member}";
const ROLES: &str = "/v1/users/{user}/conversations/{conversation}/roles";
const BANS: &str = "/v1/users/{user}/conversations/{conversation}/bans";
const BAN: &str = "/v1/users/{user}/conversations/{conversation}/bans/{banned}";
const INVITES: &str = "/v1/users/{user}/conversations/{conversation}/invites";
const INVITE: &str = "/v1/users/{user}/conversations/{conversation}/invites/{invite}";
const SETTINGS: &str = "/v1/users/{user}/conversations/{conversation}/settings";
const ACCOUNT: &str = "/v1/users/{user}/account";
const DEVICES: &str = "/v1/users/{user}/devices";
const DEVICE: &str = "/v1/users/{user}/devices/{device}";

/// Everything that there is.
pub(super) const ROUTES: &[Route] = &[
    Route { method: "GET", path: "/openapi.json", scope: None, operation: Operation::Describe },
    route("POST", "/v1/tokens", Scope::Tokens, Operation::IssueToken),
    route("GET", CONVERSATIONS, Scope::Read, Operation::ListConversations),
    route("POST", CONVERSATIONS, Scope::Groups, Operation::CreateConversation),
    route("GET", CONVERSATION, Scope::Read, Operation::GetConversation),
    route("PATCH", CONVERSATION, Scope::Groups, Operation::SetTitle),
    route("GET", MESSAGES, Scope::Read, Operation::History),
    route("POST", MESSAGES, Scope::Write, Operation::SendMessage),
    route("PATCH", MESSAGE, Scope::Write, Operation::EditMessage),
    route("DELETE", MESSAGE, Scope::Write, Operation::DeleteMessage),
    route("GET", REACTIONS, Scope::Read, Operation::ListReactions),
    route("POST", REACTIONS, Scope::Write, Operation::React),
    route("GET", PINS, Scope::Read, Operation::ListPins),
    route("PUT", PIN, Scope::Write, Operation::Pin),
    route("PUT", READ, Scope::Write, Operation::MarkRead),
    route("GET", MEMBERS, Scope::Read, Operation::ListMembers),
    route("POST", MEMBERS, Scope::Groups, Operation::AddMembers),
    route("DELETE", MEMBER, Scope::Groups, Operation::RemoveMember),
    route("GET", ROLES, Scope::Read, Operation::ListRoles),
    route("PATCH", ROLES, Scope::Groups, Operation::SetRoles),
    route("GET", BANS, Scope::Read, Operation::ListBans),
    route("POST", BANS, Scope::Groups, Operation::Ban),
    route("DELETE", BAN, Scope::Groups, Operation::LiftBan),
    route("GET", INVITES, Scope::Read, Operation::ListInvites),
    route("POST", INVITES, Scope::Groups, Operation::MakeInvite),
    route("DELETE", INVITE, Scope::Groups, Operation::RevokeInvite),
    route("GET", SETTINGS, Scope::Read, Operation::GetSettings),
    route("PATCH", SETTINGS, Scope::Groups, Operation::SetSettings),
    route("GET", ACCOUNT, Scope::Read, Operation::ListAccount),
    route("PATCH", ACCOUNT, Scope::Write, Operation::SetAccount),
    route("GET", DEVICES, Scope::Read, Operation::ListDevices),
    route("DELETE", DEVICES, Scope::Devices, Operation::LogUserOut),
    route("DELETE", DEVICE, Scope::Devices, Operation::LogDeviceOut),
];

/// What stands in a path for the segments in braces, in their order.
pub(super) type Segments = Vec<String>;

/// The row for a request, and what its path names.
pub(super) fn find(method: &str, path: &str) -> Result<(&'static Route, Segments), Problem> {
    let fitting: Vec<_> = ROUTES.iter().filter_map(|route| Some((route, segments(route.path, path)?))).collect();
    if fitting.is_empty() {
        return Err(Problem::own(
            Own::NoSuchPath,
            "there is nothing at this path; /openapi.json has those that there are",
        ));
    }
    let methods = fitting.iter().map(|(route, _)| route.method).collect::<Vec<_>>().join(", ");
    let found = fitting.into_iter().find(|(route, _)| route.method == method);
    found.ok_or_else(|| {
        Problem::own(Own::MethodNotAllowed, format!("this path is for {methods} only")).allowing(methods)
    })
}

/// What `path` has where `pattern` has braces, if it is such a path at all.
fn segments(pattern: &str, path: &str) -> Option<Segments> {
    let (mut wanted, mut given) = (pattern.split('/'), path.split('/'));
    let mut found = Vec::new();
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(found),
            (Some(wanted), Some(given)) if wanted.starts_with('{') => found.push(percent_decoded(given)?),
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

/// Text whose bytes may be written as `%` and two hexadecimal digits; `None` if that is not what stands there, or not UTF-8.
pub(super) fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, path: &str, expected: Result<(Operation, &[&str]), &str>) {
        let found = find(method, path);
        match (&found, expected) {
            (Ok((route, segments)), Ok((operation, named))) => {
                let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
                assert_eq!((route.operation, segments.as_slice()), (operation, named), "{method} {path}");
            }
            (Err(problem), Err(code)) => assert_eq!(problem.code(), code, "{method} {path}"),
            _ => panic!("{method} {path}: {found:?}"),
        }
    }

    #[test]
    fn a_path_and_a_method_find_their_row() {
        check("GET", "/openapi.json", Ok((Operation::Describe, &[])));
        check("POST", "/v1/users/a/conversations", Ok((Operation::CreateConversation, &["a"])));
        check("PATCH", "/v1/users/a/conversations/c/messages/7", Ok((Operation::EditMessage, &["a", "c", "7"])));
        check("GET", "/v1/users/a%40b%2Fc/conversations", Ok((Operation::ListConversations, &["a@b/c"])));
        check("GET", "/v1/users/%C3%A4/conversations", Ok((Operation::ListConversations, &["ä"])));
        check("DELETE", "/v1/users/a/devices", Ok((Operation::LogUserOut, &["a"])));
        check("DELETE", "/v1/users/a/devices/b%3A1", Ok((Operation::LogDeviceOut, &["a", "b:1"])));
        // What names no device does not log all of them out.
        check("DELETE", "/v1/users/a/devices/", Ok((Operation::LogDeviceOut, &["a", ""])));
        check("GET", "/v1/users/a/devices/b", Err("method_not_allowed"));
        check("GET", "/v1/users/a/conversations/", Ok((Operation::GetConversation, &["a", ""])));
        for path in ["", "/", "/v1", "/v1/", "/v1/users/a", "//v1/tokens", "/v1/tokens/", "/v1/Tokens"] {
            check("GET", path, Err("no_such_path"));
        }
        for name in ["%", "%F", "%FF", "%+1", "%zz"] {
            check("GET", &format!("/v1/users/{name}/conversations"), Err("no_such_path"));
        }
        for method in ["GET", "HEAD", "OPTIONS", "DELETE", "post", "TRACE"] {
            check(method, "/v1/tokens", Err("method_not_allowed"));
        }
    }

    #[test]
    fn no_two_rows_are_for_the_same() {
        for (index, one) in ROUTES.iter().enumerate() {
            for other in &ROUTES[index + 1..] {
                assert!((one.method, one.path) != (other.method, other.path) && one.operation != other.operation);
            }
        }
    }
}
