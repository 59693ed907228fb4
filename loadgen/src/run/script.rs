//! What happens during the load, and when: told the time and the counts, a script says what to do next. No clock, no process:
//! [`super::Run`] carries out its steps.

use crate::{
    clock::{MILLISECOND_NS, Nanoseconds, SECOND_NS},
    workload::control::Counts,
};

/// Between points of a storm's curve.
const CURVE_EVERY_NS: Nanoseconds = 100 * MILLISECOND_NS;

/// Most points of a storm's curve: beyond the longest limit that makes sense.
const CURVE_POINTS_MAX: usize = 36_000;

/// Shares of the sessions whose return is timed, in percent.
pub const SHARES_PERCENT: [u64; 4] = [50, 90, 99, 100];

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// A named part begins.
    Part(usize, Nanoseconds),
    /// Slow connections stop reading, or go on.
    Slow(bool),
    /// The node is killed.
    Kill,
    /// The node is started again.
    Restart,
    /// All sessions are back: whose process is the node's may have changed.
    Returned,
    /// The run failed in what it was made for.
    Fail(String),
    /// The load is over.
    End,
}

/// A script.
#[derive(Debug)]
pub enum Script {
    /// Until a time.
    Steady {
        /// When it ends.
        end_ns: Nanoseconds,
        /// When its parts begin.
        parts_ns: Vec<Nanoseconds>,
        /// The parts between which slow connections do not read.
        slow: Option<(usize, usize)>,
        /// The next part.
        next: usize,
    },
    /// Until all sessions are back.
    Storm(Box<Storm>),
}

impl Script {
    /// What is due.
    pub fn step(&mut self, now_ns: Nanoseconds, counts: &Counts) -> Vec<Step> {
        match self {
            Self::Steady { end_ns, parts_ns, slow, next } => {
                let mut steps = Vec::new();
                while let Some(&at_ns) = parts_ns.get(*next).filter(|&&at_ns| at_ns <= now_ns) {
                    match *slow {
                        Some((from, _)) if from == *next => steps.push(Step::Slow(true)),
                        Some((_, to)) if to == *next => steps.push(Step::Slow(false)),
                        _ => {}
                    }
                    steps.push(Step::Part(*next, at_ns));
                    *next += 1;
                }
                if now_ns >= *end_ns {
                    steps.push(Step::End);
                }
                steps
            }
            Self::Storm(storm) => storm.step(now_ns, counts),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Until the measured part before the kill begins.
    Warmup,
    /// The node is there.
    Before,
    /// It is gone, or some of its sessions are not back.
    Away,
    /// All are back.
    After {
        since_ns: Nanoseconds,
    },
    Over,
}

/// How a storm is to go.
#[derive(Debug, Clone, Copy)]
pub struct StormPlan {
    /// When it is measured from.
    pub measured_ns: Nanoseconds,
    /// Before the kill.
    pub before_ns: Nanoseconds,
    /// After the last session has resumed.
    pub after_ns: Nanoseconds,
    /// Between the kill and the restart.
    pub down_ns: Nanoseconds,
    /// Longest wait for the node to go, and for all to be back.
    pub limit_ns: Nanoseconds,
    /// Whether the run itself kills the node.
    pub kills: bool,
    /// Whether it starts it again.
    pub restarts: bool,
}

/// The script of `loadgen storm`.
#[derive(Debug)]
pub struct Storm {
    plan: StormPlan,
    state: State,
    restarted: bool,
    /// When all sessions were seen live for the last time, and the counts of that moment.
    full: (Nanoseconds, Counts),
    outcome: StormOutcome,
    last_point_ns: Nanoseconds,
}

/// What a storm found.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct StormOutcome {
    /// Sessions that were live when the node went.
    pub sessions: u64,
    /// Messages acknowledged by then.
    pub acked_before: u64,
    /// When the node went: the kill, or the last moment with all sessions live.
    pub outage_ns: Nanoseconds,
    /// From there until the first session was back.
    pub first_ns: Option<Nanoseconds>,
    /// From there until [`SHARES_PERCENT`] of the sessions were back.
    pub shares_ns: [Option<Nanoseconds>; 4],
    /// Live sessions over the time since.
    pub curve: Vec<(Nanoseconds, u64)>,
}

impl Storm {
    /// Waits for its beginning.
    #[must_use]
    pub fn new(plan: StormPlan) -> Self {
        Self {
            plan,
            state: State::Warmup,
            restarted: false,
            full: (plan.measured_ns, Counts::default()),
            outcome: StormOutcome::default(),
            last_point_ns: 0,
        }
    }

