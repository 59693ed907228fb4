//! docs/protocol.md and the code say the same: code tables, limits, kinds, and every example in JSON.

use antiphon_wire::{
    binary::kind,
    codec::Encoding,
    codes::{CloseCode, ErrorCode},
    limits,
};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// The cells of all rows of tables in a section, without heads.
fn rows(section: &str) -> Vec<Vec<&'static str>> {
    let (_, text) = DOCUMENT.split_once(&format!("\n## {section}\n")).expect("the section is there");
    let text = text.split_once("\n## ").map_or(text, |(text, _)| text);
    // Diagrams stand between fences.
    let lines: Vec<&str> = text.split("```").step_by(2).flat_map(str::lines).collect();
    let is_head = |index: usize| lines.get(index + 1).is_some_and(|next| next.starts_with("|---"));
    let table =
        |(index, line): &(usize, &&str)| line.starts_with("| ") && !is_head(*index) && !line.starts_with("|---");
    let cells = |line: &'static str| line.trim_matches('|').split('|').map(str::trim).collect();
    lines.iter().enumerate().filter(table).map(|(_, line)| cells(line)).collect()
}

#[test]
fn error_codes_are_those_of_the_code() {
    let expect: Vec<_> = ErrorCode::ALL.iter().map(|code| (*code as u8, code.name(), code.temporary())).collect();
    let rows = rows("Error codes");
    let got: Vec<_> =
        rows.iter().map(|row| (row[0].parse().unwrap(), row[1].trim_matches('`'), row[3] == "yes")).collect();
    assert_eq!(got, expect);
    assert!(rows.iter().all(|row| row.len() == 5 && ["yes", "no"].contains(&row[3]) && !row[4].is_empty()));
}

#[test]
fn close_codes_are_those_of_the_code() {
    let expect: Vec<_> = CloseCode::ALL.iter().map(|code| (code.number(), code.name(), code.comes_back())).collect();
    let rows = rows("Close codes");
    let comes_back = |cell: &str| {
        assert!(cell.starts_with("yes") || cell.starts_with("no"));
        cell.starts_with("yes")
    };
    let got: Vec<_> =
        rows.iter().map(|row| (row[0].parse().unwrap(), row[1].trim_matches('`'), comes_back(row[3]))).collect();
    assert_eq!(got, expect);
}

#[test]
fn limits_are_those_of_the_code() {
    let expect = [
        ("NAME_BYTES_MAX", limits::NAME_BYTES_MAX),
        ("TEXT_BYTES_MAX", limits::TEXT_BYTES_MAX),
        ("DATA_BYTES_MAX", limits::DATA_BYTES_MAX),
        ("CONTENT_TYPE_BYTES_MAX", limits::CONTENT_TYPE_BYTES_MAX),
        ("MENTIONS_PER_MESSAGE_MAX", limits::MENTIONS_PER_MESSAGE_MAX),
        ("REACTION_BYTES_MAX", limits::REACTION_BYTES_MAX),
        ("EVENT_NAME_BYTES_MAX", limits::EVENT_NAME_BYTES_MAX),
        ("EVENT_DATA_BYTES_MAX", limits::EVENT_DATA_BYTES_MAX),
        ("REACTIONS_PER_MESSAGE_MAX", limits::REACTIONS_PER_MESSAGE_MAX),
        ("PINS_PER_CONVERSATION_MAX", limits::PINS_PER_CONVERSATION_MAX),
        ("TITLE_BYTES_MAX", limits::TITLE_BYTES_MAX),
        ("DESCRIPTION_BYTES_MAX", limits::DESCRIPTION_BYTES_MAX),
        ("PICTURE_BYTES_MAX", limits::PICTURE_BYTES_MAX),
        ("BANS_PER_GROUP_MAX", limits::BANS_PER_GROUP_MAX),
        ("CLIENT_FRAME_BYTES_MAX", limits::CLIENT_FRAME_BYTES_MAX),
        ("SERVER_FRAME_BYTES_MAX", limits::SERVER_FRAME_BYTES_MAX),
        ("MEMBERS_PER_REQUEST_MAX", limits::MEMBERS_PER_REQUEST_MAX),
        ("GROUP_MEMBERS_MAX", limits::GROUP_MEMBERS_MAX),
        ("CONVERSATIONS_PER_USER_MAX", limits::CONVERSATIONS_PER_USER_MAX),
        ("PAGE_ITEMS_MAX", limits::PAGE_ITEMS_MAX as usize),
        ("PAGE_ITEMS_DEFAULT", limits::PAGE_ITEMS_DEFAULT as usize),
        ("PAGE_BYTES_MAX", limits::PAGE_BYTES_MAX),
        ("RESUME_KNOWN_MAX", limits::RESUME_KNOWN_MAX),
        ("RESUME_ENTRIES_PER_CONVERSATION_MAX", limits::RESUME_ENTRIES_PER_CONVERSATION_MAX),
        ("RESUME_BYTES_MAX", limits::RESUME_BYTES_MAX),
        ("TOKEN_BYTES_MAX", limits::TOKEN_BYTES_MAX),
        ("TOKEN_EXPIRING_MS", limits::TOKEN_EXPIRING_MS as usize),
        ("INVITES_PER_GROUP_MAX", limits::INVITES_PER_GROUP_MAX),
        ("INVITE_EXPIRES_IN_S_MAX", limits::INVITE_EXPIRES_IN_S_MAX as usize),
        ("CLIENT_NAME_BYTES_MAX", limits::CLIENT_NAME_BYTES_MAX),
    ];
    let rows = rows("Limits");
    let got: Vec<(&str, usize)> = rows.iter().map(|row| (row[0].trim_matches('`'), row[1].parse().unwrap())).collect();
    assert_eq!(got, expect);
}

