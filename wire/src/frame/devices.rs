//! A user's devices: their names, and which of them are logged out.
//!
//! What the server has to keep of them is account data, under [`DEVICES_KEY`]: so the user's devices hear of every change.

use rkyv::{Archive, Deserialize, Serialize};

use super::{Each, EachIfAny};
use crate::ids::{DeviceId, Sequence, TimestampMs};

/// The key of account data that says how devices are called and which are logged out: [`KnownDevices`]. Only `devices` changes it.
pub const DEVICES_KEY: &str = "antiphon.devices";

/// `devices`: lists the user's devices, names the one that asks, or logs devices out.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "DevicesFields")]
pub struct Devices {
    /// Exactly one of these stands here in JSON.
    #[serde(flatten)]
    pub action: DevicesAction,
}

/// What `devices` does.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DevicesAction {
    /// Lists those that are connected and those that have a name.
    List(ListDevices),
    /// Names the device that asks; the empty name takes its name away.
    Name(String),
    /// Logs devices out: their connections end, and tokens that they had are refused.
    Revoke(#[rkyv(with = Each)] Vec<DeviceId>),
    /// Logs all devices out.
    RevokeAll(RevokeAll),
}

/// Which devices to list: all.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct ListDevices {}

/// Which devices to log out.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct RevokeAll {
    /// All but the one that asks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub but_this: bool,
}

/// [`Devices`] as JSON has it: two actions at once are refused, other fields ignored.
#[derive(serde::Deserialize)]
struct DevicesFields {
    list: Option<ListDevices>,
    name: Option<String>,
    revoke: Option<Vec<DeviceId>>,
    revoke_all: Option<RevokeAll>,
}

impl TryFrom<DevicesFields> for Devices {
    type Error = &'static str;

    fn try_from(fields: DevicesFields) -> Result<Self, Self::Error> {
        let action = match (fields.list, fields.name, fields.revoke, fields.revoke_all) {
            (Some(list), None, None, None) => DevicesAction::List(list),
            (None, Some(name), None, None) => DevicesAction::Name(name),
            (None, None, Some(devices), None) => DevicesAction::Revoke(devices),
            (None, None, None, Some(all)) => DevicesAction::RevokeAll(all),
            _ => return Err("devices needs exactly one of list, name, revoke and revoke_all"),
        };
        Ok(Self { action })
    }
}

/// Answers `devices`.
#[derive(
    Debug, Clone, Default, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize,
)]
pub struct DevicesAnswer {
    /// To a change: the entry of the user's account that says it, or said so before; 0 if nothing was ever said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// To `list`: the devices, in order of their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[rkyv(with = EachIfAny)]
    pub devices: Option<Vec<Device>>,
}

/// One device of a user.
#[derive(Debug, Clone, PartialEq, Eq, Archive, Serialize, Deserialize, serde::Serialize, serde::Deserialize)]
pub struct Device {
    /// Which.
    pub device: DeviceId,
    /// How it is called; left out if it has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// When it was first named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<TimestampMs>,
    /// Whether it is connected.
    pub online: bool,
    /// Whether it is the one that asks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub this: bool,
}

/// What the server keeps of a user's devices: the value of [`DEVICES_KEY`].
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownDevices {
    /// Those that have a name, in order of their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub named: Vec<NamedDevice>,
    /// Those of which it is said by themselves which tokens are refused, in order of their ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revoked: Vec<RevokedDevice>,
    /// Tokens of all others are refused that were issued then or before; 0: none.
    #[serde(default)]
    pub revoked_all_ms: TimestampMs,
}

/// A device that has a name.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedDevice {
    /// Which.
    pub device: DeviceId,
    /// How it is called.
    pub name: String,
    /// When it was first named.
    pub since_ms: TimestampMs,
}

/// Until when tokens of a device are refused.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevokedDevice {
    /// Which.
    pub device: DeviceId,
    /// Those that were issued then or before are.
    pub revoked_ms: TimestampMs,
}

impl KnownDevices {
    /// Tokens of this device are refused that were issued then or before.
    #[must_use]
    pub fn refused_until(&self, device: &DeviceId) -> TimestampMs {
        let of_its_own = self.revoked.iter().find(|revoked| revoked.device == *device);
        of_its_own.map_or(self.revoked_all_ms, |revoked| revoked.revoked_ms)
    }

