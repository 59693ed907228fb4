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

/// Without an end in sight.
const OPEN: &str = "{spinner} {elapsed_precise}  {msg}";

/// Towards a goal.
const TOWARDS: &str = "{spinner} {elapsed_precise}  {bar:30} {percent:>3} %  {per_sec:>12}  {msg}";

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
            let bar = ProgressBar::new_spinner().with_style(style(OPEN));
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

    /// The phase has a goal that can be counted.
    pub fn goal(&self, goal: u64) {
        if let Some(bar) = &self.bar {
            bar.set_length(goal.max(1));
            bar.set_position(0);
            bar.reset_eta();
            bar.set_style(style(TOWARDS));
        }
    }

    /// It has none any more.
    pub fn no_goal(&self) {
        if let Some(bar) = &self.bar {
            bar.set_style(style(OPEN));
        }
    }

    /// As [`Progress::show`], with how much of the goal is done.
    pub fn show_at(&mut self, done: u64, text: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
        self.show(text);
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

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [OPEN, TOWARDS] {
            style(template);
        }
    }
}
