//! Values as the kernel prints them: a number, several numbers, or a word. Pure.
//!
//! Invariant: text that is not what was expected gives `None`, never a panic or a guess.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A value of a setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// One number; [`u64::MAX`] stands for "unlimited".
    Number(u64),
    /// Several numbers, such as those of `net.ipv4.tcp_mem`.
    Numbers(Vec<u64>),
    /// A word, such as the name of a scheduler, or a mask of processors.
    Text(String),
}

impl Value {
    /// One number.
    #[must_use]
    pub fn number(text: &str) -> Option<Self> {
        number_at(text, 0).map(Self::Number)
    }

    /// One number whose sign says something else than its size.
    #[must_use]
    pub fn magnitude(text: &str) -> Option<Self> {
        text.trim().parse().ok().map(|number: i64| Self::Number(number.unsigned_abs()))
    }

    /// Exactly so many numbers.
    #[must_use]
    pub fn numbers(text: &str, count: usize) -> Option<Self> {
        let numbers: Vec<u64> = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        (numbers.len() == count).then_some(Self::Numbers(numbers))
    }

    /// The word that is chosen: the one in brackets, or the only one.
    #[must_use]
    pub fn choice(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let bracketed = words.clone().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
        let only = words.next().filter(|_| words.next().is_none());
        bracketed.or(only).map(|word| Self::Text(word.to_owned()))
    }

    /// A trimmed line that is not empty.
    #[must_use]
    pub fn line(text: &str) -> Option<Self> {
        let line = text.lines().next()?.trim();
        (!line.is_empty()).then(|| Self::Text(line.to_owned()))
    }

    /// A mask of processors without its leading zeros, in groups of eight digits as the kernel takes it.
    #[must_use]
    pub fn mask(text: &str) -> Option<Self> {
        let digits: String = text.trim().chars().filter(|character| *character != ',').collect();
        if digits.is_empty() || !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let digits = digits.trim_start_matches('0').to_ascii_lowercase();
        let digits = if digits.is_empty() { "0" } else { &digits };
        let mut grouped = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(8) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        Some(Self::Text(grouped))
    }

    /// The mask of these processors.
    #[must_use]
    pub fn mask_of(processors: &[usize]) -> Self {
        let digits_count = processors.iter().max().map_or(1, |most| most / 4 + 1);
        let mut digits = vec![0_u8; digits_count];
        for processor in processors {
            digits[digits_count - 1 - processor / 4] |= 1 << (processor % 4);
        }
        let text: String = digits.iter().map(|digit| format!("{digit:x}")).collect();
        Self::mask(&text).unwrap_or(Self::Text("0".to_owned()))
    }

    /// Its numbers, if it has any.
    #[must_use]
    pub fn as_numbers(&self) -> &[u64] {
        match self {
            Self::Number(number) => std::slice::from_ref(number),
            Self::Numbers(numbers) => numbers,
            Self::Text(_) => &[],
        }
    }

    /// How it is written to a file of the kernel.
    #[must_use]
    pub fn written(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Numbers(numbers) => numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" "),
            Self::Text(text) => text.clone(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(u64::MAX) => formatter.write_str("unlimited"),
            other => formatter.write_str(&other.written()),
        }
    }
}

/// The number at a place of a line.
pub(crate) fn number_at(text: &str, index: usize) -> Option<u64> {
    text.split_whitespace().nth(index)?.parse().ok()
}

/// Numbers of a list such as `0-3,8`. More than 65,536 are not believed.
pub(crate) fn listed(text: &str) -> Option<Vec<usize>> {
    const LISTED_MAX: usize = 65_536;
    let mut all = Vec::new();
    for range in text.trim().split(',').filter(|range| !range.is_empty()) {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last < first || last - first >= LISTED_MAX - all.len() {
            return None;
        }
        all.extend(first..=last);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(word: &str) -> Option<Value> {
        Some(Value::Text(word.to_owned()))
    }

    #[test]
    fn values_are_read_as_the_kernel_prints_them() {
        assert_eq!(Value::number("4096\n"), Some(Value::Number(4096)));
        assert_eq!(Value::magnitude("-262144\n"), Some(Value::Number(262_144)));
        assert_eq!(Value::magnitude("2097152\n"), Some(Value::Number(2_097_152)));
        assert_eq!(Value::numbers("1\t2 3\n", 3), Some(Value::Numbers(vec![1, 2, 3])));
        assert_eq!(Value::choice("always [madvise] never\n"), text("madvise"));
        assert_eq!(Value::choice("none\n"), text("none"));
        assert_eq!(Value::line(" tsc \n"), text("tsc"));
        assert_eq!(Value::mask("00000000,0000000f\n"), text("f"));
        assert_eq!(Value::mask("00000001,000000ff\n"), text("1,000000ff"));
        assert_eq!(Value::mask("0\n"), text("0"));
        assert_eq!(Value::mask_of(&[0, 1, 5, 33]), Value::Text("2,00000023".to_owned()));
        assert_eq!(listed("0-2,8\n"), Some(vec![0, 1, 2, 8]));
    }

    #[test]
    fn odd_text_is_no_value() {
        for odd in ["", "\n", "x", "-1", "99999999999999999999999", "\0", "1 2", "[", "]["] {
            assert_eq!(Value::numbers(odd, 3), None, "{odd:?}");
        }
        assert_eq!(Value::number("max"), None);
        for odd in ["", "-", "--1", "1 2", "99999999999999999999999"] {
            assert_eq!(Value::magnitude(odd), None, "{odd:?}");
        }
        assert_eq!(Value::choice("a b"), None);
        assert_eq!(Value::choice(""), None);
        assert_eq!(Value::mask("zz"), None);
        assert_eq!(Value::mask(""), None);
        for odd in ["3-1", "0-99999999999", "x", "1-", "0-65536"] {
            assert_eq!(listed(odd), None, "{odd}");
        }
    }
}
