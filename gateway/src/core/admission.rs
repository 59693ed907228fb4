//! Whom a shard takes: token buckets for new connections, of the node and of each source address, and a bound on the connections that an
//! address holds.
//!
//! Each shard judges by itself, with its share of the node's limits ([`Rate::share`] says why that is right enough): nothing is shared on
//! the way of a connection. The order of the checks is from the narrow to the wide, so that an address which is over its limit takes
//! nothing from the others'. Memory is bounded whoever comes:
//!
//! - **Buckets of addresses** stand in [`SETS`] sets of [`WAYS`]. A full bucket is as good as none, so its place is free; an address that
//!   connects once holds a place for one token's time. A newcomer to a set without a free place takes that of the fullest bucket, but never
//!   that of one which is at least half empty: whoever is being limited stays limited. If all of a set are, newcomers to it share one
//!   bucket. So an attacker with a million addresses gains no memory and frees nobody of his limit; he can make newcomers to a set share by
//!   holding eight of its addresses at half their burst, and sets are chosen by a hash with a secret, so that he must do it to all
//!   of them, with some four thousand addresses a shard. Exempt addresses are not touched by it.
//! - **Connections of an address** are counted in [`COUNTERS`] counters, chosen by the same hash; a connection keeps two bytes, the
//!   counter's number. Addresses that share a counter share its bound, so a bound must be far above the mean, which is connections of the
//!   shard / [`COUNTERS`]; without collisions it would take sixteen bytes for each address.
//!
//! Must not do: read a clock, look at bytes, or decide by anything but addresses, rates and counts.

use std::{net::IpAddr, num::NonZeroU16};

use super::{
    address::{Blocks, Source},
    rate::Rate,
};

/// Buckets of one set: two pairs of cache lines.
const WAYS: usize = 8;

/// Sets, a power of two. 4,096 buckets of 16 bytes are 64 KiB a shard: at the default rate two shards keep up with two million addresses a
/// second before a set fills.
const SETS: usize = 512;

/// Counters of connections by address, a power of two below 2^16: 128 KiB a shard, and only where there is a bound.
const COUNTERS: usize = 1 << 15;

/// Tokens that a handshake costs which comes to nothing: a bad request, a token that is refused, nothing before the timeout. It takes ten
/// times what a good one takes: a slot for seconds, or the check of a signature without a session to show for it.
pub const FAILURE_TOKENS: u32 = 9;

/// The header in which a proxy tells its client's address. Only one is believed: a proxy passes on the other as the client sent it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, a list of addresses.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// What a shard is told of admission at its start. Rates and bounds are the shard's share. The default limits nothing.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// New connections of everybody.
    pub node: Rate,
    /// New connections of one address.
    pub address: Rate,
    /// Connections that an address may hold; 0: any number.
    pub connections_per_address_max: u32,
    /// Addresses that no limit by address holds for.
    pub exempt: Blocks,
    /// Proxies whose word on their clients' addresses is taken, in `forwarded_header`.
    pub forwarded_from: Blocks,
    /// Where their word stands.
    pub forwarded_header: ForwardedHeader,
    /// A secret, so that nobody can choose addresses that meet in a set.
    pub seed: u64,
}

/// A shard's share of a bound on connections, with the same allowance for chance as [`Rate::share`]. 0: any number.
#[must_use]
pub fn share_of_connections(max: u32, shards: u16) -> u32 {
    let mean = f64::from(max) / f64::from(shards.max(1));
    if shards <= 1 { max } else { (mean + 4.0 * mean.sqrt()).ceil() as u32 }
}

/// Why a connection is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The shard holds as many as it may.
    Full,
    /// The node is going away.
    Draining,
    /// The node is near its memory limit.
    Memory,
    /// The node takes no more for this second.
    NodeRate,
    /// The address comes too often.
    AddressRate,
    /// The address holds as many as it may.
    AddressConnections,
}

impl Refusal {
    /// All of them, in the order of [`Refusal::index`].
    pub const ALL: [Self; 6] =
        [Self::Full, Self::Draining, Self::Memory, Self::NodeRate, Self::AddressRate, Self::AddressConnections];

    /// Its place in a table of counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The status of the HTTP answer: 429 if it is about the address, 503 if about the node.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::AddressRate | Self::AddressConnections => 429,
            Self::Full | Self::Draining | Self::Memory | Self::NodeRate => 503,
        }
    }
}

/// A refusal, and in how many seconds another attempt makes sense at the earliest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub why: Refusal,
    /// When.
    pub after_seconds: u32,
}

/// The counter that a connection is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place(NonZeroU16);

/// Who answers for a connection that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payer {
    /// Nobody: the address is exempt.
    Exempt,
    /// This one; it has paid.
    Source(Source),
    /// A proxy's client, who is known with the request's head: [`Admission::forwarded`] is to be asked then.
    Forwarded,
}

/// A shard's admission.
#[derive(Debug)]
pub struct Admission {
    rules: Rules,
    node_full_at_ns: u64,
    buckets: Buckets,
    counters: Box<[u32]>,
}

impl Admission {
    /// Nobody has come yet.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let counters = if rules.connections_per_address_max > 0 { COUNTERS } else { 0 };
        Self {
            node_full_at_ns: 0,
            buckets: Buckets::new(rules.address, rules.seed),
            counters: vec![0; counters].into(),
            rules,
        }
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Connections of addresses for which there was no bucket of their own.
    #[must_use]
    pub fn untracked(&self) -> u64 {
        self.buckets.untracked
    }

