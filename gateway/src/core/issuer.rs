//! Signs tokens for users, in the application's place, with a secret that it shares with the node.
//!
//! Invariant: a token that it signed is good for the [`TokenVerifier`](super::token::TokenVerifier) with the same secret and rules.
//! Must not do: read a clock, or show the secret.

use std::fmt;

use antiphon_wire::ids::{DeviceId, TimestampMs, UserId};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::Map;

use super::token::{DEV_AUDIENCE, DEVICE_CLAIM_DEFAULT, TokenRules, sign_claims};

/// Signs by HS256.
#[derive(Clone)]
pub struct TokenIssuer {
    secret: Vec<u8>,
    rules: TokenRules,
}

impl fmt::Debug for TokenIssuer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TokenIssuer").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl TokenIssuer {
    /// For nodes that check tokens by these rules with this secret.
    #[must_use]
    pub fn new(secret: &[u8], rules: TokenRules) -> Self {
        Self { secret: secret.to_vec(), rules }
    }

    /// For a development node with this secret.
    #[must_use]
    pub fn for_dev(secret: &[u8]) -> Self {
        let (audience, device_claim) = (DEV_AUDIENCE.to_owned(), DEVICE_CLAIM_DEFAULT.to_owned());
        Self::new(secret, TokenRules { audience, issuer: None, device_claim })
    }

    /// A token that is issued now and good until `expires`, rounded up to a second. It says to the millisecond when it was issued, so that one
    /// that is issued right after a device was logged out is told from those before.
    #[must_use]
    pub fn sign(&self, user: &UserId, device: Option<&DeviceId>, now: TimestampMs, expires: TimestampMs) -> String {
        let mut claims = Map::new();
        claims.insert("sub".to_owned(), user.as_str().into());
        claims.insert("aud".to_owned(), self.rules.audience.as_str().into());
        claims.insert("iat".to_owned(), (now.0 as f64 / 1000.0).into());
        claims.insert("exp".to_owned(), expires.0.div_ceil(1000).into());
        if let Some(issuer) = &self.rules.issuer {
            claims.insert("iss".to_owned(), issuer.as_str().into());
        }
        if let Some(device) = device {
            claims.insert(self.rules.device_claim.clone(), device.as_str().into());
        }
        let key = EncodingKey::from_secret(&self.secret);
        sign_claims(&key, "{\"typ\":\"JWT\",\"alg\":\"HS256\"}", Algorithm::HS256, &claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::token::{LEEWAY_MS, TokenError, TokenVerifier};

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    #[test]
    fn what_was_signed_is_good_where_it_is_checked() {
        let rules = TokenRules {
            audience: "chat".to_owned(),
            issuer: Some("shop".to_owned()),
            device_claim: "installation".to_owned(),
        };
        let mut verifier = TokenVerifier::new(rules.clone());
        verifier.add_hs256_secret(SECRET).unwrap();
        let issuer = TokenIssuer::new(SECRET, rules);
        let (user, device) = (UserId::new("alice").unwrap(), DeviceId::new("phone").unwrap());
        let token = issuer.sign(&user, Some(&device), TimestampMs(999_123), TimestampMs(1_000_500));
        let claims = verifier.verify(&token, TimestampMs(1_000_000)).unwrap();
        assert_eq!((claims.user, claims.device), (user.clone(), Some(device)));
        assert_eq!((claims.expires, claims.issued), (TimestampMs(1_001_000 + LEEWAY_MS), TimestampMs(999_123)));
        let bare = issuer.sign(&user, None, TimestampMs(1), TimestampMs(9));
        assert_eq!(verifier.verify(&bare, TimestampMs(1)).unwrap().device, None);
        let of_dev = TokenIssuer::for_dev(SECRET).sign(&user, None, TimestampMs(1), TimestampMs(1_000));
        assert!(TokenVerifier::for_dev(SECRET).unwrap().verify(&of_dev, TimestampMs(1)).is_ok());
        assert_eq!(verifier.verify(&of_dev, TimestampMs(1)), Err(TokenError::WrongAudience));
        assert!(!format!("{issuer:?}").contains("0123"));
    }
}
