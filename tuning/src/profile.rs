//! What is wanted of a machine, as data: a profile names settings, and for each a value, its reason and where that comes from.
//!
//! Invariants: a key or setting that is not known is refused with file and line; no value stands without reason and source; a profile that
//! extends another replaces whole entries, so that a reason never stays behind from another value.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::{
    catalogue::{self, Place, SETTINGS, Setting, Unit},
    facts::Part,
    value::Value,
};

/// The profiles that come with the crate: name and text.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("development", include_str!("../profiles/development.toml")),
    ("chat-500k", include_str!("../profiles/chat-500k.toml")),
    ("chat-1m", include_str!("../profiles/chat-1m.toml")),
    ("low-latency", include_str!("../profiles/low-latency.toml")),
    ("small-vps", include_str!("../profiles/small-vps.toml")),
];

/// A profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Connections that it is for, if nobody says another number.
    pub connections: u64,
    /// What it wants, in the order of [`SETTINGS`].
    pub tuners: Vec<Tuner>,
}

/// One thing that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuner {
    /// Of which setting.
    pub setting: &'static Setting,
    /// Whether the profile looks at it.
    pub enabled: bool,
    /// How the value is meant.
    pub want: Want,
    /// The values; several only for [`Want::OneOf`], none for [`Want::Note`].
    pub values: Vec<Value>,
    /// What a thousand connections add to each number; empty for nothing.
    pub per_thousand_connections: Vec<u64>,
    /// Whose connections count.
    pub of: Of,
    /// Whether a node does not work without it, or only less well.
    pub severity: Severity,
    /// Why.
    pub reason: String,
    /// Where the value comes from: a measurement, a line of code, a document.
    pub source: String,
}

/// How a value is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    /// No number is less than this. A range of ports holds this one.
    AtLeast,
    /// No number is more than this.
    AtMost,
    /// This value; `spread` stands for what spreads a device's queues over the processors.
    Exactly,
    /// One of these words; the first is what `apply` writes.
    OneOf,
    /// Nothing is wanted; the setting is shown because an operator should know it.
    Note,
}

/// Whose connections a bound counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Of {
    /// All of the node.
    #[default]
    Node,
    /// One shard's part.
    Shard,
}

/// How bad it is if a machine falls short.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The node won't hold what was asked.
    Required,
    /// It will, with retries or less speed.
    #[default]
    Advised,
}

/// What a machine is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Connections of the node.
    pub connections: u64,
    /// Shards of the node, each with a ring of its own.
    pub shards: u64,
    /// The machine's memory, if it is known. Wanted memory of TCP ends at half of it.
    pub memory_bytes: Option<u64>,
}

/// Why a profile was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// Not a profile: mend the line.
    #[error("{file}:{line}: {message}")]
    Wrong {
        /// The file as it was named.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// No profile of this name: use one of those, or a path.
    #[error("no profile {0}; there are {known}, or give the path of a TOML file", known = names())]
    Unknown(String),
}

/// Names of the profiles that come with the crate.
#[must_use]
pub fn names() -> String {
    BUILT_IN.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    description: String,
    extends: Option<Spanned<String>>,
    connections: Option<u64>,
    #[serde(default)]
    tuner: BTreeMap<String, Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default = "enabled_default")]
    enabled: bool,
    want: Want,
    value: Option<Given>,
    per_thousand_connections: Option<Given>,
    #[serde(default)]
    of: Of,
    #[serde(default)]
    severity: Severity,
    reason: Spanned<String>,
    source: Spanned<String>,
}

fn enabled_default() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a number that is not negative, a word, or a list of one kind")]
enum Given {
    Number(u64),
    Word(String),
    Numbers(Vec<u64>),
    Words(Vec<String>),
}

impl Profile {
    /// A profile that comes with the crate.
    ///
    /// # Errors
    /// There is none of this name.
    pub fn built_in(name: &str) -> Result<Self, ProfileError> {
        let known = BUILT_IN.iter().find(|(known, _)| *known == name);
        let (_, text) = known.ok_or_else(|| ProfileError::Unknown(name.to_owned()))?;
        Self::from_toml(&format!("{name}.toml"), text)
    }

