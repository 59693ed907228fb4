//! docs/protocol.md and the code say the same: code tables, limits, kinds, and every example in JSON.

mod tables;

use antiphon_wire::{
    codec::Encoding,
    codes::{CloseCode, ErrorCode},
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
    let rows = rows("Limits");
    let got: Vec<(&str, usize)> = rows.iter().map(|row| (row[0].trim_matches('`'), row[1].parse().unwrap())).collect();
    assert_eq!(got, tables::LIMITS);
}

#[test]
fn kinds_are_those_of_the_code() {
    let mut got: Vec<(u8, &str)> = Vec::new();
    for row in rows("The binary form") {
        let pairs = row.chunks(2).filter(|pair| !pair[0].is_empty());
        got.extend(pairs.map(|pair| (pair[0].parse::<u8>().unwrap(), pair[1].trim_matches('`'))));
    }
    got.sort_unstable();
    assert_eq!(got, tables::KINDS);
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
             invites join account presence view devices",
        ),
        (
            "server",
            "connect ping create members conversations title send history read error message receipt left too_far \
             caught_up goodbye states edit delete react pin retain reactions pins roles settings bans event happened \
             refresh expiring invites join account presence present view devices advanced mentioned",
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
