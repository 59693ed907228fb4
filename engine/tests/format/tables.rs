//! The tables of docs/format.md, read as a description of bytes: whatever a table says is what is decoded and
//! demanded here.
//!
//! A layout's table has the columns offset (optional), size, field and remark, and the name of the heading or of the
//! bold words before it. Must not do: know any layout by itself, or fall back on the engine's decoders.

use std::collections::BTreeMap;

use crate::sealed::Sealing;

/// What stands in the document, or in bytes that it describes, is not so.
pub(crate) type Fault = String;

/// Fails with words if something does not hold.
macro_rules! require {
    ($holds:expr, $($words:tt)+) => {
        if !$holds {
            return Err(format!($($words)+));
        }
    };
}
pub(crate) use require;

/// The document's tables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Document {
    layouts: BTreeMap<String, Vec<Row>>,
    /// Of the table of keys and values: name, key, value.
    rows: Vec<(String, Vec<KeyPart>, Vec<ValuePart>)>,
    /// Of the table of what is sealed, by its name.
    sealings: BTreeMap<String, Sealing>,
}

/// A line of a layout's table.
#[derive(Debug, Clone)]
struct Row {
    offset: Option<Sum>,
    size: Size,
    field: String,
    remark: String,
}

#[derive(Debug, Clone)]
enum Size {
    Bytes(Sum),
    Varint,
    /// What is left.
    Rest,
}

/// Terms added up: each has a sign, a factor and perhaps a letter, whose value is known when it is asked for.
#[derive(Debug, Clone)]
struct Sum(Vec<(bool, u64, Option<char>)>);

/// A part of a key.
#[derive(Debug, Clone)]
pub(crate) enum KeyPart {
    Byte(u8),
    Fixed(String, usize),
    /// Up to the next part, or to the end.
    Open(String),
}

/// A part of a value: its name and type.
type ValuePart = (String, String);

/// Values that letters stand for.
pub(crate) type Letters = BTreeMap<char, u64>;

/// What a table needs to know beyond its bytes.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    /// Values that a checksum begins with.
    pub(crate) numbers: &'a [(&'a str, u64)],
    /// Letters that follow from others by the text.
    pub(crate) derived: fn(char, &Letters) -> Option<u64>,
}

/// Nothing.
pub(crate) const NOTHING: Given<'static> = Given { numbers: &[], derived: |_, _| None };

/// Bytes taken apart by a table.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    table: String,
    fields: Vec<(String, usize, &'a [u8], Option<u64>)>,
    /// Where the bytes end that the table describes.
    pub(crate) end: usize,
}

/// A stored row by the table of keys and values: its name, the key's fields, the value's. `None` for a delete marker.
pub(crate) type Decoded = (String, BTreeMap<String, Vec<u8>>, Option<BTreeMap<String, Value>>);

/// A field of a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Value {
    Number(u64),
    Bytes(Vec<u8>),
}

