//! What permessage-deflate costs: CPU per message compressed and inflated, and what it saves, for JSON texts of several sizes.
//!
//! The texts are pushes and pages of history as a node sends them, with ids that do not compress and words that do. Each result is
//! checked by a round trip through the decoder that connections use. Times are of this thread's CPU, medians over rounds.

use std::{fs, hint::black_box};

use antiphon_gateway::core::websocket::{
    Decoder, Deflater, Event, Inflater, Limits, MessageKind, Role, encode_message, extension::Agreed,
};
use anyhow::{Context, ensure};

/// What is measured.
pub(crate) struct Plan {
    /// Messages of a round.
    pub(crate) messages: usize,
    /// Rounds.
    pub(crate) rounds: usize,
    /// For the texts.
    pub(crate) seed: u64,
}

/// Bytes of a text, about: one push without much in it, one with a long message, a page of history.
const SIZES: [usize; 6] = [100, 200, 300, 500, 1_024, 16_384];

/// zlib's levels.
const LEVELS: [i32; 4] = [1, 2, 4, 6];

/// Different texts of each size, so that no branch is learned by heart.
const TEXTS: usize = 64;

const WORDS: &str = "the of and to a in is it you that he was for on are with as I his they be at one have this from or had by hot but \
    some what there we can out other were all your when up use word how said an each she which do their time if will way about many \
    then them would write like so these her long make thing see him two has look more day could go come did my sound no most number \
    who over know water than call first people may down side been now find meeting tomorrow lunch thanks okay great deploy review";

pub(crate) fn run(plan: &Plan) -> anyhow::Result<()> {
    println!("seed      {}", plan.seed);
    println!("messages  {} a round, {} rounds, medians; times are CPU of one thread\n", plan.messages, plan.rounds);
    println!("| JSON text | level | compressed | ratio | compress | inflate | plain frame and decode |");
    println!("|---|---|---|---|---|---|---|");
    let mut random = Random(plan.seed);
    for size in SIZES {
        let texts: Vec<String> = (0..TEXTS).map(|_| text(size, &mut random)).collect();
        for level in LEVELS {
            row(plan, &texts, level)?;
        }
    }
    Ok(())
}

fn row(plan: &Plan, texts: &[String], level: i32) -> anyhow::Result<()> {
    let agreed = Agreed::new(15).expect("the largest window");
    let (mut deflater, mut inflater) = (Deflater::new(0).with_level(level), Inflater::default());
    let plain: Vec<Vec<u8>> =
        texts.iter().map(|text| encode_message(MessageKind::Text, text.as_bytes(), None)).collect();
    let compressed: Vec<Vec<u8>> = plain
        .iter()
        .map(|frame| deflater.frame(agreed, frame).map_or_else(|| frame.clone(), |frame| frame.to_vec()))
        .collect();
    for (frame, text) in compressed.iter().zip(texts) {
        ensure!(decoded(frame, Some(&mut inflater)) == text.as_bytes(), "a text does not survive");
    }
    // A page is rarer than a push: the same time for each size.
    let messages = (plan.messages * 1_024 / texts[0].len().max(1_024)).max(TEXTS);
    let per_message = |work: &mut dyn FnMut(usize)| -> anyhow::Result<f64> {
        let mut rounds = Vec::new();
        for _ in 0..plan.rounds {
            let start = cpu_ns()?;
            (0..messages).for_each(|index| work(index % TEXTS));
            rounds.push((cpu_ns()? - start) as f64 / messages as f64 / 1_000.0);
        }
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied().context("there are no rounds")
    };
    let compress = per_message(&mut |index| {
        black_box(deflater.frame(agreed, &plain[index]));
    })?;
    let inflate = per_message(&mut |index| {
        black_box(decoded(&compressed[index], Some(&mut inflater)));
    })?;
    let neither = per_message(&mut |index| {
        let frame = encode_message(MessageKind::Text, texts[index].as_bytes(), None);
        black_box(decoded(&frame, None));
    })?;
    let sum = |frames: &[Vec<u8>]| frames.iter().map(Vec::len).sum::<usize>() as f64 / TEXTS as f64;
    let (before, after) = (sum(&plain), sum(&compressed));
    println!(
        "| {before:.0} B | {level} | {after:.0} B | {:.2} | {compress:.2} µs | {inflate:.2} µs | {neither:.2} µs |",
        before / after
    );
    Ok(())
}

/// What a client makes of a server's frame. The decoder wants bytes that it may change, so both ways of sending pay for a copy.
fn decoded(frame: &[u8], inflater: Option<&mut Inflater>) -> Vec<u8> {
    let mut bytes = frame.to_vec();
    let mut input = bytes.as_mut_slice();
    let mut decoder = Decoder::new(Role::Client);
    match decoder.poll_inflating(&mut input, &Limits::default(), inflater) {
        Ok(Some(Event::Message { payload, .. })) => payload.to_vec(),
        other => panic!("{other:?}"),
    }
}

/// A push, or a page of as many entries as fit, about `size` bytes long.
fn text(size: usize, random: &mut Random) -> String {
    let entry = |words: usize, random: &mut Random| {
        let body: Vec<&str> = (0..words).map(|_| random.word()).collect();
        let (sequence, time) = (random.next() % 100_000, 1_700_000_000_000 + random.next() % 100_000_000_000);
        format!(
            r#"{{"sequence":{sequence},"time_ms":{time},"sender":"{}","text":"{}"}}"#,
            random.word(),
            body.join(" ")
        )
    };
    if size <= 120 {
        return entry(4, random);
    }
    let mut entries = Vec::new();
    let words = |bytes: usize| (bytes / 5).clamp(4, 40);
    let mut left = size - 70;
    while left > 40 {
        let next = entry(words(left.saturating_sub(70).min(200)), random);
        left = left.saturating_sub(next.len() + 1);
        entries.push(next);
    }
    let (high, low) = (random.next(), random.next());
    format!(r#"{{"message":{{"conversation":"{high:016x}-{low:016x}","entries":[{}]}}}}"#, entries.join(","))
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn word(&mut self) -> &'static str {
        let count = WORDS.split_whitespace().count() as u64;
        // Common words are common: the square of an even distribution.
        let even = self.next() % count;
        let index = even * (self.next() % count) / count;
        WORDS.split_whitespace().nth(index as usize).unwrap_or("word")
    }
}

/// CPU time of this thread, in nanoseconds. The kernel brings it up to date at least once a tick, small beside a round.
fn cpu_ns() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").context("the kernel keeps no schedstat")?;
    Ok(text.split_whitespace().next().context("schedstat is empty")?.parse()?)
}
