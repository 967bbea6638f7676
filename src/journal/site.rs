//! Where the path of a log file leads, and whether what lies there may make way for a new one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// As many links as the kernel follows.
const MOST_LINKS: usize = 40;

/// The place of a file that may be renamed: its true folder, and its name there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    pub(super) folder: PathBuf,
    pub(super) name: String,
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Leads {
    /// Through its links to a file, which may not be there yet.
    To(Site),
    /// Into the kernel's own files, as `/dev/stdout` does: what is found there belongs to somebody else.
    Into(&'static str),
    /// To a name that is not UTF-8, which the numbered names beside it would have to be.
    Unnamed,
}

impl Leads {
    /// Follows the links of the last part of the path one by one, in the folder where each one lies.
    pub(super) fn from(path: &Path) -> io::Result<Self> {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { break };
            let folder = fs::canonicalize(folder)?;
            if let Some(realm) = realm(&folder) {
                return Ok(Leads::Into(realm));
            }
            let here = folder.join(name);
            if !fs::symlink_metadata(&here).is_ok_and(|found| found.is_symlink()) {
                let name = name.to_str().map(str::to_owned);
                return Ok(name.map_or(Leads::Unnamed, |name| Leads::To(Site { folder, name })));
            }
            path = folder.join(fs::read_link(&here)?);
        }
        Err(io::Error::from_raw_os_error(libc::ELOOP))
    }
}

impl Site {
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }
}

/// Which of the kernel's own folders it lies in. In `/dev/shm` are files of people's own.
fn realm(folder: &Path) -> Option<&'static str> {
    let realm = ["/dev", "/proc"].into_iter().find(|realm| folder.starts_with(realm));
    realm.filter(|_| !folder.starts_with("/dev/shm"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::test_folder::TestFolder;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_lead_to_files_and_not_into_the_kernel() {
        let scene = TestFolder::new("site");
        let (a, b) = (scene.path("a"), scene.path("b"));
        for folder in [&a, &b] {
            fs::create_dir(folder).unwrap();
        }
        // A name in `a`, and what it links to.
        let links = [
            ("file", "../b/real.log"),
            ("twice", "file"),
            ("absent", "/no/such/folder/x.log"),
            ("stdout", "/proc/self/fd/1"),
            ("device", "/dev/stdout"),
            ("null", "/dev/null"),
            ("shm", "/dev/shm/proteus.log"),
            ("fds", "/proc/self/fd"),
            ("circle", "circle"),
        ];
        for (name, target) in links {
            symlink(target, a.join(name)).unwrap();
        }
        let to =
            |folder: &Path, name: &str| Some(Leads::To(Site { folder: folder.into(), name: name.into() }));
        let table = [
            ("plain.log", to(&a, "plain.log")),
            ("../b/plain.log", to(&b, "plain.log")),
            ("file", to(&b, "real.log")),
            ("twice", to(&b, "real.log")),
            ("absent", None),
            ("stdout", Some(Leads::Into("/proc"))),
            ("device", Some(Leads::Into("/dev"))),
            ("null", Some(Leads::Into("/dev"))),
            ("fds/1", Some(Leads::Into("/proc"))),
            ("shm", to(Path::new("/dev/shm"), "proteus.log")),
            ("circle", None),
        ];
        for (name, expected) in table {
            assert_eq!(Leads::from(&a.join(name)).ok(), expected, "{name}");
        }
    }
}
