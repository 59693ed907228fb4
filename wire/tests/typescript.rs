//! clients/typescript/src/codes.ts has the protocol's codes, limits and kinds as they are here, and docs/asyncapi.yaml has the same error
//! codes. `GENERATED_WRITE=1` writes codes.ts.

mod tables;

use std::{fmt::Write as _, fs, path::PathBuf};

use antiphon_wire::{
    codec::Encoding,
    codes::{CloseCode, ErrorCode},
};

const HEADER: &str = "\
// Made of the crate `wire` by `GENERATED_WRITE=1 cargo test -p antiphon-wire --test typescript`. Change the crate, not this file.
";

const DOCUMENT: &str = include_str!("../../docs/asyncapi.yaml");

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../clients/typescript/src/codes.ts")
}

/// Text as a literal.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// A constant with a comment: what begins it, a line for each item, and what ends it.
fn constant(comment: &str, name: &str, [open, close]: [&str; 2], items: impl Iterator<Item = String>) -> String {
    let mut out = format!("\n/** {comment} */\nexport const {name} = {open}\n");
    items.for_each(|item| writeln!(out, "  {item},").unwrap());
    out + close + " as const;\n"
}

fn render() -> String {
    let errors = ErrorCode::ALL
        .iter()
        .map(|code| format!("{}: {{ temporary: {}, text: {} }}", code.name(), code.temporary(), quoted(code.text())));
    let closes = CloseCode::ALL.iter().map(|code| {
        let (name, number, returns, text) = (code.name(), code.number(), code.comes_back(), quoted(code.text()));
        format!("{name}: {{ code: {number}, returns: {returns}, text: {text} }}")
    });
    let limits = tables::LIMITS.iter().map(|(name, value)| format!("{name}: {value}"));
    let kinds = tables::KINDS.iter().map(|(_, name)| quoted(name));
    let (object, list) = (["{", "}"], ["[", "]"]);
    [
        HEADER,
        "\n/** The WebSocket subprotocol. */\n",
        &format!("export const SUBPROTOCOL = {};\n", quoted(Encoding::Json.subprotocol())),
        &constant("Errors by code: whether the same request may succeed later.", "ERROR_CODES", object, errors),
        "\n/** What went wrong with a request. */\nexport type ErrorCode = keyof typeof ERROR_CODES;\n",
        &constant("Close codes by reason: whether a client comes back by itself.", "CLOSE_CODES", object, closes),
        "\n/** Why a connection ended. */\nexport type CloseReason = keyof typeof CLOSE_CODES;\n",
        &constant(
            "What docs/protocol.md says of limits. A server may have set some otherwise.",
            "LIMITS",
            object,
            limits,
        ),
        &constant("The kinds of answers and pushes.", "KINDS", list, kinds),
        "\n/** What a frame of the server is. */\nexport type Kind = (typeof KINDS)[number];\n",
    ]
    .concat()
}

#[test]
fn the_constants_are_those_of_the_code() {
    let expect = render();
    if std::env::var_os("GENERATED_WRITE").is_some() {
        fs::write(path(), &expect).unwrap();
    }
    let text = fs::read_to_string(path()).unwrap_or_default();
    assert!(text == expect, "codes.ts no longer fits; GENERATED_WRITE=1 writes it. It is to be:\n{expect}");
}

#[test]
fn the_description_has_the_error_codes() {
    let (_, schema) = DOCUMENT.split_once("\n    ErrorCode:\n").expect("there is a schema of error codes");
    let (_, list) = schema.split_once("\n      enum:\n").expect("it is an enum");
    let got: Vec<&str> = list.lines().map_while(|line| line.strip_prefix("        - ")).collect();
    let expect: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(got, expect);
}
