//! Checks dependencies with what can be known offline: where they come from, their licences, known advisories, and that each direct
//! one is named with its reason.

use std::{collections::BTreeSet, fs};

use anyhow::{Context, bail};
use serde::Deserialize;

use crate::process::{cargo, output, root};

/// Licences that may be linked into the binary under MIT or Apache-2.0.
const LICENCES_ALLOWED: &[&str] = &[
    "MIT",
    "MIT-0",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "ISC",
    "Zlib",
    "Unicode-3.0",
    "Unlicense",
    "CC0-1.0",
    "0BSD",
    "OpenSSL",
];

/// Crates under another licence that we may link all the same, with the licence that this was decided for.
/// MPL-2.0 binds changes of its own files, and we link them unchanged. NCSA asks for its notice beside copies; the fuzzer's runtime is
/// linked into fuzz targets only, which nobody hands out.
const LICENCE_EXCEPTIONS: &[(&str, &str)] =
    &[("bitmaps", "MPL-2.0+"), ("libfuzzer-sys", "(MIT OR Apache-2.0) AND NCSA")];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    path: Option<String>,
}

/// docs/advisories.toml.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advisories {
    #[serde(rename = "crate")]
    crates: Vec<Advisory>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Advisory {
    name: String,
    /// The first version without the trouble.
    minimum: String,
    reason: String,
}

pub(crate) fn check() -> anyhow::Result<()> {
    let mut metadata = Metadata { packages: Vec::new() };
    for manifest in ["Cargo.toml", "fuzz/Cargo.toml", "benches/foreign/Cargo.toml"] {
        // Optional ones are built by a comparison that asks for them, so they are looked at.
        let arguments =
            ["metadata", "--locked", "--all-features", "--format-version", "1", "--manifest-path", manifest];
        let read: Metadata = serde_json::from_str(&output(&mut cargo(arguments))?).context(manifest)?;
        for package in read.packages {
            let is_same = |known: &Package| known.name == package.name && known.version == package.version;
            if !metadata.packages.iter().any(is_same) {
                metadata.packages.push(package);
            }
        }
    }
    let advisories = fs::read_to_string(root().join("docs/advisories.toml")).context("docs/advisories.toml")?;
    let advisories: Advisories = toml::from_str(&advisories).context("docs/advisories.toml")?;
    let reasons = fs::read_to_string(root().join("docs/dependencies.md")).context("docs/dependencies.md")?;
    let problems = problems(&metadata, &advisories, &reasons);
    if problems.is_empty() {
        println!("{} packages: sources, licences, advisories and reasons are in order", metadata.packages.len());
        Ok(())
    } else {
        bail!("{} problems:\n{}", problems.len(), problems.join("\n"))
    }
}

fn problems(metadata: &Metadata, advisories: &Advisories, reasons: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut direct = BTreeSet::new();
    for package in &metadata.packages {
        let label = format!("{} {}", package.name, package.version);
        match package.source.as_deref() {
            // Our own.
            None => {
                let foreign = package.dependencies.iter().filter(|dependency| dependency.path.is_none());
                direct.extend(foreign.map(|dependency| dependency.name.as_str()));
                continue;
            }
            Some(REGISTRY) => {}
            Some(source) => problems.push(format!("{label} comes from {source}, not from the registry")),
        }
        match package.license.as_deref() {
            None => problems.push(format!("{label} states no licence")),
            Some(licence) if LICENCE_EXCEPTIONS.contains(&(package.name.as_str(), licence)) => {}
            Some(licence) if !is_allowed(licence) => problems.push(format!("{label} is under {licence}")),
            Some(_) => {}
        }
        for advisory in advisories.crates.iter().filter(|advisory| advisory.name == package.name) {
            if version(&package.version) < version(&advisory.minimum) {
                problems.push(format!("{label} is below {}: {}", advisory.minimum, advisory.reason));
            }
        }
    }
    // The first table; what is not of cargo's registry has tables of its own behind it.
    let crates = reasons.split("\n## ").next().unwrap_or_default();
    let named: BTreeSet<&str> =
        crates.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|line| line.split('`').next()).collect();
    problems.extend(direct.difference(&named).map(|name| format!("{name} has no line in docs/dependencies.md")));
    problems.extend(named.difference(&direct).map(|name| format!("{name} in docs/dependencies.md is not used")));
    problems
}

