//! `Sec-WebSocket-Extensions`: what a client offers, as types, and the point where an answer is chosen.
//!
//! We accept no extension yet. permessage-deflate (RFC 7692) will be chosen in [`negotiate`], and the frame parser will then
//! let RSV1 through; nothing else has to move.

/// One offer out of the list, in the client's order of preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExtensionOffer {
    /// `permessage-deflate` with parameters that RFC 7692 allows.
    PermessageDeflate(DeflateOffer),
    /// An extension that we do not know, or `permessage-deflate` with parameters that must be declined.
    Declined,
}

/// The parameters of one offer of `permessage-deflate` (RFC 7692 §7.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeflateOffer {
    /// The client asks us to compress each message by itself.
    pub server_no_context_takeover: bool,
    /// The client will compress each message by itself.
    pub client_no_context_takeover: bool,
    /// The client asks us for a window of at most 2^n bytes, n in 8..=15.
    pub server_max_window_bits: Option<u8>,
    /// The client lets us bound its window.
    pub client_max_window_bits: Option<ClientWindow>,
}

/// `client_max_window_bits` comes with or without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientWindow {
    /// Without a value: any bound will do.
    Any,
    /// The client will not use more than 2^n bytes anyway, n in 8..=15.
    Bits(u8),
}

/// The header is not a list of extensions at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Sec-WebSocket-Extensions is malformed")]
pub struct MalformedExtensions;

/// An accepted offer. Uninhabited until compression comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreed {}

/// Chooses an answer to the offers: none for now. A server is free to decline them all, by not answering (RFC 7692 §5.1).
#[must_use]
pub const fn negotiate(_offers: &[ExtensionOffer]) -> Option<Agreed> {
    None
}

/// Appends the offers of one header line to `offers`.
///
/// ```text
/// extension-list  = 1#extension
/// extension       = extension-token *( ";" extension-param )
/// extension-param = token [ "=" (token | quoted-string) ]            (RFC 6455 §9.1)
/// ```
pub fn parse_offers(line: &str, offers: &mut Vec<ExtensionOffer>) -> Result<(), MalformedExtensions> {
    let mut rest = line.trim_matches(OWS);
    loop {
        // A list may hold empty elements (RFC 9110 §5.6.1.2).
        while let Some(after) = rest.strip_prefix(',') {
            rest = after.trim_start_matches(OWS);
        }
        if rest.is_empty() {
            return Ok(());
        }
        let name;
        (name, rest) = token(rest)?;
        let mut deflate = name.eq_ignore_ascii_case("permessage-deflate").then(DeflateOffer::default);
        while let Some(after) = rest.strip_prefix(';') {
            let (parameter, value);
            (parameter, value, rest) = parse_parameter(after)?;
            deflate = deflate.and_then(|offer| with_parameter(offer, parameter, value));
        }
        if !(rest.is_empty() || rest.starts_with(',')) {
            return Err(MalformedExtensions);
        }
        offers.push(deflate.map_or(ExtensionOffer::Declined, ExtensionOffer::PermessageDeflate));
    }
}

const OWS: [char; 2] = [' ', '\t'];

/// `token`'s characters (RFC 9110 §5.6.2).
pub(in crate::core) const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

/// A token and what follows it, white space skipped on both sides.
fn token(text: &str) -> Result<(&str, &str), MalformedExtensions> {
    let text = text.trim_start_matches(OWS);
    let end = text.bytes().position(|byte| !is_token_byte(byte)).unwrap_or(text.len());
    match text.split_at_checked(end) {
        Some((token, rest)) if !token.is_empty() => Ok((token, rest.trim_start_matches(OWS))),
        _ => Err(MalformedExtensions),
    }
}

/// Name, value, and what follows.
fn parse_parameter(text: &str) -> Result<(&str, Option<&str>, &str), MalformedExtensions> {
    let (name, rest) = token(text)?;
    let Some(value) = rest.strip_prefix('=') else { return Ok((name, None, rest)) };
    let value = value.trim_start_matches(OWS);
    if let Some(quoted) = value.strip_prefix('"') {
        // "When using the quoted-string syntax variant, the value after quoted-string unescaping MUST conform to the 'token'
        // ABNF" (RFC 6455 §9.1): so an escape is never needed, and we accept none.
        let (value, rest) = quoted.split_once('"').ok_or(MalformedExtensions)?;
        if value.is_empty() || !value.bytes().all(is_token_byte) {
            return Err(MalformedExtensions);
        }
        return Ok((name, Some(value), rest.trim_start_matches(OWS)));
    }
    let (value, rest) = token(value)?;
    Ok((name, Some(value), rest))
}

