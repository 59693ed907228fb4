//! `antiphon store load`: a dump on standard input becomes a new data folder.
//!
//! What was interrupted leaves nothing that a node would start on: see [`NewStore`].

use std::{
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use antiphon_engine::{
    encryption::NodeKey,
    offline::{Dumped, Loader},
};
use antiphon_wire::limits::LANES_MAX;
use serde::{Deserialize, Serialize};

use super::{
    Ended,
    error::ToolError,
    files::{FolderFiles, now},
    new_store::NewStore,
    print,
    progress::Shown,
    text::counted,
};
use crate::{encryption::KeyArguments, uring::OsRandom};

/// Longest line of a dump: the longest entry with every byte escaped, and its archive beside it.
const LINE_BYTES_MAX: u64 = 4 << 20;

/// The version of dumps that is written and read.
const VERSION: u32 = 1;

/// A dump's first line.
#[derive(Serialize, Deserialize)]
struct Header {
    dump: HeaderFields,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HeaderFields {
    version: u32,
    /// How many lanes the store has; all of them must follow for the dump to be loaded.
    lanes: usize,
}

/// The first line of a dump of a store with so many lanes.
pub(super) fn header(lanes: usize) -> String {
    let header = Header { dump: HeaderFields { version: VERSION, lanes } };
    serde_json::to_string(&header).expect("numbers are JSON")
}

/// Loads a dump from standard input.
pub(super) fn load(data: &Path, key: &KeyArguments) -> Result<Ended, ToolError> {
    let key = key.read()?;
    let mut new = NewStore::begin(data)?;
    let mut lines = Lines::new(BufReader::with_capacity(1 << 20, io::stdin().lock()));
    let loaded = load_lanes(&mut new, key.as_ref(), &mut lines);
    lines.shown.finish();
    let (lanes, loaded) = loaded?;
    new.finish()?;
    let lanes = counted(lanes as u64, "lane", "lanes");
    let conversations = counted(loaded.conversations, "conversation", "conversations");
    let entries = counted(loaded.entries, "entry", "entries");
    print(&format!("loaded: {lanes}, {conversations}, {entries}\n"))?;
    Ok(Ended::Well)
}

fn load_lanes(
    new: &mut NewStore,
    key: Option<&NodeKey>,
    lines: &mut Lines<impl BufRead>,
) -> Result<(usize, Dumped), ToolError> {
    let first = lines.next()?.ok_or_else(|| lines.wrong("there is none"))?;
    let header: Header = serde_json::from_str(&first).map_err(|error| lines.wrong(&error.to_string()))?;
    let HeaderFields { version, lanes } = header.dump;
    if version != VERSION || lanes == 0 || lanes > LANES_MAX {
        return Err(lines.wrong(&format!("version {version} with {lanes} lanes cannot be loaded here")));
    }
    let mut all = Dumped::default();
    for lane in 0..lanes as u16 {
        let loaded = load_lane(&new.lane(lane)?, lane, key, lines)?;
        all.conversations += loaded.conversations;
        all.entries += loaded.entries;
    }
    if lines.next()?.is_some() {
        return Err(lines.wrong("there is something after the last lane"));
    }
    Ok((lanes, all))
}

fn load_lane(
    path: &Path,
    lane: u16,
    key: Option<&NodeKey>,
    lines: &mut Lines<impl BufRead>,
) -> Result<Dumped, ToolError> {
    let at = |source| ToolError::Load { lane, source };
    let first = lines.next()?.ok_or_else(|| lines.wrong("the dump ends before its last lane"))?;
    if Loader::<FolderFiles>::lane_of(&first) != Some(lane) {
        return Err(lines.wrong(&format!("lane {lane} is to begin here")));
    }
    let mut loader =
        now(Loader::create_encrypted(FolderFiles::new(path), &OsRandom, &first, key.cloned())).map_err(at)?;
    loop {
        let line = lines.next()?.ok_or_else(|| lines.wrong("the dump ends within a lane"))?;
        if let Some(loaded) = now(loader.push(&line)).map_err(at)? {
            return Ok(loaded);
        }
    }
}

/// The lines of a dump, each of bounded length.
struct Lines<R> {
    input: R,
    number: u64,
    bytes: u64,
    shown: Shown,
}

impl<R: BufRead> Lines<R> {
    fn new(input: R) -> Self {
        Self { input, number: 0, bytes: 0, shown: Shown::new("loading".to_owned()) }
    }

    fn wrong(&self, what: &str) -> ToolError {
        ToolError::Dump { line: self.number, what: what.to_owned() }
    }

    /// The next line without its end; `None` at the end.
    fn next(&mut self) -> Result<Option<String>, ToolError> {
        self.number += 1;
        let mut line = Vec::new();
        let read = self.input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let count = read.map_err(|source| ToolError::Io { path: PathBuf::from("standard input"), source })?;
        if count == 0 {
            return Ok(None);
        }
        self.bytes += count as u64;
        self.shown.show(self.bytes, None);
        if line.pop_if(|last| *last == b'\n').is_none() {
            return Err(self.wrong("has no end: it is too long, or the dump was cut off"));
        }
        String::from_utf8(line).map(Some).map_err(|_| self.wrong("is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn lines(text: &str) -> Lines<&[u8]> {
        Lines::new(text.as_bytes())
    }

    fn refused(text: &str) -> String {
        let path = std::env::temp_dir().join(format!("antiphon-store-load-{}-{}", std::process::id(), text.len()));
        let _ = fs::remove_dir_all(&path);
        let error = load_lanes(&mut NewStore::begin(&path).unwrap(), None, &mut lines(text)).unwrap_err();
        fs::remove_dir_all(&path).unwrap();
        error.to_string()
    }

    #[test]
    fn a_dump_that_is_none_or_not_whole_is_refused_by_line() {
        let lane = r#"{"lane":{"version":1,"lane":0,"store":"0123456789abcdef","position":0,"time_ms":0}}"#;
        let end = r#"{"end":{"lane":0,"conversations":0,"entries":0}}"#;
        for (text, part) in [
            (String::new(), "line 1: there is none"),
            ("nonsense\n".to_owned(), "line 1: "),
            (format!("{}\n", header(0)), "line 1: version 1 with 0 lanes"),
            (header(1), "line 1: has no end"),
            (format!("{}\n", header(1)), "line 2: the dump ends before its last lane"),
            (format!("{}\n{end}\n", header(1)), "line 2: lane 0 is to begin here"),
            (format!("{}\n{lane}\n", header(1)), "line 3: the dump ends within a lane"),
            (format!("{}\n{lane}\n{end}\n{end}\n", header(1)), "line 4: there is something after the last lane"),
        ] {
            let error = refused(&text);
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
