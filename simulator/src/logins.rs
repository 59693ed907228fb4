//! Devices: clients that name them and log one another out, and what the oracle holds that to.
//!
//! Once it was answered that a device is logged out, no connection that is asked for later is let in by a token of before; and the device's
//! own connection has ended when all is at rest. A client that was logged out gets another token, which is good.

use antiphon_wire::{
    frame::{Devices, DevicesAction, DevicesAnswer, ListDevices, Request, RevokeAll},
    ids::{ConversationId, DeviceId, UserId},
};

use crate::{
    answers::AskedKind,
    coverage::{Count, Coverage},
    dice::Dice,
    model::{Change, Model},
    world::World,
};

/// When the first tokens were issued: long before the wall clock starts, however it jumps.
pub const ISSUED_FIRST_MS: u64 = 1;

/// A client's token.
#[derive(Debug, Clone)]
pub struct Login {
    /// Whose.
    pub user: UserId,
    /// Of which device.
    pub device: DeviceId,
    /// When it was issued, by the node's clock.
    pub issued_ms: u64,
    /// And as the oracle counts time.
    pub issued_at: u64,
    /// Somebody has asked to log the device out.
    pub is_asked: bool,
    /// Since when it is known that the token is refused.
    pub refused_since: Option<u64>,
}

/// A request that logs devices out: which, and what was known when it was asked for.
#[derive(Debug, Clone)]
pub struct LogOut {
    /// What it does.
    pub action: DevicesAction,
    /// The device that asks.
    pub own: DeviceId,
    /// The node's clock.
    clock_ms: u64,
    /// How often that had jumped.
    jumps: u64,
}

impl LogOut {
    fn is_of(&self, device: &DeviceId) -> bool {
        match &self.action {
            DevicesAction::List(_) | DevicesAction::Name(_) => false,
            DevicesAction::Revoke(devices) => devices.contains(device),
            DevicesAction::RevokeAll(all) => !all.but_this || *device != self.own,
        }
    }
}

impl Model {
    fn logging_out(&mut self, user: &UserId, log_out: &LogOut) {
        for login in self.logins.iter_mut().filter(|login| login.user == *user && log_out.is_of(&login.device)) {
            login.is_asked = true;
        }
    }

    /// It is answered, to who asked at that time.
    pub fn devices_answered(
        &mut self,
        user: &UserId,
        log_out: &LogOut,
        at: u64,
        answer: &DevicesAnswer,
        coverage: &mut Coverage,
    ) {
        if let DevicesAction::List(_) = log_out.action {
            coverage.one(Count::DevicesListed);
            let devices = answer.devices.as_deref().unwrap_or_default();
            let own = devices.iter().filter(|device| device.this);
            let is_sound = devices.is_sorted_by(|one, two| one.device < two.device)
                && own.clone().count() <= 1
                && own.clone().all(|device| device.online && device.device == log_out.own);
            return self.check(is_sound, || format!("{user} is listed {devices:?} on {}", log_out.own));
        }
        let (now, jumps) = (self.asking(), self.clock_jumps);
        for login in self.logins.iter_mut().filter(|login| login.user == *user && log_out.is_of(&login.device)) {
            let is_older = login.issued_ms <= log_out.clock_ms && jumps == log_out.jumps;
            if login.issued_at < at && (login.issued_ms == ISSUED_FIRST_MS || is_older) {
                coverage.one(Count::LoggedOut);
                login.refused_since.get_or_insert(now);
            }
        }
    }

    /// Whether it may be that a client's device is not let in.
    pub fn may_be_refused(&mut self, client: usize) {
        let login = &self.logins[client];
        let (is_asked, of) = (login.is_asked, (login.user.clone(), login.device.clone()));
        self.check(is_asked || self.rot, || format!("{of:?} is told that it was logged out, and nobody did that"));
    }

    /// A client is let in, whose connection was asked for at that time.
    pub fn let_in(&mut self, client: usize, connected_at: u64) {
        let Login { user, device, refused_since, .. } = self.logins[client].clone();
        let is_known = !self.rot && !self.is_erased(ConversationId::account(&user));
        let is_refused = refused_since.is_some_and(|since| since < connected_at);
        self.check(!(is_refused && is_known), || format!("{user} on {device} is let in, and was logged out"));
    }
}

impl World {
    /// Sometimes somebody logs devices out, names the own one, or lists them.
    pub fn log_out(&mut self, step: u32) {
        let dice = Dice::new(self.plan.seed ^ (u64::from(step) << 40), "devices");
        let client = dice.index(self.clients.len());
        if !dice.chance(self.plan.devices_per_thousand) || !self.clients[client].running {
            return;
        }
        let (user, own) = (self.clients[client].user.clone(), self.clients[client].device.clone());
        let others = self.clients.iter().filter(|other| other.user == user).map(|other| other.device.clone());
        let others: Vec<DeviceId> = others.collect();
        let action = match dice.below(100) {
            0..25 => DevicesAction::List(ListDevices {}),
            25..45 => DevicesAction::Name(dice.pick(&["", "Phone", "Laptop"]).to_owned()),
            45..80 => DevicesAction::Revoke(vec![others[dice.index(others.len())].clone()]),
            _ => DevicesAction::RevokeAll(RevokeAll { but_this: dice.chance(700) }),
        };
        let (clock_ms, jumps) = (self.wall_ms(), self.model.clock_jumps);
        let log_out = LogOut { action: action.clone(), own, clock_ms, jumps };
        self.model.account_of(&user);
        self.model.logging_out(&user, &log_out);
        // A list makes no account.
        let add = if matches!(action, DevicesAction::List(_)) { Vec::new() } else { vec![user.clone()] };
        let kind = AskedKind::Devices(Change { add, remove: Vec::new() }, log_out);
        self.ask(client, Request::Devices(Devices { action }), Some(ConversationId::account(&user)), kind);
        self.pump(client);
    }

    /// A client that was logged out gets another token and comes back.
    pub fn log_in_again(&mut self, client: usize) {
        let issued_at = self.model.asking();
        let issued_ms = self.clock_max_ms.max(self.clock_ms()) + 1;
        let login = &mut self.model.logins[client];
        login.issued_ms = issued_ms;
        (login.issued_at, login.refused_since) = (issued_at, None);
        let token = token(&login.user, login.issued_ms);
        let now_ms = self.now_ms();
        let client = &mut self.clients[client];
        client.is_logged_out = false;
        client.session.set_token(token.clone());
        client.token = token;
        if client.wanted && client.running {
            client.session.start(now_ms);
        }
    }

    /// At the end nobody is connected who was logged out.
    pub fn check_logins(&mut self) {
        for client in 0..self.clients.len() {
            let Login { user, device, refused_since, .. } = self.model.logins[client].clone();
            let is_known = !self.model.rot && !self.model.is_erased(ConversationId::account(&user));
            let is_there = self.clients[client].wanted && refused_since.is_some();
            self.model
                .check(!(is_there && is_known), || format!("{user} on {device} was logged out and is still there"));
        }
    }
}

/// A token of this world.
#[must_use]
pub fn token(user: &UserId, issued_ms: u64) -> String {
    format!("sim:{user}:{issued_ms}")
}

/// Who it is of, and when it was issued.
#[must_use]
pub fn read_token(token: &str) -> Option<(UserId, u64)> {
    let (user, issued_ms) = token.strip_prefix("sim:")?.split_once(':')?;
    Some((UserId::new(user).ok()?, issued_ms.parse().ok()?))
}
