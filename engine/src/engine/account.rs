//! Account data: a user sets what is kept under keys, and lists it.
//!
//! A user's account is a conversation that nobody else is in and that holds nothing else; it begins with the first key that is set. What an
//! entry said of a key goes when the key is set anew: the entry stays and says that the key was taken away.
//!
//! Must not do: I/O, or know what a key means.

use std::rc::Rc;

use antiphon_wire::{
    codes::ErrorCode,
    frame::{AccountChange, ConversationStart, EntryKind, SetAccount},
    ids::{Sequence, UserId},
    limits::{ACCOUNT_BYTES_MAX, ACCOUNT_KEYS_MAX, PAGE_BYTES_MAX},
};

use crate::{
    account::{AccountData, ItemRow},
    door::{Command, Done, Refusal},
    engine::{
        commands::{FIRST_EPOCH, Step, Turn},
        refusal::{refuse, refuse_because},
        state::Block,
    },
    rows::TailRow,
    seams::{Clock, Files},
};

impl<F: Files, C: Clock, R> Turn<'_, F, C, R> {
    /// The refusal of a command that would make of the user's account what other conversations are.
    pub(super) fn misuses_account(&self, command: &Command) -> Option<Refusal> {
        let conversation = self.slot.conversation.as_deref().filter(|conversation| conversation.account.is_some())?;
        let fits = matches!(command, Command::SetAccount { .. } | Command::Account { .. } | Command::History { .. });
        // To everybody else it is a conversation that they are not in.
        let is_own = command.user() == &conversation.start.creator;
        (is_own && !fits).then(|| refuse_because(ErrorCode::Forbidden, "one's account holds account data only"))
    }

    /// Sets a key, or takes it away.
    pub(super) fn set_account(&mut self, user: UserId, set: SetAccount) -> Step {
        let item = match self.account(&user) {
            Ok(account) => account.and_then(|account| account.get(&set.key)).cloned(),
            Err(refusal) => return refusal.into(),
        };
        let was = item.as_ref().map(|item| item.sequence);
        if set.if_sequence.is_some_and(|expected| expected != was.unwrap_or_default()) {
            let text = match was {
                Some(sequence) => format!("the key was last set by entry {}", sequence.0),
                None => "the key is not set".to_owned(),
            };
            return refuse_because(ErrorCode::Conflict, &text).into();
        }
        if item.as_ref().map(|item| &*item.value) == set.value.as_ref().map(|value| value.0.as_str()) {
            return self.account_is_so(was);
        }
        if let Err(refusal) = self.has_room_for(&user, &set, item.as_ref()) {
            return refusal.into();
        }
        if self.slot.conversation.is_none() {
            let start = ConversationStart { direct: false, title: String::new(), members: vec![user.clone()] };
            match self.create(user.clone(), start) {
                Step::Staged => self.answers_later(),
                other => return other,
            }
        }
        self.change_account(user, AccountChange { key: set.key, value: set.value }, item.as_ref())
    }

    /// What is set under keys after one.
    pub(super) fn account_page(
        &self,
        user: &UserId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Done, Result<Block, Refusal>> {
        if self.slot.conversation.is_none() {
            let sequence = Sequence(0);
            return Ok(Done::AccountItems { epoch: FIRST_EPOCH, sequence, items: Vec::new(), more: false });
        }
        let (conversation, _) = self.settled_member(user, false)?;
        let (epoch, sequence) = (conversation.epoch(), conversation.last.sequence);
        let mut rest = conversation.account.iter().flat_map(|account| account.after(after)).peekable();
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some(item) = rest.next_if(|item| {
            bytes += item.key.len() + item.value.0.len();
            items.len() < limit as usize && (bytes <= PAGE_BYTES_MAX || items.is_empty())
        }) {
            items.push(item);
        }
        Ok(Done::AccountItems { epoch, sequence, items, more: rest.peek().is_some() })
    }

    /// The user's account data; `None` before the first key was set.
    fn account(&self, user: &UserId) -> Result<Option<&AccountData>, Refusal> {
        if self.slot.conversation.is_none() {
            return Ok(None);
        }
        let (conversation, _) = self.member(user)?;
        Ok(conversation.account.as_deref())
    }

    /// The answer where nothing changes: the key was set so by this entry, or is not set.
    fn account_is_so(&self, was: Option<Sequence>) -> Step {
        let Some(conversation) = self.slot.conversation.as_deref() else {
            let sequence = Sequence(0);
            return Step::Done(Ok(Done::AccountSet { epoch: FIRST_EPOCH, sequence, replaced: None }));
        };
        let sequence = was.unwrap_or(conversation.last.sequence);
        let done = Done::AccountSet { epoch: conversation.epoch(), sequence, replaced: None };
        Step::When(conversation.record, Ok(done))
    }

    fn has_room_for(&self, user: &UserId, set: &SetAccount, item: Option<&ItemRow>) -> Result<(), Refusal> {
        let Some(value) = &set.value else { return Ok(()) };
        let (keys, bytes) = self.account(user)?.map_or((0, 0), |account| (account.len(), account.bytes()));
        let freed = item.map_or(0, |item| set.key.len() + item.value.len());
        let is_full = item.is_none() && keys >= ACCOUNT_KEYS_MAX;
        if is_full || bytes - freed + set.key.len() + value.0.len() > ACCOUNT_BYTES_MAX {
            return Err(refuse(ErrorCode::LimitReached));
        }
        Ok(())
    }

    /// Stages the entry that sets the key; what set it before says no more what it was.
    fn change_account(&mut self, user: UserId, change: AccountChange, item: Option<&ItemRow>) -> Step {
        let time = self.core.stage.now(self.shared.clock.now());
        let position = self.core.stage.next();
        let conversation = self.slot.conversation.as_deref().expect("it was there, or was made");
        let mut account = conversation.account.clone().unwrap_or_default();
        let at = TailRow { position, sequence: conversation.last.sequence.next(), time, ..conversation.last };
        let of = (conversation.id, conversation.epoch());
        let superseded = item.map(|item| item.superseded(&change.key, of, &user));
        let body = change.to_body();
        let mut rows = vec![account.take(change, &at)];
        rows.extend(superseded);
        let step = self.change_at(time, user, EntryKind::AccountData, body, rows, |conversation| {
            conversation.account = Some(account);
            Rc::from([])
        });
        let (epoch, replaced) = (of.1, item.map(|item| item.sequence));
        self.answers(&step, |sequence| Done::AccountSet { epoch, sequence, replaced });
        step
    }
}
