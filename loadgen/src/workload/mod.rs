//! What client threads do: [`worker`] is one of them, in parts: [`connections`] come and come back, [`groups`] are made,
//! [`security`] is TLS, [`sending`] follows the plan of arrivals, [`receiving`] looks at every frame, [`presence`] is who watches whom, [`verify`] reads
//! histories at the end; [`echo`] takes the place of the last five where there are no sessions. [`large`] are members of one very large group.
//!
//! A thread owns whole groups, so that whatever is to be compared (a send, its acknowledgement, its deliveries) is seen by one
//! thread and nothing is shared. The client here is not `wire::session`: that machine puts things in order and drops duplicates
//! before an application sees them, and a generator that measures a node has to see what the node really sent. It reconnects,
//! resumes and retries by the same rules.

pub mod connections;
pub mod content;
pub mod control;
pub mod echo;
pub mod groups;
pub mod large;
pub mod pending;
pub mod plan;
pub mod presence;
pub mod receiving;
pub mod security;
pub mod sending;
pub mod verify;
pub mod worker;
