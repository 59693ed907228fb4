//! Every byte of every file of a small store changed, one at a time, and every file cut at every length: what matters
//! is told, with conversation and range; what users are shown is what was written, and only to whom it may be shown;
//! the rest has no meaning, and where that is, is known exactly.
//!
//! A run of every byte and every length takes minutes: set `ANTIPHON_EVERY_BYTE` for it. Without it a stride is taken
//! that comes to every structure. Both print a table. docs/format.md has the figures of a whole run.

mod regions;
mod store;
#[path = "../support/mod.rs"]
mod support;
mod truth;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    ops::Range,
};

use antiphon_engine::{
    EngineError, OpenReport,
    memory_files::MemoryFiles,
    offline::{self, Finding, VerifyReport},
};
use antiphon_wire::ids::ConversationId;
use regions::{PAGE, Region, regions};
use store::{Store, Talk, folder, open, store};
use support::block_on;
use truth::{Judge, Lost, Shown, read};

/// Bytes from one flip to the next, where not all are taken; with no factor in common with 8, so that all bits come.
const STRIDE: usize = 797;

/// Lengths from one cut to the next, where not all are taken.
const CUT_STRIDE: usize = 8_009;

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// Opening refuses the store, and names the file.
    Refused,
    /// Opening tells of it.
    Opening,
    /// Opening tells of it, and that nothing is lost: it is stored elsewhere, or held nothing.
    Harmless,
    /// Whoever asks for it is told.
    Reading,
    /// Only verifying tells.
    Verifying,
    /// Taken for a write that never completed; nothing is lost.
    Torn,
    /// Nobody notices, and there is nothing to notice.
    Meaningless,
}

/// A store with what is right about it.
struct Whole {
    store: Store,
    truth: Shown,
    report: OpenReport,
}

fn verify(files: &MemoryFiles) -> Result<VerifyReport, EngineError> {
    block_on(offline::verify(files.clone(), 0_u16, |_| ()))
}

fn whole() -> Whole {
    let store = store();
    let report = verify(&folder(&store.files)).unwrap();
    assert!(report.is_sound() && report.torn_tail.is_none(), "{:?}", report.findings);
    let mut lane = open(&store.files).unwrap();
    let report = lane.report.clone();
    let truth = read(&mut lane, &store.conversations);
    Whole { store, truth, report }
}

impl Whole {
    /// Opens, reads and verifies changed files; what is wrong about what happens then is pushed.
    fn judge(&self, name: &str, files: &[(String, Vec<u8>)], wrong: &mut Vec<String>) -> Fate {
        let verified = verify(&folder(files));
        let mut lane = match open(files) {
            Ok(lane) => lane,
            Err(error) => {
                let text = error.to_string();
                let names_log = name.starts_with("log-") && text.starts_with("log: ");
                if !names_log && !text.contains(name) {
                    wrong.push(format!("the refusal does not name the file: {text}"));
                }
                match verified {
                    Err(_) => {}
                    Ok(report) if report.findings.iter().any(|finding| !finding.harmless) => {}
                    Ok(_) => wrong.push("it is refused, but verified".into()),
                }
                return Fate::Refused;
            }
        };
        let report = lane.report.clone();
        let shown = read(&mut lane, &self.store.conversations);
        let judge = Judge { truth: &self.truth, shown: &shown, report: &report };
        wrong.extend(judge.wrong());
        let lost = judge.lost();
        let findings = match &verified {
            Ok(report) => report.findings.as_slice(),
            Err(error) => {
                wrong.push(format!("verifying is refused: {error}"));
                &[]
            }
        };
        let serious: Vec<&Finding> = findings.iter().filter(|finding| !finding.harmless).collect();
        self.names_all(name, &lost, &judge.hidden(), &serious, wrong);
        let met = lane.engine.status().blocks_damaged > 0;
        let fate = if report.read_only || !report.segments_damaged.is_empty() {
            Fate::Opening
        } else if !report.damage.is_empty() {
            Fate::Harmless
        } else if met {
            Fate::Reading
        } else if !serious.is_empty() {
            Fate::Verifying
        } else if report.torn_tail.is_some() {
            Fate::Torn
        } else {
            Fate::Meaningless
        };
        self.fits(fate, &lost, &serious, &report, &shown, wrong);
        fate
    }

