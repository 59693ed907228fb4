//! Least squares without negative costs, medians and spreads. Pure.

/// Most unknowns of a fit: all their subsets are tried.
const UNKNOWNS_MAX: usize = 10;

/// One equation: what each unknown is multiplied by, and what was measured.
#[derive(Debug, Clone)]
pub(super) struct Equation {
    pub(super) factors: Vec<f64>,
    pub(super) measured: f64,
}

impl Equation {
    pub(super) fn new(factors: impl Into<Vec<f64>>, measured: f64) -> Self {
        Self { factors: factors.into(), measured }
    }

    pub(super) fn predicted(&self, costs: &[f64]) -> f64 {
        self.factors.iter().zip(costs).map(|(factor, cost)| factor * cost).sum()
    }
}

/// Costs, none below 0, that make the sum of squared relative errors least: relative, since a prediction is judged in
/// percent. What comes out negative is lost in the noise: the least useful unknown is put to 0 and the others are
/// solved for again. `None` if the equations do not determine them.
pub(super) fn least_squares(equations: &[Equation]) -> Option<Vec<f64>> {
    let unknowns = equations.first()?.factors.len();
    if unknowns > UNKNOWNS_MAX || equations.iter().any(|equation| equation.factors.len() != unknowns) {
        return None;
    }
    let mut best: Option<(f64, Vec<f64>)> = None;
    // 1,024 subsets at most: all are tried, so that no order of elimination decides.
    for subset in 1_u32..1 << unknowns {
        let used: Vec<usize> = (0..unknowns).filter(|index| subset & (1 << index) != 0).collect();
        let Some(solved) = solve(equations, &used) else { continue };
        if solved.iter().any(|cost| *cost < 0.0) {
            continue;
        }
        let mut costs = vec![0.0; unknowns];
        used.iter().zip(solved).for_each(|(index, cost)| costs[*index] = cost);
        let error = errors(equations, &costs).map(|error| error * error).sum();
        if best.as_ref().is_none_or(|(least, _)| error < *least) {
            best = Some((error, costs));
        }
    }
    best.map(|(_, costs)| costs)
}

/// How far each equation is missed, as a part of what was measured.
pub(super) fn errors<'a>(equations: &'a [Equation], costs: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    equations.iter().map(|equation| equation.predicted(costs) / equation.measured - 1.0)
}

/// The normal equations of some unknowns, by Gaussian elimination with pivots.
fn solve(equations: &[Equation], used: &[usize]) -> Option<Vec<f64>> {
    let size = used.len();
    let mut rows = vec![vec![0.0; size + 1]; size];
    for equation in equations {
        if equation.measured <= 0.0 {
            return None;
        }
        let weighted = |index: usize| equation.factors[used[index]] / equation.measured;
        for (row, cells) in rows.iter_mut().enumerate() {
            (0..size).for_each(|column| cells[column] += weighted(row) * weighted(column));
            cells[size] += weighted(row);
        }
    }
    // Unknowns differ by orders of magnitude: without scales, what is singular could not be told.
    let scales: Vec<f64> = (0..size).map(|index| rows[index][index].sqrt()).collect();
    if scales.iter().any(|scale| *scale <= 0.0) {
        return None;
    }
    for (row, cells) in rows.iter_mut().enumerate() {
        (0..size).for_each(|column| cells[column] /= scales[row] * scales[column]);
        cells[size] /= scales[row];
    }
    for pivot in 0..size {
        let largest = (pivot..size).max_by(|a, b| rows[*a][pivot].abs().total_cmp(&rows[*b][pivot].abs()))?;
        rows.swap(pivot, largest);
        if rows[pivot][pivot].abs() < 1e-9 {
            return None;
        }
        let pivot_row = rows[pivot].clone();
        for (row, cells) in rows.iter_mut().enumerate().filter(|(row, _)| *row != pivot) {
            let factor = cells[pivot] / pivot_row[pivot];
            debug_assert_ne!(row, pivot);
            cells.iter_mut().zip(&pivot_row).for_each(|(cell, above)| *cell -= factor * above);
        }
    }
    Some((0..size).map(|index| rows[index][size] / rows[index][index] / scales[index]).collect())
}

