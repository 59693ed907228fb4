//! Every byte that the server sends: whole WebSocket messages, whole frames, each to its place.

use antiphon_wire::{
    codec::Encoding,
    frame::{
        ArchivedEntry, ArchivedEntryKind, Created, EntryBytes, ErrorFrame, History, HistoryAnswer, Request,
        ResumeOutcome, ServerFrame, TooFar, view_content,
    },
    ids::{ConversationId, Epoch, RequestId, Sequence},
    limits::{PAGE_ITEMS_MAX, SERVER_FRAME_BYTES_MAX},
    session::Hint,
};

use super::{
    connections::State,
    content::Stamp,
    worker::{Worker, request},
};
use crate::{
    checker::{Identity, Path, Verdict},
    clock::{MILLISECOND_NS, Nanoseconds},
    driver::{Handler, Links},
    measure::record,
    websocket::{self, Opcode, WebSocketError},
};

/// Wait before a temporary refusal is tried again, if the server names none.
const RETRY_MS: u32 = 100;

impl Handler for Worker {
    fn connected(&mut self, links: &mut Links, slot: u32) {
        self.tcp_connected(links, slot);
    }

    fn received(&mut self, links: &mut Links, slot: u32, bytes: &[u8]) {
        self.bytes_received(links, slot, bytes);
    }

    fn closed(&mut self, _links: &mut Links, slot: u32, errno: i32) {
        let now_ns = self.clock.now_ns();
        if errno != 0 {
            self.note_error(std::io::Error::from_raw_os_error(errno).to_string());
        }
        self.tls_closed(slot);
        self.group_connection_lost(slot, now_ns);
        self.verify_connection_lost(slot, now_ns);
        self.disconnected(slot, now_ns);
    }
}

impl Worker {
    /// WebSocket bytes of the server.
    pub(super) fn take_bytes(&mut self, links: &mut Links, slot: u32, bytes: &[u8]) {
        let partial = self.connections.list[slot as usize].partial.take();
        let joined = partial.map(|mut partial| {
            partial.extend(bytes);
            partial
        });
        let input = joined.as_ref().map_or(bytes, |joined| joined.as_slice());
        match self.read(links, slot, input) {
            Ok([]) => {}
            Ok(rest) => {
                let rest = Box::new(rest.to_vec());
                self.connections.list[slot as usize].partial = Some(rest);
            }
            Err(error) => {
                if error == WebSocketError::Tls && self.secure.is_none() {
                    self.control.fail(error.to_string());
                }
                self.counters.protocol_errors.add(1);
                self.note_error(error.to_string());
                self.end(links, slot);
            }
        }
    }

