use antiphon_wire::frame::{AccountItem, JsonText, PRESENCE_KEY};
use antiphon_wire::ids::Sequence;

use super::*;

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn watcher(slot: u32) -> Watcher {
    Watcher { shard: ShardId((slot % 2) as u16), connection: MeshConnection { slot, generation: 1 } }
}

fn rule(value: Option<&str>) -> Rule {
    let item = |value: &str| AccountItem {
        key: PRESENCE_KEY.to_owned(),
        value: JsonText(value.to_owned()),
        sequence: Sequence(1),
        time_ms: TimestampMs(1),
    };
    Rule::of(&value.map(item).into_iter().collect::<Vec<_>>())
}

fn seen(name: &str, online: bool, last_seen: Option<u64>) -> UserPresence {
    UserPresence { user: user(name), online, last_seen_ms: last_seen.map(TimestampMs) }
}

/// A connection watches users of whom nobody is there, as far as nothing is known.
fn watch(presence: &mut Presence, slot: u32, observer: &str, users: &[UserId]) -> (Vec<UserPresence>, u32) {
    let watched = presence.watch(watcher(slot), &user(observer), users, |_| false);
    (watched.users, watched.watching)
}

/// What each connection is told in a tick.
fn tick(presence: &mut Presence) -> Vec<(u32, Vec<UserPresence>)> {
    let (mut all, mut ticked) = (Vec::new(), Ticked::Marking);
    while ticked == Ticked::Marking {
        let (told, how) = presence.tick(usize::MAX, 2);
        ticked = how;
        all.extend(told.into_iter().flat_map(slots));
    }
    assert_eq!(ticked, Ticked::Done);
    all.sort_by_key(|(slot, _)| *slot);
    all
}

fn slots(told: Told) -> Vec<(u32, Vec<UserPresence>)> {
    let users = |of: Vec<u32>| of.iter().map(|at| told.users[*at as usize].clone()).collect();
    told.connections.into_iter().map(|(connection, of)| (connection.slot, users(of))).collect()
}

fn came(presence: &mut Presence, name: &str, value: Option<&str>, now: u64) {
    if presence.came(&user(name)) {
        presence.ruled(&user(name), rule(value), TimestampMs(now));
    }
}

#[test]
fn who_watches_is_told_of_coming_and_going_once_a_tick() {
    let mut presence = Presence::default();
    let users = [user("ann"), user("cat")];
    assert_eq!(watch(&mut presence, 1, "bob", &users), (vec![seen("ann", false, None), seen("cat", false, None)], 2));
    came(&mut presence, "ann", None, 1);
    assert_eq!(tick(&mut presence), [(1, vec![seen("ann", true, None)])]);
    assert_eq!(tick(&mut presence), []);
    // Gone and back within a tick is nothing.
    presence.went(&user("ann"), TimestampMs(2));
    came(&mut presence, "ann", None, 3);
    assert_eq!(tick(&mut presence), []);
    presence.went(&user("ann"), TimestampMs(4));
    came(&mut presence, "cat", None, 5);
    assert_eq!(tick(&mut presence), [(1, vec![seen("ann", false, Some(4)), seen("cat", true, None)])]);
    // Who comes to watch is told at once, and the same way.
    assert_eq!(watch(&mut presence, 2, "dan", &users[..1]), (vec![seen("ann", false, Some(4))], 1));
    assert_eq!(presence.subscriptions(), 3);
    assert_eq!(watch(&mut presence, 2, "dan", &users[..1]).1, 1, "twice is once");
    assert_eq!(presence.unwatch(watcher(1), &users[..1]), 1);
    came(&mut presence, "ann", None, 6);
    assert_eq!(tick(&mut presence), [(2, vec![seen("ann", true, None)])]);
    presence.forget(watcher(2));
    presence.went(&user("ann"), TimestampMs(7));
    assert_eq!((tick(&mut presence), presence.subscriptions()), (vec![], 1));
}

