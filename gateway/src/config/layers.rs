//! Where values come from: reads each source into raw values with their origin, and merges them, the later over the earlier.

use std::{fmt, net::SocketAddr, path::PathBuf};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Problem,
    keys::{Default, Form, KEYS, Key, SHARDS_MAX, index_of, nearest},
};

/// Where a value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A line of the file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// A variable of the environment.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Self::Environment(name) => write!(formatter, "env {name}"),
            Self::Flag(name) => write!(formatter, "flag {name}"),
        }
    }
}

/// A value of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Not set.
    Unset,
    /// A whole number.
    Integer(u64),
    /// On or off.
    Boolean(bool),
    /// Text, secret, path or address.
    Text(String),
    /// A list of texts.
    List(Vec<String>),
}

/// Everything that a configuration is made of, as it was found.
#[derive(Debug, Clone, std::default::Default)]
pub struct Sources {
    /// The file's name and text, if one was named.
    pub file: Option<(PathBuf, String)>,
    /// The environment. Variables without our prefix are passed over.
    pub environment: Vec<(String, String)>,
    /// The flags: how it was written (`--listen`, `--set limits.page_items_max`), the key, the value.
    pub flags: Vec<(String, String, String)>,
    /// Whether `--dev` was given.
    pub dev: bool,
    /// The machine's cores.
    pub cores: usize,
}

/// Every key's value and origin.
#[derive(Debug, Clone)]
pub struct Values(Vec<(Value, Origin)>);

impl Values {
    /// Key, value and origin, in the table's order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Key, &Value, &Origin)> {
        KEYS.iter().zip(&self.0).map(|(key, (value, origin))| (key, value, origin))
    }

    /// Where a key's value stands.
    #[must_use]
    pub fn origin(&self, name: &str) -> Origin {
        index_of(name).map_or(Origin::Default, |index| self.0[index].1.clone())
    }

    fn value(&self, name: &str) -> &Value {
        let index = index_of(name).expect("only keys of the table are asked for");
        &self.0[index].0
    }

    pub(super) fn integer(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn boolean(&self, name: &str) -> bool {
        matches!(self.value(name), Value::Boolean(true))
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        }
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Value::List(items) => items.clone(),
            _ => Vec::new(),
        }
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    pub(super) fn address(&self, name: &str) -> Option<SocketAddr> {
        self.text(name)?.parse().ok()
    }
}

/// All keys with the value of highest precedence, and warnings. A value that isn't good is a problem and leaves the one below.
pub(super) fn merge(sources: &Sources, problems: &mut Vec<Problem>) -> (Values, Vec<String>) {
    let mut values = Values(KEYS.iter().map(|key| (default_value(key, sources.cores), Origin::Default)).collect());
    let mut warnings = Vec::new();
    if let Some((path, text)) = &sources.file {
        read_file(path, text, &mut values, problems);
    }
    let mut environment: Vec<_> =
        sources.environment.iter().filter(|(name, _)| name.starts_with("ANTIPHON_")).collect();
    environment.sort();
    for (name, text) in environment {
        match KEYS.iter().position(|key| key.environment() == *name) {
            Some(index) => {
                put(&mut values, index, from_text(&KEYS[index], text), Origin::Environment(name.clone()), problems);
            }
            // Not refused: an orchestrator names variables after its services, such as ANTIPHON_SERVICE_HOST.
            None => {
                let known: Vec<String> = KEYS.iter().map(Key::environment).collect();
                let hint = hint(nearest(name, known.iter().map(String::as_str)));
                warnings.push(format!("the environment's {name} is no key of the configuration{hint}"));
            }
        }
    }
    for (flag, name, text) in &sources.flags {
        let origin = Origin::Flag(flag.clone());
        match index_of(name) {
            Some(index) => put(&mut values, index, from_text(&KEYS[index], text), origin, problems),
            None => problems.push(Problem { origin, text: unknown_key(name) }),
        }
    }
    (values, warnings)
}

fn put(values: &mut Values, index: usize, value: Result<Value, String>, origin: Origin, problems: &mut Vec<Problem>) {
    match value {
        Ok(value) => values.0[index] = (value, origin),
        Err(text) => problems.push(Problem { origin, text: format!("{}: {text}", KEYS[index].name) }),
    }
}

fn default_value(key: &Key, cores: usize) -> Value {
    match key.default {
        Default::Unset => Value::Unset,
        Default::Integer(value) => Value::Integer(value),
        Default::Boolean(value) => Value::Boolean(value),
        Default::Text(text) if key.form == Form::List => Value::List(text.split(',').map(str::to_owned).collect()),
        Default::Text(text) => Value::Text(text.to_owned()),
        Default::Cores => Value::Integer((cores as u64).clamp(1, SHARDS_MAX)),
        Default::Lanes => Value::Integer(if cores <= 4 { 1 } else { 2 }),
    }
}

