//! Bugs for the simulator to find, compiled only with the feature `planted` and off until a test switches them on for its thread.

use std::cell::Cell;

thread_local! {
    static FORGETS: Cell<bool> = const { Cell::new(false) };
}

/// From now on, engines opened by this thread know nothing of the messages' ids that were stored before.
pub fn forget_idempotency_at_open(forget: bool) {
    FORGETS.set(forget);
}

pub(crate) fn forgets() -> bool {
    FORGETS.get()
}
