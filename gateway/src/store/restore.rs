//! `antiphon store restore`: a new data folder from a checkpoint, or from the folder of a node that has ended; whole, or up to a point.

use std::{fs, path::PathBuf};

use antiphon_engine::{
    manifest,
    offline::{self, RestoreError, Restored, Until},
};
use antiphon_wire::ids::{LanePosition, TimestampMs};
use clap::Args;
use serde_json::json;

use super::{
    Ended, Which, access,
    described::Described,
    error::ToolError,
    files::{FolderFiles, now},
    lane_name, lanes, lock,
    new_store::NewStore,
    print, print_report,
    progress::Shown,
    text::counted,
};
use crate::{encryption::KeyArguments, uring::OsRandom};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A checkpoint, or the data folder of a node that has ended.
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
    /// Data folder: one that is not there yet, or empty.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Only entries up to this time, in milliseconds since 1970.
    #[arg(long, value_name = "MS", conflicts_with = "until_position")]
    until_time: Option<u64>,
    /// Only records up to this position of the lane; lanes that are not named are restored to their end.
    #[arg(long, value_name = "LANE:POSITION", value_delimiter = ',', value_parser = lane_and_position)]
    until_position: Vec<(u16, u64)>,
    #[command(flatten)]
    key: KeyArguments,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

fn lane_and_position(text: &str) -> Result<(u16, u64), String> {
    let parsed = text.split_once(':').and_then(|(lane, position)| Some((lane.parse().ok()?, position.parse().ok()?)));
    parsed.ok_or_else(|| "is LANE:POSITION, such as 0:1234".to_owned())
}

/// Makes a new data folder.
pub(super) fn restore(asked: &Arguments) -> Result<Ended, ToolError> {
    let key = asked.key.read()?;
    let all = lanes(&Which { data: asked.from.clone(), lane: None })?;
    for (index, (lane, _)) in asked.until_position.iter().enumerate() {
        let what = if asked.until_position[..index].iter().any(|(other, _)| other == lane) {
            "is named twice".to_owned()
        } else if all.iter().all(|(other, _)| other != lane) {
            format!("is none of the {} that there are", all.len())
        } else {
            continue;
        };
        return Err(ToolError::UntilLane { lane: *lane, what });
    }
    let _lock = lock(&asked.from)?;
    if let Some(described) = Described::read(&asked.from)? {
        for (lane, path) in &all {
            let manifest = now(manifest::read(&FolderFiles::new(path)));
            let manifest = manifest.map_err(|error| ToolError::lane(*lane, error.into()))?;
            described.check(&asked.from, &manifest)?;
        }
    }
    let mut new = NewStore::begin(&asked.data)?;
    let mut restored = Vec::new();
    for (lane, path) in &all {
        let (from, to) = (FolderFiles::new(path), FolderFiles::new(&new.lane(*lane)?));
        let shown = Shown::new(lane_name("lane", *lane));
        let made =
            now(offline::restore(from, to, access(*lane, key.as_ref()), &OsRandom, asked.until(*lane), shown.teller()));
        shown.finish();
        if let Err(RestoreError::Unsound(report)) = &made {
            print_report(report)?;
        }
        restored.push(made.map_err(|source| ToolError::Restore { lane: *lane, source })?);
    }
    new.finish()?;
    if asked.json {
        let data = fs::canonicalize(&asked.data).unwrap_or_else(|_| asked.data.clone());
        print(&format!("{}\n", json!({ "data": data, "lanes": restored })))?;
    } else {
        print(&said(&restored))?;
    }
    Ok(Ended::Well)
}

impl Arguments {
    fn until(&self, lane: u16) -> Until {
        let named = self.until_position.iter().find(|(other, _)| *other == lane);
        match (self.until_time, named) {
            (Some(time), _) => Until::Time(TimestampMs(time)),
            (None, Some((_, position))) => Until::Position(LanePosition(*position)),
            (None, None) => Until::End,
        }
    }
}

fn said(restored: &[Restored]) -> String {
    let last = restored.iter().map(|of| of.time_ms.0).max().unwrap_or(0);
    format!(
        "restored: {}, {}, {}, none later than {last} ms\n",
        counted(restored.len() as u64, "lane", "lanes"),
        counted(restored.iter().map(|of| of.conversations).sum(), "conversation", "conversations"),
        counted(restored.iter().map(|of| of.entries).sum(), "entry", "entries"),
    )
}
