//! Enrolled voices: who agreed to be named, known again by the sound of the voice in every session.
//!
//!   recording of one person ─▶ pieces of speech ─▶ a vector each ─▶ their mean, sealed by a key of its own
//!   speakers of a session ─▶ the print each is like, if it is like that one alone ─▶ its label and role
//!
//! To destroy a print is to destroy its key; the row that is left is noise and goes after it.

use std::collections::BTreeSet;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shared::clock::WallTime;
use shared::error::{EngineFault, report};
use shared::keys::{CipherError, Purpose};
use shared::record::{Consent, UNKNOWN_SPEAKER};
use shared::store::{By, KeyError, KeyStore, SealedVoice, Store, StoreError};
use uuid::Uuid;

use crate::audio::{SAMPLE_RATE_HZ, samples_in, seconds};
use crate::context::Context;
use crate::decode::{DecodeError, Stretch, decode};
use crate::diarize::{self, Piece, Tuning, cosine};
use crate::engine::{VoiceModels, Voices};
use crate::label::speaker_label;
use crate::speech;
use crate::voicing::hear_pieces;

/// The first so many seconds of a recording are heard: more tells nothing more of a voice.
const HEARD: usize = 300 * SAMPLE_RATE_HZ as usize;
/// Seconds of speech a print needs.
const SPEECH: f64 = 10.0;
/// A clinic has some dozens of therapists; every speaker is compared with every print.
const MOST: usize = 200;
/// The longest label, in characters.
const LONGEST: usize = 64;
/// How much more a speaker must be like the print than any other speaker of the session is, in cosine.
const CLEARLY: f64 = 0.03;
/// What a print is sealed as.
const PRINT: &str = "print";

/// Who is enrolled, and how the voice sounds.
#[derive(Clone, Serialize, Deserialize)]
pub struct Print {
    /// Stands in records instead of `Speaker 1`.
    pub label: String,
    /// As records have it: `therapist`, …
    pub role: String,
    /// Why the voice may be known again.
    pub consent: Consent,
    /// Id of the voice model.
    pub model: String,
    /// Of unit length.
    pub vector: Vec<f32>,
    /// Seconds of speech it was made of.
    pub speech_s: f64,
}

/// A print that is kept.
#[derive(Clone)]
pub struct Enrolled {
    /// UUID.
    pub id: String,
    /// When it was made.
    pub made_at: WallTime,
    /// What it is.
    pub print: Print,
}

/// Who is to be enrolled.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// See [`Print`].
    pub label: String,
    /// See [`Print`].
    pub role: String,
    /// See [`Print`].
    pub consent: Consent,
}

