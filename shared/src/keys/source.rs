//! Where the box key comes from.
//!
//!   root `/`        ▶ the systemd credential `box-keys`, and nothing else
//!   any other root  ▶ the credential if there is one, else a development key beside the data, made on first use
//!
//! A development key is whole or absent: written beside its place, synced, and moved there without replacing one that
//! another process has put there meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use zeroize::Zeroizing;

use super::box_key::MAX_FILE_BYTES;
use super::{BoxKey, BoxKeys, CipherError};
use crate::paths::Root;
use crate::whole_file;

/// The credential's name in `$CREDENTIALS_DIRECTORY`.
pub const CREDENTIAL: &str = "box-keys";

/// Why there is no box key.
#[derive(Debug, thiserror::Error)]
pub enum BoxKeyError {
    /// A real box was started without its credential.
    #[error("The credential with the box key is missing")]
    CredentialMissing,
    /// A line of the key file is not a key.
    #[error("The box key file is malformed")]
    Malformed {
        /// From 1.
        line: usize,
    },
    /// The key file is not text.
    #[error("The box key file is not text")]
    NotText,
    /// There is no key in the key file.
    #[error("The box key file holds no key")]
    Empty,
    /// More than a key file can hold.
    #[error("The box key file is too large")]
    TooMany,
    /// Group or others may use the development key.
    #[error("The development box key is open to others")]
    Exposed {
        /// Its permissions.
        mode: u32,
    },
    /// A key store is there, but not the key that wraps its keys; a new one would open none of them.
    #[error("The development box key is gone, but its key store is not")]
    Lost,
    /// The file cannot be read.
    #[error("The box key could not be read")]
    Unreadable(#[source] io::Error),
    /// The development key cannot be made.
    #[error("The development box key could not be made")]
    Unwritable(#[source] io::Error),
    /// Nor can it be drawn.
    #[error("The development box key could not be made")]
    NoRandomness(#[source] CipherError),
}

impl BoxKeyError {
    /// What a person does about it: a constant sentence.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::CredentialMissing => {
                "Give the service its box key: LoadCredentialEncrypted=box-keys in its unit, or ImportCredential=box-keys."
            }
            Self::Malformed { .. } | Self::NotText | Self::Empty | Self::TooMany => {
                "Put the box key back: one line `roomscribe-box-key-v1` and 64 hexadecimal digits for each key, the newest first."
            }
            Self::Exposed { .. } => "Take it from the others: chmod 600 development-box-keys in the data folder.",
            Self::Lost => {
                "Put development-box-keys back into the data folder, or start with the credential; if it is lost for good, \
                 remove keys.db: what its keys sealed stays unreadable."
            }
            Self::Unreadable(_) => "See that the service's user may read the box key.",
            Self::Unwritable(_) => "See that the data folder can be written and has room.",
            Self::NoRandomness(_) => "See that the system has a random number generator.",
        }
    }
}

/// Where the box key was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The systemd credential.
    Credential,
    /// A development key that was here before.
    Development,
    /// A development key that was made just now: the one time to warn that it protects nothing from who has the folder.
    DevelopmentMade,
}

/// Box keys and where they were found.
#[derive(Debug)]
pub struct Found {
    /// The keys.
    pub keys: BoxKeys,
    /// Where.
    pub origin: Origin,
}

impl BoxKeys {
    /// The keys of the box at `root`; `credentials` is systemd's `$CREDENTIALS_DIRECTORY`, if it gave one.
    ///
    /// # Errors
    /// [`BoxKeyError`].
    pub fn find(root: &Root, credentials: Option<&Path>) -> Result<Found, BoxKeyError> {
        let credential = credentials.map(|folder| read(&folder.join(CREDENTIAL))).transpose()?.flatten();
        match credential {
            Some((text, _)) => Ok(Found { keys: Self::parse(&text)?, origin: Origin::Credential }),
            None if root.is_system() => Err(BoxKeyError::CredentialMissing),
            None => development(root),
        }
    }
}

