//! A moment as a date, in UTC. Pure: seconds in, fields out.

/// Seconds a day; leap seconds are not counted, as everywhere in Unix.
const DAY: u64 = 24 * 60 * 60;

/// A moment, to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Date {
    pub(crate) year: u64,
    pub(crate) month: u64,
    pub(crate) day: u64,
    pub(crate) hour: u64,
    pub(crate) minute: u64,
    pub(crate) second: u64,
    /// Days since the epoch.
    days: u64,
}

impl Date {
    /// So many seconds after the beginning of 1970.
    pub(crate) fn after_epoch(seconds: u64) -> Self {
        let (days, rest) = (seconds / DAY, seconds % DAY);
        let (year, month, day) = civil(days);
        Date { year, month, day, hour: rest / 3600, minute: rest / 60 % 60, second: rest % 60, days }
    }

    /// From 1.
    pub(crate) fn day_of_year(self) -> u64 {
        self.days - first_day(self.year) + 1
    }

    /// The year and the week of ISO 8601: weeks begin on Monday, and the first one has the year's first Thursday.
    pub(crate) fn iso_week(self) -> (u64, u64) {
        // 1 January 1970 was a Thursday.
        let weekday = (self.days + 3) % 7;
        let thursday = self.days + 3 - weekday;
        let (year, _, _) = civil(thursday);
        (year, (thursday - first_day(year)) / 7 + 1)
    }
}

/// Days from the epoch to the first of January.
fn first_day(year: u64) -> u64 {
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400;
    year * 365 + leap_days - (1970 * 365 + 477)
}

/// The date of a day of the Gregorian calendar, by way of years that begin in March, so that the leap day is their last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 1 March of the year 0
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_note() {
        let table = [
            (0, (1970, 1, 1), (0, 0, 0), 1, (1970, 1)),
            (951_782_399, (2000, 2, 28), (23, 59, 59), 59, (2000, 9)),
            (951_782_400, (2000, 2, 29), (0, 0, 0), 60, (2000, 9)),
            (951_868_800, (2000, 3, 1), (0, 0, 0), 61, (2000, 9)),
            (1_230_768_000, (2009, 1, 1), (0, 0, 0), 1, (2009, 1)),
            (1_262_304_000, (2010, 1, 1), (0, 0, 0), 1, (2009, 53)),
            (1_230_508_800, (2008, 12, 29), (0, 0, 0), 364, (2009, 1)),
            (1_735_689_599, (2024, 12, 31), (23, 59, 59), 366, (2025, 1)),
            (1_767_225_600, (2026, 1, 1), (0, 0, 0), 1, (2026, 1)),
            (4_107_542_400, (2100, 3, 1), (0, 0, 0), 60, (2100, 9)),
        ];
        for (seconds, (year, month, day), (hour, minute, second), of_year, week) in table {
            let date = Date::after_epoch(seconds);
            assert_eq!((date.year, date.month, date.day), (year, month, day), "{seconds}");
            assert_eq!((date.hour, date.minute, date.second), (hour, minute, second), "{seconds}");
            assert_eq!((date.day_of_year(), date.iso_week()), (of_year, week), "{seconds}");
        }
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let mut last = Date::after_epoch(0);
        for day in 1..60_000 {
            let date = Date::after_epoch(day * DAY);
            let next_day = (date.year, date.month, date.day) == (last.year, last.month, last.day + 1);
            let next_month = (date.year, date.month, date.day) == (last.year, last.month + 1, 1);
            let next_year = (date.year, date.month, date.day) == (last.year + 1, 1, 1);
            assert!(next_day || next_month && last.day >= 28 || next_year && last.day == 31, "{date:?}");
            assert_eq!(date.day_of_year(), if next_year { 1 } else { last.day_of_year() + 1 });
            last = date;
        }
    }
}
