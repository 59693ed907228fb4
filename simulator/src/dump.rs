//! A store's dump, read: what the oracle holds a copy of a store to, without an engine that runs.
//!
//! Must not do: judge; it only compares.

use std::collections::{BTreeMap, BTreeSet};

use antiphon_engine::{
    memory_files::{MemoryFiles, block_on},
    offline::{self, Access},
};
use antiphon_wire::{
    frame::EntryKind,
    ids::{ConversationId, UserId},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::model::Known;

/// What one lane's store means.
#[derive(Debug, Default)]
pub struct Dump {
    /// By id.
    pub conversations: BTreeMap<ConversationId, Dumped>,
}

/// One conversation.
#[derive(Debug, Default)]
pub struct Dumped {
    /// The last sequence that was given.
    pub last: u64,
    /// Members, and from where on each sees entries.
    pub members: BTreeMap<UserId, u64>,
    /// Who made it.
    pub creator: Option<UserId>,
    /// Entries that are told to be lost.
    pub lost: BTreeSet<u64>,
    /// Rows that are told where entries are lost, by the suffixes of their keys.
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// By sequence.
    pub entries: BTreeMap<u64, Entry>,
}

/// An entry.
#[derive(Debug)]
pub struct Entry {
    /// Of which conversation.
    pub conversation: ConversationId,
    /// Its place in it.
    pub sequence: u64,
    /// Its place in the lane.
    pub position: u64,
    /// The message that it changes.
    pub target: Option<u64>,
    /// The line that it was read of.
    pub line: Value,
}

impl Dump {
    /// Of a store that nobody runs.
    ///
    /// # Errors
    /// If it cannot be dumped, or is not what a dump is.
    pub fn of(files: &MemoryFiles, access: Access) -> Result<Self, String> {
        let mut lines: Vec<String> = Vec::new();
        let mut sink = |line: &str| {
            lines.push(line.to_owned());
            true
        };
        block_on(offline::dump(files.clone(), access, |_| (), &mut sink))
            .map_err(|error| format!("no dump: {error}"))?;
        let mut dump = Self::default();
        for line in &lines {
            dump.take(line).ok_or_else(|| format!("a line that is none: {line}"))?;
        }
        Ok(dump)
    }

    fn take(&mut self, line: &str) -> Option<()> {
        let value: Value = serde_json::from_str(line).ok()?;
        let (kind, of) = value.as_object()?.iter().next()?;
        if matches!(kind.as_str(), "lane" | "end") {
            return Some(());
        }
        let id: ConversationId = serde_json::from_value(of["conversation"].clone()).ok()?;
        let conversation = self.conversations.entry(id).or_default();
        match kind.as_str() {
            "conversation" => {
                conversation.last = of["last_sequence"].as_u64()?;
                conversation.creator = of["creator"].as_str().and_then(|name| UserId::new(name).ok());
            }
            "lost" => conversation.lost.extend(of["first"].as_u64()?..=of["last"].as_u64()?),
            "member" => {
                let user = UserId::new(of["user"].as_str()?).ok()?;
                conversation.members.insert(user, of["visible_from"].as_u64()?);
            }
            "row" => {
                let bytes = |name: &str| STANDARD.decode(of[name].as_str()?).ok();
                conversation.rows.insert(bytes("suffix")?, bytes("value")?);
            }
            "pointer" => {}
            "entry" => {
                let (sequence, position) = (of["sequence"].as_u64()?, of["position"].as_u64()?);
                let target = of.get("target").and_then(Value::as_u64);
                let entry = Entry { conversation: id, sequence, position, target, line: of.clone() };
                conversation.entries.insert(sequence, entry);
            }
            _ => return None,
        }
        Some(())
    }

    /// All entries.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.conversations.values().flat_map(|of| of.entries.values())
    }

    /// Whether this is the other up to a position: the same entries, but for what was taken away since, and none else.
    ///
    /// # Errors
    /// What differs.
    pub fn is_part_of(&self, other: &Self, cut: u64) -> Result<(), String> {
        for entry in self.entries() {
            let (id, sequence) = (entry.conversation, entry.sequence);
            let same = other.conversations.get(&id).and_then(|of| of.entries.get(&sequence));
            if entry.position > cut {
                return Err(format!("{id} #{sequence} is at {}, beyond the cut at {cut}", entry.position));
            }
            if !same.is_some_and(|same| entry.is_as_or_before(same)) {
                return Err(format!(
                    "{id} #{sequence} is {}, but the lane has {:?}",
                    entry.line,
                    same.map(|of| &of.line)
                ));
            }
        }
        let missing = other.entries().filter(|of| of.position <= cut).find(|of| {
            let here = self.conversations.get(&of.conversation);
            !here.is_some_and(|here| here.entries.contains_key(&of.sequence))
        });
        match missing {
            Some(of) => Err(format!("{} #{} is not there, at {} of {cut}", of.conversation, of.sequence, of.position)),
            None => Ok(()),
        }
    }
}

