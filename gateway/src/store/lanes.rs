//! Another number of lanes: what a start does where its configuration asks for it, and `antiphon store lanes` while no node runs.
//!
//! The engine makes the new lanes ([`antiphon_engine::offline::spread`]), [`crate::lane_switch`] puts them in the place of the old ones.
//! Segments get second names; where the file system has none they are copied, which takes their room once more for each lane that has
//! some of theirs, until the old ones go.

use std::{cell::Cell, fmt, path::PathBuf, rc::Rc};

use antiphon_engine::{
    EngineError,
    encryption::NodeKey,
    error::StoreError,
    manifest,
    offline::{self, LanesError, NewLane},
};
use antiphon_wire::limits::LANES_MAX;
use clap::Args;
use serde_json::json;

use super::{
    Ended,
    error::{ToolError, hint},
    files::{FolderFiles, Shared, Sharing, now},
    print,
    progress::Shown,
    text::{bytes, counted, number},
};
use crate::{
    encryption::KeyArguments,
    lane_switch::{Left, Switch},
    store_folder::{StoreFolder, StoreFolderError, lane_name, recorded_lanes, store_of_lanes},
    uring::OsRandom,
};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How many there are to be.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u64).range(1..=LANES_MAX as u64))]
    lanes: u64,
    /// Data folder of a node that has ended.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    key: KeyArguments,
    /// As one JSON object.
    #[arg(long)]
    json: bool,
}

/// Why the lanes stay as they are.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// See to the folder.
    #[error(transparent)]
    Folder(#[from] StoreFolderError),
    /// A lane of it cannot be read, or the new ones cannot be written.
    #[error("{folder}: the number of lanes stays {from}: {source}{}", hint_of(.source))]
    Lanes {
        /// Which folder.
        folder: PathBuf,
        /// How many lanes it has.
        from: usize,
        /// Why.
        source: Box<LanesError>,
    },
}

impl ChangeError {
    /// Whether something that is stored is damaged.
    pub(crate) fn is_damage(&self) -> bool {
        let Self::Lanes { source, .. } = self else { return false };
        let LanesError::Old { source, .. } = &**source else { return false };
        matches!(source, EngineError::Store(StoreError::Damaged { .. }) | EngineError::LogMissing { .. })
    }
}

/// With a space before it, so that it may be left out.
fn hint_of(error: &LanesError) -> String {
    let (LanesError::Old { source, .. } | LanesError::New { source, .. }) = error;
    let hint = match source {
        EngineError::Store(StoreError::Damaged { .. }) => {
            Some("`antiphon store verify` tells all that is damaged; repair it first, or keep the number of lanes.")
        }
        other => hint(other),
    };
    hint.map_or_else(String::new, |hint| format!(". {hint}"))
}

/// A number of lanes that was changed.
#[derive(Debug)]
pub(crate) struct Changed {
    from: usize,
    lanes: Vec<NewLane>,
    shared: Shared,
}

impl fmt::Display for Changed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let position = self.lanes.first().map_or(0, |lane| lane.position.0);
        write!(
            formatter,
            "{} became {}: records up to {}, {}: {} by a second name, {} copied",
            counted(self.from as u64, "lane", "lanes"),
            self.lanes.len(),
            number(position),
            counted(self.lanes.iter().map(|lane| lane.segments).sum(), "segment", "segments"),
            bytes(self.shared.linked),
            bytes(self.shared.copied),
        )
    }
}

/// Goes on with a change of an earlier process, or takes away what it left; then gives the folder so many lanes, if it has others.
pub(crate) fn bring_to(
    folder: &StoreFolder,
    lanes: usize,
    key: Option<&NodeKey>,
) -> Result<(Left, Option<Changed>), ChangeError> {
    let switch = Switch::new(folder.path());
    let left = switch.settle()?;
    let Some(from) = StoreFolder::lanes(folder.path())?.filter(|from| *from != lanes) else { return Ok((left, None)) };
    match make(folder, &switch, (from, lanes), key, true) {
        Ok(changed) => Ok((left, Some(changed))),
        Err(error) => {
            switch.abandon();
            Err(error)
        }
    }
}

fn make(
    folder: &StoreFolder,
    switch: &Switch<'_>,
    (from, lanes): (usize, usize),
    key: Option<&NodeKey>,
    may_link: bool,
) -> Result<Changed, ChangeError> {
    let failed = |source| ChangeError::Lanes { folder: folder.path().to_owned(), from, source: Box::new(source) };
    let old: Vec<FolderFiles> = (0..from).map(|lane| FolderFiles::new(&folder.path().join(lane_name(lane)))).collect();
    check_identity(folder, &old).map_err(|(lane, error)| match error {
        Some(source) => failed(LanesError::Old { lane, source: source.into() }),
        None => StoreFolderError::Mixed { folder: folder.path().to_owned() }.into(),
    })?;
    let shown = Shown::new(format!("from {from} to {}", counted(lanes as u64, "lane", "lanes")));
    let sharing =
        Rc::new(Sharing { earlier: None, may_link, shown: shown.clone(), shared: Cell::new(Shared::default()) });
    let new: Vec<FolderFiles> = (0..lanes)
        .map(|lane| Ok(FolderFiles::receiving(&switch.new_lane(lane)?, Rc::clone(&sharing))))
        .collect::<Result<_, StoreFolderError>>()?;
    let made = now(offline::spread_encrypted(&old, &new, key, &OsRandom, shown.teller())).map_err(failed);
    shown.finish();
    let made = made?;
    switch.switch(from, lanes, store_of_lanes(made.iter().map(|lane| lane.store)))?;
    Ok(Changed { from, lanes: made, shared: sharing.shared.get() })
}