    /// What it found.
    #[must_use]
    pub fn outcome(&self) -> &StormOutcome {
        &self.outcome
    }

    fn step(&mut self, now_ns: Nanoseconds, counts: &Counts) -> Vec<Step> {
        match self.state {
            State::Warmup if now_ns >= self.plan.measured_ns => {
                self.state = State::Before;
                vec![Step::Part(0, self.plan.measured_ns)]
            }
            State::Before => self.before(now_ns, counts),
            State::Away => self.away(now_ns, counts),
            State::After { since_ns } if now_ns >= since_ns + self.plan.after_ns => {
                self.state = State::Over;
                vec![Step::End]
            }
            State::Warmup | State::After { .. } | State::Over => Vec::new(),
        }
    }

    fn before(&mut self, now_ns: Nanoseconds, counts: &Counts) -> Vec<Step> {
        let is_full = counts.live >= self.full.1.live;
        if is_full {
            self.full = (now_ns, *counts);
        }
        if self.plan.kills && now_ns >= self.plan.measured_ns + self.plan.before_ns {
            self.full = (now_ns, *counts);
            return [vec![Step::Kill], self.begin()].concat();
        }
        // One session that is lost is no storm; a tenth of them is.
        if !self.plan.kills && counts.live * 10 <= self.full.1.live * 9 && self.full.1.live > 0 {
            return self.begin();
        }
        if now_ns >= self.plan.measured_ns + self.plan.before_ns.max(self.plan.limit_ns) {
            self.state = State::Over;
            let waited = (now_ns - self.plan.measured_ns) / SECOND_NS;
            return vec![Step::Fail(format!("the node did not go away within {waited} s")), Step::End];
        }
        Vec::new()
    }

    fn begin(&mut self) -> Vec<Step> {
        let (outage_ns, counts) = self.full;
        self.state = State::Away;
        self.outcome.sessions = counts.live;
        self.outcome.acked_before = counts.acked;
        self.outcome.outage_ns = outage_ns;
        vec![Step::Part(1, outage_ns)]
    }

