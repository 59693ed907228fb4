//! The real program on a tree of files that looks like a machine. It never touches the machine that the test runs on.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A tree in a temporary folder, removed at the end.
struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        // A folder that is left over in the temporary folder harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Tree {
    fn new(name: &str) -> Self {
        let tree = Self(std::env::temp_dir().join(format!("antiphon-tune-{name}-{}", std::process::id())));
        let files = [
            (
                "proc/self/limits",
                "Limit  Soft Hard Units\nMax open files  20000 20000 files\nMax locked memory  8388608 8388608 bytes\n",
            ),
            ("proc/self/status", "Uid:\t0\t0\t0\t0\nCpus_allowed_list:\t0-1\n"),
            ("proc/self/cgroup", "0::/\n"),
            ("proc/meminfo", "MemTotal:       25165824 kB\n"),
            ("proc/cpuinfo", "model name\t: Test Processor\n"),
            ("proc/sys/kernel/osrelease", "6.12.0\n"),
            ("proc/sys/kernel/io_uring_disabled", "0\n"),
            ("proc/sys/kernel/random/boot_id", "one\n"),
            ("proc/sys/fs/nr_open", "1048576\n"),
            ("proc/sys/fs/file-max", "2466183\n"),
            ("proc/sys/net/core/somaxconn", "4096\n"),
            ("proc/sys/net/ipv4/tcp_ehash_entries", "-262144\n"),
            ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
            ("proc/sys/net/ipv4/tcp_mem", "287901\t383869\t575802\n"),
            ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t33554432\n"),
            ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
            ("sys/block/vda/queue/scheduler", "none mq-deadline [bfq] \n"),
        ];
        for (path, text) in files {
            tree.write(path, text);
        }
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }

    fn tune(&self, arguments: &[&str]) -> Output {
        let program = env!("CARGO_BIN_EXE_tune");
        Command::new(program).arg("--root").arg(&self.0).args(arguments).output().unwrap()
    }

    /// Runs it; gives what it printed if it ended with this status.
    fn run(&self, status: i32, arguments: &[&str]) -> String {
        let output = self.tune(arguments);
        let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(status), "{arguments:?}\n{out}\n{error}");
        out + &error
    }

    /// All files of the kernel.
    fn kernel(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.0.join("proc"), self.0.join("sys")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let bytes = fs::read(&path).unwrap();
                    files.insert(path, bytes);
                }
            }
        }
        files
    }
}

#[test]
fn check_says_what_limits_and_its_status_says_how_badly() {
    let tree = Tree::new("check");
    let out = tree.run(2, &["check", "chat-500k"]);
    assert!(out.contains("Test Processor") && out.contains("open_files limits it"), "{out}");
    assert!(out.contains("--shards 27"), "{out}");
    tree.run(1, &["check", "chat-500k", "--shards", "27"]);
    tree.run(0, &["check", "development"]);
    tree.run(3, &["check", "warp"]);
    tree.run(3, &["check", "--only", "warp"]);
    tree.run(3, &["chekc"]);
    tree.run(0, &["--help"]);
    let report: serde_json::Value = serde_json::from_str(&tree.run(2, &["check", "--json"])).unwrap();
    assert_eq!(report["schema"], "antiphon-tune-check/1");
    let files = report["tuners"].as_array().unwrap().iter().find(|row| row["tuner"] == "open_files").unwrap();
    for (key, value) in [("verdict", "required"), ("want", "at_least"), ("unit", "count"), ("remedy", "persist")] {
        assert_eq!(files[key], value, "{files}");
    }
    assert_eq!((files["current"].as_u64(), files["enabled"].as_bool()), (Some(20_000), Some(true)));
    assert_eq!(files["sources"][0], "/proc/self/limits");
    assert_eq!(report["shards_wanted"], 27);
}

