//! Names of sound devices, as text. Card numbers change with whatever is plugged in at a start; a card's id does not.

use std::path::Path;

/// Where the kernel lists its cards.
const CARDS: &str = "/proc/asound/cards";

/// How a device's name says which card it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming<'a> {
    /// By a number: `hw:0`, `plughw:1,0`, `sysdefault:CARD=2`.
    Number(u32),
    /// By its id: `plughw:CARD=Speakerphone`, `hw:Speakerphone,0`.
    Id(&'a str),
    /// Not at all: `default`, or whatever a configuration gives a name.
    Unsaid,
}

/// What follows the last colon, and its part that says the card: `CARD=…`, or else the first.
fn card_argument(device: &str) -> Option<&str> {
    let (_, arguments) = device.rsplit_once(':')?;
    let arguments = || arguments.split(',').map(|argument| argument.trim_matches(['\'', '"', ' ']));
    let named = arguments().find_map(|argument| argument.strip_prefix("CARD="));
    named.or_else(|| arguments().next().filter(|first| !first.contains('='))).filter(|card| !card.is_empty())
}

/// See [`Naming`].
#[must_use]
pub fn naming(device: &str) -> Naming<'_> {
    match card_argument(device) {
        None => Naming::Unsaid,
        Some(card) => card.parse().map_or(Naming::Id(card), Naming::Number),
    }
}

/// The cards there are, by number and id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cards(Vec<(u32, String)>);

impl Cards {
    /// Those the kernel has now; none where it has no sound.
    #[must_use]
    pub fn present() -> Self {
        Self::read(Path::new(CARDS))
    }

    fn read(file: &Path) -> Self {
        Self::parse(&std::fs::read_to_string(file).unwrap_or_default())
    }

    /// From the kernel's list: ` 1 [Speakerphone   ]: USB-Audio - …`, and a second line that says more.
    #[must_use]
    pub fn parse(list: &str) -> Self {
        let card = |line: &str| {
            let (number, rest) = line.split_once('[')?;
            let (id, _) = rest.split_once(']')?;
            Some((number.trim().parse().ok()?, id.trim().to_owned()))
        };
        Self(list.lines().filter_map(card).collect())
    }

    /// Their ids.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.0.iter().map(|(_, id)| id.clone()).collect()
    }

    /// What to call a device that is named by a card number, if there is such a card now.
    #[must_use]
    pub fn stable_name(&self, device: &str) -> Option<String> {
        let Naming::Number(number) = naming(device) else { return None };
        let (_, id) = self.0.iter().find(|(card, _)| *card == number)?;
        let (kind, arguments) = device.rsplit_once(':')?;
        let device = arguments.split(',').nth(1).map(|device| device.trim_start_matches("DEV="));
        let device = device.filter(|device| *device != "0").map(|device| format!(",DEV={device}"));
        Some(format!("{kind}:CARD={id}{}", device.unwrap_or_default()))
    }

    /// The id that a device's name asks for, if no card has it.
    #[must_use]
    pub fn missing<'a>(&self, device: &'a str) -> Option<&'a str> {
        match naming(device) {
            Naming::Id(id) if !self.0.iter().any(|(_, there)| there == id) => Some(id),
            Naming::Id(_) | Naming::Number(_) | Naming::Unsaid => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = " 0 [Headphones     ]: bcm2835_headpho - bcm2835 Headphones
                      bcm2835 Headphones
 2 [Speakerphone   ]: USB-Audio - Speakerphone [x]
                      Maker Speakerphone at usb-0000:01:00.0-1.2, full speed
";

    #[test]
    fn numbers_ids_and_names_that_say_no_card_are_told_apart() {
        for number in
            ["hw:0", "plughw:0,0", "plughw:CARD=0,DEV=0", "sysdefault:0", "plug:'hw:0,1'", "dsnoop:DEV=0,CARD=0"]
        {
            assert_eq!(naming(number), Naming::Number(0), "{number}");
        }
        for id in ["hw:Mic", "plughw:CARD=Mic", "plughw:CARD=Mic,DEV=0", "plug:'hw:Mic'"] {
            assert_eq!(naming(id), Naming::Id("Mic"), "{id}");
        }
        for unsaid in ["default", "pulse", "roomscribe_test", "hw:", "hw:DEV=0"] {
            assert_eq!(naming(unsaid), Naming::Unsaid, "{unsaid}");
        }
    }

    #[test]
    fn a_card_number_has_a_stable_name_where_there_is_such_a_card() {
        let cards = Cards::parse(LIST);
        assert_eq!(cards.ids(), ["Headphones", "Speakerphone"]);
        assert_eq!(cards.stable_name("plughw:2,0").as_deref(), Some("plughw:CARD=Speakerphone"));
        assert_eq!(cards.stable_name("hw:CARD=0,DEV=3").as_deref(), Some("hw:CARD=Headphones,DEV=3"));
        assert_eq!((cards.stable_name("hw:1"), cards.stable_name("default")), (None, None));
        assert_eq!(Cards::parse("--- no soundcards ---\n"), Cards::default());
        assert_eq!(Cards::read(Path::new("/nowhere")), Cards::default());
    }

    #[test]
    fn a_card_that_is_not_there_is_named_and_others_are_not() {
        let cards = Cards::parse(LIST);
        assert_eq!(cards.missing("plughw:CARD=Table,DEV=0"), Some("Table"));
        assert_eq!((cards.missing("plughw:CARD=Speakerphone"), cards.missing("default")), (None, None));
    }
}
