//! `antiphon store erase`, `rewrap` and `encryption-key`: keys of an encrypted store that are destroyed, wrapped anew, and made.

use std::path::{Path, PathBuf};

use antiphon_engine::offline::{self, Erased};
use antiphon_wire::ids::ConversationId;
use clap::Args;
use serde_json::json;

use super::{
    Ended, Which, access,
    error::ToolError,
    files::{FolderFiles, now},
    lanes, lock, print,
    text::counted,
};
use crate::{
    encryption::{self, KeyArguments},
    uring::OsRandom,
};

#[derive(Debug, Args)]
pub(super) struct EraseArguments {
    /// Data folder of a node that has ended, or a checkpoint.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The conversations, by their ids.
    #[arg(long, value_name = "ID", value_delimiter = ',', required = true)]
    conversation: Vec<ConversationId>,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RewrapArguments {
    /// Data folder of a node that has ended, or a checkpoint.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The file with the key that is to be the node's.
    #[arg(long, value_name = "FILE")]
    new_key_file: PathBuf,
    #[command(flatten)]
    key: KeyArguments,
}

/// Destroys data keys, each in the lane that has it.
pub(super) fn erase(asked: &EraseArguments) -> Result<Ended, ToolError> {
    let all = lanes(&Which { data: asked.data.clone(), lane: None })?;
    let _lock = lock(&asked.data)?;
    let mut sum = Erased::default();
    for (lane, path) in &all {
        let erased = now(offline::erase(FolderFiles::new(path), *lane, &asked.conversation));
        let erased = erased.map_err(|error| ToolError::lane(*lane, error))?;
        sum.erased += erased.erased;
        sum.before += erased.before;
    }
    sum.unknown = (asked.conversation.len() as u64).saturating_sub(sum.erased + sum.before);
    if asked.json {
        print(&format!("{}\n", json!(sum)))?;
    } else {
        let erased = counted(sum.erased, "conversation", "conversations");
        print(&format!("erased: {erased}; {} before, {} unknown here\n", sum.before, sum.unknown))?;
    }
    Ok(if sum.unknown == 0 { Ended::Well } else { Ended::WithDamage })
}

/// Wraps the data keys of all lanes by another key. One that was interrupted is gone on with by the same command.
pub(super) fn rewrap(asked: &RewrapArguments) -> Result<Ended, ToolError> {
    let (key, new) = (asked.key.read()?, encryption::from_file(&asked.new_key_file)?);
    let all = lanes(&Which { data: asked.data.clone(), lane: None })?;
    let _lock = lock(&asked.data)?;
    for (lane, path) in &all {
        let access = access(*lane, key.as_ref());
        let wrapped = now(offline::rewrap(FolderFiles::new(path), access, &new, &OsRandom));
        let wrapped = wrapped.map_err(|error| ToolError::lane(*lane, error))?;
        let what = if wrapped { "wrapped by" } else { "was wrapped before by" };
        print(&format!("lane-{lane:02}: {what} key {:016x}\n", new.id()))?;
    }
    Ok(Ended::Well)
}

/// Makes a key.
pub(super) fn new_key(path: &Path) -> Result<Ended, ToolError> {
    let key = encryption::make(path)?;
    print(&format!("{}: key {:016x}\n", path.display(), key.id()))?;
    Ok(Ended::Well)
}
