//! Who a client is: checks JSON Web Tokens (RFC 7519) that the application's own identity service signed.
//!
//! Invariants: a key serves exactly one algorithm, so a token can't choose how its signature is read (RFC 8725 §3.1); `none` and
//! every algorithm without a configured key are refused; expiry is required; time comes from the caller.
//! Must not do: read files or a clock, log a token, or tell a client more than an [`ErrorCode`].

use antiphon_wire::{
    codes::ErrorCode,
    ids::{DeviceId, TimestampMs, UserId},
    limits::TOKEN_BYTES_MAX,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey,
    crypto::{sign, verify},
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse},
};
use serde_json::{Map, Value};

use super::issuer::TokenIssuer;

/// How far the clocks of the identity service and of this node may differ.
pub const LEEWAY_MS: u64 = 30_000;

/// Most keys of a verifier: it bounds the signatures checked for one token that names no key.
pub const KEYS_MAX: usize = 64;

/// Shortest HS256 secret: RFC 7518 §3.2 wants at least as many bits as the hash has.
pub const SECRET_BYTES_MIN: usize = 32;

/// The audience of tokens that a development node signs for itself. No production configuration may use it.
pub const DEV_AUDIENCE: &str = "antiphon-dev";

/// The device claim of development tokens, and the default one.
pub const DEVICE_CLAIM_DEFAULT: &str = "device";

/// What a [`TokenVerifier`] accepts.
#[derive(Debug, Clone, Default)]
pub struct TokenRules {
    /// One of the token's `aud` must be this.
    pub audience: String,
    /// If given, the token's `iss` must be this.
    pub issuer: Option<String>,
    /// The claim that names the device; a token without it leaves the choice to the client.
    pub device_claim: String,
}

/// Why a key is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Use a longer random secret.
    #[error("an HS256 secret needs at least {SECRET_BYTES_MIN} bytes, this one has {0}")]
    SecretTooShort(usize),
    /// Give the public key in PEM (`-----BEGIN PUBLIC KEY-----`) and of the right kind.
    #[error("not a PEM public key for {0}")]
    NotAKey(&'static str),
    /// Give a JSON object with `keys` (RFC 7517 §5).
    #[error("not a JWK set: {0}")]
    NotAKeySet(String),
    /// Give a set with at least one key for HS256, ES256 or EdDSA.
    #[error("no key of the set is usable here (wanted: EC P-256, OKP Ed25519 or oct, for signatures)")]
    NoUsableKey,
    /// Retire old keys.
    #[error("more than {KEYS_MAX} keys")]
    TooMany,
}

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The `sub`.
    pub user: UserId,
    /// The device claim, if the token has it.
    pub device: Option<DeviceId>,
    /// When the session has to end: the token's `exp` with the leeway added.
    pub expires: TimestampMs,
    /// When it was issued: its `iat`; 0 if it does not say.
    pub issued: TimestampMs,
}

/// Why a token is refused. For the operator's log and counters; a client is told [`TokenError::code`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenError {
    /// It is not three base64url parts with a JSON header and claims, or is too long.
    #[error("the token is not a signed JWT")]
    Malformed,
    /// `none`, an unknown algorithm, or one for which there is no key here.
    #[error("the token's algorithm is not allowed")]
    AlgorithmNotAllowed,
    /// Its `kid` names no key here.
    #[error("the token names an unknown key")]
    UnknownKey,
    /// No key here made its signature.
    #[error("the token's signature is wrong")]
    BadSignature,
    /// Its `aud` is missing or another.
    #[error("the token is for another audience")]
    WrongAudience,
    /// Its `iss` is missing or another.
    #[error("the token is from another issuer")]
    WrongIssuer,
    /// It has no `sub`.
    #[error("the token has no subject")]
    MissingSubject,
    /// Its `sub` is not a user id.
    #[error("the token's subject is not a user id")]
    InvalidSubject,
    /// Its device claim is not a device id.
    #[error("the token's device is not a device id")]
    InvalidDevice,
    /// It has no `exp`: it would be good for ever.
    #[error("the token has no expiry")]
    MissingExpiry,
    /// Its `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It was good once.
    #[error("the token has expired")]
    Expired,
}

