//! A shard's logic without a driver: who is taken, who is refused, and what holds those who flood, dawdle or never read. Each test names
//! the limit that holds and checks the counter that shows it.

mod common;

mod account;
mod admission;
mod badges;
mod changes;
mod contents;
mod devices;
mod events;
mod fanout;
mod floods;
mod groups;
mod invites;
mod large;
mod operator;
mod presence;
mod receipts;
mod slow;
mod tokens;
