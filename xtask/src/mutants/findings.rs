//! Reads from what a suite printed which of its tests or seeds found a bug, and what it said.

/// Longest words of a finding that are kept.
const SAID_CHARACTERS_MAX: usize = 240;

/// What found a bug.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// A test with its binary, or a seed.
    pub(super) by: String,
    /// Its words.
    pub(super) said: String,
}

/// The first failed test in the output of `cargo test`: the test harness writes to standard output, cargo to standard error.
pub(super) fn failure_of_tests(stdout: &str, stderr: &str) -> Failure {
    // error: test failed, to rerun pass `-p antiphon-engine --test model`
    let rerun = stderr.split_once("to rerun pass `").and_then(|(_, rest)| rest.split('`').next()).unwrap_or_default();
    let binary = match rerun.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["-p", package, "--test", name, ..] => format!("{}, {name}", short(package)),
        ["-p", package, "--lib", ..] => format!("{}, unit tests", short(package)),
        ["-p", package, ..] => short(package).to_owned(),
        _ => "cargo test".to_owned(),
    };
    let failed = stdout.lines().filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"));
    match failed.min_by_key(|name| stdout.find(&format!("---- {name} stdout ----")).unwrap_or(usize::MAX)) {
        Some(name) => {
            let section = stdout.split_once(&format!("---- {name} stdout ----")).map_or("", |(_, rest)| rest);
            Failure { by: format!("{binary}: {name}"), said: panic_words(section) }
        }
        // The process ended by itself: a signal, or a panic within a panic.
        None => Failure { by: binary, said: clipped(last_words(stderr)) },
    }
}

/// The seed in the simulator's output.
pub(super) fn failure_of_simulator(stdout: &str, stderr: &str) -> Failure {
    let told = stdout.lines().find_map(|line| line.strip_prefix("seed ")?.split_once(" breaks a promise: "));
    match told {
        Some((seed, said)) => Failure { by: format!("simulator, seed {seed}"), said: clipped(said) },
        None => Failure { by: "simulator".to_owned(), said: clipped(last_words(stderr)) },
    }
}

/// The last line that says something.
pub(super) fn last_words(text: &str) -> &str {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing")
}

fn short(package: &str) -> &str {
    package.strip_prefix("antiphon-").unwrap_or(package)
}

/// What the first panic in a test's output says, in one line; its place if it says nothing.
fn panic_words(section: &str) -> String {
    let mut lines = section.lines().skip_while(|line| !line.contains(" panicked at "));
    let place = lines.next().and_then(|line| line.split_once(" panicked at ")).map_or("", |(_, place)| place);
    let words = lines.take_while(|line| !line.starts_with("note: ") && !line.starts_with("---- "));
    let words: Vec<&str> = words.map(str::trim).filter(|line| !line.is_empty()).take(4).collect();
    if words.is_empty() { clipped(place.trim_end_matches(':')) } else { clipped(&words.join(" ")) }
}

fn clipped(text: &str) -> String {
    let mut characters = text.trim().chars();
    let kept: String = characters.by_ref().take(SAID_CHARACTERS_MAX).collect();
    if characters.next().is_some() { format!("{kept}…") } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_test_is_named_with_its_words() {
        let stdout = "running 2 tests\ntest good ... ok\ntest deep::bad ... FAILED\n\nfailures:\n\n---- deep::bad stdout ----\n\n\
                      thread 'deep::bad' (7) panicked at engine/tests/model.rs:1:2:\nassertion `left == right` failed: seed 3\n  \
                      left: 1\n right: 2\nnote: run with\n\n\nfailures:\n    deep::bad\n";
        let stderr =
            "     Running tests/model.rs (x)\nerror: test failed, to rerun pass `-p antiphon-engine --test model`\n";
        let failure = failure_of_tests(stdout, stderr);
        assert_eq!(failure.by, "engine, model: deep::bad");
        assert_eq!(failure.said, "assertion `left == right` failed: seed 3 left: 1 right: 2");
        let silent = "test a ... FAILED\n---- a stdout ----\nthread 'a' panicked at engine/src/x.rs:1:2:\n\nnote: x\n";
        assert_eq!(failure_of_tests(silent, "").said, "engine/src/x.rs:1:2");
    }

    #[test]
    fn a_process_that_died_is_told_by_its_last_words() {
        let stderr = "error: test failed, to rerun pass `-p antiphon-gateway --lib`\n\nCaused by:\n  process (signal: 6, SIGABRT)\n";
        let failure = failure_of_tests("running 1 test\n", stderr);
        assert_eq!(
            (failure.by.as_str(), failure.said.as_str()),
            ("gateway, unit tests", "process (signal: 6, SIGABRT)")
        );
    }

    #[test]
    fn a_seed_is_named_with_what_it_broke() {
        let stdout = "covered:\n  x 1\nseed 41 breaks a promise: ann was given c #3\nrepeat with: …\n";
        let failure = failure_of_simulator(stdout, "");
        assert_eq!((failure.by.as_str(), failure.said.as_str()), ("simulator, seed 41", "ann was given c #3"));
        assert_eq!(failure_of_simulator("", "seed 3 panics\n\n").said, "seed 3 panics");
        assert_eq!(clipped(&"x".repeat(300)).chars().count(), SAID_CHARACTERS_MAX + 1);
    }
}
