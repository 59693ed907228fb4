//! The file of `loadgen mix`: a day in the life of a chat, as TOML. docs/loadgen.md has an example with every field.

use std::path::Path;

use antiphon_wire::limits::PRESENCE_WATCHED_MAX;
use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::planning::reconnects;
use crate::{
    clock::SECOND_NS,
    law::{Law, Sampler},
    layout::{LAYERS_MAX, Layer},
    workload::plan::{Habits, PARTS_MAX, Part},
};

/// The file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mix {
    /// How many connections, each a user of its own.
    pub connections: u32,
    /// Length of a message's text.
    #[serde(default = "text_bytes")]
    pub text_bytes: LawText,
    /// How long to wait at the end for what is on its way.
    #[serde(default = "drain_seconds")]
    pub drain_seconds: f64,
    /// Who talks with whom.
    #[serde(default)]
    pub conversations: Conversations,
    /// What people do.
    #[serde(default)]
    pub people: People,
    /// The day's parts, in order.
    pub phase: Vec<PhaseText>,
}

/// Who talks with whom.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conversations {
    /// Direct conversations that a user is in.
    pub direct: u32,
    /// Groups that a user is in.
    pub groups: u32,
    /// Members of a group.
    pub group_size: LawText,
    /// The share of messages that go to direct conversations.
    pub direct_share: f64,
}

/// What people do.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct People {
    /// The share of users who send at all.
    pub active_share: f64,
    /// The share of messages that somebody answers.
    pub reply_share: f64,
    /// How long they think before, in milliseconds.
    pub think_ms: LawText,
    /// Connections that go away a second.
    pub reconnects_per_second: f64,
    /// How long they stay away, in milliseconds.
    pub away_ms: LawText,
    /// Of how many others each is told whether they are there.
    pub watch: u32,
}

/// A part of the day.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseText {
    /// Its name in reports.
    pub name: String,
    /// How long it lasts.
    pub seconds: f64,
    /// Messages a second at its beginning, without answers.
    pub rate: f64,
    /// Messages a second at its end; as at its beginning, if absent.
    pub rate_to: Option<f64>,
}

/// A law as a number or as text.
#[derive(Debug, Clone, Copy)]
pub struct LawText(pub Law);

impl<'de> Deserialize<'de> for LawText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u32),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(number) => Ok(Self(Law::Fixed(number))),
            Form::Text(text) => text.parse().map(Self).map_err(serde::de::Error::custom),
        }
    }
}

fn text_bytes() -> LawText {
    LawText(Law::LogNormal { median: 60, sigma: 1.0, max: 4_000 })
}

fn drain_seconds() -> f64 {
    10.0
}

impl Default for Conversations {
    fn default() -> Self {
        let group_size = LawText(Law::Zipf { min: 3, max: 200, exponent: 1.2 });
        Self { direct: 1, groups: 1, group_size, direct_share: 0.5 }
    }
}

impl Default for People {
    fn default() -> Self {
        Self {
            active_share: 1.0,
            reply_share: 0.0,
            think_ms: LawText(Law::LogNormal { median: 3_000, sigma: 0.8, max: 60_000 }),
            reconnects_per_second: 0.0,
            away_ms: LawText(Law::LogNormal { median: 2_000, sigma: 1.0, max: 60_000 }),
            watch: 0,
        }
    }
}

impl Mix {
    /// Reads a file.
    pub fn from_file(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
        Self::from_text(&text).with_context(|| file.display().to_string())
    }

