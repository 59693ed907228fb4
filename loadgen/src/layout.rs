//! Who is in which conversation. A thread's users stand in layers: in each layer every user is in one conversation. `chat` has one
//! layer of equal groups; a mix has a layer of pairs and some of groups by a law of sizes. So a membership is one number,
//! `layer × users + place`, and neither lists of members nor of a user's conversations are kept.

use crate::{law::Sampler, random::Random};

/// Most layers: conversations that a user is in.
pub const LAYERS_MAX: u32 = 16;

/// What one layer is.
#[derive(Debug, Clone)]
pub enum Layer {
    /// Pairs, each a direct conversation.
    Direct,
    /// Groups of sizes that are drawn.
    Groups(Sampler),
}

#[derive(Debug, Clone, Copy)]
struct Shuffle {
    // Places are `user × multiplier + offset` modulo the users; the inverse leads back.
    multiplier: u64,
    inverse: u64,
    offset: u64,
}

/// The memberships of a thread's users.
#[derive(Debug)]
pub struct Layout {
    users: u32,
    shuffles: Vec<Shuffle>,
    direct: Vec<bool>,
    /// The first membership of each conversation, and the end.
    bounds: Vec<u32>,
    /// The first conversation of each layer.
    layer_starts: Vec<u32>,
}

impl Layout {
    /// Draws a layout. In the first layer neighbours are together; each further one is shuffled.
    #[must_use]
    pub fn new(users: u32, layers: &[Layer], random: &mut Random) -> Self {
        assert!(layers.len() <= LAYERS_MAX as usize, "a mix is checked before");
        let mut layout =
            Self { users, shuffles: Vec::new(), direct: Vec::new(), bounds: Vec::new(), layer_starts: Vec::new() };
        for (index, layer) in layers.iter().enumerate() {
            layout.layer_starts.push(layout.bounds.len() as u32);
            layout.shuffles.push(if index == 0 { Shuffle::NONE } else { Shuffle::draw(users, random) });
            layout.direct.push(matches!(layer, Layer::Direct));
            let end = (index as u32 + 1) * users;
            let mut next = index as u32 * users;
            while next < end {
                layout.bounds.push(next);
                next += match layer {
                    Layer::Direct => 2,
                    Layer::Groups(sizes) => sizes.draw(random).max(2),
                };
            }
        }
        layout.bounds.push(layers.len() as u32 * users);
        layout
    }

    /// How many layers.
    #[must_use]
    pub fn layers(&self) -> u32 {
        self.shuffles.len() as u32
    }

    /// How many conversations.
    #[must_use]
    pub fn conversations(&self) -> u32 {
        self.bounds.len() as u32 - 1
    }

    /// How many members each conversation has.
    pub fn sizes(&self) -> impl Iterator<Item = u32> {
        self.bounds.windows(2).map(|pair| pair[1] - pair[0])
    }

    /// A user's membership in a layer.
    #[must_use]
    pub fn member(&self, layer: u32, user: u32) -> u32 {
        layer * self.users + self.shuffles[layer as usize].place(user, self.users)
    }

    /// The conversation of a membership.
    #[must_use]
    pub fn conversation_of(&self, member: u32) -> u32 {
        self.bounds.partition_point(|&first| first <= member) as u32 - 1
    }

    /// The conversation that a user is in.
    #[must_use]
    pub fn conversation(&self, layer: u32, user: u32) -> u32 {
        self.conversation_of(self.member(layer, user))
    }

    /// The memberships of a conversation.
    #[must_use]
    pub fn members_of(&self, conversation: u32) -> std::ops::Range<u32> {
        self.bounds[conversation as usize]..self.bounds[conversation as usize + 1]
    }

    /// Whose membership it is.
    #[must_use]
    pub fn user(&self, member: u32) -> u32 {
        self.shuffles[(member / self.users) as usize].user(member % self.users, self.users)
    }

