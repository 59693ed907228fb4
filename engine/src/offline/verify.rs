//! Verifying: every block of every segment, every batch that a start would replay, and the rows of the merged view
//! against each other.

use std::{cmp::Ordering, collections::BTreeSet};

use antiphon_wire::ids::{ConversationId, Sequence, UserId};

use crate::{
    encryption::{KeyFault, file},
    engine::EngineError,
    error::StoreError,
    keys::{self, Key, Owner},
    offline::{
        access::Access,
        conversation::Conversation,
        damage::{Areas, SegmentsRead},
        ids::IdCheck,
        opened::{Logged, Opened},
        read_only::{Progress, ReadOnly},
        replay::changes_user,
        report::{Finding, VerifyReport},
        walk::{LOG, Walk},
    },
    report::LogDamage,
    row::{Change, Direction, KeyRange, RowSource as _, SharedBytes},
    rows::{UserRow, decode_message_id},
    seams::Files,
    segment::SegmentId,
    window::Horizon,
};

/// Reads and checks all of a lane's store, and changes nothing. `progress` is called after every read.
///
/// # Errors
/// If the folder is no store that this program reads: there is none, it is another lane's, of a newer version, or the
/// system refuses to read it. Damage is no error: it is in the report.
pub async fn verify<F: Files>(
    files: F,
    access: impl Into<Access>,
    progress: impl Fn(Progress) + 'static,
) -> Result<VerifyReport, EngineError> {
    let (files, access) = (ReadOnly::new(files, progress), access.into());
    let lane = access.lane;
    let opened = match Opened::open(files.clone(), &access).await {
        Err(EngineError::Store(StoreError::Damaged { file, offset, what, .. })) => {
            let mut report = VerifyReport { lane, bytes_read: files.bytes_read(), ..VerifyReport::default() };
            let what = format!("{what}; nothing else can be looked at");
            report.find(Finding { file: Some(file), offset: Some(offset), what, ..Finding::default() });
            return Ok(report);
        }
        other => other?,
    };
    // Each segment is read twice: by itself, and for the merged view.
    files.expect(opened.segment_bytes().saturating_mul(2));
    let logged = opened.read_log().await?;
    let read = SegmentsRead::of(&opened.runs, &opened.manifest).await?;
    let mut verify = Verify::new(&opened, &logged, lane, read);
    verify.keys();
    verify.log();
    if opened.is_closed() {
        // What is sealed is as it was written, as far as checksums tell; what it says nobody can see.
        verify.report.not_opened = true;
    } else {
        verify.rows().await?;
    }
    let Verify { mut report, mut areas, .. } = verify;
    areas.findings().into_iter().for_each(|finding| report.find(finding));
    report.bytes_read = files.bytes_read();
    Ok(report)
}

struct Verify<'a, F: Files> {
    opened: &'a Opened<F>,
    logged: &'a Logged,
    report: VerifyReport,
    areas: Areas,
    /// Segments that the system could not read to their end.
    unreadable: Vec<SegmentId>,
    /// Conversations that lost entries, as a repair has told: which entry a user's row is of may not be known there.
    with_losses: BTreeSet<ConversationId>,
    /// Rows of users that conversations ask for, and those that are there; of conversations that lost nothing.
    users_expected: u64,
    users_found: u64,
    /// A user's row is missing or says something else.
    users_differ: bool,
    ids: IdCheck,
    horizon: Horizon,
}

impl<'a, F: Files> Verify<'a, F> {
    fn new(opened: &'a Opened<F>, logged: &'a Logged, lane: u16, read: SegmentsRead) -> Self {
        let report = VerifyReport {
            lane,
            segments: read.segments,
            blocks: read.blocks,
            rows: read.rows,
            position: logged.position,
            log_files: opened.log_names().count() as u64,
            leftovers: opened.leftovers(),
            ..VerifyReport::default()
        };
        Self {
            opened,
            logged,
            report,
            areas: read.areas,
            unreadable: read.unreadable,
            with_losses: BTreeSet::new(),
            users_expected: 0,
            users_found: 0,
            users_differ: false,
            ids: IdCheck::default(),
            horizon: opened.horizon(logged),
        }
    }

