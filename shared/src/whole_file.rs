//! A file that is whole or absent, whoever else makes it and whenever the power goes.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// `write` writes the file beside its place; it is synced and moved to `path`, unless one is there already. Says
/// whether it was moved; either way the file that is there now survives a power cut.
///
/// # Errors
/// What `write` or the file system says; `path` is then as it was, or holds the whole file.
pub fn put<E: From<io::Error>>(path: &Path, write: impl FnOnce(&Path) -> Result<(), E>) -> Result<bool, E> {
    let beside = path.with_added_extension(format!("new-{:016x}", rand::random::<u64>()));
    let moved = write(&beside).and_then(|()| Ok(move_in(&beside, path)?));
    if !matches!(moved, Ok(true)) {
        // What went wrong matters more than what is left of it.
        let _ = fs::remove_file(&beside);
    }
    let moved = moved?;
    sync_folder(path)?;
    Ok(moved)
}

fn move_in(beside: &Path, path: &Path) -> io::Result<bool> {
    File::open(beside)?.sync_all()?;
    match renameat_with(CWD, beside, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(why) => Err(why.into()),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_is_not_replaced_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        assert!(put(&path, |beside| fs::write(beside, b"first")).unwrap());
        assert!(!put(&path, |beside| fs::write(beside, b"second")).unwrap());
        put(&path, |beside| fs::write(beside, b"third").and(Err(io::Error::other("full")))).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
