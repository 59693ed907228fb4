//! A small store that has one of everything: two log files in use (one of them over an older generation), one that
//! was never used, segments of two levels, a manifest; groups whose members came and went, a direct conversation, one
//! of others.

use antiphon_engine::{
    EngineOptions,
    door::Command,
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom},
    offline,
};
use antiphon_wire::ids::{ConversationId, Sequence};

use crate::{
    regions::PAGE,
    support::{Lane, block_on, name_log_bytes, send, small_options, user},
};

/// Messages that fill a log file of this size: a page each.
const LOG_FILE_BYTES: u64 = 512 * 1024;

/// Pages that are left of what an older generation wrote, behind what the newest log file holds.
const OLD_PAGES: usize = 3;

/// The files, and what is needed to ask them.
pub(crate) struct Store {
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) conversations: Vec<Talk>,
}

/// A conversation, and the last message that was sent to it.
pub(crate) struct Talk {
    pub(crate) id: ConversationId,
    pub(crate) sender: &'static str,
    key: u64,
    text: String,
    /// Its sequence.
    pub(crate) sequence: Sequence,
}

impl Talk {
    /// The last message once more.
    pub(crate) fn retry(&self) -> Command {
        send(self.sender, self.id, self.key, &self.text)
    }

    /// A message that was never sent.
    pub(crate) fn next(&self) -> Command {
        send(self.sender, self.id, u64::MAX, "one more")
    }

    fn say(&mut self, lane: &mut Lane, sender: &'static str) {
        (self.sender, self.key) = (sender, self.key + 1);
        // Long enough for several blocks.
        self.text = format!("message {} of {sender} {}", self.key, "la ".repeat(80));
        self.sequence = lane.sent(sender, self.id, self.key, &self.text);
    }
}

pub(crate) fn options() -> EngineOptions {
    EngineOptions {
        log_file_bytes: LOG_FILE_BYTES,
        log_files_max: 3,
        memtable_bytes: 4 << 20,
        memtable_age_ms_max: 1,
        ..small_options()
    }
}

/// Opens files as a new process would.
pub(crate) fn open(files: &[(String, Vec<u8>)]) -> Result<Lane, antiphon_engine::EngineError> {
    Lane::open(folder(files), MemoryClock::new(9_000_000), MemoryRandom::new(9), options())
}

pub(crate) fn folder(files: &[(String, Vec<u8>)]) -> MemoryFiles {
    let folder = MemoryFiles::new(0);
    files.iter().for_each(|(name, bytes)| folder.put(name, bytes.clone()));
    folder
}

/// Everything so far becomes a segment.
fn flush(lane: &mut Lane) {
    lane.clock.advance(1_000);
    lane.engine.tick();
    lane.settle();
    assert_eq!(lane.engine.status().memtable_bytes, 0);
}

/// The log's files with their generation and the bytes that are used of them, oldest generation first.
fn logs(files: &MemoryFiles) -> Vec<(String, u64, usize)> {
    let shown = block_on(offline::inspect(files.clone(), 0_u16, false, |_| ())).unwrap();
    shown.log_files.into_iter().map(|of| (of.file, of.generation, of.used_bytes as usize)).collect()
}

/// The files as they are, with log files cut behind what is used of them and so many pages more; without those never
/// used.
fn cut(files: &MemoryFiles, keep_whole: u64, more: impl Fn(u64) -> Option<usize>) -> Vec<(String, Vec<u8>)> {
    let logs = logs(files);
    let mut kept = Vec::new();
    for name in files.names() {
        let mut bytes = files.contents(&name).unwrap();
        if let Some((_, generation, used)) = logs.iter().find(|(of, ..)| *of == name) {
            let Some(pages) = more(*generation) else { continue };
            if *generation != keep_whole {
                bytes.truncate(used + pages * PAGE);
            }
        }
        kept.push((name, bytes));
    }
    let newest = logs.iter().max_by_key(|(_, generation, _)| *generation).unwrap();
    let bytes = kept.iter().find(|(name, _)| *name == newest.0).unwrap().1.len();
    let (_, manifest) = kept.iter_mut().find(|(name, _)| name == "manifest").unwrap();
    name_log_bytes(manifest, bytes as u64);
    kept
}

pub(crate) fn store() -> Store {
    let mut lane = Lane::with_options(1, options());
    let talk = |id| Talk { id, sender: "ann", key: 0, text: String::new(), sequence: Sequence(0) };
    let mut choir = talk(lane.create_group("ann", 1, &["bob", "cid"]));
    let mut band = talk(lane.create_group("ann", 2, &["bob"]));
    let mut pair = talk(lane.create_direct("ann", "dan"));
    let mut others = talk(lane.create_group("eve", 3, &["bob"]));
    while lane.engine.status().compactions == 0 {
        for _ in 0..4 {
            choir.say(&mut lane, "bob");
            band.say(&mut lane, "ann");
        }
        for _ in 0..3 {
            pair.say(&mut lane, "dan");
        }
        others.say(&mut lane, "eve");
        flush(&mut lane);
    }
    while logs(&lane.files).iter().all(|(_, generation, _)| *generation < 2) {
        pair.say(&mut lane, "ann");
    }
    band.say(&mut lane, "bob");
    flush(&mut lane);
    // From here on only the log has it.
    choir.say(&mut lane, "cid");
    many(&mut lane, &mut [&mut choir, &mut band, &mut others], "bob");
    let (ann, id) = (|| user("ann"), choir.id);
    lane.ask(Command::RemoveMembers { user: ann(), conversation: id, members: vec![user("cid")] }).unwrap();
    choir.say(&mut lane, "ann");
    let (read, delivered) = (Some(Sequence(20)), Some(Sequence(24)));
    lane.ask(Command::Mark { user: user("bob"), conversation: band.id, read, delivered }).unwrap();
    lane.close().unwrap();

    // The file in use is full now, so that the next batch goes over the older one.
    let files = cut(&lane.files, 1, |generation| (generation > 0).then_some(0));
    let mut lane = open(&files).unwrap();
    lane.ask(Command::AddMembers { user: ann(), conversation: band.id, members: vec![user("cid")] }).unwrap();
    band.say(&mut lane, "cid");
    many(&mut lane, &mut [&mut choir, &mut band, &mut pair], "ann");
    lane.ask(Command::SetTitle { user: ann(), conversation: id, title: "sung".into() }).unwrap();
    others.say(&mut lane, "bob");
    lane.close().unwrap();
    let files = cut(&lane.files, 0, |generation| Some(if generation == 3 { OLD_PAGES } else { 0 }));
    let files = files.into_iter().map(|(name, mut bytes)| {
        if name.starts_with("log-") && bytes.len() as u64 == LOG_FILE_BYTES {
            // One that was never used: its first page says so.
            bytes.truncate(2 * PAGE);
        }
        (name, bytes)
    });
    Store { files: files.collect(), conversations: vec![choir, band, pair, others] }
}

/// A message to each of several conversations, in one batch.
fn many(lane: &mut Lane, talks: &mut [&mut Talk], sender: &'static str) {
    let tokens: Vec<_> = talks
        .iter_mut()
        .map(|talk| {
            (talk.sender, talk.key) = (sender, talk.key + 1);
            talk.text = format!("message {} of {sender}, with others", talk.key);
            lane.submit(talk.retry())
        })
        .collect();
    lane.settle();
    for (talk, token) in talks.iter_mut().zip(tokens) {
        match lane.answer(token) {
            Some(Ok(antiphon_engine::door::Done::Sent { sequence, duplicate: false, .. })) => talk.sequence = sequence,
            other => panic!("{other:?}"),
        }
    }
}
