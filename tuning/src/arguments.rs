//! The options of `tune`.

use std::path::PathBuf;

use antiphon_tuning::capacity::HEARTBEAT_INTERVAL_S;
use clap::{Args, Parser, Subcommand};

/// Checks a machine for Antiphon, changes it, and undoes the change.
#[derive(Debug, Parser)]
#[command(name = "tune", version)]
pub(crate) struct Arguments {
    /// A tree that looks like a machine's /, with /proc and /sys.
    #[arg(long, global = true, default_value = "/")]
    pub(crate) root: PathBuf,
    /// Folder of the journal.
    #[arg(long, global = true, default_value = "/var/lib/antiphon-tune")]
    pub(crate) state: String,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Says what this machine would hold and what limits it.
    Check {
        #[command(flatten)]
        choice: Choice,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Says what `apply` would change, and why.
    Plan {
        #[command(flatten)]
        choice: Choice,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Changes the running kernel as a profile says, with a journal for `undo`.
    Apply {
        #[command(flatten)]
        choice: Choice,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Puts back what `apply` changed.
    Undo {
        /// Also what somebody else changed since.
        #[arg(long)]
        force: bool,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Writes files for sysctl.d, tmpfiles.d, limits.d and systemd, so that a profile outlasts a restart.
    Persist {
        #[command(flatten)]
        choice: Choice,
        /// The node's systemd unit.
        #[arg(long, default_value = "antiphon.service")]
        unit: String,
        /// The user that the node runs as.
        #[arg(long, default_value = "antiphon")]
        user: String,
        /// Print the files instead of writing them.
        #[arg(long, conflicts_with_all = ["remove", "force"])]
        print: bool,
        /// Remove the files instead.
        #[arg(long)]
        remove: bool,
        /// Also overwrite a file that something else wrote.
        #[arg(long, conflicts_with = "remove")]
        force: bool,
    },
    /// Predicts memory, processor, disk and network of a workload.
    Capacity {
        #[command(flatten)]
        options: CapacityOptions,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Names the profiles.
    Profiles,
    /// Prints a profile's text, to begin one's own with.
    ShowProfile {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Choice {
    /// A profile's name (`tune profiles`), or the path of one in TOML.
    #[arg(default_value = "chat-500k")]
    pub(crate) profile: String,
    /// Connections that the node is to hold, if not the profile's number.
    #[arg(long)]
    pub(crate) connections: Option<u64>,
    /// Shards of the node, if not one a core.
    #[arg(long)]
    pub(crate) shards: Option<u64>,
    /// Look at these tuners alone.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// Do not look at these tuners.
    #[arg(long, value_delimiter = ',')]
    pub(crate) skip: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct CapacityOptions {
    /// Live connections.
    #[arg(long)]
    pub(crate) connections: u64,
    /// Groups; without --group-members each user is in one of them.
    #[arg(long, default_value_t = 0)]
    pub(crate) groups: u64,
    /// Connected members of a group.
    #[arg(long)]
    pub(crate) group_members: Option<u64>,
    /// Messages that clients send, a second.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) rate: f64,
    /// Bytes of a message's text.
    #[arg(long, default_value_t = 100)]
    pub(crate) text_bytes: u64,
    /// Shards of the node, if not one a core.
    #[arg(long)]
    pub(crate) shards: Option<u64>,
    /// Log lanes, if not the node's default.
    #[arg(long)]
    pub(crate) lanes: Option<u64>,
    /// Which part of the connections speaks TLS, 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    pub(crate) tls_share: f64,
    /// All clients agree on permessage-deflate, which is off in a node by default.
    #[arg(long)]
    pub(crate) deflate: bool,
    /// How often a client pings, in seconds; the shipped one by default.
    #[arg(long, default_value_t = HEARTBEAT_INTERVAL_S)]
    pub(crate) heartbeat_seconds: f64,
    /// How long the load has run on a fresh node; without it its caches are full, as they are in the long run.
    #[arg(long)]
    pub(crate) running_seconds: Option<f64>,
    /// Coefficients in TOML, if not those that come with the program.
    #[arg(long)]
    pub(crate) coefficients: Option<PathBuf>,
}
