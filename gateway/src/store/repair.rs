//! `antiphon store repair`: a new data folder of what verifies in a damaged one, and exactly what is lost.

use std::path::PathBuf;

use antiphon_engine::offline::{self, Repaired};
use clap::Args;
use serde_json::json;

use super::{
    Ended, Which, access,
    error::ToolError,
    files::{FolderFiles, now},
    finding_line, lane_name, lanes, lock,
    new_store::NewStore,
    print,
    progress::Shown,
    text::{counted, number},
};
use crate::{encryption::KeyArguments, uring::OsRandom};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The damaged data folder, or a checkpoint; it stays as it is.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The new data folder: one that is not there yet, or empty.
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
    #[command(flatten)]
    key: KeyArguments,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

/// Makes a new data folder of what verifies.
pub(super) fn repair(asked: &Arguments) -> Result<Ended, ToolError> {
    let key = asked.key.read()?;
    let all = lanes(&Which { data: asked.data.clone(), lane: None })?;
    let _lock = lock(&asked.data)?;
    let mut new = NewStore::begin(&asked.to)?;
    let mut repaired: Vec<Repaired> = Vec::new();
    for (lane, path) in &all {
        let (from, to) = (FolderFiles::new(path), FolderFiles::new(&new.lane(*lane)?));
        let shown = Shown::new(lane_name("lane", *lane));
        let made = now(offline::repair(from, to, access(*lane, key.as_ref()), &OsRandom, shown.teller()));
        shown.finish();
        repaired.push(made.map_err(|error| ToolError::lane(*lane, error))?);
    }
    // Before the folder is one: who cannot be told what is lost gets none.
    let is_whole = repaired.iter().all(Repaired::is_whole);
    if asked.json {
        print(&format!("{}\n", json!({ "whole": is_whole, "lanes": repaired })))?;
    } else {
        repaired.iter().try_for_each(print_losses)?;
    }
    new.finish()?;
    if !asked.json {
        print(&said(&repaired, is_whole))?;
    }
    Ok(if is_whole { Ended::Well } else { Ended::WithDamage })
}

fn print_losses(of: &Repaired) -> Result<(), ToolError> {
    let lane = lane_name("lane", of.lane);
    for finding in &of.findings {
        print(&format!("{}\n", finding_line(&lane, finding)))?;
    }
    for loss in &of.losses {
        print(&format!("note: {}\n", finding_line(&lane, loss)))?;
    }
    if of.findings_left_out > 0 {
        print(&format!("{lane}: {} more findings\n", number(of.findings_left_out)))?;
    }
    Ok(())
}

fn said(repaired: &[Repaired], is_whole: bool) -> String {
    let sum = |of: fn(&Repaired) -> u64| repaired.iter().map(of).sum::<u64>();
    let lost = if is_whole {
        "nothing is lost".to_owned()
    } else {
        let entries = counted(sum(|of| of.entries_lost), "entry of them is lost", "entries of them are lost");
        let left_out = counted(sum(|of| of.left_out), "conversation is left out", "conversations are left out");
        format!("{entries}, {left_out}")
    };
    format!(
        "repaired: {}, {}, {}: {lost}\n",
        counted(repaired.len() as u64, "lane", "lanes"),
        counted(sum(|of| of.conversations), "conversation", "conversations"),
        counted(sum(|of| of.entries), "entry", "entries"),
    )
}
