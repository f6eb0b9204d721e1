//! From probabilities of speech to regions of speech, and to the place where a window may be cut. No I/O.

use std::ops::Range;

use crate::audio::{SAMPLE_RATE_HZ, samples_in};
use crate::engine::protocol::VAD_FRAME;
use std::time::Duration;

/// Speech begins at this probability …
const ON: f32 = 0.40;
/// … and goes on at this one.
const OFF: f32 = 0.25;
/// Seconds below `OFF` that end a region.
const MIN_SILENCE: f64 = 0.30;
/// Seconds a region needs, before padding.
const MIN_SPEECH: f64 = 0.20;
/// Seconds added at both ends.
const PAD: f64 = 0.06;
/// Seconds of one frame.
const FRAME: f64 = VAD_FRAME as f64 / SAMPLE_RATE_HZ as f64;

/// Regions of speech in seconds, from one probability per VAD frame of audio `seconds` long.
#[must_use]
pub fn regions(probabilities: &[f32], seconds: f64) -> Vec<(f64, f64)> {
    let mut found = Vec::new();
    let (mut begun, mut silent_since): (Option<f64>, Option<f64>) = (None, None);
    let mut close = |from: f64, to: f64| {
        if to - from >= MIN_SPEECH {
            found.push((from, to));
        }
    };
    for (n, &probability) in probabilities.iter().enumerate() {
        let at = n as f64 * FRAME;
        match begun {
            None if probability >= ON => (begun, silent_since) = (Some(at), None),
            None => {}
            Some(_) if probability >= OFF => silent_since = None,
            Some(from) => {
                let since = *silent_since.get_or_insert(at);
                if at + FRAME - since >= MIN_SILENCE - 1e-9 {
                    close(from, since);
                    begun = None;
                }
            }
        }
    }
    if let Some(from) = begun {
        close(from, silent_since.unwrap_or(seconds));
    }
    let mut padded: Vec<(f64, f64)> = Vec::new();
    for (from, to) in found {
        let (from, to) = ((from - PAD).max(0.0), (to + PAD).min(seconds));
        match padded.last_mut() {
            Some(last) if from <= last.1 => last.1 = to,
            _ => padded.push((from, to)),
        }
    }
    padded
}

/// No window is longer: Whisper hears 30 s at a time.
pub const MAX_WINDOW: Duration = Duration::from_secs(30);
/// No window but the last is shorter: a short window costs as much work as a long one.
const MIN_WINDOW: Duration = Duration::from_secs(12);
/// A pause shorter than this may lie within a word.
const MIN_PAUSE: f64 = 0.25;
/// Where nobody pauses, the cut is made in the quietest stretch of this length.
const QUIET: Duration = Duration::from_millis(200);

/// Where a window is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// In samples from the window's start.
    pub at: u64,
    /// Whether no pause was found.
    pub blind: bool,
}

/// Cuts audio of [`MAX_WINDOW`] in its longest pause, or blindly where there is none or no probabilities.
#[must_use]
pub fn cut(pcm: &[i16], probabilities: Option<&[f32]>) -> Cut {
    let first = samples_in(MIN_WINDOW) as usize;
    let pause = probabilities.and_then(|p| longest_pause(p, first / VAD_FRAME));
    match pause {
        Some(frames) => Cut { at: ((frames.start + frames.end) / 2 * VAD_FRAME) as u64, blind: false },
        None => Cut { at: quietest(pcm, first) as u64, blind: true },
    }
}

/// The longest run of frames without speech from `first` on; of two alike, the later.
fn longest_pause(probabilities: &[f32], first: usize) -> Option<Range<usize>> {
    let mut best: Option<Range<usize>> = None;
    let mut from = first;
    for at in first..=probabilities.len() {
        let speech = probabilities.get(at).is_none_or(|p| *p >= OFF);
        if speech {
            let is_best = best.as_ref().is_none_or(|b| at - from >= b.len());
            if at > from && (at - from) as f64 * FRAME >= MIN_PAUSE && is_best {
                best = Some(from..at);
            }
            from = at + 1;
        }
    }
    best
}

/// The middle of the quietest stretch from `first` on.
fn quietest(pcm: &[i16], first: usize) -> usize {
    let length = samples_in(QUIET) as usize;
    let energy = |at: usize| -> u64 { pcm[at..at + length].iter().map(|s| u64::from(s.unsigned_abs()).pow(2)).sum() };
    let starts = (first..pcm.len().saturating_sub(length)).step_by(length / 4);
    starts.min_by_key(|&at| energy(at)).map_or(pcm.len(), |at| at + length / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(parts: &[(f64, f32)]) -> Vec<f32> {
        parts.iter().flat_map(|&(s, p)| vec![p; (s / FRAME).round() as usize]).collect()
    }

    #[test]
    fn a_short_pause_joins_and_a_long_one_parts() {
        let heard = frames(&[(1.0, 0.0), (1.0, 0.9), (0.2, 0.1), (1.0, 0.9), (0.5, 0.1), (1.0, 0.9), (0.1, 0.0)]);
        let found = regions(&heard, 4.8);
        assert_eq!(found.len(), 2);
        assert!((found[0].0 - 0.93).abs() < 0.05 && (found[0].1 - 3.26).abs() < 0.06, "{found:?}");
    }

    #[test]
    fn a_click_is_no_speech_and_weak_speech_goes_on_but_does_not_begin() {
        assert!(regions(&frames(&[(1.0, 0.0), (0.1, 0.9), (1.0, 0.0)]), 2.1).is_empty());
        assert!(regions(&frames(&[(2.0, 0.3)]), 2.0).is_empty());
        assert_eq!(regions(&frames(&[(0.5, 0.9), (1.5, 0.3)]), 2.0).len(), 1);
    }

    #[test]
    fn a_window_is_cut_in_the_middle_of_its_longest_late_pause() {
        let heard = frames(&[(5.0, 0.9), (3.0, 0.0), (10.0, 0.9), (0.5, 0.0), (6.0, 0.9), (0.3, 0.0), (5.2, 0.9)]);
        let pcm = vec![0; 480_000];
        let cut = cut(&pcm, Some(&heard));
        assert!(!cut.blind && (crate::audio::seconds(cut.at) - 18.25).abs() < 0.1, "{cut:?}");
    }

    #[test]
    fn where_nobody_pauses_it_is_cut_where_it_is_quietest_and_says_so() {
        let mut pcm = vec![8_000i16; 480_000];
        pcm[400_000..404_000].fill(10);
        for heard in [None, Some(vec![0.9; 938])] {
            let cut = cut(&pcm, heard.as_deref());
            assert!(cut.blind && (400_000..404_000).contains(&cut.at), "{cut:?}");
        }
    }
}
