//! Causes that arrive only as text, read by the guide's patterns: the one place that looks into a message.
//!
//! A pattern is one or more tokens in a row, compared without regard to ASCII case. A token is a run of letters and
//! digits of any script; a dot or comma between two digits belongs to the number. Whatever stands between tokens
//! only parts them.
//!
//! | text | tokens | read as |
//! |---|---|---|
//! | `HTTP/1.1 503`, `error=429`, `Rate-Limit`, `rate_limit_exceeded` | the pattern's, whole | retryable |
//! | `took 4003 ms`, `429ms`, `0.400 s`, `1,503 ms`, `v4.0.0`, `0x503` | longer than the pattern's | unknown |
//! | `timeouts`, `TimeoutError`, `time-out`, `timed out` | other ones | unknown |
//! | `ValueError`, `FileNotFoundError`, `No such file or directory` | the pattern's, whole | final |
//!
//! Final wins where a text names both kinds: repeating a bad request never mends it, while a session that is given
//! up too early keeps its audio and can be replayed. Unknown leaves the decision to the typed error. A whole `400`
//! that is a line number or a length looks like a status and is read as one: typed errors exist to avoid that.
//!
//! Nothing of the text is kept, copied or shown.

/// How much of a text is looked at, in bytes. A cause stands in the first line or in a traceback of a few KiB; an
/// engine may send its whole output after it, by the megabyte, and reading that would keep a core busy.
pub const LOOKED_AT: usize = 16 * 1024;

/// What a text says about trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hint {
    /// The same call may go well later.
    Retryable,
    /// The same call fails each time.
    Final,
    /// The text does not say.
    Unknown,
}

/// Every pattern, with what it means: the guide's own, and for its two causes that are classes of error ("a missing
/// file", "an invalid value") the names and sentences under which Python, C and Rust report them. Tokens of one
/// pattern are parted by one space.
pub const TABLE: &[(&str, Hint)] = &[
    ("rate limit", Hint::Retryable),
    ("429", Hint::Retryable),
    ("503", Hint::Retryable),
    ("timeout", Hint::Retryable),
    ("temporarily unavailable", Hint::Retryable),
    ("connection reset", Hint::Retryable),
    ("400", Hint::Final),
    ("401", Hint::Final),
    ("invalid audio format", Hint::Final),
    ("filenotfounderror", Hint::Final),
    ("no such file or directory", Hint::Final),
    ("file not found", Hint::Final),
    ("valueerror", Hint::Final),
    ("invalid value", Hint::Final),
];

/// Reads a text by [`TABLE`].
///
/// ```
/// use shared::cause_text::{Hint, read};
/// assert_eq!(read("HTTP/1.1 503 Service Unavailable"), Hint::Retryable);
/// assert_eq!(read("Error code: 401"), Hint::Final);
/// assert_eq!(read("took 4003 ms"), Hint::Unknown);
/// ```
#[must_use]
pub fn read(text: &str) -> Hint {
    let tokens = tokens(beginning(text));
    let says = |hint| TABLE.iter().any(|(pattern, meaning)| *meaning == hint && has(&tokens, pattern));
    if says(Hint::Final) {
        Hint::Final
    } else if says(Hint::Retryable) {
        Hint::Retryable
    } else {
        Hint::Unknown
    }
}

/// The first [`LOOKED_AT`] bytes, without the token that the cut may have gone through: `4003` must not become `400`.
fn beginning(text: &str) -> &str {
    if text.len() <= LOOKED_AT {
        return text;
    }
    let cut = &text[..text.floor_char_boundary(LOOKED_AT)];
    cut.rfind(|c: char| !c.is_alphanumeric() && !is_point(c)).map_or("", |end| &cut[..end])
}

fn is_point(c: char) -> bool {
    matches!(c, '.' | ',')
}

