//! What makes a record unreadable on its way, and the clinic's word that it has it.
//!
//! A parcel is HPKE (RFC 9180: X25519, HKDF-SHA256, ChaCha20-Poly1305, base mode) of the zstd-compressed record
//! to the clinic's public key:
//!
//!   `RSP1` · key id (16 bytes) · encapsulated key (32 bytes) · ciphertext with tag
//!
//! Clinic, box, session and revision are authenticated with it, so a parcel cannot be passed off as another.
//! An acknowledgement is signed with Ed25519 over its fields, one a line, behind the line `roomscribe-ack-v1`.

use std::io::Read as _;

use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, Kem as _, OpModeR, OpModeS, Serializable as _};
use rand::{RngCore as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::command::{Command, MAX_ORDER_BYTES, Order};
use crate::record::Record;
use crate::wire::MAX_PARCEL_BYTES;

const MAGIC: &[u8; 4] = b"RSP1";
const KEY_ID_BYTES: usize = 16;
const ENCAPSULATED_BYTES: usize = 32;
const INFO: &[u8] = b"roomscribe parcel v1";
/// A record grows at most this much on opening: an hour's is below 1 MiB, so more is an attack.
const MAX_RECORD_BYTES: u64 = 64 * 1024 * 1024;

type SealingPrivate = <X25519HkdfSha256 as hpke::Kem>::PrivateKey;
type SealingPublic = <X25519HkdfSha256 as hpke::Kem>::PublicKey;

/// Why a parcel could not be sealed or opened, or an acknowledgement not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not hexadecimal, or not the right length.
    #[error("The key is malformed")]
    Key,
    /// Over [`MAX_PARCEL_BYTES`].
    #[error("The record is too large for a parcel")]
    TooLarge,
    /// Not a parcel of version 1.
    #[error("The parcel is malformed")]
    Malformed,
    /// Sealed to a key that is not held here.
    #[error("The parcel is sealed to another key")]
    OtherKey,
    /// Altered, or passed off as another.
    #[error("The parcel does not authenticate")]
    Forged,
    /// What was inside is not a record of version 1.
    #[error("The parcel holds no valid record")]
    NoRecord,
}

/// Which session a parcel is about; authenticated with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address<'a> {
    /// Clinic id.
    pub clinic: &'a str,
    /// Box id.
    pub box_id: &'a str,
    /// UUID.
    pub session: &'a str,
    /// From 1.
    pub revision: u32,
}

impl Address<'_> {
    fn bytes(&self) -> Vec<u8> {
        format!("{}\n{}\n{}\n{}", self.clinic, self.box_id, self.session, self.revision).into_bytes()
    }
}

fn key_id(public: &[u8]) -> [u8; KEY_ID_BYTES] {
    let digest = Sha256::digest(public);
    std::array::from_fn(|i| digest[i])
}

/// The SHA-256 of `bytes`, hexadecimal.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// What a box knows of its clinic: enough to seal to it and to believe it.
#[derive(Debug, Clone)]
pub struct ClinicPublic {
    sealing: SealingPublic,
    signing: VerifyingKey,
}

impl ClinicPublic {
    /// From the two public keys in hexadecimal, as enrolment wrote them.
    ///
    /// # Errors
    /// [`SealError::Key`].
    pub fn from_hex(sealing: &str, signing: &str) -> Result<Self, SealError> {
        let sealing = hex::decode(sealing).map_err(|_| SealError::Key)?;
        let signing: [u8; 32] = hex::decode(signing).ok().and_then(|b| b.try_into().ok()).ok_or(SealError::Key)?;
        Ok(Self {
            sealing: SealingPublic::from_bytes(&sealing).map_err(|_| SealError::Key)?,
            signing: VerifyingKey::from_bytes(&signing).map_err(|_| SealError::Key)?,
        })
    }

