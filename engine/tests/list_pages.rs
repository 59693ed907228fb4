//! Pages of a user's conversations: bounded by items and by bytes, each leading on to the next, with nothing left out.

mod support;

use antiphon_engine::door::{Command, Done, Summary};
use antiphon_wire::{
    ids::ConversationId,
    limits::{PAGE_BYTES_MAX, TEXT_BYTES_MAX},
};
use support::{Lane, user};

fn page(lane: &mut Lane, after: Option<ConversationId>, limit: u32) -> (Vec<Summary>, bool) {
    match lane.ask(Command::Conversations { user: user("ann"), after, limit }) {
        Ok(Done::Conversations { conversations, more }) => (conversations, more),
        other => panic!("{other:?}"),
    }
}

/// The bytes of the last entries of a page.
fn bytes(page: &[Summary]) -> usize {
    page.iter().filter_map(|summary| Some(summary.last_entry.as_ref()?.len())).sum()
}

#[test]
fn a_page_of_long_last_entries_ends_early_and_leads_on() {
    let mut lane = Lane::new(1);
    let mut made: Vec<_> = (0..50).map(|key| lane.create_group("ann", key, &["bob"])).collect();
    for (number, id) in made.iter().enumerate() {
        // Some are short, so that pages do not all end at the same number of items.
        let length = if number % 7 == 0 { 10 } else { TEXT_BYTES_MAX };
        lane.sent("bob", *id, number as u64, &"x".repeat(length));
    }
    made.sort_unstable();
    let (mut listed, mut after, mut pages) = (Vec::new(), None, 0);
    loop {
        let (conversations, more) = page(&mut lane, after, 200);
        assert!(bytes(&conversations) <= PAGE_BYTES_MAX);
        assert!(conversations.iter().all(|summary| summary.last_entry.is_some()));
        let (next, _) = page(&mut lane, conversations.last().map(|last| last.conversation), 1);
        assert_eq!(more, !next.is_empty());
        assert!(bytes(&conversations) + bytes(&next) > PAGE_BYTES_MAX || !more, "a page is as long as it may be");
        listed.extend(conversations.iter().map(|summary| summary.conversation));
        (after, pages) = (listed.last().copied(), pages + 1);
        if !more {
            break;
        }
    }
    assert_eq!((listed, pages), (made, 3));
}

#[test]
fn short_entries_are_bounded_by_items_alone() {
    let mut lane = Lane::new(1);
    for key in 0..10 {
        lane.create_group("ann", key, &[]);
    }
    let (first, more) = page(&mut lane, None, 7);
    assert_eq!((first.len(), more), (7, true));
    let (rest, more) = page(&mut lane, first.last().map(|last| last.conversation), 7);
    assert_eq!((rest.len(), more), (3, false));
}