impl Document {
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut document = Self::default();
        let (mut name, mut columns): (String, Option<Vec<String>>) = (String::new(), None);
        for line in text.lines() {
            let Some(cells) = line.strip_prefix("| ").and_then(|rest| rest.trim_end().strip_suffix('|')) else {
                columns = columns.filter(|_| line.starts_with('|'));
                if let Some(title) = title_of(line) {
                    name = title;
                }
                continue;
            };
            let cells: Vec<String> =
                cells.split(" | ").map(|cell| cell.trim().trim_end_matches('|').trim().to_owned()).collect();
            match &columns {
                None => columns = Some(cells),
                Some(columns) => document.line(&name, columns, &cells).map_err(|fault| format!("{line}: {fault}"))?,
            }
        }
        Ok(document)
    }

    fn line(&mut self, table: &str, columns: &[String], cells: &[String]) -> Result<(), Fault> {
        let cell = |column: &str| {
            let index = columns.iter().position(|name| name == column)?;
            Some(cells.get(index).map_or("", String::as_str))
        };
        if let (Some(size), Some(field)) = (cell("size"), cell("field")) {
            let offset = cell("offset").map(Sum::parse).transpose()?;
            let size = match size {
                "…" => Size::Rest,
                "varint" => Size::Varint,
                size => Size::Bytes(Sum::parse(size)?),
            };
            let remark = cells.get(columns.iter().position(|name| name == "field").unwrap_or(0) + 1);
            let remark = remark.cloned().unwrap_or_default();
            self.layouts.entry(table.to_owned()).or_default().push(Row {
                offset,
                size,
                field: field.to_owned(),
                remark,
            });
        } else if let (Some(name), Some(key), Some(value)) = (cell("row"), cell("key"), cell("value")) {
            self.rows.push((name.to_owned(), parse_key(key)?, parse_value(value)?));
        } else if let (Some(name), Some(context), Some(stored)) = (cell("sealed"), cell("for"), cell("stored")) {
            let sealing = Sealing::parse(cell("by").unwrap_or_default(), context, stored)?;
            self.sealings.insert(name.to_owned(), sealing);
        }
        Ok(())
    }

    fn table(&self, name: &str) -> Result<&[Row], Fault> {
        self.layouts.get(name).map(Vec::as_slice).ok_or_else(|| format!("the document has no table {name}"))
    }

    /// How many tables describe bytes, the one of keys and values among them, and the one of what is sealed.
    pub(crate) fn tables(&self) -> usize {
        self.layouts.len() + usize::from(!self.rows.is_empty()) + usize::from(!self.sealings.is_empty())
    }

    /// How something is sealed, if it is.
    pub(crate) fn sealing(&self, what: &str) -> Option<&Sealing> {
        self.sealings.get(what)
    }

    /// A number that stands at a fixed place of a table, read before the rest is: a length.
    pub(crate) fn peek(&self, table: &str, field: &str, bytes: &[u8]) -> Result<u64, Fault> {
        let row = self.table(table)?.iter().find(|row| row.field == field);
        let row = row.ok_or_else(|| format!("{table}: no field {field}"))?;
        let (Some(offset), Size::Bytes(size)) = (&row.offset, &row.size) else {
            return Err(format!("{table}: {field} has no fixed place"));
        };
        let letters = |_| None;
        let at = offset.value(&letters)? as usize;
        let found = bytes.get(at..at + size.value(&letters)? as usize);
        found.and_then(number).ok_or_else(|| format!("{table}: {field} is no number within the bytes"))
    }

    /// Takes `bytes` apart by a table. With a field of what is left, the table describes all of them, else their
    /// beginning.
    pub(crate) fn decode<'a>(&self, name: &str, bytes: &'a [u8], given: Given<'_>) -> Result<Fields<'a>, Fault> {
        let rows = self.table(name)?;
        let middle = rows.iter().position(|row| matches!(row.size, Size::Rest)).unwrap_or(rows.len());
        let mut decoding = Decoding { name, bytes, given, letters: Letters::new(), fields: Vec::new() };
        let mut at = 0;
        for row in &rows[..middle] {
            at += decoding.forward(row, at)?;
        }
        let mut end = at;
        if let Some(rest) = rows.get(middle) {
            end = bytes.len();
            let mut back = end;
            for row in rows[middle + 1..].iter().rev() {
                let size = decoding.size(row)?;
                back = back.checked_sub(size).ok_or_else(|| format!("{name}: {} does not fit", row.field))?;
                decoding.take(row, back, size)?;
            }
            require!(at <= back, "{name}: there is nothing left for {}", rest.field);
            decoding.take(rest, at, back - at)?;
        }
        for row in rows {
            decoding.check(row)?;
        }
        Ok(Fields { table: name.to_owned(), fields: decoding.fields, end })
    }

    /// Takes a stored row apart by the table of keys and values.
    pub(crate) fn row(&self, key: &[u8], value: Option<&[u8]>) -> Result<Decoded, Fault> {
        let mut found = Vec::new();
        for (name, key_parts, value_parts) in &self.rows {
            if let Some(fields) = match_key(key_parts, key) {
                let value = value.map(|value| match_value(value_parts, value));
                let value = value.transpose().map_err(|fault| format!("{name}: {fault}"))?;
                found.push((name.clone(), fields, value));
            }
        }
        match (found.pop(), found.pop()) {
            (Some(decoded), None) => Ok(decoded),
            (None, _) => Err(format!("no row of the document has the key {key:02x?}")),
            (Some(one), Some(other)) => Err(format!("the key {key:02x?} may be {} and {}", one.0, other.0)),
        }
    }
}

