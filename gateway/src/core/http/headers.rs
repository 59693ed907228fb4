//! Looking up headers: by name without regard to case, refusing to choose between duplicates that could contradict.

use std::fmt;

use super::super::websocket::extension::is_token_byte;
use super::answer::Answer;

/// A token to authenticate with, as the client sent it. Its `Debug` does not show it, so that no log does.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token itself: visible ASCII, not verified.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Token({} bytes)", self.0.len())
    }
}

/// The header lines of one request.
pub(super) struct Headers<'h>(pub(super) &'h [httparse::Header<'h>]);

impl<'h> Headers<'h> {
    /// Every line of that name, white space around it removed.
    pub(super) fn all(&self, name: &'static str) -> impl Iterator<Item = Result<&'h str, Answer>> {
        self.0.iter().filter(move |line| line.name.eq_ignore_ascii_case(name)).map(|line| {
            std::str::from_utf8(line.value)
                .map(|value| value.trim_matches(OWS))
                .map_err(|_| Answer::bad_request("A header is not UTF-8."))
        })
    }

    pub(super) fn has(&self, name: &'static str) -> bool {
        self.all(name).next().is_some()
    }

    /// The one line of that name. Two of them are refused: whoever stands between us and the client may have seen the other.
    pub(super) fn single(&self, name: &'static str) -> Result<Option<&'h str>, Answer> {
        let mut lines = self.all(name);
        let first = lines.next().transpose()?;
        if lines.next().is_some() {
            return Err(Answer::bad_request("A header that may stand only once stands twice."));
        }
        Ok(first)
    }

    /// Whether a comma-separated list of tokens, over all lines of that name, has `token`: "a |Connection| header field that
    /// includes the token "Upgrade", treated as an ASCII case-insensitive value" (RFC 6455 §4.2.1).
    pub(super) fn lists(&self, name: &'static str, token: &str) -> bool {
        self.all(name).filter_map(Result::ok).flat_map(elements).any(|element| element.eq_ignore_ascii_case(token))
    }

    /// The token of `Authorization: Bearer` (RFC 6750 §2.1). Other schemes are not ours to judge.
    pub(super) fn bearer(&self) -> Result<Option<Token>, Answer> {
        let Some(value) = self.single("authorization")? else { return Ok(None) };
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Ok(None);
        }
        let token = token.trim_matches(OWS);
        if token.is_empty() || !token.bytes().all(is_credential_byte) {
            return Err(Answer::bad_request("Authorization: Bearer carries no token."));
        }
        Ok(Some(Token(token.to_owned())))
    }

    /// The token in the cookie of that name (RFC 6265 §5.4). Two different ones are refused: one of them may have been planted
    /// by a neighbouring site.
    pub(super) fn cookie(&self, name: &str) -> Result<Option<Token>, Answer> {
        let mut found: Option<&str> = None;
        for line in self.all("cookie") {
            for pair in line?.split(';') {
                let Some((key, value)) = pair.split_once('=') else { continue };
                if key.trim_matches(OWS) != name {
                    continue;
                }
                let value = value.trim_matches(OWS);
                let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
                if found.is_some_and(|found| found != value) {
                    return Err(Answer::bad_request("The token's cookie stands twice."));
                }
                found = Some(value);
            }
        }
        match found {
            // A cookie that was cleared.
            None | Some("") => Ok(None),
            Some(token) if token.bytes().all(is_credential_byte) => Ok(Some(Token(token.to_owned()))),
            Some(_) => Err(Answer::bad_request("The token's cookie is malformed.")),
        }
    }
}

/// The elements of a comma-separated list; empty ones are skipped (RFC 9110 §5.6.1.2).
pub(super) fn elements(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|element| element.trim_matches(OWS)).filter(|element| !element.is_empty())
}

const OWS: [char; 2] = [' ', '\t'];

/// The characters of `b64token` (RFC 6750 §2.1), and those of tokens in general: none of them ends a cookie or a header.
const fn is_credential_byte(byte: u8) -> bool {
    is_token_byte(byte) || matches!(byte, b'/' | b'=' | b':')
}
