//! Enrolment: a box learns its clinic, and how to prove that it is itself.
//!
//! The link's settings are written last: until then the box is enrolled as before, or not at all.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use shared::paths::Root;
use shared::seal::ClinicPublic;
use shared::settings::Link;
use shared::wire::is_id;

use crate::clinic::setup::EnrolledTls;
use crate::files;
use crate::pki::{self, Pair, PkiError};
use crate::tls;

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
    /// The certificates cannot be used.
    #[error("the enrolment's certificates cannot be used")]
    Certificates(#[source] tls::TlsError),
    /// No certificate can be asked for.
    #[error("a certificate cannot be asked for")]
    Request(#[source] PkiError),
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
    tls: Option<EnrolledTls>,
}

/// Reads an enrolment and checks everything that can be checked without the clinic.
///
/// # Errors
/// [`EnrolError`], but for [`EnrolError::Write`].
pub fn check(text: &str) -> Result<(Link, Option<EnrolledTls>), EnrolError> {
    let Enrolment { link, tls } = toml::from_str(text).map_err(EnrolError::Syntax)?;
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
    if let Some(EnrolledTls { authority, certificate, key }) = &tls {
        let damaged = tls::TlsError::Damaged { what: "the private key" };
        let key = key.clone().ok_or(EnrolError::Certificates(damaged))?;
        let pair = Pair { certificate: certificate.clone(), key };
        tls::client(authority, &pair).map_err(EnrolError::Certificates)?;
    }
    Ok((link, tls))
}

/// Checks an enrolment and puts it where the settings are read. Returns what it says and where it lies.
///
/// # Errors
/// [`EnrolError`].
pub fn enrol(root: &Root, text: &str) -> Result<(Link, PathBuf), EnrolError> {
    let (link, tls) = check(text)?;
    let path = root.site().join("link.toml");
    folder(&root.site(), 0o755)?;
    match &tls {
        Some(tls) => certify(root, tls)?,
        None => {
            for file in [root.link_key(), root.link_certificate(), root.link_authority()] {
                forget(&file)?;
            }
        }
    }
    let mut table: toml::Table = toml::from_str(text).map_err(EnrolError::Syntax)?;
    table.remove("tls");
    write(&path, &toml::to_string(&table).unwrap_or_default(), 0o644)?;
    forget(&pending(root))?;
    Ok((link, path))
}

/// A key and a request for its certificate; the same again until the box is enrolled, because the clinic redeems a code for one
/// key alone, and its answer may be lost.
///
/// # Errors
/// [`EnrolError::Write`]; [`EnrolError::Request`].
pub fn request(root: &Root) -> Result<Pair, EnrolError> {
    let file = pending(root);
    if let Ok(kept) = std::fs::read_to_string(&file)
        && let Ok(pair) = pki::request_for(&kept)
    {
        return Ok(pair);
    }
    let pair = pki::request().map_err(EnrolError::Request)?;
    folder(file.parent().unwrap_or(root.path()), 0o700)?;
    write(&file, &pair.key, 0o600)?;
    Ok(pair)
}

fn pending(root: &Root) -> PathBuf {
    root.link_key().with_file_name("requested.pem")
}

fn certify(root: &Root, tls: &EnrolledTls) -> Result<(), EnrolError> {
    let key = root.link_key();
    let holder = key.parent().unwrap_or(root.path());
    folder(holder, 0o700)?;
    write(&key, tls.key.as_deref().unwrap_or_default(), 0o600)?;
    // Root enrols, and another user, whose folder it is, has to read it.
    let owner = std::fs::metadata(holder).map_err(|source| failed(holder, source))?;
    std::os::unix::fs::chown(&key, Some(owner.uid()), Some(owner.gid())).map_err(|source| failed(&key, source))?;
    write(&root.link_certificate(), &tls.certificate, 0o644)?;
    write(&root.link_authority(), &tls.authority, 0o644)
}

fn failed(file: &Path, source: std::io::Error) -> EnrolError {
    EnrolError::Write { file: file.display().to_string(), source }
}

fn folder(path: &Path, mode: u32) -> Result<(), EnrolError> {
    files::folder(path, mode).map_err(|source| failed(path, source))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), EnrolError> {
    files::replace(path, text.as_bytes(), mode).map_err(|source| failed(path, source))
}

fn forget(path: &Path) -> Result<(), EnrolError> {
    match std::fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(failed(path, source)),
        Ok(()) | Err(_) => Ok(()),
    }
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