struct Decoding<'a, 'g> {
    name: &'g str,
    bytes: &'a [u8],
    given: Given<'g>,
    letters: Letters,
    fields: Vec<(String, usize, &'a [u8], Option<u64>)>,
}

impl Decoding<'_, '_> {
    fn letter(&self, letter: char) -> Option<u64> {
        self.letters.get(&letter).copied().or_else(|| (self.given.derived)(letter, &self.letters))
    }

    fn size(&self, row: &Row) -> Result<usize, Fault> {
        match &row.size {
            Size::Bytes(sum) => Ok(sum.value(&|letter| self.letter(letter))? as usize),
            Size::Varint | Size::Rest => Err(format!("{}: {} has no size", self.name, row.field)),
        }
    }

    /// Takes the next field; gives its size.
    fn forward(&mut self, row: &Row, at: usize) -> Result<usize, Fault> {
        if matches!(row.size, Size::Varint) {
            let (value, size) = varint(self.bytes.get(at..).unwrap_or_default())
                .ok_or_else(|| format!("{}: {} is no varint", self.name, row.field))?;
            self.field(row, at, size, Some(value))?;
            return Ok(size);
        }
        let size = self.size(row)?;
        self.take(row, at, size)?;
        Ok(size)
    }

    fn take(&mut self, row: &Row, at: usize, size: usize) -> Result<(), Fault> {
        let bytes = at.checked_add(size).and_then(|end| self.bytes.get(at..end));
        let number = bytes.filter(|_| !matches!(row.size, Size::Rest)).and_then(number);
        self.field(row, at, size, number)
    }

    fn field(&mut self, row: &Row, at: usize, size: usize, number: Option<u64>) -> Result<(), Fault> {
        let bytes = at.checked_add(size).and_then(|end| self.bytes.get(at..end));
        let bytes = bytes.ok_or_else(|| format!("{}: {} is beyond the bytes", self.name, row.field))?;
        if let (Some(letter), Some(number)) = (defined_letter(&row.remark), number) {
            self.letters.insert(letter, number);
        }
        self.fields.push((row.field.clone(), at, bytes, number));
        Ok(())
    }

    /// Holds a field that was taken against what its line says of it: place, value, checksum.
    fn check(&self, row: &Row) -> Result<(), Fault> {
        let (name, field) = (self.name, &row.field);
        let place = row.offset.as_ref().map(|offset| offset.value(&|letter| self.letter(letter))).transpose()?;
        let mut taken = self.fields.iter().filter(|(of, ..)| of == field);
        let taken = match place {
            Some(place) => taken.find(|(_, at, ..)| *at as u64 == place),
            None => taken.next(),
        };
        let Some((_, _, bytes, number)) = taken else {
            return Err(format!("{name}: {field} does not begin at {place:?}"));
        };
        if field == "reserved" {
            require!(bytes.iter().all(|byte| *byte == 0), "{name}: reserved bytes are not zero");
        } else if field == "checksum" {
            let expected = self.checksum(&row.remark)?;
            require!(*number == Some(expected.into()), "{name}: the checksum is not {expected:08x}: {number:08x?}");
        } else if let Some(text) = row.remark.strip_prefix('`').and_then(|rest| rest.split('`').next()) {
            let text = text.replace("\\n", "\n");
            let holds = text.parse().map_or_else(|_| *bytes == text.as_bytes(), |value: u64| *number == Some(value));
            require!(holds, "{name}: {field} is not {text:?}: {bytes:02x?}");
        }
        Ok(())
    }

