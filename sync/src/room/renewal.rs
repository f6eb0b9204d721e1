//! A certificate is renewed while its time is half over, so that a box which is away for months does not come back to a closed
//! door. The key stays: one file changes, and so none can stop fitting the other.

use std::time::Duration;

use shared::clock::{Now, WallTime};
use shared::paths::Root;
use shared::wire::{CertificateIssued, CertificateRequest};
use tracing::{error, info, warn};

use crate::files;
use crate::pki::{self, DAYS, Pair};
use crate::tls;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// The longest message that is read.
const MESSAGE_BYTES: usize = 16 * 1024;
/// How often it is asked for: a clinic that is older does not answer.
const ASK_EVERY: Duration = DAY;

/// Keeps a box's certificate young.
#[derive(Debug)]
pub struct Renewal {
    root: Root,
    /// The uptime at which was looked or asked last.
    asked: Option<Duration>,
}

impl Renewal {
    /// For the box in `root`.
    #[must_use]
    pub fn new(root: Root) -> Self {
        Self { root, asked: None }
    }

    /// What is to be asked of the clinic now, if anything.
    pub fn due(&mut self, now: &Now) -> Option<CertificateRequest> {
        if self.asked.is_some_and(|at| now.uptime.saturating_sub(at) < ASK_EVERY) {
            return None;
        }
        self.asked = Some(now.uptime);
        let certificate = std::fs::read_to_string(self.root.link_certificate()).ok()?;
        let expires = match pki::expires(&certificate) {
            Ok(expires) => expires,
            Err(why) => {
                error!(error = %why, "The certificate for the broker cannot be read.");
                return None;
            }
        };
        if expires.since(now.wall) > DAY * DAYS / 2 {
            return None;
        }
        let key = std::fs::read_to_string(self.root.link_key()).ok()?;
        let request = pki::request_for(&key).ok()?.certificate;
        info!(ends = %expires, "A certificate that lasts longer is asked for.");
        Some(CertificateRequest { version: 1, request })
    }

    /// Takes a certificate, if it is of the known authority, for this box's key, and lasts longer than the one that is there.
    pub fn take(&self, payload: &[u8]) {
        match self.judge(payload) {
            Ok((certificate, ends)) => {
                match files::replace(&self.root.link_certificate(), certificate.as_bytes(), 0o644) {
                    Ok(()) => info!(%ends, "The certificate for the broker was renewed."),
                    Err(why) => error!(error = %why, "The new certificate cannot be written."),
                }
            }
            Err(why) => warn!(why, "A certificate was not taken."),
        }
    }

    fn judge(&self, payload: &[u8]) -> Result<(String, WallTime), &'static str> {
        if payload.len() > MESSAGE_BYTES {
            return Err("it is too long");
        }
        let issued: CertificateIssued = serde_json::from_slice(payload).map_err(|_| "it is none")?;
        if issued.version != 1 {
            return Err("it is of another version");
        }
        let read = |file| std::fs::read_to_string(file).map_err(|_| "what is here cannot be read");
        let (authority, before) = (read(self.root.link_authority())?, read(self.root.link_certificate())?);
        let ends = pki::expires(&issued.certificate).map_err(|_| "it is none")?;
        let until = pki::expires(&before).map_err(|_| "what is here cannot be read")?;
        if ends <= until {
            return Err("it does not last longer");
        }
        if !pki::is_signed_by(&issued.certificate, &authority) {
            return Err("it is not signed by the clinic's authority");
        }
        let pair = Pair { certificate: issued.certificate.clone(), key: read(self.root.link_key())? };
        tls::client(&authority, &pair).map_err(|_| "it does not fit the key")?;
        Ok((issued.certificate, ends))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clinic::setup::{EnrolledLink, EnrolledTls, Enrolment};
    use crate::pki::{Authority, Holder};
    use crate::room::enrol::enrol;
    use shared::clock::{Clock as _, ScriptedClock};
    use shared::seal::ClinicKeys;

    struct World {
        _folder: tempfile::TempDir,
        root: Root,
        authority: Authority,
        clock: ScriptedClock,
    }

    fn authority(now: WallTime) -> Authority {
        Authority::open(&Authority::generate("north", now).unwrap()).unwrap()
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let (root, clock) = (Root::new(folder.path()), ScriptedClock::new());
            let now = clock.now().wall;
            let authority = authority(now);
            let (sealing_key, signing_key) = ClinicKeys::generate().public_hex();
            let link = EnrolledLink {
                clinic: "north".into(),
                box_id: "room-1".into(),
                broker_host: "localhost".into(),
                broker_port: 8883,
                sealing_key,
                signing_key,
            };
            let Pair { certificate, key } = authority.issue(Holder::Room("room-1"), now).unwrap();
            let tls = EnrolledTls { authority: authority.certificate().into(), certificate, key: Some(key) };
            enrol(&root, &toml::to_string(&Enrolment { link, tls: Some(tls) }).unwrap()).unwrap();
            Self { _folder: folder, root, authority, clock }
        }

        fn ends(&self) -> WallTime {
            pki::expires(&std::fs::read_to_string(self.root.link_certificate()).unwrap()).unwrap()
        }
    }

    fn issued(certificate: String) -> Vec<u8> {
        serde_json::to_vec(&CertificateIssued { version: 1, certificate }).unwrap()
    }

    #[test]
    fn a_certificate_is_asked_for_when_half_its_time_is_over_once_a_day_and_taken() {
        let world = World::new();
        let mut renewal = Renewal::new(world.root.clone());
        assert_eq!(renewal.due(&world.clock.now()), None);
        world.clock.pass(DAY * (DAYS / 2 - 1));
        assert_eq!(renewal.due(&world.clock.now()), None);
        world.clock.pass(DAY * 2);
        let request = renewal.due(&world.clock.now()).unwrap();
        assert_eq!(renewal.due(&world.clock.now()), None);
        world.clock.pass(DAY);
        assert!(renewal.due(&world.clock.now()).is_some());
        let (now, before) = (world.clock.now().wall, world.ends());
        renewal.take(&issued(world.authority.sign(&request.request, Holder::Room("room-1"), now).unwrap()));
        assert!(world.ends() > before);
        world.clock.pass(DAY);
        assert_eq!(renewal.due(&world.clock.now()), None);
    }

    #[test]
    fn what_is_anothers_shorter_or_garbage_is_not_taken() {
        let world = World::new();
        let renewal = Renewal::new(world.root.clone());
        let (before, later) = (world.ends(), world.clock.now().wall.plus(DAY));
        let own = pki::request_for(&std::fs::read_to_string(world.root.link_key()).unwrap()).unwrap().certificate;
        let room = Holder::Room("room-1");
        let bad = [
            issued(authority(later).sign(&own, room, later).unwrap()),
            issued(world.authority.issue(room, later).unwrap().certificate),
            issued(world.authority.sign(&own, room, WallTime(later.0 - 9 * 86_400_000)).unwrap()),
            issued("garbage".into()),
            b"garbage".to_vec(),
            vec![b' '; MESSAGE_BYTES + 1],
        ];
        for payload in bad {
            assert!(renewal.judge(&payload).is_err());
            renewal.take(&payload);
        }
        assert_eq!(world.ends(), before);
        renewal.take(&issued(world.authority.sign(&own, room, later).unwrap()));
        assert!(world.ends() > before);
    }

    #[test]
    fn a_box_without_certificates_asks_for_none() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Renewal::new(Root::new(folder.path())).due(&ScriptedClock::new().now()), None);
    }
}
