//! Making a clinic, opening its keys, and inviting boxes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::paths::Root;
use shared::seal::{ClinicKeyFile, ClinicKeys};
use shared::wire::is_id;

use shared::clock::WallTime;

use super::settings::{ClinicSettings, ClinicSettingsError};
use crate::files;
use crate::pki::{Authority, Holder, Pair, PkiError};

/// Why a clinic cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// See [`ClinicSettingsError`].
    #[error(transparent)]
    Settings(#[from] ClinicSettingsError),
    /// There is one already, and its keys are all that opens its parcels.
    #[error("{file} exists; a clinic's keys are never overwritten")]
    Exists {
        /// The file.
        file: String,
    },
    /// A file cannot be written.
    #[error("{file} cannot be written")]
    Write {
        /// Which.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The key file cannot be read.
    #[error("{file} cannot be read; `roomscribe-clinic init --clinic ID` makes it")]
    Unreadable {
        /// Which.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others may read the key file, so it may be known.
    #[error("{file} can be read by others; it must be readable by its owner alone: chmod 600 {file}")]
    Exposed {
        /// Which.
        file: String,
    },
    /// It holds no keys.
    #[error("{file} is damaged")]
    Damaged {
        /// Which.
        file: String,
    },
    /// The clinic was made without TLS.
    #[error("this clinic was made without TLS (`tls` in clinic.toml), so it has no authority for certificates")]
    Plain,
    /// See [`PkiError`].
    #[error(transparent)]
    Pki(#[from] PkiError),
}

fn key_file(root: &Root) -> PathBuf {
    root.clinic().join("keys/clinic.json")
}

fn authority_files(root: &Root) -> [PathBuf; 2] {
    ["keys/authority.key", "keys/authority.pem"].map(|file| root.clinic().join(file))
}

/// Makes a clinic's folder, keys and settings; with TLS also its authority for certificates. Gives where the settings lie.
///
/// # Errors
/// [`SetupError`]; nothing that exists is changed.
pub fn init(root: &Root, settings: &ClinicSettings, now: WallTime) -> Result<PathBuf, SetupError> {
    settings.check()?;
    let (keys, path) = (key_file(root), root.clinic().join("clinic.toml"));
    let [authority_key, authority] = authority_files(root);
    for file in [&keys, &path, &authority_key] {
        if file.exists() {
            return Err(SetupError::Exists { file: file.display().to_string() });
        }
    }
    let keys_json = serde_json::to_vec_pretty(&ClinicKeys::generate().to_file()).unwrap_or_default();
    let text = toml::to_string(settings).unwrap_or_default();
    let file = || root.clinic().display().to_string();
    files::folder(&root.clinic(), 0o700).map_err(|source| SetupError::Write { file: file(), source })?;
    write_new(&keys, &keys_json, 0o600)?;
    if settings.tls {
        let made = Authority::generate(&settings.clinic, now)?;
        write_new(&authority_key, made.key.as_bytes(), 0o600)?;
        write_new(&authority, made.certificate.as_bytes(), 0o644)?;
    }
    write_new(&path, text.as_bytes(), 0o644)?;
    Ok(path)
}

/// The clinic's authority for certificates.
///
/// # Errors
/// [`SetupError`], also if anybody but the owner may read its key.
pub fn authority(root: &Root, settings: &ClinicSettings) -> Result<Authority, SetupError> {
    if !settings.tls {
        return Err(SetupError::Plain);
    }
    let [key, certificate] = authority_files(root);
    let key = read_secret(&key)?;
    let file = certificate.display().to_string();
    let certificate =
        std::fs::read_to_string(&certificate).map_err(|source| SetupError::Unreadable { file, source })?;
    Ok(Authority::open(&Pair { certificate, key })?)
}

/// The certificate of the settings that another authority has signed, and its key.
///
/// # Errors
/// [`SetupError`], also if anybody but the owner may read the key.
pub fn own_certificate(root: &Root, settings: &ClinicSettings) -> Result<Option<Pair>, SetupError> {
    let (Some(certificate), Some(key)) = (&settings.certificate, &settings.certificate_key) else { return Ok(None) };
    let [certificate, key] = [certificate, key].map(|file| root.clinic().join(file));
    let file = certificate.display().to_string();
    let key = read_secret(&key)?;
    let certificate =
        std::fs::read_to_string(&certificate).map_err(|source| SetupError::Unreadable { file, source })?;
    Ok(Some(Pair { certificate, key }))
}

/// What holds keys and records is a folder for its owner alone.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), SetupError> {
    let file = path.display().to_string();
    let folder = path.parent().unwrap_or(path);
    files::folder(folder, 0o700).and_then(|()| files::create(path, bytes, mode)).map_err(|source| {
        if source.kind() == std::io::ErrorKind::AlreadyExists {
            SetupError::Exists { file }
        } else {
            SetupError::Write { file, source }
        }
    })
}

fn read_secret(path: &Path) -> Result<String, SetupError> {
    let file = || path.display().to_string();
    let unreadable = |source| SetupError::Unreadable { file: file(), source };
    let mode = std::fs::metadata(path).map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(SetupError::Exposed { file: file() });
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

/// Reads the clinic's private keys.
///
/// # Errors
/// [`SetupError`], also if anybody but the owner may read them.
pub fn keys(root: &Root) -> Result<ClinicKeys, SetupError> {
    let path = key_file(root);
    let parsed: Option<ClinicKeyFile> = serde_json::from_str(&read_secret(&path)?).ok();
    let known = parsed.filter(|f| f.version == 1).and_then(|f| ClinicKeys::from_file(&f).ok());
    known.ok_or_else(|| SetupError::Damaged { file: path.display().to_string() })
}

/// Makes new keys for boxes that are enrolled from now on, and keeps those of before. Gives all.
///
/// # Errors
/// [`SetupError`]; the file is as it was then.
pub fn rotate(root: &Root) -> Result<ClinicKeys, SetupError> {
    let rotated = keys(root)?.rotated();
    let path = key_file(root);
    let json = serde_json::to_vec_pretty(&rotated.to_file()).unwrap_or_default();
    files::replace(&path, &json, 0o600)
        .map_err(|source| SetupError::Write { file: path.display().to_string(), source })?;
    Ok(rotated)
}

/// What a box is told when it is enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Its clinic.
    pub link: EnrolledLink,
    /// How to prove that it is this box; absent without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<EnrolledTls>,
}

/// The clinic, as the box's settings name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in shared::settings::Link")]
pub struct EnrolledLink {
    pub clinic: String,
    #[serde(rename = "box")]
    pub box_id: String,
    pub broker_host: String,
    pub broker_port: u16,
    pub sealing_key: String,
    pub signing_key: String,
}

/// Certificates, as PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnrolledTls {
    /// Of the authority that the broker's certificate is signed by.
    pub authority: String,
    /// The box's.
    pub certificate: String,
    /// The box's private key, where the clinic made it: a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl std::fmt::Debug for EnrolledTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EnrolledTls(…)")
    }
}