    /// Reads a profile; `file` is for messages.
    ///
    /// # Errors
    /// It is not one; the error names file and line.
    pub fn from_toml(file: &str, text: &str) -> Result<Self, ProfileError> {
        let wrong = |at: usize, message: String| {
            let line = text.get(..at).unwrap_or(text).matches('\n').count() + 1;
            ProfileError::Wrong { file: file.to_owned(), line, message }
        };
        let parsed: File = toml::from_str(text)
            .map_err(|error| wrong(error.span().map_or(0, |span| span.start), error.message().to_owned()))?;
        let base = match &parsed.extends {
            None => None,
            Some(name) if name.get_ref() == &parsed.name => {
                return Err(wrong(name.span().start, "a profile can't extend itself".to_owned()));
            }
            Some(name) => {
                Some(Self::built_in(name.get_ref()).map_err(|error| wrong(name.span().start, error.to_string()))?)
            }
        };
        let connections = parsed.connections.or(base.as_ref().map(|base| base.connections));
        let connections = connections.ok_or_else(|| wrong(0, "`connections` is missing".to_owned()))?;
        let mut tuners: BTreeMap<&str, Tuner> = base.map_or_else(BTreeMap::new, |base| {
            base.tuners.into_iter().map(|tuner| (tuner.setting.name, tuner)).collect()
        });
        for (name, entry) in parsed.tuner {
            let at = header_offset(text, &name).unwrap_or(entry.span().start);
            let setting = catalogue::find(&name).ok_or_else(|| wrong(at, unknown_setting(&name)))?;
            let entry = entry.into_inner();
            for (key, text) in [("reason", &entry.reason), ("source", &entry.source)] {
                if text.get_ref().trim().is_empty() {
                    return Err(wrong(text.span().start, format!("`{key}` is empty")));
                }
            }
            let tuner = tuner(setting, entry).map_err(|message| wrong(at, format!("{name}: {message}")))?;
            tuners.insert(setting.name, tuner);
        }
        let in_order = SETTINGS.iter().filter_map(|setting| tuners.remove(setting.name)).collect();
        Ok(Self { name: parsed.name, description: parsed.description, connections, tuners: in_order })
    }
}

/// Where a table begins: its own line says more than that of its first key.
fn header_offset(text: &str, name: &str) -> Option<usize> {
    text.find(&format!("[tuner.{name}]"))
}

fn unknown_setting(name: &str) -> String {
    let known: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    format!("unknown tuner `{name}`; there are {}", known.join(", "))
}

fn tuner(setting: &'static Setting, entry: Entry) -> Result<Tuner, String> {
    let values = match entry.value {
        None => Vec::new(),
        Some(Given::Number(number)) => vec![Value::Number(number)],
        Some(Given::Numbers(numbers)) => vec![Value::Numbers(numbers)],
        Some(Given::Word(word)) => vec![Value::Text(word)],
        Some(Given::Words(words)) => words.into_iter().map(Value::Text).collect(),
    };
    let per_thousand_connections = match entry.per_thousand_connections {
        None => Vec::new(),
        Some(Given::Number(number)) => vec![number],
        Some(Given::Numbers(numbers)) => numbers,
        Some(_) => return Err("`per_thousand_connections` is a number or a list of numbers".to_owned()),
    };
    let count = setting.numbers_count();
    let spreads = values == [Value::Text("spread".to_owned())];
    match entry.want {
        Want::Note if values.is_empty() && per_thousand_connections.is_empty() => {}
        Want::Note => return Err("a note has no value".to_owned()),
        _ if values.is_empty() => return Err("`value` is missing".to_owned()),
        Want::OneOf if setting.unit == Unit::Word && values.iter().all(|value| matches!(value, Value::Text(_))) => {}
        Want::OneOf => return Err("one_of is for words".to_owned()),
        Want::Exactly if spreads || (count == 0 && matches!(values[..], [Value::Text(_)])) => {}
        _ if count == 0 => return Err("it holds a word: use exactly or one_of with words".to_owned()),
        _ if values.len() != 1 || values[0].as_numbers().len() != count => {
            return Err(format!("its value is {count} number{}", if count == 1 { "" } else { "s" }));
        }
        _ => {}
    }
    // Only a lower bound grows with connections; for the others a sum would loosen what it is to tighten.
    if !per_thousand_connections.is_empty() && (entry.want != Want::AtLeast || per_thousand_connections.len() != count)
    {
        return Err("`per_thousand_connections` goes with at_least, one number for each of the value".to_owned());
    }
    Ok(Tuner {
        setting,
        enabled: entry.enabled,
        want: entry.want,
        values,
        per_thousand_connections,
        of: entry.of,
        severity: entry.severity,
        reason: entry.reason.into_inner(),
        source: entry.source.into_inner(),
    })
}