#[test]
fn who_is_told_late_in_a_tick_is_told_what_is_so_then() {
    let mut presence = Presence::default();
    for slot in [0, 2, 4, 6, 8] {
        watch(&mut presence, slot, "bob", &[user("ann"), user("cat")]);
    }
    came(&mut presence, "ann", None, 1);
    came(&mut presence, "cat", None, 1);
    let next = |presence: &mut Presence, ticked: Ticked| {
        let (mut told, how) = presence.tick(1, 1);
        assert_eq!(how, ticked);
        slots(told.remove(0))
    };
    let both = |ann: UserPresence| vec![ann, seen("cat", true, None)];
    assert_eq!(next(&mut presence, Ticked::Telling), [(0, both(seen("ann", true, None)))]);
    presence.went(&user("ann"), TimestampMs(7));
    assert_eq!(next(&mut presence, Ticked::Telling), [(2, both(seen("ann", false, Some(7))))]);
    presence.unwatch(watcher(4), &[user("ann")]);
    assert_eq!(next(&mut presence, Ticked::Telling), [(4, vec![seen("cat", true, None)])]);
    // Another connection has the number of one that has gone, and is told nothing that was not its own.
    presence.forget(watcher(6));
    watch(&mut presence, 10, "dan", &[user("ann")]);
    assert_eq!(next(&mut presence, Ticked::Telling), []);
    assert_eq!(next(&mut presence, Ticked::Done), [(8, both(seen("ann", false, Some(7))))]);
    // Who was told before she went is told in the next tick.
    let told = tick(&mut presence);
    assert!(told.contains(&(0, vec![seen("ann", false, Some(7))])), "{told:?}");
    assert!(!presence.has_changes());
}

#[test]
fn who_was_told_between_a_change_and_a_tick_is_told_how_it_ends() {
    let mut presence = Presence::default();
    watch(&mut presence, 1, "bob", &[user("ann")]);
    came(&mut presence, "ann", None, 1);
    tick(&mut presence);
    presence.went(&user("ann"), TimestampMs(5));
    assert_eq!(watch(&mut presence, 2, "cat", &[user("ann")]).0, [seen("ann", false, Some(5))]);
    came(&mut presence, "ann", None, 6);
    assert_eq!(tick(&mut presence), [(2, vec![seen("ann", true, None)])], "bob knows nothing else");
    // The same where a tick tells somebody late.
    presence.went(&user("ann"), TimestampMs(7));
    watch(&mut presence, 4, "eve", &[user("zoe")]);
    came(&mut presence, "zoe", None, 7);
    let told = |presence: &mut Presence| presence.tick(1, 2).0.into_iter().flat_map(slots).collect::<Vec<_>>();
    assert_eq!(told(&mut presence).len(), 1, "the first of three");
    came(&mut presence, "ann", None, 8);
    presence.went(&user("ann"), TimestampMs(9));
    let all: Vec<_> = std::iter::repeat_with(|| told(&mut presence)).take(4).flatten().collect();
    let last = |slot| all.iter().rev().find(|(to, _)| *to == slot).map(|(_, users)| users.clone());
    for slot in [1, 2] {
        assert_eq!(last(slot), Some(vec![seen("ann", false, Some(9))]), "{slot}: {all:?}");
    }
    assert!(!presence.has_changes());
}