/// Whether an SPDX expression can be met by allowed licences. `/` is an old way to write `OR`.
fn is_allowed(expression: &str) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<&str> = text.split_whitespace().collect();
    let mut position = 0;
    any_of(&tokens, &mut position) && position == tokens.len()
}

fn any_of(tokens: &[&str], position: &mut usize) -> bool {
    let mut allowed = all_of(tokens, position);
    while tokens.get(*position) == Some(&"OR") {
        *position += 1;
        allowed |= all_of(tokens, position);
    }
    allowed
}

fn all_of(tokens: &[&str], position: &mut usize) -> bool {
    let mut allowed = one(tokens, position);
    while tokens.get(*position) == Some(&"AND") {
        *position += 1;
        allowed &= one(tokens, position);
    }
    allowed
}

fn one(tokens: &[&str], position: &mut usize) -> bool {
    let token = tokens.get(*position).copied().unwrap_or_default();
    *position += 1;
    if token == "(" {
        let allowed = any_of(tokens, position);
        *position += 1;
        return allowed;
    }
    let mut licence = token.to_owned();
    if tokens.get(*position) == Some(&"WITH") {
        licence = format!("{token} WITH {}", tokens.get(*position + 1).copied().unwrap_or_default());
        *position += 2;
    }
    LICENCES_ALLOWED.contains(&licence.as_str())
}

/// Major, minor, patch, and whether it is a full release (a pre-release comes before it).
fn version(text: &str) -> (u64, u64, u64, bool) {
    let text = text.split('+').next().unwrap_or_default();
    let (numbers, pre_release) = text.split_once('-').map_or((text, false), |(numbers, _)| (numbers, true));
    let mut numbers = numbers.split('.').map(|number| number.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next(), !pre_release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_are_judged() {
        for good in [
            "MIT",
            "MIT OR Apache-2.0",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR GPL-3.0) AND ISC",
            "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
        ] {
            assert!(is_allowed(good), "{good}");
        }
        for bad in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT",
            "MIT)",
            "MIT Apache-2.0",
            "GPL-2.0 WITH LLVM-exception",
            "MIT OR",
        ] {
            assert!(!is_allowed(bad), "{bad}");
        }
    }

    #[test]
    fn every_kind_of_problem_is_found() {
        let package = |name: &str, version: &str, license: &str, source: Option<&str>, dependencies: &[&str]| Package {
            name: name.into(),
            version: version.into(),
            license: Some(license.into()),
            source: source.map(str::to_owned),
            dependencies: dependencies.iter().map(|name| Dependency { name: (*name).into(), path: None }).collect(),
        };
        let metadata = Metadata {
            packages: vec![
                package("ours", "0.1.0", "MIT", None, &["good", "unexplained"]),
                package("good", "1.2.3", "MIT", Some(REGISTRY), &["anything"]),
                package("old", "0.8.16", "MIT", Some(REGISTRY), &[]),
                package("old", "0.8.17-rc.1", "MIT", Some(REGISTRY), &[]),
                package("old", "0.8.17", "MIT", Some(REGISTRY), &[]),
                package("viral", "1.0.0", "AGPL-3.0", Some(REGISTRY), &[]),
                package("forked", "1.0.0", "MIT", Some("git+https://e.example"), &[]),
            ],
        };
        let advisories: Advisories =
            toml::from_str("[[crate]]\nname = \"old\"\nminimum = \"0.8.17\"\nreason = \"bad\"\n").unwrap();
        assert_eq!(
            problems(&metadata, &advisories, "| `good` | why |\n| `gone` | why |\n"),
            [
                "old 0.8.16 is below 0.8.17: bad",
                "old 0.8.17-rc.1 is below 0.8.17: bad",
                "viral 1.0.0 is under AGPL-3.0",
                "forked 1.0.0 comes from git+https://e.example, not from the registry",
                "unexplained has no line in docs/dependencies.md",
                "gone in docs/dependencies.md is not used",
            ]
        );
    }
}
