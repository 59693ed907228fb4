//! What of an encrypted store is sealed, opened by the document's table of it.
//!
//! Must not do: use the engine's cipher, or know by itself what a thing is sealed for.

use std::collections::BTreeMap;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::tables::{Fault, KeyPart, match_key, parse_key, require};

/// A line of the table: by which key, for which bytes, and how it stands there.
#[derive(Debug, Clone)]
pub(crate) struct Sealing {
    by: String,
    context: Vec<KeyPart>,
    stored: Vec<KeyPart>,
}

impl Sealing {
    pub(crate) fn parse(by: &str, context: &str, stored: &str) -> Result<Self, Fault> {
        Ok(Self { by: by.to_owned(), context: parse_key(context)?, stored: parse_key(stored)? })
    }

    /// Opens what is stored: what of it stands in the clear, but for the nonce, and behind it what was sealed. `given` are fields that are not
    /// stored here.
    pub(crate) fn open(
        &self,
        (by, key): (&str, &[u8; 32]),
        stored: &[u8],
        given: &[(&str, &[u8])],
    ) -> Result<Vec<u8>, Fault> {
        require!(self.by == by, "it is sealed by {}, not by {by}", self.by);
        let mut fields = match_key(&self.stored, stored).ok_or("it has not the parts that it should have")?;
        let nonce = fields.remove("nonce").and_then(|nonce| <[u8; 12]>::try_from(nonce).ok());
        let nonce = Nonce::assume_unique_for_key(nonce.ok_or("there is no nonce of 12 bytes")?);
        let mut sealed = fields.remove("sealed").ok_or("nothing is sealed")?;
        let context = self.context(&fields, given)?;
        let cipher = UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new).map_err(|error| error.to_string())?;
        let opened = cipher.open_in_place(nonce, Aad::from(context), &mut sealed).map_err(|_| "it does not open")?;
        let clear = self.stored.iter().filter_map(|part| match part {
            KeyPart::Fixed(name, _) | KeyPart::Open(name) => fields.get(name),
            KeyPart::Byte(_) => None,
        });
        Ok(clear.map(Vec::as_slice).chain([&*opened]).collect::<Vec<_>>().concat())
    }

    fn context(&self, stored: &BTreeMap<String, Vec<u8>>, given: &[(&str, &[u8])]) -> Result<Vec<u8>, Fault> {
        let find = |name: &str| {
            let given = given.iter().find(|(of, _)| *of == name).map(|(_, bytes)| *bytes);
            given.or_else(|| stored.get(name).map(Vec::as_slice)).ok_or_else(|| format!("nobody knows {name}"))
        };
        let mut context = Vec::new();
        for part in &self.context {
            match part {
                KeyPart::Byte(byte) => context.push(*byte),
                KeyPart::Open(name) => context.extend(find(name)?),
                KeyPart::Fixed(name, size) => {
                    let bytes = find(name)?;
                    require!(bytes.len() == *size, "{name} has {} bytes, not {size}", bytes.len());
                    context.extend(bytes);
                }
            }
        }
        Ok(context)
    }
}
