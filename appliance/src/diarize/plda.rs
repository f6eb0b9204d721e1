//! A PLDA: where embeddings of one voice model lie, if what tells speakers apart is to count and the rest is not.
//!
//!   embedding ─▶ − mean1, length √takes ─▶ · lda − mean2, length √gives ─▶ − mu, · trᵀ ─▶ features
//!
//! As pyannote.audio 4 reads and uses the two files of its community-1 (`vbx_setup` in `pyannote/audio/utils/vbx.py`, by
//! BUT Speech@FIT and Hervé Bredin). There the last step is found as the generalised eigenvectors of `B` and `W`,
//! W = (TᵀT)⁻¹ and B = (Tᵀ Ψ⁻¹ T)⁻¹ for T = `tr` and Ψ = diag `psi`. These need not be searched for: with V = Tᵀ, VᵀWV
//! is the unit matrix and VᵀBV is Ψ, so that they are the rows of `tr`, and the eigenvalues are `psi`, from the largest
//! down. The search finds the same but for rounding and the signs of rows, which it leaves to chance. VBx does not see a
//! sign: that of a column of features is that of the same column of every speaker's mean.

use super::npz::{Array, Npz, NpzError};

/// What a file or an array of a PLDA has that it should not, or the reverse. Tells names and shapes, no content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PldaError {
    /// A file is not what `np.savez` makes.
    #[error("{file} {why}")]
    File {
        /// Its name at pyannote's.
        file: &'static str,
        /// What about it.
        why: NpzError,
    },
    /// An array cannot be read.
    #[error("the array {array} of {file} {why}")]
    Array {
        /// Of which file.
        file: &'static str,
        /// Its name.
        array: &'static str,
        /// What about it.
        why: NpzError,
    },
    /// An array does not fit the others.
    #[error("the array {array} has the shape {found:?}, and should have {expected:?}")]
    Shape {
        /// Its name.
        array: &'static str,
        /// As it is.
        found: Vec<usize>,
        /// As the means have it.
        expected: Vec<usize>,
    },
    /// An array holds an infinity, or what is no number.
    #[error("the array {array} is not finite")]
    NotFinite {
        /// Its name.
        array: &'static str,
    },
    /// A variance is not above 0.
    #[error("the array psi is not positive")]
    NotPositive,
    /// The rows of the transform depend on each other.
    #[error("the array tr is singular")]
    Singular,
}

/// See the top of the file.
#[derive(Debug, Clone, PartialEq)]
pub struct Plda {
    mean1: Vec<f64>,
    /// One row a number of the embedding.
    lda: Vec<Vec<f64>>,
    mean2: Vec<f64>,
    mu: Vec<f64>,
    /// One row a feature, that of the largest variance first.
    tr: Vec<Vec<f64>>,
    phi: Vec<f64>,
}

struct File<'a>(&'static str, Npz<'a>);

impl<'a> File<'a> {
    fn open(file: &'static str, bytes: &'a [u8]) -> Result<Self, PldaError> {
        Npz::open(bytes).map(|npz| Self(file, npz)).map_err(|why| PldaError::File { file, why })
    }

    fn array(&mut self, array: &'static str) -> Result<Array, PldaError> {
        self.1.array(array).map_err(|why| PldaError::Array { file: self.0, array, why })
    }
}

fn check(array: &'static str, found: &Array, expected: &[usize]) -> Result<(), PldaError> {
    if found.shape != expected {
        return Err(PldaError::Shape { array, found: found.shape.clone(), expected: expected.to_vec() });
    }
    if found.values.iter().all(|v| v.is_finite()) { Ok(()) } else { Err(PldaError::NotFinite { array }) }
}

impl Plda {
    /// Of the bytes of `xvec_transform.npz` (`mean1` [takes], `mean2` [gives], `lda` [takes, gives]) and of `plda.npz`
    /// (`mu` [gives], `tr` [gives, gives], `psi` [gives]).
    ///
    /// # Errors
    /// Every [`PldaError`].
    pub fn read(transform_npz: &[u8], plda_npz: &[u8]) -> Result<Self, PldaError> {
        let mut file = File::open("xvec_transform.npz", transform_npz)?;
        let (mean1, mean2, lda) = (file.array("mean1")?, file.array("mean2")?, file.array("lda")?);
        let mut file = File::open("plda.npz", plda_npz)?;
        let (mu, tr, psi) = (file.array("mu")?, file.array("tr")?, file.array("psi")?);
        // None is empty.
        let (takes, gives) = (mean1.values.len().max(1), mean2.values.len().max(1));
        check("mean1", &mean1, &[takes])?;
        check("mean2", &mean2, &[gives])?;
        check("lda", &lda, &[takes, gives])?;
        check("mu", &mu, &[gives])?;
        check("tr", &tr, &[gives, gives])?;
        check("psi", &psi, &[gives])?;
        if psi.values.iter().any(|v| *v <= 0.0) {
            return Err(PldaError::NotPositive);
        }
        let rows = |matrix: &Array| matrix.values.chunks_exact(gives).map(<[f64]>::to_vec).collect::<Vec<_>>();
        if !is_invertible(rows(&tr)) {
            return Err(PldaError::Singular);
        }
        let mut sorted: Vec<(f64, Vec<f64>)> = psi.values.into_iter().zip(rows(&tr)).collect();
        sorted.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let lda = rows(&lda);
        let (phi, tr) = sorted.into_iter().unzip();
        Ok(Self { mean1: mean1.values, lda, mean2: mean2.values, mu: mu.values, tr, phi })
    }

