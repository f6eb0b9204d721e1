//! The clinic server's settings, `clinic.toml` in its folder, read once.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::paths::Root;
use shared::wire::is_id;

use super::store::Place;
use super::store::postgres::{Address, is_url};

/// Says where the database is, over what the settings say.
pub const DATABASE_VARIABLE: &str = "ROOMSCRIBE_CLINIC_DATABASE";

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClinicSettingsError {
    /// There are none.
    #[error("{file} cannot be read; `roomscribe-clinic init --clinic ID` makes it")]
    Unreadable {
        /// Where they should be.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// They are not TOML, or a name is unknown, missing or of the wrong kind.
    #[error("{file} is not valid")]
    Syntax {
        /// Which file.
        file: String,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// The file with the database's URL cannot be read.
    #[error("{file}, which should hold the database's URL, cannot be read")]
    UrlFile {
        /// Which file.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Anybody on the machine may read the password of the database in it.
    #[error("{file} holds the database's password and can be read by everybody: chmod o= {file}")]
    Exposed {
        /// Which file.
        file: String,
    },
    /// A value cannot be right.
    #[error("{name} must be {expected}")]
    Value {
        /// Which setting.
        name: &'static str,
        /// What it may be.
        expected: &'static str,
    },
}

/// A file's name, or the address of a PostgreSQL server. May hold a password, which is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Database(String);

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if is_url(&self.0) { "Database(a URL)" } else { "Database(a file)" })
    }
}

impl From<&str> for Database {
    fn from(text: &str) -> Self {
        Self(text.trim().into())
    }
}

/// Everything a clinic server can be told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClinicSettings {
    /// Clinic id.
    pub clinic: String,
    /// Id of this server among those of the clinic; no two may have the same.
    #[serde(default = "server_of_this_machine")]
    pub server: String,
    /// Broker host name or address, as this server reaches it.
    pub broker_host: String,
    /// Broker port.
    pub broker_port: u16,
    /// Where HTTP is served.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Whether the broker is spoken to over TLS, with certificates of the clinic's own authority.
    #[serde(default)]
    pub tls: bool,
    /// Where HTTPS is served, for boxes that are enrolled by a code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https: Option<SocketAddr>,
    /// The names by which boxes and browsers reach this server over HTTPS; the first is told to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// The database file, in the clinic's folder unless absolute; or the URL of a PostgreSQL server.
    #[serde(default = "default_database")]
    pub database: Database,
    /// A file in which the URL stands alone, so that a password is not in the settings. Stands over `database`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_file: Option<PathBuf>,
    /// Certificates (PEM) by which the database server is known, if not by those that this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_ca: Option<PathBuf>,
    /// Whether Home Assistant is told of the boxes ([`super::discovery`]).
    #[serde(default)]
    pub home_assistant: bool,
}

/// The machine's name as an id, up to its first dot.
#[must_use]
pub fn server_of_this_machine() -> String {
    safe_id(&rustix::system::uname().nodename().to_string_lossy())
}

fn safe_id(name: &str) -> String {
    let first = name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let safe = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
    let id: String = first.chars().map(safe).take(32).collect();
    if is_id(&id) { id } else { "server".into() }
}

/// HTTP has no log-in yet, so by default only this machine is served.
#[must_use]
pub fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}

fn default_database() -> Database {
    "clinic.db".into()
}

/// The port of a broker: MQTT's own, plain or over TLS.
#[must_use]
pub fn broker_port(tls: bool) -> u16 {
    if tls { 8883 } else { 1883 }
}

/// Reads `HOST:PORT`; a host without a port means `usual`.
///
/// # Errors
/// [`ClinicSettingsError::Value`].
pub fn broker(text: &str, usual: u16) -> Result<(String, u16), ClinicSettingsError> {
    let wrong = ClinicSettingsError::Value { name: "the broker", expected: "HOST or HOST:PORT" };
    let (host, port) = match text.rsplit_once(':') {
        // An IPv6 address without a port ends in its own bracket.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        Some(_) | None => (text, Some(usual)),
    };
    let fits = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
    port.filter(|port| fits && *port != 0).map(|port| (host.to_owned(), port)).ok_or(wrong)
}

