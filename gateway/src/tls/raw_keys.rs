//! Cipher suites of TLS 1.3 that keep their keys as they are and expand them for each record.
//!
//! An expanded key of AES-GCM, with the tables that make it fast, takes over 600 bytes, and a session has two. Most sessions of a chat
//! are idle at any moment; expanding costs less than 0.2 µs a record (docs/benchmarks.md). The ciphers are aws-lc's, and everything
//! else of the suites is rustls' own.

use ::aws_lc_rs::aead::{self, Aad, LessSafeKey, UnboundKey};
use rustls::{
    CipherSuite, ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite, Tls13CipherSuite,
    crypto::{
        CipherSuiteCommon, CryptoProvider, aws_lc_rs,
        cipher::{
            AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter, Nonce,
            OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm,
            UnsupportedOperationError, make_tls13_aad,
        },
    },
};

/// The tag of every suite of TLS 1.3 that is spoken here.
const TAG_BYTES: usize = 16;

/// rustls' provider over aws-lc, with these suites in the place of its own.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    for suite in &mut provider.cipher_suites {
        if let SupportedCipherSuite::Tls13(original) = suite
            && let Some(aead) = of_suite(original.common.suite)
        {
            *suite = SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
                common: CipherSuiteCommon {
                    suite: original.common.suite,
                    hash_provider: original.common.hash_provider,
                    confidentiality_limit: original.common.confidentiality_limit,
                },
                hkdf_provider: original.hkdf_provider,
                aead_alg: aead,
                quic: original.quic,
            })));
        }
    }
    provider
}

fn of_suite(suite: CipherSuite) -> Option<&'static Suite> {
    match suite {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => Some(&Suite {
            algorithm: &aead::AES_256_GCM,
            secrets: |key, iv| ConnectionTrafficSecrets::Aes256Gcm { key, iv },
        }),
        CipherSuite::TLS13_AES_128_GCM_SHA256 => Some(&Suite {
            algorithm: &aead::AES_128_GCM,
            secrets: |key, iv| ConnectionTrafficSecrets::Aes128Gcm { key, iv },
        }),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => Some(&Suite {
            algorithm: &aead::CHACHA20_POLY1305,
            secrets: |key, iv| ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv },
        }),
        _ => None,
    }
}

struct Suite {
    algorithm: &'static aead::Algorithm,
    secrets: fn(AeadKey, Iv) -> ConnectionTrafficSecrets,
}

impl Tls13AeadAlgorithm for Suite {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Keys { algorithm: self.algorithm, key, iv })
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        Box::new(Keys { algorithm: self.algorithm, key, iv })
    }

    fn key_len(&self) -> usize {
        self.algorithm.key_len()
    }

    fn extract_keys(&self, key: AeadKey, iv: Iv) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Ok((self.secrets)(key, iv))
    }
}

/// The keys of one direction.
struct Keys {
    algorithm: &'static aead::Algorithm,
    key: AeadKey,
    iv: Iv,
}

impl Keys {
    fn expand(&self) -> LessSafeKey {
        // rustls cuts keys to the length that `key_len` says.
        LessSafeKey::new(UnboundKey::new(self.algorithm, self.key.as_ref()).expect("a key of the suite's length"))
    }

    fn nonce(&self, sequence: u64) -> aead::Nonce {
        aead::Nonce::assume_unique_for_key(Nonce::new(&self.iv, sequence).0)
    }
}

impl MessageEncrypter for Keys {
    fn encrypt(&mut self, message: OutboundPlainMessage<'_>, sequence: u64) -> Result<OutboundOpaqueMessage, Error> {
        let length = self.encrypted_payload_len(message.payload.len());
        let mut payload = PrefixedPayload::with_capacity(length);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&message.typ.to_array());
        self.expand()
            .seal_in_place_append_tag(self.nonce(sequence), Aad::from(make_tls13_aad(length)), &mut payload)
            .map_err(|_| Error::EncryptError)?;
        // What TLS 1.3 shows of a record (RFC 8446 §5.2).
        Ok(OutboundOpaqueMessage::new(ContentType::ApplicationData, ProtocolVersion::TLSv1_2, payload))
    }

    fn encrypted_payload_len(&self, payload_bytes: usize) -> usize {
        payload_bytes + 1 + TAG_BYTES
    }
}

impl MessageDecrypter for Keys {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        sequence: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let payload = &mut message.payload;
        if payload.len() < TAG_BYTES {
            return Err(Error::DecryptError);
        }
        let aad = Aad::from(make_tls13_aad(payload.len()));
        let length =
            self.expand().open_in_place(self.nonce(sequence), aad, payload).map_err(|_| Error::DecryptError)?.len();
        payload.truncate(length);
        message.into_tls13_unpadded_message()
    }
}