    /// The users of a conversation, the creator first.
    pub fn users_of(&self, conversation: u32) -> impl Iterator<Item = u32> + '_ {
        self.members_of(conversation).map(|member| self.user(member))
    }

    /// Who creates a conversation.
    #[must_use]
    pub fn creator(&self, conversation: u32) -> u32 {
        self.user(self.members_of(conversation).start)
    }

    /// Whether it is a direct conversation. A last user without a partner is in a group of their own.
    #[must_use]
    pub fn is_direct(&self, conversation: u32) -> bool {
        let members = self.members_of(conversation);
        self.direct[(members.start / self.users) as usize] && members.len() == 2
    }

    /// Whether a layer is of pairs.
    #[must_use]
    pub fn is_direct_layer(&self, layer: u32) -> bool {
        self.direct[layer as usize]
    }
}

impl Shuffle {
    const NONE: Self = Self { multiplier: 1, inverse: 1, offset: 0 };

    fn draw(users: u32, random: &mut Random) -> Self {
        let users = u64::from(users.max(1));
        loop {
            let multiplier = 1 + random.below(users);
            if let Some(inverse) = inverse(multiplier % users, users) {
                return Self { multiplier: multiplier % users, inverse, offset: random.below(users) };
            }
        }
    }

    fn place(self, user: u32, users: u32) -> u32 {
        ((u64::from(user) * self.multiplier + self.offset) % u64::from(users)) as u32
    }

    fn user(self, place: u32, users: u32) -> u32 {
        let users = u64::from(users);
        ((u64::from(place) + users - self.offset) % users * self.inverse % users) as u32
    }
}

/// The number that `value` times gives 1 modulo `modulus`, by Euclid's algorithm; `None` if they share a factor.
fn inverse(value: u64, modulus: u64) -> Option<u64> {
    let (mut remainder, mut next) = (modulus as i64, value as i64);
    let (mut factor, mut next_factor) = (0_i64, 1_i64);
    while next != 0 {
        let quotient = remainder / next;
        (remainder, next) = (next, remainder - quotient * next);
        (factor, next_factor) = (next_factor, factor - quotient * next_factor);
    }
    (remainder == 1).then(|| factor.rem_euclid(modulus as i64) as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn groups(law: &str) -> Layer {
        Layer::Groups(Sampler::new(law.parse().unwrap()))
    }

    #[test]
    fn every_user_is_once_in_every_layer_and_memberships_lead_back() {
        for users in [1, 2, 7, 40, 997, 1_000] {
            let layers = [groups("20"), Layer::Direct, groups("zipf:2..300:1.2"), groups("5")];
            let layout = Layout::new(users, &layers, &mut Random::new(5, 5));
            assert_eq!(layout.sizes().sum::<u32>(), 4 * users);
            for layer in 0..4 {
                let members: HashSet<u32> = (0..users).map(|user| layout.member(layer, user)).collect();
                assert_eq!(members.len(), users as usize);
                for user in 0..users {
                    let member = layout.member(layer, user);
                    let conversation = layout.conversation(layer, user);
                    assert_eq!(layout.user(member), user);
                    assert!(layout.members_of(conversation).contains(&member));
                    assert!(layout.users_of(conversation).any(|other| other == user));
                    assert!(!layout.is_direct(conversation) || layout.members_of(conversation).len() == 2);
                }
            }
        }
    }

    #[test]
    fn one_layer_of_equal_groups_is_in_order() {
        let layout = Layout::new(45, &[groups("20")], &mut Random::new(1, 1));
        assert_eq!(layout.sizes().collect::<Vec<_>>(), [20, 20, 5]);
        assert_eq!((layout.conversation(0, 19), layout.conversation(0, 20), layout.creator(2)), (0, 1, 40));
    }

    #[test]
    fn layers_bring_different_people_together() {
        let layout = Layout::new(1_000, &[groups("10"), groups("10")], &mut Random::new(2, 2));
        let (first, second): (HashSet<u32>, HashSet<u32>) = (
            layout.users_of(layout.conversation(0, 0)).collect(),
            layout.users_of(layout.conversation(1, 0)).collect(),
        );
        assert!(first.intersection(&second).count() <= 3, "{first:?} {second:?}");
    }

    #[test]
    fn no_layers_no_conversations() {
        let layout = Layout::new(10, &[], &mut Random::new(1, 1));
        assert_eq!((layout.layers(), layout.conversations()), (0, 0));
    }
}