impl ClinicSettings {
    /// For a new clinic: neither TLS nor HTTPS.
    ///
    /// # Errors
    /// [`ClinicSettingsError::Value`].
    pub fn new(clinic: &str, server: &str, at: (String, u16), listen: SocketAddr) -> Result<Self, ClinicSettingsError> {
        let (broker_host, broker_port) = at;
        let (clinic, server, database) = (clinic.into(), server.into(), default_database());
        let (tls, https, names) = (false, None, Vec::new());
        let (database_file, database_ca) = (None, None);
        let settings = Self {
            clinic,
            server,
            broker_host,
            broker_port,
            listen,
            tls,
            https,
            names,
            database,
            database_file,
            database_ca,
            home_assistant: false,
        };
        settings.check()?;
        Ok(settings)
    }

    /// Reads `clinic.toml`.
    ///
    /// # Errors
    /// [`ClinicSettingsError`].
    pub fn load(root: &Root) -> Result<Self, ClinicSettingsError> {
        let path = root.clinic().join("clinic.toml");
        let file = || path.display().to_string();
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ClinicSettingsError::Unreadable { file: file(), source })?;
        let settings: Self =
            toml::from_str(&text).map_err(|source| ClinicSettingsError::Syntax { file: file(), source })?;
        settings.check()?;
        settings.is_hidden(&settings.database, &path)?;
        Ok(settings)
    }

    /// Whether every value may be right.
    ///
    /// # Errors
    /// [`ClinicSettingsError::Value`].
    pub fn check(&self) -> Result<(), ClinicSettingsError> {
        if is_url(&self.database.0) && Address::parse(&self.database.0, None).is_none() {
            return Err(not_a_url());
        }
        let expected = "1 to 32 of a-z, 0-9 and -";
        for (name, id) in [("the clinic id", &self.clinic), ("the server id", &self.server)] {
            if !is_id(id) {
                return Err(ClinicSettingsError::Value { name, expected });
            }
        }
        if self.https.is_some() && (!self.tls || self.names.is_empty()) {
            let (name, expected) = ("https", "absent without `tls`, and given together with `names`");
            return Err(ClinicSettingsError::Value { name, expected });
        }
        if !self.names.iter().all(|name| crate::pki::is_name(name)) {
            let (name, expected) = ("names", "host names or addresses");
            return Err(ClinicSettingsError::Value { name, expected });
        }
        broker(&format!("{}:{}", self.broker_host, self.broker_port), self.broker_port).map(drop)
    }

    /// Where the database is: by the environment, else by the file that the settings name, else by themselves.
    ///
    /// # Errors
    /// [`ClinicSettingsError`].
    pub fn place(&self, root: &Root, variable: Option<&str>) -> Result<Place, ClinicSettingsError> {
        if let Some(database) = variable {
            return self.place_of(root, &database.into());
        }
        let Some(file) = &self.database_file else { return self.place_of(root, &self.database) };
        let path = root.clinic().join(file);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| ClinicSettingsError::UrlFile { file: path.display().to_string(), source })?;
        let database = Database::from(text.as_str());
        self.is_hidden(&database, &path)?;
        match self.place_of(root, &database)? {
            Place::File(_) => Err(not_a_url()),
            place @ Place::Server(_) => Ok(place),
        }
    }

    fn place_of(&self, root: &Root, Database(text): &Database) -> Result<Place, ClinicSettingsError> {
        if !is_url(text) {
            return Ok(Place::File(root.clinic().join(text)));
        }
        let ca = self.database_ca.as_ref().map(|file| root.clinic().join(file));
        Address::parse(text, ca).map(|address| Place::Server(Box::new(address))).ok_or_else(not_a_url)
    }

    /// A password may not lie where everybody can read it. Groups may: systemd shows credentials so.
    fn is_hidden(&self, Database(text): &Database, path: &Path) -> Result<(), ClinicSettingsError> {
        let has_password = Address::parse(text, None).is_some_and(|address| address.has_password());
        let mode = std::fs::metadata(path).map_or(0, |file| file.permissions().mode());
        if has_password && mode & 0o007 != 0 {
            return Err(ClinicSettingsError::Exposed { file: path.display().to_string() });
        }
        Ok(())
    }
}