    /// Seals a record.
    ///
    /// # Errors
    /// [`SealError::TooLarge`].
    pub fn seal(&self, record: &Record, address: &Address<'_>) -> Result<Vec<u8>, SealError> {
        let json = serde_json::to_vec(record).map_err(|_| SealError::NoRecord)?;
        let packed = zstd::encode_all(json.as_slice(), 9).map_err(|_| SealError::NoRecord)?;
        let (encapsulated, sealed) = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256, _>(
            &OpModeS::Base,
            &self.sealing,
            INFO,
            &packed,
            &address.bytes(),
            &mut rand::rngs::StdRng::from_os_rng(),
        )
        .map_err(|_| SealError::Key)?;
        let mut parcel = MAGIC.to_vec();
        parcel.extend(key_id(&self.sealing.to_bytes()));
        parcel.extend(encapsulated.to_bytes());
        parcel.extend(sealed);
        if parcel.len() > MAX_PARCEL_BYTES { Err(SealError::TooLarge) } else { Ok(parcel) }
    }

    /// Whether `ack` says of itself that other keys than these have signed it.
    #[must_use]
    pub fn is_of_others(&self, ack: &Ack) -> bool {
        ack.key_id != hex::encode(key_id(&self.signing.to_bytes()))
    }

    /// The order in a command, if this clinic has signed it for `clinic` and `box_id`.
    #[must_use]
    pub fn order(&self, command: &Command, clinic: &str, box_id: &str) -> Option<Order> {
        let signature: [u8; 64] = hex::decode(&command.signature).ok()?.try_into().ok()?;
        let is_long = command.order.len() > MAX_ORDER_BYTES;
        if is_long || self.signing.verify(&command.signed_bytes(), &Signature::from_bytes(&signature)).is_err() {
            return None;
        }
        let order: Order = serde_json::from_str(&command.order).ok()?;
        (order.version == 1 && order.clinic == clinic && order.box_id == box_id).then_some(order)
    }

    /// Whether `command` says of itself that other keys than these have signed it.
    #[must_use]
    pub fn is_by_others(&self, command: &Command) -> bool {
        command.key_id != hex::encode(key_id(&self.signing.to_bytes()))
    }

    /// Whether `ack` was signed by this clinic for `clinic` and `box_id`.
    #[must_use]
    pub fn believes(&self, ack: &Ack, clinic: &str, box_id: &str) -> bool {
        let signature: Option<[u8; 64]> = hex::decode(&ack.signature).ok().and_then(|b| b.try_into().ok());
        signature
            .is_some_and(|s| self.signing.verify(&ack.signed_bytes(clinic, box_id), &Signature::from_bytes(&s)).is_ok())
    }
}

/// One sealing and one signing key, which boxes learn together.
struct Pair {
    sealing: SealingPrivate,
    signing: SigningKey,
}

impl Pair {
    fn generate() -> Self {
        let mut rng = rand::rngs::StdRng::from_os_rng();
        let (sealing, _) = X25519HkdfSha256::gen_keypair(&mut rng);
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        Self { sealing, signing: SigningKey::from_bytes(&seed) }
    }

    fn from_hex(pair: &ClinicKeyPair) -> Result<Self, SealError> {
        let sealing = hex::decode(&pair.sealing_private).map_err(|_| SealError::Key)?;
        let seed: [u8; 32] =
            hex::decode(&pair.signing_private).ok().and_then(|b| b.try_into().ok()).ok_or(SealError::Key)?;
        Ok(Self {
            sealing: SealingPrivate::from_bytes(&sealing).map_err(|_| SealError::Key)?,
            signing: SigningKey::from_bytes(&seed),
        })
    }

    fn to_hex(&self) -> ClinicKeyPair {
        ClinicKeyPair {
            sealing_private: hex::encode(self.sealing.to_bytes()),
            signing_private: hex::encode(self.signing.to_bytes()),
        }
    }

    fn sealing_public(&self) -> Vec<u8> {
        X25519HkdfSha256::sk_to_pk(&self.sealing).to_bytes().to_vec()
    }

    fn id(&self) -> [u8; KEY_ID_BYTES] {
        key_id(&self.sealing_public())
    }
}

/// The clinic's private keys: those that boxes are told now, and before them those that earlier boxes still use and that
/// earlier parcels open with.
pub struct ClinicKeys {
    now: Pair,
    earlier: Vec<Pair>,
}