    /// Takes all that is whole; the rest is returned.
    fn read<'a>(&mut self, links: &mut Links, slot: u32, mut input: &'a [u8]) -> Result<&'a [u8], WebSocketError> {
        if self.connections.list[slot as usize].state == State::Upgrading {
            let key = self.upgrade_key(slot);
            let Some(taken) = websocket::read_upgrade(input, &key, self.subprotocol())? else {
                return Ok(input);
            };
            input = &input[taken..];
            if self.plan.echo.is_some() {
                self.echo_open(links, slot);
            } else {
                self.greet(links, slot);
            }
        }
        while let Some(frame) = websocket::read_frame(input, SERVER_FRAME_BYTES_MAX)? {
            input = &input[frame.bytes..];
            if self.plan.echo.is_some() && frame.opcode == Opcode::Binary {
                self.echoed(links, slot, frame.payload);
                continue;
            }
            match (frame.opcode, self.plan.encoding) {
                (Opcode::Text, Encoding::Json) | (Opcode::Binary, Encoding::Rkyv) => {
                    self.message(links, slot, frame.payload)?
                }
                (Opcode::Text | Opcode::Binary, _) => {
                    return Err(WebSocketError::Frame("a message of the other encoding"));
                }
                (Opcode::Ping, _) => self.write_message(links, slot, Opcode::Pong, frame.payload),
                (Opcode::Pong, _) => {}
                (Opcode::Close, _) => {
                    self.note_close(frame.payload);
                    self.end(links, slot);
                    return Ok(&[]);
                }
            }
        }
        Ok(input)
    }

    fn note_close(&mut self, payload: &[u8]) {
        if let [high, low, reason @ ..] = payload {
            let code = u16::from_be_bytes([*high, *low]);
            self.note_error(format!("closed by the server: {code} {}", String::from_utf8_lossy(reason)));
        }
    }

    fn message(&mut self, links: &mut Links, slot: u32, payload: &[u8]) -> Result<(), WebSocketError> {
        let now_ns = self.clock.now_ns();
        let (id, frame) = match self.plan.encoding.decode_server(payload) {
            Ok(frame) => frame,
            Err(error) => {
                self.counters.protocol_errors.add(1);
                self.note_error(format!("a frame that can't be read: {error}"));
                return Ok(());
            }
        };
        if self.large.is_some() && self.large_frame(links, slot, id, &frame, now_ns) {
            return Ok(());
        }
        match (frame, id) {
            (ServerFrame::Message(entry), None) => self.entry(slot, &entry, Path::Pushed, now_ns),
            (ServerFrame::Ack(ack), Some(id)) => self.acked(slot, id, &ack, now_ns),
            (ServerFrame::Pong(pong), Some(_)) => self.keep_position(slot, pong.position.map(|position| position.0)),
            (ServerFrame::Welcome(welcome), Some(request::CONNECT))
                if self.connections.list[slot as usize].state == State::Greeting =>
            {
                if welcome.resume == ResumeOutcome::Reset {
                    self.counters.resets.add(1);
                }
                self.welcomed(slot, welcome.heartbeat_interval_ms, now_ns);
                self.send_pending(links, slot);
            }
            (ServerFrame::CaughtUp(caught_up), None) => self.caught_up(links, slot, caught_up.position.0, now_ns),
            (ServerFrame::Created(created), Some(id)) => self.created(links, id, &created, now_ns),
            (ServerFrame::MembersAnswer(answer), Some(id)) => {
                if let Some(group) = request::group_of(id, self.layout.conversations()) {
                    self.group_answered(links, group, answer.sequence.unwrap_or_default(), now_ns);
                }
            }
            (ServerFrame::HistoryAnswer(page), Some(request::HISTORY)) => self.page(links, slot, &page, now_ns),
            (ServerFrame::HistoryAnswer(page), Some(request::VERIFY)) => self.verify_page(links, slot, &page),
            (ServerFrame::TooFar(too_far), None) => self.too_far(links, slot, &too_far),
            (ServerFrame::Error(error), id) => self.error(links, slot, id, &error, now_ns),
            (ServerFrame::Goodbye(goodbye), None) => {
                self.note_error(format!("goodbye: {} {}", goodbye.code, goodbye.reason));
                if let Some(hint_ms) = goodbye.reconnect_after_ms {
                    self.connections.hints.insert(slot, Hint::Spread(hint_ms));
                }
            }
            (ServerFrame::PresenceAnswer(answer), Some(request::PRESENCE)) => {
                self.presence_told(slot, &answer.users, false, now_ns);
            }
            (ServerFrame::Present(present), None) => self.presence_told(slot, &present.users, true, now_ns),
            (ServerFrame::Receipt(_), None) => {}
            (other, _) => {
                self.counters.protocol_errors.add(1);
                let other = format!("{other:?}");
                self.note_error(format!("unexpected: {}", other.split(['(', '{']).next().unwrap_or_default()));
            }
        }
        Ok(())
    }

    fn created(&mut self, links: &mut Links, id: RequestId, created: &Created, now_ns: Nanoseconds) {
        let Some(group) = request::group_of(id, self.layout.conversations()) else { return };
        if self.conversations[group as usize] != created.conversation {
            self.control.fail("the server gave a conversation another id than its members and key make".to_owned());
        }
        self.connections.epochs.insert(group, created.epoch);
        self.group_answered(links, group, created.sequence, now_ns);
    }

    /// A position stands for everything before it: while something is still to be paged, the older one is kept.
    fn keep_position(&mut self, slot: u32, position: Option<Vec<u8>>) {
        if self.large.is_some() {
            return;
        }
        let mut members = (0..self.layout.layers()).map(|layer| self.layout.member(layer, slot));
        if members.any(|member| self.checker.has_holes(member)) {
            return;
        }
        if let Some(position) = position {
            self.connections.list[slot as usize].position = Some(position.into());
        }
    }

    fn caught_up(&mut self, links: &mut Links, slot: u32, position: Vec<u8>, now_ns: Nanoseconds) {
        self.keep_position(slot, Some(position));
        let connection = &mut self.connections.list[slot as usize];
        if std::mem::take(&mut connection.resuming) {
            record(&mut self.latencies.resume, connection.since_ns, now_ns);
            self.counters.resumed.add(1);
        }
        self.now_live(links, slot, now_ns);
    }

    /// The membership that makes an entry one of the user's.
    pub(super) fn membership(&self, slot: u32, conversation: ConversationId) -> Option<u32> {
        let mut members = (0..self.layout.layers()).map(|layer| self.layout.member(layer, slot));
        members.find(|&member| self.conversations[self.layout.conversation_of(member) as usize] == conversation)
    }

    fn entry(&mut self, slot: u32, entry: &EntryBytes, path: Path, now_ns: Nanoseconds) {
        let Ok(entry) = entry.view() else {
            self.counters.protocol_errors.add(1);
            return self.note_error("an entry that can't be read".to_owned());
        };
        let Some(member) = self.membership(slot, ConversationId(entry.conversation.0)) else {
            return self.checker.foreign();
        };
        let group = self.layout.conversation_of(member);
        self.connections.epochs.entry(group).or_insert(Epoch(entry.epoch.0.into()));
        let stamp = self.stamp(entry);
        let identity = stamp.map_or(Identity::Other, |stamp| stamp.identity());
        let verdict = self.checker.received(member, entry.sequence.0.into(), identity, path);
        let Some(stamp) = stamp.filter(|_| verdict == Verdict::First) else {
            return;
        };
        if stamp.sender == slot {
            return self.counters.returned.add(1);
        }
        self.delivered(slot, &stamp, now_ns);
    }

    fn delivered(&mut self, slot: u32, stamp: &Stamp, now_ns: Nanoseconds) {
        let Stamp { sender, intended_ns, .. } = *stamp;
        self.counters.delivered.add(1);
        self.second.delivered += 1;
        if self.measured.contains(&now_ns) {
            self.counters.measured_delivered.add(1);
        }
        // What a connection gets late because it did not read says nothing about the node.
        if self.plan.is_slow(self.share.first + slot) {
            return;
        }
        record(&mut self.second.send_to_deliver, intended_ns, now_ns);
        if self.measured.contains(&intended_ns) {
            record(&mut self.latencies.send_to_deliver, intended_ns, now_ns);
        }
        // Both ends: what a sender could not send while it was away is late for everybody.
        let both_stood = self.stood_since(slot, intended_ns) && self.stood_since(sender, intended_ns);
        if let Some(part) = self.part_of(intended_ns).filter(|_| both_stood) {
            record(&mut self.latencies.parts[part].send_to_deliver, intended_ns, now_ns);
        }
    }

    pub(super) fn stamp(&self, entry: &ArchivedEntry) -> Option<Stamp> {
        if !matches!(entry.kind, ArchivedEntryKind::Message) {
            return None;
        }
        let text = view_content(&entry.body).ok()?.text?;
        Stamp::from_text(text).filter(|stamp| stamp.nonce == self.plan.nonce)
    }

    fn too_far(&mut self, links: &mut Links, slot: u32, too_far: &TooFar) {
        self.counters.too_far.add(1);
        let Some(member) = self.membership(slot, too_far.conversation) else {
            return self.checker.foreign();
        };
        self.checker.announced(member, too_far.last.0);
        self.ask_history(links, slot, member);
    }

    fn ask_history(&mut self, links: &mut Links, slot: u32, member: u32) {
        let conversation = self.conversations[self.layout.conversation_of(member) as usize];
        let after = Some(Sequence(self.checker.contiguous(member)));
        let history = History { conversation, before: None, after, around: None, limit: Some(PAGE_ITEMS_MAX) };
        self.write(links, slot, request::HISTORY, &Request::History(history));
    }

    /// Pages until nothing is missing, or a page brings nothing more.
    fn page(&mut self, links: &mut Links, slot: u32, page: &HistoryAnswer, now_ns: Nanoseconds) {
        let Some(member) = self.membership(slot, page.conversation) else {
            return self.checker.foreign();
        };
        let before = self.checker.contiguous(member);
        for entry in &page.entries {
            self.entry(slot, entry, Path::Paged, now_ns);
        }
        let contiguous = self.checker.contiguous(member);
        if contiguous > before && contiguous < page.last.0 {
            self.ask_history(links, slot, member);
        }
    }

    /// Asks again for pages that the server refused for a while.
    pub(super) fn pages_due(&mut self, links: &mut Links, now_ns: Nanoseconds) {
        if self.pages.is_empty() {
            return;
        }
        let (due, later): (Vec<_>, Vec<_>) = self.pages.drain(..).partition(|&(due_ns, _)| due_ns <= now_ns);
        self.pages = later;
        for (_, slot) in due {
            for member in (0..self.layout.layers()).map(|layer| self.layout.member(layer, slot)).collect::<Vec<_>>() {
                if self.checker.has_holes(member) && self.connections.list[slot as usize].state == State::Up {
                    self.ask_history(links, slot, member);
                }
            }
        }
    }

    fn error(&mut self, links: &mut Links, slot: u32, id: Option<RequestId>, error: &ErrorFrame, now_ns: Nanoseconds) {
        self.note_error(format!("{}: {}", error.code.name(), error.text));
        match id {
            Some(request::CONNECT) if !error.code.temporary() => {
                self.control.fail(format!("the server refused a session: {}: {}", error.code.name(), error.text));
            }
            Some(request::CONNECT) => {
                if let Some(hint_ms) = error.retry_after_ms {
                    self.connections.hints.insert(slot, Hint::AtLeast(hint_ms));
                }
                self.end(links, slot);
            }
            Some(request::HISTORY) if error.code.temporary() => {
                let wait_ms = error.retry_after_ms.unwrap_or(RETRY_MS);
                self.pages.push((now_ns + u64::from(wait_ms) * MILLISECOND_NS, slot));
            }
            Some(request::VERIFY) => self.verify_failed(slot, error, now_ns),
            Some(request::PING | request::HISTORY | request::PRESENCE) | None => {}
            Some(id) => match request::group_of(id, self.layout.conversations()) {
                Some(group) => self.group_failed(group, error, now_ns),
                None => self.send_failed(slot, id, error, now_ns),
            },
        }
    }
}
