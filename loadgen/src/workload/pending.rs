//! Messages that wait for their acknowledgement. A message's place is its request id, so an acknowledgement finds it at once;
//! those of one connection form a list, so a reconnect finds what it has to send again.

use crate::clock::Nanoseconds;

/// No place.
pub const NONE: u32 = u32::MAX;

/// A message on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// The connection that sends it.
    pub sender: u32,
    /// Where to, among the thread's conversations.
    pub conversation: u32,
    /// Which of the thread's messages.
    pub number: u32,
    /// When it was meant to be sent.
    pub intended_ns: Nanoseconds,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    message: Message,
    previous: u32,
    next: u32,
    taken: bool,
}

/// All messages of a thread on their way.
#[derive(Debug, Default)]
pub struct Pending {
    places: Vec<Place>,
    free: Vec<u32>,
    count: usize,
}

impl Pending {
    /// Adds a message to the list that begins at `head`.
    pub fn add(&mut self, head: &mut u32, message: Message) -> u32 {
        let place = Place { message, previous: NONE, next: *head, taken: true };
        let index = match self.free.pop() {
            Some(index) => {
                self.places[index as usize] = place;
                index
            }
            None => {
                self.places.push(place);
                self.places.len() as u32 - 1
            }
        };
        if *head != NONE {
            self.places[*head as usize].previous = index;
        }
        *head = index;
        self.count += 1;
        index
    }

    /// The message at a place, if there is one.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<Message> {
        self.places.get(index as usize).filter(|place| place.taken).map(|place| place.message)
    }

    /// Takes the message out of its place and of the list that begins at `head`.
    pub fn remove(&mut self, head: &mut u32, index: u32) -> Option<Message> {
        let place = *self.places.get(index as usize).filter(|place| place.taken)?;
        if place.previous == NONE {
            *head = place.next;
        } else {
            self.places[place.previous as usize].next = place.next;
        }
        if place.next != NONE {
            self.places[place.next as usize].previous = place.previous;
        }
        self.places[index as usize].taken = false;
        self.free.push(index);
        self.count -= 1;
        Some(place.message)
    }

    /// The places of a list, oldest first.
    #[must_use]
    pub fn list(&self, head: u32) -> Vec<u32> {
        let next = |&index: &u32| Some(self.places[index as usize].next).filter(|&next| next != NONE);
        let mut list: Vec<u32> = std::iter::successors(Some(head).filter(|&head| head != NONE), next).collect();
        list.reverse();
        list
    }

    /// All messages.
    pub fn messages(&self) -> impl Iterator<Item = Message> {
        self.places.iter().filter(|place| place.taken).map(|place| place.message)
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_survive_removals_in_any_order_and_places_are_used_again() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut pending = Pending::default();
            let (mut head, mut other) = (NONE, NONE);
            let message = |number| Message { sender: 0, conversation: 0, number, intended_ns: 0 };
            let stays = pending.add(&mut other, message(9));
            let places = [0, 1, 2].map(|number| pending.add(&mut head, message(number)));
            assert_eq!(pending.list(head), places);
            for (done, number) in order.into_iter().enumerate() {
                let index = places[number as usize];
                assert_eq!(pending.remove(&mut head, index), Some(message(number)));
                assert_eq!((pending.remove(&mut head, index), pending.get(index)), (None, None));
                assert_eq!((pending.list(head).len(), pending.len()), (2 - done, 3 - done));
            }
            assert_eq!((head, pending.list(other)), (NONE, vec![stays]));
            assert!(places.contains(&pending.add(&mut head, message(3))));
        }
    }
}
