//! Deterministic random values.
//!
//! A value depends on the seed, the content of the request and the number of its earlier occurrences. It does not
//! depend on the clock, the connection, or other requests.

use fastrand::Rng;

const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns a hash of `bytes` that is the same on every machine and in every version.
pub(super) fn fingerprint(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    let mut hash = mix(bytes.len() as u64);
    for word in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        hash = (hash ^ u64::from_le_bytes(eight)).wrapping_mul(MULTIPLIER).rotate_left(29);
    }
    let mut rest = [0; 8];
    rest[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(hash ^ u64::from_le_bytes(rest))
}

/// Mixes the bits of `value` (the finaliser of splitmix64).
pub(super) fn mix(value: u64) -> u64 {
    let mut bits = value.wrapping_add(MULTIPLIER);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Purpose of a random value. Each purpose has its own generator, so that a changed setting does not affect values
/// for other purposes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    Latency = 1,
    Length,
    Fault,
    Content,
    RetryAfter,
    ToolCall,
    PromptCache,
}

/// Random values of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct RequestRng(u64);

impl RequestRng {
    /// Creates the generator of the request with this fingerprint and `occurrence` earlier occurrences.
    pub(super) fn new(seed: u64, request: u64, occurrence: u32) -> Self {
        Self(mix(mix(seed ^ request.rotate_left(17))
            ^ request
            ^ u64::from(occurrence).wrapping_mul(MULTIPLIER)))
    }

    /// Returns the random number generator for `purpose`.
    pub(super) fn for_purpose(self, purpose: Purpose) -> Rng {
        Rng::with_seed(mix(self.0 ^ (purpose as u64).wrapping_mul(MULTIPLIER)))
    }
}

/// Returns a factor that is log-normally distributed around a median of 1.
pub(super) fn sample_log_normal(rng: &mut Rng, sigma: f64) -> f64 {
    // Box-Muller transform. `1 - f64()` is never 0, whose logarithm would be infinite.
    let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
    (sigma * normal).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_request_gets_new_random_values() {
        let draw = |seed, occurrence| {
            RequestRng::new(seed, fingerprint(b"hello"), occurrence).for_purpose(Purpose::Fault).u64(..)
        };
        assert_eq!(draw(7, 0), draw(7, 0));
        assert_ne!(draw(7, 0), draw(7, 1));
        assert_ne!(draw(7, 0), draw(8, 0));
    }

    #[test]
    fn a_fingerprint_depends_on_every_byte_and_the_length() {
        let text = b"The quick brown fox jumps over the lazy dog";
        let whole = fingerprint(text);
        for at in 0..text.len() {
            let mut changed = *text;
            changed[at] ^= 1;
            assert_ne!(fingerprint(&changed), whole, "byte {at}");
        }
        assert_ne!(fingerprint(b"ab"), fingerprint(b"ab\0"));
    }

    #[test]
    fn half_of_the_log_normal_values_are_below_the_median() {
        let mut rng = Rng::with_seed(1);
        let below = (0..10_000).filter(|_| sample_log_normal(&mut rng, 0.8) < 1.0).count();
        assert!((4_800..5_200).contains(&below), "{below}");
    }
}
