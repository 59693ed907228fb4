//! The registry: which connections a user has, on which shard, by device. Every lane's shard keeps one for its own deliveries; the
//! user's home lane alone decides that a second connection of a device replaces the first.
//!
//! A route stands here exactly while the session is caught up with the lane: what is committed meanwhile is pushed to it.

use std::collections::{HashMap, hash_map::Entry};

use antiphon_wire::ids::{DeviceId, UserId};

use super::mesh::{MeshConnection, ShardId};

/// A way to one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its device.
    pub device: DeviceId,
    /// Its connection's shard.
    pub shard: ShardId,
    /// Its connection there.
    pub connection: MeshConnection,
}

/// Nearly all users have one session, which costs no allocation of its own.
#[derive(Debug)]
enum Routes {
    One(Route),
    Many(Vec<Route>),
}

/// All sessions that one lane delivers to.
#[derive(Debug, Default)]
pub struct Registry {
    users: HashMap<UserId, Routes>,
    sessions: usize,
}

impl Registry {
    /// Adds a route. Where `replaces` is set, a route of the same device is taken out and given back: its session is to end.
    pub fn attach(&mut self, user: UserId, route: Route, replaces: bool) -> Option<Route> {
        self.sessions += 1;
        let routes = match self.users.entry(user) {
            Entry::Vacant(vacant) => {
                vacant.insert(Routes::One(route));
                return None;
            }
            Entry::Occupied(occupied) => occupied.into_mut(),
        };
        let mut list = match std::mem::replace(routes, Routes::Many(Vec::new())) {
            Routes::One(one) => vec![one],
            Routes::Many(many) => many,
        };
        let same = list.iter().position(|old| replaces && old.device == route.device);
        let replaced = same.map(|index| list.remove(index));
        self.sessions -= usize::from(replaced.is_some());
        list.push(route);
        *routes = if list.len() == 1 { Routes::One(list.remove(0)) } else { Routes::Many(list) };
        replaced
    }

    /// Takes out the route to a connection, if it is still there; whether it was.
    pub fn detach(&mut self, user: &UserId, shard: ShardId, connection: MeshConnection) -> bool {
        let Some(routes) = self.users.get_mut(user) else { return false };
        let is_it = |route: &Route| route.shard == shard && route.connection == connection;
        let empty = match routes {
            Routes::One(route) => is_it(route),
            Routes::Many(list) => {
                let before = list.len();
                list.retain(|route| !is_it(route));
                let removed = before - list.len();
                self.sessions -= removed;
                match list.len() {
                    0 => {
                        self.users.remove(user);
                    }
                    1 => *routes = Routes::One(list.remove(0)),
                    _ => {}
                }
                return removed > 0;
            }
        };
        if empty {
            self.sessions -= 1;
            self.users.remove(user);
        }
        empty
    }

    /// Whether a user has a session.
    #[must_use]
    pub fn has(&self, user: &UserId) -> bool {
        self.users.contains_key(user)
    }

    /// The user's sessions.
    pub fn routes(&self, user: &UserId) -> &[Route] {
        match self.users.get(user) {
            None => &[],
            Some(Routes::One(route)) => std::slice::from_ref(route),
            Some(Routes::Many(list)) => list,
        }
    }

    /// Everybody, in order.
    #[cfg(feature = "planted")]
    pub fn users(&self) -> Vec<UserId> {
        let mut users: Vec<UserId> = self.users.keys().cloned().collect();
        users.sort();
        users
    }

    /// How many sessions there are.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.sessions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).expect("a user id")
    }

    fn route(device: &str, slot: u32) -> Route {
        Route {
            device: DeviceId::new(device).expect("a device id"),
            shard: ShardId(0),
            connection: MeshConnection { slot, generation: 0 },
        }
    }

    #[test]
    fn a_second_connection_of_a_device_replaces_the_first_at_home_only() {
        let mut registry = Registry::default();
        assert_eq!(registry.attach(user("a"), route("phone", 1), true), None);
        assert_eq!(registry.attach(user("a"), route("laptop", 2), true), None);
        assert_eq!(registry.attach(user("a"), route("phone", 3), true), Some(route("phone", 1)));
        assert_eq!(registry.routes(&user("a")).len(), 2);
        assert_eq!(registry.attach(user("a"), route("phone", 4), false), None);
        assert_eq!((registry.routes(&user("a")).len(), registry.sessions()), (3, 3));
    }

    #[test]
    fn detach_names_one_connection() {
        let mut registry = Registry::default();
        registry.attach(user("a"), route("phone", 1), true);
        for (name, shard, generation) in [("a", 0, 9), ("a", 1, 0), ("b", 0, 0)] {
            assert!(!registry.detach(&user(name), ShardId(shard), MeshConnection { slot: 1, generation }));
        }
        assert_eq!(registry.routes(&user("a")), [route("phone", 1)]);
        registry.attach(user("a"), route("laptop", 2), true);
        assert!(registry.detach(&user("a"), ShardId(0), MeshConnection { slot: 1, generation: 0 }));
        assert_eq!(registry.routes(&user("a")), [route("laptop", 2)]);
        assert!(registry.detach(&user("a"), ShardId(0), MeshConnection { slot: 2, generation: 0 }));
        assert_eq!((registry.routes(&user("a")), registry.sessions()), (&[] as &[Route], 0));
    }
}