impl Dumped {
    /// The last entry that is there.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.entries.last_key_value().map_or(0, |(sequence, _)| *sequence)
    }

    /// What is told to be lost, and an entry that is neither there nor among that.
    #[must_use]
    pub fn untold(&self) -> Option<(&BTreeSet<u64>, u64)> {
        let missing = (1..=self.last).find(|of| !self.entries.contains_key(of) && !self.lost.contains(of))?;
        Some((&self.lost, missing))
    }
}

impl Entry {
    /// What a message or an edit says, if it says anything.
    #[must_use]
    pub fn says(&self) -> Option<&str> {
        self.line.get("text").and_then(Value::as_str)
    }

    fn kind(&self) -> &str {
        self.line["kind"].as_str().unwrap_or_default()
    }

    /// The same entry, which may say something else by now.
    fn is_as_or_before(&self, later: &Self) -> bool {
        const CONTENT: [&str; 4] = ["text", "taken_away", "archive", "value"];
        let (Some(one), Some(other)) = (self.line.as_object(), later.line.as_object()) else { return false };
        let head = |of: &serde_json::Map<String, Value>| {
            let mut of = of.clone();
            CONTENT.iter().for_each(|name| drop(of.remove(*name)));
            of
        };
        if matches!(self.kind(), "message" | "edit" | "account_data") { head(one) == head(other) } else { one == other }
    }

    /// Whether it is the entry that somebody was given, but for what it says.
    #[must_use]
    pub fn is(&self, seen: &Known) -> bool {
        let kind = match seen.kind {
            EntryKind::Created => "created",
            EntryKind::Message => "message",
            EntryKind::Membership => "membership",
            EntryKind::Title => "title",
            EntryKind::Edit => "edit",
            EntryKind::Deletion => "deletion",
            EntryKind::Reaction => "reaction",
            EntryKind::Pin => "pin",
            EntryKind::Retention => "retention",
            EntryKind::Roles => "roles",
            EntryKind::Settings => "settings",
            EntryKind::Bans => "bans",
            EntryKind::Invite => "invite",
            EntryKind::Joined => "joined",
            EntryKind::AccountData => "account_data",
        };
        self.kind() == kind
            && self.line["ordinal"].as_u64() == Some(seen.ordinal)
            && self.line["time_ms"].as_u64() == Some(seen.time_ms)
            && self.line["sender"].as_str() == Some(seen.sender.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dump(lines: &[String]) -> Dump {
        let mut dump = Dump::default();
        lines.iter().for_each(|line| dump.take(line).unwrap());
        dump
    }

    fn message(sequence: u64, position: u64, says: &str) -> String {
        let id = ConversationId([7; 16]);
        let place = format!(r#""conversation":"{id}","sequence":{sequence},"position":{position}"#);
        format!(r#"{{"entry":{{{place},"ordinal":1,"time_ms":9,"kind":"message","sender":"ann",{says}}}}}"#)
    }

    #[test]
    fn a_part_is_told_from_what_is_none() {
        let of_lane = [
            message(1, 10, r#""text":"one""#),
            message(2, 11, r#""taken_away":true"#),
            message(3, 15, r#""text":"three""#),
        ];
        let lane = dump(&of_lane);
        // What was taken away later was there before.
        let before = message(2, 11, r#""text":"two""#);
        assert_eq!(dump(&[of_lane[0].clone(), before.clone()]).is_part_of(&lane, 14), Ok(()));
        assert_eq!(dump(&of_lane).is_part_of(&lane, 15), Ok(()));
        for (what, part, cut) in [
            ("an entry is missing", vec![of_lane[0].clone()], 14),
            ("an entry is beyond the cut", of_lane.to_vec(), 14),
            ("the last record is missing", vec![of_lane[0].clone(), before.clone()], 15),
            ("another place", vec![message(1, 9, r#""text":"one""#), before.clone()], 14),
            ("an entry of its own", vec![of_lane[0].clone(), before, message(4, 12, r#""text":"four""#)], 14),
        ] {
            assert!(dump(&part).is_part_of(&lane, cut).is_err(), "{what}");
        }
    }

    #[test]
    fn what_is_missing_is_told_or_not() {
        let id = ConversationId([7; 16]);
        let head = format!(r#"{{"conversation":{{"conversation":"{id}","last_sequence":4}}}}"#);
        let lost = |first, last| format!(r#"{{"lost":{{"conversation":"{id}","first":{first},"last":{last}}}}}"#);
        let untold = |lines: &[String]| dump(lines).conversations[&id].untold().map(|(_, missing)| missing);
        let entries = [message(1, 1, r#""text":"a""#), message(4, 4, r#""text":"b""#)];
        assert_eq!(untold(&[&[head.clone(), lost(2, 3)], &entries[..]].concat()), None);
        assert_eq!(untold(&[&[head.clone(), lost(2, 2)], &entries[..]].concat()), Some(3));
        assert_eq!(untold(&[&[head], &entries[..]].concat()), Some(2));
    }
}
