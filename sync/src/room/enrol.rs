//! Enrolment through a file: a box learns its clinic.

use std::path::PathBuf;

use serde::Deserialize;
use shared::paths::Root;
use shared::seal::ClinicPublic;
use shared::settings::Link;
use shared::wire::is_id;

use crate::files;

/// Why an enrolment is not taken.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// It is not TOML, or a field is missing, unknown or of the wrong kind.
    #[error("the enrolment is not a [link] table as `roomscribe-clinic invite` prints it")]
    Syntax(#[source] toml::de::Error),
    /// A value cannot be right.
    #[error("link.{name} must be {expected}")]
    Value {
        /// The field.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
    },
    /// It could not be written.
    #[error("{file} cannot be written")]
    Write {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enrolment {
    link: Link,
}

/// Reads an enrolment and checks everything that can be checked without the clinic.
///
/// # Errors
/// [`EnrolError::Syntax`] and [`EnrolError::Value`].
pub fn check(text: &str) -> Result<Link, EnrolError> {
    let Enrolment { link } = toml::from_str(text).map_err(EnrolError::Syntax)?;
    let id = "1 to 32 of a-z, 0-9 and -";
    let host_fits = !link.broker_host.is_empty() && !link.broker_host.contains(|c: char| c.is_whitespace() || c == '/');
    let checks = [
        ("clinic", is_id(&link.clinic), id),
        ("box", is_id(&link.box_id) && link.box_id != "board", "1 to 32 of a-z, 0-9 and -, and not \"board\""),
        ("broker_host", host_fits, "a host name or an address"),
        ("broker_port", link.broker_port != 0, "between 1 and 65535"),
        ("ack_timeout", (1.0..=86_400.0).contains(&link.ack_timeout), "between 1 and 86400 seconds"),
    ];
    for (name, fits, expected) in checks {
        if !fits {
            return Err(EnrolError::Value { name, expected });
        }
    }
    if ClinicPublic::from_hex(&link.sealing_key, &link.signing_key).is_err() {
        let (name, expected) = ("sealing_key and link.signing_key", "the clinic's two public keys in hexadecimal");
        return Err(EnrolError::Value { name, expected });
    }
    Ok(link)
}

/// Checks an enrolment and puts it where the settings are read. Returns what it says and where it lies.
///
/// # Errors
/// [`EnrolError`].
pub fn enrol(root: &Root, text: &str) -> Result<(Link, PathBuf), EnrolError> {
    let link = check(text)?;
    let path = root.site().join("link.toml");
    let failed = |source| EnrolError::Write { file: path.display().to_string(), source };
    files::folder(&root.site(), 0o755).map_err(failed)?;
    files::replace(&path, text.as_bytes(), 0o644).map_err(failed)?;
    Ok((link, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::seal::ClinicKeys;
    use shared::settings::Settings;

    fn text(edit: impl Fn(String) -> String) -> String {
        let (sealing, signing) = ClinicKeys::generate().public_hex();
        edit(format!(
            "[link]\nclinic = \"north\"\nbox = \"room-1\"\nbroker_host = \"localhost\"\nbroker_port = 1883\n\
             sealing_key = \"{sealing}\"\nsigning_key = \"{signing}\"\n"
        ))
    }

    #[test]
    fn an_enrolled_box_knows_its_clinic_and_can_be_enrolled_again() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        enrol(&root, &text(|t| t)).unwrap();
        let (link, path) = enrol(&root, &text(|t| t.replace("room-1", "room-2"))).unwrap();
        assert!(path.ends_with("var/lib/roomscribe/site/link.toml"));
        assert_eq!(Settings::load(&root, |_| None).unwrap().link, Some(link.clone()));
        assert_eq!(link.box_id, "room-2");
    }

    #[test]
    fn a_wrong_enrolment_says_what_is_wrong_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let cases: [(&str, &str, &str); 8] = [
            ("north", "North", "link.clinic"),
            ("room-1", "board", "link.box"),
            ("localhost", "tcp://broker", "link.broker_host"),
            ("1883", "0", "link.broker_port"),
            ("1883", "99999", "[link] table"),
            ("sealing_key = \"", "sealing_key = \"zz", "sealing_key"),
            ("[link]", "[links]", "[link] table"),
            ("broker_port = 1883", "broker_port = 1883\nack_timeout = 0.0", "link.ack_timeout"),
        ];
        for (from, to, expected) in cases {
            let why = enrol(&root, &text(|t| t.replacen(from, to, 1))).unwrap_err();
            assert!(why.to_string().contains(expected), "{to}: {why}");
        }
        assert!(!root.site().exists());
    }
}
