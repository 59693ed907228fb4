//! The session tickets of one thread: each of its clients keeps the newest that it was given, as a real one does.
//!
//! rustls asks a store for a server's tickets, not for a client's: so whoever lets a session work says first whose turn it is
//! ([`Tickets::turn_to`]). Sessions of a thread work one after the other. A TLS 1.3 ticket is used once (RFC 8446 §C.4).

use std::sync::{Mutex, MutexGuard};

use rustls::{
    NamedGroup,
    client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue},
    pki_types::ServerName,
};

/// One ticket for each client, so the store is as large as the thread has connections.
#[derive(Debug)]
pub(super) struct Tickets {
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    turn: usize,
    clients: Vec<Option<Box<Ticket>>>,
    group: Option<NamedGroup>,
}

#[derive(Debug)]
enum Ticket {
    Tls12(Tls12ClientSessionValue),
    Tls13(Tls13ClientSessionValue),
}

impl Tickets {
    pub(super) fn new(clients: u32) -> Self {
        let clients = std::iter::repeat_with(|| None).take(clients as usize).collect();
        Self { kept: Mutex::new(Kept { turn: 0, clients, group: None }) }
    }

    /// Whose session works next.
    pub(super) fn turn_to(&self, client: u32) {
        self.kept().turn = client as usize;
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nobody panics while holding it")
    }

    fn keep(&self, ticket: Option<Ticket>) {
        let mut kept = self.kept();
        let turn = kept.turn;
        kept.clients[turn] = ticket.map(Box::new);
    }
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.kept().group = Some(group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.kept().group
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.keep(Some(Ticket::Tls12(value)));
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        let kept = self.kept();
        match kept.clients[kept.turn].as_deref() {
            Some(Ticket::Tls12(value)) => Some(value.clone()),
            _ => None,
        }
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.keep(None);
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.keep(Some(Ticket::Tls13(value)));
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut kept = self.kept();
        let turn = kept.turn;
        match *kept.clients[turn].take_if(|ticket| matches!(**ticket, Ticket::Tls13(_)))? {
            Ticket::Tls13(value) => Some(value),
            Ticket::Tls12(_) => None,
        }
    }
}
