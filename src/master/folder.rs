//! Files and folders as a path led to them once: found again when the path leads elsewhere by then.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What the kernel adds to the name of what is nowhere.
const DELETED: &[u8] = b" (deleted)";

/// Device and inode. The same file may lie in several folders, by hard links: those tell releases apart.
type Identity = (u64, u64);

/// An open folder: the same one wherever it is moved, and whatever lies at its path by then.
#[derive(Debug)]
pub(super) struct Folder {
    open: File,
    identity: Identity,
    /// Where it lay, without links.
    path: PathBuf,
    /// The kernel's name for it can be used as a path here.
    has_name: bool,
}

impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let open = open_path(path, libc::O_DIRECTORY)?;
        let identity = identity(&open.metadata()?);
        let named = named_by_the_kernel(&open).filter(|named| identity_of(named) == Some(identity));
        let (path, has_name) = match named {
            Some(named) => (named, true),
            None => (fs::canonicalize(path)?, false),
        };
        Ok(Folder { open, identity, path, has_name })
    }

    /// Where it lies now; where it lay, if it is nowhere. Asks no file system.
    pub(super) fn path(&self) -> PathBuf {
        let named = named_by_the_kernel(&self.open).filter(|_| self.has_name);
        named
            .filter(|path| !path.as_os_str().as_bytes().ends_with(DELETED))
            .unwrap_or_else(|| self.path.clone())
    }

    /// Whether the path leads to it.
    fn is_at(&self, path: &Path) -> bool {
        identity_of(path) == Some(self.identity)
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.open.as_fd()
    }
}

/// A file, by its name in a folder.
#[derive(Debug)]
struct Spot {
    folder: Folder,
    name: OsString,
}

impl Spot {
    fn open(path: &Path) -> io::Result<Self> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::from_raw_os_error(libc::EISDIR));
        };
        Ok(Spot { folder: Folder::open(folder)?, name: name.to_owned() })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }
}

/// An open file, without the right to read it, and where it lay.
#[derive(Debug)]
pub(super) struct Found {
    open: File,
    identity: Identity,
    /// The folders of its path are resolved, a link that is its last part is kept: a program may look for what
    /// belongs to it from there, as Python does in a virtual environment.
    spot: Spot,
    /// Where that last link led to.
    behind: Option<Spot>,
}

impl Found {
    /// An absolute path.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Metadata)> {
        let spot = Spot::open(path)?;
        let path = spot.path();
        let open = open_path(&path, 0)?;
        let metadata = open.metadata()?;
        let behind = named_by_the_kernel(&open).filter(|real| *real != path);
        let behind = behind.map(|real| Spot::open(&real)).transpose()?;
        Ok((Found { open, identity: identity(&metadata), spot, behind }, metadata))
    }

    /// Whether the last part of its path was a link, which may lead elsewhere by now.
    pub(super) fn is_behind_a_link(&self) -> bool {
        self.behind.is_some()
    }

    /// Every path by which it is looked for.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let spots = [Some(&self.spot), self.behind.as_ref()].into_iter().flatten();
        spots.map(|spot| &*spot.folder.path)
    }

    /// A path that leads to it now, if one does.
    pub(super) fn now(&self) -> Option<PathBuf> {
        let leads = |path: &PathBuf| identity_of(path) == Some(self.identity);
        [Some(&self.spot), self.behind.as_ref()].into_iter().flatten().map(Spot::path).find(leads)
    }

    /// Where the last link of its path led to, if that was one.
    pub(super) fn real_then(&self) -> PathBuf {
        let spot = self.behind.as_ref().unwrap_or(&self.spot);
        spot.folder.path.join(&spot.name)
    }

    /// What it is called, whether it is still there or not. Asks no file system.
    pub(super) fn path(&self) -> PathBuf {
        self.spot.path()
    }

    /// Reads it from its beginning, which blocks on no FIFO.
    pub(super) fn reopen(&self) -> io::Result<File> {
        let path = descriptor_path(&self.open);
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
    }
}

impl AsFd for Found {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.open.as_fd()
    }
}

/// The folders that the paths of a program lead through, by the names that they have there: what else names them so
/// belongs to the same release.
#[derive(Debug, Default)]
pub(super) struct Links(Vec<Link>);

#[derive(Debug)]
struct Link {
    written: PathBuf,
    folder: Folder,
    is_symlink: bool,
}