    /// What is wrong with the data keys' file, and whose keys are missing there.
    fn keys(&mut self) {
        let file = || Some(file::NAME.to_owned());
        for at in self.opened.found.iter().flat_map(|found| &found.broken) {
            let what = "a page that is neither whole nor empty: of a write that never completed, or of one that another stands for";
            let (offset, what) = (Some(*at), what.to_owned());
            self.report.find(Finding { file: file(), offset, what, harmless: true, ..Finding::default() });
        }
        if let Some(StoreError::Damaged { offset, what, .. }) = &self.opened.keys_damage {
            let (offset, what) = (Some(*offset), (*what).to_owned());
            self.report.find(Finding { file: file(), offset, what, ..Finding::default() });
        }
        for id in &self.logged.keyless {
            let (conversation, what) = (Some(*id), KeyFault::Missing.text().to_owned());
            self.report.find(Finding { file: file(), conversation, what, ..Finding::default() });
        }
    }

    fn log(&mut self) {
        let found = &self.logged.report;
        self.report.batches = found.batches;
        self.report.records = found.records;
        self.report.torn_tail = found.torn_tail.as_ref().map(|torn| {
            let (file, offset, what) = (&torn.file, torn.offset, &torn.what);
            format!("{file}: byte {offset}: the last write never completed ({what})")
        });
        log_findings(self.logged).into_iter().for_each(|finding| self.report.find(finding));
    }

    async fn rows(&mut self) -> Result<(), EngineError> {
        let (opened, logged) = (self.opened, self.logged);
        let mut walk = Walk::new(&opened.runs, &logged.memtable, &self.unreadable, true);
        let mut current: Option<Conversation> = None;
        while walk.next().await? {
            let Some((key, value)) = walk.row() else { continue };
            let owner = keys::owner(key);
            let has_ended = current.as_ref().is_some_and(|of| owner != Some(Owner::Conversation(of.id)));
            if has_ended && let Some(conversation) = current.take() {
                self.finish(conversation).await;
            }
            match (owner, keys::parse(key)) {
                (Some(Owner::Conversation(id)), Some(key)) => {
                    let horizon = self.horizon;
                    let conversation = current.get_or_insert_with(|| Conversation::new(id, horizon));
                    conversation.row(key, value, || walk.place());
                }
                (_, Some(Key::MessageId(conversation, id))) => match decode_message_id(id, value) {
                    Some((_, stored)) if self.horizon.forgets(id, stored, false) => {}
                    Some((sequence, stored)) if self.is_whole(conversation) => {
                        self.ids.row(conversation, id, sequence, stored);
                    }
                    Some(_) => {}
                    None => {
                        let (file, offset) = walk.place();
                        let what = format!("the row of message id {id} does not have its form");
                        let (file, conversation) = (Some(file), Some(conversation));
                        self.report.find(Finding { file, offset, conversation, what, ..Finding::default() });
                    }
                },
                (Some(Owner::User(user)), Some(Key::User(id))) => {
                    let place = if UserRow::decode(value).is_none() { Some(walk.place()) } else { None };
                    self.user_row(&user, id, place);
                }
                _ => {
                    let (file, offset) = walk.place();
                    let what = "a key that has no known form".to_owned();
                    self.report.find(Finding { file: Some(file), offset, what, ..Finding::default() });
                }
            }
        }
        if let Some(conversation) = current {
            self.finish(conversation).await;
        }
        for (id, what) in std::mem::take(&mut walk.closed) {
            self.report.find(Finding { conversation: Some(id), what, ..Finding::default() });
        }
        if self.users_found != self.users_expected || self.users_differ {
            self.name_users().await?;
        }
        // What was damaged was told; whose ids it held is not known.
        if self.ids.differs() && !self.areas.touch(&keys::message_ids_range()) {
            let (check, unreadable) = (std::mem::take(&mut self.ids), std::mem::take(&mut self.unreadable));
            let report = &mut self.report;
            check.name(opened, logged, &unreadable, &mut |finding| report.find(finding)).await?;
        }
        Ok(())
    }

