//! The name that was probably meant.

/// The candidate closest to `name`: case, `-` and `_` do not count, and up to a third of the letters may be off.
/// A name that begins another (`pidFile` and `pid`), or is the last part of a dotted one (`port` and `api.port`), is close too.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = simplified(name);
    let allowed = (plain.len() / 3).max(1);
    let ranked = candidates.into_iter().map(|candidate| (rank(&plain, &simplified(candidate)), candidate));
    ranked.filter(|(rank, _)| *rank <= allowed).min_by_key(|(rank, _)| *rank).map(|(_, candidate)| candidate)
}

fn rank(name: &[char], candidate: &[char]) -> usize {
    let begins = |a: &[char], b: &[char]| b.len() >= 3 && a.starts_with(b);
    if begins(name, candidate) || begins(candidate, name) || ends_after_dot(candidate, name) {
        return usize::from(name != candidate);
    }
    distance(name, candidate)
}

fn ends_after_dot(candidate: &[char], name: &[char]) -> bool {
    candidate.strip_suffix(name).is_some_and(|before| before.ends_with(&['.']))
}

fn simplified(name: &str) -> Vec<char> {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).take(100).collect()
}

/// Edits from `a` to `b`: a letter more, less or other, or two neighbours swapped.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut next = vec![i];
        for j in 1..=b.len() {
            let other = row[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut edits = other.min(row[j] + 1).min(next[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                edits = edits.min(before[j - 2] + 1);
            }
            next.push(edits);
        }
        before = std::mem::replace(&mut row, next);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant() {
        const KEYS: [&str; 8] = [
            "worker",
            "pid",
            "disconnectTimeout",
            "api.port",
            "api.listen",
            "listen",
            "minReady",
            "maxForkCount",
        ];
        let table = [
            ("workers", Some("worker")),
            ("Worker", Some("worker")),
            ("wroker", Some("worker")),
            ("disconnect_timeout", Some("disconnectTimeout")),
            ("disconnecttimeout", Some("disconnectTimeout")),
            ("disconnect", Some("disconnectTimeout")),
            ("pidFile", Some("pid")),
            ("port", Some("api.port")),
            ("listen ", Some("listen")),
            ("min-ready", Some("minReady")),
            ("colour", None),
            ("", None),
        ];
        for (name, expected) in table {
            assert_eq!(nearest(name, KEYS), expected, "{name}");
        }
    }

    #[test]
    fn counts_edits() {
        let count =
            |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!((count("", "abc"), count("kitten", "sitting"), count("abc", "abc")), (3, 3, 0));
        assert_eq!((count("rnu", "run"), count("abc", ""), count("abcd", "badc")), (1, 3, 2));
    }
}
