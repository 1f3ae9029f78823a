//! Exponentially weighted moving average.

/// Exponentially weighted moving average with a weight of 1/20; `None` before the first sample.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ewma(pub Option<f64>);

impl Ewma {
    /// Adds a sample.
    pub fn update(&mut self, sample: f64) {
        self.0 = Some(self.0.map_or(sample, |mean| mean + (sample - mean) / 20.0));
    }
}
