//! Medians and percentiles.

use std::time::Duration;

/// One figure from several repetitions.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds the figure of a repetition.
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// The middle one; of an even number, the mean of the two in the middle. Not a number if there is none.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.get(middle) {
            None => f64::NAN,
            Some(upper) if sorted.len() % 2 == 1 => *upper,
            Some(upper) => (upper + sorted[middle - 1]) / 2.0,
        }
    }
}

/// Latencies of single records or requests.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<Duration>);

impl Latencies {
    /// The percentiles that are reported, once the start was left out: connections are new and caches cold for the first tenth.
    pub fn percentiles(&self) -> Percentiles {
        let mut sorted = self.0.get(self.0.len() / 10..).unwrap_or_default().to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get(sorted.len() * percent / 100).or(sorted.last());
        let ms = |latency: Option<&Duration>| latency.map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3);
        Percentiles {
            p50_ms: ms(at(50)),
            p99_ms: ms(at(99)),
        }
    }

    /// Adds one, in order of time.
    pub fn push(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Half and 99 of 100 latencies are not above these.
#[derive(Debug, Clone, Copy)]
pub struct Percentiles {
    /// Median, in milliseconds.
    pub p50_ms: f64,
    /// 99th percentile, in milliseconds.
    pub p99_ms: f64,
}

/// The percentiles of several repetitions.
#[derive(Debug, Clone, Default)]
pub struct PercentileSamples {
    /// Medians, in milliseconds.
    pub p50_ms: Samples,
    /// 99th percentiles, in milliseconds.
    pub p99_ms: Samples,
}

impl PercentileSamples {
    /// Adds the latencies of a repetition.
    pub fn push(&mut self, latencies: &Latencies) {
        let percentiles = latencies.percentiles();
        self.p50_ms.push(percentiles.p50_ms);
        self.p99_ms.push(percentiles.p99_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(figures: &[f64]) -> Samples {
        Samples(figures.to_vec())
    }

    #[test]
    fn median_is_the_middle_in_any_order() {
        assert_eq!(samples(&[9.0, 1.0, 5.0]).median(), 5.0);
        assert_eq!(samples(&[4.0, 2.0]).median(), 3.0);
        assert!(samples(&[]).median().is_nan());
    }

    #[test]
    fn percentiles_leave_out_the_first_tenth() {
        let mut latencies = Latencies::default();
        for ms in [1000; 10].into_iter().chain(1..=90) {
            latencies.push(Duration::from_millis(ms));
        }
        let percentiles = latencies.percentiles();
        assert_eq!((percentiles.p50_ms, percentiles.p99_ms), (46.0, 90.0));
        assert!(Latencies::default().percentiles().p50_ms.is_nan());
    }
}