    /// All rows of a conversation have passed by.
    async fn finish(&mut self, mut conversation: Conversation) {
        let id = conversation.id;
        conversation.finish(self.logged.position);
        self.report.conversations += 1;
        self.report.entries += conversation.entries;
        let last = conversation.replay.last.unwrap_or_default().sequence;
        for (first, last) in &conversation.lost {
            self.with_losses.insert(id);
            let what = "lost, as a repair has found".to_owned();
            let (first, last) = (Some(*first), Some(*last));
            self.report.lose(Finding { conversation: Some(id), first, last, what, ..Finding::default() });
        }
        let touched = self.areas.touch(&KeyRange::prefix(keys::conversation(id)));
        let hidden = self.is_lost_in_log(id);
        let missing = if touched {
            self.areas.concern(id, &conversation.missing, last, conversation.tail.is_some())
        } else {
            conversation.missing
        };
        // What the log has lost was told by the log, unless nobody knows whose it was.
        let is_told = hidden && self.logged.report.damage.iter().all(|damage| damage.all_known);
        for (first, last) in missing.into_iter().filter(|_| !is_told) {
            let what = "missing".to_owned();
            self.report.find(Finding { conversation: Some(id), first: Some(first), last, what, ..Finding::default() });
        }
        if !is_told {
            self.report.findings_left_out += conversation.missing_left_out;
        }
        let is_partial = conversation.replay.gap || !conversation.lost.is_empty() || conversation.has_many_old_ids;
        if touched || hidden || is_partial {
            self.ids.leave_out(id);
        } else {
            self.ids.conversation(&conversation.messages);
        }
        if touched || hidden {
            // What else does not fit follows from what was lost.
            return;
        }
        conversation.findings.drain(..).for_each(|finding| self.report.find(finding));
        self.report.findings_left_out += conversation.findings_left_out;
        if !conversation.replay.gap {
            for (user, state) in &conversation.replay.users {
                self.users_expected += 1;
                self.expect_user(id, user, &state.row).await;
            }
        }
    }

    /// Whether nothing that is damaged can have taken rows of this conversation.
    fn is_whole(&self, id: ConversationId) -> bool {
        let is_touched = !self.areas.is_empty() && self.areas.touch(&KeyRange::prefix(keys::conversation(id)));
        !is_touched && !self.is_lost_in_log(id)
    }

    /// Whether entries or changes of members of this conversation may be among what the log has lost.
    fn is_lost_in_log(&self, id: ConversationId) -> bool {
        let report = &self.logged.report;
        self.logged.unreadable.is_some()
            || self.logged.missing.is_some()
            || self.logged.memtable.hides(id)
            || report.damage.iter().any(|damage| damage.conversations.iter().any(|lost| lost.conversation == id))
    }

    async fn expect_user(&mut self, id: ConversationId, user: &UserId, expected: &UserRow) {
        let what = match self.opened.user_row(self.logged, user, id).await {
            Ok(Some(Some(row))) if row == *expected => return,
            // Told already, by whoever has met it first.
            Ok(Some(None)) | Err(_) => return,
            Ok(Some(Some(row))) => {
                let told = if row.joined { "joined" } else { "left" };
                format!(
                    "the user's row says {told} by entry {}, but entry {} is the last",
                    row.sequence, expected.sequence
                )
            }
            Ok(None) => "there is no row of this user for the conversation".to_owned(),
        };
        self.users_differ = true;
        self.report.find(Finding {
            conversation: Some(id),
            user: Some(user.clone()),
            first: Some(expected.sequence),
            last: Some(expected.sequence),
            what,
            ..Finding::default()
        });
    }

    /// A row of a user passes by; `malformed` is where, if it does not have its form.
    fn user_row(&mut self, user: &UserId, id: ConversationId, malformed: Option<(String, Option<u64>)>) {
        self.report.user_rows += 1;
        if let Some((file, offset)) = malformed {
            let what = "a row does not have its form".to_owned();
            let (file, conversation, user) = (Some(file), Some(id), Some(user.clone()));
            self.report.find(Finding { file, offset, conversation, user, what, ..Finding::default() });
        }
        if self.is_lost_in_log(id) || self.with_losses.contains(&id) {
            return;
        }
        if self.areas.touch(&KeyRange::prefix(keys::conversation(id))) {
            self.areas.concern_unseen(id);
        } else {
            self.users_found += 1;
        }
    }