/// Holds the lanes against what is written down of their identity: those of several stores are not to become one. The lane that cannot be
/// read, and why; or nothing, if they are not the ones.
fn check_identity(folder: &StoreFolder, old: &[FolderFiles]) -> Result<(), (u16, Option<StoreError>)> {
    let Ok(Some((_, recorded))) = recorded_lanes(folder.path()) else { return Ok(()) };
    let mut stores = Vec::with_capacity(old.len());
    for (lane, files) in (0..).zip(old) {
        stores.push(now(manifest::read(files)).map_err(|error| (lane, Some(error)))?.store);
    }
    if store_of_lanes(stores) == recorded { Ok(()) } else { Err((0, None)) }
}

/// Gives a folder another number of lanes.
pub(super) fn lanes(asked: &Arguments) -> Result<Ended, ToolError> {
    let key = asked.key.read()?;
    if !asked.data.is_dir() {
        return Err(ToolError::NoFolder { folder: asked.data.clone() });
    }
    let has_lanes = StoreFolder::lanes(&asked.data);
    if matches!(has_lanes, Ok(None)) {
        return Err(ToolError::NoLanes { folder: asked.data.clone() });
    }
    let folder = StoreFolder::open(&asked.data)?;
    let (left, changed) = bring_to(&folder, asked.lanes as usize, key.as_ref())?;
    if asked.json {
        let (from, shared) =
            changed.as_ref().map_or((asked.lanes as usize, Shared::default()), |of| (of.from, of.shared));
        let made = changed.map(|of| of.lanes).unwrap_or_default();
        let told = json!({
            "from": from, "to": asked.lanes, "lanes": made, "finished_earlier": left == Left::Decided,
            "linked_bytes": shared.linked, "copied_bytes": shared.copied,
        });
        print(&format!("{told}\n"))?;
        return Ok(Ended::Well);
    }
    if left == Left::Decided {
        print("an earlier change was gone on with, and is done\n")?;
    }
    match changed {
        Some(changed) => print(&format!("{changed}\n"))?,
        None => print(&format!("there are {} already\n", counted(asked.lanes, "lane", "lanes")))?,
    }
    Ok(Ended::Well)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// A data folder of one lane, with a store that an older version wrote.
    fn folder(name: &str) -> StoreFolder {
        let path = std::env::temp_dir().join(format!("antiphon-lanes-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("lane-00")).unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/golden/store-v1");
        for entry in fs::read_dir(golden).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, path.join("lane-00").join(from.file_name().unwrap())).unwrap();
        }
        StoreFolder::open(&path).unwrap()
    }

    /// What all lanes hold, in an order of its own.
    fn dump(folder: &StoreFolder) -> Vec<String> {
        let mut lines = Vec::new();
        for lane in 0..StoreFolder::lanes(folder.path()).unwrap().unwrap() {
            let files = FolderFiles::new(&folder.path().join(lane_name(lane)));
            let mut sink = |line: &str| {
                if !line.starts_with("{\"lane\":") && !line.starts_with("{\"end\":") {
                    lines.push(line.to_owned());
                }
                true
            };
            now(offline::dump(files, lane as u16, |_| (), &mut sink)).unwrap();
        }
        lines.sort();
        lines
    }

    #[test]
    fn where_a_file_can_have_no_second_name_it_is_copied() {
        let folder = folder("copied");
        let before = dump(&folder);
        let switch = Switch::new(folder.path());
        let changed = make(&folder, &switch, (1, 3), None, false).unwrap();
        assert!(changed.shared.copied > 0 && changed.shared.linked == 0, "{changed}");
        assert!(changed.to_string().starts_with("1 lane became 3: records up to "), "{changed}");
        assert_eq!(dump(&folder), before);
        assert_eq!(recorded_lanes(folder.path()).unwrap().map(|(lanes, _)| lanes), Some(3));
        // Nothing of the old lane is needed, and back with second names.
        let (left, changed) = bring_to(&folder, 1, None).unwrap();
        assert_eq!(left, Left::Nothing);
        assert!(changed.is_some_and(|changed| changed.shared.copied == 0 && changed.shared.linked > 0));
        assert_eq!(dump(&folder), before);
        assert!(matches!(bring_to(&folder, 1, None), Ok((Left::Nothing, None))));
        fs::remove_dir_all(folder.path()).unwrap();
    }

    #[test]
    fn what_was_left_is_taken_away_and_lanes_of_several_stores_stay_apart() {
        let folder = folder("left");
        let before = dump(&folder);
        let half = Switch::new(folder.path()).new_lane(0).unwrap();
        fs::write(half.join("segment-0000000000000001"), "half").unwrap();
        assert!(matches!(bring_to(&folder, 1, None), Ok((Left::Unfinished, None))));
        assert!(!half.exists());
        fs::write(folder.path().join("lanes"), "1 0123456789abcdef\n").unwrap();
        let error = bring_to(&folder, 2, None).unwrap_err().to_string();
        assert!(error.contains("lanes of several stores were mixed"), "{error}");
        fs::remove_file(folder.path().join("lanes")).unwrap();
        fs::rename(folder.path().join("lane-00/manifest"), folder.path().join("manifest")).unwrap();
        let error = bring_to(&folder, 2, None).unwrap_err().to_string();
        assert!(error.contains("the number of lanes stays 1: lane-00") && error.contains("whole copy"), "{error}");
        fs::rename(folder.path().join("manifest"), folder.path().join("lane-00/manifest")).unwrap();
        assert_eq!(dump(&folder), before);
        assert!(!folder.path().join("changing-lanes").exists());
        fs::remove_dir_all(folder.path()).unwrap();
    }
}
