//! How far a long reading is, on standard error: a line a second after the first second, one that is rewritten on a
//! terminal.

use std::{
    cell::{Cell, OnceCell},
    io::IsTerminal as _,
    rc::Rc,
    time::{Duration, Instant},
};

use antiphon_engine::offline::Progress;
use indicatif::{ProgressBar, ProgressStyle};

use super::text::bytes;

/// What takes less is not told of.
const EVERY: Duration = Duration::from_secs(1);

const TEMPLATE: &str = "{spinner} {elapsed_precise}  {msg}";

/// The line. Cloning gives another handle on the same.
#[derive(Clone)]
pub(super) struct Shown(Rc<Inner>);

struct Inner {
    what: String,
    begun: Instant,
    last: Cell<Instant>,
    bar: OnceCell<ProgressBar>,
}

impl Shown {
    /// `what` is being done.
    pub(super) fn new(what: String) -> Self {
        let begun = Instant::now();
        Self(Rc::new(Inner { what, begun, last: Cell::new(begun), bar: OnceCell::new() }))
    }

    /// So many bytes are done, of about so many, if that is known.
    pub(super) fn show(&self, done: u64, of: Option<u64>) {
        let Inner { what, begun, last, bar } = &*self.0;
        if last.get().elapsed() < EVERY {
            return;
        }
        last.set(Instant::now());
        let text = line(what, done, of, begun.elapsed());
        if !std::io::stderr().is_terminal() {
            eprintln!("{text}");
            return;
        }
        let bar = bar.get_or_init(|| {
            let style = ProgressStyle::with_template(TEMPLATE).expect("the template is valid");
            ProgressBar::new_spinner().with_style(style)
        });
        bar.set_message(text);
        bar.tick();
    }

    /// What an engine's tool calls after every read.
    pub(super) fn teller(&self) -> impl Fn(Progress) + use<> {
        let shown = self.clone();
        move |progress| shown.show(progress.bytes_read, Some(progress.bytes_expected))
    }

    /// Takes the line away.
    pub(super) fn finish(&self) {
        if let Some(bar) = self.0.bar.get() {
            bar.finish_and_clear();
        }
    }
}

fn line(what: &str, done: u64, of: Option<u64>, time: Duration) -> String {
    let rate = (done as f64 / time.as_secs_f64().max(0.001)) as u64;
    match of {
        Some(of) => {
            let percent = (done as f64 * 100.0 / of.max(1) as f64).min(100.0);
            format!("{what}: {} of {} ({percent:.0} %), {}/s", bytes(done), bytes(of), bytes(rate))
        }
        None => format!("{what}: {}, {}/s", bytes(done), bytes(rate)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_bytes_and_rate() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
        let text = line("lane-00", 3 << 20, Some(4 << 20), Duration::from_secs(2));
        assert_eq!(text, "lane-00: 3.0 MiB of 4.0 MiB (75 %), 1.5 MiB/s");
        assert_eq!(line("loading", 0, None, Duration::ZERO), "loading: 0 B, 0 B/s");
    }
}