/// Two private keys, hexadecimal.
#[derive(Clone, Serialize, Deserialize)]
pub struct ClinicKeyPair {
    /// X25519.
    pub sealing_private: String,
    /// Ed25519.
    pub signing_private: String,
}

/// The clinic's private keys as they lie in its key file.
#[derive(Serialize, Deserialize)]
pub struct ClinicKeyFile {
    /// Format version, 1.
    pub version: u32,
    /// Those of now.
    #[serde(flatten)]
    pub now: ClinicKeyPair,
    /// Those before, the latest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<ClinicKeyPair>,
}

impl ClinicKeys {
    /// Makes a fresh pair of pairs from the system's randomness.
    #[must_use]
    pub fn generate() -> Self {
        Self { now: Pair::generate(), earlier: Vec::new() }
    }

    /// Makes fresh keys for boxes that are enrolled from now on. Those of before go on opening what was sealed to them, and
    /// signing for boxes that know only them.
    #[must_use]
    pub fn rotated(self) -> Self {
        let Self { now, mut earlier } = self;
        earlier.insert(0, now);
        Self { now: Pair::generate(), earlier }
    }

    /// As written by [`ClinicKeys::to_file`].
    ///
    /// # Errors
    /// [`SealError::Key`].
    pub fn from_file(file: &ClinicKeyFile) -> Result<Self, SealError> {
        let earlier = file.earlier.iter().map(Pair::from_hex).collect::<Result<_, _>>()?;
        Ok(Self { now: Pair::from_hex(&file.now)?, earlier })
    }

    /// For the key file, which only the service may read.
    #[must_use]
    pub fn to_file(&self) -> ClinicKeyFile {
        ClinicKeyFile { version: 1, now: self.now.to_hex(), earlier: self.earlier.iter().map(Pair::to_hex).collect() }
    }

    fn all(&self) -> impl Iterator<Item = &Pair> {
        std::iter::once(&self.now).chain(&self.earlier)
    }

    /// The names of the sealing keys, hexadecimal, as parcels bear them: that of now first.
    #[must_use]
    pub fn ids(&self) -> Vec<String> {
        self.all().map(|pair| hex::encode(pair.id())).collect()
    }

    /// The public halves that boxes are told now, in hexadecimal: sealing, signing.
    #[must_use]
    pub fn public_hex(&self) -> (String, String) {
        (hex::encode(self.now.sealing_public()), hex::encode(self.now.signing.verifying_key().to_bytes()))
    }

    /// The keys that whoever sealed a parcel was told, if they are this clinic's.
    fn of(&self, parcel: &[u8]) -> Option<&Pair> {
        let id = parcel.strip_prefix(MAGIC)?.get(..KEY_ID_BYTES)?;
        self.all().find(|pair| pair.id() == id)
    }

    /// Opens a parcel.
    ///
    /// # Errors
    /// Any [`SealError`] but `Key` and `TooLarge`.
    pub fn open(&self, parcel: &[u8], address: &Address<'_>) -> Result<Record, SealError> {
        let rest = parcel.strip_prefix(MAGIC).ok_or(SealError::Malformed)?;
        if rest.len() < KEY_ID_BYTES + ENCAPSULATED_BYTES {
            return Err(SealError::Malformed);
        }
        let pair = self.of(parcel).ok_or(SealError::OtherKey)?;
        let (encapsulated, sealed) = rest[KEY_ID_BYTES..].split_at(ENCAPSULATED_BYTES);
        let encapsulated =
            <X25519HkdfSha256 as hpke::Kem>::EncappedKey::from_bytes(encapsulated).map_err(|_| SealError::Malformed)?;
        let packed = hpke::single_shot_open::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256>(
            &OpModeR::Base,
            &pair.sealing,
            &encapsulated,
            INFO,
            sealed,
            &address.bytes(),
        )
        .map_err(|_| SealError::Forged)?;
        unpack(&packed, address)
    }

    /// Signs an acknowledgement for `box_id` by every key, that of now first. Nobody knows which ones the box was told: what
    /// it sealed before it was enrolled again it sends after.
    #[must_use]
    pub fn sign(&self, ack: &Ack, clinic: &str, box_id: &str) -> Vec<Ack> {
        self.all().map(|pair| signed(pair, ack.clone(), clinic, box_id)).collect()
    }
}