/// Why a voice could not be enrolled, found or destroyed.
#[derive(Debug, thiserror::Error)]
pub enum PrintError {
    /// It would be taken for somebody else's.
    #[error("a label has 1 to 64 characters, no control characters, and is none that the box gives itself")]
    BadLabel,
    /// A word of lower-case letters says what somebody is.
    #[error("a role is one word in lower case, such as therapist, and never a name; so is who noted the consent")]
    BadRole,
    /// Nobody is known by the voice who has not agreed to it.
    #[error("say what the right to know this voice rests on, such as: --consent written")]
    NoConsent,
    /// Labels tell people apart.
    #[error("a voice is enrolled as {label} already: destroy it first ({id}), or choose another label")]
    Taken {
        /// The label.
        label: String,
        /// Who has it.
        id: String,
    },
    /// See [`MOST`].
    #[error("so many voices are enrolled that no more are taken: destroy those that are no longer needed")]
    TooMany,
    /// The file is no recording.
    #[error("{0}")]
    Recording(DecodeError),
    /// Not enough to know a voice by.
    #[error("{} were heard: at least {needed:.0} are needed", spoken(*.heard))]
    TooLittle {
        /// Seconds.
        heard: f64,
        /// Seconds.
        needed: f64,
    },
    /// Whose print would it be?
    #[error("more than one voice is heard: record the one person alone")]
    Several,
    /// The voice engine failed.
    #[error("The voice cannot be heard: {}", unheard(.0))]
    Engine(EngineFault),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key store failed.
    #[error("{}. {}", report(.0), .0.remedy())]
    Keys(KeyError),
    /// It cannot be sealed.
    #[error("The voice cannot be sealed")]
    Seal(#[from] CipherError),
    /// It cannot be written as JSON.
    #[error("The voice cannot be written")]
    Unwritable(#[from] serde_json::Error),
    /// No print has this id.
    #[error("no voice of this id is enrolled")]
    Unknown,
}

fn unheard(why: &EngineFault) -> String {
    match why {
        EngineFault::ModelUnusable { model, problem, remedy } => format!("{model} {problem}; fetch it with: {remedy}"),
        other => other.to_string(),
    }
}

fn spoken(seconds: f64) -> String {
    if seconds < 0.5 { "no seconds of speech".into() } else { format!("only {seconds:.0} seconds of speech") }
}

impl From<EngineFault> for PrintError {
    fn from(why: EngineFault) -> Self {
        Self::Engine(why)
    }
}

impl From<KeyError> for PrintError {
    fn from(why: KeyError) -> Self {
        Self::Keys(why)
    }
}

fn check(candidate: &Candidate) -> Result<(), PrintError> {
    let label = candidate.label.trim();
    let is_ours = label == UNKNOWN_SPEAKER
        || label.strip_prefix("Speaker ").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()));
    let is_whole = label == candidate.label && (1..=LONGEST).contains(&label.chars().count());
    if is_ours || !is_whole || label.chars().any(char::is_control) {
        return Err(PrintError::BadLabel);
    }
    if candidate.consent.basis.trim().is_empty() {
        return Err(PrintError::NoConsent);
    }
    let is_word = |role: &str| (1..=32).contains(&role.len()) && role.chars().all(|c| c.is_ascii_lowercase());
    let is_noted_by_a_role = candidate.consent.by.as_deref().is_none_or(is_word);
    if is_word(&candidate.role) && is_noted_by_a_role { Ok(()) } else { Err(PrintError::BadRole) }
}

/// Enrols the one voice of a recording.
///
/// # Errors
/// [`PrintError`]; nothing is kept then.
pub async fn enrol(
    context: &Context,
    engine: &mut impl Voices,
    file: &Path,
    candidate: Candidate,
) -> Result<Enrolled, PrintError> {
    check(&candidate)?;
    has_room(context, &candidate.label)?;
    let file = file.to_owned();
    let pcm = context.aside(move || listen(&file)).await.unwrap_or(Err(DecodeError::Damaged));
    let Candidate { label, role, consent } = candidate;
    let (model, vector, speech_s) = hear(engine, &pcm.map_err(PrintError::Recording)?).await?;
    keep(context, Print { label, role, consent, model, vector, speech_s })
}

/// The beginning of a recording.
fn listen(file: &Path) -> Result<Vec<i16>, DecodeError> {
    let mut pcm = Vec::new();
    decode(file, |stretch| {
        if let Stretch::Sound(sound) = stretch {
            let room = HEARD.saturating_sub(pcm.len());
            pcm.extend_from_slice(&sound[..sound.len().min(room)]);
        }
        Ok(())
    })?;
    Ok(pcm)
}

/// The voice model, the mean vector of the one voice in `pcm`, and how many seconds it speaks.
async fn hear(engine: &mut impl Voices, pcm: &[i16]) -> Result<(String, Vec<f32>, f64), PrintError> {
    let VoiceModels { voice, .. } = engine.models().await?;
    let tuning = Tuning::of(&voice);
    let (mut regions, mut all, mut vectors) = (Vec::new(), Vec::new(), Vec::new());
    let window = usize::try_from(samples_in(speech::MAX_WINDOW)).unwrap_or(usize::MAX);
    for (number, part) in pcm.chunks(window).enumerate() {
        let offset = seconds((number * window) as u64);
        let found = speech::regions(&engine.speech(part).await?, seconds(part.len() as u64));
        let (stretches, heard) = hear_pieces(engine, part, &found, &tuning).await?;
        vectors.extend(heard);
        let shifted =
            |p: &Piece| Piece { start: p.start + offset, end: p.end + offset, region: p.region + regions.len() };
        all.extend(stretches.iter().map(shifted));
        regions.extend(found.iter().map(|(from, to)| (from + offset, to + offset)));
    }
    let heard: f64 = regions.iter().map(|(from, to)| to - from).sum();
    if heard < SPEECH {
        return Err(PrintError::TooLittle { heard, needed: SPEECH });
    }
    if diarize::speakers(&diarize::diarize(&regions, &all, &vectors, &tuning)) > 1 {
        return Err(PrintError::Several);
    }
    Ok((voice, diarize::mean(&vectors), heard))
}

