//! The node's key: from a file or from a command that prints it, for a node and for `antiphon store`.
//!
//! A key is 32 bytes, or 64 hexadecimal digits with one line end or none. Must not do: show it, or keep it longer than it takes to give it on.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use antiphon_engine::{encryption::NodeKey, seams::Random};
use clap::Args;

use crate::uring::OsRandom;

/// Bytes that a file or a command may give: the longest form of a key, with room for a line end.
const TEXT_BYTES_MAX: u64 = 128;

/// How long a command may take: longer than a key service across the world, short enough that a start does not hang.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(30);

/// Which key `antiphon store` takes.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct KeyArguments {
    /// Of an encrypted store: the file with the node's key.
    #[arg(long, value_name = "FILE", env = "ANTIPHON_ENCRYPTION_KEY_FILE", conflicts_with = "encryption_key_command")]
    encryption_key_file: Option<std::path::PathBuf>,
    /// Of an encrypted store: the command that prints the node's key, its arguments separated by commas.
    #[arg(long, value_name = "COMMAND", env = "ANTIPHON_ENCRYPTION_KEY_COMMAND", value_delimiter = ',')]
    encryption_key_command: Vec<String>,
}

impl KeyArguments {
    /// The key, if one is named.
    pub(crate) fn read(&self) -> Result<Option<NodeKey>, KeyError> {
        match (&self.encryption_key_file, self.encryption_key_command.as_slice()) {
            (Some(path), _) => from_file(path).map(Some),
            (None, []) => Ok(None),
            (None, command) => from_command(command).map(Some),
        }
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    /// See to the file.
    #[error("{name}: {source}")]
    Io {
        /// Which.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// Take the right away from everybody but the owner: `chmod 600`.
    #[error("{name}: others may read it (mode {mode:03o}); chmod 600 it")]
    Open {
        /// Which file.
        name: String,
        /// Its mode.
        mode: u32,
    },
    /// Make one with `antiphon store encryption-key --new FILE`.
    #[error("{name}: is no key: 32 bytes, or 64 hexadecimal digits")]
    Form {
        /// Which file or command.
        name: String,
    },
    /// See to the command.
    #[error("{name}: {what}")]
    Command {
        /// Which.
        name: String,
        /// How it went.
        what: String,
    },
}

/// Reads a key's file, which nobody but its owner may read.
pub(crate) fn from_file(path: &Path) -> Result<NodeKey, KeyError> {
    let name = path.display().to_string();
    let at = |source| KeyError::Io { name: name.clone(), source };
    let file = File::open(path).map_err(at)?;
    let mode = file.metadata().map_err(at)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Open { name, mode });
    }
    let mut text = Vec::with_capacity(TEXT_BYTES_MAX as usize);
    file.take(TEXT_BYTES_MAX).read_to_end(&mut text).map_err(at)?;
    key_of(&mut text).ok_or(KeyError::Form { name })
}

/// Runs a command that prints a key. What it says on its standard error goes to ours.
pub(crate) fn from_command(command: &[String]) -> Result<NodeKey, KeyError> {
    run(command, COMMAND_TIME_MAX)
}

fn run(command: &[String], time_max: Duration) -> Result<NodeKey, KeyError> {
    // Arguments may hold secrets of their own.
    let name = command.first().cloned().unwrap_or_default();
    let failed = |what: String| KeyError::Command { name: name.clone(), what };
    let mut child = Command::new(&name)
        .args(command.get(1..).unwrap_or_default())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    let output = child.stdout.take();
    let (sender, receiver) = mpsc::channel();
    // Ends with the command: its output is closed then.
    thread::spawn(move || {
        let mut text = Vec::with_capacity(TEXT_BYTES_MAX as usize);
        let read = output.map(|output| output.take(TEXT_BYTES_MAX).read_to_end(&mut text));
        let _ = sender.send(read.and_then(Result::ok).map(|_| text));
    });
    let deadline = Instant::now() + time_max;
    let Ok(text) = receiver.recv_timeout(time_max) else {
        end(&mut child);
        return Err(failed(format!("has not printed a key within {} s", time_max.as_secs())));
    };
    let mut text = text.ok_or_else(|| failed("its output cannot be read".to_owned()))?;
    if text.len() as u64 >= TEXT_BYTES_MAX {
        end(&mut child);
        return Err(KeyError::Form { name });
    }
    let Some(status) = wait_until(&mut child, deadline).map_err(|error| failed(error.to_string()))? else {
        end(&mut child);
        text.fill(0);
        return Err(failed(format!("has not ended within {} s", time_max.as_secs())));
    };
    if !status.success() {
        return Err(failed(format!("has ended with {status}")));
    }
    key_of(&mut text).ok_or(KeyError::Form { name })
}