impl ClinicKeys {
    /// An order under every signing key: a box believes the one it was told.
    #[must_use]
    pub fn command(&self, order: &Order) -> Vec<Command> {
        let text = serde_json::to_string(order).unwrap_or_default();
        let signed = |pair: &Pair| {
            let key_id = hex::encode(key_id(&pair.signing.verifying_key().to_bytes()));
            let mut command = Command { order: text.clone(), key_id, signature: String::new() };
            command.signature = hex::encode(pair.signing.sign(&command.signed_bytes()).to_bytes());
            command
        };
        self.all().map(signed).collect()
    }
}

fn signed(pair: &Pair, mut ack: Ack, clinic: &str, box_id: &str) -> Ack {
    ack.key_id = hex::encode(key_id(&pair.signing.verifying_key().to_bytes()));
    ack.signature = hex::encode(pair.signing.sign(&ack.signed_bytes(clinic, box_id)).to_bytes());
    ack
}

/// Reads what is inside an opened parcel. Apart from the seal, so that tests reach it without one.
///
/// # Errors
/// [`SealError::NoRecord`].
pub fn unpack(packed: &[u8], address: &Address<'_>) -> Result<Record, SealError> {
    let mut json = Vec::new();
    let decoder = zstd::Decoder::new(packed).map_err(|_| SealError::NoRecord)?;
    decoder.take(MAX_RECORD_BYTES).read_to_end(&mut json).map_err(|_| SealError::NoRecord)?;
    let record: Record = serde_json::from_slice(&json).map_err(|_| SealError::NoRecord)?;
    let is_the_one = record.version == crate::record::VERSION
        && record.session_id == address.session
        && record.box_id == address.box_id
        && record.revision == address.revision;
    if is_the_one { Ok(record) } else { Err(SealError::NoRecord) }
}

/// What became of a parcel at the clinic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AckResult {
    /// It is committed.
    Stored,
    /// It was committed before, byte for byte.
    Duplicate,
    /// It will never be stored; a person must look.
    Refused,
    /// Nothing of the session is held, and nothing will be: the answer to a withdrawal.
    Withdrawn,
}

impl AckResult {
    /// As it stands in JSON and in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// The clinic's word on one parcel. Only this ends the box's duty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Always 1.
    pub version: u32,
    /// UUID.
    pub session: String,
    /// From 1; 0 answers a withdrawal.
    pub revision: u32,
    /// Of the parcel's bytes, or the withdrawal's, hexadecimal.
    pub sha256: String,
    /// What became of it.
    pub result: AckResult,
    /// Why it was refused: `conflict`, `malformed`, `unreadable`, `invalid`, `withdrawn`.
    pub reason: Option<String>,
    /// When it was committed, RFC 3339 UTC.
    pub stored_at: String,
    /// Which signing key, hexadecimal; filled by [`ClinicKeys::sign`].
    #[serde(default)]
    pub key_id: String,
    /// Ed25519, hexadecimal; filled by [`ClinicKeys::sign`].
    #[serde(default)]
    pub signature: String,
}

impl Ack {
    fn signed_bytes(&self, clinic: &str, box_id: &str) -> Vec<u8> {
        [
            "roomscribe-ack-v1",
            clinic,
            box_id,
            &self.session,
            &self.revision.to_string(),
            &self.sha256,
            self.result.name(),
            self.reason.as_deref().unwrap_or(""),
            &self.stored_at,
            &self.key_id,
        ]
        .join("\n")
        .into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandName;
    use crate::record::*;

    const SESSION: &str = "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11";

    fn record() -> Record {
        Record {
            version: 1,
            session_id: SESSION.into(),
            box_id: "room-1".into(),
            revision: 1,
            status: Status::Failed,
            diarization_status: DiarizationStatus::Failed,
            error_message: Some("Transcription failed".into()),
            error: None,
            started_at: "2026-01-01T00:00:00.000Z".into(),
            ended_at: "2026-01-01T00:00:01.000Z".into(),
            duration_s: 1.0,
            time_quality: TimeQuality::Unsynchronized,
            consent: Consent { basis: "verbal".into(), by: None, at: "2026-01-01T00:00:00.000Z".into() },
            speakers: vec![],
            speaker_count: SpeakerCount { best: 0, maybe: None },
            segments: vec![],
            gaps: vec![],
            models: vec![],
            attempts: Attempts::default(),
            processing: Processing::default(),
        }
    }

    fn address(revision: u32) -> Address<'static> {
        Address { clinic: "north", box_id: "room-1", session: SESSION, revision }
    }

