//! Bugs for the simulator to find, compiled only with the feature `planted` and off until a test switches them on for its thread.

use std::cell::Cell;

thread_local! {
    static FORGETS: Cell<bool> = const { Cell::new(false) };
    static IGNORES_CHECKSUMS: Cell<bool> = const { Cell::new(false) };
    static TRUSTS_THE_CLOCK: Cell<bool> = const { Cell::new(false) };
}

/// From now on, engines opened by this thread know nothing of the messages' ids that were stored before.
pub fn forget_idempotency_at_open(forget: bool) {
    FORGETS.set(forget);
}

/// From now on, blocks of segments are used whatever their checksum says; and are not compressed, because who decompresses one meets most of
/// what is wrong with it, too.
pub fn ignore_checksums(ignore: bool) {
    IGNORES_CHECKSUMS.set(ignore);
}

pub(crate) fn ignores_checksums() -> bool {
    IGNORES_CHECKSUMS.get()
}

/// From now on, an entry's time is what the clock says.
pub fn trust_the_clock(trust: bool) {
    TRUSTS_THE_CLOCK.set(trust);
}

pub(crate) fn trusts_the_clock() -> bool {
    TRUSTS_THE_CLOCK.get()
}

pub(crate) fn forgets() -> bool {
    FORGETS.get()
}