    /// Of how many numbers the embeddings are that it takes.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.mean1.len()
    }

    /// The variance between speakers of each column of [`Plda::features`], that within speakers being 1; the largest
    /// first.
    #[must_use]
    pub fn phi(&self) -> &[f64] {
        &self.phi
    }

    /// One row for each of `vectors`, which are embeddings as the voice model gives them, of any length, and of
    /// [`Plda::dimension`] numbers: of another they mean nothing here.
    #[must_use]
    pub fn features(&self, vectors: &[&[f32]]) -> Vec<Vec<f64>> {
        vectors.iter().map(|vector| self.feature(vector)).collect()
    }

    fn feature(&self, vector: &[f32]) -> Vec<f64> {
        let inner = scaled(vector.iter().zip(&self.mean1).map(|(v, mean)| f64::from(*v) - mean).collect());
        let mut projected: Vec<f64> = self.mean2.iter().map(|mean| -mean).collect();
        for (v, row) in inner.iter().zip(&self.lda) {
            projected.iter_mut().zip(row).for_each(|(sum, weight)| *sum += v * weight);
        }
        let outer: Vec<f64> = scaled(projected).into_iter().zip(&self.mu).map(|(v, mean)| v - mean).collect();
        self.tr.iter().map(|row| row.iter().zip(&outer).map(|(a, b)| a * b).sum()).collect()
    }
}

/// As long as the root of how many numbers it has; nothing stays nothing.
fn scaled(mut vector: Vec<f64>) -> Vec<f64> {
    let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
    let factor = (vector.len() as f64).sqrt() / length;
    vector.iter_mut().for_each(|v| *v *= factor);
    vector
}

