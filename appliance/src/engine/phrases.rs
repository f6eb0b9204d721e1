//! From Whisper's tokens to phrases: text between two timestamps. No I/O.

use shared::record::Said;

use super::{HeardWord, Phrase};

/// Less than this of a chunk being consumed, in seconds, would decode the same chunk for ever.
const PROGRESS: f64 = 1.0;

/// A token as the decoder gave it, other than special ones.
#[derive(Clone, PartialEq)]
pub enum Token {
    /// Seconds from the chunk's start.
    Time(f64),
    /// Part of a word; a leading space begins a new one, and a character may be split over tokens.
    Text {
        /// UTF-8, perhaps not whole.
        bytes: Vec<u8>,
        /// What the decoder believed, 0 to 1.
        probability: f64,
        /// Where it begins, seconds from the chunk's start, where attention says so.
        at: Option<f64>,
    },
}

/// What a chunk said, and up to where it was understood.
#[derive(Debug, Clone, PartialEq)]
pub struct Heard {
    /// In order of time.
    pub phrases: Vec<Phrase>,
    /// Seconds; what follows is decoded anew.
    pub until: f64,
}

/// Reads the tokens of a chunk `length` seconds long (thirty at most are decoded at a time).
///
/// As in OpenAI's Whisper: two timestamps in a row close one phrase and open the next; text after the last timestamp
/// is decoded again from there; a single timestamp at the end closes the chunk.
#[must_use]
pub fn read(tokens: &[Token], length: f64) -> Heard {
    let length = length.min(30.0);
    let mut phrases = Vec::new();
    let (mut opened, mut text): (f64, Vec<&Token>) = (0.0, Vec::new());
    let mut last_time = None;
    for token in tokens {
        match token {
            Token::Text { .. } => text.push(token),
            Token::Time(at) => {
                if !text.is_empty() {
                    phrases.extend(phrase(&std::mem::take(&mut text), opened, at.min(length)));
                }
                (opened, last_time) = (at.min(length), Some(at.min(length)));
            }
        }
    }
    let closes_chunk = matches!(tokens, [.., Token::Text { .. }, Token::Time(_)]) || last_time.is_none();
    let until = last_time.filter(|at| !closes_chunk && *at >= PROGRESS).unwrap_or(length);
    if until >= length && !text.is_empty() {
        phrases.extend(phrase(&text, opened, length));
    }
    Heard { phrases, until }
}

/// A phrase from its tokens; nothing if they hold no word.
fn phrase(tokens: &[&Token], start: f64, end: f64) -> Option<Phrase> {
    let mut words: Vec<Spelled> = Vec::new();
    for token in tokens {
        let Token::Text { bytes, probability, at } = token else { continue };
        if bytes.starts_with(b" ") || words.is_empty() {
            words.push(Spelled { bytes: Vec::new(), probabilities: Vec::new(), at: *at });
        }
        if let Some(word) = words.last_mut() {
            word.bytes.extend_from_slice(bytes);
            word.probabilities.push(*probability);
        }
    }
    words.retain(|word| !word.text().is_empty());
    let end = end.max(start);
    let starts = starts(&words, start, end);
    let ends = starts.iter().skip(1).copied().chain([end]);
    let words: Vec<HeardWord> = words
        .iter()
        .zip(starts.iter().zip(ends))
        .map(|(word, (start, end))| HeardWord {
            start: *start,
            end,
            text: Said(word.text()),
            probability: word.probability(),
        })
        .collect();
    (!words.is_empty()).then_some(Phrase { start, end, words })
}

struct Spelled {
    bytes: Vec<u8>,
    probabilities: Vec<f64>,
    at: Option<f64>,
}

impl Spelled {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).trim().to_owned()
    }

    fn probability(&self) -> f64 {
        let mean = self.probabilities.iter().sum::<f64>() / self.probabilities.len().max(1) as f64;
        mean.clamp(0.0, 1.0)
    }
}

/// Where each word of a phrase begins. By attention, if that puts them in order into the phrase (the first begins with it);
/// else they share its time by their length.
fn starts(words: &[Spelled], start: f64, end: f64) -> Vec<f64> {
    let heard: Option<Vec<f64>> = words.iter().map(|word| word.at.map(|at| at.clamp(start, end))).collect();
    if let Some(mut heard) = heard.filter(|heard| heard.is_sorted()) {
        heard.iter_mut().take(1).for_each(|first| *first = start);
        return heard;
    }
    let weight = |word: &Spelled| word.text().chars().count() as f64 + 1.0;
    let total: f64 = words.iter().map(weight).sum();
    let before = words.iter().scan(0.0, |sum, word| {
        let before = *sum;
        *sum += weight(word);
        Some(before)
    });
    before.map(|before| start + (end - start) * before / total).collect()
}

