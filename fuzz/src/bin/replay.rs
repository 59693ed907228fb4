//! Feeds every file of `corpus/NAME` to target NAME once. Fails if a target has no corpus, and by panic if a file breaks its target.

use std::{
    fs, panic,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
};

/// The file that is being fed.
static CURRENT: Mutex<Option<PathBuf>> = Mutex::new(None);

fn main() -> ExitCode {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if let Some(path) = CURRENT.lock().ok().and_then(|mut current| current.take()) {
            eprintln!("{} breaks its target:", path.display());
        }
        report(info);
    }));
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut empty = Vec::new();
    for (name, target) in antiphon_fuzz::TARGETS {
        let mut count = 0;
        let entries = fs::read_dir(corpora.join(name)).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()).filter(|path| path.is_file()) {
            let data = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            *CURRENT.lock().expect("only a panic holds it on") = Some(path);
            target(&data);
            count += 1;
        }
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