impl TokenError {
    /// What the client is told.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Expired => ErrorCode::TokenExpired,
            _ => ErrorCode::Unauthenticated,
        }
    }
}

#[derive(Clone)]
struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Checks tokens against a fixed set of keys and [`TokenRules`]. Cheap to clone, to give one to every shard.
#[derive(Clone)]
pub struct TokenVerifier {
    keys: Vec<Key>,
    rules: TokenRules,
}

impl std::fmt::Debug for TokenVerifier {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Keys may be secrets.
        formatter.debug_struct("TokenVerifier").field("keys", &self.keys.len()).field("rules", &self.rules).finish()
    }
}

impl TokenVerifier {
    /// A verifier without keys: it refuses every token until one is added.
    #[must_use]
    pub fn new(rules: TokenRules) -> Self {
        Self { keys: Vec::new(), rules }
    }

    /// The verifier of a development node: it takes what [`sign_dev_token`] signs with the same secret.
    pub fn for_dev(secret: &[u8]) -> Result<Self, KeyError> {
        let mut verifier = Self::new(TokenRules {
            audience: DEV_AUDIENCE.to_owned(),
            issuer: None,
            device_claim: DEVICE_CLAIM_DEFAULT.to_owned(),
        });
        verifier.add_hs256_secret(secret)?;
        Ok(verifier)
    }

