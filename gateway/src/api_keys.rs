//! Who may use the HTTP API: at the start, and from a reload on.

use std::path::Path;

use anyhow::Context as _;

use crate::{
    config::{Api, KeysFile},
    outside::backend::keys::{Key, KeyRing, Scope},
    store_folder::dev_api_key,
};

/// The keys that are good, and the file that a reload reads.
pub(crate) struct ApiKeys {
    ring: KeyRing,
    file: Option<KeysFile>,
    /// Good whatever the file says; in development only.
    of_dev: Option<Key>,
}

impl ApiKeys {
    /// Those of the configuration, and with a data folder the development key that is in it.
    pub(crate) fn new(api: &Api, of_dev: Option<&Path>) -> anyhow::Result<Self> {
        let dev_key = |folder| {
            let (path, secret) = dev_api_key(folder)?;
            let key = Key::of_secret("development", &secret, &Scope::ALL);
            key.map_err(anyhow::Error::msg).with_context(|| path.display().to_string())
        };
        let of_dev = of_dev.map(dev_key).transpose()?;
        let keys = api.keys.clone().and(of_dev.as_ref()).map_err(anyhow::Error::msg)?;
        Ok(Self { ring: KeyRing::new(keys), file: api.file.clone(), of_dev })
    }

    /// What the API looks at.
    pub(crate) fn ring(&self) -> KeyRing {
        self.ring.clone()
    }

    /// Reads the file again. If anything is wrong with it, all keys stay as they were.
    pub(crate) fn reload(&self) {
        let Some(file) = &self.file else { return };
        match file.read_again().and_then(|keys| keys.and(self.of_dev.as_ref())) {
            Ok(keys) => {
                tracing::info!(keys = keys.iter().count(), "the HTTP API is for the keys that are in the file now");
                self.ring.replace(keys);
            }
            Err(error) => tracing::error!("the keys of the HTTP API stay as they were: {error}"),
        }
    }
}
