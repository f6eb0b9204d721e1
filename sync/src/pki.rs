//! The clinic's own certificate authority, by `rcgen`, which is named nowhere else.
//!
//! The broker takes the common name for who somebody is: a box's is its id, a server's `board.{server}`, which no box can be
//! called. Keys are ECDSA P-256. A certificate begins a day before it is made: a board without a clock may be behind.

use std::net::IpAddr;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use sha2::{Digest as _, Sha256};
use shared::clock::WallTime;
use time::OffsetDateTime;
use x509_parser::pem::Pem;

/// A day.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long the authority lasts: longer than any box.
const AUTHORITY_DAYS: u32 = 20 * 365;
/// How long a box's or a server's certificate lasts: a box may be without a network for months.
pub const DAYS: u32 = 2 * 365;

/// Why a certificate cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The library says no.
    #[error("a certificate cannot be made")]
    Make(#[source] rcgen::Error),
    /// It is no certificate, key or request.
    #[error("{what} is damaged")]
    Damaged {
        /// What.
        what: &'static str,
    },
    /// A name for a certificate that is neither a host name nor an address.
    #[error("{name:?} is no host name or address")]
    Name {
        /// The name.
        name: String,
    },
}

/// Whom a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder<'a> {
    /// A box, by its id: it may connect to the broker.
    Room(&'a str),
    /// A clinic server, by its id: it may connect to the broker.
    Server(&'a str),
    /// Who serves under these names: the broker, or a clinic server over HTTPS.
    Site(&'a [String]),
}

/// A certificate and its private key, both as PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key: a secret.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(…)")
    }
}

/// A clinic's certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(…)")
    }
}

impl Authority {
    /// Makes one for a clinic.
    ///
    /// # Errors
    /// [`PkiError::Make`].
    pub fn generate(clinic: &str, now: WallTime) -> Result<Pair, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::Make)?;
        let mut params = params(&format!("Roomscribe {clinic}"), now, AUTHORITY_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(PkiError::Make)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// From what [`Authority::generate`] made.
    ///
    /// # Errors
    /// [`PkiError::Damaged`].
    pub fn open(pair: &Pair) -> Result<Self, PkiError> {
        let key = KeyPair::from_pem(&pair.key).map_err(|_| PkiError::Damaged { what: "the authority's key" })?;
        let issuer = Issuer::from_ca_cert_pem(&pair.certificate, key);
        let issuer = issuer.map_err(|_| PkiError::Damaged { what: "the authority's certificate" })?;
        Ok(Self { issuer, certificate: pair.certificate.clone() })
    }

    /// Its own certificate, as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Makes a key and a certificate for it.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn issue(&self, holder: Holder<'_>, now: WallTime) -> Result<Pair, PkiError> {
        let key = KeyPair::generate().map_err(PkiError::Make)?;
        let certificate = params_of(holder, now)?.signed_by(&key, &self.issuer).map_err(PkiError::Make)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Makes a certificate for the key of a request (PKCS #10), which must be signed by it. Of the request nothing else counts.
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn sign(&self, request: &str, holder: Holder<'_>, now: WallTime) -> Result<String, PkiError> {
        let request = CertificateSigningRequestParams::from_pem(request);
        let mut request = request.map_err(|_| PkiError::Damaged { what: "the request for a certificate" })?;
        request.params = params_of(holder, now)?;
        request.signed_by(&self.issuer).map(|certificate| certificate.pem()).map_err(PkiError::Make)
    }
}

fn params(name: &str, now: WallTime, days: u32) -> CertificateParams {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    let mut serial = *uuid::Uuid::new_v4().as_bytes();
    // A serial number is positive and has no leading zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.not_before = date(WallTime(now.0 - DAY.as_millis() as i64));
    params.not_after = date(now.plus(DAY * days));
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = subject;
    params.use_authority_key_identifier_extension = true;
    params
}

fn params_of(holder: Holder<'_>, now: WallTime) -> Result<CertificateParams, PkiError> {
    let (name, usage) = match holder {
        Holder::Room(id) => (id.to_owned(), ExtendedKeyUsagePurpose::ClientAuth),
        Holder::Server(id) => (server_name(id), ExtendedKeyUsagePurpose::ClientAuth),
        Holder::Site(names) => (names.first().cloned().unwrap_or_default(), ExtendedKeyUsagePurpose::ServerAuth),
    };
    let mut params = params(&name, now, DAYS);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    if let Holder::Site(names) = holder {
        params.subject_alt_names = names.iter().map(|name| alternative(name)).collect::<Result<_, _>>()?;
    }
    Ok(params)
}

/// A server's name to the broker.
#[must_use]
pub fn server_name(server: &str) -> String {
    format!("board.{server}")
}

/// Whether a certificate can be for a name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    alternative(name).is_ok()
}

fn alternative(name: &str) -> Result<SanType, PkiError> {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let wrong = || PkiError::Name { name: name.to_owned() };
    rustls::pki_types::DnsName::try_from(name).map_err(|_| wrong())?;
    name.try_into().map(SanType::DnsName).map_err(|_| wrong())
}

