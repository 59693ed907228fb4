//! Who may use the HTTP API, and who the operator's page: at the start, and from a reload on.

use std::path::Path;

use anyhow::Context as _;

use crate::{
    config::{Api, KeysFile, Operator},
    outside::backend::keys::{Key, KeyRing, Keys, Scope},
    store_folder::dev_api_key,
};

/// The name of the key that a development node makes.
const DEV_NAME: &str = "development";

/// The keys that are good, and the file that a reload reads.
pub(crate) struct ApiKeys {
    /// What they are for, in a log.
    what: &'static str,
    ring: KeyRing,
    file: Option<KeysFile>,
    /// Good whatever the file says; in development only.
    of_dev: Option<Key>,
}

impl ApiKeys {
    /// Those of the configuration for the HTTP API, and with a data folder the development key that is in it.
    pub(crate) fn of_api(api: &Api, of_dev: Option<&Path>) -> anyhow::Result<Self> {
        let dev_key = |folder| {
            let (path, secret) = dev_api_key(folder)?;
            let key = Key::of_secret(DEV_NAME, &secret, &Scope::ALL);
            key.map_err(anyhow::Error::msg).with_context(|| path.display().to_string())
        };
        Self::new("the HTTP API", &api.keys, api.file.as_ref(), of_dev.map(dev_key).transpose()?)
    }

    /// Those of the configuration for the operator's page, and the secret of the development key if there is one.
    pub(crate) fn of_operator(operator: &Operator, of_dev: Option<&str>) -> anyhow::Result<Self> {
        let dev_key = |secret| Key::of_secret(DEV_NAME, secret, &[Scope::Operate]).map_err(anyhow::Error::msg);
        let of_dev = of_dev.map(dev_key).transpose()?;
        Self::new("the operator's page", &operator.keys, operator.file.as_ref(), of_dev)
    }

    fn new(what: &'static str, keys: &Keys, file: Option<&KeysFile>, of_dev: Option<Key>) -> anyhow::Result<Self> {
        let keys = keys.clone().and(of_dev.as_ref()).map_err(anyhow::Error::msg)?;
        Ok(Self { what, ring: KeyRing::new(keys), file: file.cloned(), of_dev })
    }

    /// What requests are looked at with.
    pub(crate) fn ring(&self) -> KeyRing {
        self.ring.clone()
    }

    /// Reads the file again. If anything is wrong with it, all keys stay as they were.
    pub(crate) fn reload(&self) {
        let Some(file) = &self.file else { return };
        let what = self.what;
        match file.read_again().and_then(|keys| keys.and(self.of_dev.as_ref())) {
            Ok(keys) => {
                tracing::info!(keys = keys.iter().count(), "{what} is for the keys that are in the file now");
                self.ring.replace(keys);
            }
            Err(error) => tracing::error!("the keys of {what} stay as they were: {error}"),
        }
    }
}
