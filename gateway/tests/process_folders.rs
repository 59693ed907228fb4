//! A node started on a data folder that it cannot have left like that: each start ends at once, with the folder or
//! file and what to do; nothing in the folder is changed, and when it is made whole again, everything is there.

mod process_common;

use std::{
    fs,
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use process_common::{
    Folder, Node, antiphon,
    client::{Client, group, whole_history},
    command, report, until, uuid,
};
use serde_json::{Value, json};

const LANES: &str = "node.lanes=2";

/// Groups, of which each lane gets some.
const GROUPS: u8 = 8;

/// A node that two lanes of a folder hold messages of, and that has ended; gives the groups.
fn filled(data: &Path) -> Vec<String> {
    let mut node = Node::start_with(data, &[LANES]);
    let mut alice = Client::fresh(node.listen, "alice");
    let groups: Vec<String> = (1..=GROUPS).map(|key| group(&mut alice, key.into(), &["bob"])).collect();
    for (number, choir) in (1..).zip(&groups) {
        alice.must("send", json!({"conversation": choir, "client_message_id": uuid(number), "text": "la"}));
    }
    // A log file that has come into use is named by the manifest a moment later, beside the messages.
    until("both manifests name their logs", || {
        let mut inspect = antiphon();
        let shown = inspect.args(["store", "inspect", "--json", "--data"]).arg(data).output().unwrap();
        let shown: Value = serde_json::from_slice(&shown.stdout).ok()?;
        let edits = shown["lanes"].as_array()?.iter().map(|lane| lane["manifest_edit"].as_u64());
        edits.min()?.filter(|least| *least > 1)
    });
    node.terminate();
    assert_eq!(node.wait().code(), Some(0));
    groups
}

/// Everything is there.
fn is_whole(data: &Path, groups: &[String]) {
    let mut node = Node::start_with(data, &[LANES]);
    let mut bob = Client::fresh(node.listen, "bob");
    for choir in groups {
        assert_eq!(whole_history(&mut bob, choir).len(), 2, "{choir}");
    }
    node.terminate();
    assert_eq!(node.wait().code(), Some(0));
}

/// Paths below a folder with what is in them; without the lock, which says who came last.
fn image(folder: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let (mut found, mut waiting) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            found.push((path, None));
        } else if path.is_file() && path.file_name().is_some_and(|name| name != "LOCK") {
            let bytes = fs::read(&path).unwrap();
            found.push((path, Some(bytes)));
        }
    }
    found.sort();
    found
}

