//! Who may use the HTTP API, and the operator's page, for what: keys by the hashes of their secrets.
//!
//! A file of keys, as `antiphon api-key` prints entries for it:
//!
//! ```toml
//! [[key]]
//! name = "shop"
//! sha256 = "…"                 # of the secret, 64 hexadecimal digits
//! scopes = ["read", "write"]
//! ```
//!
//! A secret is 256 random bits, so one round of SHA-256 is enough: nobody guesses it, whatever a guess costs. Invariants: a secret is nowhere
//! but in the request; which key a secret is of takes the same time for all; keys that were replaced admit nobody. Must not do: read a file.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, SHA256_OUTPUT_LEN, digest},
    rand,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use toml::Spanned;

/// Most keys of a node: each request is compared with all of them.
pub const KEYS_MAX: usize = 64;

/// Longest name of a key: it stands in logs.
const NAME_BYTES_MAX: usize = 64;

/// What a secret begins with, so that scanners for secrets find it where it should not be.
const SECRET_PREFIX: &str = "antiphon_api_";

const SECRET_RANDOM_BYTES: usize = 32;

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Issuing users' tokens.
    Tokens,
    /// Whatever only reads.
    Read,
    /// What users do about messages and for themselves: sending, editing, deleting, reacting, pinning, read marks, account data.
    Write,
    /// Making conversations, and changing who is in them and what they are.
    Groups,
    /// Logging users' devices out. Apart from issuing tokens: who ends sessions need not be able to become any user, and where others sign the
    /// tokens there is no key for them.
    Devices,
    /// Looking at the operator's page. Of no use at the HTTP API.
    Operate,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 6] = [Self::Tokens, Self::Read, Self::Write, Self::Groups, Self::Devices, Self::Operate];

    /// Its name in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Read => "read",
            Self::Write => "write",
            Self::Groups => "groups",
            Self::Devices => "devices",
            Self::Operate => "operate",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|scope| scope.name() == name)
            .ok_or_else(|| format!("{name:?} is none of {}", names()))
    }
}

/// One key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// What logs call it.
    pub name: String,
    hash: [u8; SHA256_OUTPUT_LEN],
    scopes: Vec<Scope>,
}

impl Key {
    /// A key of which the secret is known.
    ///
    /// # Errors
    /// The name is no name of a key.
    pub fn of_secret(name: &str, secret: &str, scopes: &[Scope]) -> Result<Self, String> {
        check_name(name)?;
        Ok(Self { name: name.to_owned(), hash: hash(secret), scopes: scopes.to_vec() })
    }

    /// Whether it may be used for that.
    #[must_use]
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Its entry in the file.
    #[must_use]
    pub fn entry(&self) -> String {
        let digits: String = self.hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let scopes = self.scopes.iter().map(|scope| format!("\"{scope}\"")).collect::<Vec<_>>().join(", ");
        format!("[[key]]\nname = \"{}\"\nsha256 = \"{digits}\"\nscopes = [{scopes}]\n", self.name)
    }
}

/// All keys of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    key: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Spanned<String>,
    sha256: Spanned<String>,
    scopes: Spanned<Vec<String>>,
}

