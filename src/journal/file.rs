//! The log file: written by the master alone, on the log thread; rotated, reopened, and recovered from trouble.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::date::Date;
use super::open::{Kind, Looks, Open, Whereabouts};
use super::series::{Series, fitting, renames};
use super::sink::{Lost, count};
use super::site::Site;
use crate::error::Cause;

/// How often a file that could not be opened or rotated is tried again.
const TRY_AGAIN: Duration = Duration::from_millis(500);
/// Who moves a log file away often puts the next one there, with a mode and an owner of its own: so long is waited
/// for it, and then one is made.
const NEXT_FILE: Duration = Duration::from_millis(50);
const NEXT_LOOK: Duration = Duration::from_millis(2);

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
}

impl LogFile {
    pub(super) fn new(place: LogPlace) -> Self {
        let (open, trouble, news) = (None, None, Vec::new());
        let mut file = LogFile { place, open, trouble, news, opened: None, rotated: None };
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

    /// Keeps to the name of the day, and to what lies at the path.
    fn follow(&mut self, date: Date) {
        let may_try = self.opened.is_none_or(|at| at.elapsed() >= TRY_AGAIN);
        if (!self.is_current(date) || self.opened.is_some()) && may_try {
            self.open(date);
        }
    }

    fn is_current(&mut self, date: Date) -> bool {
        let Some(open) = &mut self.open else { return false };
        let whereabouts = open.look();
        if whereabouts == Whereabouts::Nowhere && self.opened.is_none() {
            open.wait_for_next(NEXT_FILE, NEXT_LOOK);
        }
        let has_its_name = !self.place.series.is_dated() || open.name == self.place.series.name(date);
        whereabouts == Whereabouts::Here && has_its_name
    }

    /// What was open stays so when this fails.
    fn open(&mut self, date: Date) -> bool {
        let name = self.name(date);
        match Open::at(self.place.folder.join(&name), name, self.looks()) {
            Ok((open, unlike)) => {
                self.tell_of(&open, unlike.as_ref());
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

    /// Those of the file before: the one at work, else the newest of the series.
    fn looks(&self) -> Option<Looks> {
        let newest = || {
            let present = present(&self.place.folder).ok()?;
            let name = self.place.series.newest(&present)?;
            Looks::of(&fs::symlink_metadata(self.place.folder.join(name)).ok()?)
        };
        self.open.as_ref().map_or_else(newest, Open::looks)
    }

    /// What is not as asked for, or not as it was, in the file that was opened.
    fn tell_of(&mut self, open: &Open, unlike: Option<&io::Error>) {
        let path = self.place.folder.join(&open.name);
        let was_lasting = self.open.as_ref().is_some_and(|before| matches!(before.kind, Kind::Lasting(_)));
        if let (Kind::Lasting(why), Some(_)) = (&open.kind, self.place.max_size)
            && !was_lasting
        {
            self.news.push(format!("log file {} is not rotated: {why}", path.display()));
        }
        if let Some(cause) = unlike {
            let what = "does not have the owner of the one before";
            self.news.push(format!("log file {} {what}: {}", path.display(), Cause(cause)));
        }
    }

    fn name(&self, date: Date) -> String {
        self.place.series.name(date)
    }

    /// How many bytes of these lines go into the file as it is; 0 is: into the next one.
    fn fitting(&self, lines: &[u8]) -> usize {
        let may_rotate = self.rotated.is_none_or(|at| at.elapsed() >= TRY_AGAIN);
        let size = self.open.as_ref().and_then(Open::size);
        match (self.place.max_size, size) {
            (Some(most), Some(size)) if may_rotate => fitting(lines, size, most),
            _ => lines.len(),
        }
    }

    /// Lets the full file make way. A failure leaves it as it is, to grow on.
    fn rotate(&mut self, date: Date) {
        let Some(Open { kind: Kind::Rotated { site, .. }, .. }) = &self.open else { return };
        match make_way(site) {
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

    /// Older files go: of the series, and numbered ones where a link has led.
    fn prune(&mut self) {
        let (Some(open), Some(keep)) = (&self.open, self.place.keep) else { return };
        let mut pruned = remove_surplus(&self.place.series, &self.place.folder, &open.name, keep);
        if let Kind::Rotated { site, .. } = &open.kind
            && site.path() != self.place.folder.join(&open.name)
        {
            pruned = pruned.and(remove_surplus(&Series::of_one(&site.name), &site.folder, &site.name, keep));
        }
        if let Err(cause) = pruned {
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

/// The file gets the first number, and those that have numbers the next ones.
fn make_way(site: &Site) -> io::Result<()> {
    let present = present(&site.folder)?;
    let moves = renames(&site.name, &present);
    moves.iter().try_for_each(|(from, to)| fs::rename(site.folder.join(from), site.folder.join(to)))
}

fn remove_surplus(series: &Series, folder: &Path, current: &str, keep: usize) -> io::Result<()> {
    let surplus = series.surplus(current, &present(folder)?, keep);
    surplus.iter().try_for_each(|name| fs::remove_file(folder.join(name)))
}

fn present(folder: &Path) -> io::Result<Vec<String>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

fn now() -> Date {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Date::after_epoch(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::test_folder::TestFolder;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

    fn file(scene: &TestFolder, name: &str, max_size: Option<u64>, keep: Option<usize>) -> LogFile {
        let path = scene.path(name);
        let series = Series::read(path.file_name().unwrap().to_str().unwrap()).unwrap();
        LogFile::new(LogPlace { folder: path.parent().unwrap().to_owned(), series, max_size, keep })
    }

    /// The mode that a file of this scene has.
    fn mode(scene: &TestFolder, name: &str) -> u32 {
        fs::metadata(scene.path(name)).unwrap().mode() & 0o7777
    }

    fn set_mode(scene: &TestFolder, name: &str, mode: u32) {
        fs::set_permissions(scene.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_first_file_is_not_for_everybody() {
        let scene = TestFolder::new("first");
        drop(file(&scene, "app.log", None, None));
        assert_eq!(mode(&scene, "app.log") & !0o640, 0);
        set_mode(&scene, "app.log", 0o666);
        file(&scene, "app.log", None, None).write(b"line\n").unwrap();
        assert_eq!(mode(&scene, "app.log"), 0o666, "what is there stays as it is");
    }

    #[test]
    fn a_new_file_looks_like_the_one_before() {
        let scene = TestFolder::new("looks");
        let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
        let owner =
            |name: &str| fs::metadata(scene.path(name)).map(|found| (found.uid(), found.gid())).unwrap();
        for by in ["size", "move", "start"] {
            for name in scene.names(".") {
                fs::remove_file(scene.path(&name)).unwrap();
            }
            scene.write("app.log", "first\n");
            set_mode(&scene, "app.log", 0o604);
            if is_root {
                chown(scene.path("app.log"), Some(1), Some(4)).unwrap();
            }
            let expected = owner("app.log");
            let mut log = file(&scene, "app.log", (by == "size").then_some(8), None);
            match by {
                "size" => {}
                "move" => fs::rename(scene.path("app.log"), scene.path("app.log.1")).unwrap(),
                _ => {
                    fs::rename(scene.path("app.log"), scene.path("app.log.1")).unwrap();
                    log = file(&scene, "app.log", None, None);
                }
            }
            log.write(b"second\n").unwrap();
            assert_eq!(scene.names("."), ["app.log", "app.log.1"], "{by}");
            assert_eq!(
                (scene.read("app.log.1"), scene.read("app.log")),
                ("first\n".into(), "second\n".into())
            );
            assert_eq!((mode(&scene, "app.log"), owner("app.log")), (0o604, expected), "{by}");
            assert!(log.news().is_empty());
        }
    }

    #[test]
    fn a_date_that_changes_keeps_the_looks() {
        let scene = TestFolder::new("dated-looks");
        scene.write("app.2001.log", "");
        scene.write("app.2002.log.7", "");
        set_mode(&scene, "app.2001.log", 0o644);
        set_mode(&scene, "app.2002.log.7", 0o606);
        let log = file(&scene, "app.%Y.log", None, None);
        assert_eq!(mode(&scene, &log.open.as_ref().unwrap().name), 0o606);
    }

    #[test]
    fn what_a_link_leads_to_is_rotated_where_it_lies() {
        let scene = TestFolder::new("linked");
        for folder in ["here", "there"] {
            fs::create_dir(scene.path(folder)).unwrap();
        }
        symlink("../there/real.txt", scene.path("here/app.log")).unwrap();
        let mut log = file(&scene, "here/app.log", Some(8), Some(1));
        for line in ["line 1\n", "line 2\n", "line 3\n"] {
            log.write(line.as_bytes()).unwrap();
        }
        assert_eq!(scene.names("here"), ["app.log"]);
        assert!(fs::symlink_metadata(scene.path("here/app.log")).unwrap().is_symlink());
        assert_eq!(scene.names("there"), ["real.txt", "real.txt.1"]);
        assert_eq!(scene.read("there/real.txt.1") + &scene.read("here/app.log"), "line 2\nline 3\n");
        // To somewhere else, from now on.
        symlink("../there/next.txt", scene.path("here/new")).unwrap();
        fs::rename(scene.path("here/new"), scene.path("here/app.log")).unwrap();
        log.write(b"line 4\n").unwrap();
        assert_eq!(scene.read("there/next.txt"), "line 4\n");
    }

    #[test]
    fn what_is_no_file_of_ours_is_not_rotated_and_that_is_said() {
        let scene = TestFolder::new("lasting");
        symlink("/dev/null", scene.path("null")).unwrap();
        for (name, why) in [("null", "it is no regular file"), ("/dev/null", "it is no regular file")] {
            let mut log = file(&scene, name, Some(8), Some(1));
            log.write(b"a long line\n").unwrap();
            log.write(b"a long line\n").unwrap();
            log.reopen();
            let said = log.news();
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(said[0].contains("is not rotated") && said[0].ends_with(why), "{said:?}");
        }
        assert!(fs::symlink_metadata(scene.path("null")).unwrap().is_symlink());
        assert!(file(&scene, "null", None, None).news().is_empty(), "nobody asked for it");
    }

    #[test]
    fn a_file_that_somebody_truncates_is_as_big_as_it_is() {
        let scene = TestFolder::new("truncated");
        let mut log = file(&scene, "app.log", Some(16), None);
        log.write(b"0123456789\n").unwrap();
        fs::File::options().write(true).open(scene.path("app.log")).unwrap().set_len(0).unwrap();
        log.write(b"0123456789\n").unwrap();
        assert_eq!(scene.names("."), ["app.log"]);
        assert_eq!(scene.read("app.log"), "0123456789\n");
        log.write(b"0123456789\n").unwrap();
        assert_eq!(scene.names("."), ["app.log", "app.log.1"]);
    }

    #[test]
    fn a_file_that_was_moved_is_left_at_once() {
        let scene = TestFolder::new("moved");
        let mut log = file(&scene, "app.log", None, None);
        log.write(b"one\n").unwrap();
        fs::rename(scene.path("app.log"), scene.path("app.old")).unwrap();
        scene.write("app.log", "made by another\n");
        log.write(b"two\n").unwrap();
        fs::remove_file(scene.path("app.log")).unwrap();
        log.write(b"three\n").unwrap();
        assert_eq!((scene.read("app.old"), scene.read("app.log")), ("one\n".into(), "three\n".into()));
        // Where nothing can be opened, what is open goes on; and the lines come home once that is over.
        fs::rename(scene.path("app.log"), scene.path("app.old")).unwrap();
        fs::create_dir(scene.path("app.log")).unwrap();
        log.write(b"four\n").unwrap();
        assert_eq!(scene.read("app.old"), "three\nfour\n");
        assert!(log.news()[0].contains("cannot open log file"));
        fs::remove_dir(scene.path("app.log")).unwrap();
        log.opened = None; // time has passed
        log.write(b"five\n").unwrap();
        assert_eq!(scene.read("app.log"), "five\n");
    }
}
