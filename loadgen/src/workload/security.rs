//! TLS on a client thread: between what the driver says about a slot and what the rest of the worker sees of it. A worker without
//! TLS passes through here untouched.

use super::{connections::State, worker::Worker};
use crate::{
    clock::Nanoseconds,
    driver::Links,
    measure::record,
    tls::TlsError,
    transport::{End, Step},
};

/// Steps of handshakes between two looks at what is due: at 0.1 ms each (measured), sends are held up by a millisecond or so.
const STEPS_PER_TICK_MAX: usize = 8;

impl Worker {
    /// TCP stands.
    pub(super) fn tcp_connected(&mut self, links: &mut Links, slot: u32) {
        match &mut self.secure {
            None => self.upgrade(links, slot),
            Some(secure) => secure.connected(slot, self.clock.now_ns()),
        }
    }

    /// Bytes of the server.
    pub(super) fn bytes_received(&mut self, links: &mut Links, slot: u32, bytes: &[u8]) {
        let Some(secure) = &mut self.secure else { return self.take_bytes(links, slot, bytes) };
        let mut plain = std::mem::take(&mut self.plain);
        let now_ns = self.clock.now_ns();
        let result = secure.received(slot, bytes, now_ns, &mut plain, links.write(slot));
        self.plain_received(links, slot, plain, result);
    }

    /// Goes on with handshakes that can.
    pub(super) fn handshakes_due(&mut self, links: &mut Links) {
        for _ in 0..STEPS_PER_TICK_MAX {
            let Some(secure) = &mut self.secure else { return };
            let Some((slot, waits_since_ns)) = secure.next_waiting() else { return };
            let now_ns = self.clock.now_ns();
            record(&mut self.latencies.handshake_wait, waits_since_ns, now_ns);
            let connection = &mut self.connections.list[slot as usize];
            if connection.state == State::Connecting {
                // An attempt is not given up for what it waited here.
                connection.attempt_ns = connection.attempt_ns.max(now_ns);
            }
            let mut plain = std::mem::take(&mut self.plain);
            let result = match secure.step(slot, &mut plain, links.write(slot)) {
                Ok(Step::Waits) => Ok(()),
                Ok(Step::Opened(agreed)) => {
                    let since_ns = secure.since_ns(slot).unwrap_or(now_ns);
                    record(&mut self.latencies.handshake, since_ns, self.clock.now_ns());
                    self.counters.tls_full.add(u64::from(!agreed.resumed));
                    self.counters.tls_resumed.add(u64::from(agreed.resumed));
                    self.counters.tls_retried.add(u64::from(agreed.retried));
                    self.upgrade(links, slot);
                    Ok(())
                }
                Err(error) => Err(error),
            };
            self.plain_received(links, slot, plain, result);
        }
    }

    fn plain_received(&mut self, links: &mut Links, slot: u32, mut plain: Vec<u8>, result: Result<(), TlsError>) {
        // What came before an error was good.
        if !plain.is_empty() {
            self.take_bytes(links, slot, &plain);
            plain.clear();
        }
        self.plain = plain;
        match result {
            Err(error) => {
                self.tls_failed(slot, &error);
                self.end(links, slot);
            }
            Ok(()) if self.secure.as_ref().is_some_and(|secure| secure.is_ended_by_server(slot)) => {
                self.end(links, slot);
            }
            Ok(()) => {}
        }
    }

    /// Appends what `write` writes to what the slot is to send.
    pub(super) fn append(&mut self, links: &mut Links, slot: u32, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(secure) = &mut self.secure else { return write(links.write(slot)) };
        if let Err(error) = secure.write(slot, links.write(slot), write) {
            self.tls_failed(slot, &error);
            self.end(links, slot);
        }
    }

    /// Ends the slot's connection; with TLS, in good order.
    pub(super) fn end(&mut self, links: &mut Links, slot: u32) {
        if let Some(secure) = &mut self.secure {
            secure.close(slot, links.write(slot));
        }
        links.close(slot);
    }

    /// The slot's connection is gone.
    pub(super) fn tls_closed(&mut self, slot: u32) {
        let Some(secure) = &mut self.secure else { return };
        match secure.closed(slot) {
            End::Known => {}
            End::InHandshake(error) => self.tls_failed(slot, &error),
            End::Unannounced => self.counters.tls_unannounced.add(1),
        }
    }

    fn tls_failed(&mut self, slot: u32, error: &TlsError) {
        if self.connections.list[slot as usize].state != State::Connecting {
            self.counters.protocol_errors.add(1);
            return self.note_error(format!("TLS: {error}"));
        }
        if let Some(secure) = &mut self.secure {
            secure.failed(error);
        }
        self.counters.tls_failed.add(1);
        let none_worked = self.counters.tls_full.get() + self.counters.tls_resumed.get() == 0;
        if none_worked && error.is_lasting() {
            self.control.fail(format!("no TLS with the target: {error}{}", error.advice()));
        }
    }

    /// Since connections wait for their handshakes here, no more are to be begun for now.
    pub(super) fn has_too_many_handshakes(&self) -> bool {
        self.secure.as_ref().is_some_and(|secure| secure.is_full())
    }

    /// When the next step of a handshake is due.
    pub(super) fn handshakes_wake_ns(&self, now_ns: Nanoseconds) -> Nanoseconds {
        let waits = self.secure.as_ref().is_some_and(|secure| secure.has_waiting());
        if waits { now_ns } else { Nanoseconds::MAX }
    }
}
