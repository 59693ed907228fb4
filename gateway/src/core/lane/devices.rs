//! A user's devices, at the user's home lane: which there are, how they are called, and logging them out.
//!
//! What is kept is one value of the user's account data, so that it is durable, ordered and told as everything else. Invariant: once a
//! logging out is answered, its devices' sessions are ended; that none comes in any more is `attaching`'s to see to.

use antiphon_engine::{
    door::{Command, Done, Refusal},
    seams::{Clock, Files, Random},
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::{
        AccountItem, DEVICES_KEY, Device, DevicesAction, DevicesAnswer, JsonText, KnownDevices, ServerFrame, SetAccount,
    },
    ids::{DeviceId, Sequence, UserId},
    limits::DEVICES_REVOKED_MAX,
};

use super::{Asked, Lane, Pending, error_frame, large::reply, privacy::account_items};
use crate::core::{
    mesh::{Barred, ConnectionFrame, ShardId},
    registry::Route,
};

/// How often a change is tried that others get ahead of.
const TRIES_MAX: u8 = 16;

/// A request about devices, on its way.
pub(super) struct AsksDevices {
    asked: Asked,
    user: UserId,
    /// The device that asks, also when it has gone meanwhile; a call of the HTTP API is none.
    own: Option<DeviceId>,
    action: DevicesAction,
    tries: u8,
    /// It is being set; before, it is looked up.
    is_set: bool,
}

impl AsksDevices {
    /// Whether it logs a device out.
    fn revokes(&self, device: &DeviceId) -> bool {
        match &self.action {
            DevicesAction::List(_) | DevicesAction::Name(_) => false,
            DevicesAction::Revoke(devices) => devices.contains(device),
            DevicesAction::RevokeAll(all) => !all.but_this || self.own.as_ref() != Some(device),
        }
    }
}

/// What is kept of a user's devices, and the entry that says so.
pub(super) fn known(items: &[AccountItem]) -> Result<(KnownDevices, Sequence), Refusal> {
    let Some(AccountItem { value, sequence, .. }) = items.iter().find(|item| item.key == DEVICES_KEY) else {
        return Ok((KnownDevices::default(), Sequence(0)));
    };
    let unreadable = |error| Refusal { code: ErrorCode::Damaged, text: format!("value of {DEVICES_KEY}: {error}") };
    Ok((serde_json::from_str(&value.0).map_err(unreadable)?, *sequence))
}

impl<F: Files, C: Clock, R: Random> Lane<F, C, R> {
    /// Begins to do what a request about devices asks.
    pub(super) fn ask_devices(&mut self, asked: Asked, user: UserId, action: DevicesAction) {
        let is_own = |route: &&Route| route.shard == asked.shard && route.connection == asked.connection;
        let own = self.registry.routes(&user).iter().find(is_own).map(|route| route.device.clone());
        self.look_up_for(AsksDevices { asked, user, own, action, tries: 0, is_set: false });
    }

    fn look_up_for(&mut self, asks: AsksDevices) {
        self.look_up_account(&asks.user.clone(), Pending::Devices(Box::new(asks)));
    }

    /// What is kept of devices has been looked up, or set.
    pub(super) fn devices(
        &mut self,
        mut asks: AsksDevices,
        result: Result<Done, Refusal>,
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        if asks.is_set {
            return match result {
                Ok(Done::AccountSet { sequence, .. }) => self.devices_are_set(&asks, sequence, send),
                Ok(other) => unreachable!("the engine answers account data that is set with that, not {other:?}"),
                Err(Refusal { code: ErrorCode::Conflict, .. }) if asks.tries < TRIES_MAX => {
                    (asks.tries, asks.is_set) = (asks.tries + 1, false);
                    self.look_up_for(asks);
                }
                Err(Refusal { code: ErrorCode::Conflict, .. }) => {
                    let text = "other changes of the user's devices were always first".to_owned();
                    reply(&asks.asked, &error_frame(Refusal { code: ErrorCode::Overloaded, text }), send);
                }
                Err(refusal) => reply(&asks.asked, &error_frame(refusal), send),
            };
        }
        let found = account_items(result).and_then(|items| known(&items));
        let changed = found.and_then(|(known, sequence)| match &asks.action {
            DevicesAction::List(_) => Ok((None, self.list_devices(&asks, &known), sequence)),
            _ => Ok((Some(self.change_devices(&asks, known)?), DevicesAnswer::default(), sequence)),
        });
        match changed {
            Ok((None, answer, _)) => reply(&asks.asked, &ServerFrame::DevicesAnswer(answer), send),
            Ok((Some(known), _, sequence)) => {
                asks.is_set = true;
                let value = (known != KnownDevices::default()).then(|| {
                    JsonText(serde_json::to_string(&known).expect("names, numbers and lists have a JSON form"))
                });
                let set = SetAccount { key: DEVICES_KEY.to_owned(), value, if_sequence: Some(sequence) };
                let user = asks.user.clone();
                self.submit(Pending::Devices(Box::new(asks)), Command::SetAccount { user, set });
            }
            Err(refusal) => reply(&asks.asked, &error_frame(refusal), send),
        }
    }