fn tokens(text: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut begun = None;
    let mut before = None;
    let mut rest = text.char_indices().peekable();
    while let Some((at, c)) = rest.next() {
        let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let is_inside =
            c.is_alphanumeric() || (is_point(c) && is_digit(before) && is_digit(rest.peek().map(|(_, next)| *next)));
        if is_inside {
            begun.get_or_insert(at);
        } else if let Some(from) = begun.take() {
            tokens.push(&text[from..at]);
        }
        before = Some(c);
    }
    tokens.extend(begun.map(|from| &text[from..]));
    tokens
}

fn has(tokens: &[&str], pattern: &str) -> bool {
    let wanted: Vec<&str> = pattern.split(' ').collect();
    tokens
        .windows(wanted.len())
        .any(|found| found.iter().zip(&wanted).all(|(token, word)| token.eq_ignore_ascii_case(word)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all_read_as(hint: Hint, texts: &[&str]) {
        for text in texts {
            assert_eq!(read(text), hint, "{text:?}");
        }
    }

    #[test]
    fn every_pattern_is_read_as_the_table_says_alone_in_a_sentence_and_in_capitals() {
        for (pattern, hint) in TABLE {
            assert_ne!(*hint, Hint::Unknown);
            for text in [
                (*pattern).to_owned(),
                pattern.to_uppercase(),
                format!("engine: {pattern}!"),
                format!("(\u{201c}{pattern}\u{201d})"),
                pattern.replace(' ', "_"),
                pattern.replace(' ', " \n\t- "),
            ] {
                assert_eq!(read(&text), *hint, "{text:?}");
            }
        }
    }

    #[test]
    fn the_guides_own_patterns_are_read_as_the_guide_has_them() {
        let retryable = ["rate limit", "429", "503", "timeout", "temporarily unavailable", "connection reset"];
        all_read_as(Hint::Retryable, &retryable);
        all_read_as(Hint::Final, &["400", "401", "invalid audio format"]);
    }

    #[test]
    fn took_4003_ms_retries_nothing_and_refuses_nothing() {
        all_read_as(Hint::Unknown, &["took 4003 ms", "took 4003ms", "after 14290 ms", "5030 frames", "4.003 s", ""]);
    }

    #[test]
    fn a_status_is_found_whatever_parts_it_from_its_neighbours() {
        let texts = [
            "HTTP/1.1 503 Service Unavailable",
            "error=429",
            "status:429,retry",
            "[503]",
            "429\u{a0}",
            "429.",
            "status.503.retry",
        ];
        all_read_as(Hint::Retryable, &texts);
        all_read_as(Hint::Final, &["Error code: 401 - {'error': …}", "<400>", "HTTP 400: Bad Request"]);
    }

    #[test]
    fn a_number_with_more_digits_a_unit_or_a_fraction_is_no_status() {
        let texts =
            ["429ms", "x503", "0x503", "v4.0.0", "0.400 s", "400.5", "1,503 ms", "503,2", "é400", "４00", "400二"];
        all_read_as(Hint::Unknown, &texts);
    }

    #[test]
    fn other_words_for_a_timeout_are_left_to_the_typed_error() {
        all_read_as(Hint::Retryable, &["Timeout", "read timeout: 30", "gateway-timeout"]);
        all_read_as(Hint::Unknown, &["timeouts", "time-out", "timed out", "TimeoutError", "timeoutms"]);
    }

    #[test]
    fn words_of_a_pattern_count_only_whole_in_order_and_side_by_side() {
        all_read_as(Hint::Retryable, &["Rate-limit reached", "rate_limit_exceeded", "Connection reset by peer"]);
        let texts =
            ["rate limits", "rate-limited", "the limit rate", "rate no limit", "connection was reset", "crate limit"];
        all_read_as(Hint::Unknown, &texts);
    }

    #[test]
    fn a_missing_file_and_an_invalid_value_are_final_under_each_of_their_names() {
        let texts = [
            "FileNotFoundError: [Errno 2] No such file or directory: 'a.wav'",
            "No such file or directory (os error 2)",
            "file not found",
            "ValueError: could not convert",
            "invalid value for beam_size",
            "Invalid audio format.",
        ];
        all_read_as(Hint::Final, &texts);
    }

    #[test]
    fn final_wins_over_retryable_in_either_order() {
        all_read_as(Hint::Final, &["503 after 400", "400 after 503", "timeout: ValueError"]);
    }

    #[test]
    fn only_the_beginning_of_a_long_text_is_read_and_a_token_on_the_cut_is_left_out() {
        for code in ["400", "400.5", "4003", "400,1"] {
            for before_cut in 0..=code.len() {
                let text = format!("{} {code}{}", "-".repeat(LOOKED_AT - before_cut - 1), " ".repeat(LOOKED_AT));
                assert_eq!(read(&text), Hint::Unknown, "{code} with {before_cut} bytes before the cut");
            }
        }
        let early = format!("HTTP 503 {}", "x".repeat(8 << 20));
        assert_eq!(read(&early), Hint::Retryable);
        assert_eq!(read(&"9".repeat(8 << 20)), Hint::Unknown);
        assert_eq!(read(&"語".repeat(LOOKED_AT)), Hint::Unknown);
    }

    /// The same rule said another way: with every separator made one space, a whole-token match is a plain search.
    fn naive(text: &str) -> Hint {
        let chars: Vec<char> = text.chars().collect();
        let digit_at = |i: Option<usize>| i.and_then(|i| chars.get(i)).is_some_and(char::is_ascii_digit);
        let spaced: String = (0..chars.len())
            .map(|i| match chars[i] {
                c if c.is_alphanumeric() => c.to_ascii_lowercase(),
                c @ ('.' | ',') if digit_at(i.checked_sub(1)) && digit_at(Some(i + 1)) => c,
                _ => ' ',
            })
            .collect();
        let line = format!(" {} ", spaced.split_whitespace().collect::<Vec<_>>().join(" "));
        let found: Vec<Hint> =
            TABLE.iter().filter(|(pattern, _)| line.contains(&format!(" {pattern} "))).map(|(_, hint)| *hint).collect();
        *found.iter().find(|hint| **hint == Hint::Final).or(found.first()).unwrap_or(&Hint::Unknown)
    }

    /// Texts in which patterns, their halves, numbers and separators meet in every way.
    fn texts() -> impl Strategy<Value = String> {
        let words: Vec<&str> = TABLE.iter().flat_map(|(pattern, _)| pattern.split(' ')).collect();
        let others = vec!["Rate", "LIMIT", "ValueError", "0", "3", "ms", "é", "二", "İ"];
        let separators = vec![" ", " ", ".", ",", "-", "_", "/", "=", "\n", "…", "\u{301}"];
        let piece = prop_oneof![
            4 => proptest::sample::select(words).prop_map(str::to_owned),
            2 => proptest::sample::select(others).prop_map(str::to_owned),
            4 => proptest::sample::select(separators).prop_map(str::to_owned),
            1 => "\\PC{0,4}",
        ];
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn it_reads_as_an_independent_matcher_of_whole_tokens(text in texts()) {
            prop_assert_eq!(read(&text), naive(&text));
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), repeated in 0usize..4000) {
            let (_, _) = (read(&text), read(&text.repeat(repeated)));
        }

        #[test]
        fn a_number_glued_to_a_letter_or_digit_is_never_a_status(
            status in proptest::sample::select(vec!["400", "401", "429", "503"]),
            glued in "[\\p{L}\\p{Nd}]",
            is_before in any::<bool>(),
        ) {
            let word = if is_before { format!("{glued}{status}") } else { format!("{status}{glued}") };
            prop_assert_eq!(read(&format!("took {word} in all")), Hint::Unknown);
        }

        #[test]
        fn a_wait_in_milliseconds_says_nothing(ms in 1000u32..) {
            prop_assert_eq!(read(&format!("took {ms} ms")), Hint::Unknown);
        }
    }
}
