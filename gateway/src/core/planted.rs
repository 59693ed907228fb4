//! Bugs for the simulator to find, compiled only with the feature `planted` and off until a test switches them on for its thread.

use std::{cell::Cell, rc::Rc};

use antiphon_wire::ids::UserId;

use super::registry::Registry;

thread_local! {
    static TO_EVERYBODY: Cell<bool> = const { Cell::new(false) };
}

/// From now on, lanes of this thread deliver every entry to everybody who is online.
pub fn deliver_to_everybody(everybody: bool) {
    TO_EVERYBODY.set(everybody);
}

pub(super) fn recipients(recipients: Rc<[UserId]>, registry: &Registry) -> Rc<[UserId]> {
    if TO_EVERYBODY.get() { registry.users().into() } else { recipients }
}