fn has_room(context: &Context, label: &str) -> Result<(), PrintError> {
    let known = all(&context.store, &context.keys)?;
    if let Some(voice) = known.iter().find(|voice| voice.print.label == label) {
        return Err(PrintError::Taken { label: label.to_owned(), id: voice.id.clone() });
    }
    if known.len() >= MOST { Err(PrintError::TooMany) } else { Ok(()) }
}

fn keep(context: &Context, print: Print) -> Result<Enrolled, PrintError> {
    // Somebody else may have been enrolled while this one was listened to.
    has_room(context, &print.label)?;
    let (id, made_at) = (Uuid::new_v4().to_string(), context.now().wall);
    let sealed = context.keys.make(&id, Purpose::Voice, made_at)?.seal(PRINT, &serde_json::to_vec(&print)?)?;
    let kept = context.store.add_voice(&SealedVoice { id: id.clone(), made_at, print: sealed }, By::local(made_at));
    if let Err(why) = kept {
        context.keys.destroy(&id, &[Purpose::Voice])?;
        return Err(why.into());
    }
    Ok(Enrolled { id, made_at, print })
}

/// Every enrolled voice that can be read. One whose key is destroyed is nobody's any more.
///
/// # Errors
/// [`PrintError::Store`] or [`PrintError::Keys`].
pub fn all(store: &Store, keys: &KeyStore) -> Result<Vec<Enrolled>, PrintError> {
    let mut found = Vec::new();
    for SealedVoice { id, made_at, print } in store.voices()? {
        let Some(key) = keys.get(&id, Purpose::Voice)? else { continue };
        let opened = key.open(PRINT, &print).ok().and_then(|plain| serde_json::from_slice(&plain).ok());
        match opened {
            Some(print) => found.push(Enrolled { id, made_at, print }),
            None => tracing::warn!(voice = id, "An enrolled voice cannot be read: destroy it and enrol it again."),
        }
    }
    Ok(found)
}

/// Finishes what was cut short: a row whose key is destroyed goes, and so does a key that was made for no row.
///
/// # Errors
/// [`PrintError::Store`] or [`PrintError::Keys`]; it can be repeated.
pub fn finish(store: &Store, keys: &KeyStore, now: WallTime) -> Result<(), PrintError> {
    let rows: BTreeSet<String> = store.voices()?.into_iter().map(|voice| voice.id).collect();
    let owners: BTreeSet<String> = keys.owners(Purpose::Voice)?.into_iter().collect();
    // Where no key is left at all, it is the key store that is lost: that may come back.
    for id in rows.difference(&owners).filter(|_| !owners.is_empty() || rows.len() == 1) {
        store.remove_voice(id, now.into())?;
    }
    for id in owners.difference(&rows) {
        keys.destroy(id, &[Purpose::Voice])?;
    }
    Ok(())
}

/// Destroys a print for good: its key, then what that had sealed.
///
/// # Errors
/// [`PrintError`]; what is left of it then is destroyed at the next start.
pub fn destroy(store: &Store, keys: &KeyStore, id: &str, now: WallTime) -> Result<(), PrintError> {
    let destroyed = keys.destroy(id, &[Purpose::Voice]);
    match destroyed {
        Err(KeyError::BadOwner) => return Err(PrintError::Unknown),
        // The key is gone all the same.
        Ok(_) | Err(KeyError::RewriteOwed(_)) => {}
        Err(why) => return Err(why.into()),
    }
    let had_row = store.remove_voice(id, By::local(now))?;
    if destroyed? || had_row { Ok(()) } else { Err(PrintError::Unknown) }
}

/// What a speaker of a session is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// As in records.
    pub label: String,
    /// If known.
    pub role: Option<String>,
}

