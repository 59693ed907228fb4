//! How fast the engine's own work is: durable appends, then pages of 50 entries, over files in memory, where a write or a read costs a copy.
//!
//! `cargo run --release -p antiphon-engine --features simulation --example append_rate [batch] [conversations] [messages] [pages]`. It prints
//! what a message costs beyond the same writes made bare, and what a page costs, and checks that every message was acknowledged and every
//! page is whole. What a disk adds is measured by `cargo xtask bench`.

#![expect(
    clippy::disallowed_methods,
    reason = "a measurement reads the clock; the engine that it measures gets a clock of memory"
)]

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    task::{Context, Waker},
    time::Instant,
};

use antiphon_engine::{
    Engine, EngineOptions,
    door::{Command, Done, HistoryRange, Output, Token},
    memory_files::{MemoryClock, MemoryFiles, MemoryRandom, block_on},
    seams::{AlignedBuffer, File as _, Files as _, OpenMode},
};
use antiphon_wire::{
    codes::ErrorCode,
    frame::Content,
    ids::{ClientMessageId, ConversationId, Sequence, TimestampMs, UserId},
};

type Lane = Engine<MemoryFiles, MemoryClock, MemoryRandom>;

fn main() {
    let argument = |index: usize, default: u64| {
        std::env::args().nth(index).map_or(default, |text| text.parse().expect("a number"))
    };
    let (batch, conversations, messages) = (argument(1, 64), argument(2, 10_000), argument(3, 1_000_000));
    let pages_count = argument(4, 100_000);
    let options = EngineOptions { conversations_bytes_max: 1 << 30, ..EngineOptions::new(0) };
    let open = Engine::open(MemoryFiles::new(1), MemoryClock::new(1), MemoryRandom::new(1), options);
    let (lane, _): (Lane, _) = block_on(open).expect("an empty folder opens");
    let (commits, maintenance) = (lane.clone(), lane.clone());
    let mut tasks: Vec<Pin<Box<dyn Future<Output = ()>>>> = vec![
        Box::pin(async move { commits.run_commits().await }),
        Box::pin(async move { maintenance.run_maintenance().await }),
    ];
    let users: Vec<UserId> =
        (0..1000).map(|number| UserId::new(&format!("user-{number:06}")).expect("valid")).collect();
    let mut ids = Vec::new();
    for number in 0..conversations {
        let (user, key) = (users[number as usize % 1000].clone(), ClientMessageId(u128::from(number).to_le_bytes()));
        let members = vec![users[(number as usize + 1) % 1000].clone()];
        lane.submit(Token(number), Command::CreateGroup { user, key, title: String::new(), members });
        turn(&mut tasks);
        while let Some(output) = lane.poll() {
            if let Output::Answer { result, .. } = output {
                let Ok(Done::Created { conversation, .. }) = result else { panic!("{result:?}") };
                ids.push(conversation);
            }
        }
    }
    let engine = appends(&lane, &mut tasks, &ids, &users, batch, messages);
    let status = lane.status();
    let bare = bare(status.batch_bytes / status.batches.max(1), messages / batch);
    println!(
        "{messages} messages in {conversations} conversations, batches of {batch}: {:.0} a second, {:.0} ns each; bare writes of the same \
         batches {:.0} ns each; {} flushes and {} compactions in between",
        messages as f64 / engine,
        engine / messages as f64 * 1e9,
        bare / messages as f64 * 1e9,
        status.flushes,
        status.compactions,
    );
    for (name, latest) in [("latest", true), ("from anywhere", false)] {
        let elapsed = pages(&lane, &mut tasks, &ids, &users, messages / conversations, latest, pages_count);
        println!("{pages_count} pages of 50, {name}: {:.0} ns each", elapsed / pages_count as f64 * 1e9);
    }
}

fn turn(tasks: &mut [Pin<Box<dyn Future<Output = ()>>>]) {
    let mut context = Context::from_waker(Waker::noop());
    for task in tasks {
        assert!(task.as_mut().poll(&mut context).is_pending());
    }
}

fn appends(
    lane: &Lane,
    tasks: &mut [Pin<Box<dyn Future<Output = ()>>>],
    ids: &[ConversationId],
    users: &[UserId],
    batch: u64,
    messages: u64,
) -> f64 {
    let body = Content::text(&"x".repeat(200)).0;
    let command = |number: u64| {
        // A stride that is no divisor, so that neighbours in a batch are far apart.
        let at = (number as usize).wrapping_mul(7919) % ids.len();
        let id = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060);
        Command::Send {
            user: users[at % 1000].clone(),
            conversation: ids[at],
            client_message_id: ClientMessageId::timed(TimestampMs(1_790_000_000_000 + number / 100), id),
            body: body.clone(),
        }
    };
    let start = Instant::now();
    let mut acknowledged = 0;
    let mut fresh = 0..messages;
    // Flushes are behind: these are sent again, as clients do.
    let mut refused = VecDeque::new();
    while acknowledged < messages {
        for _ in 0..batch {
            let Some(number) = refused.pop_front().or_else(|| fresh.next()) else { break };
            lane.submit(Token(number), command(number));
        }
        turn(tasks);
        while let Some(output) = lane.poll() {
            if let Output::Answer { token, result } = output {
                match result {
                    Ok(_) => acknowledged += 1,
                    Err(refusal) if refusal.code == ErrorCode::Overloaded => refused.push_back(token.0),
                    Err(refusal) => panic!("{token:?}: {refusal:?}"),
                }
            }
        }
    }
    start.elapsed().as_secs_f64()
}

/// Pages of conversations by turns, one after the other: their latest, or such that end at some entry of theirs, of which each has `each`.
fn pages(
    lane: &Lane,
    tasks: &mut [Pin<Box<dyn Future<Output = ()>>>],
    ids: &[ConversationId],
    users: &[UserId],
    each: u64,
    latest: bool,
    count: u64,
) -> f64 {
    let start = Instant::now();
    for number in 0..count {
        let at = (number as usize).wrapping_mul(7919) % ids.len();
        let before = 2 + number.wrapping_mul(104_729) % each;
        let range = if latest { HistoryRange::Latest } else { HistoryRange::Before(Sequence(before)) };
        let expected = if latest { 50.min(each as usize) } else { 50.min(before as usize - 1) };
        let (user, conversation) = (users[at % 1000].clone(), ids[at]);
        lane.submit(Token(number), Command::History { user, conversation, range, limit: 50 });
        let mut pages = 0;
        while pages == 0 {
            turn(tasks);
            while let Some(output) = lane.poll() {
                if let Output::Answer { result: Ok(Done::History(page)), .. } = output {
                    assert!(page.entries.len() >= expected, "a page of {} entries, not {expected}", page.entries.len());
                    pages += 1;
                }
            }
        }
    }
    start.elapsed().as_secs_f64()
}

/// The same writes without an engine.
fn bare(bytes: u64, batches: u64) -> f64 {
    let files = MemoryFiles::new(2);
    block_on(async {
        let file = files.open("bare", OpenMode::Create).await.expect("a new file");
        let mut buffer = AlignedBuffer::zeroed(64 << 20);
        buffer = file.write_at(0, buffer).await.0;
        file.sync().await.expect("a sync in memory");
        let file = files.open("bare", OpenMode::Log).await.expect("it was made");
        buffer.resize(bytes as usize);
        let start = Instant::now();
        for number in 0..batches {
            let length = buffer.len() as u64;
            buffer = file.write_at(number * length % (48 << 20) / 4096 * 4096, buffer).await.0;
        }
        start.elapsed().as_secs_f64()
    })
}