    fn public(keys: &ClinicKeys) -> ClinicPublic {
        let (sealing, signing) = keys.public_hex();
        ClinicPublic::from_hex(&sealing, &signing).unwrap()
    }

    #[test]
    fn a_parcel_opens_at_the_clinic_and_nowhere_else() {
        let keys = ClinicKeys::from_file(&ClinicKeys::generate().to_file()).unwrap();
        let parcel = public(&keys).seal(&record(), &address(1)).unwrap();
        assert_eq!(keys.open(&parcel, &address(1)).unwrap(), record());
        assert_eq!(ClinicKeys::generate().open(&parcel, &address(1)), Err(SealError::OtherKey));
    }

    #[test]
    fn a_parcel_cannot_be_altered_cut_or_passed_off_as_another() {
        let keys = ClinicKeys::generate();
        let parcel = public(&keys).seal(&record(), &address(1)).unwrap();
        assert_eq!(keys.open(&parcel, &address(2)), Err(SealError::Forged));
        for at in 4..parcel.len() {
            let mut bad = parcel.clone();
            bad[at] ^= 1;
            assert!(keys.open(&bad, &address(1)).is_err(), "byte {at}");
        }
        for length in 0..parcel.len() {
            assert!(keys.open(&parcel[..length], &address(1)).is_err(), "length {length}");
        }
    }

    #[test]
    fn an_acknowledgement_is_believed_only_as_it_was_signed() {
        let keys = ClinicKeys::generate();
        let signed = keys.sign(
            &Ack {
                version: 1,
                session: SESSION.into(),
                revision: 1,
                sha256: sha256(b"parcel"),
                result: AckResult::Stored,
                reason: None,
                stored_at: "2026-01-01T00:00:00.000Z".into(),
                key_id: String::new(),
                signature: String::new(),
            },
            "north",
            "room-1",
        );
        let (ack, clinic) = (signed[0].clone(), public(&keys));
        assert!(clinic.believes(&ack, "north", "room-1"));
        assert!(!clinic.believes(&ack, "north", "room-2"));
        assert!(!clinic.believes(&Ack { revision: 2, ..ack.clone() }, "north", "room-1"));
        assert!(!clinic.believes(&Ack { signature: String::new(), ..ack.clone() }, "north", "room-1"));
        assert!(!public(&ClinicKeys::generate()).believes(&ack, "north", "room-1"));
    }

    #[test]
    fn an_order_is_believed_of_our_clinic_for_this_box_and_to_the_letter() {
        let keys = ClinicKeys::generate();
        let order = Order {
            version: 1,
            id: SESSION.into(),
            clinic: "north".into(),
            box_id: "room-1".into(),
            name: CommandName::Pause,
            session: None,
            service: None,
            consent: None,
            by: "administrator".into(),
            issued_at: "2026-01-01T00:00:00.000Z".into(),
            valid_for_s: 60,
        };
        let (command, clinic) = (keys.command(&order).remove(0), public(&keys));
        assert_eq!(clinic.order(&command, "north", "room-1"), Some(order.clone()));
        assert_eq!(clinic.order(&command, "north", "room-2"), None);
        assert_eq!(clinic.order(&command, "south", "room-1"), None);
        let altered = Command { order: command.order.replace("pause", "start"), ..command.clone() };
        assert_eq!(clinic.order(&altered, "north", "room-1"), None);
        assert_eq!(public(&ClinicKeys::generate()).order(&command, "north", "room-1"), None);
        let newer = keys.command(&Order { version: 2, ..order }).remove(0);
        assert_eq!(clinic.order(&newer, "north", "room-1"), None);
    }
}
