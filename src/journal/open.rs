//! One open log file: how it comes into being, what is written to it, and whether its path still leads to it.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::site::{Leads, Site};
use crate::sys::write::write_waiting;

/// The mode of a log file that has none before it: for its owner, and to be read by its group.
const MODE: u32 = 0o640;

/// What lies at the path of the log file, opened for writing at its end.
#[derive(Debug)]
pub(super) struct Open {
    file: File,
    /// Its name in the series.
    pub(super) name: String,
    /// The path as it was given, which may be a link.
    path: PathBuf,
    pub(super) kind: Kind,
}

/// Whether it makes way for a new one when it is full.
#[derive(Debug)]
pub(super) enum Kind {
    /// It does, here; and so big it is by now.
    Rotated { site: Site, size: u64 },
    /// It does not, for this reason.
    Lasting(String),
}

/// Mode and owner of a log file, for the one that follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looks {
    mode: u32,
    user: u32,
    group: u32,
}

/// Where the path leads by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    Here,
    /// To another file, or to a folder that cannot be looked into.
    Elsewhere,
    /// To nothing.
    Nowhere,
}

impl Open {
    /// Opens what lies there, or makes a new file that looks like the one before.
    ///
    /// The second value is why it could not be made to look so.
    pub(super) fn at(
        path: PathBuf,
        name: String,
        before: Option<Looks>,
    ) -> io::Result<(Self, Option<io::Error>)> {
        let leads = Leads::from(&path)?;
        let place = match &leads {
            Leads::To(site) => site.path(),
            Leads::Into(_) | Leads::Unnamed => path.clone(),
        };
        let (file, unlike) = open_or_create(&place, before)?;
        let found = file.metadata()?;
        let kind = match leads {
            _ if !found.is_file() => Kind::Lasting("it is no regular file".into()),
            Leads::To(site) => Kind::Rotated { site, size: found.len() },
            Leads::Into(realm) => Kind::Lasting(format!("it leads into {realm}")),
            Leads::Unnamed => Kind::Lasting("its name is not UTF-8".into()),
        };
        Ok((Open { file, name, path, kind }, unlike))
    }

    /// Looks at the path and at the file, whose size may have become smaller.
    pub(super) fn look(&mut self) -> Whereabouts {
        let Ok(own) = self.file.metadata() else { return Whereabouts::Here };
        if let Kind::Rotated { size, .. } = &mut self.kind {
            *size = own.len();
        }
        match fs::metadata(&self.path) {
            Ok(found) if (found.dev(), found.ino()) == (own.dev(), own.ino()) => Whereabouts::Here,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Whereabouts::Nowhere,
            Ok(_) | Err(_) => Whereabouts::Elsewhere,
        }
    }

    /// Waits for something to lie at the path, looking so often.
    pub(super) fn wait_for_next(&self, limit: Duration, step: Duration) {
        let until = Instant::now() + limit;
        while !self.path.exists() && Instant::now() < until {
            thread::sleep(step);
        }
    }

    /// For the next one.
    pub(super) fn looks(&self) -> Option<Looks> {
        Looks::of(&self.file.metadata().ok()?)
    }

    /// On failure, how many bytes of whole lines have gone; half a line is taken back.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut sent = 0;
        while sent < lines.len() {
            match write_waiting(self.file.as_fd(), &lines[sent..]) {
                Ok(0) => return Err((self.take_back(&lines[..sent]), io::ErrorKind::WriteZero.into())),
                Ok(count) => sent += count,
                Err(cause) => return Err((self.take_back(&lines[..sent]), cause)),
            }
        }
        self.grow(sent);
        Ok(())
    }

    /// By the size that the file has now: somebody may have truncated it, and then it must not be made longer.
    fn take_back(&mut self, sent: &[u8]) -> usize {
        let whole = sent.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.grow(whole);
        let half = (sent.len() - whole) as u64;
        if half > 0
            && let Ok(found) = self.file.metadata()
            && let Some(end) = found.len().checked_sub(half).filter(|_| found.is_file())
        {
            // Where even that fails, the next line follows half a one.
            drop(self.file.set_len(end));
        }
        whole
    }

    /// What it holds, where that bounds it.
    pub(super) fn size(&self) -> Option<u64> {
        match &self.kind {
            Kind::Rotated { size, .. } => Some(*size),
            Kind::Lasting(_) => None,
        }
    }

    fn grow(&mut self, bytes: usize) {
        if let Kind::Rotated { size, .. } = &mut self.kind {
            *size += bytes as u64;
        }
    }

    pub(super) fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.nlink() == 0)
    }
}

/// What is there stays as it is.
fn open_or_create(path: &Path, before: Option<Looks>) -> io::Result<(File, Option<io::Error>)> {
    let mut options = OpenOptions::new();
    // A pipe without a reader must not hold the thread, and no terminal becomes ours.
    options.append(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return Ok((opened?, None)),
    }
    // Nobody may read it before it looks as it should.
    let mode = if before.is_some() { 0o600 } else { MODE };
    match options.clone().create_new(true).mode(mode).open(path) {
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok((options.open(path)?, None)),
        created => {
            let file = created?;
            let unlike = before.and_then(|looks| looks.give_to(&file).err());
            Ok((file, unlike))
        }
    }
}

impl Looks {
    /// Of a regular file; other things say nothing about how one should look.
    pub(super) fn of(found: &Metadata) -> Option<Self> {
        let looks = Looks { mode: found.mode() & 0o777, user: found.uid(), group: found.gid() };
        found.is_file().then_some(looks)
    }

    /// Where the owner cannot be given, a strange group gets no more than all others.
    fn give_to(self, file: &File) -> io::Result<()> {
        let found = file.metadata()?;
        let given = |is_there: bool, user, group| if is_there { Ok(()) } else { fchown(file, user, group) };
        let group = given(self.group == found.gid(), None, Some(self.group));
        let user = given(self.user == found.uid(), Some(self.user), None);
        let for_all = self.mode & 0o007;
        let mode = if group.is_ok() { self.mode } else { self.mode & !0o070 | for_all << 3 };
        file.set_permissions(Permissions::from_mode(mode))?;
        user.and(group)
    }
}