/// Never with the text itself: a password may stand in it.
fn not_a_url() -> ClinicSettingsError {
    let expected = "a file, or postgres://USER:PASSWORD@HOST:PORT/DATABASE with what is special in it as %XX";
    ClinicSettingsError::Value { name: "the database", expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_a_host_with_or_without_a_port() {
        assert_eq!(broker("localhost", broker_port(false)).unwrap(), ("localhost".into(), 1883));
        assert_eq!(broker("10.0.0.1:2000", 1883).unwrap(), ("10.0.0.1".into(), 2000));
        assert_eq!(broker("[::1]:2000", 1883).unwrap(), ("[::1]".into(), 2000));
        assert_eq!(broker("[::1]", broker_port(true)).unwrap(), ("[::1]".into(), 8883));
        for bad in ["", ":1", "host:0", "host:x", "host:70000", "tcp://host", "a b"] {
            assert!(broker(bad, 1883).is_err(), "{bad}");
        }
    }

    fn settings() -> ClinicSettings {
        ClinicSettings::new("north", "a", ("localhost".into(), 1883), default_listen()).unwrap()
    }

    const URL: &str = "postgres://clinic:s3cret@db.example/records";

    #[test]
    fn the_environment_stands_over_the_file_that_stands_over_the_settings() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let mut settings = settings();
        assert_eq!(settings.place(&root, None).unwrap(), Place::File(root.clinic().join("clinic.db")));
        settings.database = "postgres://u@localhost/settings".into();
        assert!(settings.place(&root, None).unwrap().to_string().ends_with("database settings"));
        std::fs::create_dir_all(root.clinic()).unwrap();
        std::fs::write(root.clinic().join("url"), format!("{URL}\n")).unwrap();
        std::fs::set_permissions(root.clinic().join("url"), std::fs::Permissions::from_mode(0o640)).unwrap();
        settings.database_file = Some("url".into());
        assert!(settings.place(&root, None).unwrap().to_string().ends_with("db.example, database records"));
        let variable = settings.place(&root, Some("/elsewhere.db")).unwrap();
        assert_eq!(variable, Place::File("/elsewhere.db".into()));
    }

    #[test]
    fn no_message_holds_the_password_and_no_open_file_may() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        std::fs::create_dir_all(root.clinic()).unwrap();
        let mut settings = settings();
        settings.database = URL.into();
        assert!(!format!("{settings:?} {:?}", settings.place(&root, None)).contains("s3cret"));
        let file = root.clinic().join("clinic.toml");
        std::fs::write(&file, toml::to_string(&settings).unwrap()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(ClinicSettings::load(&root), Err(ClinicSettingsError::Exposed { .. })));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(ClinicSettings::load(&root).unwrap(), settings);
        settings.database = "postgres://clinic:s3cret@db.example:x/records".into();
        let why = settings.check().unwrap_err();
        assert!(!format!("{why:?} {}", shared::error::report(&why)).contains("s3cret"));
    }

    #[test]
    fn a_servers_id_is_its_machines_name_made_safe() {
        let cases = [
            ("Clinic_2.north.example", "clinic-2"),
            ("", "server"),
            (".x", "server"),
            (&"a".repeat(40), &"a".repeat(32)),
        ];
        for (name, id) in cases {
            assert_eq!(safe_id(name), id);
        }
        assert!(is_id(&server_of_this_machine()));
    }

    #[test]
    fn https_needs_certificates_and_names_that_they_can_be_for() {
        let plain = ClinicSettings::new("north", "one", ("localhost".into(), 8883), default_listen()).unwrap();
        let with = |tls: bool, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            ClinicSettings { tls, names, https: Some(default_listen()), ..plain.clone() }.check()
        };
        with(true, &["clinic.example", "192.0.2.1"]).unwrap();
        assert!(with(false, &["clinic.example"]).is_err() && with(true, &[]).is_err());
        assert!(with(true, &["clinic.example", "a b"]).unwrap_err().to_string().contains("names must be host names"));
    }
}
