//! A microphone that is switched off at itself: it goes on giving samples, all exactly the same.
//!
//! No room does that for ten seconds. From then on the samples are not sound but their absence, and become a gap
//! (`muted`) as long as they are; the first ten seconds stay as they came. Whatever differs by one step ends it, so that
//! nothing but one value again and again is ever replaced. A device that was never anything else has not been switched
//! off: it is broken, or is no microphone, and `roomscribe doctor` says so.

use crate::audio::SAMPLE_RATE_HZ;

/// Samples that are the same before it is believed.
const BELIEVED: u64 = 10 * SAMPLE_RATE_HZ as u64;

/// See the top of the file.
#[derive(Debug, Default)]
pub struct Mute {
    value: Option<i16>,
    run: u64,
    has_sounded: bool,
}

impl Mute {
    /// Takes a block; says whether it is nothing but what a switched-off microphone gives.
    pub fn is_muted(&mut self, pcm: &[i16]) -> bool {
        for sample in pcm.iter().copied() {
            if self.value == Some(sample) {
                self.run += 1;
            } else {
                self.has_sounded |= self.value.is_some();
                (self.value, self.run) = (Some(sample), 1);
            }
        }
        self.has_sounded && self.run >= BELIEVED + pcm.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn muted_blocks(mute: &mut Mute, blocks: usize, sample: impl Fn(usize) -> i16) -> usize {
        (0..blocks).filter(|n| mute.is_muted(&[sample(*n); 160])).count()
    }

    #[test]
    fn only_what_comes_after_ten_seconds_of_the_same_value_is_muted_and_one_step_ends_it() {
        let mut mute = Mute::default();
        assert_eq!(muted_blocks(&mut mute, 100, |n| n as i16), 0);
        assert_eq!(muted_blocks(&mut mute, 1_000, |_| -3), 0, "ten seconds");
        assert_eq!(muted_blocks(&mut mute, 500, |_| -3), 500);
        let mut almost = [-3; 160];
        almost[159] = -2;
        assert!(!mute.is_muted(&almost));
        assert_eq!(muted_blocks(&mut mute, 900, |_| -3), 0);
    }

    #[test]
    fn what_has_never_sounded_was_not_switched_off_and_a_quiet_room_is_a_room() {
        let mut mute = Mute::default();
        assert_eq!(muted_blocks(&mut mute, 3_000, |_| 0), 0);
        let mut mute = Mute::default();
        assert_eq!(muted_blocks(&mut mute, 3_000, |n| i16::from(n % 900 == 0)), 0, "one step in nine seconds");
    }
}
