//! Installs what the tests need: Debian packages as root, Python and Node packages in folders of our own.

use std::{fs, path::PathBuf, process::Stdio};

use anyhow::bail;

use crate::process::{self, is_installed, program, root};

/// A need and the Debian package that meets it.
struct Need {
    what: &'static str,
    package: &'static str,
    is_met: fn() -> bool,
}

const NEEDS: &[Need] = &[
    Need {
        what: "a C and C++ compiler",
        package: "build-essential",
        is_met: || is_installed("cc") && is_installed("c++"),
    },
    Need { what: "Python 3", package: "python3", is_met: || is_installed("python3") },
    Need { what: "Python's venv", package: "python3-venv", is_met: || python_has("ensurepip") },
    Need { what: "Node", package: "nodejs", is_met: || is_installed("node") },
    Need { what: "npm", package: "npm", is_met: || is_installed("npm") },
    Need {
        what: "Chromium",
        package: "chromium",
        is_met: || is_installed("chromium") || std::env::var_os("ANTIPHON_CHROMIUM").is_some(),
    },
    Need { what: "fonts", package: "fonts-dejavu-core", is_met: has_fonts },
];

/// Python packages, pinned.
const PYTHON_PACKAGES: &str = include_str!("../requirements.txt");

/// Folders with a package.json and a lock file.
const NODE_FOLDERS: &[&str] = &["clients/examples", "clients/typescript", "gateway/page/tests"];

pub(crate) fn run() -> anyhow::Result<()> {
    debian_packages()?;
    python_packages()?;
    NODE_FOLDERS.iter().try_for_each(|folder| node_packages(folder))
}

/// A program of the tests' Python environment.
pub(crate) fn python_program(name: &str) -> PathBuf {
    root().join("target/venv/bin").join(name)
}

fn debian_packages() -> anyhow::Result<()> {
    let missing: Vec<&Need> = NEEDS.iter().filter(|need| !(need.is_met)()).collect();
    if missing.is_empty() {
        println!("programs: all there");
        return Ok(());
    }
    let whats: Vec<&str> = missing.iter().map(|need| need.what).collect();
    let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if !is_root() || !is_installed("apt-get") {
        bail!("the tests need {}; install it by: sudo apt-get install {}", whats.join(", "), packages.join(" "));
    }
    println!("installing {}", whats.join(", "));
    let quiet = |mut command: std::process::Command| process::run(command.env("DEBIAN_FRONTEND", "noninteractive"));
    let apt = |arguments: &[&str]| {
        let mut command = program("apt-get");
        command.args(arguments).stdout(Stdio::null());
        command
    };
    quiet(apt(&["update", "-qq"]))?;
    let mut install = apt(&["install", "-y", "-qq", "--no-install-recommends"]);
    install.args(&packages);
    quiet(install)?;
    match NEEDS.iter().find(|need| !(need.is_met)()) {
        None => Ok(()),
        Some(need) => bail!("{} is still missing after {} was installed", need.what, need.package),
    }
}

fn python_packages() -> anyhow::Result<()> {
    let folder = root().join("target/venv");
    let stamp = folder.join("installed.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == PYTHON_PACKAGES) {
        println!("Python packages: all there");
        return Ok(());
    }
    process::run(program("python3").args(["-m", "venv", "--clear"]).arg(&folder))?;
    let requirements = root().join("xtask/requirements.txt");
    process::run(
        program(python_program("pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(requirements),
    )?;
    Ok(fs::write(stamp, PYTHON_PACKAGES)?)
}

fn node_packages(folder: &str) -> anyhow::Result<()> {
    let path = root().join(folder);
    let Ok(lock) = fs::read_to_string(path.join("package-lock.json")) else {
        // Its test says so louder; a folder may also need nothing.
        println!("{folder}: no package-lock.json, nothing to install");
        return Ok(());
    };
    let stamp = path.join("node_modules/installed.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == lock) {
        println!("{folder}: all there");
        return Ok(());
    }
    process::run(program("npm").args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]).current_dir(&path))?;
    fs::create_dir_all(path.join("node_modules"))?;
    Ok(fs::write(stamp, lock)?)
}

fn has_fonts() -> bool {
    fs::read_dir("/usr/share/fonts/truetype").is_ok_and(|mut folders| folders.next().is_some())
}

fn python_has(module: &str) -> bool {
    let mut command = program("python3");
    command.args(["-c", &format!("import {module}")]).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.and_then(|ids| ids.split_whitespace().nth(1).map(str::to_owned)).as_deref() == Some("0")
}