#[test]
fn kinds_are_those_of_the_code() {
    let mut got: Vec<(u8, &str)> = Vec::new();
    for row in rows("The binary form") {
        let pairs = row.chunks(2).filter(|pair| !pair[0].is_empty());
        got.extend(pairs.map(|pair| (pair[0].parse::<u8>().unwrap(), pair[1].trim_matches('`'))));
    }
    got.sort_unstable();
    let expect = [
        (kind::CONNECT, "connect"),
        (kind::PING, "ping"),
        (kind::CREATE, "create"),
        (kind::MEMBERS, "members"),
        (kind::CONVERSATIONS, "conversations"),
        (kind::TITLE, "title"),
        (kind::SEND, "send"),
        (kind::HISTORY, "history"),
        (kind::READ, "read"),
        (kind::DELIVERED, "delivered"),
        (kind::EDIT, "edit"),
        (kind::DELETE, "delete"),
        (kind::REACT, "react"),
        (kind::PIN, "pin"),
        (kind::RETAIN, "retain"),
        (kind::REACTIONS, "reactions"),
        (kind::PINS, "pins"),
        (kind::ROLES, "roles"),
        (kind::SETTINGS, "settings"),
        (kind::BANS, "bans"),
        (kind::EVENT, "event"),
        (kind::REFRESH, "refresh"),
        (kind::INVITES, "invites"),
        (kind::JOIN, "join"),
        (kind::ERROR, "error"),
        (kind::MESSAGE, "message"),
        (kind::RECEIPT, "receipt"),
        (kind::LEFT, "left"),
        (kind::TOO_FAR, "too_far"),
        (kind::CAUGHT_UP, "caught_up"),
        (kind::GOODBYE, "goodbye"),
        (kind::STATES, "states"),
        (kind::HAPPENED, "happened"),
        (kind::EXPIRING, "expiring"),
    ];
    assert_eq!(got, expect);
}

#[test]
fn every_example_is_a_frame() {
    let mut count = 0;
    let mut rest = DOCUMENT;
    while let Some((_, block)) = rest.split_once("\n```json") {
        let (direction, block) = block.split_once('\n').unwrap();
        let (example, after) = block.split_once("\n```").unwrap();
        rest = after;
        count += 1;
        let outcome = match direction {
            " request" => Encoding::Json.decode_request(example.as_bytes()).map(|_| ()),
            " server" => Encoding::Json.decode_server(example.as_bytes()).map(|_| ()),
            other => panic!("an example for whom? {other:?}"),
        };
        assert_eq!(outcome, Ok(()), "{example}");
    }
    assert!(count >= 30, "{count} examples were found");
}

#[test]
fn every_frame_has_an_example() {
    for (direction, names) in [
        (
            "request",
            "connect ping create members conversations title send history read delivered edit delete react pin retain \
             reactions pins roles settings bans event refresh \
             invites join",
        ),
        (
            "server",
            "connect ping create members conversations title send history read error message receipt left too_far \
             caught_up goodbye states edit delete react pin retain reactions pins roles settings bans event happened \
             refresh expiring invites join",
        ),
    ] {
        for name in names.split_whitespace() {
            let example = |block: &str| {
                block.starts_with(direction)
                    && block.split("\n```").next().unwrap().contains(&format!("\"{name}\": {{"))
            };
            assert!(DOCUMENT.split("\n```json ").skip(1).any(example), "{direction} {name}");
        }
    }
}
