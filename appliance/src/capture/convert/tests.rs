use super::*;

fn shape(encoding: Encoding, channels: usize, rate_hz: u32) -> Shape {
    Shape { encoding, channels, rate_hz }
}

fn encode(encoding: Encoding, level: f64) -> Vec<u8> {
    let whole = |scale: f64| (level * scale).round() as i32;
    match encoding {
        Encoding::S16 => (whole(32_767.0) as i16).to_le_bytes().to_vec(),
        Encoding::S24In3 => whole(8_388_607.0).to_le_bytes()[..3].to_vec(),
        // What stands in the padding is nobody's business.
        Encoding::S24In4 => [&whole(8_388_607.0).to_le_bytes()[..3], &[0xa5]].concat(),
        Encoding::S32 => whole(2_147_483_647.0).to_le_bytes().to_vec(),
        Encoding::Float => (level as f32).to_le_bytes().to_vec(),
    }
}

/// A tone of half of full scale, the same in all channels.
fn tone(shape: Shape, frames: usize, hz: f64) -> Vec<u8> {
    let level = |n: usize| 0.5 * (n as f64 * hz * std::f64::consts::TAU / f64::from(shape.rate_hz)).sin();
    (0..frames).flat_map(|n| encode(shape.encoding, level(n)).repeat(shape.channels)).collect()
}

/// Pushes in pieces of so many frames, and finishes.
fn converted(shape: Shape, bytes: &[u8], piece: usize) -> Vec<i16> {
    let (mut converter, mut pcm) = (Converter::new(shape).unwrap(), Vec::new());
    bytes.chunks(piece * shape.frame_bytes()).for_each(|piece| converter.push(piece, &mut pcm).unwrap());
    converter.finish(&mut pcm).unwrap();
    pcm
}

/// How far samples are from a tone of half of full scale whose phase is that of sample 0, at worst.
fn worst(pcm: &[i16], hz: f64, from: usize) -> f64 {
    let off = |(n, sample): (usize, &i16)| {
        let exact = 16_384.0 * (n as f64 * hz * std::f64::consts::TAU / f64::from(SAMPLE_RATE_HZ)).sin();
        (f64::from(*sample) - exact).abs()
    };
    pcm.iter().enumerate().skip(from).take(pcm.len() - 2 * from).map(off).fold(0.0, f64::max)
}

#[test]
fn sixteen_bits_at_16_khz_are_passed_on_bit_for_bit() {
    let pcm: Vec<i16> = (0..10_000).map(|n| (n * 7919 % 65_536 - 32_768) as i16).collect();
    let bytes = crate::audio::to_bytes(&pcm);
    assert_eq!(converted(shape(Encoding::S16, 1, 16_000), &bytes, 160), pcm);
}

#[test]
fn every_format_and_rate_keeps_length_level_and_position() {
    let rates =
        [(8_000, 1), (11_025, 2), (16_000, 2), (22_050, 1), (44_100, 2), (48_000, 6), (96_000, 1), (192_000, 2)];
    let of_rate = rates.map(|(rate, channels)| shape(Encoding::S16, channels, rate));
    let of_format = Encoding::ALL.map(|encoding| shape(encoding, 2, 48_000));
    for shape in of_rate.into_iter().chain(of_format) {
        let pcm = converted(shape, &tone(shape, 2 * shape.rate_hz as usize, 440.0), 441);
        assert_eq!(pcm.len(), 32_000, "{shape:?}");
        // A sample of 440 Hz moves by up to 2831 steps: this is a fiftieth of a sample.
        let worst = worst(&pcm, 440.0, 400);
        assert!(worst < 60.0, "{shape:?}: {worst}");
    }
}

/// Half a minute in pieces of odd sizes: whatever a block boundary cost would add up, or show as a step.
#[test]
fn nothing_is_dropped_or_made_up_over_many_blocks_and_the_phase_runs_through() {
    for rate in [44_100, 48_000] {
        let shape = shape(Encoding::S16, 1, rate);
        let (mut converter, mut pcm) = (Converter::new(shape).unwrap(), Vec::new());
        // 441 periods fill whole seconds of either rate, so that a second can be repeated.
        let second = tone(shape, rate as usize, 441.0);
        let mut pieces = [441usize, 17, 480, 1, 1023, 160].into_iter().cycle();
        let mut bytes = second.iter().copied().cycle().take(30 * second.len());
        loop {
            let piece: Vec<u8> = bytes.by_ref().take(2 * pieces.next().unwrap()).collect();
            if piece.is_empty() {
                break;
            }
            converter.push(&piece, &mut pcm).unwrap();
            let held = converter.resampler.as_ref().unwrap().owed - pcm.len() as f64;
            assert!(held < 200.0, "{held} samples are held");
        }
        converter.finish(&mut pcm).unwrap();
        assert_eq!(pcm.len(), 30 * 16_000, "{rate} Hz");
        let worst = worst(&pcm, 441.0, 400);
        assert!(worst < 30.0, "{rate} Hz: {worst}");
    }
}

#[test]
fn what_would_alias_is_gone_and_what_is_speech_is_not() {
    let shape = shape(Encoding::S32, 1, 48_000);
    let peak = |hz| {
        let pcm = converted(shape, &tone(shape, 48_000, hz), 480);
        pcm[400..15_600].iter().map(|s| s.unsigned_abs()).max().unwrap()
    };
    assert!(peak(10_000.0) <= 2, "10 kHz would be heard as 6 kHz");
    assert!(peak(6_000.0).abs_diff(16_384) < 200);
}

#[test]
fn channels_are_averaged_and_a_channel_of_no_numbers_costs_nothing() {
    let stereo = shape(Encoding::S16, 2, 16_000);
    let frames: Vec<u8> = [100i16, 300, -5, 5, 32_767, 32_767].iter().flat_map(|s| s.to_le_bytes()).collect();
    assert_eq!(converted(stereo, &frames, 3), [200, 0, 32_767]);
    let float = shape(Encoding::Float, 2, 16_000);
    let frames: Vec<u8> = [f32::NAN, 0.5, f32::INFINITY, f32::NAN].iter().flat_map(|s| s.to_le_bytes()).collect();
    assert_eq!(converted(float, &frames, 2), [16_384, 0]);
}

/// A device that claims 16 or 48 kHz and gives 3 % more, told of it: as many seconds, and the pitch that was heard.
#[test]
fn a_corrected_rate_gives_the_length_and_the_pitch_of_the_room() {
    for claimed in [16_000, 48_000] {
        let (claims, is) = (shape(Encoding::S16, 1, claimed), shape(Encoding::S16, 1, claimed / 100 * 103));
        let (mut converter, mut pcm) = (Converter::new(claims).unwrap(), Vec::new());
        converter.correct(1.03).unwrap();
        converter.push(&tone(is, 10 * is.rate_hz as usize, 440.0), &mut pcm).unwrap();
        converter.finish(&mut pcm).unwrap();
        assert_eq!(pcm.len(), 160_000);
        let worst = worst(&pcm, 440.0, 400);
        assert!(worst < 6_000.0, "{claimed} Hz: {worst}: two samples");
        assert!(converter.correct(2.0).is_err(), "no device is off by so much");
    }
}
