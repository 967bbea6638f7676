//! The names of a log file over time: which one is current, how older ones are numbered, which may go. Pure.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::date::Date;

/// The files that one `logFile` becomes: a name with fields of the date, and numbered ones beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Series {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

/// A field of the date, in UTC, padded with zeroes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    DayOfYear,
    IsoYear,
    IsoWeek,
}

const FIELDS: [(char, Field); 9] = [
    ('Y', Field::Year),
    ('m', Field::Month),
    ('d', Field::Day),
    ('H', Field::Hour),
    ('M', Field::Minute),
    ('S', Field::Second),
    ('j', Field::DayOfYear),
    ('G', Field::IsoYear),
    ('V', Field::IsoWeek),
];

/// When a file was begun, the most significant first, and its number: 0 is the one that is written. The newest is the
/// greatest.
type Age = ([u64; 6], Reverse<u64>);

impl Series {
    /// Reads a file name such as `app.%Y-%m-%d.log`.
    pub(crate) fn read(name: &str) -> Result<Self, String> {
        let (mut parts, mut text, mut letters) = (Vec::new(), String::new(), name.chars());
        let mut field = |text: &mut String, field| {
            if !text.is_empty() {
                parts.push(Part::Text(std::mem::take(text)));
            }
            parts.push(Part::Field(field));
        };
        while let Some(letter) = letters.next() {
            match letter {
                '%' => match letters.next() {
                    Some('%') => text.push('%'),
                    Some('F') => {
                        field(&mut text, Field::Year);
                        text.push('-');
                        field(&mut text, Field::Month);
                        text.push('-');
                        field(&mut text, Field::Day);
                    }
                    next => field(&mut text, field_of(next)?),
                },
                plain => text.push(plain),
            }
        }
        if !text.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(Series { text: name.to_owned(), parts })
    }

    /// Of a file whose name never changes.
    pub(crate) fn of_one(name: &str) -> Self {
        Series { text: name.to_owned(), parts: vec![Part::Text(name.to_owned())] }
    }

    /// As it was read.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the name changes with time.
    pub(crate) fn is_dated(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Field(_)))
    }

    /// The name at a moment.
    pub(crate) fn name(&self, date: Date) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Field(field) => format!("{:01$}", field.of(date), field.width()),
        };
        self.parts.iter().map(part).collect()
    }

    /// The files of the series that are too many beside `current`, when so many older ones may stay.
    pub(crate) fn surplus(&self, current: &str, present: &[String], keep: usize) -> Vec<String> {
        let others = present.iter().filter(|name| *name != current);
        let mut aged: Vec<(Reverse<Age>, &String)> =
            others.filter_map(|name| self.age(name).map(|age| (Reverse(age), name))).collect();
        aged.sort();
        aged.into_iter().skip(keep).map(|(_, name)| name.clone()).collect()
    }

    /// The youngest file of the series.
    pub(crate) fn newest<'a>(&self, present: &'a [String]) -> Option<&'a str> {
        let aged = present.iter().filter_map(|name| self.age(name).map(|age| (age, name.as_str())));
        aged.max().map(|(_, name)| name)
    }

    /// Of a file of this series.
    fn age(&self, name: &str) -> Option<Age> {
        if let Some(date) = self.date(name) {
            return Some((date, Reverse(0)));
        }
        let (name, number) = name.rsplit_once('.')?;
        let plain = !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
        Some((self.date(name)?, Reverse(plain.then(|| number.parse().ok())??)))
    }

    fn date(&self, name: &str) -> Option<[u64; 6]> {
        let (mut date, mut rest) = ([0; 6], name);
        for part in &self.parts {
            match part {
                Part::Text(text) => rest = rest.strip_prefix(text.as_str())?,
                Part::Field(field) => {
                    let (digits, after) = rest.split_at_checked(field.width())?;
                    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
                    date[field.significance()] = plain.then(|| digits.parse().ok())??;
                    rest = after;
                }
            }
        }
        rest.is_empty().then_some(date)
    }
}

