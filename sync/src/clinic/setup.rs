//! Making a clinic, opening its keys, and inviting boxes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use shared::paths::Root;
use shared::seal::{ClinicKeyFile, ClinicKeys};
use shared::wire::is_id;

use super::settings::{ClinicSettings, ClinicSettingsError};
use crate::files;

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
}

fn key_file(root: &Root) -> PathBuf {
    root.clinic().join("keys/clinic.json")
}

/// Makes a clinic's folder, keys and settings. Returns where the settings lie.
///
/// # Errors
/// [`SetupError`]; nothing that exists is changed.
pub fn init(root: &Root, settings: &ClinicSettings) -> Result<PathBuf, SetupError> {
    settings.check()?;
    let (keys, path) = (key_file(root), root.clinic().join("clinic.toml"));
    for file in [&keys, &path] {
        if file.exists() {
            return Err(SetupError::Exists { file: file.display().to_string() });
        }
    }
    let keys_json = serde_json::to_vec_pretty(&ClinicKeys::generate().to_file()).unwrap_or_default();
    let text = toml::to_string(settings).unwrap_or_default();
    let file = || root.clinic().display().to_string();
    files::folder(&root.clinic(), 0o700).map_err(|source| SetupError::Write { file: file(), source })?;
    write_new(&keys, &keys_json, 0o600)?;
    // Somebody may put the database's password into it.
    write_new(&path, text.as_bytes(), 0o600)?;
    Ok(path)
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

/// Reads the clinic's private keys.
///
/// # Errors
/// [`SetupError`], also if anybody but the owner may read them.
pub fn keys(root: &Root) -> Result<ClinicKeys, SetupError> {
    let path = key_file(root);
    let file = || path.display().to_string();
    let unreadable = |source| SetupError::Unreadable { file: file(), source };
    let mode = std::fs::metadata(&path).map_err(unreadable)?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(SetupError::Exposed { file: file() });
    }
    let bytes = std::fs::read(&path).map_err(unreadable)?;
    let parsed: Option<ClinicKeyFile> = serde_json::from_slice(&bytes).ok();
    let known = parsed.filter(|f| f.version == 1).and_then(|f| ClinicKeys::from_file(&f).ok());
    known.ok_or_else(|| SetupError::Damaged { file: file() })
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

#[derive(Serialize)]
struct Invitation<'a> {
    link: InvitedLink<'a>,
}

#[derive(Serialize)]
struct InvitedLink<'a> {
    clinic: &'a str,
    #[serde(rename = "box")]
    box_id: &'a str,
    broker_host: &'a str,
    broker_port: u16,
    sealing_key: &'a str,
    signing_key: &'a str,
}

/// The enrolment file for a box. It holds no secret: who writes it to the box decides whom the box trusts.
///
/// # Errors
/// [`SetupError::Settings`] if no box can be called so.
pub fn invite(
    settings: &ClinicSettings,
    keys: &ClinicKeys,
    box_id: &str,
    broker: Option<(String, u16)>,
) -> Result<String, SetupError> {
    if !is_id(box_id) || box_id == "board" {
        let (name, expected) = ("the box id", "1 to 32 of a-z, 0-9 and -, and not \"board\"");
        return Err(ClinicSettingsError::Value { name, expected }.into());
    }
    let (broker_host, broker_port) = broker.unwrap_or_else(|| (settings.broker_host.clone(), settings.broker_port));
    let (sealing_key, signing_key) = keys.public_hex();
    let link = InvitedLink {
        clinic: &settings.clinic,
        box_id,
        broker_host: &broker_host,
        broker_port,
        sealing_key: &sealing_key,
        signing_key: &signing_key,
    };
    Ok(toml::to_string(&Invitation { link }).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::settings::default_listen;

    fn settings() -> ClinicSettings {
        ClinicSettings::new("north", "server-1", ("localhost".into(), 1883), default_listen()).unwrap()
    }

    fn made() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        init(&root, &settings()).unwrap();
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
        let again = init(&root, &settings());
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
        let text = invite(&settings, &keys, "room-1", Some(("broker.north".into(), 2000))).unwrap();
        let link = crate::room::enrol::check(&text).unwrap();
        assert_eq!(
            (link.box_id.as_str(), link.broker_host.as_str(), link.broker_port),
            ("room-1", "broker.north", 2000)
        );
        assert!(invite(&settings, &keys, "Room 1", None).is_err());
    }
}
