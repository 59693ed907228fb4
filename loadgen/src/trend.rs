//! Whether a series drifts: the sign test of Mann ("Nonparametric tests against trend", 1945) and Kendall, and the slope of Theil
//! and Sen ("Estimates of the regression coefficient based on Kendall's tau", 1968). Both hold against outliers, so a burst of
//! slow messages or one compaction is no trend. Pure: numbers in, a verdict out.

/// Points beyond which a series is thinned by medians: the work grows with their square.
const POINTS_MAX: usize = 240;

/// Fewest points that can show a trend at all.
pub const POINTS_MIN: usize = 8;

/// How sure: a series without a trend passes this in one of a thousand runs.
const Z_MIN: f64 = 3.09;

/// What a series does.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Trend {
    /// Points that were looked at.
    pub points: usize,
    /// The normal deviate of Mann and Kendall: above 3 a rise is hardly chance.
    pub z: f64,
    /// Theil and Sen's slope times the length, over the median of the first quarter: 0.1 is 10 % more at the end.
    pub growth: f64,
    /// Whether it rises, surely and by more than was allowed.
    pub rises: bool,
}

/// Looks at a series of equally spaced values.
#[must_use]
pub fn trend(values: &[f64], growth_max: f64) -> Trend {
    let values = thinned(values);
    let count = values.len();
    if count < POINTS_MIN {
        return Trend { points: count, z: 0.0, growth: 0.0, rises: false };
    }
    let mut slopes = Vec::with_capacity(count * (count - 1) / 2);
    let mut signs = 0_i64;
    for (earlier, &from) in values.iter().enumerate() {
        for (later, &to) in values.iter().enumerate().skip(earlier + 1) {
            signs += (to > from) as i64 - (to < from) as i64;
            slopes.push((to - from) / (later - earlier) as f64);
        }
    }
    let number = count as f64;
    let variance = number * (number - 1.0) * (2.0 * number + 5.0) / 18.0;
    let z = (signs - signs.signum()) as f64 / variance.sqrt();
    let base = median(&mut values[..count.div_ceil(4)].to_vec()).abs().max(f64::MIN_POSITIVE);
    let growth = median(&mut slopes) * (number - 1.0) / base;
    Trend { points: count, z, growth, rises: z > Z_MIN && growth > growth_max }
}

fn thinned(values: &[f64]) -> Vec<f64> {
    let width = values.len().div_ceil(POINTS_MAX).max(1);
    values.chunks(width).filter(|chunk| chunk.len() == width).map(|chunk| median(&mut chunk.to_vec())).collect()
}

/// The middle value; of an even number of them the mean of the two middle ones. 0 of none.
#[must_use]
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// 100 with noise of ±10, rising by `rise` over the whole series, with an outlier each 50.
    fn series(points: usize, rise: f64, seed: u64) -> Vec<f64> {
        let mut random = Random::new(seed, 0);
        let value = |index: usize| {
            let noise = (random.unit() - 0.5) * 20.0;
            let outlier = if index % 50 == 49 { 900.0 } else { 0.0 };
            100.0 + rise * index as f64 / points as f64 + noise + outlier
        };
        (0..points).map(value).collect()
    }

    #[test]
    fn noise_and_outliers_are_no_trend() {
        let alarms = (0..200).filter(|&seed| trend(&series(500, 0.0, seed), 0.02).rises).count();
        assert!(alarms <= 2, "{alarms}");
        assert!(!trend(&[5.0; 300], 0.0).rises);
    }

    #[test]
    fn a_rise_is_found_and_measured() {
        for seed in 0..50 {
            let found = trend(&series(500, 25.0, seed), 0.1);
            assert!(found.rises && (0.15..0.35).contains(&found.growth), "{found:?}");
            assert!(!trend(&series(500, 25.0, seed), 0.5).rises, "within what is allowed");
            assert!(!trend(&series(500, -25.0, seed), 0.1).rises, "a fall is no rise");
        }
    }

    #[test]
    fn too_few_points_show_nothing() {
        assert!(!trend(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], 0.0).rises);
        assert!(trend(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], 0.0).rises);
        assert_eq!(trend(&[], 0.0).points, 0);
    }

    #[test]
    fn medians() {
        assert_eq!(
            (median(&mut []), median(&mut [3.0]), median(&mut [4.0, 1.0]), median(&mut [9.0, 1.0, 2.0])),
            (0.0, 3.0, 2.5, 2.0)
        );
    }
}
