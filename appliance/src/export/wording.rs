//! A text as words to score, after NIST's conventions for English: letters, the apostrophes of contractions, and
//! numbers spelled out. Letters that English does not have stay as they are.

/// What may follow an apostrophe.
const CONTRACTED: [&str; 7] = ["d", "s", "t", "re", "ll", "m", "ve"];
const UP_TO_NINETEEN: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
/// Ordinals that are not the number and `th`.
const ORDINALS: [(&str, &str); 7] = [
    ("one", "first"),
    ("two", "second"),
    ("three", "third"),
    ("five", "fifth"),
    ("eight", "eighth"),
    ("nine", "ninth"),
    ("twelve", "twelfth"),
];

/// The words of a text, between single spaces; empty if there are none.
pub(super) fn words(text: &str) -> String {
    let text = without_separators(&text.replace('’', "'").replace('%', " percent ").replace('&', " and "));
    let tokens = text.split(|c: char| !c.is_alphanumeric() && c != '\'' && c != '.').map(|t| t.trim_matches('.'));
    let spelled = tokens.flat_map(|token| match token.split_once('.') {
        Some((whole, part)) if is_number(whole) && is_number(part) => {
            vec![number(whole), "point".to_owned(), digits(part)]
        }
        _ => token.split('.').map(word).collect(),
    });
    spelled.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// The comma of 1,000 is no word's end.
fn without_separators(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let is_within = kept.ends_with(|c: char| c.is_ascii_digit()) && rest.peek().is_some_and(char::is_ascii_digit);
        if c != ',' || !is_within {
            kept.push(c);
        }
    }
    kept
}

fn is_number(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|b| b.is_ascii_digit())
}

fn word(token: &str) -> String {
    let Some(at) = token.find(|c: char| c.is_ascii_digit()) else { return contraction(token) };
    let (before, rest) = token.split_at(at);
    let (figures, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
    let parts = match after {
        "st" | "nd" | "rd" | "th" => [word(before), ordinal(&number(figures)), String::new()],
        "s" => [word(before), plural(&number(figures)), String::new()],
        _ => [word(before), number(figures), word(after)],
    };
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Other apostrophes than those of `don't` and `o'clock` are quotes.
fn contraction(token: &str) -> String {
    let mut pieces = token.split('\'').filter(|piece| !piece.is_empty());
    let Some(first) = pieces.next() else { return String::new() };
    pieces.fold(first.to_owned(), |word, piece| {
        let is_kept = CONTRACTED.iter().any(|end| piece.eq_ignore_ascii_case(end)) || word.eq_ignore_ascii_case("o");
        format!("{word}{}{piece}", if is_kept { "'" } else { "" })
    })
}

/// As it is read: a year in two halves, what is too long or begins with a zero figure by figure.
fn number(figures: &str) -> String {
    match figures.parse::<usize>() {
        Ok(_) if figures.len() > 6 || (figures.len() > 1 && figures.starts_with('0')) => digits(figures),
        Ok(n @ (1100..=1999 | 2010..=2099)) => match (n / 100, n % 100) {
            (century, 0) => format!("{} hundred", cardinal(century)),
            (century, year @ 1..=9) => format!("{} oh {}", cardinal(century), cardinal(year)),
            (century, year) => format!("{} {}", cardinal(century), cardinal(year)),
        },
        Ok(n) => cardinal(n),
        Err(_) => digits(figures),
    }
}

fn digits(figures: &str) -> String {
    let each = figures.bytes().filter_map(|b| UP_TO_NINETEEN.get(usize::from(b.wrapping_sub(b'0'))).copied());
    each.collect::<Vec<_>>().join(" ")
}

/// Of numbers under a million.
fn cardinal(n: usize) -> String {
    let (head, rest) = match n {
        0..20 => return UP_TO_NINETEEN[n].to_owned(),
        20..100 => (TENS[n / 10].to_owned(), n % 10),
        100..1000 => (format!("{} hundred", cardinal(n / 100)), n % 100),
        _ => (format!("{} thousand", cardinal(n / 1000)), n % 1000),
    };
    if rest == 0 { head } else { format!("{head} {}", cardinal(rest)) }
}

fn plural(number: &str) -> String {
    number.strip_suffix('y').map_or_else(|| format!("{number}s"), |stem| format!("{stem}ies"))
}

fn ordinal(number: &str) -> String {
    let (before, last) = number.rsplit_once(' ').map_or(("", number), |(before, last)| (before, last));
    let irregular = ORDINALS.iter().find(|(cardinal, _)| *cardinal == last);
    let last = match (irregular, last.strip_suffix('y')) {
        (Some((_, ordinal)), _) => (*ordinal).to_owned(),
        (None, Some(stem)) => format!("{stem}ieth"),
        (None, None) => format!("{last}th"),
    };
    if before.is_empty() { last } else { format!("{before} {last}") }
}

#[cfg(test)]
mod tests {
    use super::words;

    #[test]
    fn a_text_becomes_the_words_that_were_said() {
        for (text, said) in [
            ("Yes, I didn't. \"Fine\"?", "Yes I didn't Fine"),
            ("well-known, the dogs' 'cause o’clock rock'n'roll", "well known the dogs cause o'clock rocknroll"),
            ("42 sheep at 10:30", "forty two sheep at ten thirty"),
            (
                "since 1990, 1905, 1900 and 2000",
                "since nineteen ninety nineteen oh five nineteen hundred and two thousand",
            ),
            ("the 3rd, the 20th of 3.5 %", "the third the twentieth of three point five percent"),
            ("007 0401234567 B12x", "zero zero seven zero four zero one two three four five six seven B twelve x"),
            ("1,250 and 120,000.", "twelve fifty and one hundred twenty thousand"),
            ("in the 1980s", "in the nineteen eighties"),
            ("a;;b --> <c> {d} café U.S.", "a b c d café U S"),
            (" ... '' - ", ""),
        ] {
            assert_eq!(words(text), said);
        }
    }
}