#[test]
fn a_table_that_only_a_start_enlarges_is_told_and_never_written() {
    let tree = Tree::new("start");
    let (only, path) = (["chat-500k", "--only", "established_hash"], "proc/sys/net/ipv4/tcp_ehash_entries");
    let run = |status, command: &str, more: &[&str]| tree.run(status, &[&[command], &only[..], more].concat());
    let out = run(1, "check", &[]);
    let row = out.lines().find(|line| line.starts_with("established_hash ")).unwrap();
    assert!(row.contains(" 262144 ") && row.contains("≥ 524288") && row.contains("advised: "), "{row}");
    let remedy = out.lines().find(|line| line.contains("changes: established_hash (")).unwrap();
    assert!(remedy.contains("thash_entries=524288") && remedy.contains("tcp_child_ehash_entries=524288"), "{remedy}");
    let report: serde_json::Value = serde_json::from_str(&run(1, "check", &["--json"])).unwrap();
    let row = report["tuners"].as_array().unwrap().iter().find(|row| row["tuner"] == "established_hash").unwrap();
    assert_eq!(
        (&row["remedy"], row["current"].as_u64(), row["wanted"][0].as_u64()),
        (&"start".into(), Some(262_144), Some(524_288))
    );
    assert!(row["how"].as_str().unwrap().contains("thash_entries=524288"), "{row}");

    let before = tree.kernel();
    assert!(run(0, "plan", &[]).contains("thash_entries=524288"));
    assert!(run(0, "apply", &[]).contains("thash_entries=524288"));
    assert!(run(0, "persist", &[]).contains("Not from a file; established_hash: boot parameter thash_entries=524288"));
    assert_eq!(tree.kernel(), before);
    let persisted = tree.read("etc/sysctl.d/90-antiphon.conf");
    assert!(persisted.contains("thash_entries=524288"), "{persisted}");
    assert!(persisted.lines().all(|line| line.is_empty() || line.starts_with('#')), "{persisted}");

    tree.write(path, "524288\n");
    assert!(!run(0, "check", &[]).contains("thash_entries"));
    run(1, "check", &["--connections", "1000000"]);
    fs::remove_file(tree.0.join(path)).unwrap();
    assert!(run(0, "check", &[]).contains("not told before Linux 6.1"));
}

#[test]
fn plan_changes_nothing() {
    let tree = Tree::new("plan");
    let before = tree.kernel();
    let out = tree.run(1, &["plan", "chat-500k"]);
    assert!(out.contains("32768 60999 → 16384 65535") && out.contains("why: "), "{out}");
    assert_eq!(tree.kernel(), before);
    assert!(!tree.0.join("var").exists(), "and leaves no state");
    tree.run(0, &["plan", "chat-500k", "--only", "nr_open"]);
}

#[test]
fn apply_and_undo_lead_back_to_the_same_bytes() {
    let tree = Tree::new("apply");
    let (before, check) = (tree.kernel(), tree.run(2, &["check"]));
    let out = tree.run(0, &["apply", "chat-500k"]);
    assert!(out.contains("changed   somaxconn"), "{out}");
    assert_eq!(tree.read("proc/sys/net/core/somaxconn"), "16384\n");
    assert_eq!(tree.read("sys/block/vda/queue/scheduler"), "[none] mq-deadline bfq \n");
    tree.run(3, &["apply", "chat-1m"]);
    assert_ne!(tree.run(2, &["check"]), check);
    tree.run(0, &["undo"]);
    assert_eq!(tree.kernel(), before);
    assert_eq!(tree.run(2, &["check"]), check);
    assert!(tree.run(0, &["undo"]).contains("nothing to undo"));
    tree.run(0, &["apply", "chat-500k", "--only", "somaxconn,local_ports"]);
    assert_eq!(tree.read("sys/kernel/mm/transparent_hugepage/enabled"), "[always] madvise never\n");
    tree.run(0, &["undo"]);
    assert_eq!(tree.kernel(), before);
}

#[test]
fn a_journal_cut_off_anywhere_after_its_first_line_is_undone() {
    let tree = Tree::new("cut");
    let before = tree.kernel();
    tree.run(0, &["apply", "chat-500k"]);
    let (after, path) = (tree.kernel(), "var/lib/antiphon-tune/journal");
    let journal = tree.read(path);
    let first = journal.find('\n').unwrap() + 1;
    for length in (first..=journal.len()).step_by(17) {
        for (file, bytes) in &after {
            fs::write(file, bytes).unwrap();
        }
        tree.write(path, &journal[..length]);
        tree.run(0, &["undo"]);
        assert_eq!(tree.kernel(), before, "{length}");
    }
}

#[test]
fn undo_keeps_what_others_changed() {
    let tree = Tree::new("others");
    let before = tree.kernel();
    tree.run(0, &["apply", "chat-500k"]);
    tree.write("proc/sys/net/core/somaxconn", "9000\n");
    let out = tree.run(1, &["undo"]);
    assert!(out.contains("KEPT      somaxconn"), "{out}");
    assert_eq!(tree.read("proc/sys/net/core/somaxconn"), "9000\n");
    tree.run(0, &["undo", "--force"]);
    assert_eq!(tree.kernel(), before);
}