fn date(at: WallTime) -> OffsetDateTime {
    OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(at.0)
}

/// A new key and a request for its certificate, both as PEM.
///
/// # Errors
/// [`PkiError::Make`].
pub fn request() -> Result<Pair, PkiError> {
    let key = KeyPair::generate().map_err(PkiError::Make)?;
    request_for(&key.serialize_pem())
}

/// As [`request`], for a key that is there already (PEM).
///
/// # Errors
/// [`PkiError`].
pub fn request_for(key: &str) -> Result<Pair, PkiError> {
    let key = KeyPair::from_pem(key).map_err(|_| PkiError::Damaged { what: "a private key" })?;
    let request = CertificateParams::default().serialize_request(&key).map_err(PkiError::Make)?;
    Ok(Pair { certificate: request.pem().map_err(PkiError::Make)?, key: key.serialize_pem() })
}

/// The key that a request is for, by its SHA-256.
///
/// # Errors
/// [`PkiError::Damaged`], also if it is not signed by that key.
pub fn key_of(request: &str) -> Result<[u8; 32], PkiError> {
    let request = CertificateSigningRequestParams::from_pem(request);
    let request = request.map_err(|_| PkiError::Damaged { what: "the request for a certificate" })?;
    Ok(Sha256::digest(rcgen::PublicKeyData::der_bytes(&request.public_key)).into())
}

/// When a certificate (PEM) ends.
///
/// # Errors
/// [`PkiError::Damaged`].
pub fn expires(certificate: &str) -> Result<WallTime, PkiError> {
    let damaged = || PkiError::Damaged { what: "a certificate" };
    let pem = Pem::iter_from_buffer(certificate.as_bytes()).next().ok_or_else(damaged)?.map_err(|_| damaged())?;
    let parsed = pem.parse_x509().map_err(|_| damaged())?;
    Ok(WallTime(parsed.validity().not_after.timestamp() * 1000))
}

/// Whether an authority (PEM) has signed a certificate (PEM).
#[must_use]
pub fn is_signed_by(certificate: &str, authority: &str) -> bool {
    let pem = |text: &str| Pem::iter_from_buffer(text.as_bytes()).next()?.ok();
    let (Some(certificate), Some(authority)) = (pem(certificate), pem(authority)) else { return false };
    let (Ok(certificate), Ok(authority)) = (certificate.parse_x509(), authority.parse_x509()) else { return false };
    certificate.verify_signature(Some(authority.public_key())).is_ok()
}

/// SHA-256 of a certificate (PEM).
///
/// # Errors
/// [`PkiError::Damaged`].
pub fn fingerprint(certificate: &str) -> Result<[u8; 32], PkiError> {
    let damaged = || PkiError::Damaged { what: "a certificate" };
    let pem = Pem::iter_from_buffer(certificate.as_bytes()).next().ok_or_else(damaged)?.map_err(|_| damaged())?;
    Ok(Sha256::digest(&pem.contents).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallTime = WallTime(1_790_000_000_000);

    fn authority() -> Authority {
        Authority::open(&Authority::generate("north", NOW).unwrap()).unwrap()
    }

    fn subject(certificate: &str) -> String {
        let pem = Pem::iter_from_buffer(certificate.as_bytes()).next().unwrap().unwrap();
        pem.parse_x509().unwrap().subject().to_string()
    }

    #[test]
    fn a_certificate_bears_the_name_that_the_clinic_gives_and_not_what_was_asked_for() {
        let authority = authority();
        let asked = request().unwrap();
        let signed = authority.sign(&asked.certificate, Holder::Room("room-1"), NOW).unwrap();
        assert_eq!(subject(&signed), "CN=room-1");
        assert_eq!(subject(&authority.issue(Holder::Server("one"), NOW).unwrap().certificate), "CN=board.one");
        let days = expires(&signed).unwrap().since(NOW).as_secs() / DAY.as_secs();
        assert_eq!(days, u64::from(DAYS));
    }

    #[test]
    fn a_request_that_is_not_signed_by_its_key_is_refused() {
        let (one, other) = (request().unwrap().certificate, request().unwrap().certificate);
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let (one, other) = (lines(&one), lines(&other));
        let mut mixed = one.clone();
        // The signature lies at the end.
        let last = mixed.len() - 2;
        mixed[last] = other[other.len() - 2].clone();
        assert!(key_of(&mixed.join("\n")).is_err());
        assert!(authority().sign("garbage", Holder::Room("room-1"), NOW).is_err());
        assert_ne!(key_of(&one.join("\n")).unwrap(), key_of(&other.join("\n")).unwrap());
    }

    #[test]
    fn a_site_has_names_and_addresses_and_nothing_else() {
        let authority = authority();
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        authority.issue(Holder::Site(&names(&["broker.north.example", "127.0.0.1", "[::1]"])), NOW).unwrap();
        for bad in ["", "a b", "tcp://broker", "-"] {
            assert!(authority.issue(Holder::Site(&names(&[bad])), NOW).is_err(), "{bad}");
        }
    }
}