impl Links {
    /// As they are written, and where they led.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().flat_map(|link| [&*link.written, &*link.folder.path])
    }

    /// Takes in the folders of an absolute path, as it is written.
    pub(super) fn add(&mut self, folder: &Path) -> io::Result<()> {
        for written in folder.ancestors() {
            let is_symlink = fs::symlink_metadata(written).is_ok_and(|metadata| metadata.is_symlink());
            // `/bin` and the like lead nowhere else tomorrow.
            let at_root = written.parent().is_none_or(|parent| parent.parent().is_none());
            let is_known = self.0.iter().any(|link| link.written == written);
            if !is_known && (is_symlink && !at_root || !is_symlink && written == folder) {
                let (written, folder) = (written.to_owned(), Folder::open(written)?);
                self.0.push(Link { written, folder, is_symlink });
            }
        }
        self.0.sort_by_key(|link| std::cmp::Reverse(link.written.as_os_str().len()));
        Ok(())
    }

    /// Whether each of them leads to where it led when it was added.
    pub(super) fn are_current(&self) -> bool {
        self.0.iter().all(|link| link.folder.is_at(&link.written))
    }

    /// What to write instead; `base` is where relative paths count from.
    pub(super) fn replacements(&self, base: &Path) -> Replacements {
        let of = |link: &Link| {
            let to = link.folder.path();
            let relative = link.written.strip_prefix(base).ok().filter(|path| !path.as_os_str().is_empty());
            let relative = relative.map(|path| path.as_os_str().to_owned());
            let absolute = link.written.clone().into_os_string();
            let leads_on = link.is_symlink || to != link.folder.path;
            leads_on.then(|| Replacement { absolute, relative, to: to.into_os_string() })
        };
        Replacements(self.0.iter().filter_map(of).collect())
    }
}

/// Texts for paths: longer ones first.
#[derive(Debug)]
pub(super) struct Replacements(Vec<Replacement>);

#[derive(Debug)]
struct Replacement {
    absolute: OsString,
    relative: Option<OsString>,
    to: OsString,
}

impl Replacements {
    /// The text with each path that leads through one of the links leading to its folder instead. Paths begin at the
    /// beginning, or after `=`, `:` or `,`.
    pub(super) fn apply<'a>(&self, text: Cow<'a, OsStr>) -> Cow<'a, OsStr> {
        let bytes = text.as_bytes();
        let (mut out, mut copied) = (Vec::new(), 0);
        let starts = (0..bytes.len()).filter(|&at| at == 0 || b"=:,".contains(&bytes[at - 1]));
        for at in starts {
            if let Some((length, to)) = self.0.iter().find_map(|with| with.at(&bytes[at..])) {
                out.extend_from_slice(&bytes[copied..at]);
                out.extend_from_slice(to.as_bytes());
                copied = at + length;
            }
        }
        if copied == 0 {
            return text;
        }
        out.extend_from_slice(&bytes[copied..]);
        Cow::Owned(OsString::from_vec(out))
    }
}

impl Replacement {
    /// How much of the beginning of the text is replaced, and by what.
    fn at(&self, text: &[u8]) -> Option<(usize, &OsStr)> {
        let ends = |rest: &[u8]| rest.first().is_none_or(|byte| b"/:,".contains(byte));
        let absolute = text.strip_prefix(self.absolute.as_bytes()).filter(|rest| ends(rest));
        // A word alone is rather no path.
        let relative = || {
            let rest = text.strip_prefix(self.relative.as_ref()?.as_bytes())?;
            rest.starts_with(b"/").then_some(rest)
        };
        let rest = absolute.or_else(relative)?;
        Some((text.len() - rest.len(), &self.to))
    }
}

fn identity(metadata: &Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

fn identity_of(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().as_ref().map(identity)
}

/// Holds on to a file without the right to read it.
fn open_path(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | flags).open(path)
}

fn descriptor_path(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// The path of an open file as the kernel has it: that of a file which was moved follows it.
fn named_by_the_kernel(file: &File) -> Option<PathBuf> {
    fs::read_link(descriptor_path(file)).ok().filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_through_a_link_lead_to_its_folder() {
        let of = |absolute: &str, relative: Option<&str>, to: &str| Replacement {
            absolute: absolute.into(),
            relative: relative.map(Into::into),
            to: to.into(),
        };
        let replacements = Replacements(vec![
            of("/srv/current/.venv", Some("current/.venv"), "/venvs/7"),
            of("/srv/current", Some("current"), "/srv/r1"),
        ]);
        let table = [
            ("/srv/current", "/srv/r1"),
            ("/srv/current/app.py", "/srv/r1/app.py"),
            ("/srv/current/.venv/bin", "/venvs/7/bin"),
            ("--chdir=/srv/current", "--chdir=/srv/r1"),
            ("/srv/current/a:/bin:/srv/current/.venv/bin", "/srv/r1/a:/bin:/venvs/7/bin"),
            ("current/app.py", "/srv/r1/app.py"),
            ("current", "current"),
            ("/srv/currents", "/srv/currents"),
            ("/x/srv/current", "/x/srv/current"),
            ("cd /srv/current", "cd /srv/current"),
            ("", ""),
        ];
        for (written, meant) in table {
            assert_eq!(
                replacements.apply(Cow::Borrowed(OsStr::new(written))),
                OsStr::new(meant),
                "{written}"
            );
        }
    }
}
