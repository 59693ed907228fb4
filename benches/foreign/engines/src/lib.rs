//! The allocator that the engines of this package share. Each program opens its engine as its documentation advises for
//! data that must be durable, and leaves what is asked, measured and checked to `antiphon-bench-store`. Nothing here is
//! part of Antiphon; nothing but the comparison runs it.

/// The node's own allocator: engines are compared, not allocators.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
