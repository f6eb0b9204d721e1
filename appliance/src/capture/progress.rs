//! What others may see of a recording under way, and what they may ask of it.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::level::{Level, Meter};
use crate::audio::{LEVEL_SAMPLES, peak_dbfs};

/// See the top of the file.
#[derive(Debug)]
pub struct Progress {
    samples: AtomicU64,
    peak_decibel_tenths: AtomicI64,
    is_failing: AtomicBool,
    is_off_record: AtomicBool,
    is_heard: AtomicBool,
    pauses: AtomicU64,
    level: Mutex<(Meter, Level)>,
}

/// Stands for "no peak yet, or silence".
const NO_PEAK: i64 = i64::MIN;

impl Progress {
    pub(super) fn new(samples: u64, is_off_record: bool) -> Self {
        Self {
            samples: AtomicU64::new(samples),
            peak_decibel_tenths: AtomicI64::new(NO_PEAK),
            is_failing: AtomicBool::new(false),
            is_off_record: AtomicBool::new(is_off_record),
            is_heard: AtomicBool::new(false),
            pauses: AtomicU64::new(0),
            level: Mutex::default(),
        }
    }

    /// Its length so far on the timeline.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// The loudest sample of the last second, dB relative to full scale; `None` for silence or before the first.
    #[must_use]
    pub fn peak_dbfs(&self) -> Option<f64> {
        let tenths = self.peak_decibel_tenths.load(Ordering::Relaxed);
        (tenths != NO_PEAK).then(|| tenths as f64 / 10.0)
    }

    /// How loud the last tenth of a second was; silence while nothing is heard.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Whether the microphone or the disk gives trouble just now.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Ordering::Relaxed)
    }

    /// Whether nothing is to be heard just now.
    #[must_use]
    pub fn is_off_record(&self) -> bool {
        self.is_off_record.load(Ordering::SeqCst)
    }

    /// What health and levels call how it is: `paused` (off the record), `failing` or `recording`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (self.is_off_record(), self.is_failing()) {
            (true, _) => "paused",
            (false, true) => "failing",
            (false, false) => "recording",
        }
    }

    /// Whether samples come just now: not before the first, nor while the microphone is closed or gives trouble.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.is_heard.load(Ordering::Relaxed) && !self.is_off_record()
    }

    pub(super) fn set_off_record(&self, is_off_record: bool) {
        if is_off_record {
            self.pauses.fetch_add(1, Ordering::SeqCst);
        }
        self.is_off_record.store(is_off_record, Ordering::SeqCst);
    }

    /// How often it has gone off the record: a pause that is over before anybody looked shows here.
    pub(super) fn pauses(&self) -> u64 {
        self.pauses.load(Ordering::SeqCst)
    }

    /// Sets whether there is trouble, and says whether there was.
    pub(super) fn set_failing(&self, is_failing: bool) -> bool {
        self.is_failing.swap(is_failing, Ordering::Relaxed)
    }

    /// Samples were heard that are not on the disk yet.
    pub(super) fn heard(&self, pcm: &[i16]) {
        self.is_heard.store(true, Ordering::Relaxed);
        let (meter, level) = &mut *self.level.lock().unwrap_or_else(PoisonError::into_inner);
        meter.add(pcm);
        if meter.samples() >= LEVEL_SAMPLES as u64 {
            (*level, *meter) = (meter.level(), Meter::default());
        }
    }

    /// Nothing is heard.
    pub(super) fn silent(&self) {
        self.is_heard.store(false, Ordering::Relaxed);
        self.peak_decibel_tenths.store(NO_PEAK, Ordering::Relaxed);
        *self.level.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }

    /// The timeline has come so far, in silence.
    pub(super) fn reached(&self, samples: u64) {
        self.samples.store(samples, Ordering::Relaxed);
    }

    /// A second is on the disk.
    pub(super) fn second(&self, samples: u64, pcm: &[i16]) {
        self.samples.store(samples, Ordering::Relaxed);
        let tenths = peak_dbfs(pcm).map_or(NO_PEAK, |db| (db * 10.0).round() as i64);
        self.peak_decibel_tenths.store(tenths, Ordering::Relaxed);
    }
}