    /// Names rows of users that no entry asks for.
    async fn name_users(&mut self) -> Result<(), EngineError> {
        let range = keys::users_range();
        let mut newer: Vec<(Vec<u8>, Change<SharedBytes>)> = Vec::new();
        let mut rows = self.logged.memtable.rows();
        while let Some((key, change)) = rows.next() {
            if range.contains(key) {
                newer.push((key.to_vec(), change.map(SharedBytes::from)));
            }
        }
        let mut scan = self.opened.runs.scan(&range, Direction::Forward, None).with_newer(newer.into_iter());
        // Damage ends the scan: it was told already.
        while let Ok(Some(row)) = scan.next().await {
            let (Some(Owner::User(user)), Some(Key::User(id))) = (keys::owner(row.key), keys::parse(row.key)) else {
                continue;
            };
            let Some(row) = UserRow::decode(row.value) else { continue };
            let is_touched = self.areas.touch(&KeyRange::prefix(keys::conversation(id)));
            if self.is_lost_in_log(id) || self.with_losses.contains(&id) || is_touched {
                continue;
            }
            if let Some(what) = self.contradiction(id, &user, &row).await {
                let (conversation, user) = (Some(id), Some(user));
                let (first, last) = (Some(row.sequence), Some(row.sequence));
                self.report.find(Finding { conversation, user, first, last, what, ..Finding::default() });
            }
        }
        Ok(())
    }

    /// What the entry that a user's row names has against it.
    async fn contradiction(&self, id: ConversationId, user: &UserId, row: &UserRow) -> Option<String> {
        let told = if row.joined { "joined" } else { "left" };
        if row.sequence == Sequence(0) {
            return Some(format!("the user's row says {told} by no entry"));
        }
        match self.opened.entry(self.logged, id, row.sequence).await {
            Err(_) => None,
            Ok(None) => Some(format!("the user's row says {told} by this entry, which does not exist")),
            Ok(Some((position, archive))) if !changes_user(&archive, user, row.joined) || position != row.position => {
                Some(format!("the user's row says {told} by this entry, which does not say so"))
            }
            Ok(Some(_)) => None,
        }
    }
}

/// What is wrong with the log, and whose entries it has lost.
pub(super) fn log_findings(logged: &Logged) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(StoreError::Damaged { file, offset, what, .. }) = &logged.unreadable {
        let what = format!("{what}; the log cannot be replayed");
        findings.push(Finding { file: Some(file.clone()), offset: Some(*offset), what, ..Finding::default() });
    }
    if let Some((first, last)) = logged.missing {
        let what = format!("files of generation {first} to {last} are missing");
        findings.push(Finding { file: Some(LOG.to_owned()), what, ..Finding::default() });
    }
    logged.report.damage.iter().for_each(|damage| log_damage(damage, &mut findings));
    findings
}

fn log_damage(damage: &LogDamage, findings: &mut Vec<Finding>) {
    let LogDamage { first, last, what, .. } = damage;
    let what = match first.cmp(last) {
        Ordering::Less => format!("{what}: records {first} to {last}"),
        Ordering::Equal => format!("{what}: record {first}"),
        Ordering::Greater => format!("{what}: no record"),
    };
    let finding = Finding {
        file: Some(damage.file.clone()),
        offset: Some(damage.offset),
        what,
        harmless: damage.harmless,
        ..Finding::default()
    };
    for lost in &damage.conversations {
        findings.push(Finding {
            conversation: Some(lost.conversation),
            first: Some(lost.first),
            last: Some(lost.last),
            what: format!("lost: {}", finding.what),
            ..finding.clone()
        });
    }
    if damage.conversations.is_empty() || !damage.all_known {
        let mut what = finding.what.clone();
        if !damage.all_known {
            what.push_str("; any conversation of the lane may be concerned");
        }
        findings.push(Finding { what, ..finding });
    }
}