    /// How many keys it has.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// Adds a shared secret for HS256.
    pub fn add_hs256_secret(&mut self, secret: &[u8]) -> Result<(), KeyError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::SecretTooShort(secret.len()));
        }
        self.add(None, Algorithm::HS256, DecodingKey::from_secret(secret))
    }

    /// Adds an Ed25519 public key in PEM for EdDSA.
    pub fn add_eddsa_pem(&mut self, pem: &str) -> Result<(), KeyError> {
        let key = DecodingKey::from_ed_pem(pem.as_bytes()).map_err(|_| KeyError::NotAKey("EdDSA"))?;
        self.add(None, Algorithm::EdDSA, checked(key, ED25519_KEY_BYTES).ok_or(KeyError::NotAKey("EdDSA"))?)
    }

    /// Adds a P-256 public key in PEM for ES256.
    pub fn add_es256_pem(&mut self, pem: &str) -> Result<(), KeyError> {
        let key = DecodingKey::from_ec_pem(pem.as_bytes()).map_err(|_| KeyError::NotAKey("ES256"))?;
        self.add(None, Algorithm::ES256, checked(key, P256_POINT_BYTES).ok_or(KeyError::NotAKey("ES256"))?)
    }

    /// Adds every usable key of a JWK set (RFC 7517) and says how many of the set's keys were left out: those of another kind,
    /// for another algorithm, or for encryption.
    pub fn add_jwks(&mut self, json: &str) -> Result<usize, KeyError> {
        let set: JwkSet = serde_json::from_str(json).map_err(|error| KeyError::NotAKeySet(error.to_string()))?;
        let mut left_out = 0;
        let count_before = self.keys.len();
        for jwk in &set.keys {
            match from_jwk(jwk) {
                Some((algorithm, key)) => self.add(jwk.common.key_id.clone(), algorithm, key)?,
                None => left_out += 1,
            }
        }
        if self.keys.len() == count_before { Err(KeyError::NoUsableKey) } else { Ok(left_out) }
    }

    /// Removes the keys of algorithms that `allowed` doesn't name.
    pub fn keep_algorithms(&mut self, allowed: &[String]) {
        self.keys.retain(|key| allowed.iter().any(|name| algorithm_named(name) == Some(key.algorithm)));
    }

    fn add(&mut self, id: Option<String>, algorithm: Algorithm, key: DecodingKey) -> Result<(), KeyError> {
        if self.keys.len() == KEYS_MAX {
            return Err(KeyError::TooMany);
        }
        self.keys.push(Key { id, algorithm, key });
        Ok(())
    }

    /// Checks a token at the time `now`.
    pub fn verify(&self, token: &str, now: TimestampMs) -> Result<Claims, TokenError> {
        let claims = self.verify_signature(token)?;
        self.check_claims(&claims, now)
    }

    fn verify_signature(&self, token: &str) -> Result<Map<String, Value>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        if payload.contains('.') {
            return Err(TokenError::Malformed);
        }
        let header = json_object(header)?;
        // RFC 7515 §4.1.11: a critical extension that is not understood makes the token invalid.
        if header.contains_key("crit") {
            return Err(TokenError::Malformed);
        }
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(TokenError::Malformed)?;
        let algorithm = algorithm_named(algorithm).ok_or(TokenError::AlgorithmNotAllowed)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.as_str()),
            Some(_) => return Err(TokenError::Malformed),
        };
        let mut of_algorithm = self.keys.iter().filter(|key| key.algorithm == algorithm).peekable();
        if of_algorithm.peek().is_none() {
            return Err(TokenError::AlgorithmNotAllowed);
        }
        // A key without an id (a PEM file, a secret) may have any at the identity service.
        let mut named =
            of_algorithm.filter(|key| key.id.is_none() || key_id.is_none() || key.id.as_deref() == key_id).peekable();
        if named.peek().is_none() {
            return Err(TokenError::UnknownKey);
        }
        let signed = |key: &Key| verify(signature, message.as_bytes(), &key.key, algorithm).unwrap_or(false);
        if !named.any(signed) {
            return Err(TokenError::BadSignature);
        }
        json_object(payload)
    }

    fn check_claims(&self, claims: &Map<String, Value>, now: TimestampMs) -> Result<Claims, TokenError> {
        let rules = &self.rules;
        let audience_matches = match claims.get("aud") {
            Some(Value::String(one)) => *one == rules.audience,
            Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(&rules.audience)),
            _ => false,
        };
        if !audience_matches {
            return Err(TokenError::WrongAudience);
        }
        if rules.issuer.is_some() && claims.get("iss").and_then(Value::as_str) != rules.issuer.as_deref() {
            return Err(TokenError::WrongIssuer);
        }
        let subject = match claims.get("sub") {
            None | Some(Value::Null) => return Err(TokenError::MissingSubject),
            Some(value) => value.as_str().ok_or(TokenError::InvalidSubject)?,
        };
        let user = UserId::new(subject).map_err(|_| TokenError::InvalidSubject)?;
        let device = match claims.get(&rules.device_claim) {
            None | Some(Value::Null) => None,
            Some(value) => {
                let name = value.as_str().ok_or(TokenError::InvalidDevice)?;
                Some(DeviceId::new(name).map_err(|_| TokenError::InvalidDevice)?)
            }
        };
        let expires = numeric_date_ms(claims.get("exp"))?.ok_or(TokenError::MissingExpiry)?.saturating_add(LEEWAY_MS);
        if now.0 >= expires {
            return Err(TokenError::Expired);
        }
        if numeric_date_ms(claims.get("nbf"))?.is_some_and(|from| now.0.saturating_add(LEEWAY_MS) < from) {
            return Err(TokenError::NotYetValid);
        }
        let issued = numeric_date_ms(claims.get("iat"))?.unwrap_or_default();
        Ok(Claims { user, device, expires: TimestampMs(expires), issued: TimestampMs(issued) })
    }
}

/// A token for [`TokenVerifier::for_dev`] with the same secret, issued now and good until `expires` (rounded up to a second).
#[must_use]
pub fn sign_dev_token(
    secret: &[u8],
    user: &UserId,
    device: Option<&DeviceId>,
    now: TimestampMs,
    expires: TimestampMs,
) -> String {
    TokenIssuer::for_dev(secret).sign(user, device, now, expires)
}

pub(super) fn sign_claims(
    key: &EncodingKey,
    header: &str,
    algorithm: Algorithm,
    claims: &Map<String, Value>,
) -> String {
    let payload = Value::Object(claims.clone()).to_string();
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = sign(message.as_bytes(), key, algorithm).expect("a well-formed key signs");
    format!("{message}.{signature}")
}