    fn away(&mut self, now_ns: Nanoseconds, counts: &Counts) -> Vec<Step> {
        let since_ns = now_ns.saturating_sub(self.outcome.outage_ns);
        let mut steps = Vec::new();
        if self.plan.restarts && !self.restarted && since_ns >= self.plan.down_ns {
            self.restarted = true;
            steps.push(Step::Restart);
        }
        if since_ns >= self.last_point_ns + CURVE_EVERY_NS && self.outcome.curve.len() < CURVE_POINTS_MAX {
            self.last_point_ns = since_ns;
            self.outcome.curve.push((since_ns, counts.live));
        }
        // Many are back before the last one has noticed that it was lost.
        let sessions = self.outcome.sessions;
        let back = counts.live.min(counts.resumed.saturating_sub(self.full.1.resumed));
        if back > 0 {
            self.outcome.first_ns.get_or_insert(since_ns);
        }
        for (percent, reached_ns) in SHARES_PERCENT.into_iter().zip(&mut self.outcome.shares_ns) {
            if back * 100 >= sessions * percent {
                reached_ns.get_or_insert(since_ns);
            }
        }
        if self.outcome.shares_ns[3].is_some() {
            self.outcome.curve.push((since_ns, counts.live));
            self.state = State::After { since_ns: now_ns };
            steps.extend([Step::Part(2, now_ns), Step::Returned]);
        } else if since_ns >= self.plan.limit_ns {
            self.state = State::Over;
            let seconds = self.plan.limit_ns / SECOND_NS;
            let text = format!("{} of {sessions} sessions were back after {seconds} s", counts.live);
            steps.extend([Step::Fail(text), Step::End]);
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(live: u64, resumed: u64) -> Counts {
        Counts { live, resumed, acked: 7, ..Counts::default() }
    }

    const S: Nanoseconds = SECOND_NS;

    /// Two seconds before, one after.
    const PLAN: StormPlan = StormPlan {
        measured_ns: 0,
        before_ns: 2 * S,
        after_ns: S,
        down_ns: 0,
        limit_ns: 10_000 * S,
        kills: false,
        restarts: false,
    };

    #[test]
    fn a_steady_script_begins_its_parts_and_ends() {
        let parts_ns = vec![S, 3 * S, 5 * S];
        let mut script = Script::Steady { end_ns: 6 * S, parts_ns, slow: Some((1, 2)), next: 0 };
        let mut step = |at_ns| script.step(at_ns, &Counts::default());
        assert_eq!(step(0), []);
        assert_eq!(step(S), [Step::Part(0, S)]);
        assert_eq!(step(4 * S), [Step::Slow(true), Step::Part(1, 3 * S)]);
        assert_eq!(step(5 * S), [Step::Slow(false), Step::Part(2, 5 * S)]);
        assert_eq!(step(6 * S), [Step::End]);
    }

    #[test]
    fn a_storm_kills_restarts_and_times_the_return() {
        let mut storm = Storm::new(StormPlan { measured_ns: S, kills: true, restarts: true, down_ns: S, ..PLAN });
        let mut step = |at_ns, live, resumed| storm.step(at_ns, &counts(live, resumed));
        assert_eq!(step(S, 100, 0), [Step::Part(0, S)]);
        assert_eq!(step(2 * S, 100, 0), []);
        assert_eq!(step(3 * S, 100, 0), [Step::Kill, Step::Part(1, 3 * S)]);
        assert_eq!(step(3 * S + 1, 100, 0), [], "live still, but not back");
        assert_eq!(step(4 * S, 20, 0), [Step::Restart]);
        assert_eq!(step(5 * S, 70, 50), [], "twenty have not noticed yet");
        assert_eq!(step(6 * S, 95, 95), []);
        assert_eq!(step(7 * S, 100, 100), [Step::Part(2, 7 * S), Step::Returned]);
        assert_eq!(step(8 * S, 100, 100), [Step::End]);
        let outcome = storm.outcome();
        assert_eq!(outcome.shares_ns, [Some(2 * S), Some(3 * S), Some(4 * S), Some(4 * S)]);
        assert_eq!((outcome.sessions, outcome.acked_before, outcome.first_ns), (100, 7, Some(2 * S)));
    }

    #[test]
    fn a_storm_that_others_make_begins_when_sessions_are_lost() {
        let mut storm = Storm::new(PLAN);
        let mut step = |at_ns, live, resumed| storm.step(at_ns, &counts(live, resumed));
        assert_eq!(step(0, 100, 0), [Step::Part(0, 0)]);
        assert_eq!(step(30 * S, 100, 0), []);
        assert_eq!(step(31 * S, 99, 0), [], "one is no storm");
        assert_eq!(step(32 * S, 40, 1), [Step::Part(1, 30 * S)]);
        assert_eq!(step(33 * S, 100, 100), [Step::Part(2, 33 * S), Step::Returned]);
    }

    #[test]
    fn a_storm_from_which_not_all_return_fails() {
        let mut storm = Storm::new(StormPlan { before_ns: 0, kills: true, limit_ns: 10 * S, ..PLAN });
        let mut step = |at_ns, live, resumed| storm.step(at_ns, &counts(live, resumed));
        step(0, 100, 0);
        step(1, 100, 0);
        assert_eq!(step(5 * S, 99, 99), []);
        let steps = step(11 * S, 99, 99);
        assert!(matches!(&steps[..], [Step::Fail(text), Step::End] if text.contains("99 of 100")), "{steps:?}");
        let mut storm = Storm::new(StormPlan { before_ns: 0, limit_ns: 10 * S, ..PLAN });
        storm.step(0, &counts(9, 0));
        assert!(matches!(&storm.step(11 * S, &counts(9, 0))[..], [Step::Fail(_), Step::End]));
    }
}
