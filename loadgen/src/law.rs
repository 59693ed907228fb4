//! Laws of chance that options and mix files name: lengths of texts, sizes of groups, think times.
//!
//! | written | means |
//! |---|---|
//! | `100` | always 100 |
//! | `20..400` | evenly spread, both ends with it |
//! | `lognormal:MEDIAN:SIGMA:MAX` | its logarithm is normal; cut at `MAX`: texts and think times look like this |
//! | `zipf:MIN..MAX:EXPONENT` | `k` has a weight of `k^-EXPONENT`: many small groups, few large ones |

use std::{fmt, str::FromStr};

use crate::random::Random;

/// Widest range of a Zipf law: its table has eight bytes a value.
const ZIPF_VALUES_MAX: u32 = 65_536;

/// A law of whole numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Law {
    /// Always the same.
    Fixed(u32),
    /// Each value as often as any other.
    Uniform {
        /// The lowest.
        min: u32,
        /// The highest.
        max: u32,
    },
    /// The logarithm is normal.
    LogNormal {
        /// Half are below.
        median: u32,
        /// Standard deviation of the logarithm.
        sigma: f64,
        /// What is beyond counts as this.
        max: u32,
    },
    /// Weights fall by a power.
    Zipf {
        /// The lowest, and most frequent.
        min: u32,
        /// The highest.
        max: u32,
        /// How fast weights fall.
        exponent: f64,
    },
}

/// Why a text names no law.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of N, MIN..MAX, lognormal:MEDIAN:SIGMA:MAX, zipf:MIN..MAX:EXPONENT")]
pub struct LawError(String);

impl FromStr for Law {
    type Err = LawError;

    fn from_str(text: &str) -> Result<Self, LawError> {
        let error = || LawError(text.to_owned());
        parse(text).filter(Law::is_sound).ok_or_else(error)
    }
}

fn parse(text: &str) -> Option<Law> {
    let range = |text: &str| {
        let (min, max) = text.split_once("..")?;
        Some((min.parse().ok()?, max.parse().ok()?))
    };
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [single] if single.contains("..") => range(single).map(|(min, max)| Law::Uniform { min, max }),
        [single] => single.parse().ok().map(Law::Fixed),
        ["lognormal", median, sigma, max] => {
            Some(Law::LogNormal { median: median.parse().ok()?, sigma: sigma.parse().ok()?, max: max.parse().ok()? })
        }
        ["zipf", values, exponent] => {
            range(values).and_then(|(min, max)| Some(Law::Zipf { min, max, exponent: exponent.parse().ok()? }))
        }
        _ => None,
    }
}

impl fmt::Display for Law {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(value) => write!(formatter, "{value}"),
            Self::Uniform { min, max } => write!(formatter, "{min}..{max}"),
            Self::LogNormal { median, sigma, max } => write!(formatter, "lognormal:{median}:{sigma}:{max}"),
            Self::Zipf { min, max, exponent } => write!(formatter, "zipf:{min}..{max}:{exponent}"),
        }
    }
}

impl Law {
    fn is_sound(&self) -> bool {
        match *self {
            Self::Fixed(_) => true,
            Self::Uniform { min, max } => min <= max,
            Self::LogNormal { median, sigma, max } => median > 0 && median <= max && (0.0..=8.0).contains(&sigma),
            Self::Zipf { min, max, exponent } => {
                min > 0 && min <= max && max - min < ZIPF_VALUES_MAX && (0.0..=16.0).contains(&exponent)
            }
        }
    }

    /// The lowest and the highest value.
    #[must_use]
    pub fn bounds(&self) -> (u32, u32) {
        match *self {
            Self::Fixed(value) => (value, value),
            Self::Uniform { min, max } | Self::Zipf { min, max, .. } => (min, max),
            Self::LogNormal { max, .. } => (0, max),
        }
    }

    /// The only value, if there is but one.
    #[must_use]
    pub fn fixed(&self) -> Option<u32> {
        let (min, max) = self.bounds();
        (min == max).then_some(min)
    }
}

/// A law, ready to be drawn from.
#[derive(Debug, Clone)]
pub struct Sampler {
    law: Law,
    /// Of a Zipf law: the weights so far, the last one is the sum.
    cumulative: Vec<f64>,
}

impl Sampler {
    /// Of a law.
    #[must_use]
    pub fn new(law: Law) -> Self {
        let mut cumulative = Vec::new();
        if let Law::Zipf { min, max, exponent } = law {
            let mut sum = 0.0;
            cumulative.extend((min..=max).map(|value| {
                sum += f64::from(value).powf(-exponent);
                sum
            }));
        }
        Self { law, cumulative }
    }

    /// The next value.
    pub fn draw(&self, random: &mut Random) -> u32 {
        match self.law {
            Law::Fixed(value) => value,
            Law::Uniform { min, max } => min + random.below(u64::from(max - min) + 1) as u32,
            Law::LogNormal { median, sigma, max } => {
                // Box and Muller, "A note on the generation of random normal deviates", 1958.
                let normal = (-2.0 * random.unit().ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos();
                (f64::from(median) * (sigma * normal).exp()).min(f64::from(max)) as u32
            }
            Law::Zipf { min, .. } => {
                let wanted = random.unit() * self.cumulative.last().copied().unwrap_or_default();
                min + self.cumulative.partition_point(|&sum| sum < wanted) as u32
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(law: &str) -> Vec<u32> {
        let sampler = Sampler::new(law.parse().unwrap());
        let mut random = Random::new(3, 3);
        let mut values: Vec<u32> = (0..100_000).map(|_| sampler.draw(&mut random)).collect();
        values.sort_unstable();
        values
    }

    #[test]
    fn laws_read_back_as_they_are_written() {
        for text in ["100", "20..400", "lognormal:80:1.2:4000", "zipf:2..500:1.1"] {
            assert_eq!(text.parse::<Law>().unwrap().to_string(), text);
        }
        for text in ["", "x", "-1", "9..3", "lognormal:0:1:9", "lognormal:10:1", "zipf:0..3:1", "zipf:1..90000:1"] {
            assert!(text.parse::<Law>().is_err(), "{text}");
        }
    }

    #[test]
    fn draws_keep_to_their_law() {
        assert_eq!((draws("7")[0], draws("7")[99_999]), (7, 7));
        let uniform = draws("20..400");
        assert_eq!((uniform[0], uniform[99_999]), (20, 400));
        assert!((205..=215).contains(&uniform[50_000]), "{}", uniform[50_000]);
        let normal = draws("lognormal:80:1.0:4000");
        assert!((78..=82).contains(&normal[50_000]) && normal[99_999] <= 4_000, "{}", normal[50_000]);
        // One standard deviation above the median: e times it.
        assert!((208..=228).contains(&normal[84_134]), "{}", normal[84_134]);
    }

    #[test]
    fn a_zipf_law_falls_by_its_power() {
        let values = draws("zipf:2..500:2");
        let count = |wanted: u32| values.iter().filter(|&&value| value == wanted).count() as f64;
        assert!((count(2) / count(4) - 4.0).abs() < 0.3, "{} {}", count(2), count(4));
        assert!((count(2) / count(6) - 9.0).abs() < 1.2, "{} {}", count(2), count(6));
        assert!(values[0] == 2 && values[99_999] <= 500);
    }
}