fn development(root: &Root) -> Result<Found, BoxKeyError> {
    // Asked before the key is: whoever makes both makes the key first.
    let has_store = root.key_store().exists();
    let path = root.development_box_keys();
    if let Some(keys) = read_development(&path)? {
        return Ok(Found { keys, origin: Origin::Development });
    }
    if has_store {
        return Err(BoxKeyError::Lost);
    }
    let was_made = make(&root.data(), &path)?;
    let keys = read_development(&path)?.ok_or(BoxKeyError::Lost)?;
    Ok(Found { keys, origin: if was_made { Origin::DevelopmentMade } else { Origin::Development } })
}

fn read_development(path: &Path) -> Result<Option<BoxKeys>, BoxKeyError> {
    match read(path)? {
        None => Ok(None),
        Some((_, mode)) if mode & 0o077 != 0 => Err(BoxKeyError::Exposed { mode: mode & 0o777 }),
        Some((text, _)) => BoxKeys::parse(&text).map(Some),
    }
}

/// Text and mode of a key file; none where there is none.
fn read(path: &Path) -> Result<Option<(Zeroizing<String>, u32)>, BoxKeyError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(BoxKeyError::Unreadable(why)),
    };
    let mode = file.metadata().map_err(BoxKeyError::Unreadable)?.mode();
    // A fixed buffer, so that reading leaves no copies behind.
    let mut bytes = Zeroizing::new([0; MAX_FILE_BYTES + 1]);
    let length = fill(&file, &mut bytes[..]).map_err(BoxKeyError::Unreadable)?;
    if length > MAX_FILE_BYTES {
        return Err(BoxKeyError::TooMany);
    }
    let text = std::str::from_utf8(&bytes[..length]).map_err(|_| BoxKeyError::NotText)?;
    Ok(Some((Zeroizing::new(text.to_owned()), mode)))
}

fn fill(mut file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(why) if why.kind() == io::ErrorKind::Interrupted => {}
            Err(why) => return Err(why),
        }
    }
    Ok(length)
}

