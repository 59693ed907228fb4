//! Which conversations are the busiest lately: two sketches of fixed size that a lane keeps, by messages and by pushes.
//!
//! Each is the space-saving sketch of Metwally, Agrawal and El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data Streams"
//! (ICDT 2005): a conversation without a place takes the one with the smallest count, and with it that count as its possible error. All counts
//! are halved once in a window, so that they forget. Invariants: a count is never told as more than what was counted; nothing here allocates
//! but a listing, and noting something looks at a quarter of a kilobyte, seldom at more. Must not do: read a clock.

use antiphon_wire::ids::ConversationId;

/// Conversations that a sketch has room for: many times what an operator looks at, and few enough to look through for each message.
const PLACES: usize = 64;

/// Places that are looked at together.
const PART: usize = 16;

/// Between two halvings: what is told is a mean of which half is of the last ten to twenty seconds.
const WINDOW_MS: u64 = 10_000;

/// After so many halvings nothing is left of any count that a lane can reach.
const HALVINGS_MAX: u64 = 63;

/// What a conversation gave its lane to do lately, per second. At least so much: what cannot be told from others is left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Busy {
    /// Which.
    pub conversation: ConversationId,
    /// Entries: messages, and whatever else takes a place in its order.
    pub messages_per_second: f64,
    /// Frames pushed for it, each as often as it has recipients.
    pub pushes_per_second: f64,
}

/// The busiest conversations of a lane.
#[derive(Debug, Default)]
pub struct Busiest {
    messages: Sketch,
    pushes: Sketch,
    /// When this window began. Monotonic.
    since_ms: u64,
    /// When counts are halved next; 0: nothing was counted yet.
    halve_at_ms: u64,
    /// How much time the halved counts of earlier windows stand for.
    before_ms: u64,
}

impl Busiest {
    /// Monotonic time goes on: to be called before something is noted.
    pub fn set_now(&mut self, now_ms: u64) {
        if now_ms >= self.halve_at_ms {
            self.halve(now_ms);
        }
    }

    /// An entry took its place in a conversation.
    pub fn note_message(&mut self, conversation: ConversationId) {
        self.messages.add(conversation, 1);
    }

    /// A frame of a conversation was pushed to so many.
    pub fn note_pushes(&mut self, conversation: ConversationId, recipients: u64) {
        self.pushes.add(conversation, recipients);
    }

    /// The `most` busiest by messages and by pushes each, those with the most pushes first.
    pub fn list(&mut self, now_ms: u64, most: usize) -> Vec<Busy> {
        self.set_now(now_ms);
        let seconds = (self.before_ms + (now_ms - self.since_ms)).max(1_000) as f64 / 1_000.0;
        let mut all: Vec<ConversationId> = self.messages.first(most).chain(self.pushes.first(most)).collect();
        all.sort_unstable();
        all.dedup();
        let busy = |conversation| Busy {
            conversation,
            messages_per_second: self.messages.count(conversation) as f64 / seconds,
            pushes_per_second: self.pushes.count(conversation) as f64 / seconds,
        };
        let mut all: Vec<Busy> = all.into_iter().map(busy).collect();
        all.sort_by(Busy::busier_first);
        all
    }

    #[cold]
    fn halve(&mut self, now_ms: u64) {
        if self.halve_at_ms == 0 {
            (self.since_ms, self.halve_at_ms) = (now_ms, now_ms + WINDOW_MS);
            return;
        }
        let windows = 1 + (now_ms - self.halve_at_ms) / WINDOW_MS;
        self.messages.halve(windows.min(HALVINGS_MAX));
        self.pushes.halve(windows.min(HALVINGS_MAX));
        self.since_ms = self.halve_at_ms + (windows - 1) * WINDOW_MS;
        self.halve_at_ms = self.since_ms + WINDOW_MS;
        for _ in 0..windows.min(HALVINGS_MAX) {
            self.before_ms = (self.before_ms + WINDOW_MS) / 2;
        }
    }
}

impl Busy {
    /// The order in which an operator reads them: most pushes, then most messages, first.
    #[must_use]
    pub fn busier_first(&self, other: &Self) -> std::cmp::Ordering {
        let by_pushes = other.pushes_per_second.total_cmp(&self.pushes_per_second);
        by_pushes.then(other.messages_per_second.total_cmp(&self.messages_per_second))
    }
}

/// Places with a count each; one whose count is 0 is free.
#[derive(Debug)]
struct Sketch {
    /// By which a place is found: the last four bytes of its conversation's id, which are those of a digest.
    tags: [u32; PLACES],
    counts: [u64; PLACES],
    /// How much of each count may be others'.
    errors: [u64; PLACES],
    conversations: [ConversationId; PLACES],
    /// No count is below it, and where one that is no more than it is looked for next.
    least: u64,
    hand: usize,
}

impl Default for Sketch {
    fn default() -> Self {
        Self {
            tags: [0; PLACES],
            counts: [0; PLACES],
            errors: [0; PLACES],
            conversations: [ConversationId([0; 16]); PLACES],
            least: 0,
            hand: 0,
        }
    }
}

impl Sketch {
    fn add(&mut self, conversation: ConversationId, count: u64) {
        if let Some(place) = self.place_of(conversation) {
            self.counts[place] = self.counts[place].saturating_add(count);
            return;
        }
        let smallest = self.smallest();
        self.tags[smallest] = tag(conversation);
        self.conversations[smallest] = conversation;
        self.errors[smallest] = self.counts[smallest];
        self.counts[smallest] = self.counts[smallest].saturating_add(count);
    }

