//! Which lane is looked at, and with which key.

use std::fmt;

use crate::{
    encryption::{NodeKey, Nonces},
    seams::Random,
};

/// A lane's number, and the node's key if the store is encrypted. A number alone stands for a store that is not, or for a look at what can
/// be seen of one without its key.
#[derive(Clone)]
pub struct Access {
    pub(super) lane: u16,
    pub(super) key: Option<Sealing>,
}

/// The key, and a seed for what is sealed with it.
#[derive(Clone)]
pub(super) struct Sealing {
    pub(super) node: NodeKey,
    seed: [u8; 32],
}

impl Sealing {
    pub(super) fn new(node: NodeKey, random: &impl Random) -> Self {
        Self { node, seed: Nonces::from_random(random).bytes() }
    }

    /// A generator of its own for each `use`: no two of one command give the same.
    pub(super) fn nonces(&self, of: Use) -> Nonces {
        let mut seed = self.seed;
        seed[31] ^= of as u8;
        Nonces::new(seed)
    }
}

/// What nonces are for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    Reading = 1,
    Making = 2,
}

impl Access {
    /// With the node's key.
    #[must_use]
    pub fn with_key(lane: u16, node: NodeKey, random: &impl Random) -> Self {
        Self { lane, key: Some(Sealing::new(node, random)) }
    }
}

impl From<u16> for Access {
    fn from(lane: u16) -> Self {
        Self { lane, key: None }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.key.as_ref().map(|key| &key.node);
        formatter.debug_struct("Access").field("lane", &self.lane).field("key", &node).finish()
    }
}