/// A process that does not outlive its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A start that ends with these words, and leaves the folder as it was.
fn refused(what: &str, data: &Path, settings: &[&str], words: &[&str]) {
    let before = image(data);
    let mut started = Ended(command(data, settings).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let status = until(what, || started.0.try_wait().unwrap());
    let mut said = String::new();
    started.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{what}: {said}");
    let last = said.lines().rev().find(|line| line.starts_with("antiphon: ")).unwrap_or_default();
    for word in words {
        assert!(last.contains(word), "{what}: {word:?} is not in {said}");
    }
    assert!(image(data) == before, "{what}: the folder was changed");
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-r").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// The first file of a lane whose name begins so.
fn file_of(data: &Path, lane: &str, start: &str) -> PathBuf {
    let mut names: Vec<PathBuf> = fs::read_dir(data.join(lane)).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let begins = |path: &&PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(start);
    names.iter().find(begins).unwrap_or_else(|| panic!("{lane}: no {start}: {names:?}")).clone()
}

#[test]
fn a_folder_that_was_copied_in_part_or_mixed_is_refused_with_what_to_do() {
    let folder = Folder::new("copied");
    let (data, away) = (folder.data(), folder.0.join("away"));
    let groups = filled(&data);
    fs::create_dir(&away).unwrap();
    let path_of = |name: &str| data.join(name);
    let restore = "Restore the folder from a whole copy";
    let lane = |name: &str| data.join("lane-01").join(name).to_str().unwrap().to_owned();

    for (missing, named) in [("lane-01", "lane-01 is missing, of 2"), ("lane-00", "lane-00 is missing, of 2")] {
        fs::rename(path_of(missing), away.join(missing)).unwrap();
        refused(missing, &data, &[LANES], &[data.to_str().unwrap(), named, "restore it whole"]);
        refused(missing, &data, &["node.lanes=1"], &[named, "restore it whole"]);
        fs::rename(away.join(missing), path_of(missing)).unwrap();
    }

    for start in ["manifest", "log-00000000"] {
        let path = file_of(&data, "lane-01", start);
        let kept = away.join(start);
        fs::rename(&path, &kept).unwrap();
        let named = if start == "manifest" { "there is no manifest" } else { "log: the files of generation 1 to 1" };
        refused(start, &data, &[LANES], &[&lane("")[..lane("").len() - 1], named, restore]);
        fs::rename(&kept, &path).unwrap();
    }

    let half = fs::read(path_of("lane-01/manifest")).unwrap();
    fs::write(path_of("lane-01/manifest"), &half[..60]).unwrap();
    refused("half a manifest", &data, &[LANES], &["lane-01: manifest: damage at byte 0", "`antiphon store verify`"]);
    fs::write(path_of("lane-01/manifest"), &half).unwrap();

    // Lanes exchanged, and a lane's log of another lane.
    let exchange = || {
        fs::rename(path_of("lane-00"), away.join("lane")).unwrap();
        fs::rename(path_of("lane-01"), path_of("lane-00")).unwrap();
        fs::rename(away.join("lane"), path_of("lane-01")).unwrap();
    };
    exchange();
    refused("lanes exchanged", &data, &[LANES], &["the folder holds lane", "restore each from its own copy"]);
    exchange();
    let log = file_of(&data, "lane-01", "log-00000000");
    fs::rename(&log, away.join("log")).unwrap();
    fs::copy(file_of(&data, "lane-00", "log-00000000"), &log).unwrap();
    refused(
        "another lane's log",
        &data,
        &[LANES],
        &["log-00000000: belongs to store", "restore each from its own copy"],
    );
    fs::rename(away.join("log"), &log).unwrap();

    // A lane of another node, in whole.
    let other = Folder::new("copied-other");
    filled(&other.data());
    fs::rename(path_of("lane-01"), away.join("lane-01")).unwrap();
    copy(&other.data().join("lane-01"), &path_of("lane-01"));
    refused("another node's lane", &data, &[LANES], &["lanes of several stores", "restore each from its own copy"]);
    fs::remove_dir_all(path_of("lane-01")).unwrap();
    fs::rename(away.join("lane-01"), path_of("lane-01")).unwrap();

    fs::create_dir(path_of("making-01")).unwrap();
    let words = ["making-01", "`antiphon store` was interrupted", "make it again"];
    refused("a load that was killed", &data, &[LANES], &words);
    fs::remove_dir(path_of("making-01")).unwrap();
    is_whole(&data, &groups);
}

#[test]
fn foreign_files_are_left_alone() {
    let folder = Folder::new("foreign");
    let data = folder.data();
    let groups = filled(&data);
    for name in [
        "notes.txt",
        "lane-00.bak/manifest",
        "lane-1/x",
        "lane-00/notes.txt",
        "lane-00/log-1",
        "lane-01/segment-1",
        "lane-01/log/x",
    ] {
        fs::create_dir_all(data.join(name).parent().unwrap()).unwrap();
        fs::write(data.join(name), "foreign").unwrap();
    }
    is_whole(&data, &groups);
    for name in ["notes.txt", "lane-00.bak/manifest", "lane-1/x", "lane-00/log-1", "lane-01/segment-1", "lane-01/log/x"]
    {
        assert_eq!(fs::read_to_string(data.join(name)).unwrap(), "foreign", "{name}");
    }
}

/// A folder seen through a mount that cannot be written, gone when it is dropped.
struct ReadOnlyMount(PathBuf);

impl ReadOnlyMount {
    fn new(of: &Path, at: &Path) -> Result<Self, String> {
        fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let run = |arguments: &[&str]| {
            let output = Command::new("mount").args(arguments).output().map_err(|error| error.to_string())?;
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        };
        let (of, at) = (of.to_str().unwrap(), at.to_str().unwrap());
        run(&["--bind", of, at])?;
        let mount = Self(at.into());
        run(&["-o", "remount,ro,bind", at]).map(|()| mount)
    }
}

impl Drop for ReadOnlyMount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

#[test]
fn a_folder_that_cannot_be_written_is_refused_with_what_to_do() {
    let folder = Folder::new("read-only");
    let data = folder.data();
    let groups = filled(&data);
    if is_root() {
        let mount = ReadOnlyMount::new(&data, &folder.0.join("mount")).unwrap();
        let named = mount.0.join("LOCK");
        let words = [named.to_str().unwrap(), "Read-only file system", "choose another with --data"];
        refused("a mount for reading only", &mount.0, &[LANES], &words);
        refused(
            "a new folder there",
            &mount.0.join("new"),
            &[LANES],
            &["Read-only file system", "choose another with --data"],
        );
        // One lane of it alone: its files are opened for writing.
        drop(mount);
        let lane = ReadOnlyMount::new(&data.join("lane-01"), &data.join("lane-01")).unwrap();
        let words = ["lane-01", "log-0000000", "Read-only file system", "permissions of the folder"];
        refused("a lane for reading only", &data, &[LANES], &words);
        drop(lane);
    } else {
        report("a_folder_that_cannot_be_written_is_refused_with_what_to_do: not as root, so by permissions only");
        let allow = |mode| fs::set_permissions(data.join("LOCK"), fs::Permissions::from_mode(mode)).unwrap();
        allow(0o444);
        refused(
            "a lock for reading only",
            &data,
            &[LANES],
            &["LOCK", "Permission denied", "choose another with --data"],
        );
        allow(0o644);
    }
    is_whole(&data, &groups);
}
