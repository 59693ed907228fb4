//! Rows of the ordered keyspace: a key, and what the newest writer says about it.
//!
//! Keys and values are opaque here. Keys order by their bytes; of two rows with one key the newer hides the older.

use std::{fmt, ops::Deref, rc::Rc};

/// Longest key.
pub const KEY_BYTES_MAX: usize = 1024;

/// Longest value. Beyond it a row would make a block too large to read in one piece.
pub const VALUE_BYTES_MAX: usize = 1 << 20;

/// What a row says about its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<V> {
    /// The key has this value.
    Put(V),
    /// The key has no value, whatever older rows say.
    Delete,
}

impl<V> Change<V> {
    /// The value, if there is one.
    #[must_use]
    pub fn value(self) -> Option<V> {
        match self {
            Self::Put(value) => Some(value),
            Self::Delete => None,
        }
    }

    /// The same change over a reference.
    #[must_use]
    pub const fn as_ref(&self) -> Change<&V> {
        match self {
            Self::Put(value) => Change::Put(value),
            Self::Delete => Change::Delete,
        }
    }

    /// Applies `map` to the value.
    #[must_use]
    pub fn map<W>(self, map: impl FnOnce(V) -> W) -> Change<W> {
        match self {
            Self::Put(value) => Change::Put(map(value)),
            Self::Delete => Change::Delete,
        }
    }
}

/// Rows in strictly ascending order of keys, each lent until the next is asked for, so that none needs memory of its own.
pub trait RowSource {
    /// The next row: its key, and what is said about it.
    fn next(&mut self) -> Option<(&[u8], Change<&[u8]>)>;
}

/// Rows of an iterator, as a [`RowSource`].
#[derive(Debug)]
pub struct OwnedRows<I, K, V> {
    rows: I,
    row: Option<(K, Change<V>)>,
}

impl<I, K, V> OwnedRows<I, K, V> {
    /// The rows that `rows` gives.
    pub const fn new(rows: I) -> Self {
        Self { rows, row: None }
    }
}

impl<K: AsRef<[u8]>, V: AsRef<[u8]>, I: Iterator<Item = (K, Change<V>)>> RowSource for OwnedRows<I, K, V> {
    fn next(&mut self) -> Option<(&[u8], Change<&[u8]>)> {
        self.row = self.rows.next();
        self.row.as_ref().map(|(key, change)| (key.as_ref(), change.as_ref().map(AsRef::as_ref)))
    }
}

/// Bytes shared by reference count: a window of a block in memory, or an allocation of their own. Cloning copies nothing; a
/// window keeps its whole block in memory, so what is to be kept for long is better copied by [`SharedBytes::to_rc`].
#[derive(Clone)]
pub struct SharedBytes {
    owner: Rc<[u8]>,
    start: u32,
    length: u32,
}

impl SharedBytes {
    /// The window `start .. start + length` of `owner`, or `None` if it does not lie inside.
    #[must_use]
    pub fn window(owner: &Rc<[u8]>, start: usize, length: usize) -> Option<Self> {
        let end = start.checked_add(length)?;
        if end > owner.len() {
            return None;
        }
        Some(Self { owner: Rc::clone(owner), start: start.try_into().ok()?, length: length.try_into().ok()? })
    }

    /// An allocation of its own: the owner itself where the window is all of it, a copy otherwise.
    #[must_use]
    pub fn to_rc(&self) -> Rc<[u8]> {
        if self.length as usize == self.owner.len() { Rc::clone(&self.owner) } else { Rc::from(&**self) }
    }
}

impl Deref for SharedBytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let start = self.start as usize;
        &self.owner[start..start + self.length as usize]
    }
}

impl AsRef<[u8]> for SharedBytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Rc<[u8]>> for SharedBytes {
    /// # Panics
    /// If there are 4 GiB or more.
    fn from(owner: Rc<[u8]>) -> Self {
        let length = u32::try_from(owner.len()).expect("values are far smaller");
        Self { owner, start: 0, length }
    }
}

impl From<&[u8]> for SharedBytes {
    fn from(bytes: &[u8]) -> Self {
        Self::from(Rc::<[u8]>::from(bytes))
    }
}

impl From<Vec<u8>> for SharedBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(Rc::<[u8]>::from(bytes))
    }
}

impl PartialEq for SharedBytes {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for SharedBytes {}

impl fmt::Debug for SharedBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", &**self)
    }
}

/// Which way a scan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Ascending keys.
    Forward,
    /// Descending keys.
    Backward,
}

/// Keys from `start`, with it, to `end`, without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key that may be in the range.
    pub start: Vec<u8>,
    /// The first key after the range; `None` for a range to the end of all keys.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// Every key.
    #[must_use]
    pub const fn all() -> Self {
        Self { start: Vec::new(), end: None }
    }

    /// From `start`, with it, to `end`, without it.
    #[must_use]
    pub fn new(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self { start: start.into(), end: Some(end.into()) }
    }

    /// Every key that begins with `prefix`.
    #[must_use]
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let start = prefix.into();
        let mut end = start.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self { start, end: Some(end) };
            }
        }
        Self { start, end: None }
    }

    /// Whether `key` lies in the range.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        key >= self.start.as_slice() && self.is_before_end(key)
    }

    /// Whether a run with keys `first ..= last` can have rows in the range.
    #[must_use]
    pub fn overlaps(&self, first: &[u8], last: &[u8]) -> bool {
        last >= self.start.as_slice() && self.is_before_end(first)
    }

    /// Whether `key` comes before the end.
    pub(crate) fn is_before_end(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| key < end.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_range_holds_exactly_the_keys_that_begin_with_it() {
        for (prefix, key, expected) in [
            (&b"ab"[..], &b"ab"[..], true),
            (b"ab", b"ab\xff\xff", true),
            (b"ab", b"ac", false),
            (b"ab", b"aa\xff", false),
            (b"a\xff", b"a\xff\xff", true),
            (b"a\xff", b"b", false),
            (b"\xff\xff", b"\xff\xff\xff", true),
            (b"\xff\xff", b"\xff\xfe", false),
            (b"", b"", true),
        ] {
            assert_eq!(KeyRange::prefix(prefix).contains(key), expected, "{prefix:?} {key:?}");
        }
    }

    #[test]
    fn a_window_outside_of_its_owner_is_refused() {
        let owner: Rc<[u8]> = Rc::from(&b"0123456789"[..]);
        assert_eq!(&*SharedBytes::window(&owner, 2, 3).unwrap(), b"234");
        assert!(SharedBytes::window(&owner, 8, 3).is_none());
        assert!(SharedBytes::window(&owner, usize::MAX, 2).is_none());
        assert!(Rc::ptr_eq(&SharedBytes::from(Rc::clone(&owner)).to_rc(), &owner));
    }
}
