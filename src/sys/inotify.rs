//! Hearing of what happens to a file: that a name of it is removed, say.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{check, retry};

/// A queue of news. Files are watched from any thread; one reads.
#[derive(Debug)]
pub(crate) struct Inotify(OwnedFd);

/// Names a watched file. Numbers come again only after billions of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WatchId(i32);

/// What has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    Of(WatchId),
    /// More than the queue holds: any file may have changed.
    Lost,
}

/// Events are four numbers and, of a folder, a name, which we do not watch.
const HEAD: usize = 16;

impl Inotify {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: takes flags; the kernel makes a new descriptor, or says -1.
        let fd = check(unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) })?;
        // SAFETY: the kernel has just made it for us.
        Ok(Inotify(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// From now on there are news when one of the file's names is removed, replaced or moved, by whichever name.
    /// Takes the right to read the file, at this moment.
    pub(crate) fn watch(&self, path: &Path) -> io::Result<WatchId> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let events = libc::IN_ATTRIB | libc::IN_MOVE_SELF | libc::IN_DELETE_SELF | libc::IN_DONT_FOLLOW;
        // SAFETY: a string with its end, which outlives the call.
        let number = check(unsafe { libc::inotify_add_watch(self.0.as_raw_fd(), path.as_ptr(), events) })?;
        Ok(WatchId(number))
    }

    /// Some of what has come since, without waiting for it; nothing if that was all.
    pub(crate) fn read(&self) -> Vec<News> {
        let mut buffer = [0u8; 256 * HEAD];
        let length =
            // SAFETY: the kernel writes to the buffer, no more than its length.
            retry(|| unsafe { libc::read(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) });
        length.map_or_else(|_| Vec::new(), |length| parse(&buffer[..length.unsigned_abs()]))
    }
}

fn parse(events: &[u8]) -> Vec<News> {
    let word =
        |at: usize| events.get(at..at + 4).and_then(|bytes| Some(i32::from_ne_bytes(bytes.try_into().ok()?)));
    let (mut at, mut news) = (0, Vec::new());
    while let (Some(watch), Some(name)) = (word(at), word(at + 12)) {
        news.push(if watch < 0 { News::Lost } else { News::Of(WatchId(watch)) });
        at += HEAD + usize::try_from(name).unwrap_or(0);
    }
    news
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn tells_that_a_name_went_and_nothing_of_the_neighbours() {
        let folder = std::env::temp_dir().join(format!("proteus-inotify-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (one, two, other) = (folder.join("one"), folder.join("two"), folder.join("other"));
        fs::write(&one, "").unwrap();
        let inotify = Inotify::new().unwrap();
        let watch = inotify.watch(&one).unwrap();
        fs::write(&other, "").unwrap();
        fs::remove_file(&other).unwrap();
        assert_eq!(inotify.read(), []);
        fs::hard_link(&one, &two).unwrap();
        fs::remove_file(&one).unwrap();
        assert!(inotify.read().contains(&News::Of(watch)));
        fs::write(&other, "").unwrap();
        fs::rename(&other, &two).unwrap();
        assert!(inotify.read().contains(&News::Of(watch)));
        assert_eq!(inotify.read(), []);
        fs::remove_dir_all(&folder).unwrap();
    }
}
