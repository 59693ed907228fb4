//! Runs a node: the command line's one door to it.

use std::net::SocketAddr;

use crate::{
    config::{Auth, Config},
    core::token::TokenVerifier,
    store_folder::{StoreFolder, dev_key},
};

/// Why a node doesn't run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// This build has no shards.
    #[error("this build can't accept connections: its shards are not linked in")]
    NoShards,
}

/// What a node has before its first shard starts.
#[derive(Debug)]
pub struct Prepared {
    /// The data folder, locked.
    pub folder: StoreFolder,
    /// Checks tokens; each shard gets a clone.
    pub verifier: TokenVerifier,
    /// Signs development tokens; in development only.
    pub dev_key: Option<Vec<u8>>,
}

/// Takes the data folder and makes the token verifier.
pub fn prepare(config: &Config) -> anyhow::Result<Prepared> {
    let folder = StoreFolder::open(&config.node.data)?;
    let (verifier, dev_key) = match &config.auth {
        Auth::Dev => {
            let key = dev_key(folder.path())?;
            (TokenVerifier::for_dev(&key)?, Some(key))
        }
        Auth::Tokens(verifier) => (verifier.clone(), None),
    };
    Ok(Prepared { folder, verifier, dev_key })
}

/// Runs a node until it was told to end and has drained.
pub fn run(config: Config) -> anyhow::Result<()> {
    let _prepared = prepare(&config)?;
    Err(NodeError::NoShards.into())
}

/// Runs a plain WebSocket echo on the node's net ring and codec until it is told to end.
pub fn echo(_listen: SocketAddr, _shards: usize) -> anyhow::Result<()> {
    Err(NodeError::NoShards.into())
}
