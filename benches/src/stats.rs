//! What becomes of samples: medians, 90th percentiles, ratios.

/// Samples of one contender in one figure, in the figure's unit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Samples(Vec<f64>);

/// What is reported of [`Samples`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// Half of the samples are at most this.
    pub median: f64,
    /// Nine tenths of the samples are at most this; a tenth is worse.
    pub p90: f64,
    /// How many samples there are.
    pub count: usize,
}

impl Samples {
    /// Adds one.
    pub fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Sums them up; `None` without a sample. `less_is_better` says which tail p90 is of.
    #[must_use]
    pub fn summary(&self, less_is_better: bool) -> Option<Summary> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let middle = (sorted[last / 2] + sorted[last.div_ceil(2)]) / 2.0;
        // Nearest rank: the least sample that nine tenths do not exceed.
        let rank = (sorted.len() * 9).div_ceil(10).saturating_sub(1);
        let p90 = if less_is_better {
            sorted[rank]
        } else {
            sorted[last - rank]
        };
        Some(Summary {
            median: middle,
            p90,
            count: sorted.len(),
        })
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(samples: I) -> Self {
        Self(samples.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(samples: &[f64], less_is_better: bool) -> Summary {
        samples
            .iter()
            .copied()
            .collect::<Samples>()
            .summary(less_is_better)
            .unwrap()
    }

    #[test]
    fn no_samples_have_no_summary() {
        assert_eq!(Samples::default().summary(true), None);
    }

    #[test]
    fn the_median_is_the_middle_of_odd_and_the_mean_of_the_two_of_even_numbers() {
        assert_eq!(summary(&[5.0], true).median, 5.0);
        assert_eq!(summary(&[9.0, 1.0, 5.0], true).median, 5.0);
        assert_eq!(summary(&[4.0, 1.0, 2.0, 9.0], true).median, 3.0);
    }

    #[test]
    fn a_tenth_of_the_samples_is_worse_than_p90() {
        let samples: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(summary(&samples, true).p90, 90.0);
        assert_eq!(summary(&samples, false).p90, 11.0);
        assert_eq!(summary(&[7.0], true).p90, 7.0);
        assert_eq!(summary(&[7.0, 8.0], false).p90, 7.0);
    }
}