fn from_text(key: &Key, text: &str) -> Result<Value, String> {
    match key.form {
        Form::Integer { min, max } => match text.parse() {
            Ok(number) => check_range(number, min, max),
            Err(_) => Err(format!("{text:?} is not a whole number from {min} to {max}")),
        },
        Form::Size { min, max } => match bytes_of(text) {
            Some(bytes) => check_range(bytes, min, max),
            None => Err(format!("{text:?} is not a size such as 1073741824, 512MiB or 8GB")),
        },
        Form::Boolean => match text.parse() {
            Ok(value) => Ok(Value::Boolean(value)),
            Err(_) => Err(format!("{text:?} is neither true nor false")),
        },
        Form::List | Form::Paths => {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            Ok(Value::List(items.map(str::to_owned).collect()))
        }
        Form::Text | Form::Secret | Form::Path | Form::Address => check_text(key, text),
    }
}

/// A whole number, perhaps with a unit of 1024s or of 1000s.
fn bytes_of(text: &str) -> Option<u64> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn check_range(number: u64, min: u64, max: u64) -> Result<Value, String> {
    if (min..=max).contains(&number) {
        Ok(Value::Integer(number))
    } else {
        Err(format!("{number} is not from {min} to {max}"))
    }
}

fn check_text(key: &Key, text: &str) -> Result<Value, String> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if key.form == Form::Address && text.parse::<SocketAddr>().is_err() {
        return Err(format!("{text:?} is not an address such as 127.0.0.1:8080 or [::1]:8080"));
    }
    Ok(Value::Text(text.to_owned()))
}

fn read_file(path: &std::path::Path, text: &str, values: &mut Values, problems: &mut Vec<Problem>) {
    let at = |offset: usize| Origin::File { path: path.to_owned(), line: line_of(text, offset) };
    // A syntax error doesn't hide what else is wrong.
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let origin = at(error.span().map_or(0, |span| span.start));
        problems.push(Problem { origin, text: error.message().to_owned() });
    }
    let folder = path.parent().unwrap_or(std::path::Path::new(""));
    for (table_name, table) in document.get_ref() {
        let table_name_text = table_name.get_ref();
        let origin = at(table_name.span().start);
        let prefix = format!("{table_name_text}.");
        if !KEYS.iter().any(|key| key.name.starts_with(&prefix)) {
            let tables = KEYS.iter().filter_map(|key| key.name.split_once('.')).map(|(table, _)| table);
            let hint = match index_of_last_part(table_name_text) {
                Some(key) => format!(
                    "; did you mean {}, under [{}]?",
                    key.name,
                    key.name.split_once('.').map_or("", |(table, _)| table)
                ),
                None => hint(nearest(table_name_text, tables)),
            };
            problems.push(Problem { origin, text: format!("unknown table {table_name_text}{hint}") });
            continue;
        }
        let Some(table) = table.get_ref().as_table() else {
            problems.push(Problem { origin, text: format!("{table_name_text} is a table: write [{table_name_text}]") });
            continue;
        };
        for (key_name, value) in table {
            let name = format!("{table_name_text}.{}", key_name.get_ref());
            let origin = at(key_name.span().start);
            match index_of(&name) {
                Some(index) => {
                    let value = from_toml(&KEYS[index], value, folder);
                    put(values, index, value, origin, problems);
                }
                None => problems.push(Problem { origin, text: unknown_key(&name) }),
            }
        }
    }
}

fn from_toml(key: &Key, value: &Spanned<DeValue<'_>>, folder: &std::path::Path) -> Result<Value, String> {
    match (key.form, value.get_ref()) {
        (Form::Integer { min, max } | Form::Size { min, max }, DeValue::Integer(integer)) => {
            match u64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) => check_range(number, min, max),
                Err(_) => Err(format!("{integer} is not from {min} to {max}")),
            }
        }
        (Form::Integer { min, max }, other) => {
            Err(format!("is a whole number from {min} to {max}, not {}", other.type_str()))
        }
        (Form::Size { .. }, DeValue::String(text)) => from_text(key, text),
        (Form::Size { .. }, other) => {
            Err(format!("is a size such as 1073741824 or \"512MiB\", not {}", other.type_str()))
        }
        (Form::Boolean, DeValue::Boolean(value)) => Ok(Value::Boolean(*value)),
        (Form::Boolean, other) => Err(format!("is true or false, not {}", other.type_str())),
        (Form::List | Form::Paths, DeValue::Array(items)) => {
            let texts = items.iter().map(|item| match item.get_ref() {
                DeValue::String(text) if !text.is_empty() && key.form == Form::Paths => {
                    Ok(folder.join(text.as_ref()).to_string_lossy().into_owned())
                }
                DeValue::String(text) if !text.is_empty() => Ok(text.clone().into_owned()),
                _ => Err("is a list of texts".to_owned()),
            });
            texts.collect::<Result<_, _>>().map(Value::List)
        }
        (Form::List | Form::Paths, other) => Err(format!("is a list of texts, not {}", other.type_str())),
        (Form::Path, DeValue::String(text)) if !text.is_empty() => {
            Ok(Value::Text(folder.join(text.as_ref()).to_string_lossy().into_owned()))
        }
        (_, DeValue::String(text)) => check_text(key, text),
        (_, other) => Err(format!("is a text, not {}", other.type_str())),
    }
}

fn unknown_key(name: &str) -> String {
    format!("unknown key {name}{}", hint(nearest(name, KEYS.iter().map(|key| key.name))))
}

fn hint(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("; did you mean {name}?"))
}

/// A key that was written outside its table.
fn index_of_last_part(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name.split_once('.').is_some_and(|(_, last)| last == name))
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