/// Whether the key at `path` is this call's.
fn make(folder: &Path, path: &Path) -> Result<bool, BoxKeyError> {
    let key = BoxKey::generate().map_err(BoxKeyError::NoRandomness)?;
    fs::create_dir_all(folder).map_err(BoxKeyError::Unwritable)?;
    whole_file::put(path, |beside| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
        file.write_all(key.line().as_bytes())
    })
    .map_err(BoxKeyError::Unwritable)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Barrier;

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        (folder, root)
    }

    fn names(root: &Root) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(root.data()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn credentials(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("box-keys"), text).unwrap();
        folder
    }

    #[test]
    fn a_real_box_takes_its_key_only_from_the_credential() {
        let system = Root::new("/");
        let empty = tempfile::tempdir().unwrap();
        for folder in [None, Some(empty.path())] {
            let why = BoxKeys::find(&system, folder).unwrap_err();
            assert!(matches!(why, BoxKeyError::CredentialMissing));
            assert!(why.remedy().contains("LoadCredentialEncrypted=box-keys"));
        }
        let key = BoxKey::generate().unwrap();
        let folder = credentials(&key.line());
        let found = BoxKeys::find(&system, Some(folder.path())).unwrap();
        assert_eq!((found.keys.first(), found.origin), (key.id(), Origin::Credential));
    }

    #[test]
    fn a_development_key_is_made_once_and_for_its_user_alone() {
        let (_folder, root) = root();
        let made = BoxKeys::find(&root, None).unwrap();
        assert_eq!(made.origin, Origin::DevelopmentMade);
        let again = BoxKeys::find(&root, None).unwrap();
        assert_eq!((again.keys.first(), again.origin), (made.keys.first(), Origin::Development));
        assert_eq!(fs::metadata(root.development_box_keys()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(names(&root), ["development-box-keys"]);
    }

    #[test]
    fn a_credential_goes_before_a_development_key() {
        let (_folder, root) = root();
        let folder = credentials(&BoxKey::generate().unwrap().line());
        assert_eq!(BoxKeys::find(&root, Some(folder.path())).unwrap().origin, Origin::Credential);
        assert!(!root.data().exists(), "and none is made");
    }

    #[test]
    fn a_damaged_key_is_an_error_and_not_a_new_key() {
        let (_folder, root) = root();
        BoxKeys::find(&root, None).unwrap();
        let path = root.development_box_keys();
        let line = fs::read_to_string(&path).unwrap();
        let write = |bytes: &[u8]| fs::write(&path, bytes).unwrap();
        write(&line.as_bytes()[..40]);
        assert!(matches!(BoxKeys::find(&root, None), Err(BoxKeyError::Malformed { line: 1 })));
        write(b"");
        assert!(matches!(BoxKeys::find(&root, None), Err(BoxKeyError::Empty)));
        write(&[0xff; 40]);
        assert!(matches!(BoxKeys::find(&root, None), Err(BoxKeyError::NotText)));
        write(&[b'\n'; MAX_FILE_BYTES + 1]);
        assert!(matches!(BoxKeys::find(&root, None), Err(BoxKeyError::TooMany)));
        let folder = credentials("roomscribe-box-key-v1 1234");
        let why = BoxKeys::find(&root, Some(folder.path())).unwrap_err();
        assert!(matches!(why, BoxKeyError::Malformed { line: 1 }), "a bad credential is not passed over");
    }

    #[test]
    fn a_development_key_that_others_can_use_is_refused_with_its_remedy() {
        let (_folder, root) = root();
        BoxKeys::find(&root, None).unwrap();
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(root.development_box_keys(), fs::Permissions::from_mode(mode)).unwrap();
            let why = BoxKeys::find(&root, None).unwrap_err();
            assert!(matches!(why, BoxKeyError::Exposed { mode: found } if found == mode), "{why:?}");
            assert!(why.remedy().contains("chmod 600"));
        }
    }

    #[test]
    fn a_lost_development_key_is_not_replaced_while_its_store_is_there() {
        let (_folder, root) = root();
        BoxKeys::find(&root, None).unwrap();
        fs::write(root.key_store(), b"").unwrap();
        fs::remove_file(root.development_box_keys()).unwrap();
        assert!(matches!(BoxKeys::find(&root, None), Err(BoxKeyError::Lost)));
        assert_eq!(names(&root), ["keys.db"]);
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error() {
        let (folder, root) = root();
        fs::write(folder.path().join("var"), b"a file").unwrap();
        assert!(matches!(BoxKeys::find(&root, None), Err(BoxKeyError::Unreadable(_) | BoxKeyError::Unwritable(_))));
    }

    #[test]
    fn all_who_make_the_development_key_at_once_agree_on_one() {
        for _ in 0..50 {
            let (_folder, root) = root();
            let start = Barrier::new(8);
            let found: Vec<Found> = std::thread::scope(|scope| {
                let all: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            BoxKeys::find(&root, None).unwrap()
                        })
                    })
                    .collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            assert!(found.iter().all(|one| one.keys.first() == found[0].keys.first()));
            assert_eq!(found.iter().filter(|one| one.origin == Origin::DevelopmentMade).count(), 1, "one warns");
            assert_eq!(names(&root), ["development-box-keys"]);
        }
    }

    /// Does nothing unless [`all_processes_that_make_the_development_key_at_once_agree_on_one`] started it.
    #[test]
    fn one_of_many_processes() {
        if let Some(folder) = std::env::var_os("ROOMSCRIBE_TEST_KEY_MAKER") {
            let found = BoxKeys::find(&Root::new(folder), None).unwrap();
            eprintln!("found {} {:?}", found.keys.first(), found.origin);
        }
    }

    #[test]
    fn all_processes_that_make_the_development_key_at_once_agree_on_one() {
        let (folder, root) = root();
        let start = || {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture", "keys::source::tests::one_of_many_processes"])
                .env("ROOMSCRIBE_TEST_KEY_MAKER", folder.path())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        };
        let all: Vec<_> = (0..8).map(|_| start()).collect();
        let said: Vec<_> =
            all.into_iter().map(|one| String::from_utf8(one.wait_with_output().unwrap().stderr).unwrap()).collect();
        let name = BoxKeys::find(&root, None).unwrap().keys.first().to_string();
        assert!(said.iter().all(|said| said.contains(&name)), "{said:?}");
        assert_eq!(said.iter().filter(|said| said.contains("DevelopmentMade")).count(), 1, "{said:?}");
        assert_eq!(names(&root), ["development-box-keys"]);
    }
}
