//! `NumPy`'s archives of arrays (`np.savez`), as far as a PLDA's files need them: not compressed, of floats. No I/O.
//!
//! The format of an array is that of `numpy.lib.format`: magic, version, length of the header, a Python dictionary,
//! values. The container is a ZIP. Nothing is allocated that the bytes given do not hold: a compressed member is refused
//! unread, and a shape is believed only if the values that follow are as many.

use std::io::{Cursor, Read as _};

use zip::{CompressionMethod, ZipArchive};

/// Bytes of the largest archive that is read; those of pyannote's community-1 have 134 kB.
pub const MOST: usize = 1 << 20;

/// Why an archive, or an array of it, cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NpzError {
    /// Longer than [`MOST`].
    #[error("is too large")]
    TooLarge,
    /// Not a ZIP.
    #[error("is no archive of arrays")]
    NotAnArchive,
    /// The archive has nothing of this name.
    #[error("is missing")]
    Missing,
    /// `np.savez` makes neither.
    #[error("is compressed or encrypted")]
    Packed,
    /// It ends too soon, has another checksum, or is not in `NumPy`'s format.
    #[error("is damaged")]
    Damaged,
    /// Numbers of another type.
    #[error("holds other numbers than floats of 32 or 64 bits, little-endian")]
    OtherType,
}

/// An array, in C's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// How many along each axis.
    pub shape: Vec<usize>,
    /// The last axis runs fastest.
    pub values: Vec<f64>,
}

/// An archive that was opened.
pub struct Npz<'a>(ZipArchive<Cursor<&'a [u8]>>);

impl<'a> Npz<'a> {
    /// # Errors
    /// [`NpzError::TooLarge`], [`NpzError::NotAnArchive`].
    pub fn open(bytes: &'a [u8]) -> Result<Self, NpzError> {
        if bytes.len() > MOST {
            return Err(NpzError::TooLarge);
        }
        ZipArchive::new(Cursor::new(bytes)).map(Self).map_err(|_| NpzError::NotAnArchive)
    }

    /// The array `name`.
    ///
    /// # Errors
    /// Every [`NpzError`] but the two of [`Npz::open`].
    pub fn array(&mut self, name: &str) -> Result<Array, NpzError> {
        let at = self.0.index_for_name(&format!("{name}.npy")).ok_or(NpzError::Missing)?;
        let packed = self.0.by_index_raw(at).map_err(|_| NpzError::Damaged)?;
        if packed.compression() != CompressionMethod::Stored || packed.encrypted() {
            return Err(NpzError::Packed);
        }
        drop(packed);
        let member = self.0.by_index(at).map_err(|_| NpzError::Damaged)?;
        let mut bytes = Vec::new();
        member.take(MOST as u64).read_to_end(&mut bytes).map_err(|_| NpzError::Damaged)?;
        parse(&bytes)
    }
}

fn parse(bytes: &[u8]) -> Result<Array, NpzError> {
    let (header, data) = split(bytes).ok_or(NpzError::Damaged)?;
    let values: Vec<f64> = match between(header, "'descr': '", '\'').ok_or(NpzError::OtherType)? {
        "<f8" => exact(data)?.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect(),
        "<f4" => exact(data)?.iter().map(|bytes| f32::from_le_bytes(*bytes).into()).collect(),
        _ => return Err(NpzError::OtherType),
    };
    let shape = between(header, "'shape': (", ')').and_then(shape).ok_or(NpzError::Damaged)?;
    if shape.iter().try_fold(1, |all: usize, n| all.checked_mul(*n)) != Some(values.len()) {
        return Err(NpzError::Damaged);
    }
    match (between(header, "'fortran_order': ", ','), shape.as_slice()) {
        (Some("True"), &[rows, columns]) => {
            let at = |n: usize| values[n % columns * rows + n / columns];
            Ok(Array { values: (0..values.len()).map(at).collect(), shape })
        }
        (Some("True" | "False"), _) => Ok(Array { shape, values }),
        (Some(_) | None, _) => Err(NpzError::Damaged),
    }
}

/// Header and values. The header's length has two bytes, from version 2 on four.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (version, rest) = bytes.strip_prefix(b"\x93NUMPY")?.split_first_chunk::<2>()?;
    let (length, rest) = match version[0] {
        1 => rest.split_first_chunk().map(|(n, rest)| (u16::from_le_bytes(*n).into(), rest))?,
        2 | 3 => rest.split_first_chunk().map(|(n, rest)| (u32::from_le_bytes(*n), rest))?,
        _ => return None,
    };
    let (header, values) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((std::str::from_utf8(header).ok()?, values))
}

