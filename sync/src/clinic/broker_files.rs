//! What Mosquitto needs for a clinic: its certificate, its rules, its configuration.
//!
//! A box may write its own topics and read what is meant for it, by the name in its certificate, which is its client id as
//! well. Clinic servers may do everything below the clinic's root. A dashboard has a password, and reads the board; so has Home
//! Assistant, and reads what it is told of.

use std::path::Path;

use shared::clock::WallTime;
use shared::wire::{MAX_PACKET_BYTES, Topics};

use super::settings::ClinicSettings;
use super::setup::SetupError;
use crate::files;
use crate::pki::{Authority, Holder, server_name};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct BrokerFiles<'a> {
    /// The folder that the broker will find them in.
    pub installed: &'a Path,
    /// The names by which boxes and servers reach the broker.
    pub names: &'a [String],
    /// The ids of all clinic servers.
    pub servers: &'a [String],
    /// Where the broker listens for boxes and servers.
    pub port: u16,
}

/// Writes them into a folder, over what is there: `authority.pem`, `broker.pem`, `broker.key`, `acl`, `dashboard.acl` and
/// `roomscribe.conf`.
///
/// # Errors
/// [`SetupError::Write`]; [`SetupError::Pki`] for a name that cannot be one.
pub fn write(
    folder: &Path,
    settings: &ClinicSettings,
    authority: &Authority,
    wanted: BrokerFiles<'_>,
    now: WallTime,
) -> Result<(), SetupError> {
    let pair = authority.issue(Holder::Site(wanted.names), now)?;
    let failed = |file: &Path, source| SetupError::Write { file: file.display().to_string(), source };
    files::folder(folder, 0o700).map_err(|source| failed(folder, source))?;
    let texts = [
        ("authority.pem", authority.certificate().to_owned(), 0o644),
        ("broker.pem", pair.certificate, 0o644),
        ("broker.key", pair.key, 0o600),
        ("acl", rules(settings, wanted.servers), 0o600),
        ("dashboard.acl", board_rules(settings), 0o600),
        ("roomscribe.conf", configuration(&settings.clinic, wanted), 0o644),
    ];
    for (name, text, mode) in texts {
        let file = folder.join(name);
        files::replace(&file, text.as_bytes(), mode).map_err(|source| failed(&file, source))?;
    }
    Ok(())
}

fn rules(settings: &ClinicSettings, servers: &[String]) -> String {
    let topics = Topics::new(&settings.clinic);
    let mut text = String::from("# Boxes: %u is the name in the certificate.\n");
    for topic in topics.written_by("%u") {
        text.push_str(&format!("pattern write {topic}\n"));
    }
    for topic in topics.read_by("%u") {
        text.push_str(&format!("pattern read {topic}\n"));
    }
    for server in servers {
        text.push_str(&format!("\nuser {}\ntopic readwrite {}\n", server_name(server), topics.clinic_filter()));
        // What Home Assistant was told, also to clear it once that is switched off.
        text.push_str(&format!("topic readwrite {}\n", topics.discovery_filter()));
    }
    text
}

fn board_rules(settings: &ClinicSettings) -> String {
    let topics = Topics::new(&settings.clinic);
    let read = |filters: &[String]| filters.iter().map(|filter| format!("topic read {filter}\n")).collect::<String>();
    let dashboard = read(&[topics.board_filter()]);
    let home = read(&[topics.board_filter(), topics.health_filter(), topics.discovery_filter()]);
    format!("user dashboard\n{dashboard}\nuser homeassistant\n{home}")
}

fn configuration(clinic: &str, wanted: BrokerFiles<'_>) -> String {
    let (at, port) = (wanted.installed.display(), wanted.port);
    format!(
        "# Mosquitto for the clinic {clinic}: by a link to this file in /etc/mosquitto/conf.d, or mosquitto -c {at}/roomscribe.conf.
# An include_dir there would be passed over: Mosquitto takes that from its first file alone.
per_listener_settings true
max_packet_size {MAX_PACKET_BYTES}
# What a server that restarts must still get; more than that boxes keep, and send again.
max_queued_messages 1000

# Boxes and clinic servers: by certificate alone.
listener {port}
cafile {at}/authority.pem
certfile {at}/broker.pem
keyfile {at}/broker.key
tls_version tlsv1.3
allow_anonymous false
require_certificate true
use_identity_as_username true
# Nobody can take another's connection over.
use_username_as_clientid true
acl_file {at}/acl

# Dashboards, which read board/# alone: make a password with `mosquitto_passwd -c {at}/dashboard.passwd dashboard`, then take
# the signs away. For browsers a second listener like it, with `protocol websockets`. Home Assistant comes the same way, as the
# user homeassistant: `mosquitto_passwd {at}/dashboard.passwd homeassistant`.
#listener 8884
#certfile {at}/broker.pem
#keyfile {at}/broker.key
#tls_version tlsv1.2
#allow_anonymous false
#password_file {at}/dashboard.passwd
#acl_file {at}/dashboard.acl
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::settings::default_listen;

    #[test]
    fn a_box_has_its_own_topics_and_a_server_all_of_its_clinic() {
        let settings = ClinicSettings::new("north", "one", ("localhost".into(), 8883), default_listen()).unwrap();
        let text = rules(&settings, &["one".into(), "two".into()]);
        let (boxes, servers) = text.split_once("\nuser ").unwrap();
        assert!(boxes.lines().skip(1).all(|line| line.contains(" roomscribe/v1/north/%u/")), "{boxes}");
        assert!(boxes.contains("pattern read roomscribe/v1/north/%u/ack\n") && !boxes.contains("readwrite"), "{boxes}");
        let discovery = "homeassistant/device/roomscribe-north/+/config";
        let all = format!("topic readwrite roomscribe/v1/north/#\ntopic readwrite {discovery}\n");
        assert_eq!(servers, format!("board.one\n{all}\nuser board.two\n{all}"));
        let board = "topic read roomscribe/v1/north/board/#\n";
        let home = format!("{board}topic read roomscribe/v1/north/+/health\ntopic read {discovery}\n");
        assert_eq!(board_rules(&settings), format!("user dashboard\n{board}\nuser homeassistant\n{home}"));
    }
}
