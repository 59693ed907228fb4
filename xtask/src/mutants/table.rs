//! The table in docs/mutants.md: what ran, and nothing else.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use anyhow::Context;

use super::{
    catalogue::Mutant,
    results::{Outcome, Results},
};

const BEGIN: &str = "<!-- results: written by `cargo xtask mutants` -->\n";
const END: &str = "<!-- end of results -->\n";

/// Longest words in a cell.
const CELL_CHARACTERS_MAX: usize = 110;

/// Replaces the document's table.
pub(super) fn write(path: &Path, all: &[Mutant], results: &Results) -> anyhow::Result<()> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let (before, rest) = text.split_once(BEGIN).context("the document has no place for the results")?;
    let (_, after) = rest.split_once(END).context("the place for the results has no end")?;
    fs::write(path, [before, BEGIN, &render(all, results), END, after].concat())?;
    println!("written: {}", path.display());
    Ok(())
}

fn render(all: &[Mutant], results: &Results) -> String {
    let ran: Vec<_> = all.iter().filter_map(|mutant| Some((mutant, results.results.get(&mutant.name)?))).collect();
    let found = ran.iter().filter(|(_, kept)| matches!(kept.outcome, Outcome::Found { .. })).count();
    let mut text = format!("\n{found} of {} found; the catalogue has {}.\n", ran.len(), all.len());
    let mut facts = |what: &str, of: Vec<&str>| {
        let different: BTreeSet<&str> = of.into_iter().collect();
        let _ = writeln!(text, "{what}: {}.", different.into_iter().collect::<Vec<_>>().join("; "));
    };
    facts("Machine", ran.iter().map(|(_, kept)| kept.machine.as_str()).collect());
    facts("Date", ran.iter().map(|(_, kept)| kept.date.as_str()).collect());
    facts("Revision", ran.iter().map(|(_, kept)| kept.revision.as_str()).collect());
    text.push_str("\n| bug | breaks | found by | after | it said |\n|---|---|---|---|---|\n");
    for (mutant, kept) in &ran {
        let (by, seconds, said) = match &kept.outcome {
            Outcome::Found { by, said, seconds } => (by.as_str(), *seconds, said.as_str()),
            Outcome::Survived { cut: Some(suite), seconds, .. } => ("**time was up**", *seconds, suite.as_str()),
            Outcome::Survived { seconds, .. } => ("**survived**", *seconds, ""),
            Outcome::Broken { said } => ("does not compile", 0.0, said.as_str()),
        };
        let (breaks, by, said) =
            (cell(&mutant.breaks, usize::MAX), cell(by, usize::MAX), cell(said, CELL_CHARACTERS_MAX));
        let _ = writeln!(text, "| `{}` | {breaks} | {by} | {seconds:.1} s | {said} |", mutant.name);
    }
    let missing: Vec<_> =
        all.iter().filter(|mutant| !results.has(&mutant.name)).map(|mutant| mutant.name.as_str()).collect();
    if !missing.is_empty() {
        let _ = writeln!(text, "\nNot run: {}.", missing.join(", "));
    }
    text.push('\n');
    text
}

/// Words that can't end the cell or begin anything else.
fn cell(text: &str, characters_max: usize) -> String {
    let mut characters = text.chars();
    let mut kept = String::new();
    for character in characters.by_ref().take(characters_max) {
        match character {
            '|' | '<' | '*' | '_' | '[' | ']' | '`' if characters_max != usize::MAX => {
                kept.push('\\');
                kept.push(character);
            }
            '|' => kept.push_str("\\|"),
            '\n' => kept.push(' '),
            other => kept.push(other),
        }
    }
    if characters.next().is_some() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_stays_one() {
        assert_eq!(cell("a|b\nc_d", usize::MAX), "a\\|b c_d");
        assert_eq!(cell("a|b\nc_d `e`", 9), "a\\|b c\\_d \\`…");
    }
}
