//! Who watches whom: pairs of a watcher and a user, by numbers, to be found from both ends and taken out in constant time.
//!
//! Invariant: a link at place `p` of a watcher's list names the user and a place `q` of the user's list, whose link names the watcher and `p`.

/// One end of a pair.
#[derive(Debug, Clone, Copy)]
struct Link {
    /// The number of the one at the other end.
    other: u32,
    /// The place of the twin in the other's list.
    place: u32,
}

/// All pairs.
#[derive(Debug, Default)]
pub(super) struct Links {
    of_watchers: Vec<Vec<Link>>,
    of_users: Vec<Vec<Link>>,
    count: u64,
}

impl Links {
    /// Adds a pair, if it is not there.
    pub(super) fn add(&mut self, watcher: u32, user: u32) {
        grow(&mut self.of_watchers, watcher);
        grow(&mut self.of_users, user);
        let (watched, watchers) = (&mut self.of_watchers[watcher as usize], &mut self.of_users[user as usize]);
        if watched.iter().any(|link| link.other == user) {
            return;
        }
        let (here, there) = (watched.len() as u32, watchers.len() as u32);
        watched.push(Link { other: user, place: there });
        watchers.push(Link { other: watcher, place: here });
        self.count += 1;
    }

    /// Takes a pair out; whether it was there.
    pub(super) fn remove(&mut self, watcher: u32, user: u32) -> bool {
        let watched = self.of_watchers.get(watcher as usize).map_or(&[][..], |links| links);
        let found = watched.iter().position(|link| link.other == user);
        if let Some(place) = found {
            self.take(watcher, place);
        }
        found.is_some()
    }

    /// Takes one of a watcher's pairs out; the user in it.
    pub(super) fn remove_last(&mut self, watcher: u32) -> Option<u32> {
        let last = self.of_watchers.get(watcher as usize)?.len().checked_sub(1);
        let Some(last) = last else {
            // Its number is given to another, who may watch few.
            self.of_watchers[watcher as usize] = Vec::new();
            return None;
        };
        Some(self.take(watcher, last))
    }

    /// How many users a watcher watches.
    pub(super) fn watched(&self, watcher: u32) -> u32 {
        self.of_watchers.get(watcher as usize).map_or(0, |links| links.len() as u32)
    }

    /// Who watches a user.
    pub(super) fn watchers(&self, user: u32) -> impl Iterator<Item = u32> {
        self.of_users.get(user as usize).into_iter().flatten().map(|link| link.other)
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let lists = self.of_watchers.iter().chain(&self.of_users);
        lists.map(|links| links.capacity() * size_of::<Link>()).sum()
    }

    /// Takes out the pair at a place of a watcher's list; the user in it.
    fn take(&mut self, watcher: u32, place: usize) -> u32 {
        let watched = &mut self.of_watchers[watcher as usize];
        let link = watched.swap_remove(place);
        if let Some(moved) = watched.get(place) {
            self.of_users[moved.other as usize][moved.place as usize].place = place as u32;
        }
        let watchers = &mut self.of_users[link.other as usize];
        watchers.swap_remove(link.place as usize);
        match watchers.get(link.place as usize) {
            Some(moved) => self.of_watchers[moved.other as usize][moved.place as usize].place = link.place,
            None if watchers.is_empty() => *watchers = Vec::new(),
            None => {}
        }
        self.count -= 1;
        link.other
    }
}

fn grow(lists: &mut Vec<Vec<Link>>, number: u32) {
    if lists.len() <= number as usize {
        lists.resize_with(number as usize + 1, Vec::new);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pairs_are_those_of_a_set(steps in proptest::collection::vec((0..3_u8, 0..6_u32, 0..6_u32), 0..200)) {
            let (mut links, mut model) = (Links::default(), BTreeSet::new());
            for (what, watcher, user) in steps {
                match what {
                    0 => {
                        links.add(watcher, user);
                        model.insert((watcher, user));
                    }
                    1 => prop_assert_eq!(links.remove(watcher, user), model.remove(&(watcher, user))),
                    _ => {
                        let removed: BTreeSet<u32> = std::iter::from_fn(|| links.remove_last(watcher)).collect();
                        let of_watcher = model.iter().filter(|pair| pair.0 == watcher).map(|pair| pair.1);
                        prop_assert_eq!(removed, of_watcher.collect::<BTreeSet<_>>());
                        model.retain(|pair| pair.0 != watcher);
                    }
                }
                prop_assert_eq!(links.count(), model.len() as u64);
                for number in 0..6 {
                    let watchers: BTreeSet<u32> = links.watchers(number).collect();
                    let of_user = model.iter().filter(|pair| pair.1 == number).map(|pair| pair.0);
                    prop_assert_eq!(watchers, of_user.collect::<BTreeSet<_>>());
                    let watched = model.iter().filter(|pair| pair.0 == number).count();
                    prop_assert_eq!(links.watched(number) as usize, watched);
                }
            }
        }
    }
}