    /// What is lost, verifying names: with conversation and range; with the conversation alone, where nothing of it
    /// is shown for want of some of it. Readers also say `damaged` of the entry right behind, where that is in a
    /// newer segment.
    fn names_all(
        &self,
        name: &str,
        lost: &Lost,
        hidden: &BTreeSet<ConversationId>,
        serious: &[&Finding],
        wrong: &mut Vec<String>,
    ) {
        let is_named = |id: ConversationId, sequence: u64| {
            serious.iter().any(|finding| {
                let from = finding.first.is_some_and(|first| first.0 <= sequence);
                let to = finding.last.is_none_or(|last| sequence <= last.0);
                let anybodys = finding.what.contains("any conversation of the lane");
                anybodys || (finding.conversation == Some(id) && (hidden.contains(&id) || (from && to)))
            })
        };
        for (id, sequence) in lost {
            if !is_named(*id, *sequence) && !is_named(*id, sequence - 1) {
                wrong.push(format!("entry {sequence} of {id} is lost, and verifying does not name it: {serious:?}"));
            }
        }
        // A log file that is missing is told by the one behind it.
        let is_file = |of: &str| of == name || (name.starts_with("log-") && of.starts_with("log"));
        let names_file = serious.iter().any(|finding| finding.file.as_deref().is_some_and(is_file));
        if !serious.is_empty() && !names_file {
            wrong.push(format!("no finding names the file: {serious:?}"));
        }
    }

    /// Nothing is lost of which it is said that nothing is, and what is lost is said.
    fn fits(
        &self,
        fate: Fate,
        lost: &Lost,
        serious: &[&Finding],
        report: &OpenReport,
        shown: &Shown,
        wrong: &mut Vec<String>,
    ) {
        let whole = *shown == self.truth && report.position == self.report.position;
        match fate {
            Fate::Harmless | Fate::Torn | Fate::Meaningless if !whole || !serious.is_empty() => {
                wrong.push(format!("{fate:?}, but {} entries are lost: {report:?}, {serious:?}", lost.len()));
            }
            Fate::Verifying if !whole => wrong.push("something is shown differently, and only verifying tells".into()),
            Fate::Opening | Fate::Reading if serious.is_empty() => {
                wrong.push(format!("{fate:?}, but verifying finds nothing"));
            }
            _ => {}
        }
        for damage in report.damage.iter().filter(|damage| !damage.harmless && damage.all_known) {
            for (id, sequence) in lost {
                let named = damage
                    .conversations
                    .iter()
                    .any(|of| of.conversation == *id && (of.first.0..=of.last.0).contains(sequence));
                let hidden = damage.conversations.iter().any(|of| of.conversation == *id);
                if !named && !hidden {
                    wrong.push(format!("entry {sequence} of {id} is lost, and opening does not name it"));
                }
            }
        }
    }

    fn changed(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<(String, Vec<u8>)> {
        let mut files = self.store.files.clone();
        let (_, bytes) = files.iter_mut().find(|(of, _)| of == name).unwrap();
        change(bytes);
        files
    }
}

/// What may become of a flip there.
fn fates_of(region: Region) -> &'static [Fate] {
    match region {
        Region::Manifest => &[Fate::Refused],
        Region::SegmentHeader | Region::SegmentFooter | Region::Index | Region::Filter => &[Fate::Opening],
        Region::Data | Region::FilterPart => &[Fate::Reading, Fate::Verifying],
        Region::Batch => &[Fate::Opening],
        Region::BatchInSegments | Region::Seal => &[Fate::Harmless],
        // The log may begin with any batch that segments hold whole, and a file whose beginning claims a later
        // generation looks like one that was about to be used again.
        Region::FirstBatchInSegments | Region::Blank | Region::LastSeal => &[Fate::Meaningless, Fate::Torn],
        Region::ManifestPadding | Region::SegmentPadding | Region::BatchPadding | Region::Beyond => {
            &[Fate::Meaningless]
        }
    }
}