/// A name for each speaker of a session: those of the prints they are like, and numbers for the others. `voices` are the
/// speakers' vectors by the voice model `model`, empty where there is none.
///
/// A print names the one speaker that is like it, and nobody where another is almost as much like it: a client who is taken
/// for the therapist is worse than a therapist without a name.
#[must_use]
pub fn names(voices: &[Vec<f32>], model: &str, enrolled: &[Enrolled]) -> Vec<Name> {
    let same = Tuning::of(model).same;
    let mut likely: Vec<(f64, usize, &Print)> = enrolled
        .iter()
        .filter(|voice| voice.print.model == model)
        .filter_map(|voice| {
            let mut like: Vec<(f64, usize)> =
                voices.iter().enumerate().map(|(n, heard)| (cosine(heard, &voice.print.vector), n)).collect();
            like.sort_by(|a, b| b.0.total_cmp(&a.0));
            let (best, speaker) = *like.first()?;
            let is_clear = like.get(1).is_none_or(|(next, _)| best - next >= CLEARLY);
            (best >= same && is_clear).then_some((best, speaker, &voice.print))
        })
        .collect();
    likely.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut names: Vec<Option<Name>> = vec![None; voices.len()];
    for (_, speaker, print) in likely {
        names[speaker].get_or_insert_with(|| Name { label: print.label.clone(), role: Some(print.role.clone()) });
    }
    let mut others = 0..;
    let next = |named: Option<Name>| {
        named.unwrap_or_else(|| Name { label: speaker_label(others.next().unwrap_or_default()), role: None })
    };
    names.into_iter().map(next).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrolled(label: &str, model: &str, vector: &[f32]) -> Enrolled {
        let consent = Consent { basis: "written".into(), by: None, at: String::new() };
        let (label, model, vector) = (label.to_owned(), model.to_owned(), vector.to_vec());
        let print = Print { label, role: "therapist".into(), consent, model, vector, speech_s: 20.0 };
        Enrolled { id: "v".into(), made_at: WallTime(0), print }
    }

    fn labels(voices: &[&[f32]], enrolled: &[Enrolled]) -> Vec<String> {
        let voices: Vec<Vec<f32>> = voices.iter().map(|v| v.to_vec()).collect();
        names(&voices, "demo-voice", enrolled).into_iter().map(|name| name.label).collect()
    }

    #[test]
    fn who_is_enrolled_is_named_and_the_others_are_numbered() {
        let therapist = [enrolled("Therapist", "demo-voice", &[1.0, 0.0])];
        assert_eq!(
            labels(&[&[0.0, 1.0], &[0.99, 0.1], &[-1.0, 0.0]], &therapist),
            ["Speaker 1", "Therapist", "Speaker 2"]
        );
        assert_eq!(labels(&[&[0.0, 1.0]], &therapist), ["Speaker 1"]);
        assert_eq!(labels(&[&[]], &therapist), ["Speaker 1"], "a speaker without a vector");
        let elsewhere = [enrolled("Therapist", "ge2e", &[1.0, 0.0])];
        assert_eq!(labels(&[&[1.0, 0.0]], &elsewhere), ["Speaker 1"], "another model's vectors say nothing");
    }

    #[test]
    fn where_two_speakers_are_alike_nobody_is_named_and_a_speaker_has_one_name() {
        let therapist = enrolled("Therapist", "demo-voice", &[1.0, 0.0]);
        assert_eq!(
            labels(&[&[1.0, 0.0], &[0.999, 0.04]], std::slice::from_ref(&therapist)),
            ["Speaker 1", "Speaker 2"]
        );
        let twins = [enrolled("Other", "demo-voice", &[0.99, 0.14]), therapist];
        assert_eq!(labels(&[&[1.0, 0.0], &[0.0, 1.0]], &twins), ["Therapist", "Speaker 1"]);
    }

    #[test]
    fn a_label_that_could_be_taken_for_another_is_refused() {
        let candidate = |label: &str, role: &str| {
            let consent = Consent { basis: "written".into(), by: None, at: String::new() };
            check(&Candidate { label: label.into(), role: role.into(), consent })
        };
        for good in ["Therapist", "Therapist 2", "Speaker of the house", "Zoë"] {
            assert!(candidate(good, "therapist").is_ok(), "{good}");
        }
        for bad in ["", " ", "Speaker 1", "Unknown Speaker", "a\nb", " x", &"x".repeat(65)] {
            assert!(matches!(candidate(bad, "therapist"), Err(PrintError::BadLabel)), "{bad:?}");
        }
        assert!(matches!(candidate("Therapist", "The Therapist"), Err(PrintError::BadRole)));
    }
}