/// Whether the rows of a square matrix are independent: elimination by the largest number of each column.
fn is_invertible(mut rows: Vec<Vec<f64>>) -> bool {
    let largest = rows.iter().flatten().fold(0.0, |most: f64, v| most.max(v.abs()));
    let nothing = largest * rows.len() as f64 * f64::EPSILON;
    for column in 0..rows.len() {
        let size = |row: &usize| rows[*row][column].abs();
        let pivot = (column..rows.len()).max_by(|a, b| size(a).total_cmp(&size(b))).unwrap_or(column);
        rows.swap(column, pivot);
        let (done, left) = rows.split_at_mut(column + 1);
        let pivot = &done[column];
        if pivot[column].abs() <= nothing {
            return false;
        }
        for row in left {
            let factor = row[column] / pivot[column];
            row.iter_mut().zip(pivot).for_each(|(v, p)| *v -= factor * p);
        }
    }
    true
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::diarize::vbx::{Scaling, vbx};

    fn file(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/diarization/plda/");
        std::fs::read(format!("{folder}{name}")).unwrap()
    }

    fn rows(case: &serde_json::Value) -> Vec<Vec<f64>> {
        serde_json::from_value(case.clone()).unwrap()
    }

    /// The fixture's, with its embeddings: two voices, three of each.
    pub(crate) fn fixture() -> (Plda, Vec<Vec<f32>>, serde_json::Value) {
        let case: serde_json::Value = serde_json::from_slice(&file("expected.json")).unwrap();
        let embeddings = serde_json::from_value(case["embeddings"].clone()).unwrap();
        (Plda::read(&file("xvec_transform.npz"), &file("plda.npz")).unwrap(), embeddings, case)
    }

    fn close(ours: &[f64], theirs: impl Iterator<Item = f64>) -> bool {
        ours.iter().zip(theirs).all(|(a, b)| (a - b).abs() < 1e-9)
    }

    #[test]
    fn features_and_variances_are_those_of_pyannote_but_for_signs() {
        let (plda, embeddings, case) = fixture();
        assert_eq!((plda.dimension(), plda.phi().len()), (16, 8));
        let phi: Vec<f64> = serde_json::from_value(case["phi"].clone()).unwrap();
        assert!(close(plda.phi(), phi.into_iter()));
        let vectors: Vec<&[f32]> = embeddings.iter().map(Vec::as_slice).collect();
        let (ours, theirs) = (plda.features(&vectors), rows(&case["features"]));
        assert_eq!((ours.len(), theirs.len()), (6, 6));
        for column in 0..8 {
            let mine: Vec<f64> = ours.iter().map(|row| row[column]).collect();
            let other = |sign: f64| theirs.iter().map(move |row| sign * row[column]);
            assert!(close(&mine, other(1.0)) || close(&mine, other(-1.0)), "column {column}");
        }
    }

    #[test]
    fn vbx_does_not_see_the_sign_of_a_column() {
        let (plda, embeddings, _) = fixture();
        let vectors: Vec<&[f32]> = embeddings.iter().map(Vec::as_slice).collect();
        let mut features = plda.features(&vectors);
        let scaling = Scaling { acoustic: 0.07, speaker: 0.8 };
        let found = vbx(&features, plda.phi(), &[0, 0, 1, 1, 2, 2], scaling);
        features.iter_mut().for_each(|row| row.iter_mut().step_by(2).for_each(|v| *v = -*v));
        let turned = vbx(&features, plda.phi(), &[0, 0, 1, 1, 2, 2], scaling);
        assert!(found.gamma.iter().zip(&turned.gamma).all(|(a, b)| close(a, b.iter().copied())));
    }

    #[test]
    fn an_embedding_that_is_the_mean_gives_numbers() {
        let (plda, _, _) = fixture();
        let mean: Vec<f32> = plda.mean1.iter().map(|v| *v as f32).collect();
        assert!(plda.features(&[&mean, &[0.0; 16]]).iter().flatten().all(|v| v.is_finite()));
        assert_eq!(scaled(vec![0.0; 3]), [0.0; 3]);
    }

    type Arrays = Vec<(&'static str, Vec<usize>, Vec<f64>)>;

    /// A stored ZIP of arrays, as `np.savez` makes it.
    fn npz(arrays: &Arrays) -> Vec<u8> {
        use std::io::Write as _;
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (name, shape, values) in arrays {
            let axes: String = shape.iter().map(|n| format!("{n}, ")).collect();
            let header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({axes}), }}");
            writer.start_file(format!("{name}.npy"), stored).unwrap();
            writer.write_all(b"\x93NUMPY\x01\x00").unwrap();
            writer.write_all(&u16::try_from(header.len()).unwrap().to_le_bytes()).unwrap();
            writer.write_all(header.as_bytes()).unwrap();
            values.iter().for_each(|v| writer.write_all(&v.to_le_bytes()).unwrap());
        }
        writer.finish().unwrap().into_inner()
    }

    /// Reads a sound PLDA of 3 numbers to 2 that `spoil` changed.
    fn spoilt(spoil: impl Fn(&mut Arrays, &mut Arrays)) -> Result<Plda, PldaError> {
        let mut transform = vec![
            ("mean1", vec![3], vec![0.0; 3]),
            ("mean2", vec![2], vec![0.0; 2]),
            ("lda", vec![3, 2], vec![1.0, 0.0, 0.0, 1.0, 0.0, 0.0]),
        ];
        let mut plda = vec![
            ("mu", vec![2], vec![0.0; 2]),
            ("tr", vec![2, 2], vec![0.0, 1.0, 2.0, 1.0]),
            ("psi", vec![2], vec![1.0, 4.0]),
        ];
        spoil(&mut transform, &mut plda);
        Plda::read(&npz(&transform), &npz(&plda))
    }

    #[test]
    fn the_largest_variance_comes_first_with_its_row() {
        let plda = spoilt(|_, _| ()).unwrap();
        assert_eq!((plda.phi(), plda.tr.concat().as_slice()), (&[4.0, 1.0][..], &[2.0, 1.0, 0.0, 1.0][..]));
    }

    #[test]
    fn what_is_wrong_with_an_array_is_named() {
        let problem = |spoil: fn(&mut Arrays, &mut Arrays)| spoilt(spoil).unwrap_err().to_string();
        assert_eq!(problem(|t, _| drop(t.pop())), "the array lda of xvec_transform.npz is missing");
        assert_eq!(problem(|_, p| drop(p.remove(1))), "the array tr of plda.npz is missing");
        let turned = problem(|t, _| t[2].1 = vec![2, 3]);
        assert_eq!(turned, "the array lda has the shape [2, 3], and should have [3, 2]");
        assert_eq!(
            problem(|_, p| p[0] = ("mu", vec![1], vec![0.0])),
            "the array mu has the shape [1], and should have [2]"
        );
        assert_eq!(
            problem(|t, _| t[0] = ("mean1", vec![0], vec![])),
            "the array mean1 has the shape [0], and should have [1]"
        );
        assert_eq!(problem(|_, p| p[1].2[3] = f64::NAN), "the array tr is not finite");
        assert_eq!(problem(|t, _| t[1].2[0] = f64::INFINITY), "the array mean2 is not finite");
        assert_eq!(problem(|_, p| p[2].2[0] = 0.0), "the array psi is not positive");
        assert_eq!(problem(|_, p| p[1].2 = vec![1.0, 2.0, 2.0, 4.0]), "the array tr is singular");
        assert_eq!(problem(|_, p| p[1].2 = vec![0.0; 4]), "the array tr is singular");
        let swapped = Plda::read(&file("plda.npz"), &file("xvec_transform.npz")).unwrap_err().to_string();
        assert_eq!(swapped, "the array mean1 of xvec_transform.npz is missing");
        let none = Plda::read(&file("xvec_transform.npz"), b"").unwrap_err().to_string();
        assert_eq!(none, "plda.npz is no archive of arrays");
    }
}