#[test]
fn nobody_sees_a_user_whose_rule_is_not_known() {
    let mut presence = Presence::default();
    watch(&mut presence, 1, "bob", &[user("ann")]);
    assert!(presence.came(&user("ann")));
    assert_eq!(tick(&mut presence), []);
    assert_eq!(watch(&mut presence, 2, "cat", &[user("ann")]).0, [seen("ann", false, None)]);
    presence.ruled(&user("ann"), rule(Some(r#"{"to":"nobody","allow":["cat"]}"#)), TimestampMs(5));
    assert_eq!(tick(&mut presence), [(2, vec![seen("ann", true, None)])]);
    presence.went(&user("ann"), TimestampMs(9));
    // It is known when she comes back.
    assert!(!presence.came(&user("ann")));
}

#[test]
fn nobody_sees_a_user_whose_rule_may_have_changed() {
    let mut presence = Presence::default();
    watch(&mut presence, 1, "bob", &[user("ann")]);
    came(&mut presence, "ann", None, 1);
    tick(&mut presence);
    presence.unsure(&user("ann"), TimestampMs(5));
    assert_eq!(tick(&mut presence), [(1, vec![seen("ann", false, Some(5))])]);
    presence.went(&user("ann"), TimestampMs(6));
    assert!(presence.came(&user("ann")), "it is looked up again");
    assert_eq!(tick(&mut presence), []);
    presence.ruled(&user("ann"), rule(None), TimestampMs(8));
    assert_eq!(tick(&mut presence), [(1, vec![seen("ann", true, None)])]);
    assert!(!presence.came(&user("ann")));
}

#[test]
fn who_is_left_out_sees_one_go_and_never_come_again() {
    let mut presence = Presence::default();
    for (slot, name) in [(1, "bob"), (2, "cat"), (3, "ann")] {
        watch(&mut presence, slot, name, &[user("ann")]);
    }
    came(&mut presence, "ann", None, 1);
    tick(&mut presence);
    presence.ruled(&user("ann"), rule(Some(r#"{"to":"everyone","deny":["bob"]}"#)), TimestampMs(10));
    assert_eq!(tick(&mut presence), [(1, vec![seen("ann", false, Some(10))])], "as if she had gone");
    presence.went(&user("ann"), TimestampMs(20));
    assert_eq!(tick(&mut presence), [(2, vec![seen("ann", false, Some(20))]), (3, vec![seen("ann", false, Some(20))])]);
    came(&mut presence, "ann", None, 30);
    presence.ruled(&user("ann"), rule(Some(r#"{"to":"nobody"}"#)), TimestampMs(40));
    // Between two ticks she came, and was there for cat until that moment.
    assert_eq!(tick(&mut presence), [(2, vec![seen("ann", false, Some(40))]), (3, vec![seen("ann", true, None)])]);
    let now = |presence: &mut Presence, name: &str| watch(presence, 9, name, &[user("ann")]).0.remove(0);
    assert_eq!(now(&mut presence, "bob"), seen("ann", false, Some(10)), "nothing that came later shows");
    assert_eq!(now(&mut presence, "cat"), seen("ann", false, Some(40)));
    presence.ruled(&user("ann"), rule(None), TimestampMs(50));
    assert_eq!(tick(&mut presence).len(), 3, "shown again, to bob and cat");
}

#[test]
fn a_user_whom_nobody_watches_costs_nothing_until_there_is_something_to_remember() {
    let mut presence = Presence::default();
    assert!(!presence.came(&user("ann")) && !presence.knows(&user("ann")));
    // Who watches one who is there learns of it when the rule is known, and of herself at once.
    let there = |name: &UserId| name.as_str() != "cat";
    let watched = presence.watch(watcher(1), &user("bob"), &["ann", "bob", "cat"].map(user), there);
    assert_eq!(watched.users, [seen("ann", false, None), seen("bob", true, None), seen("cat", false, None)]);
    assert_eq!(watched.asks, ["ann", "bob"].map(user), "of one who is not there nothing is to be seen anyway");
    let watched = presence.watch(watcher(2), &user("dan"), &[user("ann")], there);
    assert_eq!((watched.users, watched.asks), (vec![seen("ann", false, None)], vec![]), "it is under way");
    presence.ruled(&user("ann"), rule(None), TimestampMs(3));
    assert_eq!(tick(&mut presence), [(1, vec![seen("ann", true, None)]), (2, vec![seen("ann", true, None)])]);
    [1, 2].iter().for_each(|slot| presence.forget(watcher(*slot)));
    assert!(!presence.knows(&user("ann")), "she is there, and nobody looks");
    // When she has gone it is remembered, whatever her rule: that is looked up when somebody asks.
    presence.went(&user("ann"), TimestampMs(9));
    let watched = presence.watch(watcher(1), &user("bob"), &[user("ann")], |_| false);
    assert_eq!((watched.users, watched.asks), (vec![seen("ann", false, None)], vec![user("ann")]));
    presence.ruled(&user("ann"), rule(None), TimestampMs(12));
    assert_eq!(tick(&mut presence), [(1, vec![seen("ann", false, Some(9))])]);
}

#[test]
fn who_hides_unwatched_looks_as_one_who_has_gone_then() {
    let mut presence = Presence::default();
    // Bob has seen her, and looks away.
    presence.watch(watcher(1), &user("bob"), &[user("ann")], |_| true);
    presence.ruled(&user("ann"), rule(None), TimestampMs(1));
    tick(&mut presence);
    presence.forget(watcher(1));
    assert!(presence.will_change(&user("ann"), true), "what counted before is looked up");
    presence.ruled(&user("ann"), rule(None), TimestampMs(4));
    tick(&mut presence);
    presence.ruled(&user("ann"), rule(Some(r#"{"to":"nobody"}"#)), TimestampMs(5));
    presence.has_changed(&user("ann"));
    tick(&mut presence);
    assert_eq!(watch(&mut presence, 1, "bob", &[user("ann")]).0, [seen("ann", false, Some(5))]);
    assert!(!presence.will_change(&user("zoe"), false), "of one who is not there nothing is remembered");
    assert!(!presence.knows(&user("zoe")));
}

#[test]
fn a_change_of_rules_while_away_shows_to_nobody_who_may_not_see() {
    let mut presence = Presence::default();
    watch(&mut presence, 1, "bob", &[user("ann")]);
    came(&mut presence, "ann", Some(r#"{"to":"nobody"}"#), 1);
    for (now, value) in [(2, r#"{"to":"nobody","allow":["cat"]}"#), (3, r#"{"to":"contacts"}"#)] {
        presence.ruled(&user("ann"), rule(Some(value)), TimestampMs(now));
        presence.went(&user("ann"), TimestampMs(now));
        presence.came(&user("ann"));
    }
    assert_eq!(tick(&mut presence), []);
    assert_eq!(watch(&mut presence, 2, "bob", &[user("ann")]).0, [seen("ann", false, None)]);
}

#[test]
fn what_is_not_needed_any_more_is_forgotten() {
    let mut presence = Presence::default();
    for round in 0..3_u64 {
        for number in 0..(KEPT_MAX + 10) as u64 {
            let name = format!("u{number}");
            came(&mut presence, &name, None, round);
            presence.went(&user(&name), TimestampMs(round));
        }
        while presence.has_changes() {
            presence.tick(usize::MAX, 1);
        }
        assert_eq!(presence.users.len(), KEPT_MAX);
        watch(&mut presence, 1, "bob", &[user("nobody"), user("u3")]);
        presence.forget(watcher(1));
        assert_eq!((presence.users.len(), presence.watchers.len()), (KEPT_MAX, 0));
    }
}

#[test]
fn a_million_subscriptions_take_less_than_32_bytes_each() {
    let mut presence = Presence::default();
    let users: Vec<UserId> = (0..20_000).map(|number| user(&format!("u{number}"))).collect();
    for slot in 0..20_000_u32 {
        let watched: Vec<UserId> =
            (0..50).map(|at| users[(slot.wrapping_mul(7_919) + at * 401) as usize % users.len()].clone()).collect();
        watch(&mut presence, slot, "bob", &watched);
    }
    assert_eq!(presence.subscriptions(), 1_000_000);
    let each = presence.subscription_bytes() as f64 / 1e6;
    assert!((16.0..=32.0).contains(&each), "{each}");
}
