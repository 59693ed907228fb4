//! What a run did, which states it was in and which faults it met, counted by kind.
//!
//! Each kind says within how many seeds it is sure to happen. A kind that does not is a hole: a fault that is never injected, or a state that
//! nothing leads to any more, proves nothing, however many seeds pass.

macro_rules! counts {
    ($($(#[$doc:meta])* $variant:ident $name:literal $within:expr;)*) => {
        /// What is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Count { $($(#[$doc])* $variant,)* }

        impl Count {
            /// All kinds, in the order of the report.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$variant, $name),)*];

            /// Seeds within which it is sure to happen: at least twenty times as many as it took on average when it was measured.
            #[must_use]
            pub fn within(self) -> u64 {
                match self { $(Self::$variant => $within,)* }
            }
        }
    };
}

/// Most seeds do it.
const OFTEN: u64 = 200;
/// It takes a plan that has it.
const PLANNED: u64 = 1_000;
/// It takes a plan that has it and some luck.
const SELDOM: u64 = 10_000;
/// It takes much luck.
const RARE: u64 = 100_000;

counts! {
    /// Entries that applications were given.
    Entries "entries delivered" OFTEN;
    /// Sends that applications made.
    Sends "sends" OFTEN;
    /// Sends acknowledged.
    Acks "acknowledged" OFTEN;
    /// Of these, known before.
    Duplicates "duplicates" OFTEN;
    /// Sends refused because their id was used for another body.
    Conflicts "conflicts" OFTEN;
    /// Sends and requests refused because the user is not a member.
    NotFound "not found" OFTEN;
    /// Creations and additions refused because somebody had enough conversations.
    LimitReached "limit reached" PLANNED;
    /// Refused for another reason.
    Refused "other refusals" OFTEN;
    /// Pages of history read.
    HistoryPages "history pages" OFTEN;
    /// Groups and direct conversations made.
    Conversations "conversations made" OFTEN;
    /// Members added and removed, titles set.
    Changes "membership and titles" OFTEN;
    /// Roles given to members of groups.
    RolesGiven "roles given" PLANNED;
    /// Settings of groups changed.
    SettingsChanged "settings changed" PLANNED;
    /// Users kept out of groups, or let in again.
    BansChanged "bans changed" PLANNED;
    /// Invites made.
    InvitesMade "invites made" PLANNED;
    /// Invites revoked.
    InvitesRevoked "invites revoked" PLANNED;
    /// Members who came by an invite, or were there already.
    JoinedByInvite "joined by an invite" PLANNED;
    /// Keys of account data set or taken away.
    AccountSets "account data set" PLANNED;
    /// Of these, refused because another entry had set the key.
    AccountConflicts "account data set meanwhile" PLANNED;
    /// Account data listed.
    AccountLists "account data listed" PLANNED;
    /// Accounts read whole, entries and list.
    AccountsRead "accounts read" PLANNED;
    /// Requests for presence that were answered.
    PresenceAsked "presence asked for" PLANNED;
    /// Of these, at the end, when all is known.
    PresenceAtEnd "presence at the end" PLANNED;
    /// Frames that said that somebody has come or gone.
    PresencePushed "presence pushed" PLANNED;
    /// Users who were seen to be there.
    PresenceSeen "users seen to be there" PLANNED;
    /// Users of whom somebody was told who may not see them.
    PresenceHidden "users told of who are hidden" PLANNED;
    /// How far somebody else has read, told by a receipt or in a list.
    ReceiptsOfOthers "receipts of others" PLANNED;
    /// Members listed of whom that is hidden from who asked.
    ReceiptsHidden "receipts hidden" PLANNED;
    /// Devices listed.
    DevicesListed "devices listed" PLANNED;
    /// Tokens of which it was answered that they are refused from then on.
    LoggedOut "logged out" PLANNED;
    /// Sessions that ended because their device was logged out.
    SessionsRevoked "sessions revoked" PLANNED;
    /// Connections that were not let in because of that.
    LoginsRefused "logins refused" PLANNED;
    /// Conversations that somebody began to look at.
    Views "conversations looked at" PLANNED;
    /// Told how far a conversation is.
    Hints "hints" PLANNED;
    /// Messages given out of turn to whom they mean.
    Mentioned "mentions given out of turn" PLANNED;
    /// Looks at what an invite is to.
    InvitesSeen "invites looked at" PLANNED;
    /// Invites that were none, or none any more.
    InvitesLacked "invites that were none" PLANNED;
    /// Refused since the user may not.
    ForbiddenTold "refused as forbidden" PLANNED;
    /// Of these, held to what the user may do.
    ForbiddenJudged "  of these judged" PLANNED;
    /// Changes of messages acknowledged.
    MessagesChanged "messages changed" OFTEN;
    /// Of these, retention marks.
    Retained "  of these retention marks" PLANNED;
    /// Pages of history that begin where a retention mark lets entries stay.
    PagesBehindMarks "history pages behind retention marks" PLANNED;
    /// Messages refused for what they refer to.
    ContentsRefused "messages refused for what they refer to" PLANNED;
    /// Messages in threads whose first ones were told how many there are.
    Replies "replies in threads" PLANNED;
    /// What was told for the moment, heard.
    EventsHeard "events heard" PLANNED;
    /// Frames that told what became of messages.
    States "states told" OFTEN;
    /// Pointers moved.
    Marks "pointers moved" OFTEN;
    /// Receipts seen.
    Receipts "receipts" OFTEN;
    /// Sessions that resumed by a position.
    Resumed "sessions resumed" OFTEN;
    /// Sessions without a position.
    Fresh "sessions fresh" OFTEN;
    /// Conversations of which a resume streamed nothing.
    Skipped "entries skipped after joining again" RARE;
    /// Times a user was told that it left.
    Left "left" PLANNED;
    /// Entries checked by the last reading of everything.
    Audited "entries audited" OFTEN;
    /// Deliveries whose right could not be judged, for want of the log's beginning.
    Unjudged "deliveries not judged" SELDOM;
    /// Memtables flushed.
    Flushes "flushes" OFTEN;
    /// Compactions.
    Compactions "compactions" PLANNED;
    /// Log batches replayed.
    Replayed "batches replayed" OFTEN;
    /// Torn tails cut.
    TornTails "torn tails cut" SELDOM;
    /// Bytes of batches.
    LogBytes "log bytes written" OFTEN;
    /// Reads of segments.
    CacheMisses "segment blocks read" OFTEN;
    /// Mesh frames that found a full queue.
    MeshFull "fault: mesh queue full" OFTEN;
    /// Connections cut, both sides told.
    Cuts "fault: connection cut" PLANNED;
    /// Connections that went silent.
    Silences "fault: connection silent" PLANNED;
    /// Clients that stopped reading for a while.
    Stalls "fault: client stalled" PLANNED;
    /// Clients that restarted with all they had.
    RestartsKept "fault: client restart, state kept" OFTEN;
    /// Clients that restarted from an older state.
    RestartsBack "fault: client restart, older state" PLANNED;
    /// Clients that restarted with nothing.
    RestartsLost "fault: client restart, state lost" OFTEN;
    /// A second connection of the same device.
    Replaced "fault: device connected twice" OFTEN;
    /// The power failed.
    Crashes "fault: power lost" OFTEN;
    /// The process was killed.
    Kills "fault: process killed" OFTEN;
    /// The power failed or the process was killed while opening.
    CrashesOpening "fault: crash while opening" OFTEN;
    /// The node was restarted in order.
    Drains "fault: graceful restart" PLANNED;
    /// The wall clock jumped.
    ClockJumps "fault: clock jump" OFTEN;
    /// Volatile writes that a crash lost.
    WritesLost "fault: unsynced writes lost" PLANNED;
    /// Volatile writes that a crash tore.
    WritesTorn "fault: unsynced writes torn" PLANNED;
    /// Volatile writes that a crash kept, perhaps in another order.
    WritesKept "fault: unsynced writes kept" PLANNED;
    /// Names that a crash lost.
    NamesLost "fault: unsynced names lost" PLANNED;
    /// Failed reads.
    ReadErrors "fault: EIO on read" SELDOM;
    /// Failed writes.
    WriteErrors "fault: EIO on write" PLANNED;
    /// Failed syncs.
    SyncErrors "fault: EIO on sync" SELDOM;
    /// Failed operations on names.
    NameErrors "fault: EIO on names" SELDOM;
    /// Writes that a failed sync made never durable.
    WritesDoomed "fault: writes doomed by a failed sync" SELDOM;
    /// Writes that were said to have failed and reached the disk later.
    WritesLate "fault: failed writes that came later" SELDOM;
    /// Writes refused for want of room.
    Full "fault: disk full" PLANNED;
    /// Bits flipped in segments.
    FlipsSegment "fault: bit flipped in a segment" SELDOM;
    /// Bits flipped in the log.
    FlipsLog "fault: bit flipped in the log" PLANNED;
    /// Bits flipped elsewhere.
    FlipsOther "fault: bit flipped elsewhere" PLANNED;
    /// Sectors that can't be read any more.
    BrokenRanges "fault: unreadable sectors" SELDOM;
    /// In a batch's header.
    FlipsLogHeader "fault:   of these in a batch's header" SELDOM;
    /// In what a batch tells of the one before.
    FlipsLogWitness "fault:   of these in a batch's witness" SELDOM;
    /// In a batch's records.
    FlipsLogRecords "fault:   of these in a batch's records" SELDOM;
    /// In what means nothing.
    FlipsLogPadding "fault:   of these in padding" SELDOM;
    /// In a segment's rows.
    FlipsSegmentData "fault:   bits flipped in rows" SELDOM;
    /// In a segment's index or filter.
    FlipsSegmentIndex "fault:   bits flipped in index and filter" SELDOM;
    /// In a segment's header or footer.
    FlipsSegmentEnds "fault:   bits flipped in header and footer" SELDOM;
    /// Bits flipped in the data keys of encrypted stores.
    FlipsKeys "fault:   bits flipped in data keys" SELDOM;
    /// Sectors of the log that can't be read any more.
    BrokenLog "fault: unreadable sectors of the log" SELDOM;
    /// Writes of the log that are not where they belong.
    LogWritesAstray "fault: log writes astray" SELDOM;
    /// Writes of other files that were sent astray.
    WritesSentAstray "fault: other writes sent astray" SELDOM;
    /// Writes that went over the log.
    WritesAstrayLog "fault:   writes astray over the log" SELDOM;
    /// Writes that went over a segment.
    WritesAstraySegment "fault:   writes astray over a segment" SELDOM;
    /// Writes that went over a manifest.
    WritesAstrayManifest "fault:   writes astray over a manifest" SELDOM;
    /// Writes that went over data keys.
    WritesAstrayKeys "fault:   writes astray over data keys" RARE;
    /// Writes that went where nothing is of ours.
    WritesAstrayElsewhere "fault:   writes astray, harming nothing else" SELDOM;
    /// Reads of segments that gave other bytes.
    ReadsAstraySegment "fault: reads of segments astray" SELDOM;
    /// Reads of manifests that gave other bytes.
    ReadsAstrayManifest "fault: reads of manifests astray" SELDOM;
    /// Reads of data keys that gave other bytes.
    ReadsAstrayKeys "fault: reads of data keys astray" SELDOM;
    /// Times when a disk was slow.
    SlowDisks "fault: slow disk" PLANNED;
    /// Times when a disk answered nothing.
    HungDisks "fault: hung disk" PLANNED;
    /// Operations that waited for such a disk.
    OperationsHeld "fault: operations held by a hung disk" PLANNED;
    /// Times when the wall clock stood.
    ClockStops "fault: clock stood" PLANNED;
    /// Starts with other settings.
    Reconfigured "fault: start with other settings" PLANNED;
    /// Starts with another number of shards.
    ShardsChanged "fault: start with other shards" OFTEN;
    /// Starts with another number of lanes.
    LanesChanged "fault: start with other lanes" SELDOM;
    /// Runs whose lanes' disks are not equally fast.
    UnequalDisks "fault: disks of unequal speed" PLANNED;
    /// Crashes of a node that serves.
    CrashesServing "crash: while serving" OFTEN;
    /// Crashes of a node that says goodbye.
    CrashesDraining "crash: while draining" SELDOM;
    /// Crashes of a node that closes its lanes.
    CrashesClosing "crash: while closing" RARE;
    /// Lanes with nothing under way on their disk.
    CutNothing "crash: disk idle" OFTEN;
    /// See [`crate::disk`]: what was under way on the disk.
    CutList "crash in: listing the folder" PLANNED;
    /// As above.
    CutSyncFolder "crash in: sync of the folder" PLANNED;
    /// As above.
    CutRemove "crash in: removing a file" SELDOM;
    /// As above.
    CutLogMake "crash in: making a log file" SELDOM;
    /// As above.
    CutLogFill "crash in: filling a log file" PLANNED;
    /// As above.
    CutLogSync "crash in: sync of a log file" SELDOM;
    /// As above.
    CutLogRename "crash in: renaming a log file" SELDOM;
    /// As above.
    CutLogOpen "crash in: opening a log file" SELDOM;
    /// As above.
    CutLogRead "crash in: reading the log" SELDOM;
    /// As above.
    CutLogWrite "crash in: writing the log" OFTEN;
    /// As above.
    CutSegmentOpen "crash in: opening a segment" PLANNED;
    /// As above.
    CutSegmentRead "crash in: reading a segment" PLANNED;
    /// As above.
    CutSegmentWrite "crash in: writing a segment" SELDOM;
    /// As above.
    CutSegmentSync "crash in: sync of a segment" SELDOM;
    /// As above.
    CutManifestOpen "crash in: opening a manifest" PLANNED;
    /// As above.
    CutManifestRead "crash in: reading the manifest" PLANNED;
    /// As above.
    CutManifestWrite "crash in: writing a manifest" SELDOM;
    /// As above.
    CutManifestSync "crash in: sync of a manifest" SELDOM;
    /// As above.
    CutManifestRename "crash in: renaming a manifest" SELDOM;
    /// As above.
    CutKeysOpen "crash in: opening data keys" SELDOM;
    /// As above.
    CutKeysRead "crash in: reading data keys" SELDOM;
    /// As above.
    CutKeysWrite "crash in: adding data keys" SELDOM;
    /// As above.
    CutKeysMade "crash in: writing data keys anew" SELDOM;
    /// As above.
    CutKeysSync "crash in: sync of data keys" SELDOM;
    /// As above.
    CutKeysRename "crash in: renaming data keys" SELDOM;
    /// As above.
    CutShare "crash in: sharing a segment" RARE;
    /// Checkpoints that a crash cut short.
    CrashesCopying "crash: while a checkpoint is made" SELDOM;
    /// Checkpoints of running lanes that were asked for.
    CheckpointsAsked "state: checkpoints asked for" PLANNED;
    /// Made.
    CheckpointsMade "state: checkpoints made" PLANNED;
    /// Not made, since the disk failed, or another was under way.
    CheckpointsRefused "state: checkpoints that failed" SELDOM;
    /// Whole though their maker was not told so.
    CheckpointsLeft "state: checkpoints left whole by a crash or an error" RARE;
    /// Restored, opened, and held to the lane.
    CheckpointsRestored "state: checkpoints restored" PLANNED;
    /// Not restored, since what they share with the lane is damaged.
    CheckpointsUnsound "state: checkpoints called damaged" RARE;
    /// Checkpoints of lanes that had committed more by the time that they were made.
    CommitsBesideCheckpoints "state: commits beside a checkpoint" SELDOM;
    /// Entries of restored checkpoints.
    EntriesRestored "entries restored" PLANNED;
    /// Stores of runs that destroyed data that were repaired.
    Repairs "state: stores repaired" SELDOM;
    /// Of these, with losses that were told.
    RepairsWithLosses "state: stores repaired with losses" SELDOM;
    /// Refused, since nothing could be told.
    RepairsRefused "state: repairs refused" SELDOM;
    /// Runs whose stores are encrypted.
    Encrypted "state: encrypted stores" OFTEN;
    /// Checkpoints of encrypted stores that were restored.
    SealedRestored "state: checkpoints of encrypted stores restored" PLANNED;
    /// Of these, without the node's key.
    SealedRestoredClosed "state:   of these without the key" SELDOM;
    /// Encrypted stores that were repaired.
    SealedRepaired "state: encrypted stores repaired" SELDOM;
    /// Encrypted stores that were given other lanes.
    SealedRelaned "state: encrypted stores with other lanes" SELDOM;
    /// Conversations that were erased.
    Erased "state: conversations erased" PLANNED;
    /// Conversations that were to be erased and had no key.
    EraseUnknown "state: conversations without a key to erase" SELDOM;
    /// Erasures that a crash cut short.
    ErasuresCut "crash: while erasing" SELDOM;
    /// Commands refused because the conversation was erased.
    ErasedTold "state: refused, since erased" PLANNED;
    /// Lanes whose keys were wrapped by another node key.
    Rewrapped "state: lanes under another node key" PLANNED;
    /// Of these, after a crash in the middle of it.
    RewrapsCut "crash: while wrapping keys by another" PLANNED;
    /// Texts that were looked for in the clear in all files of an encrypted store.
    TextsLookedFor "texts looked for in encrypted stores" OFTEN;
    /// Segments begun while the same lane wrote another one.
    FlushesBesideMerges "state: flush beside a merge" SELDOM;
    /// Segments begun while another lane wrote one.
    SegmentsOfLanesAtOnce "state: segments of two lanes at once" PLANNED;
    /// Whole readings of all segments in the background.
    ScrubRounds "state: segments read in the background" PLANNED;
    /// Damage that they told.
    ScrubFindings "state: damage told by a reading in the background" SELDOM;
    /// Conversations loaded again.
    Loads "state: conversations loaded" OFTEN;
    /// Ids of messages looked up in segments.
    IdempotencyReads "state: message ids read from segments" OFTEN;
    /// Commands refused as too many.
    Overloaded "state: commands refused as too many" OFTEN;
    /// Flushes, merges and preparations that failed.
    MaintenanceFailures "state: maintenance failed and tried again" PLANNED;
    /// Damaged blocks that were met.
    BlocksDamaged "state: damaged blocks met" SELDOM;
    /// Damaged stretches of the log that opening found.
    LogDamaged "state: damaged log found at opening" SELDOM;
    /// Segments that opening found damaged.
    SegmentsDamaged "state: damaged segments found at opening" SELDOM;
    /// Sends acknowledged while a fault lasted.
    AcksMeanwhile "meanwhile: acknowledged while a fault lasts" OFTEN;
    /// Pages of history answered while a fault lasted.
    HistoryMeanwhile "meanwhile: history read while a fault lasts" OFTEN;
    /// Lists answered while a fault lasted.
    ListsMeanwhile "meanwhile: lists read while a fault lasts" OFTEN;
    /// Sessions resumed while a fault lasted.
    ResumedMeanwhile "meanwhile: resumed while a fault lasts" PLANNED;
    /// Lanes that latched an error.
    Fenced "lanes fenced" PLANNED;
    /// Lanes opened for reading only.
    ReadOnly "lanes opened read-only" SELDOM;
    /// Lanes that could not be opened.
    OpenRefused "lanes not opened" PLANNED;
    /// Answers that said `damaged`.
    DamageTold "damage told" SELDOM;
    /// Answers that said `storage_full`.
    FullTold "storage full told" SELDOM;
    /// Answers that said `storage_failed`.
    FailureTold "storage failure told" PLANNED;
    /// Sessions closed as slow consumers.
    SlowConsumers "slow consumers closed" SELDOM;
    /// Sessions closed because they were silent.
    Silent "silent sessions closed" SELDOM;
}

/// Counts by kind.
#[derive(Debug, Clone)]
pub struct Coverage([u64; Count::ALL.len()]);

impl Default for Coverage {
    fn default() -> Self {
        Self([0; Count::ALL.len()])
    }
}

impl Coverage {
    /// Counts some.
    pub fn add(&mut self, kind: Count, by: u64) {
        self.0[kind as usize] += by;
    }

    /// Counts one.
    pub fn one(&mut self, kind: Count) {
        self.add(kind, 1);
    }

    /// Counts a refusal of what the user may not do, and whether it could be judged.
    pub fn forbidden(&mut self, is_judged: bool) {
        self.one(Count::ForbiddenTold);
        self.add(Count::ForbiddenJudged, u64::from(is_judged));
    }

    /// Adds one for each kind that happened.
    pub fn mark(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += u64::from(theirs > 0));
    }

    /// How many.
    #[must_use]
    pub fn get(&self, kind: Count) -> u64 {
        self.0[kind as usize]
    }

    /// Adds another run's.
    pub fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine += theirs);
    }
}