    /// A connection came from `peer`. If it is taken and has a place, [`Admission::left`] is to be called at its end.
    pub fn accepted(&mut self, peer: IpAddr, now_ns: u64) -> Result<(Payer, Option<Place>), Refused> {
        let (payer, place) =
            if self.rules.forwarded_from.contain(peer) { (Payer::Forwarded, None) } else { self.charge(peer, now_ns)? };
        self.rules.node.spend(&mut self.node_full_at_ns, now_ns).map_err(|wait_ns| {
            self.left(place);
            Refused { why: Refusal::NodeRate, after_seconds: seconds(wait_ns) }
        })?;
        Ok((payer, place))
    }

    /// A proxy said that `client` is behind a connection which it opened.
    pub fn forwarded(&mut self, client: IpAddr, now_ns: u64) -> Result<(Payer, Option<Place>), Refused> {
        self.charge(client, now_ns)
    }

    /// A handshake came to nothing.
    pub fn failed(&mut self, payer: Payer, now_ns: u64) {
        if let Payer::Source(source) = payer {
            self.buckets.fine(source, now_ns, FAILURE_TOKENS);
        }
    }

    /// A connection that was counted at `place` is gone.
    pub fn left(&mut self, place: Option<Place>) {
        if let Some(counter) = place.and_then(|Place(place)| self.counters.get_mut(usize::from(place.get()) - 1)) {
            *counter = counter.checked_sub(1).expect("a connection leaves where it was counted");
        }
    }

    fn charge(&mut self, address: IpAddr, now_ns: u64) -> Result<(Payer, Option<Place>), Refused> {
        if self.rules.exempt.contain(address) {
            return Ok((Payer::Exempt, None));
        }
        let source = Source::from(address);
        let counter = hash(source, self.rules.seed) as usize & (COUNTERS - 1);
        if self.counters.get(counter).is_some_and(|count| *count >= self.rules.connections_per_address_max) {
            return Err(Refused { why: Refusal::AddressConnections, after_seconds: 0 });
        }
        self.buckets
            .spend(source, now_ns)
            .map_err(|wait_ns| Refused { why: Refusal::AddressRate, after_seconds: seconds(wait_ns) })?;
        let place = self.counters.get_mut(counter).and_then(|count| {
            *count += 1;
            NonZeroU16::new(counter as u16 + 1).map(Place)
        });
        Ok((Payer::Source(source), place))
    }
}

fn seconds(wait_ns: u64) -> u32 {
    u32::try_from(wait_ns / 1_000_000_000).unwrap_or(u32::MAX)
}

/// SplitMix64's last steps over the source and a secret.
const fn hash(source: Source, seed: u64) -> u64 {
    let mut value = source.bits() ^ seed;
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(seed);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    source: u64,
    /// Past or 0: the place is free.
    full_at_ns: u64,
}

/// The buckets of addresses.
#[derive(Debug)]
struct Buckets {
    rate: Rate,
    seed: u64,
    buckets: Box<[[Bucket; WAYS]]>,
    /// By set: the bucket of those that found no place.
    shared: Box<[u64]>,
    untracked: u64,
}

impl Buckets {
    fn new(rate: Rate, seed: u64) -> Self {
        let sets = if rate.is_limited() { SETS } else { 0 };
        let buckets = vec![[Bucket::default(); WAYS]; sets].into();
        Self { rate, seed, buckets, shared: vec![0; sets].into(), untracked: 0 }
    }

    fn spend(&mut self, source: Source, now_ns: u64) -> Result<(), u64> {
        if !self.rate.is_limited() {
            return Ok(());
        }
        let rate = self.rate;
        let set = self.set(source);
        match self.own(source, now_ns) {
            Some(full_at_ns) => rate.spend(full_at_ns, now_ns),
            None => {
                self.untracked += 1;
                rate.spend(&mut self.shared[set], now_ns)
            }
        }
    }

    /// Those who share a bucket are not fined for each other.
    fn fine(&mut self, source: Source, now_ns: u64, tokens: u32) {
        let rate = self.rate;
        if let Some(full_at_ns) = self.own(source, now_ns).filter(|_| rate.is_limited()) {
            rate.fine(full_at_ns, now_ns, tokens);
        }
    }

    fn set(&self, source: Source) -> usize {
        (hash(source, self.seed) >> 32) as usize & (SETS - 1)
    }

    /// The source's bucket: the one it has, or the place of one that may be forgotten.
    fn own(&mut self, source: Source, now_ns: u64) -> Option<&mut u64> {
        let set = self.set(source);
        let rate = self.rate;
        let ways = self.buckets.get_mut(set)?;
        let known = ways.iter().position(|bucket| bucket.source == source.bits() && bucket.full_at_ns > now_ns);
        let (way, is_new) = match known {
            Some(way) => (way, false),
            None => (ways.iter().enumerate().min_by_key(|(_, bucket)| bucket.full_at_ns)?.0, true),
        };
        let bucket = &mut ways[way];
        if is_new {
            if rate.is_low(bucket.full_at_ns, now_ns) {
                return None;
            }
            *bucket = Bucket { source: source.bits(), full_at_ns: 0 };
        }
        Some(&mut bucket.full_at_ns)
    }
}

#[cfg(test)]
mod tests;