/// How the command has ended; `None` if it has not until then, though its output may be closed.
fn wait_until(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        let ended = child.try_wait()?;
        if ended.is_some() || Instant::now() >= deadline {
            return Ok(ended);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// The key of a text, which is wiped.
fn key_of(text: &mut [u8]) -> Option<NodeKey> {
    let mut bytes = [0; NodeKey::BYTES];
    let is_key = if text.len() == bytes.len() {
        bytes.copy_from_slice(text);
        true
    } else {
        let digits = text.strip_suffix(b"\n").unwrap_or(text);
        let digits = digits.strip_suffix(b"\r").unwrap_or(digits);
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let read = digits.as_chunks::<2>().0.iter().zip(&mut bytes).all(|([high, low], byte)| {
            let value = digit(*high).zip(digit(*low)).map(|(high, low)| high * 16 + low);
            *byte = value.unwrap_or(0) as u8;
            value.is_some()
        });
        read && digits.len() == 2 * NodeKey::BYTES
    };
    text.fill(0);
    is_key.then(|| NodeKey::new(bytes))
}

/// Makes a new key's file, which is not there yet.
pub(crate) fn make(path: &Path) -> Result<NodeKey, KeyError> {
    let name = path.display().to_string();
    let at = |source| KeyError::Io { name: name.clone(), source };
    let mut text: String = (0..NodeKey::BYTES / 8).map(|_| format!("{:016x}", OsRandom.next())).collect();
    text.push('\n');
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(at)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(at)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        // Where the folder cannot be synced the file is there all the same.
        let _ = fs::File::open(folder).and_then(|folder| folder.sync_all());
    }
    key_of(&mut text.into_bytes()).ok_or(KeyError::Form { name })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn command(text: &str) -> Vec<String> {
        ["/bin/sh", "-c", text].map(str::to_owned).to_vec()
    }

    #[test]
    fn a_key_has_two_forms_and_nothing_else_is_one() {
        let digits = "0123456789abcdefABCDEF0123456789".repeat(2);
        let key = key_of(&mut digits.clone().into_bytes()).unwrap();
        for text in [format!("{digits}\n"), format!("{digits}\r\n"), digits.to_lowercase()] {
            assert_eq!(key_of(&mut text.into_bytes()), Some(key.clone()));
        }
        assert!(key_of(&mut [7; 32]).is_some());
        for text in ["", "0", &digits[1..], &format!("{digits}0"), &format!("{digits}\n\n"), &"g".repeat(64)] {
            assert_eq!(key_of(&mut text.as_bytes().to_vec()), None, "{text:?}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let path = std::env::temp_dir().join(format!("antiphon-node-key-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let made = make(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(from_file(&path).unwrap(), made);
        assert!(matches!(make(&path), Err(KeyError::Io { .. })), "no key is written over");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(from_file(&path), Err(KeyError::Open { mode: 0o640, .. })));
        fs::remove_file(&path).unwrap();
        assert!(matches!(from_file(&path), Err(KeyError::Io { .. })));
    }

    #[test]
    fn a_command_prints_a_key_in_time_and_nothing_else() {
        let digits = "5a".repeat(32);
        assert_eq!(from_command(&command(&format!("echo {digits}"))).unwrap(), NodeKey::new([0x5a; 32]));
        for (text, part) in [
            ("echo nonsense", "is no key"),
            (&*format!("echo {digits}; exit 3"), "has ended with"),
            ("yes", "is no key"),
        ] {
            let error = from_command(&command(text)).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains(&digits), "{text}: {error}");
        }
        let slow = run(&command("sleep 5"), Duration::from_millis(50));
        assert!(slow.unwrap_err().to_string().contains("within"), "a command that does not end");
        let closed = run(&command(&format!("echo {digits}; exec >&-; sleep 5")), Duration::from_millis(200));
        assert!(closed.unwrap_err().to_string().contains("not ended"), "a command that only closes its output");
        assert!(from_command(&["/nowhere/at-all".to_owned()]).is_err());
    }
}