impl Phrase {
    /// The same phrase `seconds` later.
    #[must_use]
    pub fn shifted(mut self, seconds: f64) -> Self {
        self.start += seconds;
        self.end += seconds;
        for word in &mut self.words {
            word.start += seconds;
            word.end += seconds;
        }
        self
    }

    /// The same phrase, ending no later than `end`.
    #[must_use]
    pub fn clamped(mut self, end: f64) -> Self {
        (self.start, self.end) = (self.start.min(end), self.end.min(end));
        for word in &mut self.words {
            (word.start, word.end) = (word.start.min(end), word.end.min(end));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(word: &str) -> Token {
        Token::Text { bytes: word.as_bytes().to_vec(), probability: 0.5, at: None }
    }

    fn spans(heard: &Heard) -> Vec<(f64, f64, usize)> {
        heard.phrases.iter().map(|p| (p.start, p.end, p.words.len())).collect()
    }

    #[test]
    fn a_pause_between_two_phrases_is_kept() {
        use Token::Time;
        let tokens = [Time(0.4), text(" a"), text(" b"), Time(2.0), Time(3.5), text(" c"), Time(5.0)];
        let heard = read(&tokens, 30.0);
        assert_eq!(spans(&heard), [(0.4, 2.0, 2), (3.5, 5.0, 1)]);
        assert_eq!(heard.until, 30.0, "a single timestamp at the end closes the chunk");
    }

    #[test]
    fn what_was_not_closed_is_decoded_again_from_the_last_timestamp() {
        use Token::Time;
        let heard = read(&[Time(0.0), text(" a"), Time(12.0), Time(12.5), text(" b")], 30.0);
        assert_eq!((spans(&heard), heard.until), (vec![(0.0, 12.0, 1)], 12.5));
        let heard = read(&[Time(0.0), text(" a"), Time(12.0), Time(12.5)], 30.0);
        assert_eq!(heard.until, 12.5);
    }

    #[test]
    fn a_chunk_always_ends() {
        use Token::Time;
        assert_eq!(read(&[], 7.0).until, 7.0);
        assert_eq!(read(&[Time(0.0), Time(0.2)], 30.0).until, 30.0);
        let stuck = read(&[Time(0.2), text(" a")], 30.0);
        assert_eq!((spans(&stuck), stuck.until), (vec![(0.2, 30.0, 1)], 30.0));
        assert_eq!(spans(&read(&[text(" a")], 4.0)), [(0.0, 4.0, 1)]);
    }

    #[test]
    fn words_begin_where_attention_says_if_that_can_be() {
        let word =
            |word: &str, at: f64| Token::Text { bytes: word.as_bytes().to_vec(), probability: 0.5, at: Some(at) };
        let spans = |second: f64, third: f64| -> Vec<(f64, f64)> {
            let tokens = [Token::Time(1.0), word(" a", 0.4), word(" bb", second), word("b", 9.0), word(" c", third)];
            let heard = read(&[&tokens[..], &[Token::Time(5.0)]].concat(), 30.0);
            heard.phrases[0].words.iter().map(|word| (word.start, word.end)).collect()
        };
        assert_eq!(spans(2.0, 4.5), [(1.0, 2.0), (2.0, 4.5), (4.5, 5.0)]);
        assert_eq!(spans(2.0, 7.0), [(1.0, 2.0), (2.0, 5.0), (5.0, 5.0)], "never outside the phrase");
        let by_length = [(1.0, 1.0 + 8.0 / 8.0), (2.0, 4.0), (4.0, 5.0)];
        assert_eq!(spans(3.0, 2.0), by_length, "not in order, so by length");
    }

    #[test]
    fn a_character_split_over_tokens_is_one_and_a_word_has_its_mean_probability() {
        let mut tokens = vec![Token::Time(0.0)];
        tokens.push(Token::Text { bytes: vec![b' ', 0xc3], probability: 0.2, at: None });
        tokens.push(Token::Text { bytes: vec![0xa9], probability: 0.6, at: None });
        tokens.push(Token::Time(1.0));
        let heard = read(&tokens, 30.0);
        assert!(heard.phrases[0].words[0].text.0 == "é");
        assert!((heard.phrases[0].words[0].probability - 0.4).abs() < 1e-9);
    }
}
