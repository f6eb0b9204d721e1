//! Whether to believe an acknowledgement.

use shared::seal::{Ack, ClinicPublic};

/// Why an acknowledgement is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Disbelief {
    /// It is not an acknowledgement of version 1.
    #[error("It is not an acknowledgement")]
    Malformed,
    /// Other keys than those that this box was told have signed it: of a box that was enrolled earlier or later.
    #[error("It is signed by other keys than this box was told")]
    OtherKeys,
    /// Our clinic has not signed it, or not for this box.
    #[error("It is not signed by our clinic for this box")]
    Forged,
}

/// Reads an acknowledgement that our clinic has signed for this box.
///
/// # Errors
/// [`Disbelief`].
pub fn believe(payload: &[u8], keys: &ClinicPublic, clinic: &str, box_id: &str) -> Result<Ack, Disbelief> {
    let ack: Ack = serde_json::from_slice(payload).map_err(|_| Disbelief::Malformed)?;
    if ack.version != 1 {
        return Err(Disbelief::Malformed);
    }
    match (keys.believes(&ack, clinic, box_id), keys.is_of_others(&ack)) {
        (true, _) => Ok(ack),
        (false, true) => Err(Disbelief::OtherKeys),
        (false, false) => Err(Disbelief::Forged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::seal::{AckResult, ClinicKeys};

    fn ack() -> Ack {
        Ack {
            version: 1,
            session: "7f1f6a0e-9a60-4b0e-8f3c-1d7a2f1f0a11".into(),
            revision: 1,
            sha256: shared::seal::sha256(b"parcel"),
            result: AckResult::Stored,
            reason: None,
            stored_at: "2026-01-01T00:00:00.000Z".into(),
            key_id: String::new(),
            signature: String::new(),
        }
    }

    fn bytes(ack: &Ack) -> Vec<u8> {
        serde_json::to_vec(ack).unwrap()
    }

    #[test]
    fn only_our_clinics_signature_for_this_box_is_believed() {
        let keys = ClinicKeys::generate();
        let (sealing, signing) = keys.public_hex();
        let public = ClinicPublic::from_hex(&sealing, &signing).unwrap();
        let judge = |payload: &[u8]| believe(payload, &public, "north", "room-1");
        let sign = |keys: &ClinicKeys, ack: Ack, box_id| keys.sign(&ack, "north", box_id).remove(0);
        let signed = sign(&keys, ack(), "room-1");
        assert_eq!(judge(&bytes(&signed)), Ok(signed.clone()));
        assert_eq!(judge(&bytes(&ack())), Err(Disbelief::OtherKeys), "unsigned");
        let unsigned = Ack { key_id: signed.key_id.clone(), ..ack() };
        assert_eq!(judge(&bytes(&unsigned)), Err(Disbelief::Forged), "unsigned, by our key's name");
        assert_eq!(judge(&bytes(&sign(&keys, ack(), "room-2"))), Err(Disbelief::Forged), "another box");
        let others = sign(&ClinicKeys::generate(), ack(), "room-1");
        assert_eq!(judge(&bytes(&others)), Err(Disbelief::OtherKeys));
        let altered = Ack { result: AckResult::Refused, ..signed.clone() };
        assert_eq!(judge(&bytes(&altered)), Err(Disbelief::Forged), "altered");
        assert_eq!(judge(b"stored"), Err(Disbelief::Malformed));
        let newer = sign(&keys, Ack { version: 2, ..ack() }, "room-1");
        assert_eq!(judge(&bytes(&newer)), Err(Disbelief::Malformed));
    }
}
