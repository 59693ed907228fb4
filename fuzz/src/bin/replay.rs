//! Feeds every file of `corpus/NAME` to target NAME once. Fails if a target has no corpus, and by panic if a file breaks its target.

use std::{fs, path::Path, process::ExitCode};

fn main() -> ExitCode {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut empty = Vec::new();
    for (name, target) in antiphon_fuzz::TARGETS {
        let mut count = 0;
        let entries = fs::read_dir(corpora.join(name)).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| path.is_file()) {
            let data = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            // Named first: if the next line panics, this is the file.
            eprint!("\r{name}: {}\x1b[K", path.file_name().unwrap_or_default().to_string_lossy());
            target(&data);
            count += 1;
        }
        eprint!("\r\x1b[K");
        println!("{name}: {count} files");
        if count == 0 {
            empty.push(*name);
        }
    }
    if empty.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("no corpus for {}", empty.join(", "));
    ExitCode::FAILURE
}
