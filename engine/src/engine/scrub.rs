//! Reading all segments for their checksums alone, in the background and at a low rate: [`crate::scrub`] says what and when.
//!
//! A segment is held only while a piece of it is read, so that nothing that a merge has replaced stays on the disk for this.

use crate::{
    compaction::{Pace, YieldNow},
    engine::Engine,
    offline::Finding,
    runs::Run,
    seams::{Clock, Files, Random},
    segment::{ScrubPlace, SegmentId, SegmentReader},
};

impl<F: Files, C: Clock, R: Random> Engine<F, C, R> {
    /// Damage that reading in the background has found since this was last asked, in the words of
    /// [`verify`](crate::offline::verify()): what a round finds again is told again.
    #[must_use]
    pub fn take_scrub_findings(&self) -> Vec<Finding> {
        self.shared.scrub.borrow_mut().take_findings()
    }

    /// Whether a reading of all segments is under way; `None` if none ever is. While it is [`Engine::tick`] drives it on.
    #[must_use]
    pub fn scrubs(&self) -> Option<bool> {
        let scrub = self.shared.scrub.borrow();
        scrub.is_on().then(|| scrub.is_under_way())
    }

    pub(super) async fn scrub_loop(&self) {
        if !self.shared.scrub.borrow().is_on() {
            return;
        }
        loop {
            let is_over = {
                let state = self.shared.state.borrow();
                state.core.closed || state.core.closing
            };
            if is_over {
                return;
            }
            match self.next_piece() {
                Some((reader, at)) => self.scrub_piece(reader, at).await,
                None => self.shared.scrub_due.wait().await,
            }
        }
    }

    fn next_piece(&self) -> Option<(SegmentReader<F>, ScrubPlace)> {
        let runs = self.shared.sorted.runs();
        // A segment that could not be opened was told of when the lane was.
        let readers = || {
            runs.newest_first().iter().filter_map(|run| match run {
                Run::Segment(reader) => Some(reader),
                Run::Damaged { .. } => None,
            })
        };
        let ids: Vec<SegmentId> = readers().map(SegmentReader::id).collect();
        let (id, at) = self.shared.scrub.borrow_mut().next(self.shared.clock.now().0, &ids)?;
        let reader = readers().find(|reader| reader.id() == id)?;
        Some((reader.clone(), at))
    }

    async fn scrub_piece(&self, reader: SegmentReader<F>, at: ScrubPlace) {
        let id = reader.id();
        let piece = reader.scrub(at).await;
        let is_there = self.shared.sorted.runs().newest_first().iter().any(|run| run.id() == id);
        self.shared.scrub.borrow_mut().was_read(id, piece.bytes, piece.next, &piece.damaged, is_there);
        drop(reader);
        if !is_there {
            // It was kept for this alone.
            self.shared.sorted.remove_unused().await;
        }
        YieldNow.pause().await;
    }
}