    fn list_devices(&self, asks: &AsksDevices, known: &KnownDevices) -> DevicesAnswer {
        let routes = self.registry.routes(&asks.user);
        let mut ids: Vec<&DeviceId> = routes.iter().map(|route| &route.device).collect();
        ids.extend(known.named.iter().map(|named| &named.device));
        ids.sort_unstable();
        ids.dedup();
        let device = |device: &DeviceId| {
            let named = known.named.iter().find(|named| named.device == *device);
            Device {
                device: device.clone(),
                name: named.map(|named| named.name.clone()),
                since_ms: named.map(|named| named.since_ms),
                online: routes.iter().any(|route| route.device == *device),
                this: asks.own.as_ref() == Some(device),
            }
        };
        DevicesAnswer { sequence: None, devices: Some(ids.into_iter().map(device).collect()) }
    }

    /// What is to be kept of devices when a request is done.
    fn change_devices(&self, asks: &AsksDevices, mut known: KnownDevices) -> Result<KnownDevices, Refusal> {
        let text = "only a device may ask that, and this is none".to_owned();
        let own = asks.own.as_ref().ok_or(Refusal { code: ErrorCode::Forbidden, text });
        match &asks.action {
            DevicesAction::List(_) => {}
            DevicesAction::Name(name) => {
                let own = own?;
                known.name(own, Some(name.as_str()).filter(|name| !name.is_empty()), self.wall);
                while known.named.len() > self.logins.devices_max as usize {
                    self.forget_name(&mut known, own, &asks.user);
                }
            }
            DevicesAction::Revoke(devices) => {
                devices.iter().for_each(|device| known.revoke(device, self.wall));
                if known.revoked.len() > DEVICES_REVOKED_MAX {
                    let text = format!(
                        "{DEVICES_REVOKED_MAX} devices are logged out one by one: log all out, which makes room"
                    );
                    return Err(Refusal { code: ErrorCode::LimitReached, text });
                }
            }
            DevicesAction::RevokeAll(all) if all.but_this => known.revoke_all(Some(own?), self.wall),
            DevicesAction::RevokeAll(_) => known.revoke_all(None, self.wall),
        }
        Ok(known)
    }

    /// Forgets the name of the device that was named first of those that are not connected.
    fn forget_name(&self, known: &mut KnownDevices, own: &DeviceId, user: &UserId) {
        let is_connected = |device: &DeviceId| self.registry.routes(user).iter().any(|route| route.device == *device);
        let others = known.named.iter().filter(|named| named.device != *own);
        let first = others.min_by_key(|named| (is_connected(&named.device), named.since_ms));
        if let Some(first) = first.map(|named| named.device.clone()) {
            known.name(&first, None, self.wall);
        }
    }

    /// A change of devices is durable.
    fn devices_are_set(
        &mut self,
        asks: &AsksDevices,
        sequence: Sequence,
        send: &mut impl FnMut(ShardId, ConnectionFrame),
    ) {
        let is_revoked = |route: &&Route| asks.revokes(&route.device);
        let revoked: Vec<Route> = self.registry.routes(&asks.user).iter().filter(is_revoked).cloned().collect();
        if !matches!(asks.action, DevicesAction::Name(_)) {
            self.logins.changes(&asks.user);
        }
        let answer = ServerFrame::DevicesAnswer(DevicesAnswer { sequence: Some(sequence), devices: None });
        let (own, others): (Vec<Route>, Vec<Route>) =
            revoked.into_iter().partition(|route| asks.own.as_ref() == Some(&route.device));
        others.into_iter().for_each(|route| bar(&route, send));
        // Whoever logs oneself out hears of it before.
        reply(&asks.asked, &answer, send);
        own.into_iter().for_each(|route| bar(&route, send));
    }
}

/// Ends a session of a device that is logged out.
fn bar(route: &Route, send: &mut impl FnMut(ShardId, ConnectionFrame)) {
    let Route { shard, connection, .. } = *route;
    send(shard, ConnectionFrame::Barred { connection, why: Barred::Revoked });
}
