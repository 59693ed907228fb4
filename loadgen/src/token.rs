//! The tokens that the simulated users connect with.

use std::{path::Path, time::SystemTime};

use antiphon_wire::ids::UserId;
use anyhow::Context as _;
use jsonwebtoken::{Algorithm, EncodingKey, Header};

/// The device that all simulated users name.
pub const DEVICE: &str = "load";

/// A token outlives any run.
const LIFETIME_SECONDS: u64 = 30 * 24 * 3600;

/// Where tokens come from.
pub enum Tokens {
    /// `dev:<user>`, which a node in development mode takes on loopback.
    Development,
    /// Signed here with the secret that the node checks with (HS256).
    Signed {
        /// The secret.
        key: EncodingKey,
        /// The `aud` claim.
        audience: String,
    },
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Development => "Development",
            Self::Signed { .. } => "Signed",
        })
    }
}

#[derive(serde::Serialize)]
struct Claims<'a> {
    sub: &'a str,
    device: &'a str,
    aud: &'a str,
    exp: u64,
}

impl Tokens {
    /// Signs with the raw bytes of a file.
    pub fn from_key_file(file: &Path, audience: &str) -> anyhow::Result<Self> {
        let secret = std::fs::read(file).with_context(|| format!("can't read the token key {}", file.display()))?;
        anyhow::ensure!(!secret.is_empty(), "the token key {} is empty", file.display());
        Ok(Self::Signed { key: EncodingKey::from_secret(&secret), audience: audience.to_owned() })
    }

    /// The token of a user.
    pub fn token(&self, user: &UserId) -> anyhow::Result<String> {
        match self {
            Self::Development => Ok(format!("dev:{user}")),
            Self::Signed { key, audience } => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
                let claims = Claims { sub: user.as_str(), device: DEVICE, aud: audience, exp: now + LIFETIME_SECONDS };
                Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, key)?)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_the_user() {
        let user = UserId::new("load-1-2").unwrap();
        assert_eq!(Tokens::Development.token(&user).unwrap(), "dev:load-1-2");
        let signed = Tokens::Signed { key: EncodingKey::from_secret(b"secret"), audience: "antiphon".into() }
            .token(&user)
            .unwrap();
        assert_eq!(signed.split('.').count(), 3);
    }
}