impl Tuner {
    /// The value that is wanted of a part, or `None` if nothing is.
    #[must_use]
    pub fn wanted(&self, asked: Asked, spread: Option<&Value>) -> Option<Value> {
        let first = self.values.first()?;
        if *first == Value::Text("spread".to_owned())
            && let Some(spread) = spread
        {
            return Some(spread.clone());
        }
        // As the kernel will: the figure is then the one that `check` shows when it is done.
        let is_rounded = self.want == Want::AtLeast && matches!(self.setting.place, Place::Table(_));
        if self.per_thousand_connections.is_empty() && self.setting.unit != Unit::Pages && !is_rounded {
            return Some(first.clone());
        }
        let connections = match self.of {
            Of::Node => asked.connections,
            Of::Shard => asked.connections.div_ceil(asked.shards.max(1)),
        };
        let bound = |(index, fixed): (usize, &u64)| {
            let more = self.per_thousand_connections.get(index).copied().unwrap_or(0);
            let bound = fixed.saturating_add(scaled(connections, more, 1000));
            match asked.memory_bytes {
                _ if is_rounded => bound.checked_next_power_of_two().unwrap_or(bound),
                // More than half of the memory for TCP would take what the sockets themselves need.
                Some(bytes) if self.setting.unit == Unit::Pages => bound.min(bytes / 2 / 4096),
                _ => bound,
            }
        };
        let numbers: Vec<u64> = first.as_numbers().iter().enumerate().map(bound).collect();
        Some(match (first, numbers.as_slice()) {
            (Value::Text(_), _) => first.clone(),
            (Value::Number(_), [number]) => Value::Number(*number),
            _ => Value::Numbers(numbers),
        })
    }

    /// Whether a part is as wanted.
    #[must_use]
    pub fn holds(&self, part: &Part, asked: Asked) -> bool {
        match (self.want, self.wanted(asked, part.spread.as_ref())) {
            (Want::Note, _) | (_, None) => true,
            (Want::OneOf, Some(_)) => self.values.contains(&part.value),
            (Want::Exactly, Some(wanted)) => part.value == wanted,
            (Want::AtLeast | Want::AtMost, Some(wanted)) => self.merged(&part.value, &wanted) == part.value,
        }
    }

    /// What a part would be set to: the wanted value, but for numbers that are already better.
    #[must_use]
    pub fn target(&self, part: &Part, asked: Asked) -> Option<Value> {
        let wanted = self.wanted(asked, part.spread.as_ref())?;
        match self.want {
            Want::Note => None,
            Want::OneOf if self.values.contains(&part.value) => Some(part.value.clone()),
            Want::OneOf | Want::Exactly => Some(wanted),
            Want::AtLeast | Want::AtMost => Some(self.merged(&part.value, &wanted)),
        }
    }

    fn merged(&self, current: &Value, wanted: &Value) -> Value {
        let pairs = current.as_numbers().iter().zip(wanted.as_numbers());
        let numbers: Vec<u64> = pairs
            .enumerate()
            .map(|(index, (current, wanted))| {
                let less = self.want == Want::AtMost || (self.setting.is_range() && index == 0);
                if less { *current.min(wanted) } else { *current.max(wanted) }
            })
            .collect();
        match (current, numbers.as_slice()) {
            (Value::Number(_), [number]) => Value::Number(*number),
            _ => Value::Numbers(numbers),
        }
    }

    /// Most connections for which these numbers are enough; `None` if their number doesn't matter here.
    #[must_use]
    pub fn connections_max(&self, current: &Value, shards: u64) -> Option<u64> {
        if self.want != Want::AtLeast || self.per_thousand_connections.iter().all(|more| *more == 0) {
            return None;
        }
        let fixed = self.values.first()?.as_numbers();
        let each = current.as_numbers().iter().zip(fixed).zip(&self.per_thousand_connections);
        let most = each.filter(|(_, more)| **more > 0).map(|((current, fixed), more)| {
            // The kernel's ways of saying "as many as you like".
            let unlimited = *current >= i64::MAX as u64;
            if unlimited { u64::MAX } else { current.saturating_sub(*fixed).saturating_mul(1000) / more }
        });
        let connections = most.min()?;
        Some(match self.of {
            Of::Node => connections,
            Of::Shard => connections.saturating_mul(shards.max(1)),
        })
    }
}

