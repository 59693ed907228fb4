//! How a run goes, while it goes: one line that is rewritten on a terminal, a line every few seconds without one.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Between lines that stay.
const LINES_EVERY: Duration = Duration::from_secs(5);

/// Between changes of the line that does not.
const CHANGES_EVERY: Duration = Duration::from_millis(500);

/// The line.
pub struct Progress {
    bar: Option<ProgressBar>,
    last: Option<Instant>,
}

impl Progress {
    /// On standard error, so that standard output holds the summary alone.
    #[must_use]
    pub fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{spinner} {elapsed_precise}  {msg}").expect("the template is valid");
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(250));
            bar
        });
        Self { bar, last: None }
    }

    /// A new phase begins: always a line of its own.
    pub fn phase(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
        self.last = Some(Instant::now());
    }

    /// How far it is; `text` is asked only when it is shown.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        let every = if self.bar.is_some() { CHANGES_EVERY } else { LINES_EVERY };
        if self.last.is_some_and(|last| last.elapsed() < every) {
            return;
        }
        self.last = Some(Instant::now());
        match &self.bar {
            Some(bar) => bar.set_message(text()),
            None => eprintln!("{}", text()),
        }
    }

    /// Takes the line away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