    /// The checksum of what a remark names: `of PART, PART`.
    fn checksum(&self, remark: &str) -> Result<u32, Fault> {
        let parts = remark.strip_prefix("of ").ok_or_else(|| format!("{}: a checksum of nothing", self.name))?;
        let value = |text: &str| Sum::parse(text)?.value(&|letter| self.letter(letter));
        let mut checksum = 0;
        for part in parts.split(", ") {
            if let Some(range) = part.strip_prefix("bytes ") {
                let (from, to) = range.split_once("..").ok_or_else(|| format!("{part}: no range"))?;
                let bytes = self.bytes.get(value(from)? as usize..value(to)? as usize);
                let bytes = bytes.ok_or_else(|| format!("{}: {part} are not there", self.name))?;
                checksum = crc32c::crc32c_append(checksum, bytes);
            } else if let Some(count) = part.strip_suffix(" zero bytes") {
                checksum = crc32c::crc32c_append(checksum, &vec![0; value(count)? as usize]);
            } else {
                let name = part.trim_start_matches("the ").strip_suffix(" (8 bytes)");
                let number = self.given.numbers.iter().find(|(of, _)| Some(*of) == name);
                let (_, number) = number.ok_or_else(|| format!("{}: nobody knows {part}", self.name))?;
                checksum = crc32c::crc32c_append(checksum, &number.to_le_bytes());
            }
        }
        Ok(checksum)
    }
}

impl<'a> Fields<'a> {
    fn find(&self, field: &str) -> Result<(&'a [u8], Option<u64>), Fault> {
        let found = self.fields.iter().find(|(of, ..)| of == field);
        found.map(|(_, _, bytes, number)| (*bytes, *number)).ok_or_else(|| format!("{}: no field {field}", self.table))
    }

    pub(crate) fn number(&self, field: &str) -> Result<u64, Fault> {
        self.find(field)?.1.ok_or_else(|| format!("{}: {field} is no number", self.table))
    }

    pub(crate) fn bytes(&self, field: &str) -> Result<&'a [u8], Fault> {
        Ok(self.find(field)?.0)
    }

    pub(crate) fn id(&self, field: &str) -> Result<[u8; 16], Fault> {
        self.bytes(field)?.try_into().map_err(|_| format!("{}: {field} has no 16 bytes", self.table))
    }
}

impl Sum {
    fn parse(text: &str) -> Result<Self, Fault> {
        let mut terms: Vec<(bool, u64, Option<char>)> = Vec::new();
        let (mut added, mut product) = (true, false);
        for word in text.split(' ') {
            let (factor, letter) = match (word, word.parse(), word.chars().next()) {
                ("+" | "−", ..) => {
                    added = word == "+";
                    continue;
                }
                ("×", ..) => {
                    product = true;
                    continue;
                }
                (_, Ok(factor), _) => (factor, None),
                (_, Err(_), Some(letter)) if word.len() == 1 && letter.is_ascii_lowercase() => (1, Some(letter)),
                _ => return Err(format!("{word:?} is neither a number nor a letter")),
            };
            match terms.last_mut().filter(|_| std::mem::take(&mut product)) {
                Some(term) => (term.1, term.2) = (term.1.saturating_mul(factor), term.2.or(letter)),
                None => terms.push((added, factor, letter)),
            }
        }
        Ok(Self(terms))
    }

    fn value(&self, letters: &dyn Fn(char) -> Option<u64>) -> Result<u64, Fault> {
        let mut sum: u64 = 0;
        for (added, factor, letter) in &self.0 {
            let value = letter.map_or(Some(1), letters).ok_or_else(|| format!("{letter:?} has no value"))?;
            let term = factor.saturating_mul(value);
            sum = if *added { sum.saturating_add(term) } else { sum.saturating_sub(term) };
        }
        Ok(sum)
    }
}

/// The name that a line gives to the table after it.
fn title_of(line: &str) -> Option<String> {
    let words = match line.strip_prefix("**") {
        Some(bold) => bold.split("**").next()?,
        None => line.strip_prefix('#')?.trim_start_matches('#').trim(),
    };
    let end = words.find([',', '(']).unwrap_or(words.len());
    Some(words[..end].trim().to_owned())
}