/// The offer with one more parameter, or `None` where RFC 7692 §7.1 says that a server must decline the offer: a parameter that
/// is not defined for an offer, one with an invalid value, one that stands twice.
fn with_parameter(mut offer: DeflateOffer, name: &str, value: Option<&str>) -> Option<DeflateOffer> {
    match (name, value) {
        ("server_no_context_takeover", None) if !offer.server_no_context_takeover => {
            offer.server_no_context_takeover = true;
        }
        ("client_no_context_takeover", None) if !offer.client_no_context_takeover => {
            offer.client_no_context_takeover = true;
        }
        ("server_max_window_bits", Some(value)) if offer.server_max_window_bits.is_none() => {
            offer.server_max_window_bits = Some(window_bits(value)?);
        }
        ("client_max_window_bits", value) if offer.client_max_window_bits.is_none() => {
            offer.client_max_window_bits = Some(match value {
                None => ClientWindow::Any,
                Some(value) => ClientWindow::Bits(window_bits(value)?),
            });
        }
        _ => return None,
    }
    Some(offer)
}

/// "a decimal integer value without leading zeroes between 8 to 15, inclusive" (RFC 7692 §7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    if value.starts_with(['0', '+']) {
        return None;
    }
    value.parse().ok().filter(|bits| (8..=15).contains(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Result<Vec<ExtensionOffer>, MalformedExtensions>) {
        let mut offers = Vec::new();
        assert_eq!(parse_offers(line, &mut offers).map(|()| offers), expected, "{line:?}");
    }

    #[test]
    fn offers() {
        use ExtensionOffer::{Declined, PermessageDeflate};
        let plain = || PermessageDeflate(DeflateOffer::default());
        check("", Ok(vec![]));
        check("permessage-deflate", Ok(vec![plain()]));
        check("Permessage-Deflate, x-other;a;b=c;d=\"e\"", Ok(vec![plain(), Declined]));
        check(", permessage-deflate,,", Ok(vec![plain()]));
        check(
            "permessage-deflate; client_max_window_bits",
            Ok(vec![PermessageDeflate(DeflateOffer {
                client_max_window_bits: Some(ClientWindow::Any),
                ..DeflateOffer::default()
            })]),
        );
        check(
            "permessage-deflate ; server_no_context_takeover;client_no_context_takeover; \
             server_max_window_bits=10;client_max_window_bits=\"15\"",
            Ok(vec![PermessageDeflate(DeflateOffer {
                server_no_context_takeover: true,
                client_no_context_takeover: true,
                server_max_window_bits: Some(10),
                client_max_window_bits: Some(ClientWindow::Bits(15)),
            })]),
        );
    }

    #[test]
    fn offers_that_must_be_declined() {
        for parameters in [
            "server_max_window_bits",
            "server_max_window_bits=7",
            "server_max_window_bits=16",
            "server_max_window_bits=08",
            "server_max_window_bits=ten",
            "server_no_context_takeover=1",
            "client_no_context_takeover;client_no_context_takeover",
            "client_max_window_bits;client_max_window_bits=9",
            "unknown",
        ] {
            check(&format!("permessage-deflate;{parameters}"), Ok(vec![ExtensionOffer::Declined]));
        }
    }

    #[test]
    fn malformed_lists() {
        for line in [";", "=", "a b", "a;", "a;=1", "a;b=", "a;b=\"", "a;b=\"\"", "a;b=\"x y\"", "a;b=c d", "é", "a,;"]
        {
            check(line, Err(MalformedExtensions));
        }
    }

    #[test]
    fn nothing_is_accepted_yet() {
        assert_eq!(negotiate(&[ExtensionOffer::PermessageDeflate(DeflateOffer::default())]), None);
    }
}