/// How `name` makes way for a new file of its name: these renames, in this order. A gap among the numbers ends them.
pub(crate) fn renames(name: &str, present: &[String]) -> Vec<(String, String)> {
    let numbered = |number: usize| if number == 0 { name.to_owned() } else { format!("{name}.{number}") };
    let taken: HashSet<&str> = present.iter().map(String::as_str).collect();
    // Among so many numbers one is free.
    let free = (1..=present.len()).find(|number| !taken.contains(numbered(*number).as_str()));
    let free = free.unwrap_or(present.len() + 1);
    (0..free).rev().map(|number| (numbered(number), numbered(number + 1))).collect()
}

fn field_of(letter: Option<char>) -> Result<Field, String> {
    let found = FIELDS.iter().find(|(name, _)| Some(*name) == letter).map(|(_, field)| *field);
    found.ok_or_else(|| {
        let said = letter.map_or("a percent sign at the end".to_owned(), |letter| format!("%{letter}"));
        let known: Vec<String> = FIELDS.iter().map(|(name, _)| format!("%{name}")).collect();
        format!(
            "{} is no field of the date ({}, %F; %% is a percent sign)",
            said.escape_debug(),
            known.join(" ")
        )
    })
}

impl Field {
    fn of(self, date: Date) -> u64 {
        match self {
            Field::Year => date.year,
            Field::Month => date.month,
            Field::Day => date.day,
            Field::Hour => date.hour,
            Field::Minute => date.minute,
            Field::Second => date.second,
            Field::DayOfYear => date.day_of_year(),
            Field::IsoYear => date.iso_week().0,
            Field::IsoWeek => date.iso_week().1,
        }
    }

    fn width(self) -> usize {
        match self {
            Field::Year | Field::IsoYear => 4,
            Field::DayOfYear => 3,
            Field::Month | Field::Day | Field::Hour | Field::Minute | Field::Second | Field::IsoWeek => 2,
        }
    }

    fn significance(self) -> usize {
        match self {
            Field::Year | Field::IsoYear => 0,
            Field::Month | Field::IsoWeek => 1,
            Field::Day | Field::DayOfYear => 2,
            Field::Hour => 3,
            Field::Minute => 4,
            Field::Second => 5,
        }
    }
}