    /// Reads and checks a file's text.
    pub fn from_text(text: &str) -> anyhow::Result<Self> {
        let mix: Self = toml::from_str(text)?;
        ensure!(mix.connections >= 2, "connections: two at least");
        ensure!((1..=PARTS_MAX).contains(&mix.phase.len()), "phase: 1 to {PARTS_MAX}");
        for phase in &mix.phase {
            let rates = [phase.rate, phase.rate_to.unwrap_or(0.0)];
            ensure!(rates.iter().all(|rate| *rate >= 0.0 && rate.is_finite()), "phase {}: rate", phase.name);
            ensure!(phase.seconds > 0.0 && phase.seconds.is_finite(), "phase {}: seconds", phase.name);
        }
        let Conversations { direct, groups, direct_share, .. } = mix.conversations;
        ensure!((1..=LAYERS_MAX).contains(&direct.saturating_add(groups)), "conversations: 1 to {LAYERS_MAX} a user");
        let People { active_share, reply_share, reconnects_per_second, .. } = mix.people;
        for (name, share) in
            [("direct_share", direct_share), ("active_share", active_share), ("reply_share", reply_share)]
        {
            ensure!((0.0..=1.0).contains(&share), "{name}: 0 to 1");
        }
        ensure!(active_share > 0.0, "active_share: nobody would send");
        reconnects(reconnects_per_second)?;
        let watch_max = PRESENCE_WATCHED_MAX.min(mix.connections - 1);
        ensure!(mix.people.watch <= watch_max, "watch: at most {watch_max}, others than oneself");
        Ok(mix)
    }

    /// The conversations.
    #[must_use]
    pub fn layers(&self) -> Vec<Layer> {
        let direct = std::iter::repeat_n(Layer::Direct, self.conversations.direct as usize);
        let groups = Layer::Groups(Sampler::new(self.conversations.group_size.0));
        direct.chain(std::iter::repeat_n(groups, self.conversations.groups as usize)).collect()
    }

    /// The phases.
    #[must_use]
    pub fn parts(&self) -> Vec<Part> {
        let part = |phase: &PhaseText| Part {
            name: phase.name.clone(),
            length_ns: (phase.seconds * SECOND_NS as f64) as u64,
            rates: Some((phase.rate, phase.rate_to.unwrap_or(phase.rate))),
        };
        self.phase.iter().map(part).collect()
    }

    /// The habits.
    #[must_use]
    pub fn habits(&self) -> Habits {
        Habits {
            active_share: self.people.active_share,
            direct_share: self.conversations.direct_share,
            reply_share: self.people.reply_share,
            think_ms: Sampler::new(self.people.think_ms.0),
            reconnects_per_second: self.people.reconnects_per_second,
            away_ms: Sampler::new(self.people.away_ms.0),
            watch: self.people.watch,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: &str = r#"
        connections = 2000
        text_bytes = 80
        [conversations]
        direct = 1
        groups = 2
        group_size = "zipf:3..100:1.3"
        direct_share = 0.6
        [people]
        active_share = 0.3
        reconnects_per_second = 2.5
        [[phase]]
        name = "morning"
        seconds = 5
        rate = 0
        rate_to = 400
        [[phase]]
        name = "noon"
        seconds = 2.5
        rate = 400
    "#;

    #[test]
    fn a_day_is_read() {
        let mix = Mix::from_text(DAY).unwrap();
        assert_eq!(mix.layers().len(), 3);
        assert_eq!(mix.parts()[0].rates, Some((0.0, 400.0)));
        assert_eq!((mix.parts()[1].rates, mix.parts()[1].length_ns), (Some((400.0, 400.0)), 2_500_000_000));
        assert!((mix.habits().active_share - 0.3).abs() < 1e-9);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (from, to, name) in [
            ("connections = 2000", "connections = 1", "connections"),
            ("text_bytes = 80", "text_byte = 80", "text_byte"),
            ("zipf:3..100:1.3", "zipf:100..3:1", "zipf"),
            ("direct_share = 0.6", "direct_share = 60", "direct_share"),
            ("active_share = 0.3", "active_share = 0", "active_share"),
            ("rate = 0", "rate = -1", "morning"),
            ("groups = 2", "groups = 200", "conversations"),
            ("active_share = 0.3", "watch = 1001", "watch"),
        ] {
            let error = format!("{:#}", Mix::from_text(&DAY.replace(from, to)).unwrap_err());
            assert!(error.contains(name), "{error}");
        }
    }
}