/// `*n*, how many` gives the field's value a letter.
fn defined_letter(remark: &str) -> Option<char> {
    let mut letters = remark.strip_prefix('*')?.chars();
    letters.next().filter(|_| letters.next() == Some('*'))
}

/// An integer of a common size, little endian.
fn number(bytes: &[u8]) -> Option<u64> {
    matches!(bytes.len(), 1 | 2 | 4 | 8).then(|| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
}

/// Unsigned LEB128 in its shortest form, below 2³²; with its size.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let size = bytes.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let value = bytes[..size].iter().rev().fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7f));
    let shortest = size == 1 || bytes[size - 1] != 0;
    (shortest && size <= 5 && value <= u64::from(u32::MAX)).then_some((value, size))
}

/// The parts of a cell in code: `ONE · OTHER`.
fn parts(cell: &str) -> Result<impl Iterator<Item = &str>, Fault> {
    let code = cell.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
    Ok(code.ok_or_else(|| format!("{cell}: not in code"))?.split(" · "))
}

pub(crate) fn parse_key(cell: &str) -> Result<Vec<KeyPart>, Fault> {
    let part = |text: &str| match (text.strip_suffix(']').and_then(|rest| rest.split_once('[')), text.len()) {
        (Some((name, size)), _) => {
            let size = size.parse().map_err(|_| format!("{text}: no size"))?;
            Ok(KeyPart::Fixed(name.to_owned(), size))
        }
        (None, 2) => u8::from_str_radix(text, 16).map(KeyPart::Byte).map_err(|_| format!("{text}: no byte")),
        (None, _) => Ok(KeyPart::Open(text.to_owned())),
    };
    parts(cell)?.map(part).collect()
}

fn parse_value(cell: &str) -> Result<Vec<ValuePart>, Fault> {
    let part = |text: &str| match text.rsplit_once(' ') {
        Some((name, kind)) => (name.to_owned(), kind.to_owned()),
        None if text.ends_with(']') => {
            let (name, size) = text.split_at(text.find('[').unwrap_or(0));
            (name.to_owned(), size.to_owned())
        }
        // What it is says enough.
        None => (text.to_owned(), "bytes".to_owned()),
    };
    Ok(parts(cell)?.map(part).collect())
}

pub(crate) fn match_key(parts: &[KeyPart], mut key: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut fields = BTreeMap::new();
    for (index, part) in parts.iter().enumerate() {
        let (name, size) = match part {
            KeyPart::Byte(byte) => {
                key = key.strip_prefix(&[*byte])?;
                continue;
            }
            KeyPart::Fixed(name, size) => (name, *size),
            KeyPart::Open(name) => match parts.get(index + 1) {
                Some(KeyPart::Byte(end)) => (name, key.iter().position(|byte| byte == end)?),
                _ => (name, key.len()),
            },
        };
        let (field, rest) = key.split_at_checked(size)?;
        fields.insert(name.clone(), field.to_vec());
        key = rest;
    }
    key.is_empty().then_some(fields)
}

fn match_value(parts: &[ValuePart], mut value: &[u8]) -> Result<BTreeMap<String, Value>, Fault> {
    let mut fields = BTreeMap::new();
    for (name, kind) in parts {
        let size = match kind.as_str() {
            "u8" => 1,
            "u32" => 4,
            "u64" => 8,
            "UTF-8" | "bytes" => value.len(),
            kind => {
                let size = kind.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                size.and_then(|size| size.parse().ok()).ok_or_else(|| format!("{name}: no type {kind}"))?
            }
        };
        let (field, rest) = value.split_at_checked(size).ok_or_else(|| format!("{name} is beyond the value"))?;
        let is_number = kind.starts_with('u');
        require!(kind != "UTF-8" || std::str::from_utf8(field).is_ok(), "{name} is not UTF-8");
        let field = number(field).filter(|_| is_number).map_or_else(|| Value::Bytes(field.to_vec()), Value::Number);
        fields.insert(name.clone(), field);
        value = rest;
    }
    require!(value.is_empty(), "{} bytes are left", value.len());
    Ok(fields)
}
