//! `Sec-WebSocket-Extensions`: what a client offers, as types, and the point where an answer is chosen.
//!
//! The one extension that may be accepted is permessage-deflate (RFC 7692), always without context takeover in both directions:
//! a connection then owns no compression state, at the price of a worse ratio.

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

/// Smallest window that we compress with. RFC 7692 goes down to 8, zlib does not for streams without a header.
pub const WINDOW_BITS_MIN: u8 = 9;

/// DEFLATE's largest window, which is used unless a client asks for less.
pub const WINDOW_BITS_MAX: u8 = 15;

/// permessage-deflate without context takeover, and with the one thing that connections may differ in: our window. A client's
/// window is of no concern, since we always inflate with the largest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Agreed {
    window_bits: u8,
}

impl Agreed {
    /// With a window of 2^`bits` bytes, if we can compress with it.
    #[must_use]
    pub const fn new(bits: u8) -> Option<Self> {
        if bits >= WINDOW_BITS_MIN && bits <= WINDOW_BITS_MAX { Some(Self { window_bits: bits }) } else { None }
    }

    /// Our window is 2^n bytes; from [`WINDOW_BITS_MIN`] to [`WINDOW_BITS_MAX`].
    #[must_use]
    pub const fn window_bits(self) -> u8 {
        self.window_bits
    }
}

/// Chooses the first offer that can be met: what was agreed on, and the header's value that says so. `None` if there is none: "a
/// server declines an extension negotiation offer by not including a corresponding element in the response" (RFC 7692 §5.1).
#[must_use]
pub fn negotiate(offers: &[ExtensionOffer]) -> Option<(Agreed, String)> {
    offers.iter().find_map(|offer| {
        let ExtensionOffer::PermessageDeflate(offer) = offer else { return None };
        let agreed = Agreed::new(offer.server_max_window_bits.unwrap_or(WINDOW_BITS_MAX))?;
        // Either parameter may be answered "even if the extension negotiation offer [...] doesn't include" it (RFC 7692 §7.1.1).
        let mut header = "permessage-deflate; server_no_context_takeover; client_no_context_takeover".to_owned();
        // "A server accepts an extension negotiation offer with this parameter by including the "server_max_window_bits"
        // extension parameter in the extension negotiation response" (RFC 7692 §7.1.2.1).
        if offer.server_max_window_bits.is_some() {
            header.push_str(&format!("; server_max_window_bits={}", agreed.window_bits));
        }
        Some((agreed, header))
    })
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
    fn the_first_offer_that_can_be_met_is_accepted() {
        const ANSWER: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let check = |line: &str, expected: Option<(u8, &str)>| {
            let mut offers = Vec::new();
            parse_offers(line, &mut offers).expect("a list of offers");
            let expected = expected.map(|(bits, more)| (Agreed { window_bits: bits }, format!("{ANSWER}{more}")));
            assert_eq!(negotiate(&offers), expected, "{line:?}");
        };
        check("", None);
        check("permessage-deflate", Some((15, "")));
        // As browsers offer it. Their window may be as large as they like.
        check("permessage-deflate; client_max_window_bits", Some((15, "")));
        check("permessage-deflate; client_max_window_bits=8", Some((15, "")));
        check("permessage-deflate; server_no_context_takeover; client_no_context_takeover", Some((15, "")));
        check("permessage-deflate; server_max_window_bits=15", Some((15, "; server_max_window_bits=15")));
        check("permessage-deflate; server_max_window_bits=\"9\"", Some((9, "; server_max_window_bits=9")));
        check("permessage-deflate; server_max_window_bits=8", None);
        check("permessage-deflate; server_max_window_bits=8, permessage-deflate", Some((15, "")));
        check("permessage-deflate; unknown, permessage-deflate; server_max_window_bits=10", {
            Some((10, "; server_max_window_bits=10"))
        });
        check("permessage-deflate; server_max_window_bits=10, permessage-deflate", {
            Some((10, "; server_max_window_bits=10"))
        });
        check("x-webkit-deflate-frame, permessage-bzip2", None);
    }
}
