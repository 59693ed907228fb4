//! Reads who may look at the operator's page.

use super::{KeysFile, Problem, Values, api::told_at};
use crate::outside::backend::keys::{Keys, Scope};

/// The operator's page.
#[derive(Debug, Clone, Default)]
pub struct Operator {
    /// Who may look at it: those of these keys that have the scope for it. In development one more is made at the start.
    pub keys: Keys,
    /// Where the keys are from, if they are from a file.
    pub file: Option<KeysFile>,
}

/// `None` if there is to be none.
pub(super) fn load(
    dev: bool,
    values: &Values,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) -> Option<Operator> {
    const NAME: &str = "operator.keys_file";
    let Some(path) = values.path(NAME) else { return dev.then(Operator::default) };
    // Keys for tokens may stand in the same file; they are of no use here whatever signs tokens.
    let file = KeysFile::new(path, true);
    match file.read() {
        Ok(keys) => {
            if !dev && !keys.iter().any(|key| key.has(Scope::Operate)) {
                warnings
                    .push(format!("{NAME}: no key has the scope operate, so nobody can look at the operator's page"));
            }
            Some(Operator { keys, file: Some(file) })
        }
        Err(found) => {
            problems.extend(told_at(NAME, file.path(), found, values));
            None
        }
    }
}
