//! Reads the keys that tokens are checked with.

use std::path::Path;

use super::{Problem, Values};
use crate::core::{
    issuer::TokenIssuer,
    token::{DEV_AUDIENCE, KeyError, TokenRules, TokenVerifier},
};

/// Longest key file: a JWK set of the most keys that a verifier takes fits many times over.
const KEY_FILE_BYTES_MAX: u64 = 1024 * 1024;

pub(super) fn load(values: &Values, problems: &mut Vec<Problem>) -> Option<TokenVerifier> {
    let count_before = problems.len();
    let mut problem = |name: &str, text: String| {
        problems.push(Problem { origin: values.origin(name), text: format!("{name}: {text}") });
    };
    let audience = values.text("auth.audience");
    match audience.as_deref() {
        None => {
            problem("auth.audience", "is required: without it a token for another service would be accepted".to_owned())
        }
        Some(DEV_AUDIENCE) => problem("auth.audience", format!("{DEV_AUDIENCE} is for development nodes only")),
        Some(_) => {}
    }
    let algorithms = values.list("auth.algorithms");
    for name in &algorithms {
        if !["EdDSA", "ES256", "HS256"].contains(&name.as_str()) {
            problem("auth.algorithms", format!("{name:?} is none of EdDSA, ES256, HS256"));
        }
    }
    let mut verifier = TokenVerifier::new(rules(values));
    let mut any = false;
    if let Some(secret) = values.text("auth.hs256_secret") {
        any = true;
        if let Err(error) = verifier.add_hs256_secret(secret.as_bytes()) {
            problem("auth.hs256_secret", error.to_string());
        }
    }
    type Add = fn(&mut TokenVerifier, &str) -> Result<(), KeyError>;
    let files: [(&str, Add); 4] = [
        ("auth.hs256_secret_file", |verifier, text| verifier.add_hs256_secret(secret_of(text).as_bytes())),
        ("auth.eddsa_public_key_file", TokenVerifier::add_eddsa_pem),
        ("auth.es256_public_key_file", TokenVerifier::add_es256_pem),
        ("auth.jwks_file", |verifier, text| verifier.add_jwks(text).map(|_| ())),
    ];
    for (name, add) in files {
        let Some(path) = values.path(name) else { continue };
        any = true;
        let added = read(&path).and_then(|text| add(&mut verifier, &text).map_err(|error| error.to_string()));
        if let Err(text) = added {
            problem(name, format!("{}: {text}", path.display()));
        }
    }
    if !any {
        problem(
            "auth",
            "no key to check tokens with: set hs256_secret_file, eddsa_public_key_file, es256_public_key_file or jwks_file"
                .to_owned(),
        );
    }
    let had_keys = verifier.key_count() > 0;
    verifier.keep_algorithms(&algorithms);
    if had_keys && verifier.key_count() == 0 {
        problem("auth.algorithms", "allows none of the algorithms that there are keys for".to_owned());
    }
    (problems.len() == count_before).then_some(verifier)
}

/// What signs tokens that [`load`]'s verifier takes; `None` if it takes none by HS256, or if the secret cannot be read, which [`load`] tells.
pub(super) fn issuer(values: &Values) -> Option<TokenIssuer> {
    values.list("auth.algorithms").iter().find(|name| *name == "HS256")?;
    let of_file = || read(&values.path("auth.hs256_secret_file")?).ok().map(|text| secret_of(&text).to_owned());
    let secret = values.text("auth.hs256_secret").or_else(of_file)?;
    Some(TokenIssuer::new(secret.as_bytes(), rules(values)))
}

fn rules(values: &Values) -> TokenRules {
    TokenRules {
        audience: values.text("auth.audience").unwrap_or_default(),
        issuer: values.text("auth.issuer"),
        device_claim: values.text("auth.device_claim").unwrap_or_default(),
    }
}

/// A file's text without one line end at its end.
fn secret_of(text: &str) -> &str {
    let line = text.strip_suffix('\n').unwrap_or(text);
    line.strip_suffix('\r').unwrap_or(line)
}

fn read(path: &Path) -> Result<String, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > KEY_FILE_BYTES_MAX {
        return Err(format!("is longer than {KEY_FILE_BYTES_MAX} bytes"));
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}
