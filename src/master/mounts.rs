//! Which file systems answer by themselves, by the kernel's table of mounts: no file system is asked.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::sys::poll::{Watched, poll};

/// File systems of this machine's own kernel, over no network and behind no other process.
const LOCAL: [&[u8]; 15] = [
    b"ext2",
    b"ext3",
    b"ext4",
    b"xfs",
    b"btrfs",
    b"f2fs",
    b"zfs",
    b"tmpfs",
    b"ramfs",
    b"rootfs",
    b"overlay",
    b"squashfs",
    b"erofs",
    b"proc",
    b"bcachefs",
];

/// The mounts that the calling thread sees, read again when they have changed.
#[derive(Debug)]
pub(super) struct Mounts {
    table: File,
    /// Where something else is mounted; `None` until the table has been read.
    foreign: Option<Vec<PathBuf>>,
}

impl Mounts {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Mounts { table: File::open("/proc/thread-self/mountinfo")?, foreign: None })
    }

    /// Whether these paths, folder by folder, lie on nothing but local file systems: a look at them waits for a disk
    /// at most.
    pub(super) fn are_local<'a>(&mut self, paths: impl IntoIterator<Item = &'a Path>) -> bool {
        let Ok(foreign) = self.foreign() else { return false };
        paths.into_iter().all(|path| !foreign.iter().any(|mount| path.starts_with(mount)))
    }

    fn foreign(&mut self) -> io::Result<&[PathBuf]> {
        // The kernel says once that the table has changed: to be forgotten before it is read.
        let mut watched = [Watched::new(self.table.as_fd(), false, false)];
        poll(&mut watched, Some(Duration::ZERO))?;
        if watched[0].is_lost() {
            self.foreign = None;
        }
        let foreign = match self.foreign.take() {
            Some(foreign) => foreign,
            None => self.read()?,
        };
        Ok(self.foreign.insert(foreign))
    }

    fn read(&mut self) -> io::Result<Vec<PathBuf>> {
        let mut text = Vec::new();
        self.table.rewind()?;
        self.table.read_to_end(&mut text)?;
        Ok(foreign_of(&text))
    }
}

/// The mount points of what is not local. A line that cannot be read counts as the whole tree.
fn foreign_of(table: &[u8]) -> Vec<PathBuf> {
    let lines = table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let foreign = lines.filter_map(|line| match mount(line) {
        Some((_, kind)) if LOCAL.contains(&kind) => None,
        Some((point, _)) => Some(PathBuf::from(OsString::from_vec(unescaped(point)))),
        None => Some("/".into()),
    });
    foreign.collect()
}

/// Where a line says that something is mounted, and what:
/// `ID PARENT DEVICE ROOT POINT OPTIONS… - TYPE SOURCE OPTIONS`.
fn mount(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut words = line.split(|byte| *byte == b' ');
    let point = words.nth(4)?;
    let kind = words.skip_while(|word| *word != b"-").nth(1)?;
    Some((point, kind))
}

/// The kernel writes blanks and the like as `\040`.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let code = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let code = code.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        plain.push(code.unwrap_or(*first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_under_a_foreign_mount_is_foreign() {
        let table = b"21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
            22 21 0:5 / /proc rw - proc proc rw\n\
            40 21 0:40 / /mnt/my\\040share rw master:1 shared:2 - nfs4 host:/x rw\n\
            41 21 0:41 / /srv/app rw - fuse.sshfs host:/y rw\n";
        assert_eq!(foreign_of(table), [Path::new("/mnt/my share"), Path::new("/srv/app")]);
        assert_eq!(foreign_of(b"what is this\n"), [Path::new("/")]);
    }

    #[test]
    fn the_table_of_this_machine_is_read() {
        let mut mounts = Mounts::open().unwrap();
        assert!(mounts.are_local([Path::new("/proc/self")]));
        assert!(!mounts.are_local([Path::new("/sys/kernel")]), "not in the list");
    }
}
