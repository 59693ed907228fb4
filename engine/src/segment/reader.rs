//! Reads a segment.

use std::rc::Rc;

use crate::seams::Files;

/// An open segment.
#[derive(Clone)]
pub struct SegmentReader<F: Files> {
    inner: Rc<F>,
}