/// The one in the middle, of an even number the mean of both; `None` of nothing.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    Some(if sorted.len() % 2 == 1 { upper } else { (sorted[middle - 1] + upper) / 2.0 })
}

/// Most less least, in percent of the median.
pub(super) fn spread_percent(values: &[f64]) -> f64 {
    let (Some(middle), Some(least), Some(most)) =
        (median(values), values.iter().copied().min_by(f64::total_cmp), values.iter().copied().max_by(f64::total_cmp))
    else {
        return 0.0;
    };
    if middle == 0.0 { 0.0 } else { (most - least) / middle.abs() * 100.0 }
}

/// How long a write of the log takes, from how many there were a second at a rate: what `commits_per_second` of the
/// model turns round. `None` if nearly each message had its own, which says nothing.
pub(super) fn write_seconds(messages_per_second: f64, commits_per_second: f64) -> Option<f64> {
    if commits_per_second <= 0.0 || commits_per_second > 0.95 * messages_per_second {
        return None;
    }
    let (mut low, mut high) = (0.0, 1.0 / commits_per_second);
    // Each step halves what is left of it: 60 are more digits than a double has.
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        let cycle = middle + (-messages_per_second * middle).exp() / messages_per_second;
        if cycle < 1.0 / commits_per_second { low = middle } else { high = middle }
    }
    Some((low + high) / 2.0)
}

#[cfg(test)]
mod tests {
    use antiphon_tuning::capacity::commits_per_second;

    use super::*;

    fn rows(costs: &[f64], noise: f64) -> Vec<Equation> {
        let counts =
            [[1_000.0, 1_000.0, 0.0], [4_000.0, 4_000.0, 0.0], [1_000.0, 19_000.0, 10.0], [900.0, 19_000.0, 9_000.0]];
        let row = |(index, factors): (usize, &[f64; 3])| {
            let sign = if index % 2 == 0 { 1.0 } else { -1.0 };
            let exact = Equation::new(*factors, 0.0).predicted(costs);
            Equation::new(*factors, exact * (1.0 + sign * noise))
        };
        counts.iter().enumerate().map(row).collect()
    }

    #[test]
    fn costs_are_found_again() {
        let costs = [6.8e-6, 5.5e-6, 3e-6];
        let found = least_squares(&rows(&costs, 0.0)).unwrap();
        for (found, cost) in found.iter().zip(costs) {
            assert!((found / cost - 1.0).abs() < 1e-6, "{found} is not {cost}");
        }
        let noisy = rows(&costs, 0.03);
        let found = least_squares(&noisy).unwrap();
        assert!(errors(&noisy, &found).all(|error| error.abs() < 0.05), "{found:?}");
    }

    #[test]
    fn no_cost_is_negative() {
        let found = least_squares(&rows(&[5e-6, 5e-6, -1e-7], 0.0)).unwrap();
        assert!(found.iter().all(|cost| *cost >= 0.0) && found[2] == 0.0, "{found:?}");
    }

    #[test]
    fn what_is_not_determined_is_not_guessed() {
        assert_eq!(least_squares(&[]), None);
        let same = [Equation::new([1.0, 2.0], 3.0), Equation::new([2.0, 4.0], 6.0)];
        let found = least_squares(&same).unwrap();
        assert!(found.contains(&0.0), "two that always come together are put down to one: {found:?}");
        assert_eq!(least_squares(&[Equation::new([1.0], 0.0)]), None);
        assert_eq!(least_squares(&[Equation::new([1.0], 1.0), Equation::new([1.0, 2.0], 1.0)]), None);
    }

    #[test]
    fn medians_and_spreads() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[1.0, 2.0]), median(&[])), (Some(2.0), Some(1.5), None));
        assert_eq!(spread_percent(&[90.0, 100.0, 120.0]), 30.0);
    }

    #[test]
    fn a_writes_time_is_found_again() {
        for write_s in [0.000_2, 0.001, 0.01] {
            let commits = commits_per_second(3_000.0, 1.0 / write_s);
            let found = write_seconds(3_000.0, commits).unwrap();
            assert!((found / write_s - 1.0).abs() < 1e-6, "{found} is not {write_s}");
        }
        assert_eq!(write_seconds(3_000.0, 2_999.0), None);
    }
}
