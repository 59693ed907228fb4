//! Applies a plan with a journal, and undoes it from the journal. docs/tuning.md has the format.
//!
//! Fault model: the program may die, or a write may fail, at any point; files of ours are on stable storage when a call returns, and an
//! append may leave a part of its line. So the journal with every file's previous bytes is stored before the first change; what follows
//! in it only says more. Undo goes backwards, takes each step by itself, and may be repeated at will: a file that shows its previous bytes
//! needs nothing, one that shows what apply left there is put back, any other was changed by somebody else and is kept, unless forced.

use std::io;

use serde::{Deserialize, Serialize};

use crate::{
    plan::Plan,
    system::{System, as_the_kernel_shows},
    value::Value,
};

/// The journal's name and version of its format.
pub const FORMAT: &str = "antiphon-tune-journal/1";

/// The journal's name in the state folder.
const NAME: &str = "journal";

/// Its name when everything in it is undone; kept for whoever wants to look.
const UNDONE_NAME: &str = "journal.undone";

/// Where the kernel tells which boot this is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// Why a journal could not be written or followed.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Undo first, then apply again.
    #[error("{path} is there: {profile} is applied, in whole or in part; `tune undo` first")]
    Exists {
        /// The journal.
        path: String,
        /// What it applied.
        profile: String,
    },
    /// The journal is not one of ours, or it is damaged: restore by hand from what it says.
    #[error("{path}:{line}: {message}")]
    Damaged {
        /// The journal.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A file of ours could not be written: free space, or take another state folder. What was changed before stands in the journal.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Bytes of a file, as text if they are text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Text(String),
    Raw(Vec<u8>),
}

impl Bytes {
    fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Raw(bytes.to_vec()),
        }
    }

    fn get(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Raw(bytes) => bytes,
        }
    }
}

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    journal: String,
    profile: String,
    started_unix_s: u64,
    boot: String,
    steps: Vec<Step>,
}

/// What is to be changed, and what stood there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    tuner: String,
    path: String,
    /// What the file showed.
    previous: Bytes,
    /// What to write so that it shows this again: a file with a choice shows more than it takes.
    restore: Bytes,
    write: Bytes,
}

/// The lines after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Line {
    /// The step was taken; the file then showed this.
    Done { step: usize, shown: Bytes },
    /// The step was refused and changed nothing.
    Failed { step: usize, error: String },
    /// The file shows its previous bytes again, or is gone.
    Undone { step: usize },
}

/// One file's outcome, for whoever asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// Of which tuner.
    pub tuner: String,
    /// The file.
    pub path: String,
    /// What became of it.
    pub what: What,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// Changed as planned.
    Changed {
        /// What it shows now.
        shown: String,
    },
    /// Put back.
    Restored {
        /// What it shows now.
        shown: String,
    },
    /// It showed its previous bytes already.
    AsBefore,
    /// It is not there any more, such as that of a device that was removed.
    Gone,
    /// Somebody else changed it since; it was left alone.
    Kept {
        /// What it shows.
        shown: String,
        /// What apply left there, or meant to.
        expected: String,
    },
    /// The kernel refused, or showed something else than was written.
    Failed {
        /// Why.
        error: String,
    },
}

/// What an undo found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undone {
    /// The profile that was applied.
    pub profile: String,
    /// Whether the machine was started again since; then the kernel has its own values again.
    pub other_boot: bool,
    /// In the order in which it went.
    pub outcomes: Vec<Outcome>,
}

impl Undone {
    /// Whether everything is as it was, and the journal put away.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.outcomes.iter().all(|outcome| !matches!(outcome.what, What::Kept { .. } | What::Failed { .. }))
    }
}

/// Applies a plan. A step that the kernel refuses is told and the others are taken; a journal that can't be written ends it at once.
///
/// # Errors
/// See [`JournalError`]; whatever it is, `undo` leads back.
pub fn apply(
    system: &mut dyn System,
    plan: &Plan,
    profile: &str,
    now_unix_s: u64,
    folder: &str,
) -> Result<Vec<Outcome>, JournalError> {
    let path = format!("{folder}/{NAME}");
    if let Some(journal) = Journal::load(system, &path)? {
        return Err(JournalError::Exists { path, profile: journal.header.profile });
    }
    let steps: Vec<Step> = plan.steps.iter().map(step).collect();
    let header = Header {
        journal: FORMAT.to_owned(),
        profile: profile.to_owned(),
        started_unix_s: now_unix_s,
        boot: boot(system),
        steps: steps.clone(),
    };
    let failed = |source| JournalError::Io { path: path.clone(), source };
    system.store(&path, &line(&header)).map_err(failed)?;
    let mut outcomes = Vec::new();
    for (index, step) in steps.into_iter().enumerate() {
        let (record, what) = match take(system, &step) {
            Ok(shown) => {
                let text = String::from_utf8_lossy(&shown).trim_end().to_owned();
                (Line::Done { step: index, shown: Bytes::new(&shown) }, What::Changed { shown: text })
            }
            Err(error) => (Line::Failed { step: index, error: error.clone() }, What::Failed { error }),
        };
        system.append(&path, &line(&record)).map_err(failed)?;
        outcomes.push(Outcome { tuner: step.tuner, path: step.path, what });
    }
    Ok(outcomes)
}

