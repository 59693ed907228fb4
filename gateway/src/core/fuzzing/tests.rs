//! The fuzz targets over their committed corpora, and over corruptions of them.

use std::path::Path;

use super::{fuzz_http, fuzz_proxy, fuzz_websocket, scramble, seed};

/// Runs `target` over every file of a corpus, and over copies with one byte changed or the end cut off.
fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is committed") {
        let data = std::fs::read(entry.expect("a folder that can be listed").path()).expect("a file that can be read");
        target(&data);
        let mut random = seed(&data);
        for _ in 0..40 {
            random = scramble(random);
            let mut changed = data.clone();
            let index = (random >> 16) as usize % data.len().max(1);
            if let Some(byte) = changed.get_mut(index) {
                *byte ^= random as u8;
            }
            target(&changed);
            changed.truncate(index);
            target(&changed);
        }
        count += 1;
    }
    assert!(count >= 10, "{name} has only {count} files");
}

#[test]
fn http_holds_over_its_corpus() {
    run("http", fuzz_http);
}

#[test]
fn proxy_holds_over_its_corpus() {
    run("proxy", fuzz_proxy);
}

#[test]
fn websocket_holds_over_its_corpus() {
    run("websocket", fuzz_websocket);
}
