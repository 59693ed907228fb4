//! What is wanted of a machine, as data: a profile is a list of tuners, each about one fact.

use serde::{Deserialize, Serialize};

use crate::facts::FactName;

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What it wants.
    #[serde(rename = "tuner")]
    pub tuners: Vec<Tuner>,
}

/// One thing that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tuner {
    /// Its name in tables.
    pub name: String,
    /// Of which fact.
    pub fact: FactName,
    /// Whether the profile looks at it.
    #[serde(default = "enabled_default")]
    pub enabled: bool,
    /// At least or at most.
    pub want: Want,
    /// The bound: `fixed + per_thousand_connections × ⌈connections ÷ 1000⌉`.
    #[serde(default)]
    pub fixed: u64,
    /// What a thousand connections add.
    #[serde(default)]
    pub per_thousand_connections: u64,
    /// Whether a node does not work without it, or only less well.
    pub severity: Severity,
    /// Why.
    pub reason: String,
}

fn enabled_default() -> bool {
    true
}

/// The bound's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// The fact is to be no less than the bound.
    AtLeast,
    /// The fact is to be no more than the bound.
    AtMost,
}

/// How bad it is if a machine falls short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The node won't hold what was asked.
    Required,
    /// It will, with more shards, retries or less speed.
    Advised,
}

impl Profile {
    /// The profile of a chat node, which comes with this crate.
    ///
    /// # Panics
    /// Never: a test reads it.
    #[must_use]
    pub fn chat_node() -> Self {
        Self::from_toml(include_str!("../profiles/chat-node.toml"))
            .expect("the profile that comes with the crate is good")
    }

    /// Reads a profile; the error names line and column.
    pub fn from_toml(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

impl Tuner {
    /// The bound for so many connections.
    #[must_use]
    pub fn bound(&self, connections: u64) -> u64 {
        self.fixed.saturating_add(self.per_thousand_connections.saturating_mul(connections.div_ceil(1000)))
    }
}