fn is_whole_run() -> bool {
    std::env::var_os("ANTIPHON_EVERY_BYTE").is_some()
}

/// Places of a file: all, or a stride and the edges of every region.
fn places(length: usize, regions: &[(Range<usize>, Region)], stride: usize) -> BTreeSet<usize> {
    if is_whole_run() {
        return (0..length).collect();
    }
    // Of what has no meaning the beginning will do.
    let last =
        |(range, region): &(Range<usize>, Region)| (fates_of(*region) != [Fate::Meaningless]).then(|| range.end - 1);
    let edges = regions.iter().filter(|(range, _)| !range.is_empty());
    let edges = edges.flat_map(|of| std::iter::once(of.0.start).chain(last(of)));
    (0..length).step_by(stride).chain(edges).collect()
}

/// Counts by file and fate, as a table.
struct Table(BTreeMap<String, BTreeMap<Fate, usize>>);

impl Table {
    fn print(&self, what: &str) {
        let columns = [
            ("opening", &[Fate::Refused, Fate::Opening, Fate::Harmless][..]),
            ("reading", &[Fate::Reading]),
            ("verify only", &[Fate::Verifying]),
            ("no meaning", &[Fate::Torn, Fate::Meaningless]),
        ];
        let mut text = format!("\n{:<26}{what:>10}", "file");
        columns.iter().for_each(|(name, _)| write!(text, "{name:>13}").unwrap());
        writeln!(text, "{:>14}", "served wrong").unwrap();
        for (file, counts) in &self.0 {
            write!(text, "{file:<26}{:>10}", counts.values().sum::<usize>()).unwrap();
            for (_, fates) in &columns {
                let count: usize = fates.iter().filter_map(|fate| counts.get(fate)).sum();
                write!(text, "{count:>13}").unwrap();
            }
            writeln!(text, "{:>14}", 0).unwrap();
        }
        println!("{text}");
    }
}

#[test]
fn every_flipped_byte_is_told_or_means_nothing() {
    let whole = whole();
    let (mut table, mut by_region) = (Table(BTreeMap::new()), BTreeMap::<Region, BTreeMap<Fate, usize>>::new());
    let mut all_wrong = Vec::new();
    for (name, regions) in regions(&whole.store.files) {
        let length = regions.last().unwrap().0.end;
        for at in places(length, &regions, STRIDE) {
            let (_, region) = regions.iter().find(|(range, _)| range.contains(&at)).unwrap();
            let mut wrong = Vec::new();
            let files = whole.changed(&name, |bytes| bytes[at] ^= 1 << (at % 8));
            let fate = whole.judge(&name, &files, &mut wrong);
            if !fates_of(*region).contains(&fate) {
                wrong.push(format!("it is {fate:?}"));
            }
            if !wrong.is_empty() {
                all_wrong.push(format!("{name}: byte {at} ({region:?}): {}", wrong.join("; ")));
            }
            *table.0.entry(name.clone()).or_default().entry(fate).or_default() += 1;
            *by_region.entry(*region).or_default().entry(fate).or_default() += 1;
        }
    }
    table.print("flipped");
    by_region.iter().for_each(|(region, fates)| println!("{region:?}: {fates:?}"));
    fail(&all_wrong);
    let most = [Region::Data, Region::Index, Region::Filter, Region::FilterPart, Region::Batch, Region::Seal];
    for region in most.into_iter().chain([Region::BatchInSegments]) {
        assert!(by_region.contains_key(&region), "no {region:?} was tried");
    }
}

