//! Which memory the guard gives back: all that it shares with the master and that the master may write to.
//!
//! A page of the master's that is written to after the fork would become the guard's own.

use std::ops::Range;

/// The ranges between what is kept, from 0 to the end of the last mapping.
///
/// `maps` is `/proc/self/maps`. Kept are `own` (the guard's stack and table), the mapping that holds `code`, and what
/// nobody writes to: code and constants of files, and what the kernel maps for its own use.
pub(super) fn gaps(maps: &str, own: &Range<usize>, code: usize) -> Vec<Range<usize>> {
    let mappings: Vec<Mapping> = maps.lines().filter_map(Mapping::parse).collect();
    let end = mappings.iter().map(|mapping| mapping.range.end).max().unwrap_or(0);
    let kept = mappings.into_iter().filter(|mapping| mapping.is_constant() || mapping.range.contains(&code));
    let mut kept: Vec<Range<usize>> = kept.map(|mapping| mapping.range).chain([own.clone()]).collect();
    kept.sort_by_key(|range| range.start);
    let mut gaps = Vec::new();
    let mut from = 0;
    for range in kept {
        gaps.push(from..range.start.max(from));
        from = from.max(range.end);
    }
    gaps.push(from..end.max(from));
    gaps.retain(|gap| !gap.is_empty());
    gaps
}

/// A line of the map.
struct Mapping<'a> {
    range: Range<usize>,
    is_writable: bool,
    name: &'a str,
}

impl<'a> Mapping<'a> {
    /// `7f10-7f20 r-xp 00000000 08:01 4711    /lib/libc.so.6`
    fn parse(line: &'a str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |hex| usize::from_str_radix(hex, 16).ok();
        let range = address(start)?..address(end)?;
        // The page of old system calls lies beyond what a process can give back.
        let in_reach = isize::try_from(range.end).is_ok();
        let name = rest.splitn(5, ' ').nth(4).unwrap_or_default().trim_start();
        in_reach.then(|| Mapping { range, is_writable: rest.as_bytes().get(1) == Some(&b'w'), name })
    }

    fn is_constant(&self) -> bool {
        !self.is_writable && (self.name.starts_with('/') || self.name.starts_with("[v"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
1000-2000 r--p 00000000 08:01 1 /bin/service
2000-3000 r-xp 00001000 08:01 1 /bin/service
3000-4000 rw-p 00002000 08:01 1 /bin/service
5000-9000 rw-p 00000000 00:00 0 [heap]
9000-a000 r-xp 00000000 00:00 0
b000-c000 r-xp 00000000 08:01 2 /lib/with a space.so (deleted)
c000-d000 ---p 00000000 00:00 0 [anon: reserved]
d000-e000 rw-p 00000000 00:00 0 [stack]
e000-f000 r-xp 00000000 00:00 0 [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";

    #[test]
    fn what_the_master_may_write_to_is_given_back() {
        let given_back = gaps(MAPS, &(0x6000..0x7000), 0x2100);
        assert_eq!(given_back, [0..0x1000, 0x3000..0x6000, 0x7000..0xb000, 0xc000..0xe000]);
    }

    #[test]
    fn code_that_lies_in_no_file_is_kept() {
        let given_back = gaps(MAPS, &(0x6000..0x7000), 0x9800);
        assert!(given_back.contains(&(0x7000..0x9000)), "{given_back:x?}");
    }
}
