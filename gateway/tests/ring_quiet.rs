//! Quiet connections are watched by a poll instead of a receive, and nobody notices.

mod ring_common;

use std::{io::Write, net::Shutdown, thread, time::Duration};

use ring_common::{RawEcho, Running, eventually, pattern, round_trip};

const CONNECTIONS: usize = 60;

fn shard(buffers: u16) -> Running {
    Running::start(
        |config| {
            config.quiet_after = Duration::from_millis(60);
            config.receive_buffers = buffers;
            config.receive_buffer_bytes = 256;
        },
        |_| RawEcho::default(),
    )
}

fn all_quiet(shard: &Running, connections: usize) {
    eventually("everybody is quiet", || shard.counters.quiet.get() == connections as u64);
}

#[test]
fn what_comes_to_a_quiet_connection_is_read_whole() {
    let shard = shard(64);
    let mut streams: Vec<_> = (0..CONNECTIONS).map(|_| shard.connect()).collect();
    for round in 0..6 {
        all_quiet(&shard, CONNECTIONS);
        for (index, stream) in streams.iter_mut().enumerate() {
            // Less than a buffer, exactly one, many.
            let length = [1, 100, 256, 512, 5_000][(index + round) % 5];
            round_trip(stream, &pattern(index + round, length));
        }
    }
    all_quiet(&shard, CONNECTIONS);
}

#[test]
fn who_talks_again_has_a_receive_again() {
    let shard = shard(64);
    let mut stream = shard.connect();
    for round in 0..5 {
        all_quiet(&shard, 1);
        for number in 0..20 {
            round_trip(&mut stream, &pattern(round + number, 64));
        }
        eventually("it talks", || shard.counters.quiet.get() == 0);
    }
}

#[test]
fn a_lack_of_buffers_is_got_over() {
    let shard = shard(2);
    let streams: Vec<_> = (0..CONNECTIONS).map(|_| shard.connect()).collect();
    all_quiet(&shard, CONNECTIONS);
    thread::scope(|scope| {
        for (index, mut stream) in streams.into_iter().enumerate() {
            scope.spawn(move || {
                for round in 0..4 {
                    round_trip(&mut stream, &pattern(index + round, 3_000));
                    thread::sleep(Duration::from_millis(50));
                }
            });
        }
    });
    assert!(shard.counters.buffers_exhausted.get() > 0, "the test means to run out of buffers");
    eventually("all slots are free", || shard.counters.connections.get() == 0);
    assert_eq!(shard.counters.quiet.get(), 0);
}

#[test]
fn a_quiet_connection_that_ends_is_closed() {
    let shard = shard(64);
    let streams: Vec<_> = (0..CONNECTIONS).map(|_| shard.connect()).collect();
    all_quiet(&shard, CONNECTIONS);
    for (index, stream) in streams.into_iter().enumerate() {
        match index % 3 {
            0 => drop(stream),
            1 => socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap(),
            _ => {
                (&stream).write_all(b"last words").unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
            }
        }
    }
    eventually("all slots are free", || shard.counters.connections.get() == 0);
    assert_eq!(shard.counters.quiet.get(), 0);
}

#[test]
fn a_shard_with_quiet_connections_stops() {
    let shard = shard(64);
    let streams: Vec<_> = (0..CONNECTIONS).map(|_| shard.connect()).collect();
    all_quiet(&shard, CONNECTIONS);
    shard.stop();
    drop(streams);
}

#[test]
fn messages_that_meet_the_sweep_are_not_lost() {
    let shard = shard(64);
    let streams: Vec<_> = (0..8).map(|_| shard.connect()).collect();
    thread::scope(|scope| {
        for (index, mut stream) in streams.into_iter().enumerate() {
            scope.spawn(move || {
                // Around the time after which a connection counts as quiet, a little off each time.
                for round in 0..60_u64 {
                    round_trip(&mut stream, &pattern(index, 40));
                    thread::sleep(Duration::from_micros(50_000 + (round * 613 + index as u64 * 97) % 20_000));
                }
            });
        }
    });
}
