//! Makes a profile outlast a restart: files for sysctl.d, tmpfiles.d, limits.d and a systemd drop-in.
//!
//! Invariants: every file begins with [`MARK`]; a file without it is somebody else's and is not overwritten or removed, unless forced.
//! What a kernel takes only at its start is a comment in the file for sysctl.d: the boot loader's files are not touched.
//! What a machine already has better than wanted is written as it is, so that a file never lowers it.

use std::{fmt::Write as _, io};

use serde::Serialize;

use crate::{
    catalogue::{Place, Scope},
    check::how,
    facts::Facts,
    profile::{Asked, Profile, Tuner, Want},
    system::System,
    value::Value,
};

/// The first line of every file that is written here.
pub const MARK: &str = "# Written by `tune persist`; `tune persist --remove` takes it away.";

/// Names that the files carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// The node's systemd unit.
    pub unit: String,
    /// The user that the node runs as.
    pub user: String,
}

/// A file that is or was to be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Persisted {
    /// Where.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// Why a file could not be written or removed.
#[derive(Debug, thiserror::Error)]
pub enum PersistError {
    /// Look at it, then move it away or use `--force`.
    #[error("{0} is not of `tune persist`; move it away, or use --force")]
    Foreign(String),
    /// The system's answer.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Where the files stand.
fn paths(names: &Names) -> [String; 4] {
    [
        "/etc/sysctl.d/90-antiphon.conf".to_owned(),
        "/etc/tmpfiles.d/90-antiphon.conf".to_owned(),
        "/etc/security/limits.d/90-antiphon.conf".to_owned(),
        format!("/etc/systemd/system/{}.d/90-antiphon-limits.conf", names.unit),
    ]
}

/// The files for a profile on a machine; none is empty.
#[must_use]
pub fn files(profile: &Profile, facts: &Facts, asked: Asked, names: &Names) -> Vec<Persisted> {
    let mut texts: [String; 4] = std::array::from_fn(|_| String::new());
    let [sysctl, tmpfiles, limits, unit] = &mut texts;
    // Interrupts are numbered anew at each start; a file that names them would bind other devices'.
    let lasts = |tuner: &&Tuner| tuner.setting.place != Place::Interrupts;
    for tuner in profile.tuners.iter().filter(|tuner| tuner.enabled && tuner.want != Want::Note).filter(lasts) {
        let reason = tuner.reason.replace('\n', " ");
        match tuner.setting.scope {
            Scope::NetworkNamespace | Scope::Host => {
                for part in facts.parts(tuner.setting.name) {
                    let Some(target) = tuner.target(part, asked) else { continue };
                    // A string never fails to take text; so below.
                    let _ = match tuner.setting.sysctl() {
                        Some(key) => writeln!(sysctl, "\n# {reason}\n{key} = {}", target.written()),
                        None => {
                            let value = target.written();
                            writeln!(tmpfiles, "\n# {reason}\nw {} - - - - {value}", part.path)
                        }
                    };
                }
            }
            Scope::Start => {
                for how in at_start(tuner, facts, asked) {
                    let _ = writeln!(sysctl, "\n# {reason}\n# Not from this file. {}: {how}", tuner.setting.name);
                }
            }
            Scope::Process => process_limit(tuner, facts, asked, names, &reason, limits, unit),
            Scope::Cgroup | Scope::Hardware => {}
        }
    }
    let [.., unit] = &mut texts;
    if !unit.is_empty() {
        *unit = format!("\n[Service]{unit}");
    }
    let head =
        format!("{MARK}\n# Profile {}, {} connections, {} shards.\n", profile.name, asked.connections, asked.shards);
    let all = paths(names).into_iter().zip(texts).filter(|(_, text)| !text.is_empty());
    all.map(|(path, text)| Persisted { path, text: format!("{head}{text}") }).collect()
}

/// What no file that is written here can do: a line for each thing that is short, with what the operator has to do.
#[must_use]
pub fn by_hand(profile: &Profile, facts: &Facts, asked: Asked) -> Vec<String> {
    let tuners = profile.tuners.iter().filter(|tuner| tuner.enabled && tuner.want != Want::Note);
    tuners.flat_map(|tuner| at_start(tuner, facts, asked).map(|how| format!("{}: {how}", tuner.setting.name))).collect()
}

fn at_start(tuner: &Tuner, facts: &Facts, asked: Asked) -> impl Iterator<Item = String> {
    let short = facts.parts(tuner.setting.name).iter().filter(move |part| !tuner.holds(part, asked));
    short.filter_map(move |part| how(tuner, part, asked))
}

/// Soft and hard limits are set together, so the hard one's tuner adds nothing of its own.
fn process_limit(
    tuner: &Tuner,
    facts: &Facts,
    asked: Asked,
    names: &Names,
    reason: &str,
    limits: &mut String,
    unit: &mut String,
) {
    let (item, directive, unit_bytes) = match tuner.setting.name {
        "open_files" => ("nofile", "LimitNOFILE", 1),
        // limits.d counts KiB, systemd bytes.
        "locked_memory" => ("memlock", "LimitMEMLOCK", 1024),
        _ => return,
    };
    let parts = facts.parts(tuner.setting.name);
    let current = parts.first().map_or(Value::Number(0), |part| part.value.clone());
    let wanted = tuner.wanted(asked, None).unwrap_or(Value::Number(0));
    let most = |value: &Value| value.as_numbers().first().copied().unwrap_or(0);
    let target = most(&current).max(most(&wanted));
    let (limit, directive_value) = match target {
        u64::MAX => ("unlimited".to_owned(), "infinity".to_owned()),
        target => (target.div_ceil(unit_bytes).to_string(), target.to_string()),
    };
    let _ = writeln!(limits, "\n# {reason}\n{} soft {item} {limit}\n{} hard {item} {limit}", names.user, names.user);
    let _ = write!(unit, "\n# {reason}\n{directive}={directive_value}\n");
}

/// Writes the files; none if one of them is somebody else's.
///
/// # Errors
/// See [`PersistError`].
pub fn write(system: &mut dyn System, files: &[Persisted], force: bool) -> Result<(), PersistError> {
    for file in files {
        if !force && is_foreign(system, &file.path)? == Some(true) {
            return Err(PersistError::Foreign(file.path.clone()));
        }
    }
    for file in files {
        let path = file.path.clone();
        system.store(&file.path, file.text.as_bytes()).map_err(|source| PersistError::Io { path, source })?;
    }
    Ok(())
}

/// Removes the files that [`write()`] left; gives their paths.
///
/// # Errors
/// See [`PersistError`].
pub fn remove(system: &mut dyn System, names: &Names) -> Result<Vec<String>, PersistError> {
    let mut removed = Vec::new();
    for path in paths(names) {
        if is_foreign(system, &path)? == Some(false) {
            system.remove(&path).map_err(|source| PersistError::Io { path: path.clone(), source })?;
            removed.push(path);
        }
    }
    Ok(removed)
}

/// Whether a file is somebody else's; `None` if there is none.
fn is_foreign(system: &dyn System, path: &str) -> Result<Option<bool>, PersistError> {
    match system.read(path) {
        Ok(bytes) => Ok(Some(!bytes.starts_with(MARK.as_bytes()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PersistError::Io { path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::tests::server;

    fn names() -> Names {
        Names { unit: "antiphon.service".to_owned(), user: "antiphon".to_owned() }
    }

    fn persisted(profile: &str) -> Vec<Persisted> {
        let asked = Asked { connections: 500_000, shards: 4, memory_bytes: None };
        files(&Profile::built_in(profile).unwrap(), &Facts::read(&server()), asked, &names())
    }

    #[test]
    fn files_carry_every_value_with_its_reason() {
        let files = persisted("chat-500k");
        let text = |path: &str| &files.iter().find(|file| file.path.contains(path)).unwrap().text;
        let sysctl = text("sysctl.d");
        assert!(sysctl.starts_with(MARK));
        assert!(
            sysctl.contains("\nnet.core.somaxconn = 16384\n") && sysctl.contains("\n# after a restart"),
            "{sysctl}"
        );
        assert!(sysctl.contains("net.ipv4.ip_local_port_range = 16384 65535"));
        assert!(sysctl.contains("fs.file-max = 9223372036854775807"), "never lower than it is: {sysctl}");
        assert!(text("tmpfiles.d").contains("w /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise"));
        assert!(text("limits.d").contains("antiphon hard nofile 131506"), "{}", text("limits.d"));
        assert!(text("limits.d").contains("antiphon soft memlock 8192"), "{}", text("limits.d"));
        let hash = sysctl.lines().find(|line| line.contains("established_hash: ")).unwrap();
        assert!(hash.starts_with("# ") && hash.contains("thash_entries=524288"), "{hash}");
        assert!(!sysctl.lines().any(|line| line.contains("ehash_entries") && !line.starts_with('#')), "{sysctl}");
        let unit = text("antiphon.service.d");
        assert!(unit.contains("\n[Service]\n") && unit.contains("\nLimitNOFILE=131506\n"), "{unit}");
        assert!(unit.contains("\nLimitMEMLOCK=8388608\n"), "{unit}");
    }

    #[test]
    fn a_table_that_is_large_enough_asks_nothing_of_the_operator() {
        let (mut system, profile) = (server(), Profile::built_in("chat-500k").unwrap());
        let asked = Asked { connections: 500_000, shards: 4, memory_bytes: None };
        assert_eq!(by_hand(&profile, &Facts::read(&system), asked).len(), 1);
        system.put("/proc/sys/net/ipv4/tcp_ehash_entries", "524288\n");
        let facts = Facts::read(&system);
        assert!(by_hand(&profile, &facts, asked).is_empty());
        assert!(!files(&profile, &facts, asked, &names()).iter().any(|file| file.text.contains("thash_entries")));
    }

    #[test]
    fn interrupts_are_not_persisted() {
        let files = persisted("low-latency");
        assert!(files.iter().any(|file| file.text.contains("rps_cpus")));
        assert!(!files.iter().any(|file| file.text.contains("/proc/irq")));
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let mut system = server();
        let files = persisted("chat-500k");
        let path = "/etc/sysctl.d/90-antiphon.conf";
        system.put(path, "# mine\n");
        assert!(matches!(write(&mut system, &files, false), Err(PersistError::Foreign(_))));
        assert!(!system.files.contains_key("/etc/tmpfiles.d/90-antiphon.conf"), "all or nothing");
        assert_eq!(remove(&mut system, &names()).unwrap(), Vec::<String>::new());
        write(&mut system, &files, true).unwrap();
        write(&mut system, &files, false).unwrap();
        assert_eq!(remove(&mut system, &names()).unwrap().len(), 4);
        assert!(!system.files.contains_key(path));
    }
}