/// Whether a box can be called so.
///
/// # Errors
/// [`ClinicSettingsError::Value`].
pub fn check_box_id(box_id: &str) -> Result<(), ClinicSettingsError> {
    if !is_id(box_id) || box_id == "board" {
        let (name, expected) = ("the box id", "1 to 32 of a-z, 0-9 and -, and not \"board\"");
        return Err(ClinicSettingsError::Value { name, expected });
    }
    Ok(())
}

/// What a box is told of its clinic; of certificates nothing yet.
#[must_use]
pub fn link_of(
    settings: &ClinicSettings,
    keys: &ClinicKeys,
    box_id: &str,
    broker: Option<(String, u16)>,
) -> EnrolledLink {
    let (broker_host, broker_port) = broker.unwrap_or_else(|| (settings.broker_host.clone(), settings.broker_port));
    let (sealing_key, signing_key) = keys.public_hex();
    EnrolledLink {
        clinic: settings.clinic.clone(),
        box_id: box_id.into(),
        broker_host,
        broker_port,
        sealing_key,
        signing_key,
    }
}

/// The enrolment file for a box: who writes it to the box decides whom the box trusts. With `authority` it holds the box's
/// private key.
///
/// # Errors
/// [`SetupError::Settings`] if no box can be called so; [`SetupError::Pki`].
pub fn invite(
    settings: &ClinicSettings,
    keys: &ClinicKeys,
    authority: Option<&Authority>,
    box_id: &str,
    broker: Option<(String, u16)>,
    now: WallTime,
) -> Result<String, SetupError> {
    check_box_id(box_id)?;
    let certified = |authority: &Authority| {
        let Pair { certificate, key } = authority.issue(Holder::Room(box_id), now)?;
        Ok::<_, PkiError>(EnrolledTls { authority: authority.certificate().into(), certificate, key: Some(key) })
    };
    let tls = authority.map(certified).transpose()?;
    Ok(toml::to_string(&Enrolment { link: link_of(settings, keys, box_id, broker), tls }).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::settings::default_listen;

    const NOW: WallTime = WallTime(1_790_000_000_000);

    fn settings() -> ClinicSettings {
        ClinicSettings::new("north", "server-1", ("localhost".into(), 1883), default_listen()).unwrap()
    }

    fn made() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        init(&root, &settings(), NOW).unwrap();
        (folder, root)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_clinic_has_keys_for_its_owner_alone_and_settings_that_load() {
        let (_folder, root) = made();
        let modes = [key_file(&root), root.clinic().join("keys"), root.clinic()].map(|path| mode(&path));
        assert_eq!(modes, [0o600, 0o700, 0o700]);
        assert_eq!(ClinicSettings::load(&root).unwrap().clinic, "north");
        keys(&root).unwrap();
    }

    #[test]
    fn a_clinic_is_never_made_twice() {
        let (_folder, root) = made();
        let before = std::fs::read(key_file(&root)).unwrap();
        let again = init(&root, &settings(), NOW);
        assert!(matches!(again, Err(SetupError::Exists { .. })));
        assert_eq!(std::fs::read(key_file(&root)).unwrap(), before);
    }

    #[test]
    fn a_rotation_keeps_the_keys_of_before_and_boxes_are_told_the_new_ones() {
        let (_folder, root) = made();
        let before = keys(&root).unwrap();
        let after = rotate(&root).unwrap();
        assert_eq!((after.ids().len(), &after.ids()[1]), (2, &before.ids()[0]));
        assert_ne!(after.public_hex(), before.public_hex());
        assert_eq!(keys(&root).unwrap().ids(), after.ids(), "they are in the file");
        assert_eq!(mode(&key_file(&root)), 0o600);
    }

    #[test]
    fn keys_that_others_can_read_are_refused() {
        let (_folder, root) = made();
        std::fs::set_permissions(key_file(&root), std::fs::Permissions::from_mode(0o640)).unwrap();
        let why = keys(&root).err().unwrap().to_string();
        assert!(why.contains("chmod 600"), "{why}");
    }

    #[test]
    fn an_invitation_is_an_enrolment() {
        let (_folder, root) = made();
        let (settings, keys) = (ClinicSettings::load(&root).unwrap(), keys(&root).unwrap());
        let text = invite(&settings, &keys, None, "room-1", Some(("broker.north".into(), 2000)), NOW).unwrap();
        let (link, tls) = crate::room::enrol::check(&text).unwrap();
        assert_eq!(tls, None);
        assert_eq!(
            (link.box_id.as_str(), link.broker_host.as_str(), link.broker_port),
            ("room-1", "broker.north", 2000)
        );
        assert!(invite(&settings, &keys, None, "Room 1", None, NOW).is_err());
    }

    #[test]
    fn a_clinic_with_tls_has_an_authority_whose_key_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let settings = ClinicSettings { tls: true, ..settings() };
        init(&root, &settings, NOW).unwrap();
        let made = authority(&root, &settings).unwrap();
        let text = invite(&settings, &keys(&root).unwrap(), Some(&made), "room-1", None, NOW).unwrap();
        let (_, tls) = crate::room::enrol::check(&text).unwrap();
        let tls = tls.unwrap();
        crate::tls::client(&tls.authority, &Pair { certificate: tls.certificate, key: tls.key.unwrap() }).unwrap();
        let [key, _] = authority_files(&root);
        assert_eq!(mode(&key), 0o600);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(authority(&root, &settings), Err(SetupError::Exposed { .. })));
    }

    #[test]
    fn a_clinic_without_tls_gives_no_certificates() {
        let (_folder, root) = made();
        assert!(matches!(authority(&root, &settings()), Err(SetupError::Plain)));
    }
}
