//! Files that are there whole or not at all.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Error, ErrorKind, Result, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use shared::whole_file;

/// Writes a file in place of whatever is there; a power cut leaves the old one or the new one.
///
/// # Errors
/// Of the file system.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let (folder, beside) = write_beside(path, bytes, mode)?;
    std::fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

/// Writes a file only where there is none.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`], and any of the file system.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    match whole_file::put(path, |beside| write(beside, bytes, mode))? {
        true => Ok(()),
        false => Err(ErrorKind::AlreadyExists.into()),
    }
}

/// Makes a folder and those above it. `mode` is for the last one, if it is new; others belong to others.
///
/// # Errors
/// Of the file system.
pub fn folder(path: &Path, mode: u32) -> Result<()> {
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above)?;
    }
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

fn write_beside<'a>(path: &'a Path, bytes: &[u8], mode: u32) -> Result<(&'a Path, std::path::PathBuf)> {
    let folder = path.parent().ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
    let name = path.file_name().ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
    let beside = folder.join(format!(".{}.{}.new", name.to_string_lossy(), std::process::id()));
    // One that a dead process of the same id left behind.
    if let Err(why) = std::fs::remove_file(&beside)
        && why.kind() != ErrorKind::NotFound
    {
        return Err(why);
    }
    write(&beside, bytes, mode)?;
    Ok((folder, beside))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creating_never_replaces_and_replacing_always_does() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        create(&file, b"one", 0o600).unwrap();
        assert_eq!(create(&file, b"two", 0o600).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&file).unwrap(), b"one");
        replace(&file, b"three", 0o600).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"three");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
