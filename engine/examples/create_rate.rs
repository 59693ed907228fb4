//! How fast conversations are made: durable creations over files in memory, where a write costs a copy.
//!
//! `cargo run --release -p antiphon-engine --features simulation --example create_rate [users] [members] [conversations] [batch]`. Every
//! creation is a group of `members` users next to each other; it prints creations a second and checks that each was acknowledged.

#![expect(
    clippy::disallowed_methods,
    reason = "a measurement reads the clock; the engine that it measures gets a clock of memory"
)]

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Waker},
    time::Instant,
};

use antiphon_engine::{
    Engine, EngineOptions,
    door::{Command, Done, Output, Refusal, Token},
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom, block_on},
};
use antiphon_wire::{
    codes::ErrorCode,
    ids::{ClientMessageId, UserId},
};

type Lane = Engine<MemoryFiles, MemoryClock, MemoryRandom>;

fn main() {
    let argument = |index: usize, default: usize| {
        std::env::args().nth(index).map_or(default, |text| text.parse().expect("a number"))
    };
    let (users, members) = (argument(1, 100_000), argument(2, 2));
    let (conversations, batch) = (argument(3, 500_000), argument(4, 64));
    let open = Engine::open(MemoryFiles::new(1), MemoryClock::new(1), MemoryRandom::new(1), EngineOptions::new(0));
    let (lane, _): (Lane, _) = block_on(open).expect("an empty folder opens");
    let (commits, maintenance) = (lane.clone(), lane.clone());
    let mut tasks: Vec<Pin<Box<dyn Future<Output = ()>>>> = vec![
        Box::pin(async move { commits.run_commits().await }),
        Box::pin(async move { maintenance.run_maintenance().await }),
    ];
    let names: Vec<UserId> =
        (0..users).map(|number| UserId::new(&format!("user-{number:06}")).expect("valid")).collect();
    let mut context = Context::from_waker(Waker::noop());
    let create = |number: usize| {
        // A stride that is no divisor, so that neighbours in a batch are far apart.
        let first = number.wrapping_mul(7919) % users;
        let others = (1..members).map(|next| names[(first + next) % users].clone()).collect();
        let (user, key) = (names[first].clone(), ClientMessageId((number as u128).to_le_bytes()));
        Command::CreateGroup { user, key, title: String::new(), members: others }
    };
    let (start, mut made, mut next, mut open) = (Instant::now(), 0, 0, 0);
    let mut again = Vec::new();
    while made < conversations {
        while open < batch && (next < conversations || !again.is_empty()) {
            let number = again.pop().unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            lane.submit(Token(number as u64), create(number));
            open += 1;
        }
        for task in &mut tasks {
            assert!(task.as_mut().poll(&mut context).is_pending());
        }
        while let Some(output) = lane.poll() {
            let Output::Answer { token, result } = output else { continue };
            open -= 1;
            match result {
                Ok(Done::Created { existing: false, .. }) => made += 1,
                // A flush is under way.
                Err(Refusal { code: ErrorCode::Overloaded, .. }) => again.push(token.0 as usize),
                other => panic!("{other:?}"),
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{conversations} conversations of {members} among {users} users, batches of {batch}: {:.0} a second, {:.2} us each; {} flushes",
        conversations as f64 / seconds,
        seconds / conversations as f64 * 1e6,
        lane.status().flushes,
    );
}
