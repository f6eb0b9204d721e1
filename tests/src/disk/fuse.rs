//! The cache as a file system of one file, for a loop device to lie on.
//!
//! Each time the power comes back the file has another name: whatever still holds the one from before the cut gets no
//! answer but errors, as from a disk without power.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use super::cache::{Cache, Cut};

/// Nothing is to be remembered in between.
const NEVER: Duration = Duration::ZERO;

/// A disk and its power.
#[derive(Debug)]
pub struct Powered {
    /// What it holds.
    pub cache: Cache,
    /// How often the power has gone.
    boots: u64,
    /// Since when there is no power, if there is none.
    off: Option<Duration>,
    size: u64,
    /// The power goes with the write that counts this down to nothing.
    armed: Option<(u32, Cut)>,
}

/// Who shares it: the file system's thread, and the test that pulls the plug.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<Powered>>);

impl Shared {
    /// A disk that is on.
    #[must_use]
    pub fn new(cache: Cache, size: u64) -> Self {
        Self(Arc::new(Mutex::new(Powered { cache, boots: 0, off: None, size, armed: None })))
    }

    /// One request at a time, as the one thread takes them.
    pub fn lock(&self) -> MutexGuard<'_, Powered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing is answered, and what was not flushed is gone or torn.
    pub fn cut(&self, cut: Cut) {
        self.lock().cut(cut);
    }

    /// As [`Shared::cut`], when so many more writes have come, the last of them not answered.
    pub fn cut_after(&self, writes: u32, cut: Cut) {
        self.lock().armed = Some((writes, cut));
    }

    /// Since when there is no power, if there is none.
    pub fn off(&self) -> Option<Duration> {
        self.lock().off
    }

    /// The power is back: the name under which the disk is to be found.
    #[must_use]
    pub fn restore(&self) -> String {
        let mut powered = self.lock();
        powered.boots += u64::from(powered.off.take().is_some());
        powered.name()
    }

    /// What the disk says, if it has power and this is its file.
    fn with<T>(&self, ino: INodeNo, act: impl FnOnce(&mut Powered) -> T) -> Result<T, Errno> {
        let mut powered = self.lock();
        if powered.off.is_some() || ino != powered.ino() {
            return Err(Errno::EIO);
        }
        let done = act(&mut powered);
        if powered.off.is_none() { Ok(done) } else { Err(Errno::EIO) }
    }
}

impl Powered {
    fn cut(&mut self, cut: Cut) {
        self.armed = None;
        // A second cut finds nothing to forget.
        if self.off.is_none() {
            self.off = Some(crate::now());
            self.cache.cut(cut);
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.cache.write(offset, bytes, crate::now());
        match self.armed.take() {
            Some((0 | 1, cut)) => self.cut(cut),
            Some((more, cut)) => self.armed = Some((more - 1, cut)),
            None => {}
        }
    }

    fn name(&self) -> String {
        format!("disk-{}", self.boots)
    }

    fn ino(&self) -> INodeNo {
        INodeNo(2 + self.boots)
    }

    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let is_folder = ino == INodeNo::ROOT;
        let (kind, perm) = if is_folder { (FileType::Directory, 0o700) } else { (FileType::RegularFile, 0o600) };
        FileAttr {
            ino,
            size: if is_folder { 0 } else { self.size },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Shared {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let powered = self.lock();
        if name == OsStr::new(&powered.name()) {
            reply.entry(&NEVER, &powered.attributes(powered.ino()), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&NEVER, &self.lock().attributes(ino));
    }

    /// Past the kernel's page cache, which would keep writes back.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.with(ino, |disk| disk.cache.read(offset, size as usize)) {
            Ok(bytes) => reply.data(&bytes),
            Err(why) => reply.error(why),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.with(ino, |disk| disk.write(offset, bytes)) {
            Ok(()) => reply.written(u32::try_from(bytes.len()).unwrap_or(u32::MAX)),
            Err(why) => reply.error(why),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        match self.with(ino, |disk| disk.cache.flush(crate::now())) {
            Ok(()) => reply.ok(),
            Err(why) => reply.error(why),
        }
    }

    /// Closing is not flushing.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