/// `count × each ÷ per`, rounded up, and as large as it gets at most.
fn scaled(count: u64, each: u64, per: u64) -> u64 {
    let product = u128::from(count) * u128::from(each);
    u64::try_from(product.div_ceil(u128::from(per))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked = Asked { connections: 500_000, shards: 2, memory_bytes: None };

    fn part(value: Value) -> Part {
        Part { path: "/x".to_owned(), raw: Vec::new(), value, spread: None, may_set: Ok(()) }
    }

    fn profile(tuner: &str) -> Result<Profile, ProfileError> {
        let head = "name = \"own\"\ndescription = \"mine\"\nconnections = 1000\n";
        Profile::from_toml("own.toml", &format!("{head}{tuner}"))
    }

    fn one(name: &str, rest: &str) -> Tuner {
        let text = format!("[tuner.{name}]\n{rest}\nreason = \"r\"\nsource = \"s\"\n");
        profile(&text).unwrap().tuners.remove(0)
    }

    #[test]
    fn built_in_profiles_are_good() {
        for (name, _) in BUILT_IN {
            let profile = Profile::built_in(name).unwrap();
            assert_eq!(profile.name, *name);
            assert!(profile.tuners.len() >= 5, "{name}");
        }
        assert!(Profile::built_in("warp").unwrap_err().to_string().contains("chat-500k"));
    }

    #[test]
    fn a_wrong_profile_is_refused_with_file_and_line() {
        let why = "reason = \"r\"\nsource = \"s\"\n";
        let cases = [
            ("colour = 1\n".to_owned(), "own.toml:4: unknown field `colour`"),
            (format!("\n[tuner.warp]\nwant = \"note\"\n{why}"), "own.toml:5: unknown tuner `warp`"),
            (
                format!("[tuner.somaxconn]\nwant = \"at_least\"\nvalue = 1\ncolour = 2\n{why}"),
                "own.toml:7: unknown field `colour`",
            ),
            (
                "[tuner.somaxconn]\nwant = \"at_least\"\nvalue = 1\nsource = \"s\"\n".to_owned(),
                "own.toml:4: missing field `reason`",
            ),
            (
                "[tuner.somaxconn]\nwant = \"at_least\"\nvalue = 1\nsource = \"s\"\nreason = \" \"\n".to_owned(),
                "own.toml:8: `reason` is empty",
            ),
            (format!("[tuner.somaxconn]\nwant = \"at_least\"\n{why}"), "own.toml:4: somaxconn: `value` is missing"),
            (
                format!("[tuner.tcp_mem]\nwant = \"at_least\"\nvalue = 1\n{why}"),
                "own.toml:4: tcp_mem: its value is 3 numbers",
            ),
            (format!("[tuner.somaxconn]\nwant = \"at_least\"\nvalue = \"x\"\n{why}"), "its value is 1 number"),
            (format!("[tuner.clock_source]\nwant = \"at_least\"\nvalue = 3\n{why}"), "it holds a word"),
            (format!("[tuner.somaxconn]\nwant = \"at_least\"\nvalue = -1\n{why}"), "not negative"),
            (format!("[tuner.somaxconn]\nwant = \"note\"\nvalue = 1\n{why}"), "a note has no value"),
            (
                format!("[tuner.somaxconn]\nwant = \"at_most\"\nvalue = 1\nper_thousand_connections = 1\n{why}"),
                "goes with at_least",
            ),
            ("x = [".to_owned(), "own.toml:4: "),
        ];
        for (text, expected) in cases {
            let error = profile(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}\n{error}\n{expected}");
        }
        let extends = "name = \"own\"\ndescription = \"d\"\nextends = \"warp\"\n";
        assert!(
            Profile::from_toml("own.toml", extends).unwrap_err().to_string().starts_with("own.toml:3: no profile warp")
        );
        assert!(Profile::from_toml("own.toml", "name = \"own\"\ndescription = \"d\"\n").is_err());
    }

    #[test]
    fn a_profile_extends_another_by_whole_entries() {
        let text = "name = \"own\"\ndescription = \"d\"\nextends = \"chat-500k\"\n[tuner.somaxconn]\nenabled = false\n\
                    want = \"at_least\"\nvalue = 1\nreason = \"mine\"\nsource = \"me\"\n";
        let (own, base) = (Profile::from_toml("own.toml", text).unwrap(), Profile::built_in("chat-500k").unwrap());
        assert_eq!(own.connections, base.connections);
        assert_eq!(own.tuners.len(), base.tuners.len());
        let different: Vec<_> = own.tuners.iter().zip(&base.tuners).filter(|(own, base)| own != base).collect();
        assert!(matches!(different[..], [(own, _)] if own.reason == "mine" && !own.enabled));
    }

    #[test]
    fn values_are_judged_and_merged() {
        let number = |value| part(Value::Number(value));
        let numbers = |values: &[u64]| part(Value::Numbers(values.to_vec()));
        let least = one("somaxconn", "want = \"at_least\"\nvalue = 4096");
        assert!(least.holds(&number(4096), ASKED) && !least.holds(&number(128), ASKED));
        assert_eq!(least.target(&number(8192), ASKED), Some(Value::Number(8192)));
        let ports = one("local_ports", "want = \"at_least\"\nvalue = [16384, 65535]");
        assert!(ports.holds(&numbers(&[1024, 65_535]), ASKED) && !ports.holds(&numbers(&[32_768, 65_535]), ASKED));
        assert_eq!(ports.target(&numbers(&[32_768, 60_999]), ASKED), Some(Value::Numbers(vec![16_384, 65_535])));
        let most = one("tcp_rmem", "want = \"at_most\"\nvalue = [4096, 16384, 131072]");
        assert_eq!(
            most.target(&numbers(&[4096, 131_072, 65_536]), ASKED),
            Some(Value::Numbers(vec![4096, 16_384, 65_536]))
        );
        let shard =
            one("open_files", "want = \"at_least\"\nvalue = 100\nper_thousand_connections = 1000\nof = \"shard\"");
        assert_eq!(shard.wanted(ASKED, None), Some(Value::Number(250_100)));
        assert_eq!(shard.connections_max(&Value::Number(20_100), 2), Some(40_000));
        assert_eq!(shard.connections_max(&Value::Number(u64::MAX), 2), Some(u64::MAX));
        let words = one("disk_scheduler", "want = \"one_of\"\nvalue = [\"none\", \"kyber\"]");
        let word = |word: &str| part(Value::Text(word.to_owned()));
        assert!(words.holds(&word("kyber"), ASKED) && !words.holds(&word("bfq"), ASKED));
        assert_eq!(words.target(&word("bfq"), ASKED), Some(Value::Text("none".to_owned())));
        let spread = one("rps", "want = \"exactly\"\nvalue = \"spread\"");
        let queue = Part { spread: Some(Value::Text("3".to_owned())), ..word("0") };
        assert!(!spread.holds(&queue, ASKED));
        assert_eq!(spread.target(&queue, ASKED), Some(Value::Text("3".to_owned())));
    }

    #[test]
    fn a_table_is_wanted_in_the_size_that_the_kernel_makes() {
        let table = one("established_hash", "want = \"at_least\"\nvalue = 0\nper_thousand_connections = 1000");
        let wanted = |connections| table.wanted(Asked { connections, ..ASKED }, None);
        for (connections, buckets) in [(500_000, 524_288), (524_288, 524_288), (524_289, 1 << 20), (u64::MAX, u64::MAX)]
        {
            assert_eq!(wanted(connections), Some(Value::Number(buckets)), "{connections}");
        }
        assert_eq!(table.connections_max(&Value::Number(262_144), 2), Some(262_144));
        let fixed = one("established_hash", "want = \"at_least\"\nvalue = 500000");
        assert_eq!(fixed.wanted(ASKED, None), Some(Value::Number(524_288)));
        let most = one("established_hash", "want = \"at_most\"\nvalue = 500000");
        assert_eq!(most.wanted(ASKED, None), Some(Value::Number(500_000)), "rounded up it would be loosened");
    }

    #[test]
    fn memory_of_tcp_ends_at_half_of_the_machine() {
        let pages =
            one("tcp_mem", "want = \"at_least\"\nvalue = [1, 2, 1000000]\nper_thousand_connections = [1, 1, 1]");
        let asked = Asked { memory_bytes: Some(1 << 30), ..ASKED };
        assert_eq!(pages.wanted(asked, None), Some(Value::Numbers(vec![501, 502, 131_072])));
    }
}