const P256_POINT_BYTES: usize = 65;
const ED25519_KEY_BYTES: usize = 32;

fn checked(key: DecodingKey, length: usize) -> Option<DecodingKey> {
    let fits = key.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == length);
    fits.then_some(key)
}

fn from_jwk(jwk: &Jwk) -> Option<(Algorithm, DecodingKey)> {
    if jwk.common.public_key_use.as_ref().is_some_and(|used_for| *used_for != PublicKeyUse::Signature) {
        return None;
    }
    let (algorithm, length) = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, P256_POINT_BYTES)
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, ED25519_KEY_BYTES)
        }
        AlgorithmParameters::OctetKey(_) => (Algorithm::HS256, 0),
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|stated| algorithm_named(&stated.to_string()) != Some(algorithm)) {
        return None;
    }
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let key = if algorithm == Algorithm::HS256 {
        let long_enough = key.try_get_as_bytes().is_ok_and(|secret| secret.len() >= SECRET_BYTES_MIN);
        long_enough.then_some(key)?
    } else {
        checked(key, length)?
    };
    Some((algorithm, key))
}

fn algorithm_named(name: &str) -> Option<Algorithm> {
    match name {
        "HS256" => Some(Algorithm::HS256),
        "ES256" => Some(Algorithm::ES256),
        "EdDSA" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

fn json_object(part: &str) -> Result<Map<String, Value>, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

/// A NumericDate (RFC 7519 §2): seconds, which may have a fraction.
fn numeric_date_ms(value: Option<&Value>) -> Result<Option<u64>, TokenError> {
    match value {
        None => Ok(None),
        Some(value) => match (value.as_u64(), value.as_f64()) {
            (Some(seconds), _) => Ok(Some(seconds.saturating_mul(1000))),
            // Saturates, and a negative date is the epoch: both are dates long past or far away.
            (None, Some(seconds)) => Ok(Some((seconds * 1000.0).round() as u64)),
            (None, None) => Err(TokenError::Malformed),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NOW: TimestampMs = TimestampMs(1_800_000_000_000);
    const EXP: u64 = NOW.0 / 1000 + 600;

    const ED_PRIVATE: &str = include_str!("../../tests/keys/ed25519-private.pem");
    const ED_PUBLIC: &str = include_str!("../../tests/keys/ed25519-public.pem");
    const EC_PRIVATE: &str = include_str!("../../tests/keys/p256-private.pem");
    const EC_PUBLIC: &str = include_str!("../../tests/keys/p256-public.pem");
    const P384_PUBLIC: &str = include_str!("../../tests/keys/p384-public.pem");
    const JWKS: &str = include_str!("../../tests/keys/jwks.json");

    fn rules() -> TokenRules {
        TokenRules { audience: "chat".into(), issuer: Some("https://id.example".into()), device_claim: "dev".into() }
    }

    fn claims() -> Map<String, Value> {
        let text = format!(r#"{{"sub":"alice","aud":"chat","iss":"https://id.example","exp":{EXP},"dev":"phone"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn with(key: &str, value: Value) -> Map<String, Value> {
        let mut claims = claims();
        claims.insert(key.into(), value);
        claims
    }

    fn without(key: &str) -> Map<String, Value> {
        let mut claims = claims();
        claims.remove(key);
        claims
    }

    fn hs256(claims: &Map<String, Value>) -> String {
        sign_claims(&EncodingKey::from_secret(SECRET), r#"{"alg":"HS256"}"#, Algorithm::HS256, claims)
    }

    fn verifier() -> TokenVerifier {
        let mut verifier = TokenVerifier::new(rules());
        verifier.add_hs256_secret(SECRET).unwrap();
        verifier
    }

    fn ed(header: &str) -> String {
        sign_claims(&EncodingKey::from_ed_pem(ED_PRIVATE.as_bytes()).unwrap(), header, Algorithm::EdDSA, &claims())
    }

    fn ec(header: &str) -> String {
        sign_claims(&EncodingKey::from_ec_pem(EC_PRIVATE.as_bytes()).unwrap(), header, Algorithm::ES256, &claims())
    }

    fn raw(header: &str, payload: &str, signature: &str) -> String {
        format!("{}.{}.{signature}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn a_good_token_says_who_and_until_when() {
        let good = Claims {
            user: UserId::new("alice").unwrap(),
            device: Some(DeviceId::new("phone").unwrap()),
            expires: TimestampMs(EXP * 1000 + LEEWAY_MS),
            issued: TimestampMs(0),
        };
        assert_eq!(verifier().verify(&hs256(&claims()), NOW), Ok(good.clone()));
        assert_eq!(verifier().verify(&hs256(&with("aud", serde_json::json!(["x", "chat"]))), NOW), Ok(good.clone()));
        assert_eq!(verifier().verify(&hs256(&without("dev")), NOW), Ok(Claims { device: None, ..good.clone() }));
        let mut asymmetric = TokenVerifier::new(rules());
        asymmetric.add_eddsa_pem(ED_PUBLIC).unwrap();
        asymmetric.add_es256_pem(EC_PUBLIC).unwrap();
        for token in [ed(r#"{"alg":"EdDSA"}"#), ed(r#"{"alg":"EdDSA","kid":"any"}"#), ec(r#"{"alg":"ES256"}"#)] {
            assert_eq!(asymmetric.verify(&token, NOW), Ok(good.clone()));
        }
    }

    #[test]
    fn wrong_claims_are_told_apart() {
        use TokenError::*;
        let second = |offset: i64| Value::from(NOW.0 as i64 / 1000 + offset);
        type Row = (Map<String, Value>, Result<(), TokenError>);
        let table: &[Row] = &[
            (with("exp", second(-29)), Ok(())),
            (with("exp", second(-30)), Err(Expired)),
            (with("exp", second(-86_400)), Err(Expired)),
            (with("exp", 0.into()), Err(Expired)),
            (with("exp", (-5).into()), Err(Expired)),
            (with("exp", (NOW.0 as f64 / 1000.0 + 0.5).into()), Ok(())),
            (with("exp", 1e300.into()), Ok(())),
            (with("exp", u64::MAX.into()), Ok(())),
            (with("exp", "soon".into()), Err(Malformed)),
            (with("exp", Value::Null), Err(Malformed)),
            (without("exp"), Err(MissingExpiry)),
            (with("nbf", second(30)), Ok(())),
            (with("nbf", second(31)), Err(NotYetValid)),
            (with("nbf", "x".into()), Err(Malformed)),
            (without("aud"), Err(WrongAudience)),
            (with("aud", "other".into()), Err(WrongAudience)),
            (with("aud", serde_json::json!([])), Err(WrongAudience)),
            (with("aud", serde_json::json!(["Chat", 7])), Err(WrongAudience)),
            (with("aud", serde_json::json!({"chat": true})), Err(WrongAudience)),
            (without("iss"), Err(WrongIssuer)),
            (with("iss", "https://evil.example".into()), Err(WrongIssuer)),
            (without("sub"), Err(MissingSubject)),
            (with("sub", Value::Null), Err(MissingSubject)),
            (with("sub", 7.into()), Err(InvalidSubject)),
            (with("sub", "".into()), Err(InvalidSubject)),
            (with("sub", "a b".into()), Err(InvalidSubject)),
            (with("sub", "x".repeat(65).into()), Err(InvalidSubject)),
            (with("dev", 7.into()), Err(InvalidDevice)),
            (with("dev", "a/b".into()), Err(InvalidDevice)),
        ];
        for (claims, expected) in table {
            assert_eq!(verifier().verify(&hs256(claims), NOW).map(|_| ()), *expected, "{claims:?}");
        }
    }

    #[test]
    fn wrong_tokens_are_told_apart() {
        use TokenError::*;
        let payload = Value::Object(claims()).to_string();
        let good = hs256(&claims());
        let (message, signature) = good.rsplit_once('.').unwrap();
        let other = sign_claims(
            &EncodingKey::from_secret(b"another secret of at least 32 bytes"),
            r#"{"alg":"HS256"}"#,
            Algorithm::HS256,
            &claims(),
        );
        let other_payload = URL_SAFE_NO_PAD.encode(payload.replace("alice", "admin"));
        let table: &[(String, TokenError)] = &[
            (String::new(), Malformed),
            ("a".into(), Malformed),
            ("a.b".into(), Malformed),
            ("..".into(), Malformed),
            ("a.b.c.d".into(), Malformed),
            ("é.é.é".into(), Malformed),
            (format!("{good}.x"), Malformed),
            (format!("{message}."), BadSignature),
            (format!("{message}={signature}"), Malformed),
            (raw("[]", &payload, "AA"), Malformed),
            (raw("{}", &payload, "AA"), Malformed),
            (raw(r#"{"alg":5}"#, &payload, "AA"), Malformed),
            (raw(r#"{"alg":"HS256","kid":5}"#, &payload, "AA"), Malformed),
            (raw(r#"{"alg":"HS256","crit":["exp"]}"#, &payload, "AA"), Malformed),
            ("A".repeat(TOKEN_BYTES_MAX + 1), Malformed),
            (raw(r#"{"alg":"none"}"#, &payload, ""), AlgorithmNotAllowed),
            (raw(r#"{"alg":"none"}"#, &payload, signature), AlgorithmNotAllowed),
            (raw(r#"{"alg":"None"}"#, &payload, ""), AlgorithmNotAllowed),
            (raw(r#"{"alg":"hs256"}"#, &payload, signature), AlgorithmNotAllowed),
            (raw(r#"{"alg":"HS512"}"#, &payload, signature), AlgorithmNotAllowed),
            (raw(r#"{"alg":"RS256"}"#, &payload, signature), AlgorithmNotAllowed),
            (raw(r#"{"alg":"ES256"}"#, &payload, signature), AlgorithmNotAllowed),
            (ed(r#"{"alg":"EdDSA"}"#), AlgorithmNotAllowed),
            (other, BadSignature),
            (format!("{message}.{}", URL_SAFE_NO_PAD.encode([0; 32])), BadSignature),
            (format!("{message}.!"), BadSignature),
            (format!("{}.{other_payload}.{signature}", message.split_once('.').unwrap().0), BadSignature),
        ];
        for (token, expected) in table {
            assert_eq!(verifier().verify(token, NOW), Err(*expected), "{token}");
        }
    }

    #[test]
    fn a_public_key_is_never_taken_as_a_secret() {
        // The classic confusion: the attacker signs with HS256 under the text of the public key.
        let mut verifier = TokenVerifier::new(rules());
        verifier.add_es256_pem(EC_PUBLIC).unwrap();
        let forged = sign_claims(
            &EncodingKey::from_secret(EC_PUBLIC.as_bytes()),
            r#"{"alg":"HS256"}"#,
            Algorithm::HS256,
            &claims(),
        );
        assert_eq!(verifier.verify(&forged, NOW), Err(TokenError::AlgorithmNotAllowed));
        verifier.add_hs256_secret(SECRET).unwrap();
        assert_eq!(verifier.verify(&forged, NOW), Err(TokenError::BadSignature));
        // An EdDSA signature under a header that says ES256, and the other way round.
        verifier.add_eddsa_pem(ED_PUBLIC).unwrap();
        assert_eq!(verifier.verify(&ed(r#"{"alg":"ES256"}"#), NOW), Err(TokenError::BadSignature));
        assert_eq!(verifier.verify(&ec(r#"{"alg":"EdDSA"}"#), NOW), Err(TokenError::BadSignature));
    }

    #[test]
    fn a_key_set_is_chosen_from_by_key_id() {
        let mut verifier = TokenVerifier::new(rules());
        // RSA, encryption-only, P-384 and an ES256 key that says it is for another algorithm are left out.
        assert_eq!(verifier.add_jwks(JWKS), Ok(4));
        assert_eq!(verifier.key_count(), 3);
        let check = |token: &str| verifier.verify(token, NOW).map(|claims| claims.user.to_string());
        assert_eq!(check(&ed(r#"{"alg":"EdDSA","kid":"ed-1"}"#)), Ok("alice".into()));
        assert_eq!(check(&ed(r#"{"alg":"EdDSA"}"#)), Ok("alice".into()));
        assert_eq!(check(&ec(r#"{"alg":"ES256","kid":"ec-1"}"#)), Ok("alice".into()));
        assert_eq!(check(&ec(r#"{"alg":"ES256","kid":"ed-1"}"#)), Err(TokenError::UnknownKey));
        assert_eq!(check(&ed(r#"{"alg":"EdDSA","kid":"gone"}"#)), Err(TokenError::UnknownKey));
        let oct = sign_claims(
            &EncodingKey::from_secret(SECRET),
            r#"{"alg":"HS256","kid":"oct-1"}"#,
            Algorithm::HS256,
            &claims(),
        );
        assert_eq!(check(&oct), Ok("alice".into()));
        verifier.keep_algorithms(&["EdDSA".to_owned()]);
        assert_eq!(verifier.key_count(), 1);
        assert_eq!(verifier.verify(&oct, NOW), Err(TokenError::AlgorithmNotAllowed));
    }

    #[test]
    fn bad_keys_are_refused() {
        let mut verifier = TokenVerifier::new(rules());
        assert_eq!(verifier.add_hs256_secret(b"short"), Err(KeyError::SecretTooShort(5)));
        assert_eq!(verifier.add_eddsa_pem(EC_PUBLIC), Err(KeyError::NotAKey("EdDSA")));
        assert_eq!(verifier.add_es256_pem(ED_PUBLIC), Err(KeyError::NotAKey("ES256")));
        assert_eq!(verifier.add_es256_pem(P384_PUBLIC), Err(KeyError::NotAKey("ES256")));
        assert_eq!(verifier.add_es256_pem("nonsense"), Err(KeyError::NotAKey("ES256")));
        assert_eq!(verifier.add_es256_pem(EC_PRIVATE), Err(KeyError::NotAKey("ES256")));
        assert!(matches!(verifier.add_jwks("{"), Err(KeyError::NotAKeySet(_))));
        assert_eq!(verifier.add_jwks(r#"{"keys":[]}"#), Err(KeyError::NoUsableKey));
        assert_eq!(verifier.add_jwks(r#"{"keys":[{"kty":"oct","k":"c2hvcnQ"}]}"#), Err(KeyError::NoUsableKey));
        let many: Vec<Value> =
            (0..=KEYS_MAX).map(|_| serde_json::json!({"kty":"oct","k": URL_SAFE_NO_PAD.encode(SECRET)})).collect();
        assert_eq!(verifier.add_jwks(&serde_json::json!({"keys": many}).to_string()), Err(KeyError::TooMany));
    }

    #[test]
    fn a_development_token_is_for_development_only() {
        let (user, device) = (UserId::new("alice").unwrap(), DeviceId::new("tab-1").unwrap());
        let token = sign_dev_token(SECRET, &user, Some(&device), NOW, TimestampMs(NOW.0 + 1));
        let claims = TokenVerifier::for_dev(SECRET).unwrap().verify(&token, NOW).unwrap();
        assert_eq!((claims.user, claims.device), (user.clone(), Some(device)));
        assert_eq!(claims.expires, TimestampMs(NOW.0 + 1000 + LEEWAY_MS));
        assert_eq!(verifier().verify(&token, NOW), Err(TokenError::WrongAudience));
        let bare = sign_dev_token(SECRET, &user, None, TimestampMs(NOW.0 - 1), NOW);
        assert_eq!(TokenVerifier::for_dev(SECRET).unwrap().verify(&bare, NOW).unwrap().device, None);
    }

    #[test]
    fn clients_learn_two_codes_only() {
        assert_eq!(TokenError::Expired.code(), ErrorCode::TokenExpired);
        for error in [TokenError::Malformed, TokenError::UnknownKey, TokenError::WrongAudience, TokenError::NotYetValid]
        {
            assert_eq!(error.code(), ErrorCode::Unauthenticated);
        }
        // Nothing secret in the verifier's debug form.
        assert!(!format!("{:?}", verifier()).contains("0123"));
    }
}
