//! The copy of the working tree that bugs are planted in.
//!
//! Files that are the same already are not written again, so that the compiler does over only what changed; what a killed run left planted
//! differs and is put right. Invariant: after [`Tree::copy`] the copy holds exactly what git knows of or would take in, as it is on disk.

use std::{
    collections::BTreeSet,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::process::{output, program};

/// A copy.
pub(crate) struct Tree {
    top: PathBuf,
    digest: u64,
}

impl Tree {
    /// Makes the copy at `top` equal to the working tree at `source`.
    pub(crate) fn copy(source: &Path, top: &Path) -> anyhow::Result<Self> {
        let mut list = program("git");
        list.current_dir(source).args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let names = output(&mut list)?;
        let mut hasher = DefaultHasher::new();
        let mut kept = BTreeSet::new();
        for name in names.split('\0').filter(|name| !name.is_empty()).collect::<BTreeSet<_>>() {
            let from = source.join(name);
            // A file that was deleted but not yet committed.
            if !from.is_file() {
                continue;
            }
            let bytes = fs::read(&from).with_context(|| name.to_owned())?;
            (name, &bytes).hash(&mut hasher);
            let to = top.join(name);
            if !fs::read(&to).is_ok_and(|old| old == bytes) {
                fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
                fs::copy(&from, &to).with_context(|| name.to_owned())?;
            }
            kept.insert(to);
        }
        remove_others(top, &kept)?;
        Ok(Self { top: top.to_owned(), digest: hasher.finish() })
    }

    /// Its top folder.
    pub(crate) fn top(&self) -> &Path {
        &self.top
    }

    /// Of all names and contents, as copied.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// A file's text.
    pub(crate) fn read(&self, name: &str) -> anyhow::Result<String> {
        fs::read_to_string(self.top.join(name)).with_context(|| name.to_owned())
    }

    /// Replaces a file's text.
    pub(crate) fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        fs::write(self.top.join(name), text).with_context(|| name.to_owned())
    }
}

/// Removes files that are not among `kept`: what was deleted in the source since, and what tests left.
fn remove_others(folder: &Path, kept: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_others(&path, kept)?;
        } else if !kept.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_follows_its_source_and_leaves_alone_what_is_the_same() {
        let base = std::env::temp_dir().join(format!("antiphon-mutants-{}", std::process::id()));
        let (source, top) = (base.join("source"), base.join("copy"));
        fs::create_dir_all(source.join("a")).unwrap();
        output(program("git").current_dir(&source).args(["init", "--quiet"])).unwrap();
        fs::write(source.join(".gitignore"), "ignored\n").unwrap();
        fs::write(source.join("a/one"), "1").unwrap();
        fs::write(source.join("ignored"), "x").unwrap();
        let first = Tree::copy(&source, &top).unwrap();
        assert_eq!((first.read("a/one").unwrap().as_str(), top.join("ignored").exists()), ("1", false));
        let written = fs::metadata(top.join("a/one")).unwrap().modified().unwrap();
        fs::write(top.join("left by a test"), "y").unwrap();
        fs::write(source.join("two"), "2").unwrap();
        let second = Tree::copy(&source, &top).unwrap();
        assert_eq!(fs::metadata(top.join("a/one")).unwrap().modified().unwrap(), written);
        assert!(!top.join("left by a test").exists() && first.digest() != second.digest());
        second.write("a/one", "planted").unwrap();
        fs::remove_file(source.join("two")).unwrap();
        let third = Tree::copy(&source, &top).unwrap();
        assert_eq!((third.read("a/one").unwrap().as_str(), top.join("two").exists()), ("1", false));
        assert_eq!(third.digest(), first.digest());
        fs::remove_dir_all(&base).unwrap();
    }
}
