//! The setting `logFile`.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::given::{Refusal, plain};
use crate::journal::LogPlace;
use crate::journal::series::Series;

/// A log file, for [`Builder::log_file`](super::Builder::log_file).
///
/// ```
/// use proteus_cluster::{Config, LogFile};
///
/// let log = LogFile::new("/var/log/app/app.%Y-%m-%d.log").keep(14);
/// let config = Config::builder().log_file(log).build()?;
/// # Ok::<(), proteus_cluster::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct LogFile {
    pub(super) path: Option<PathBuf>,
    pub(super) max_size: Option<u64>,
    pub(super) keep: Option<usize>,
}

impl LogFile {
    /// A file by its path; a relative one counts from the master's working directory.
    ///
    /// A new file has mode 0640, less what the umask takes, or mode, owner and group of the file before it; one that
    /// is there already stays as it is. A file that was moved, removed or replaced meanwhile is opened anew with the
    /// next line.
    ///
    /// Fields of the date in its name make it another file when they change: `app.%Y-%m-%d.log` one each day,
    /// `app.%Y-%m-%d-%H.log` one each hour. They are `%Y` `%m` `%d` `%H` `%M` `%S`, `%j` (day of the year), `%G` and
    /// `%V` (year and week of ISO 8601) and `%F` (`%Y-%m-%d`), in UTC as the times in the log; `%%` is a percent
    /// sign.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        LogFile { path: Some(path.into()), ..LogFile::default() }
    }

    /// A file that would grow past so many bytes becomes `NAME.1`, the one before it `NAME.2`, and so on. More than
    /// 0; by default without limit. A single line that is longer has a file for itself. Where the path is a link, this
    /// happens to the file that it leads to, in that file's folder. What is no regular file, or is reached through
    /// `/dev` (but for `/dev/shm`) or `/proc`, is never renamed; the log says so.
    pub fn max_size(mut self, bytes: u64) -> Self {
        self.max_size = Some(bytes);
        self
    }

    /// How many older files stay beside the one that is written; the oldest are deleted. By default all.
    /// Takes a date in the name or a greatest size.
    pub fn keep(mut self, files: usize) -> Self {
        self.keep = Some(files);
        self
    }

    /// What the log thread works with; a refusal says which part is at fault.
    pub(super) fn checked(&self) -> Result<LogPlace, Refusal> {
        let path = self.path.as_deref().ok_or_else(|| Refusal::from("must be given").under(".path"))?;
        let at_path = |refusal: Refusal| refusal.under(".path");
        plain(path.as_os_str()).map_err(at_path)?;
        let (folder, name) = split(path).map_err(at_path)?;
        let series = Series::read(name).map_err(|reason| at_path(reason.into()))?;
        if self.max_size == Some(0) {
            return Err(Refusal::from("must be more than 0").under(".maxSize"));
        }
        if self.keep.is_some() && self.max_size.is_none() && !series.is_dated() {
            let reason = "needs `maxSize`, or a date in the name such as app.%Y-%m-%d.log";
            return Err(Refusal::from(reason).under(".keep"));
        }
        Ok(LogPlace { folder, series, max_size: self.max_size, keep: self.keep })
    }
}

/// The absolute folder, and the name.
fn split(path: &Path) -> Result<(PathBuf, &str), Refusal> {
    let is_folder = path.as_os_str().as_bytes().ends_with(b"/");
    let name = path.file_name().filter(|_| !is_folder);
    let name = name.ok_or_else(|| Refusal::from("names a folder, not a file"))?;
    let name = name.to_str().ok_or_else(|| Refusal::from("the file's name is not UTF-8"))?;
    let whole = std::path::absolute(path).map_err(|error| Refusal::from(error.to_string()))?;
    Ok((whole.parent().unwrap_or(Path::new("/")).to_owned(), name))
}
