//! Where things lie on a box. A root other than `/` moves all of it, so that a box fits in a folder.

use std::path::{Path, PathBuf};

/// Linux refuses socket paths over 107 bytes; beyond this the socket moves to the runtime directory.
const MAX_SOCKET_PATH_BYTES: usize = 100;

/// From here on, what this process makes is not for others than its user and group: it may have been said.
pub fn keep_from_others() {
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    rustix::process::umask(before | rustix::fs::Mode::from_raw_mode(0o007));
}

/// A box's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// The root at `path`; it need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The root itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether this is a real box rather than a folder.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0 == Path::new("/") || self.0.canonicalize().is_ok_and(|path| path == Path::new("/"))
    }

    /// What survives updates.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.0.join("var/lib/roomscribe")
    }

    /// The database in which recorder and sync daemon meet.
    #[must_use]
    pub fn database(&self) -> PathBuf {
        self.data().join("roomscribe.db")
    }

    /// The wrapped keys, apart from what they seal.
    #[must_use]
    pub fn key_store(&self) -> PathBuf {
        self.data().join("keys.db")
    }

    /// The key that wraps them, where no credential gives one; never on a real box.
    #[must_use]
    pub fn development_box_keys(&self) -> PathBuf {
        self.data().join("development-box-keys")
    }

    /// One spool file per session.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.data().join("spool")
    }

    /// The only place engines take models from.
    #[must_use]
    pub fn models(&self) -> PathBuf {
        self.data().join("models")
    }

    /// Settings written by enrolment and commands.
    #[must_use]
    pub fn site(&self) -> PathBuf {
        self.data().join("site")
    }

    /// The certificate (PEM) of the authority that the broker's must be signed by.
    #[must_use]
    pub fn link_authority(&self) -> PathBuf {
        self.site().join("link-authority.pem")
    }

    /// This box's certificate (PEM) for the broker.
    #[must_use]
    pub fn link_certificate(&self) -> PathBuf {
        self.site().join("link-certificate.pem")
    }

    /// Its private key (PEM), in a folder for the link alone.
    #[must_use]
    pub fn link_key(&self) -> PathBuf {
        self.data().join("link/key.pem")
    }

    /// Settings as shipped.
    #[must_use]
    pub fn shipped(&self) -> PathBuf {
        self.0.join("etc/roomscribe")
    }

    /// Sockets and locks, gone with the boot.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.0.join("run/roomscribe")
    }

    /// Is there once the clock follows a time server: systemd-timesyncd makes it.
    #[must_use]
    pub fn time_synchronized(&self) -> PathBuf {
        self.0.join("run/systemd/timesync/synchronized")
    }

    /// Stands there while a session wants the microphone and somebody who only looks at it has it.
    #[must_use]
    pub fn microphone_wanted(&self) -> PathBuf {
        self.run().join("microphone.wanted")
    }

    /// The clinic server's folder.
    #[must_use]
    pub fn clinic(&self) -> PathBuf {
        self.0.join("var/lib/roomscribe-clinic")
    }

    /// Where the control socket is made: in [`Root::run`], or under `runtime_dir` if that path would be too long
    /// (then `control.path` in [`Root::run`] names it).
    #[must_use]
    pub fn control_socket(&self, runtime_dir: Option<&Path>) -> PathBuf {
        let plain = self.run().join("control.sock");
        if plain.as_os_str().len() <= MAX_SOCKET_PATH_BYTES {
            return plain;
        }
        let name = &crate::seal::sha256(self.0.as_os_str().as_encoded_bytes())[..16];
        let folder = runtime_dir.map_or_else(std::env::temp_dir, Path::to_path_buf);
        folder.join(format!("roomscribe-{name}.sock"))
    }

    /// Where a client finds the control socket.
    #[must_use]
    pub fn find_control_socket(&self) -> PathBuf {
        std::fs::read_to_string(self.run().join("control.path"))
            .map_or_else(|_| self.run().join("control.sock"), |named| PathBuf::from(named.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_box_is_one_however_its_root_is_written() {
        let folder = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", folder.path().join("link")).unwrap();
        assert!(["/", "//", "/tmp/.."].iter().all(|path| Root::new(path).is_system()));
        assert!(Root::new(folder.path().join("link")).is_system());
        assert!(!Root::new(folder.path()).is_system() && !Root::new("/no/such/folder").is_system());
    }

    #[test]
    fn a_long_root_moves_its_socket_and_a_short_one_does_not() {
        let short = Root::new("/tmp/r");
        assert_eq!(short.control_socket(None), Path::new("/tmp/r/run/roomscribe/control.sock"));
        let long = Root::new(format!("/tmp/{}", "x".repeat(120)));
        let moved = long.control_socket(Some(Path::new("/run/user/1")));
        assert!(moved.starts_with("/run/user/1") && moved.as_os_str().len() <= 100);
    }
}
