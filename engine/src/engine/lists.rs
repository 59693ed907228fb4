//! A user's conversations, page by page, and the rows that say which they are.

use std::collections::BTreeMap;

use antiphon_wire::{
    codes::ErrorCode,
    ids::{ConversationId, Sequence, UserId},
    limits::PAGE_BYTES_MAX,
};

use crate::{
    conversation::Conversation,
    door::{Done, Refusal, Summary},
    engine::{
        Engine,
        reads::for_each_row,
        refusal::{refuse, unreadable},
        state::{Answer, Memory},
        stored::visible_part,
    },
    error::StoreError,
    keys::{self, Key},
    row::{Direction, KeyRange},
    rows::UserRow,
    seams::{Clock, Files, Random},
};

/// How often a page is put together anew because a memtable became a segment meanwhile: that takes far longer than a page, so that more in a
/// row mean a disk that does not keep up.
const ROUNDS_MAX: usize = 16;

/// A conversation of a page that is being put together.
struct Listed {
    summary: Summary,
    /// The first entry that the user sees.
    first: Sequence,
}

impl Listed {
    /// With the last entry as it is now, as far as the user sees it.
    fn finish(mut self, memory: &Memory) -> Summary {
        let (id, last) = (self.summary.conversation, self.summary.last_sequence);
        let first = self.first.max(memory.retained_from(id));
        let read = self.summary.last_entry.take().filter(|_| last >= first);
        let now = read.map(|read| memory.entry_now(id, last).map_or(read, |(_, archive)| archive));
        self.summary.last_entry = now.filter(|now| !now.is_empty()).map(|now| visible_part(&now, first));
        self.summary
    }
}

/// A user's rows, by conversation.
pub(super) type UserRows = BTreeMap<ConversationId, UserRow>;

/// Puts what the memtables say of a user over what segments say. Conversations that are hidden fall out.
pub(super) fn overlay(rows: &mut UserRows, user: &UserId, memory: &Memory) {
    for memtable in memory.oldest_first() {
        rows.extend(memtable.user(user).into_iter().flatten());
    }
    rows.retain(|id, _| !memory.unlists(*id));
}

impl<F: Files, C: Clock, R: Random> Engine<F, C, R> {
    /// What segments say of a user's conversations, as they are now.
    pub(super) async fn user_rows(&self, user: &UserId) -> Result<UserRows, StoreError> {
        let prefix = keys::user(user);
        let runs = self.shared.sorted.runs();
        let scan = runs.scan(&KeyRange::prefix(prefix.clone()), Direction::Forward, Some(&prefix));
        let mut rows = UserRows::new();
        for_each_row(scan, |row| {
            let Key::User(conversation) = keys::parse(row.key)? else { return None };
            rows.insert(conversation, UserRow::decode(row.value)?);
            Some(())
        })
        .await?;
        Ok(rows)
    }

    /// A page of the user's conversations.
    pub(super) async fn list_conversations(&self, user: UserId, after: Option<ConversationId>, limit: u32) -> Answer {
        for _ in 0..ROUNDS_MAX {
            let flushes = self.shared.state.borrow().core.memory.flushes;
            let (page, more) = self.list_page(&user, after, limit).await?;
            let memory = &self.shared.state.borrow().core.memory;
            // What was taken away while others were read is in memory, unless a flush has taken it along.
            if memory.flushes == flushes {
                let conversations = page.into_iter().map(|listed| listed.finish(memory)).collect();
                return Ok(Done::Conversations { conversations, more });
            }
        }
        Err(refuse(ErrorCode::Overloaded))
    }

    /// A page and whether there is more; it ends before the last entry that would make it too long.
    async fn list_page(
        &self,
        user: &UserId,
        after: Option<ConversationId>,
        limit: u32,
    ) -> Result<(Vec<Listed>, bool), Refusal> {
        let rows = loop {
            let flushes = self.shared.state.borrow().core.memory.flushes;
            let mut rows = self.user_rows(user).await.map_err(|error| unreadable(&error))?;
            let state = self.shared.state.borrow();
            if state.core.memory.flushes == flushes {
                overlay(&mut rows, user, &state.core.memory);
                break rows;
            }
        };
        let (mut conversations, mut bytes) = (Vec::new(), 0);
        // It is not one that anybody talks in.
        let account = ConversationId::account(user);
        let is_listed = |id: ConversationId| id != account && after.is_none_or(|after| id > after);
        let listed = rows.iter().filter(|(id, row)| row.joined && is_listed(**id));
        for (id, _) in listed {
            if conversations.len() == limit as usize {
                return Ok((conversations, true));
            }
            let loaded = self.settled(*id).await.map_err(|error| unreadable(&error))?;
            // The user may have left since the rows were read.
            if let Some(conversation) = loaded.filter(|conversation| conversation.member(user).is_some()) {
                let listed = self.summary(user, &conversation).await?;
                bytes += listed.summary.last_entry.as_ref().map_or(0, |archive| archive.len());
                // The first one is given however long it is: a page must lead on.
                if bytes > PAGE_BYTES_MAX && !conversations.is_empty() {
                    return Ok((conversations, true));
                }
                conversations.push(listed);
            }
        }
        Ok((conversations, false))
    }

    /// A conversation's durable state: from memory if it does not run ahead of the disk.
    async fn settled(&self, id: ConversationId) -> Result<Option<Conversation>, StoreError> {
        {
            let state = self.shared.state.borrow();
            let loaded = state.slots.get(&id).and_then(|slot| slot.conversation.as_deref());
            if let Some(loaded) = loaded.filter(|loaded| state.core.stage.durable(loaded.record)) {
                return Ok(Some(loaded.clone()));
            }
            if let Some(loaded) = self.load_from_memory(&state.core.memory, id) {
                return Ok(loaded);
            }
        }
        self.load(id).await
    }

    async fn summary(&self, user: &UserId, conversation: &Conversation) -> Result<Listed, Refusal> {
        let member = conversation.member(user).expect("the caller looked");
        let last = conversation.last;
        let first = conversation.first_seen(member);
        // A damaged last entry must not hide the list: the page that shows it will say so.
        let last_entry = match last.sequence >= first {
            true => self.stored_entry(conversation.id, last.sequence).await.ok().map(|stored| stored.archive),
            false => None,
        };
        let summary = Summary {
            conversation: conversation.id,
            epoch: conversation.epoch(),
            peer: conversation.peer(user),
            title: conversation.title.to_string(),
            picture: conversation.group.settings.picture.clone(),
            role: conversation.role(user),
            last_sequence: last.sequence,
            last_time: last.time,
            members: conversation.members().len() as u32,
            read: member.pointer.read,
            unread: conversation.unread(member),
            last_entry,
        };
        Ok(Listed { summary, first })
    }
}