/// Shows the first of what is wrong.
fn fail(wrong: &[String]) {
    let shown: Vec<&str> = wrong.iter().take(20).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), shown.join("\n"));
}

/// Lengths to cut a file to: all, or a stride, and around every edge of a region and every page.
fn lengths(length: usize, regions: &[(Range<usize>, Region)]) -> BTreeSet<usize> {
    if is_whole_run() {
        return (0..length).collect();
    }
    let edges = regions.iter().map(|(range, _)| range.start).chain((0..length).step_by(PAGE));
    let around = edges.flat_map(|edge| [edge.saturating_sub(1), edge]);
    around.chain((0..length).step_by(CUT_STRIDE)).filter(|cut| *cut < length).collect()
}

#[test]
fn every_cut_is_told_or_takes_nothing() {
    let whole = whole();
    let mut table = Table(BTreeMap::new());
    let mut all_wrong = Vec::new();
    for (name, regions) in regions(&whole.store.files) {
        let length = regions.last().unwrap().0.end;
        for cut in lengths(length, &regions) {
            let mut wrong = Vec::new();
            let files = whole.changed(&name, |bytes| bytes.truncate(cut));
            let fate = whole.judge(&name, &files, &mut wrong);
            if !wrong.is_empty() {
                all_wrong.push(format!("{name}: cut to {cut} bytes: {fate:?}: {}", wrong.join("; ")));
            }
            *table.0.entry(name.clone()).or_default().entry(fate).or_default() += 1;
        }
    }
    table.print("cuts");
    fail(&all_wrong);
}

#[test]
fn every_file_that_is_missing_is_told() {
    let whole = whole();
    let mut fates = BTreeMap::new();
    for (name, _) in &whole.store.files {
        let mut wrong = Vec::new();
        let files: Vec<_> = whole.store.files.iter().filter(|(of, _)| of != name).cloned().collect();
        let fate = whole.judge(name, &files, &mut wrong);
        fates.insert(name.clone(), (fate, wrong));
    }
    println!("{fates:?}");
    for (name, (fate, wrong)) in fates {
        let expected = match name.as_str() {
            // Never used.
            "log-00000002" => Fate::Meaningless,
            // Another one follows it.
            "log-00000001" => Fate::Opening,
            _ => Fate::Refused,
        };
        assert!(fate == expected && wrong.is_empty(), "{name}: {fate:?}: {wrong:?}");
    }
}

#[test]
fn the_store_has_one_of_everything() {
    let store = store();
    let found: BTreeSet<Region> =
        regions(&store.files).iter().flat_map(|(_, of)| of).map(|(_, region)| *region).collect();
    assert_eq!(found.len(), 17, "{found:?}");
    let shown = block_on(offline::inspect(folder(&store.files), 0_u16, true, |_| ())).unwrap();
    let levels: Vec<u32> = shown.segments.iter().map(|segment| segment.level).collect();
    assert_eq!(levels, [0, 0, 1, 1], "of each a segment of message ids");
    assert!(shown.segments[2].blocks > 2, "{:?}", shown.segments);
    let generations: Vec<u64> = shown.log_files.iter().map(|file| file.generation).collect();
    assert_eq!(generations, [0, 2, 3]);
    let newest = &store.files.iter().find(|(name, _)| *name == shown.log_files[2].file).unwrap().1;
    assert!(
        newest[shown.log_files[2].used_bytes as usize..].starts_with(b"ANTILOG\n"),
        "an older generation is behind it"
    );
    let bytes: usize = store.files.iter().map(|(_, bytes)| bytes.len()).sum();
    println!("{} files, {bytes} bytes: {:?}", store.files.len(), shown.segments);
    let talks: &[Talk] = &store.conversations;
    assert!(talks.iter().all(|talk| talk.sequence.0 < 100), "histories are read up to entry 100");
}