impl Keys {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with its line.
    pub fn parse(text: &str) -> Result<Self, Vec<(usize, String)>> {
        let line_of = |offset: usize| text.get(..offset).map_or(1, |before| before.matches('\n').count() + 1);
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(span.start));
            vec![(line, error.message().to_owned())]
        })?;
        let (mut keys, mut problems) = (Self::default(), Vec::new());
        for entry in file.key {
            let at = entry.span().start;
            let entry = entry.into_inner();
            let mut problem = |at: usize, text: String| problems.push((line_of(at), text));
            if let Err(text) = check_name(entry.name.as_ref()) {
                problem(entry.name.span().start, text);
            }
            let hash = from_hexadecimal(entry.sha256.as_ref());
            if hash.is_none() {
                problem(entry.sha256.span().start, "sha256 is not 64 hexadecimal digits".to_owned());
            }
            let mut scopes = Vec::new();
            for name in entry.scopes.as_ref() {
                match name.parse() {
                    Ok(scope) if !scopes.contains(&scope) => scopes.push(scope),
                    Ok(_) => {}
                    Err(text) => problem(entry.scopes.span().start, format!("scope {text}")),
                }
            }
            if entry.scopes.as_ref().is_empty() {
                problem(entry.scopes.span().start, "scopes is empty: the key would be of no use".to_owned());
            }
            let key = Key { name: entry.name.into_inner(), hash: hash.unwrap_or_default(), scopes };
            if let Err(text) = keys.add(key) {
                problem(at, text);
            }
        }
        if problems.is_empty() { Ok(keys) } else { Err(problems) }
    }

    /// One more.
    ///
    /// # Errors
    /// There is one of that name or secret, or there are too many.
    pub fn add(&mut self, key: Key) -> Result<(), String> {
        if self.0.len() == KEYS_MAX {
            return Err(format!("more than {KEYS_MAX} keys"));
        }
        if let Some(other) = self.0.iter().find(|other| other.name == key.name || other.hash == key.hash) {
            let what = if other.name == key.name { "name" } else { "sha256" };
            return Err(format!("key {:?}: another has the same {what}", key.name));
        }
        self.0.push(key);
        Ok(())
    }

    /// These and another one, if there is one.
    ///
    /// # Errors
    /// As [`Keys::add`].
    pub fn and(mut self, key: Option<&Key>) -> Result<Self, String> {
        key.map_or(Ok(()), |key| self.add(key.clone()))?;
        Ok(self)
    }

    /// The place of the key with that hash. It takes as long for any.
    fn of_hash(&self, hash: &[u8; SHA256_OUTPUT_LEN]) -> Option<usize> {
        let mut found = None;
        for (index, key) in self.0.iter().enumerate() {
            if verify_slices_are_equal(&key.hash, hash).is_ok() {
                found = Some(index);
            }
        }
        found
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }
}

/// The keys that are good now, and what each has spent. Clones are the same.
#[derive(Debug, Clone)]
pub struct KeyRing(Arc<Mutex<Ring>>);

#[derive(Debug)]
struct Ring {
    keys: Keys,
    /// By key: when its bucket is full again, in nanoseconds.
    full_at_ns: Vec<u64>,
}

