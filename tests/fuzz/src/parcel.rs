//! Parcels and acknowledgements.
//!
//!   first byte   `p` a whole parcel · `z` what is compressed inside one · `a` an acknowledgement · else the JSON inside one
//!
//! What is inside is read as if a parcel had been opened; every 128th length of it is also sealed and opened, which takes
//! a hundred times as long.

use hpke::aead::ChaCha20Poly1305;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable as _, OpModeS, Serializable as _};
use rand::SeedableRng as _;
use serde_json::Value;
use shared::record::Record;
use shared::seal::{
    Ack, AckResult, Address, ClinicKeyFile, ClinicKeyPair, ClinicKeys, ClinicPublic, SealError, sha256, unpack,
};
use sync::room::acks::believe;

use super::Target;

/// Whose parcels these are.
const ADDRESS: Address<'_> =
    Address { clinic: "north", box_id: "room-1", session: "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11", revision: 1 };
/// One of so many lengths is sealed.
const SEALED: usize = 128;
const INFO: &[u8] = b"roomscribe parcel v1";

type Public = <X25519HkdfSha256 as hpke::Kem>::PublicKey;

/// See the top of the file.
pub struct Parcels {
    keys: ClinicKeys,
    public: ClinicPublic,
    sealing: Public,
    /// What stands before a parcel's seal.
    head: Vec<u8>,
    /// What the clinic did sign.
    signed: Ack,
}

impl Target for Parcels {
    fn new() -> Self {
        let file = ClinicKeyFile {
            version: 1,
            now: ClinicKeyPair { sealing_private: "4b".repeat(32), signing_private: "5c".repeat(32) },
            earlier: Vec::new(),
        };
        let keys = ClinicKeys::from_file(&file).expect("two keys");
        let (sealing, signing) = keys.public_hex();
        let public = ClinicPublic::from_hex(&sealing, &signing).expect("two keys");
        let sealing = hex::decode(sealing).expect("hexadecimal");
        let id = hex::decode(&sha256(&sealing)[..32]).expect("hexadecimal");
        let ack = Ack {
            version: 1,
            session: ADDRESS.session.into(),
            revision: ADDRESS.revision,
            sha256: sha256(b"parcel"),
            result: AckResult::Stored,
            reason: None,
            stored_at: "2026-01-01T00:00:00.000Z".into(),
            key_id: String::new(),
            signature: String::new(),
        };
        let signed = keys.sign(&ack, ADDRESS.clinic, ADDRESS.box_id).remove(0);
        let head = [b"RSP1", &id[..]].concat();
        Self { keys, public, sealing: Public::from_bytes(&sealing).expect("a key"), head, signed }
    }

    fn run(&mut self, input: &[u8]) {
        let Some((way, rest)) = input.split_first() else { return };
        match way {
            b'p' => self.whole(rest),
            b'z' => self.inside(rest),
            b'a' => self.ack(rest),
            _ => self.inside(&packed(rest)),
        }
    }
}

impl Parcels {
    fn whole(&self, parcel: &[u8]) {
        if let Ok(record) = self.keys.open(parcel, &ADDRESS) {
            self.again(&record);
        }
    }

    /// What is behind a seal decides, and a seal changes nothing of it.
    fn inside(&self, packed: &[u8]) {
        let read = inside(packed);
        if packed.len().is_multiple_of(SEALED) {
            assert!(self.keys.open(&self.seal(packed), &ADDRESS) == read, "a seal changes nothing");
        }
    }

    fn seal(&self, packed: &[u8]) -> Vec<u8> {
        let about = format!("{}\n{}\n{}\n{}", ADDRESS.clinic, ADDRESS.box_id, ADDRESS.session, ADDRESS.revision);
        let mut chance = rand::rngs::StdRng::seed_from_u64(1);
        let (encapsulated, sealed) = hpke::single_shot_seal::<ChaCha20Poly1305, HkdfSha256, X25519HkdfSha256, _>(
            &OpModeS::Base,
            &self.sealing,
            INFO,
            packed,
            about.as_bytes(),
            &mut chance,
        )
        .expect("anything can be sealed");
        [&self.head[..], &encapsulated.to_bytes(), &sealed].concat()
    }

    /// A record that was opened can be sealed, and is the same when that is opened.
    fn again(&self, record: &Record) {
        let parcel = self.public.seal(record, &ADDRESS).expect("what came in a parcel fits into one");
        is_same(record, &self.keys.open(&parcel, &ADDRESS).expect("it opens again"));
        let other = Address { revision: 2, ..ADDRESS };
        assert_eq!(self.keys.open(&parcel, &other), Err(SealError::Forged), "it is not passed off as another");
    }

    /// Only what the clinic has signed is believed.
    fn ack(&self, payload: &[u8]) {
        let Ok(ack) = believe(payload, &self.public, ADDRESS.clinic, ADDRESS.box_id) else { return };
        // No reason and an empty one are signed alike; hexadecimal may be in capitals.
        let reason = ack.reason.clone().filter(|reason| !reason.is_empty());
        let signature = ack.signature.to_lowercase();
        assert_eq!(Ack { reason, signature, ..ack }, self.signed, "what was not signed is believed");
    }
}

/// What is inside a parcel; if it is a record, it reads again as it was.
fn inside(packed: &[u8]) -> Result<Record, SealError> {
    let opened = unpack(packed, &ADDRESS);
    match &opened {
        Ok(record) => {
            let json = serde_json::to_vec(record).expect("a record is JSON");
            is_same(record, &unpack(&self::packed(&json), &ADDRESS).expect("a record that was read reads again"));
        }
        Err(why) => assert_eq!(why, &SealError::NoRecord),
    }
    opened
}

/// Compressed without being smaller: one frame of zstd, one block as it is.
fn packed(json: &[u8]) -> Vec<u8> {
    let length = u32::try_from(json.len()).expect("a short input");
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0xa0];
    frame.extend(length.to_le_bytes());
    frame.extend(&((length << 3) | 1).to_le_bytes()[..3]);
    frame.extend(json);
    frame
}

/// Equal, but for the last bit of a number: JSON is read without it.
fn is_same(a: &Record, b: &Record) {
    let value = |record: &Record| serde_json::to_value(record).expect("a record is JSON");
    assert!(a == b || is_close(&value(a), &value(b)), "a record reads again as it was");
}

fn is_close(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (a.as_f64().unwrap_or_default(), b.as_f64().unwrap_or_default());
            a == b || (a - b).abs() <= a.abs() * 1e-12
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_close(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_close(a, b)))
        }
        (a, b) => a == b,
    }
}