/// Undoes what the journal of a state folder says; `None` if there is none. With `force` what others changed since is put back too.
///
/// # Errors
/// See [`JournalError`]. It may be called again after any of them.
pub fn undo(system: &mut dyn System, folder: &str, force: bool) -> Result<Option<Undone>, JournalError> {
    let path = format!("{folder}/{NAME}");
    let Some(journal) = Journal::load(system, &path)? else { return Ok(None) };
    let failed = |source| JournalError::Io { path: path.clone(), source };
    if journal.torn {
        // The next line must not continue the torn one.
        system.store(&path, &journal.bytes()).map_err(failed)?;
    }
    let mut undone = Undone {
        profile: journal.header.profile.clone(),
        other_boot: journal.header.boot != boot(system),
        outcomes: Vec::new(),
    };
    for (index, step) in journal.header.steps.iter().enumerate().rev() {
        if journal.lines.contains(&Line::Undone { step: index }) {
            continue;
        }
        let shown = journal.lines.iter().rev().find_map(|line| match line {
            Line::Done { step, shown } if *step == index => Some(shown.get().to_vec()),
            _ => None,
        });
        let what = put_back(system, step, shown, force);
        if !matches!(what, What::Kept { .. } | What::Failed { .. }) {
            system.append(&path, &line(&Line::Undone { step: index })).map_err(failed)?;
        }
        undone.outcomes.push(Outcome { tuner: step.tuner.clone(), path: step.path.clone(), what });
    }
    if undone.is_complete() {
        system.rename(&path, &format!("{folder}/{UNDONE_NAME}")).map_err(failed)?;
    }
    Ok(Some(undone))
}

fn step(step: &crate::plan::Step) -> Step {
    let previous = String::from_utf8_lossy(&step.previous);
    let restore = match (previous.contains('['), Value::choice(&previous)) {
        (true, Some(chosen)) => Bytes::Text(chosen.written()),
        _ => Bytes::new(&step.previous),
    };
    Step {
        tuner: step.tuner.to_owned(),
        path: step.path.clone(),
        previous: Bytes::new(&step.previous),
        restore,
        write: Bytes::Text(step.target.written()),
    }
}

/// Takes one step; gives what the file then shows, or why it was not taken.
fn take(system: &mut dyn System, step: &Step) -> Result<Vec<u8>, String> {
    let read = |system: &dyn System| system.read(&step.path).map_err(|error| error.to_string());
    if read(system)? != step.previous.get() {
        return Err("it was changed since the plan was made; nothing was written".to_owned());
    }
    system.set(&step.path, step.write.get()).map_err(|error| error.to_string())?;
    let shown = read(system)?;
    if shown == step.previous.get() {
        return Err("the kernel took the value and did not change".to_owned());
    }
    Ok(shown)
}

fn put_back(system: &mut dyn System, step: &Step, shown: Option<Vec<u8>>, force: bool) -> What {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let current = match system.read(&step.path) {
        Ok(current) => current,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return What::Gone,
        Err(error) => return What::Failed { error: error.to_string() },
    };
    if current == step.previous.get() {
        return What::AsBefore;
    }
    // Without a record of what the file showed, the program died between the change and the record; then it shows what was written.
    let unrecorded = shown.is_none();
    let expected =
        shown.or_else(|| as_the_kernel_shows(step.previous.get(), step.write.get()).ok()).unwrap_or_default();
    // The kernel fills masks of processors up with zeros, by a width that only it knows.
    let same_mask = || {
        let (shown, written) = (Value::mask(&text(&current)), Value::mask(&text(step.write.get())));
        unrecorded && shown.is_some() && shown == written
    };
    if current != expected && !same_mask() && !force {
        return What::Kept { shown: text(&current), expected: text(&expected) };
    }
    if let Err(error) = system.set(&step.path, step.restore.get()) {
        return What::Failed { error: error.to_string() };
    }
    match system.read(&step.path) {
        Ok(shown) if shown == step.previous.get() => What::Restored { shown: text(&shown) },
        Ok(shown) => {
            What::Failed { error: format!("it shows {:?} instead of {:?}", text(&shown), text(step.previous.get())) }
        }
        Err(error) => What::Failed { error: error.to_string() },
    }
}

fn boot(system: &dyn System) -> String {
    system.text(BOOT).map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}

fn line(value: &impl Serialize) -> Vec<u8> {
    // Text, numbers and lists have a JSON form whatever they hold.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A journal as it was read.
struct Journal {
    header: Header,
    lines: Vec<Line>,
    /// Whether its last line has no end: the program died while it was written.
    torn: bool,
}

impl Journal {
    fn load(system: &dyn System, path: &str) -> Result<Option<Self>, JournalError> {
        let bytes = match system.read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(JournalError::Io { path: path.to_owned(), source }),
        };
        let damaged =
            |line: usize, message: String| JournalError::Damaged { path: path.to_owned(), line: line + 1, message };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let torn = whole < bytes.len();
        let mut texts = bytes[..whole].split(|byte| *byte == b'\n').filter(|text| !text.is_empty()).enumerate();
        let (_, first) = texts.next().ok_or_else(|| damaged(0, "it is empty".to_owned()))?;
        let header: Header = serde_json::from_slice(first).map_err(|error| damaged(0, error.to_string()))?;
        if header.journal != FORMAT {
            return Err(damaged(0, format!("its format is {}, not {FORMAT}", header.journal)));
        }
        let mut lines = Vec::new();
        for (index, text) in texts {
            let line: Line = serde_json::from_slice(text).map_err(|error| damaged(index, error.to_string()))?;
            let (Line::Done { step, .. } | Line::Failed { step, .. } | Line::Undone { step }) = &line;
            if *step >= header.steps.len() {
                return Err(damaged(index, format!("there is no step {step}")));
            }
            lines.push(line);
        }
        Ok(Some(Self { header, lines, torn }))
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = line(&self.header);
        self.lines.iter().for_each(|record| bytes.extend(line(record)));
        bytes
    }
}

#[cfg(test)]
mod tests;
