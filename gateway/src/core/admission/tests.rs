//! Who is taken, who is not, and what is remembered of whom.

use super::*;
use crate::core::address::Block;

const SECOND_NS: u64 = 1_000_000_000;

fn blocks(texts: &[&str]) -> Blocks {
    texts.iter().map(|text| text.parse::<Block>().unwrap()).collect()
}

fn address(number: u32) -> IpAddr {
    IpAddr::V4(number.into())
}

/// How many of `tries` connections of one address are taken.
fn taken(admission: &mut Admission, address: IpAddr, now_ns: u64, tries: u32) -> u32 {
    (0..tries).map(|_| u32::from(admission.accepted(address, now_ns).is_ok())).sum()
}

fn limited(per_second: u32, burst: u32) -> Rules {
    Rules { address: Rate::share(per_second, burst, 1), seed: 7, ..Rules::default() }
}

#[test]
fn an_address_has_its_burst_and_its_rate_and_others_theirs() {
    let mut admission = Admission::new(limited(5, 20));
    let peer: IpAddr = "2001:db8::1".parse().unwrap();
    let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
    assert_eq!(taken(&mut admission, peer, SECOND_NS, 12), 12);
    assert_eq!(taken(&mut admission, neighbour, SECOND_NS, 12), 8, "a /64 is one source");
    let refused = admission.accepted(peer, SECOND_NS).unwrap_err();
    assert_eq!((refused.why, refused.why.status(), refused.after_seconds), (Refusal::AddressRate, 429, 0));
    assert_eq!(taken(&mut admission, address(1), SECOND_NS, 30), 20);
    assert_eq!(taken(&mut admission, peer, 3 * SECOND_NS, 30), 10);
}

#[test]
fn the_default_limits_nobody_and_owns_no_tables() {
    let mut admission = Admission::new(Rules::default());
    assert_eq!(taken(&mut admission, address(1), 0, 100_000), 100_000);
    admission.failed(Payer::Source(address(1).into()), 0);
    assert_eq!((admission.buckets.buckets.len(), admission.counters.len()), (0, 0));
}

#[test]
fn exempt_addresses_are_bound_by_the_nodes_rate_alone() {
    let mut admission = Admission::new(Rules {
        node: Rate::share(100, 100, 1),
        exempt: blocks(&["10.0.0.0/8"]),
        connections_per_address_max: 2,
        ..limited(1, 5)
    });
    let balancer = "::ffff:10.1.2.3".parse().unwrap();
    assert_eq!(admission.accepted(balancer, SECOND_NS), Ok((Payer::Exempt, None)));
    assert_eq!(taken(&mut admission, balancer, SECOND_NS, 200), 99);
    let refused = admission.accepted(balancer, SECOND_NS).unwrap_err();
    assert_eq!((refused.why, refused.why.status()), (Refusal::NodeRate, 503));
}

#[test]
fn what_an_address_is_refused_it_does_not_take_from_the_node() {
    let mut admission = Admission::new(Rules { node: Rate::share(10, 10, 1), ..limited(1, 4) });
    assert_eq!(taken(&mut admission, address(1), SECOND_NS, 1_000), 4);
    assert_eq!(taken(&mut admission, address(2), SECOND_NS, 4), 4);
}

#[test]
fn a_handshake_that_fails_costs_ten_times_one_that_does_not() {
    let mut admission = Admission::new(limited(1, 100));
    let mut failed = 0;
    while let Ok((payer, _)) = admission.accepted(address(9), SECOND_NS) {
        admission.failed(payer, SECOND_NS);
        failed += 1;
    }
    assert_eq!(failed, 10);
    assert_eq!(admission.accepted(address(9), 2 * SECOND_NS).map(|_| ()), Ok(()));
}

#[test]
fn connections_of_an_address_are_counted_until_they_leave() {
    let mut admission =
        Admission::new(Rules { connections_per_address_max: 3, node: Rate::share(4, 4, 1), ..Rules::default() });
    let places: Vec<_> = (0..3).map(|_| admission.accepted(address(1), SECOND_NS).unwrap().1).collect();
    assert_eq!(admission.accepted(address(1), SECOND_NS).unwrap_err().why, Refusal::AddressConnections);
    admission.left(places[0]);
    assert!(admission.accepted(address(1), SECOND_NS).is_ok());
    // Refused by the node's rate, it is not counted either.
    assert_eq!(admission.accepted(address(2), SECOND_NS).unwrap_err().why, Refusal::NodeRate);
    assert_eq!(admission.counters.iter().sum::<u32>(), 3);
    assert_eq!(size_of::<Option<Place>>(), 2, "what a connection pays for it");
    assert_eq!((share_of_connections(100, 1), share_of_connections(0, 60), share_of_connections(60, 60)), (100, 0, 5));
}

#[test]
fn a_proxys_clients_pay_for_themselves() {
    let mut admission = Admission::new(Rules { forwarded_from: blocks(&["192.0.2.1"]), ..limited(1, 2) });
    let proxy = "192.0.2.1".parse().unwrap();
    assert_eq!(taken(&mut admission, proxy, SECOND_NS, 50), 50);
    assert_eq!(admission.accepted(proxy, SECOND_NS), Ok((Payer::Forwarded, None)));
    let charged = (0..5).filter(|_| admission.forwarded(address(3), SECOND_NS).is_ok()).count();
    assert_eq!(charged, 2);
    assert!(admission.forwarded(address(4), SECOND_NS).is_ok());
}

#[test]
fn a_million_addresses_gain_no_memory_and_free_nobody_of_his_limit() {
    let mut admission = Admission::new(limited(1, 10));
    let limited: Vec<IpAddr> = (0..64).map(address).collect();
    for peer in &limited {
        assert_eq!(taken(&mut admission, *peer, SECOND_NS, 50), 10);
    }
    let places = admission.buckets.buckets.len() * WAYS;
    for number in 0..1_000_000 {
        let _ = admission.accepted(address(1_000 + number), SECOND_NS);
    }
    assert_eq!(admission.buckets.buckets.len() * WAYS, places);
    for peer in &limited {
        assert!(admission.accepted(*peer, SECOND_NS).is_err(), "{peer} got rid of its limit");
    }
    assert_eq!(admission.untracked(), 0, "an address that came once makes room");
}

#[test]
fn newcomers_to_a_set_of_limited_addresses_share_one_bucket() {
    let mut admission = Admission::new(limited(1, 10));
    let set_of = |admission: &Admission, number: u32| admission.buckets.set(address(number).into());
    let set = set_of(&admission, 0);
    let same: Vec<u32> = (0..60_000).filter(|number| set_of(&admission, *number) == set).take(WAYS + 30).collect();
    assert_eq!(same.len(), WAYS + 30);
    for number in &same[..WAYS] {
        assert_eq!(taken(&mut admission, address(*number), SECOND_NS, 50), 10);
    }
    let newcomers: u32 = same[WAYS..].iter().map(|number| taken(&mut admission, address(*number), SECOND_NS, 1)).sum();
    assert_eq!((newcomers, admission.untracked()), (10, 30));
    assert!(same[..WAYS].iter().all(|number| admission.accepted(address(*number), SECOND_NS).is_err()));
    // When those have filled by half, they can be forgotten again.
    assert_eq!(taken(&mut admission, address(same[WAYS]), 7 * SECOND_NS, 50), 10);
}
