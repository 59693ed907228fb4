//! Every file of the fuzzers' corpora, and many made-up ones, without a fuzzer. `GOLDEN_WRITE=1` adds the golden vectors, and lives of
//! sessions, as corpus files that are missing.

use std::{fs, path::PathBuf};

use antiphon_wire::fuzzing;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 5] = [
    ("json_request", fuzzing::fuzz_json_request),
    ("json_server", fuzzing::fuzz_json_server),
    ("binary_request", fuzzing::fuzz_binary_request),
    ("binary_server", fuzzing::fuzz_binary_server),
    ("session", fuzzing::fuzz_session),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn golden(prefix: &str, extension: &str) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for file in fs::read_dir(root().join("wire/tests/golden/v1")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if let Some(name) = name.strip_prefix(prefix)
            && path.extension().is_some_and(|other| other == extension)
        {
            let text = fs::read_to_string(&path).unwrap();
            let bytes = if extension == "hex" { unhex(&text) } else { text.trim_end().as_bytes().to_vec() };
            files.push((name.to_owned(), bytes));
        }
    }
    files
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// A session that starts, is welcomed, and then lives by `seed`.
fn life(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![seed as u8, 0, 21, 0, 3, 2, 100];
    let mut state = seed;
    for _ in 0..length {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bytes.push((state >> 56) as u8);
    }
    bytes
}

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    match target {
        "json_request" => golden("request-", "json"),
        "json_server" => golden("server-", "json"),
        "binary_request" => golden("request-", "hex"),
        "binary_server" => golden("server-", "hex"),
        _ => (0..12).map(|seed| (format!("life-{seed}"), life(seed, 300))).collect(),
    }
}

#[test]
fn corpora_pass() {
    for (name, target) in TARGETS {
        let folder = root().join("fuzz/corpus").join(name);
        if std::env::var_os("GOLDEN_WRITE").is_some() {
            fs::create_dir_all(&folder).unwrap();
            for (seed, bytes) in seeds(name) {
                if !folder.join(&seed).exists() {
                    fs::write(folder.join(&seed), bytes).unwrap();
                }
            }
        }
        let mut count = 0;
        for file in fs::read_dir(&folder).unwrap_or_else(|_| panic!("no corpus of {name}")) {
            let path = file.unwrap().path();
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count >= 10, "{name} has {count} files");
    }
}

#[test]
fn made_up_lives_pass() {
    for seed in 0..500 {
        println!("seed {seed}");
        fuzzing::fuzz_session(&life(seed, 2_000));
    }
}