#[test]
fn persist_writes_and_removes_its_own_files_only() {
    let tree = Tree::new("persist");
    let out = tree.run(0, &["persist", "chat-500k", "--shards", "27", "--print"]);
    assert!(out.contains("net.core.somaxconn = 16384"), "{out}");
    assert!(!tree.0.join("etc").exists());
    tree.run(0, &["persist", "chat-500k", "--unit", "chat.service"]);
    assert!(tree.read("etc/systemd/system/chat.service.d/90-antiphon-limits.conf").contains("LimitNOFILE=262756"));
    tree.run(0, &["persist", "--remove", "--unit", "chat.service"]);
    assert!(!tree.0.join("etc/sysctl.d/90-antiphon.conf").exists());
    tree.write("etc/sysctl.d/90-antiphon.conf", "# mine\n");
    tree.run(3, &["persist", "chat-500k"]);
    tree.run(3, &["persist", "--unit", "../x"]);
}

#[test]
fn a_profile_of_ones_own_is_taken_and_a_wrong_one_refused() {
    let tree = Tree::new("own");
    let path = tree.0.join("own.toml");
    let path = path.to_str().unwrap();
    let good = "name = \"own\"\ndescription = \"d\"\nextends = \"development\"\n\n[tuner.somaxconn]\nwant = \"at_least\"\n\
                value = 5000\nreason = \"r\"\nsource = \"s\"\n";
    tree.write("own.toml", good);
    assert!(tree.run(1, &["check", path]).contains("≥ 5000"));
    tree.write("own.toml", &good.replace("value =", "valeu ="));
    assert!(tree.run(3, &["check", path]).contains("own.toml:7: unknown field `valeu`"));
    tree.write("own.toml", &good.replace("reason = \"r\"\n", ""));
    assert!(tree.run(3, &["check", path]).contains("missing field `reason`"));
    assert!(tree.run(0, &["profiles"]).contains("small-vps"));
    assert!(tree.run(0, &["show-profile", "chat-1m"]).starts_with("name = \"chat-1m\""));
    tree.run(3, &["show-profile", "warp"]);
}

#[test]
fn capacity_is_predicted_and_held_against_the_machine() {
    let tree = Tree::new("capacity");
    let out = tree.run(0, &["capacity", "--connections", "500000", "--groups", "25000", "--rate", "1000"]);
    assert!(out.contains("20000 deliveries a second") && out.contains("node_connection"), "{out}");
    tree.run(1, &["capacity", "--connections", "50000000"]);
    tree.run(3, &["capacity", "--connections", "1", "--rate", "nan"]);
    let report = tree.run(0, &["capacity", "--connections", "1000", "--json"]);
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["schema"], "antiphon-tune-capacity/2");
    assert!(report["measured_on"]["date"].is_string() && report["measured_on"]["revision"].is_string());
    assert!(report["prediction"]["memory"].as_array().unwrap().iter().all(|item| item["source"].is_string()));
}

#[test]
fn coefficients_of_ones_own_are_used_and_named() {
    let tree = Tree::new("coefficients");
    let file = tree.0.join("own.toml");
    let own =
        include_str!("../data/coefficients.toml").replacen("machine = \"", "machine = \"a machine of one's own, ", 1);
    fs::write(&file, &own).unwrap();
    let load = ["capacity", "--connections", "1000", "--rate", "100", "--coefficients", file.to_str().unwrap()];
    let out = tree.run(0, &load);
    assert!(out.contains("Coefficients of a machine of one's own, ") && out.contains(", on 20"), "{out}");
    let out = tree.run(0, &[&load[..], &["--running-seconds", "10", "--tls-share", "0.5", "--deflate"]].concat());
    assert!(out.contains("50 % with TLS, deflate on, a heartbeat each 30 s, after 10 s on a fresh node"), "{out}");
    for wrong in [["--tls-share", "1.5"], ["--running-seconds", "0"], ["--heartbeat-seconds", "nan"]] {
        tree.run(3, &[&load[..], &wrong].concat());
    }
    fs::write(&file, own.replace("coefficients/2", "coefficients/9")).unwrap();
    assert!(tree.run(3, &load).contains("its format is antiphon-coefficients/9"));
}

#[test]
fn only_one_changes_a_machine_at_a_time() {
    let tree = Tree::new("lock");
    let folder = tree.0.join("var/lib/antiphon-tune");
    fs::create_dir_all(&folder).unwrap();
    let held = fs::File::create(Path::new(&folder).join("lock")).unwrap();
    held.lock().unwrap();
    assert!(tree.run(3, &["apply", "chat-500k"]).contains("another tune is at work"));
    assert_eq!(tree.read("proc/sys/net/core/somaxconn"), "4096\n");
}
