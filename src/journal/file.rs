//! The log file: written by the master alone, on the log thread; rotated, reopened, and recovered from trouble.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::date::Date;
use super::series::{Series, fitting, renames};
use super::sink::{Lost, count};
use crate::error::Cause;
use crate::sys::write::write_waiting;

/// How often a file that could not be opened or rotated is tried again, and a deleted one noticed.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// The setting `logFile`, resolved.
#[derive(Clone, Debug)]
pub(crate) struct LogPlace {
    pub(crate) folder: PathBuf,
    pub(crate) series: Series,
    /// Bytes; a file that would grow past it makes way for a new one.
    pub(crate) max_size: Option<u64>,
    /// Older files that stay; `None` is all.
    pub(crate) keep: Option<usize>,
}

/// The file at work.
#[derive(Debug)]
pub(super) struct LogFile {
    place: LogPlace,
    open: Option<Open>,
    /// What is wrong, once said.
    trouble: Option<String>,
    /// What is to be said, where the file may not be able to say it itself.
    news: Vec<String>,
    /// When something was last tried that is not tried with every line.
    opened: Option<Instant>,
    rotated: Option<Instant>,
    looked: Instant,
}

#[derive(Debug)]
struct Open {
    file: File,
    name: String,
    /// A regular file's; devices and pipes have none, and are not rotated.
    size: Option<u64>,
}

impl LogFile {
    pub(super) fn new(place: LogPlace) -> Self {
        let looked = Instant::now();
        let (open, trouble, news) = (None, None, Vec::new());
        let mut file = LogFile { place, open, trouble, news, opened: None, rotated: None, looked };
        file.open(now());
        file
    }

    /// Writes whole lines; an error says how many of them are lost.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Lost> {
        let date = now();
        self.follow(date);
        let mut rest = lines;
        while !rest.is_empty() {
            let fits = self.fitting(rest);
            let Some(open) = &mut self.open else { return Err(Lost { lines: count(rest) }) };
            if fits == 0 {
                self.rotate(date);
                continue;
            }
            if let Err((written, cause)) = open.append(&rest[..fits]) {
                self.suffer("write", &cause);
                return Err(Lost { lines: count(&rest[written..]) });
            }
            rest = &rest[fits..];
        }
        if self.opened.is_none() && self.rotated.is_none() {
            self.trouble = None;
        }
        Ok(())
    }

    /// Opens the file anew by its name: whoever has moved the old one gets no more lines there.
    pub(super) fn reopen(&mut self) {
        self.open(now());
    }

    /// What has come to be said since the last call.
    pub(super) fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.news)
    }

    /// Keeps to the name of the day, and to a file that still is there.
    fn follow(&mut self, date: Date) {
        let may_try = self.opened.is_none_or(|at| at.elapsed() >= TRY_AGAIN);
        let is_current = self
            .open
            .as_ref()
            .is_some_and(|open| !self.place.series.is_dated() || open.name == self.place.series.name(date));
        if self.opened.is_some() || !is_current {
            if may_try {
                self.open(date);
            }
        } else if self.looked.elapsed() >= TRY_AGAIN {
            self.looked = Instant::now();
            if self.open.as_ref().is_some_and(Open::is_deleted) {
                self.open(date);
            }
        }
    }

    /// What was open stays so when this fails.
    fn open(&mut self, date: Date) -> bool {
        let name = self.name(date);
        match Open::at(&self.place, name) {
            Ok(open) => {
                let is_new = self.open.as_ref().is_none_or(|before| before.name != open.name);
                (self.open, self.opened) = (Some(open), None);
                if is_new {
                    self.prune();
                }
                true
            }
            Err(cause) => {
                self.opened = Some(Instant::now());
                if self.open.as_ref().is_some_and(Open::is_deleted) {
                    self.open = None;
                }
                self.suffer("open", &cause);
                false
            }
        }
    }

    fn name(&self, date: Date) -> String {
        self.place.series.name(date)
    }

    /// How many bytes of these lines go into the file as it is; 0 is: into the next one.
    fn fitting(&self, lines: &[u8]) -> usize {
        let may_rotate = self.rotated.is_none_or(|at| at.elapsed() >= TRY_AGAIN);
        let size = self.open.as_ref().and_then(|open| open.size);
        match (self.place.max_size, size) {
            (Some(most), Some(size)) if may_rotate => fitting(lines, size, most),
            _ => lines.len(),
        }
    }

    /// Lets the full file make way. A failure leaves it as it is, to grow on.
    fn rotate(&mut self, date: Date) {
        let Some(open) = &self.open else { return };
        let rotated = present(&self.place.folder).and_then(|present| {
            renames(&open.name, &present).iter().try_for_each(|(from, to)| {
                fs::rename(self.place.folder.join(from), self.place.folder.join(to))
            })
        });
        match rotated {
            Ok(()) => {
                self.rotated = None;
                if self.open(date) {
                    self.prune();
                } else {
                    // It has another name now, and is full.
                    self.rotated = Some(Instant::now());
                }
            }
            Err(cause) => {
                self.rotated = Some(Instant::now());
                self.suffer("rotate", &cause);
            }
        }
    }

    fn prune(&mut self) {
        let (Some(open), Some(keep)) = (&self.open, self.place.keep) else { return };
        let surplus = present(&self.place.folder)
            .map(|present| self.place.series.surplus(&open.name, &present, keep))
            .and_then(|names| {
                names.iter().try_for_each(|name| fs::remove_file(self.place.folder.join(name)))
            });
        if let Err(cause) = surplus {
            self.suffer("delete older files of", &cause);
        }
    }

    /// Each trouble is said once, until it is over.
    fn suffer(&mut self, what: &str, cause: &io::Error) {
        let path = self.place.folder.join(self.place.series.as_str());
        let trouble = format!("cannot {what} log file {}: {}", path.display(), Cause(cause));
        if self.trouble.as_ref() != Some(&trouble) {
            let next =
                if self.open.is_some() && what != "write" { "going on" } else { "its lines are dropped" };
            self.news.push(format!("{trouble}; {next}, and trying again"));
            self.trouble = Some(trouble);
        }
    }
}

impl Open {
    fn at(place: &LogPlace, name: String) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // A pipe without a reader must not hold the thread, and no terminal becomes ours.
        options.append(true).create(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
        let file = options.open(place.folder.join(&name))?;
        let metadata = file.metadata()?;
        let size = metadata.is_file().then_some(metadata.len());
        Ok(Open { file, name, size })
    }

    /// On failure, how many bytes of whole lines have gone; half a line is taken back.
    fn append(&mut self, lines: &[u8]) -> Result<(), (usize, io::Error)> {
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

    fn take_back(&mut self, sent: &[u8]) -> usize {
        let whole = sent.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        self.grow(whole);
        if let Some(size) = self.size.filter(|_| whole < sent.len()) {
            // Where even that fails, the next line follows half a one.
            drop(self.file.set_len(size));
        }
        whole
    }

    fn grow(&mut self, bytes: usize) {
        self.size = self.size.map(|size| size + bytes as u64);
    }

    fn is_deleted(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }
}

fn present(folder: &std::path::Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

fn now() -> Date {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Date::after_epoch(since.as_secs())
}