fn between<'a>(header: &'a str, start: &str, end: char) -> Option<&'a str> {
    let (_, rest) = header.split_once(start)?;
    rest.split_once(end).map(|(found, _)| found)
}

/// Of `128, 128` or `128,`.
fn shape(text: &str) -> Option<Vec<usize>> {
    text.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().ok()).collect()
}

/// Numbers of so many bytes, and nothing left.
fn exact<const N: usize>(data: &[u8]) -> Result<&[[u8; N]], NpzError> {
    let (numbers, rest) = data.as_chunks();
    if rest.is_empty() { Ok(numbers) } else { Err(NpzError::Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(header: &str, values: &[u8]) -> Result<Array, NpzError> {
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        parse(&[b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), values].concat())
    }

    fn bytes(values: &[f64]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn both_orders_and_both_sizes_of_a_matrix_are_read_alike() {
        let expected = Ok(Array { shape: vec![2, 3], values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] });
        let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3), }\n";
        assert_eq!(array(header, &bytes(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])), expected);
        let header = "{'descr': '<f8', 'fortran_order': True, 'shape': (2, 3), }\n";
        assert_eq!(array(header, &bytes(&[1.0, 4.0, 2.0, 5.0, 3.0, 6.0])), expected);
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";
        let small: Vec<u8> = (1..=6u8).flat_map(|n| f32::from(n).to_le_bytes()).collect();
        assert_eq!(array(header, &small), expected);
    }

    #[test]
    fn a_shape_is_believed_only_if_so_many_values_follow() {
        for shape in ["(4, 2)", "(7,)", "(18446744073709551615, 2)", "(-1,)", "(a,)", "(99999999999999999999,)"] {
            let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}");
            assert_eq!(array(&header, &bytes(&[1.0; 6])), Err(NpzError::Damaged), "{shape}");
        }
        let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }";
        assert_eq!(array(header, &[0; 9]), Err(NpzError::Damaged), "half a number");
    }

    #[test]
    fn what_is_no_array_of_floats_is_refused() {
        for descr in ["'>f8'", "'<i8'", "'|O'", "[('a', '<f8')]"] {
            let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}");
            assert_eq!(array(&header, &[0; 8]), Err(NpzError::OtherType), "{descr}");
        }
        assert_eq!(array("{'descr': '<f8', 'shape': (1,), }", &[0; 8]), Err(NpzError::Damaged));
        for bytes in [&b""[..], b"\x93NUMPY", b"\x93NUMPY\x09\x00\x01\x00 ", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"] {
            assert_eq!(parse(bytes), Err(NpzError::Damaged), "{bytes:?}");
        }
    }

    #[test]
    fn a_compressed_member_and_one_that_changed_are_refused() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/diarization/plda/");
        let sound = std::fs::read(format!("{folder}plda.npz")).unwrap();
        assert_eq!(Npz::open(&sound).unwrap().array("mu").unwrap().shape, [8]);
        assert_eq!(Npz::open(&sound).unwrap().array("lda"), Err(NpzError::Missing));
        assert_eq!(Npz::open(b"no archive").err(), Some(NpzError::NotAnArchive));
        assert_eq!(Npz::open(&vec![0; MOST + 1]).err(), Some(NpzError::TooLarge));
        assert_eq!(Npz::open(&sound[..sound.len() / 2]).err(), Some(NpzError::NotAnArchive));
        // Among the eight values of the first member, which stand behind its two headers.
        let mut changed = sound.clone();
        changed[200] ^= 1;
        assert_eq!(Npz::open(&changed).unwrap().array("mu"), Err(NpzError::Damaged));
        // The method of compression stands at 8 in a member's own header, and at 10 in the directory's.
        let mut deflated = sound;
        for at in 0..deflated.len() - 4 {
            match &deflated[at..at + 4] {
                b"PK\x03\x04" => deflated[at + 8] = 8,
                b"PK\x01\x02" => deflated[at + 10] = 8,
                _ => {}
            }
        }
        assert_eq!(Npz::open(&deflated).unwrap().array("mu"), Err(NpzError::Packed));
    }
}
