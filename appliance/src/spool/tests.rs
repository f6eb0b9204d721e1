use proptest::prelude::*;
use shared::clock::{Clock as _, ScriptedClock};
use shared::keys::{BoxKey, BoxKeys};
use std::path::PathBuf;
use std::time::Duration;

use super::*;

const SESSION: &str = "s";
/// A sealed frame is so much longer than what is in it.
const OVERHEAD: usize = 12 + 24 + 16 + 17 + 8;

/// A folder with a key store and a clock.
struct Bed {
    folder: tempfile::TempDir,
    keys: KeyStore,
    clock: ScriptedClock,
    is_sealed: bool,
}

impl Bed {
    fn new(is_sealed: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let boxes = BoxKeys::only(BoxKey::generate().unwrap());
        let keys = KeyStore::open(&folder.path().join("keys.db"), boxes).unwrap();
        Self { folder, keys, clock: ScriptedClock::new(), is_sealed }
    }

    fn sealed() -> Self {
        Self::new(true)
    }

    /// Once with each version.
    fn both() -> [Self; 2] {
        [false, true].map(Self::new)
    }

    fn overhead(&self) -> usize {
        if self.is_sealed { OVERHEAD } else { 33 }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("s.rspool")
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    fn begin(&self) -> SpoolWriter {
        if self.is_sealed {
            SpoolWriter::begin(&self.path(), &self.keys, SESSION, &self.now()).unwrap()
        } else {
            SpoolWriter::create(&self.path(), Format::Plain, &self.now()).unwrap()
        }
    }

    fn reopen(&self) -> (SpoolWriter, Left) {
        SpoolWriter::reopen(&self.path(), &self.keys, SESSION, &self.now()).unwrap()
    }

    fn open(&self) -> SpoolReader {
        SpoolReader::open(&self.path(), &self.keys, SESSION).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(self.path()).unwrap()
    }

    fn put(&self, bytes: &[u8]) {
        std::fs::write(self.path(), bytes).unwrap();
    }

    /// Seconds of a recording: the counter in every second is another.
    fn record(&self, seconds: usize) -> Vec<i16> {
        let pcm = counter(seconds * 16_000);
        self.begin().audio(&pcm, &self.now()).unwrap();
        pcm
    }
}

fn counter(samples: usize) -> Vec<i16> {
    (0..samples).map(|n| (n % 30_011) as i16 + 1).collect()
}

/// Where each frame of a sealed file lies.
fn frames(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut frames = Vec::new();
    let mut at = HEADER_BYTES as usize;
    while at < bytes.len() {
        let end = at + 12 + u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        frames.push(at..end);
        at = end;
    }
    frames
}

/// The file with its frames in another order, left out or doubled.
fn arranged(bytes: &[u8], order: &[usize]) -> Vec<u8> {
    let frames = frames(bytes);
    let chosen = order.iter().flat_map(|at| &bytes[frames[*at].clone()]);
    bytes[..HEADER_BYTES as usize].iter().chain(chosen).copied().collect()
}

#[test]
fn what_is_written_is_read_back_with_gaps_as_silence() {
    for bed in Bed::both() {
        let mut writer = bed.begin();
        writer.audio(&counter(20_000), &bed.now()).unwrap();
        writer.gap(5_000, GapCause::Overrun, &bed.now()).unwrap();
        writer.gap(1_000, GapCause::Overrun, &bed.now()).unwrap();
        let mut reader = bed.open();
        writer.audio(&counter(100), &bed.now()).unwrap();
        assert_eq!(reader.refresh().unwrap(), 26_100);
        let all = reader.read(0..u64::MAX).unwrap();
        assert_eq!(all[..20_000], counter(20_000));
        assert!(all[20_000..26_000].iter().all(|s| *s == 0));
        assert_eq!(all[26_000..], counter(100));
        assert_eq!(reader.read(15_990..16_010).unwrap(), counter(20_000)[15_990..16_010]);
        assert_eq!(reader.gaps(), [(20_000..26_000, GapCause::Overrun)]);
        assert!(!reader.has_audio(&(20_000..26_000)) && reader.has_audio(&(25_999..26_001)));
    }
}

#[test]
fn cut_anywhere_it_reads_up_to_the_last_whole_frame_and_goes_on_from_there() {
    for bed in Bed::both() {
        let mut writer = bed.begin();
        for _ in 0..3 {
            writer.audio(&counter(1_000), &bed.now()).unwrap();
        }
        let whole = bed.bytes();
        for length in (0..whole.len()).step_by(7) {
            bed.put(&whole[..length]);
            if !bed.is_sealed && length < HEADER_BYTES as usize {
                continue; // It is begun anew, sealed; the key would then belie the other lengths.
            }
            let (mut writer, left) = bed.reopen();
            assert_eq!(left.samples % 1_000, 0);
            assert!(left.samples as usize * 2 + 2_200 > length.saturating_sub(400), "at most a frame is lost");
            writer.audio(&counter(10), &bed.now()).unwrap();
            let reader = bed.open();
            assert_eq!(reader.samples(), left.samples + 10);
            assert_eq!(reader.read(left.samples..u64::MAX).unwrap(), counter(10));
        }
    }
}

#[test]
fn a_flipped_bit_is_a_gap_and_the_rest_is_kept() {
    for bed in Bed::both() {
        let pcm = bed.record(3);
        let mut bytes = bed.bytes();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        bed.put(&bytes);
        let reader = bed.open();
        assert_eq!(reader.gaps(), [(16_000..32_000, GapCause::AudioInvalid)]);
        assert_eq!(reader.read(32_000..u64::MAX).unwrap(), pcm[32_000..]);
    }
}

#[test]
fn a_damaged_head_costs_its_frame_and_not_what_follows() {
    for bed in Bed::both() {
        let pcm = bed.record(4);
        let mut bytes = bed.bytes();
        let head = bytes.len() - 3 * (bed.overhead() + 32_000);
        bytes[head..head + 12].fill(0xff);
        bed.put(&bytes);
        let reader = bed.open();
        assert_eq!(reader.gaps(), [(16_000..32_000, GapCause::AudioInvalid)]);
        assert_eq!(reader.read(32_000..u64::MAX).unwrap(), pcm[32_000..]);
        assert_eq!(bed.reopen().1.samples, 64_000);
    }
}

#[test]
fn a_second_restart_before_sound_is_back_counts_from_the_last_sample() {
    for bed in Bed::both() {
        bed.begin().audio(&counter(10), &bed.now()).unwrap();
        let then = bed.now();
        for _ in 0..2 {
            bed.clock.pass(Duration::from_secs(5));
            assert_eq!(bed.reopen().1.at, Some(then.clone()));
        }
    }
}

#[test]
fn an_ended_recording_says_so() {
    for bed in Bed::both() {
        bed.begin().finish(&bed.now()).unwrap();
        assert!(bed.reopen().1.ended);
    }
}

#[test]
fn it_remembers_when_it_was_last_written_and_in_which_boot() {
    for bed in Bed::both() {
        let mut writer = bed.begin();
        bed.clock.pass(Duration::from_secs(9));
        writer.audio(&counter(10), &bed.now()).unwrap();
        let then = bed.now();
        bed.clock.reboot("b");
        assert_eq!(bed.reopen().1.at, Some(then));
    }
}

#[test]
fn nothing_of_what_was_heard_stands_in_the_file() {
    let bed = Bed::sealed();
    bed.clock.reboot("name of a boot");
    let pcm = bed.record(2);
    bed.reopen().0.gap(16_000, GapCause::PowerLoss, &bed.now()).unwrap();
    let bytes = bed.bytes();
    let stands = |known: &[u8]| bytes.windows(known.len()).any(|part| part == known);
    for known in to_bytes(&pcm).chunks(8).step_by(101) {
        assert!(!stands(known));
    }
    assert!(!stands(b"power_loss") && !stands(bed.now().boot.0.as_bytes()), "nor when, nor why nothing was");
    let inside = 2 * 32_000 + 2 * bed.now().boot.0.len() + 8 + br#""power_loss""#.len();
    assert_eq!(bytes.len(), 12 + 5 * OVERHEAD + inside, "a frame costs what the README says");
}

#[test]
fn without_its_key_or_with_another_sessions_nothing_is_read() {
    let bed = Bed::sealed();
    bed.record(3);
    let open = |session| SpoolReader::open(&bed.path(), &bed.keys, session);
    assert!(matches!(open("t"), Err(SpoolError::Gone)), "there is no such session");
    assert!(is_gone(&bed.path(), &bed.keys, "t") && !is_gone(&bed.path(), &bed.keys, SESSION));
    bed.keys.make("t", Purpose::Audio, bed.now().wall).unwrap();
    let others = open("t").unwrap();
    assert_eq!((others.samples(), others.read(0..48_000).unwrap().len()), (0, 0));
    bed.keys.destroy(SESSION, &[Purpose::Audio]).unwrap();
    assert!(matches!(open(SESSION), Err(SpoolError::Gone)));
    assert!(matches!(SpoolWriter::reopen(&bed.path(), &bed.keys, SESSION, &bed.now()), Err(SpoolError::Gone)));
    assert!(bed.bytes().len() > 96_000, "nothing was cut off");
}

#[test]
fn a_plain_file_is_read_and_gone_on_with_as_such_and_is_none_of_a_sealed_session() {
    let bed = Bed::new(false);
    let pcm = bed.record(1);
    bed.reopen().0.audio(&pcm, &bed.now()).unwrap();
    assert_eq!(bed.open().read(0..u64::MAX).unwrap(), [&pcm[..], &pcm].concat());
    assert_eq!(bed.bytes()[4], 0);
    assert!(bed.keys.get(SESSION, Purpose::Audio).unwrap().is_none());
    bed.keys.make(SESSION, Purpose::Audio, bed.now().wall).unwrap();
    assert!(matches!(SpoolReader::open(&bed.path(), &bed.keys, SESSION), Err(SpoolError::Unsealed)));
}

#[test]
fn what_is_no_spool_is_told_from_one_whose_key_is_gone() {
    let bed = Bed::sealed();
    for bytes in [&b""[..], b"RSSP\x01", b"this was a recording", b"RSSP\x02\0\0\0\x80\x3e\0\0"] {
        bed.put(bytes);
        let opened = SpoolReader::open(&bed.path(), &bed.keys, SESSION);
        assert!(matches!(opened, Err(SpoolError::NotASpool)), "{} bytes", bytes.len());
    }
}

/// Four seconds are frames 1 to 4; frame 0 names the boot.
#[test]
fn frames_that_are_missing_moved_or_doubled_are_noticed() {
    let cases = [
        (&[0, 1, 2, 3, 4][..], 4, 0..0),
        (&[0, 1, 3, 4], 4, 1..2),
        (&[0, 4], 4, 0..3),
        (&[0, 1, 2, 2, 3, 1, 4], 4, 0..0),
        (&[0, 2, 1, 3, 4], 4, 0..1),
        (&[0, 1, 2, 4, 3], 4, 2..3),
        (&[0, 1, 2], 2, 0..0),
    ];
    for (order, seconds, gap) in cases {
        let gap = (!gap.is_empty()).then_some((gap.start * 16_000..gap.end * 16_000, GapCause::AudioInvalid));
        let bed = Bed::sealed();
        let pcm = bed.record(4);
        bed.put(&arranged(&bed.bytes(), order));
        let reader = bed.open();
        assert_eq!((reader.samples(), reader.gaps()), (seconds * 16_000, gap.into_iter().collect()), "{order:?}");
        for second in 0..seconds as usize {
            let stretch = second * 16_000..(second + 1) * 16_000;
            let heard = reader.read(stretch.start as u64..stretch.end as u64).unwrap();
            let is_there = reader.has_audio(&(stretch.start as u64..stretch.end as u64));
            assert!(heard == if is_there { pcm[stretch].to_vec() } else { vec![0; 16_000] }, "{order:?}");
        }
    }
}

/// Length and number stand in plain: who changes them as well gets no further.
#[test]
fn a_frame_under_another_number_is_none() {
    let bed = Bed::sealed();
    let pcm = bed.record(4);
    let mut bytes = bed.bytes();
    let all = frames(&bytes);
    for (from, to) in [(2, 3), (3, 2)] {
        let (from, to) = (all[from].clone(), all[to].clone());
        let inside = bed.bytes()[from.start + 12..from.end].to_vec();
        bytes[to.start + 12..to.end].copy_from_slice(&inside);
    }
    bed.put(&bytes);
    let reader = bed.open();
    assert_eq!(reader.gaps(), [(16_000..48_000, GapCause::AudioInvalid)]);
    assert_eq!(reader.read(48_000..u64::MAX).unwrap(), pcm[48_000..]);
}

#[test]
fn a_frame_of_another_session_is_none() {
    let (mine, other) = (Bed::sealed(), Bed::sealed());
    mine.record(3);
    other.record(3);
    let (mut bytes, foreign) = (mine.bytes(), other.bytes());
    let second = frames(&bytes)[2].clone();
    bytes[second.clone()].copy_from_slice(&foreign[second]);
    mine.put(&bytes);
    assert_eq!(mine.open().gaps(), [(16_000..32_000, GapCause::AudioInvalid)]);
    // At its end it is not read at all, and written over.
    mine.put(&bytes[..frames(&bytes)[2].end]);
    assert_eq!(mine.open().samples(), 16_000);
    let (mut writer, left) = mine.reopen();
    writer.audio(&counter(10), &mine.now()).unwrap();
    assert_eq!((left.samples, mine.open().samples()), (16_000, 16_010));
}

/// A tail of more than a frame is no frame that was being written; who can still read it one day must find it.
#[test]
fn a_long_damaged_tail_is_gone_on_behind_and_not_cut_off() {
    for bed in Bed::both() {
        let pcm = bed.record(4);
        let mut bytes = bed.bytes();
        let tail = bytes.len() - 3 * (bed.overhead() + 32_000);
        bytes[tail..].fill(0xa5);
        bed.put(&bytes);
        let (mut writer, left) = bed.reopen();
        assert_eq!(left.samples, 16_000);
        writer.gap(48_000, GapCause::Restart, &bed.now()).unwrap();
        writer.audio(&pcm[..100], &bed.now()).unwrap();
        assert!(bed.bytes().starts_with(&bytes));
        let reader = bed.open();
        assert_eq!(reader.gaps(), [(16_000..64_000, GapCause::Restart)]);
        assert_eq!(reader.read(64_000..u64::MAX).unwrap(), pcm[..100]);
    }
}

/// A reader used to take what it saw of a frame that was being written over for damage, for good.
#[test]
fn a_frame_that_is_half_there_is_read_once_it_is_whole() {
    let bed = Bed::sealed();
    let pcm = bed.record(2);
    let whole = bed.bytes();
    let mut half = whole.clone();
    half[whole.len() - 10_000..].fill(0);
    bed.put(&half);
    let mut reader = bed.open();
    assert_eq!(reader.samples(), 16_000);
    bed.put(&whole);
    assert_eq!(reader.refresh().unwrap(), 32_000);
    assert_eq!((reader.gaps(), reader.read(0..u64::MAX).unwrap()), (vec![], pcm));
}

/// Found by fuzzing: the length of the timeline used to run over.
#[test]
fn a_gap_without_end_is_gone_on_behind() {
    for bed in Bed::both() {
        let mut writer = bed.begin();
        writer.frame(Kind::Gap, [&u64::MAX.to_le_bytes()[..], b"\"overrun\""].concat(), &bed.now()).unwrap();
        let (mut writer, left) = bed.reopen();
        assert_eq!(left.samples, MAX_GAP_SAMPLES);
        writer.audio(&counter(10), &bed.now()).unwrap();
        writer.gap(5, GapCause::Restart, &bed.now()).unwrap();
        let reader = bed.open();
        assert_eq!(reader.samples(), left.samples + 15);
        assert_eq!(reader.read(left.samples..left.samples + 10).unwrap(), counter(10));
    }
}

/// Found by fuzzing: a frame used to be believed for the sake of a torn tail behind it, and no more once that was cut off.
#[test]
fn what_was_read_before_a_torn_tail_is_read_when_that_is_gone() {
    let bed = Bed::new(false);
    let mut writer = bed.begin();
    writer.audio(&counter(10), &bed.now()).unwrap();
    writer.sequence += 500;
    writer.audio(&counter(10), &bed.now()).unwrap();
    bed.put(&[bed.bytes(), vec![0xa5; 1_000]].concat());
    let samples = bed.open().samples();
    let (mut writer, left) = bed.reopen();
    writer.audio(&counter(10), &bed.now()).unwrap();
    assert_eq!((left.samples, bed.open().samples()), (samples, samples + 10));
}

/// Found by fuzzing: a damaged frame that claimed more than the file held was passed over, and believed once there was more.
#[test]
fn a_damaged_length_does_not_reach_over_what_is_appended() {
    let bed = Bed::new(false);
    let mut writer = bed.begin();
    for _ in 0..3 {
        writer.audio(&counter(10), &bed.now()).unwrap();
    }
    let mut bytes = bed.bytes();
    let head = bytes.len() - 2 * (bed.overhead() + 20);
    bytes[head..head + 4].copy_from_slice(&2_000u32.to_le_bytes());
    bed.put(&bytes);
    let samples = bed.open().samples();
    let (mut writer, left) = bed.reopen();
    writer.audio(&counter(1_500), &bed.now()).unwrap();
    let reader = bed.open();
    assert_eq!((left.samples, reader.samples()), (samples, samples + 1_500));
    assert_eq!(reader.read(samples - 10..samples).unwrap(), counter(10));
    assert_eq!(reader.read(samples..u64::MAX).unwrap(), counter(1_500));
}

#[test]
fn what_changes_behind_a_readers_back_is_not_heard() {
    for bed in Bed::both() {
        bed.record(2);
        let reader = bed.open();
        let mut bytes = bed.bytes();
        let last = bytes.len() - 100;
        bytes[last] ^= 1;
        bed.put(&bytes);
        assert!(matches!(reader.read(16_000..32_000), Err(SpoolError::Altered)));
        assert!(reader.read(0..16_000).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is done to a file: what is still heard was said just then.
    #[test]
    fn no_damage_moves_or_changes_what_is_heard(
        hurts in proptest::collection::vec((0..4u8, 0..200_000usize, 0..50_000usize), 1..4),
    ) {
        let bed = Bed::sealed();
        let pcm = bed.record(4);
        let mut bytes = bed.bytes();
        for (what, at, length) in hurts {
            let at = HEADER_BYTES as usize + at % (bytes.len() - HEADER_BYTES as usize);
            let until = (at + length).min(bytes.len());
            match what {
                0 => bytes[at] ^= 1 << (length % 8),
                1 => drop(bytes.drain(at..until)),
                2 => bytes[at..until].fill(0),
                _ => {
                    let copy = bytes[at..until].to_vec();
                    bytes.extend(copy);
                }
            }
            if bytes.len() <= HEADER_BYTES as usize {
                break;
            }
        }
        bed.put(&bytes);
        let reader = bed.open();
        let heard = reader.read(0..u64::MAX).unwrap();
        prop_assert!(heard.len() <= pcm.len());
        prop_assert!(heard.iter().zip(&pcm).all(|(heard, said)| *heard == 0 || heard == said));
        let (mut writer, left) = bed.reopen();
        prop_assert_eq!(left.samples, heard.len() as u64);
        writer.audio(&pcm[..10], &bed.now()).unwrap();
        prop_assert_eq!(bed.open().read(left.samples..u64::MAX).unwrap(), &pcm[..10]);
    }

    #[test]
    fn bytes_that_nobody_wrote_are_read_without_an_accident(
        bytes in proptest::collection::vec(any::<u8>(), 0..400), version in 0..2u8,
    ) {
        let bed = Bed::new(version == 1);
        drop(bed.begin());
        let header = bed.bytes()[..HEADER_BYTES as usize].to_vec();
        bed.put(&[header, bytes].concat());
        prop_assert_eq!(bed.open().read(0..u64::MAX).unwrap().len() as u64, bed.open().samples());
    }
}