/// How many bytes of whole lines go into a file of `size` bytes that may have `most`; a line that is longer than
/// that goes alone. 0 is: into the next file.
pub(crate) fn fitting(lines: &[u8], size: u64, most: u64) -> usize {
    let room = usize::try_from(most.saturating_sub(size)).unwrap_or(usize::MAX);
    if lines.len() <= room {
        return lines.len();
    }
    let whole = lines[..room].iter().rposition(|&byte| byte == b'\n').map(|at| at + 1);
    let first = || lines.iter().position(|&byte| byte == b'\n').map_or(lines.len(), |at| at + 1);
    match whole {
        Some(end) => end,
        None if size == 0 => first(),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(year: u64, month: u64, day: u64) -> Date {
        let date = (0..40_000).map(|days| Date::after_epoch(days * 86_400 + 3 * 3600 + 4 * 60 + 5));
        date.into_iter().find(|date| (date.year, date.month, date.day) == (year, month, day)).unwrap()
    }

    /// Pattern, current file, files that are there, how many to keep, those that go.
    type Row<'a> = (&'a str, &'a str, &'a [&'a str], usize, &'a [&'a str]);

    fn own(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn names_by_date() {
        let table = [
            ("app.log", "app.log", false),
            ("app.%Y-%m-%d.log", "app.2026-01-02.log", true),
            ("app.%F.log", "app.2026-01-02.log", true),
            ("%H%M%S-%j", "030405-002", true),
            ("w%G-%V.log", "w2026-01.log", true),
            ("100%%.log", "100%.log", false),
            ("日%d", "日02", true),
        ];
        for (pattern, name, dated) in table {
            let series = Series::read(pattern).unwrap();
            assert_eq!((series.name(at(2026, 1, 2)).as_str(), series.is_dated()), (name, dated), "{pattern}");
            assert!(series.age(name).is_some(), "{pattern} knows its own");
        }
        for pattern in ["%", "app%", "%x.log", "%-d", "%\n"] {
            let refused = Series::read(pattern).unwrap_err();
            assert!(refused.contains("is no field of the date") && !refused.contains('\n'), "{refused}");
        }
    }

    #[test]
    fn the_current_file_makes_way_and_gaps_are_filled() {
        type Names = &'static [&'static str];
        let table: [(Names, &[(&str, &str)]); 3] = [
            (&["a.log"], &[("a.log", "a.log.1")]),
            (&["a.log", "a.log.1", "b"], &[("a.log.1", "a.log.2"), ("a.log", "a.log.1")]),
            (&["a.log", "a.log.1", "a.log.3"], &[("a.log.1", "a.log.2"), ("a.log", "a.log.1")]),
        ];
        for (present, expected) in table {
            let renames = renames("a.log", &own(present));
            let renames: Vec<_> = renames.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
            assert_eq!(renames, expected, "{present:?}");
        }
    }

    /// Each name is looked up once: a hundred thousand take no noticeable time.
    #[test]
    fn many_files_are_many_renames_and_no_more() {
        let present: Vec<String> = (0..100_000).map(|number| format!("a.log.{number}")).collect();
        let begun = std::time::Instant::now();
        assert_eq!(renames("a.log", &present).len(), 100_000);
        assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
    }

    #[test]
    fn the_newest_is_known() {
        let table: [(&str, &[&str], Option<&str>); 4] = [
            ("a.log", &["a.log.2", "a.log.1", "a.log.10"], Some("a.log.1")),
            ("a.log", &["a.log.2", "a.log"], Some("a.log")),
            ("a.%Y.log", &["a.2025.log", "a.2026.log.3", "a.2026.log.2"], Some("a.2026.log.2")),
            ("a.log", &["b.log", "a.log.gz"], None),
        ];
        for (pattern, present, newest) in table {
            assert_eq!(Series::read(pattern).unwrap().newest(&own(present)), newest, "{pattern} {present:?}");
        }
    }

    #[test]
    fn the_oldest_go_and_strangers_stay() {
        let numbered =
            ["a.log", "a.log.1", "a.log.2", "a.log.10", "a.log.gz", "a.log.01", "a.log.1.gz", "b.log.1"];
        let dated = ["a.2025-12-31.log", "a.2026-01-01.log", "a.2026-01-02.log", "a.2025-1-1.log", "a.log"];
        let both = ["a.2026.log", "a.2025.log", "a.2025.log.1", "a.2025.log.2", "a.2024.log"];
        let table: [Row; 7] = [
            ("a.log", "a.log", &numbered, 3, &[]),
            ("a.log", "a.log", &numbered, 2, &["a.log.10"]),
            ("a.log", "a.log", &numbered, 0, &["a.log.1", "a.log.2", "a.log.10"]),
            ("a.%Y-%m-%d.log", "a.2026-01-02.log", &dated, 1, &["a.2025-12-31.log"]),
            ("a.%Y-%m-%d.log", "a.2026-01-02.log", &dated, 0, &["a.2026-01-01.log", "a.2025-12-31.log"]),
            ("a.%Y.log", "a.2026.log", &both, 2, &["a.2025.log.2", "a.2024.log"]),
            ("a.%Y.log", "a.2026.log", &both, 9, &[]),
        ];
        for (pattern, current, present, keep, expected) in table {
            let surplus = Series::read(pattern).unwrap().surplus(current, &own(present), keep);
            assert_eq!(surplus, expected, "{pattern} keeps {keep}");
        }
    }

    #[test]
    fn whole_lines_that_fit() {
        let table: [(&[u8], u64, u64, usize); 7] = [
            (b"aa\nbb\n", 0, 6, 6),
            (b"aa\nbb\n", 0, 5, 3),
            (b"aa\nbb\n", 4, 6, 0),
            (b"aa\nbb\n", 3, 6, 3),
            (b"long line\nbb\n", 0, 4, 10),
            (b"long line\nbb\n", 1, 4, 0),
            (b"aa\n", 100, 6, 0),
        ];
        for (lines, size, most, expected) in table {
            assert_eq!(fitting(lines, size, most), expected, "{lines:?} on {size} of {most}");
        }
    }
}
