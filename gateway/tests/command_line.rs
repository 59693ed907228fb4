//! The `antiphon` command line as a person or a script meets it, short of a running node.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

fn antiphon(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_antiphon"));
    command.args(arguments).env("ANTIPHON_TIMING_DRAIN_MS", "77").output().unwrap()
}

fn folder(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("antiphon-command-line-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn config_print_shows_values_with_origins() {
    let folder = folder("print");
    let file = folder.join("antiphon.toml");
    fs::write(&file, "[limits]\nconnections_max = 5\n[auth]\naudience = \"chat\"\nhs256_secret = \"0123456789abcdef0123456789abcdef\"\n")
        .unwrap();
    let path = file.to_str().unwrap();
    let output = antiphon(&["config", "print", "--config", path, "--shards", "3", "--set", "limits.page_items_max=90"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let printed = text(&output.stdout);
    let has = |start: &str, origin: &str| {
        assert!(printed.lines().any(|line| line.starts_with(start) && line.ends_with(origin)), "{start}: {printed}");
    };
    has("connections_max = 5 ", &format!("# {path}:2"));
    has("shards = 3 ", "# flag --shards");
    has("page_items_max = 90 ", "# flag --set");
    has("drain_ms = 77 ", "# env ANTIPHON_TIMING_DRAIN_MS");
    has("listen = ", "# default");
    assert!(!printed.contains("0123456789abcdef"));
    let help = antiphon(&["config", "print", "--help"]);
    assert!(text(&help.stdout).contains("limits.outbound_bytes_max"));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn every_error_is_listed_and_the_status_says_so() {
    let folder = folder("errors");
    let file = folder.join("antiphon.toml");
    fs::write(&file, "[node]\nshrads = 1\nlisten = 7\n").unwrap();
    let output = antiphon(&["serve", "--dev", "--config", file.to_str().unwrap(), "--console", "0.0.0.0:1"]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    for part in [
        "3 problems",
        "antiphon.toml:2: unknown key node.shrads; did you mean node.shards?",
        "antiphon.toml:3: ",
        "loopback",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert_eq!(antiphon(&["serve", "--config", "/none/antiphon.toml"]).status.code(), Some(1));
    assert_eq!(antiphon(&["serve"]).status.code(), Some(2));
    assert_eq!(antiphon(&["serve", "--nonsense"]).status.code(), Some(2));
    fs::remove_dir_all(folder).unwrap();
}

/// What the engine would refuse is refused before a folder is made.
#[test]
fn options_that_contradict_each_other_are_refused_with_what_they_may_be() {
    let folder = folder("contradictions");
    let data = folder.join("data");
    for (settings, words) in [
        (&["store.log_files_max=2"][..], "store.log_files_max: 2 is not from 3 to"),
        (&["store.log_file_bytes=1048576"], "store.log_file_bytes: 1048576 is not from 2097152 to"),
        (&["store.log_file_bytes=2097153"], "store.log_file_bytes: is not a multiple of 4096"),
        (&["store.memtable_bytes=0"], "store.memtable_bytes: 0 is not from"),
        (&["node.lanes=17"], "node.lanes: 17 is not from 1 to 16"),
        (&["node.shards=1", "node.lanes=2"], "node.lanes: 2 lanes need as many shards, there are 1"),
    ] {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let arguments = ["serve", "--dev", "--data", data.to_str().unwrap()].into_iter().chain(settings);
        let output = antiphon(&arguments.collect::<Vec<_>>());
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(words), "{words}: {errors}");
        assert!(!data.exists(), "{words}: something was made");
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_script_gets_a_token_without_a_node() {
    let folder = folder("token");
    let data = folder.join("data");
    let token = antiphon(&["token", "--user", "bob", "--device", "phone", "--data", data.to_str().unwrap()]);
    assert_eq!(text(&token.stdout).trim().split('.').count(), 3, "{}", text(&token.stderr));
    let bad = antiphon(&["token", "--user", "b b", "--data", data.to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&antiphon(&["version"]).stdout).starts_with("antiphon "));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_key_for_the_http_api_is_made_without_its_secret_in_the_entry() {
    let folder = folder("api-key");
    let made = antiphon(&["api-key", "shop", "--scope", "read", "--scope", "write", "--scope", "read"]);
    let (entry, told) = (text(&made.stdout), text(&made.stderr));
    assert!(entry.starts_with("[[key]]\nname = \"shop\"\nsha256 = \""), "{entry}");
    assert!(entry.ends_with("scopes = [\"read\", \"write\"]\n"), "{entry}");
    let secret = told.split_whitespace().find(|word| word.starts_with("antiphon_api_")).unwrap();
    assert!(secret.len() > 50 && !entry.contains(secret), "{told}");
    for arguments in [&["api-key", "shop"][..], &["api-key", "shop", "--scope", "all"]] {
        assert_eq!(antiphon(arguments).status.code(), Some(2));
    }
    assert_eq!(antiphon(&["api-key", "a b", "--scope", "read"]).status.code(), Some(1));
    // Everything that is wrong with a file of keys is told with its place in that file.
    let keys = folder.join("keys.toml");
    fs::write(&keys, format!("{entry}\n[[key]]\nname = \"bot\"\nsha256 = \"1\"\nscopes = [\"reed\"]\n")).unwrap();
    let setting = format!("api.keys_file={}", keys.display());
    let output = antiphon(&["config", "print", "--dev", "--set", &setting]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    for part in ["2 problems", "keys.toml:8: sha256 is not 64", "keys.toml:9: scope \"reed\" is none of"] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    fs::remove_dir_all(folder).unwrap();
}
