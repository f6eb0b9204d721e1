//! whisper.cpp, in the child. The only file of the box that names `whisper_rs`.
//!
//! Each window is decoded on its own, in a fresh state: no text and no chance of an earlier one is left over, which
//! stops loops, is better with small models, and gives the same text for the same window whatever came before. Beam
//! search of 5 with temperature fallback are whisper.cpp's own defaults.
//!
//! whisper.cpp is asked for one segment and the timestamp tokens are read here: in the version bound by whisper-rs
//! 0.16 a segment begins where the one before ended, and a pause between two speakers would be lost.

use std::path::Path;

use whisper_rs::{
    DtwMode, DtwModelPreset, DtwParameters, FullParams, SamplingStrategy, WhisperContext, WhisperContextParameters,
    WhisperState,
};

use super::Phrase;
use super::phrases::{Token, read};
use crate::audio::{SAMPLE_RATE_HZ, seconds};
use crate::models::Alignment;

/// whisper.cpp gives nothing for less than a second; silence is added up to this many samples.
const SHORTEST_SAMPLES: usize = 17_600;
/// What is left of a window when less than this remains is not looked at: whisper.cpp does the same.
const REST_SAMPLES: usize = SAMPLE_RATE_HZ as usize;

fn heads(alignment: Alignment) -> DtwMode<'static> {
    match alignment {
        Alignment::Unknown => DtwMode::None,
        Alignment::TinyEn => DtwMode::ModelPreset { model_preset: DtwModelPreset::TinyEn },
        Alignment::BaseEn => DtwMode::ModelPreset { model_preset: DtwModelPreset::BaseEn },
        Alignment::LastLayer => DtwMode::TopMost { n_top: 1 },
    }
}

/// A loaded model.
pub struct Whisper {
    context: WhisperContext,
    threads: i32,
}

impl Whisper {
    pub fn load(model: &Path, alignment: Alignment, threads: u32) -> Result<Self, String> {
        whisper_rs::install_logging_hooks();
        let mut parameters = WhisperContextParameters::default();
        parameters.use_gpu(false);
        parameters.dtw_parameters(DtwParameters { mode: heads(alignment), ..DtwParameters::default() });
        let path = model.to_str().ok_or("the model's path is not UTF-8")?;
        let context = WhisperContext::new_with_params(path, parameters).map_err(|e| e.to_string())?;
        Ok(Self { context, threads: i32::try_from(threads).unwrap_or(1).max(1) })
    }

    pub fn transcribe(&mut self, pcm: &[i16]) -> Result<Vec<Phrase>, String> {
        let mut samples = crate::audio::to_float(pcm);
        samples.resize(samples.len().max(SHORTEST_SAMPLES), 0.0);
        let mut state = self.context.create_state().map_err(|e| e.to_string())?;
        let (mut phrases, mut from) = (Vec::new(), 0);
        while samples.len() - from >= REST_SAMPLES {
            let tokens = self.decode(&mut state, &samples[from..])?;
            let heard = read(&tokens, seconds((samples.len() - from) as u64));
            let offset = seconds(from as u64);
            phrases.extend(heard.phrases.into_iter().map(|p| p.shifted(offset)));
            from += (heard.until * f64::from(SAMPLE_RATE_HZ)) as usize;
            from = from.min(samples.len());
        }
        let end = seconds(pcm.len() as u64);
        Ok(phrases.into_iter().map(|p| p.clamped(end)).collect())
    }

    /// Every token of the next thirty seconds at most.
    fn decode(&self, state: &mut WhisperState, samples: &[f32]) -> Result<Vec<Token>, String> {
        state.full(self.parameters(), samples).map_err(|e| e.to_string())?;
        let (end_of_text, zero) = (self.context.token_eot(), self.context.token_beg());
        let mut tokens = Vec::new();
        // One segment a chunk: the next chunk begins where this one's timestamps end, so only the first counts.
        for segment in state.as_iter().take(1) {
            for token in (0..segment.n_tokens()).filter_map(|i| segment.get_token(i)) {
                let data = token.token_data();
                match token.to_bytes() {
                    _ if data.id >= zero => tokens.push(Token::Time(f64::from(data.id - zero) * 0.02)),
                    Ok(bytes) if data.id < end_of_text => {
                        // In hundredths, and negative where it was not asked for.
                        let at = (data.t_dtw >= 0).then_some(data.t_dtw as f64 / 100.0);
                        tokens.push(Token::Text { bytes: bytes.to_vec(), probability: f64::from(data.p), at });
                    }
                    Ok(_) | Err(_) => {}
                }
            }
        }
        Ok(tokens)
    }

    fn parameters(&self) -> FullParams<'static, 'static> {
        let mut parameters = FullParams::new(SamplingStrategy::BeamSearch { beam_size: 5, patience: -1.0 });
        parameters.set_n_threads(self.threads);
        parameters.set_language(Some("en"));
        parameters.set_no_context(true);
        parameters.set_n_max_text_ctx(0);
        parameters.set_single_segment(true);
        parameters.set_print_special(false);
        parameters.set_print_progress(false);
        parameters.set_print_realtime(false);
        parameters.set_print_timestamps(false);
        parameters
    }
}
