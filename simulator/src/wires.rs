//! Between clients and shards: what a session wants done becomes bytes on a link, and bytes become calls.

use antiphon_gateway::core::io::Command;
use antiphon_wire::session::Output;

use crate::{
    clients::Judge,
    events::Event,
    network::{Link, LinkId, Received, Transport, split},
    world::World,
};

impl World {
    /// Carries out all that a client's session wants, and sets its timer.
    pub fn pump(&mut self, index: usize) {
        loop {
            while let Some(output) = self.clients[index].session.poll_output() {
                match output {
                    Output::Connect => self.client_connects(index),
                    Output::Transmit(payload) => self.client_transmits(index, &payload),
                    Output::Close => self.client_closes(index),
                    Output::Deliver(event) => {
                        self.trace.note(self.now_us, &[20, index as u64], || {
                            format!("client {index} ({}): {}", self.clients[index].user, show(&event))
                        });
                        if matches!(event, antiphon_wire::session::Event::Entry { .. }) {
                            self.finish.saw_entry(self.now_us);
                        }
                        let link = self.clients[index].link;
                        self.model.heard_from = link.map_or(0, |link| self.links[link].incarnation);
                        self.model.fault_lasts = self.lasting.is_any(self.now_us);
                        let mut judge = Judge { model: &mut self.model, coverage: &mut self.coverage };
                        self.clients[index].event(event, &mut judge);
                        if self.clients[index].is_logged_out {
                            self.log_in_again(index);
                        }
                    }
                }
            }
            if !self.list_if_due(index) {
                break;
            }
        }
        let client = &self.clients[index];
        let wake_ms = client.session.next_wake_ms().filter(|_| client.running);
        if let Some(at_us) = wake_ms.map(|at_ms| (at_ms * 1_000).max(self.now_us + 1)) {
            self.look_at_client(index, at_us);
        }
    }

    /// A client's timer comes at that time, or before.
    pub fn look_at_client(&mut self, index: usize, at_us: u64) {
        if at_us < self.clients[index].due_us {
            self.clients[index].due_us = at_us;
            self.plan_at(at_us, Event::Client(index));
        }
    }

    /// A client's timer has come.
    pub fn client_timer(&mut self, index: usize) {
        let now_ms = self.now_ms();
        let client = &mut self.clients[index];
        if client.due_us > self.now_us {
            return;
        }
        client.due_us = u64::MAX;
        if !client.running {
            return;
        }
        client.session.tick(now_ms);
        self.pump(index);
    }

    /// A client's process is there.
    pub fn client_start(&mut self, index: usize) {
        self.trace.note(self.now_us, &[21, index as u64], || format!("client {index} starts"));
        let now_ms = self.now_ms();
        let client = &mut self.clients[index];
        client.running = true;
        if client.wanted {
            client.session.start(now_ms);
        }
        self.pump(index);
    }

    fn client_connects(&mut self, index: usize) {
        let shards = self.node.as_ref().map_or(1, |node| node.shards.len());
        let incarnation = self.node.as_ref().map_or(0, |node| node.incarnation);
        let id = self.links.len();
        let link = Link::new(index, incarnation, self.network_dice.index(shards), self.now_us);
        let fragments = self.plan.split_per_thousand > 0;
        let (transport, request) = Transport::open(self.clients[index].encoding(), fragments, &self.network_dice);
        self.links.push(link);
        let client = &mut self.clients[index];
        client.connected_at = self.model.asking();
        (client.link, client.transport) = (Some(id), Some(transport));
        let at_us = self.now_us + self.network_dice.delay_us(self.plan.network_us_max);
        self.links[id].up_at_us = at_us;
        self.plan_at(at_us, Event::Accept(id));
        self.send_up(id, request);
    }

    fn client_transmits(&mut self, index: usize, payload: &[u8]) {
        let client = &self.clients[index];
        let (Some(link), Some(transport)) = (client.link, &client.transport) else { return };
        let bytes = transport.message(payload, &self.network_dice);
        self.send_up(link, bytes);
    }

    /// The client closes: properly, or it just goes.
    pub fn client_closes(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let (Some(link), transport) = (client.link.take(), client.transport.take()) else { return };
        if let Some(transport) = transport
            && self.network_dice.chance(500)
        {
            let bytes = transport.close(&self.network_dice);
            self.send_up(link, bytes);
        }
        self.links[link].client_open = false;
        if !self.links[link].silent {
            let at_us = self.links[link].up_at_us.max(self.now_us) + 1;
            self.plan_at(at_us, Event::UpEnd(link));
        }
    }

    fn send_up(&mut self, link: LinkId, bytes: Vec<u8>) {
        if bytes.is_empty() || self.links[link].silent {
            return;
        }
        for piece in split(bytes, self.plan.split_per_thousand, &self.network_dice) {
            let at_us = self.now_us + self.network_dice.delay_us(self.plan.network_us_max);
            let at_us = at_us.max(self.links[link].up_at_us);
            self.links[link].up_at_us = at_us;
            self.plan_at(at_us, Event::Up(link, piece));
        }
    }

    /// Sends bytes to a client; when the last of them arrives.
    fn send_down(&mut self, link: LinkId, bytes: Vec<u8>) -> u64 {
        let silent = self.links[link].silent;
        for piece in split(bytes, self.plan.split_per_thousand, &self.network_dice) {
            let of = &mut self.links[link];
            let start_us = self.now_us.max(of.stalled_until_us);
            let at_us = (start_us + self.network_dice.delay_us(self.plan.network_us_max)).max(of.down_at_us);
            of.down_at_us = at_us;
            if !silent {
                self.plan_at(at_us, Event::Down(link, piece));
            }
        }
        self.links[link].down_at_us
    }