    /// Logs a device out.
    pub fn revoke(&mut self, device: &DeviceId, now: TimestampMs) {
        self.named.retain(|named| named.device != *device);
        let revoked_ms = now.max(self.refused_until(device));
        self.set_refused_until(device, revoked_ms);
    }

    /// Logs all devices out, but for one.
    pub fn revoke_all(&mut self, but: Option<&DeviceId>, now: TimestampMs) {
        let kept = but.map(|device| (device, self.refused_until(device)));
        let latest = self.revoked.iter().map(|revoked| revoked.revoked_ms).max().unwrap_or_default();
        self.revoked_all_ms = now.max(self.revoked_all_ms).max(latest);
        self.revoked.clear();
        self.named.retain(|named| Some(&named.device) == but);
        if let Some((device, revoked_ms)) = kept {
            self.set_refused_until(device, revoked_ms);
        }
    }

    fn set_refused_until(&mut self, device: &DeviceId, revoked_ms: TimestampMs) {
        match self.revoked.binary_search_by(|revoked| revoked.device.cmp(device)) {
            Ok(place) => self.revoked[place].revoked_ms = revoked_ms,
            Err(place) => self.revoked.insert(place, RevokedDevice { device: device.clone(), revoked_ms }),
        }
    }

    /// Calls a device something; `None`: nothing any more.
    pub fn name(&mut self, device: &DeviceId, name: Option<&str>, now: TimestampMs) {
        match (self.named.binary_search_by(|named| named.device.cmp(device)), name) {
            (Ok(place), Some(name)) => name.clone_into(&mut self.named[place].name),
            (Ok(place), None) => drop(self.named.remove(place)),
            (Err(place), Some(name)) => {
                let named = NamedDevice { device: device.clone(), name: name.to_owned(), since_ms: now };
                self.named.insert(place, named);
            }
            (Err(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> DeviceId {
        DeviceId::new(name).expect("a device id")
    }

    fn refused(known: &KnownDevices) -> [u64; 3] {
        ["a", "b", "c"].map(|name| known.refused_until(&id(name)).0)
    }

    #[test]
    fn who_is_logged_out_stays_so() {
        let mut known = KnownDevices::default();
        known.name(&id("b"), Some("Tablet"), TimestampMs(1));
        known.name(&id("a"), Some("Phone"), TimestampMs(2));
        assert_eq!(refused(&known), [0; 3]);
        known.revoke(&id("b"), TimestampMs(10));
        assert_eq!((refused(&known), known.named.len()), ([0, 10, 0], 1));
        // All but one: of that one it holds what held before.
        known.revoke_all(Some(&id("b")), TimestampMs(20));
        assert_eq!((refused(&known), known.named.len()), ([20, 10, 20], 0));
        known.revoke_all(Some(&id("c")), TimestampMs(30));
        assert_eq!(refused(&known), [30, 30, 20]);
        known.revoke_all(None, TimestampMs(40));
        assert_eq!((refused(&known), known.revoked.len()), ([40; 3], 0));
        // A clock that was set back lets nobody in again.
        known.revoke(&id("a"), TimestampMs(5));
        assert_eq!(refused(&known), [40; 3]);
        known.revoke(&id("a"), TimestampMs(50));
        known.revoke_all(None, TimestampMs(45));
        assert_eq!(refused(&known), [50; 3]);
    }

    #[test]
    fn a_name_changes_and_goes() {
        let mut known = KnownDevices::default();
        for (name, now) in [(Some("Phone"), 1), (Some("Alice's phone"), 2)] {
            known.name(&id("a"), name, TimestampMs(now));
        }
        let text = r#"{"named":[{"device":"a","name":"Alice's phone","since_ms":1}],"revoked_all_ms":0}"#;
        assert_eq!(serde_json::to_string(&known).unwrap(), text);
        assert_eq!(serde_json::from_str::<KnownDevices>(text).unwrap(), known);
        known.name(&id("a"), None, TimestampMs(3));
        known.name(&id("b"), None, TimestampMs(3));
        assert_eq!(known, KnownDevices::default());
    }
}