    fn place_of(&self, conversation: ConversationId) -> Option<usize> {
        let tag = tag(conversation);
        // All of a part at once: a compiler makes a few instructions of that.
        let parts = self.tags.chunks_exact(PART).enumerate();
        let mut found = parts.filter(|(_, tags)| tags.iter().fold(false, |is_there, other| is_there | (*other == tag)));
        let is_it = |place: &usize| self.tags[*place] == tag && self.conversations[*place] == conversation;
        found.find_map(|(part, _)| (part * PART..(part + 1) * PART).find(is_it))
    }

    /// A place with the smallest count. Many have it where there are more conversations than places, so the next is near.
    fn smallest(&mut self) -> usize {
        loop {
            for _ in 0..PLACES {
                let place = self.hand;
                self.hand = (place + 1) % PLACES;
                if self.counts[place] <= self.least {
                    return place;
                }
            }
            self.least = self.counts.iter().copied().min().unwrap_or_default();
        }
    }

    /// What was counted for a conversation for certain.
    fn count(&self, conversation: ConversationId) -> u64 {
        self.place_of(conversation).map_or(0, |place| self.counts[place] - self.errors[place])
    }

    /// The conversations of which most was counted for certain.
    fn first(&self, most: usize) -> impl Iterator<Item = ConversationId> {
        let certain = |place: &usize| self.counts[*place] - self.errors[*place];
        let mut places: Vec<usize> = (0..PLACES).filter(|place| certain(place) > 0).collect();
        places.sort_by_key(|place| std::cmp::Reverse(certain(place)));
        places.into_iter().take(most).map(|place| self.conversations[place])
    }

    fn halve(&mut self, times: u64) {
        for (count, error) in self.counts.iter_mut().zip(&mut self.errors) {
            // Rounded apart, so that what is certain stays so.
            let certain = (*count - *error) >> times;
            *count >>= times;
            *error = *count - certain.min(*count);
        }
        self.least = 0;
    }
}

fn tag(conversation: ConversationId) -> u32 {
    let [.., a, b, c, d] = conversation.0;
    u32::from_le_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(number: u64) -> ConversationId {
        let mut bytes = [7; 16];
        // Some have the same tag.
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[12..].copy_from_slice(&(number as u32 / 2).to_le_bytes());
        ConversationId(bytes)
    }

    #[test]
    fn the_busiest_is_first_and_rates_are_per_second() {
        let mut busiest = Busiest::default();
        busiest.set_now(5_000);
        for number in 1..=20 {
            for _ in 0..number {
                busiest.note_message(conversation(number));
            }
        }
        busiest.note_pushes(conversation(3), 1_000);
        let list = busiest.list(7_000, 5);
        let numbers: Vec<ConversationId> = list.iter().map(|busy| busy.conversation).collect();
        assert_eq!(numbers, [3, 20, 19, 18, 17, 16].map(conversation));
        assert_eq!((list[0].pushes_per_second, list[0].messages_per_second), (500.0, 1.5));
        assert_eq!((list[1].pushes_per_second, list[1].messages_per_second), (0.0, 10.0));
    }

    #[test]
    fn a_heavy_one_stays_among_thousands_and_is_not_told_as_more_than_it_is() {
        let mut busiest = Busiest::default();
        busiest.set_now(1);
        for round in 0..2_000 {
            busiest.note_message(conversation(1));
            for light in 0..5 {
                busiest.note_message(conversation(100 + round * 5 + light));
            }
        }
        let list = busiest.list(1, 10);
        assert_eq!(list[0].conversation, conversation(1));
        assert!(list[0].messages_per_second <= 2_000.0 && list[0].messages_per_second > 1_500.0, "{list:?}");
        // Ten thousand that said one thing each: none of them is told to have said more.
        assert!(list[1..].iter().all(|busy| busy.messages_per_second <= 1.0), "{list:?}");
    }

    #[test]
    fn what_was_is_forgotten_by_halves_and_a_steady_rate_is_told_as_it_is() {
        let mut busiest = Busiest::default();
        let rates: Vec<f64> = (0..60)
            .map(|second| {
                busiest.set_now(1_000 * second);
                (0..40).for_each(|_| busiest.note_message(conversation(1)));
                busiest.list(1_000 * second + 999, 1)[0].messages_per_second
            })
            .collect();
        assert!(rates.iter().all(|rate| (39.5..40.5).contains(rate)), "{rates:?}");
        let later: Vec<f64> = (0..4)
            .map(|windows| {
                busiest.list(70_000 + 10_000 * windows, 1).first().map_or(0.0, |one| one.messages_per_second)
            })
            .collect();
        assert!(later.windows(2).all(|pair| pair[1] <= pair[0] / 2.0 + 1.0), "{later:?}");
        assert!(busiest.list(10_000_000, 1).is_empty());
        // Far beyond the last halving, time goes on as before.
        busiest.note_message(conversation(2));
        assert_eq!(busiest.list(10_000_001, 1)[0].conversation, conversation(2));
    }

    #[test]
    fn halving_keeps_what_is_certain_within_the_count() {
        let mut sketch = Sketch::default();
        for number in 0..200 {
            sketch.add(conversation(number), number);
        }
        for times in [1, 1, 2, 63] {
            sketch.halve(times);
            assert!(sketch.counts.iter().zip(&sketch.errors).all(|(count, error)| error <= count));
        }
        assert_eq!(sketch.counts, [0; PLACES]);
    }
}