    /// Carries out what a shard wants of a connection.
    pub fn command(&mut self, shard: usize, command: Command) {
        let Some(node) = &mut self.node else { return };
        let incarnation = node.incarnation;
        match command {
            Command::Send { connection, buffers, awaited } => {
                let Some(link) = node.link(shard, connection) else { return };
                let bytes = buffers.concat();
                // A kernel takes bytes long before they arrive; behind a client that does not read it takes none.
                let arrives_us = self.send_down(link, bytes);
                let stalled = self.links[link].stalled_until_us > self.now_us;
                let left_us = if stalled { arrives_us } else { self.now_us + self.network_dice.delay_us(20) };
                if !self.links[link].silent {
                    // What left at once and nobody waits for wakes nobody: the shard hears of it when it turns for another reason.
                    let wakes = awaited || stalled;
                    self.plan_at(left_us, Event::Sent { incarnation, shard, key: connection, wakes });
                }
            }
            Command::Close { connection } => {
                let Some(link) = node.link(shard, connection) else { return };
                node.release(shard, connection);
                self.links[link].key = None;
                if !self.links[link].silent {
                    let at_us = self.links[link].down_at_us.max(self.now_us) + 1;
                    self.plan_at(at_us, Event::DownEnd(link));
                }
            }
        }
    }

    /// A connection arrives at its shard.
    pub fn accept(&mut self, link: LinkId) {
        let (shard, incarnation) = (self.links[link].shard, self.links[link].incarnation);
        let (now_us, node) = (self.now_us, self.node.as_mut().filter(|node| node.incarnation == incarnation));
        match node.and_then(|node| node.accept(shard, link, now_us)) {
            Some(key) => {
                self.links[link].key = Some(key);
                self.trace.note(now_us, &[22, link as u64], || format!("link {link} is {key:?} of shard {shard}"));
                self.wake_shard(shard);
            }
            None => self.plan_at(now_us + 1, Event::DownEnd(link)),
        }
    }

    /// Bytes arrive at the server.
    pub fn bytes_up(&mut self, link: LinkId, mut bytes: Vec<u8>) {
        let Some((shard, key)) = self.server_end(link) else { return };
        self.trace.bytes(&bytes);
        if let Some(node) = &mut self.node {
            node.received(shard, key, &mut bytes, self.now_us);
            self.wake_shard(shard);
        }
    }

    /// The server sees that the peer is gone.
    pub fn end_up(&mut self, link: LinkId) {
        let Some((shard, key)) = self.server_end(link) else { return };
        self.links[link].key = None;
        if let Some(node) = &mut self.node {
            node.closed(shard, key);
            self.wake_shard(shard);
        }
    }

    fn server_end(&self, link: LinkId) -> Option<(usize, antiphon_gateway::core::io::ConnectionKey)> {
        let of = &self.links[link];
        let node = self.node.as_ref().filter(|node| node.incarnation == of.incarnation)?;
        let key = of.key?;
        (node.link(of.shard, key) == Some(link)).then_some((of.shard, key))
    }

    /// Bytes arrive at the client.
    pub fn bytes_down(&mut self, link: LinkId, bytes: Vec<u8>) {
        let index = self.links[link].client;
        if !self.links[link].client_open || self.clients[index].link != Some(link) {
            return;
        }
        self.trace.bytes(&bytes);
        let now_ms = self.now_ms();
        let Some(transport) = &mut self.clients[index].transport else { return };
        for received in transport.receive(bytes) {
            if self.clients[index].link != Some(link) {
                break;
            }
            match received {
                Received::Connected => self.clients[index].session.connected(now_ms),
                Received::Message(payload) => self.clients[index].session.frame(now_ms, &payload),
                Received::Closed(code) => {
                    self.client_closes(index);
                    self.clients[index].session.disconnected(now_ms, code);
                }
                Received::Refused => {
                    self.client_closes(index);
                    self.clients[index].session.disconnected(now_ms, None);
                }
                Received::Broken(problem) => {
                    return self.model.fail(|| format!("client {index}: the server broke the protocol: {problem}"));
                }
            }
            self.pump(index);
        }
    }

    /// The client sees the end of a connection.
    pub fn end_down(&mut self, link: LinkId) {
        let index = self.links[link].client;
        let was_open = std::mem::replace(&mut self.links[link].client_open, false);
        if !was_open || self.clients[index].link != Some(link) {
            return;
        }
        let now_ms = self.now_ms();
        let client = &mut self.clients[index];
        (client.link, client.transport) = (None, None);
        client.session.disconnected(now_ms, None);
        self.pump(index);
    }

    /// A link's node is gone: what is on its way may still arrive, then the end is seen.
    pub fn server_gone(&mut self, link: LinkId) {
        self.links[link].key = None;
        if self.links[link].client_open && !self.links[link].silent {
            let at_us = self.now_us + self.network_dice.delay_us(2 * self.plan.network_us_max);
            self.plan_at(at_us, Event::DownEnd(link));
        }
    }
}

/// An event in few words.
fn show(event: &antiphon_wire::session::Event) -> String {
    use antiphon_wire::session::Event;
    match event {
        Event::Entry { conversation, sequence, entry } => {
            format!("{conversation} #{sequence} {}", crate::model::describe(&entry.0))
        }
        Event::Connected(welcome) => format!("connected, {:?}", welcome.resume),
        Event::Answer { id, answer } => {
            let text = format!("{answer:?}");
            format!("answer to {id}: {}", text.chars().take(160).collect::<String>())
        }
        other => format!("{other:?}"),
    }
}
