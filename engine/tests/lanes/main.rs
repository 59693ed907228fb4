//! Stores whose number of lanes changes, again and again: nobody who asks can tell, but by positions.

mod adopted;
mod crash;
mod model;
mod old;
#[path = "../support/mod.rs"]
mod support;
mod world;