impl KeyRing {
    /// A ring with these keys.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        let full_at_ns = vec![0; keys.0.len()];
        Self(Arc::new(Mutex::new(Ring { keys, full_at_ns })))
    }

    /// From now on these are good and no others. A key that stays has spent what it has.
    pub fn replace(&self, keys: Keys) {
        let mut ring = self.ring();
        let spent = |key: &Key| ring.keys.of_hash(&key.hash).map_or(0, |index| ring.full_at_ns[index]);
        let full_at_ns = keys.0.iter().map(spent).collect();
        *ring = Ring { keys, full_at_ns };
    }

    /// Does something with the key whose secret it is and with what it has spent; `None` if there is no such key.
    pub(in crate::outside) fn with<T>(&self, secret: &str, then: impl FnOnce(&Key, &mut u64) -> T) -> Option<T> {
        let hash = hash(secret);
        let mut ring = self.ring();
        let Ring { keys, full_at_ns } = &mut *ring;
        let index = keys.of_hash(&hash)?;
        Some(then(&keys.0[index], &mut full_at_ns[index]))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A secret that nobody has.
#[must_use]
pub fn new_secret() -> String {
    let mut bytes = [0; SECRET_RANDOM_BYTES];
    rand::fill(&mut bytes).expect("the system has random bytes");
    format!("{SECRET_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

fn hash(secret: &str) -> [u8; SHA256_OUTPUT_LEN] {
    let mut hash = [0; SHA256_OUTPUT_LEN];
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hash
}

fn check_name(name: &str) -> Result<(), String> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_of_name) {
        return Ok(());
    }
    Err(format!("name {name:?} is not 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes and underscores"))
}

fn from_hexadecimal(text: &str) -> Option<[u8; SHA256_OUTPUT_LEN]> {
    if text.len() != 2 * SHA256_OUTPUT_LEN || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; SHA256_OUTPUT_LEN];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_was_printed_is_read_and_found_by_its_secret() {
        let (shop, bot) = (new_secret(), new_secret());
        let keys = [
            Key::of_secret("shop", &shop, &[Scope::Read, Scope::Write]).unwrap(),
            Key::of_secret("bot-1.eu", &bot, &Scope::ALL).unwrap(),
        ];
        let read = Keys::parse(&format!("# keys\n{}\n{}", keys[0].entry(), keys[1].entry())).unwrap();
        assert_eq!(read.iter().cloned().collect::<Vec<_>>(), keys);
        let ring = KeyRing::new(read);
        let of_secret = |secret: &str| ring.with(secret, |key, _| key.clone());
        assert_eq!(of_secret(&shop), Some(keys[0].clone()));
        assert_eq!(of_secret(&bot), Some(keys[1].clone()));
        for wrong in ["", "x", &shop[1..], &format!("{shop} "), &new_secret()] {
            assert_eq!(of_secret(wrong), None, "{wrong}");
        }
        assert!(keys[0].has(Scope::Read) && !keys[0].has(Scope::Tokens));
        // SHA-256 of "abc", FIPS 180-2 appendix B.1.
        assert!(
            Key::of_secret("a", "abc", &[Scope::Read])
                .unwrap()
                .entry()
                .contains("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
        );
    }

    #[test]
    fn keys_that_are_replaced_admit_nobody_and_one_that_stays_has_spent_what_it_has() {
        let key = |name: &str, secret: &str| Key::of_secret(name, secret, &[Scope::Read]).unwrap();
        let keys = |keys: &[Key]| {
            let mut all = Keys::default();
            keys.iter().for_each(|key| all.add(key.clone()).unwrap());
            all
        };
        let ring = KeyRing::new(keys(&[key("old", "1"), key("stays", "2")]));
        for (secret, spends) in [("1", 10), ("2", 20)] {
            ring.with(secret, |_, spent| *spent = spends).unwrap();
        }
        ring.replace(keys(&[key("new", "3"), key("renamed", "2"), key("old", "4")]));
        let known = |secret: &str| ring.with(secret, |key, spent| (key.name.clone(), *spent));
        let of = |name: &str, spent| Some((name.to_owned(), spent));
        assert_eq!([known("1"), known("2")], [None, of("renamed", 20)]);
        assert_eq!([known("3"), known("4")], [of("new", 0), of("old", 0)]);
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_line() {
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let text = format!(
            "[[key]]\nname = \"a b\"\nsha256 = \"12\"\nscopes = [\"reed\"]\n\n[[key]]\nname = \"a\"\nsha256 = \"{hash}\"\nscopes = []\n\n\
             [[key]]\nname = \"b\"\nsha256 = \"{hash}\"\nscopes = [\"read\"]\n"
        );
        let problems = Keys::parse(&text).unwrap_err();
        let expected = [
            (2, "name \"a b\" is not"),
            (3, "sha256 is not 64"),
            (4, "scope \"reed\" is none of tokens, read, write, groups, devices, operate"),
            (9, "scopes is empty"),
            (11, "key \"b\": another has the same sha256"),
        ];
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        for ((line, text), (of, begin)) in problems.iter().zip(expected) {
            assert!(*line == of && text.starts_with(begin), "{line}: {text}");
        }
        let one = |text: &str| Keys::parse(text).unwrap_err().remove(0);
        assert_eq!(one("\n[[key]]\nname = \"a\"\nscope = []\n").0, 4);
        assert_eq!(one("[[keys]]\n").0, 1);
        assert_eq!(one("key = 7\n").0, 1);
        assert_eq!(Keys::parse("").unwrap(), Keys::default());
        let many: String = (0..=KEYS_MAX)
            .map(|number| Key::of_secret(&format!("k{number}"), &number.to_string(), &[Scope::Read]).unwrap().entry())
            .collect();
        assert!(one(&many).1.contains("more than 64 keys"));
    }
}
