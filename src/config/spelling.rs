//! The word that was probably meant.

use std::collections::BTreeSet;

/// The candidate that `word` was probably meant to be.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let distances = candidates.into_iter().collect::<BTreeSet<_>>().into_iter();
    let measured = distances.map(|candidate| (edits(word, candidate), candidate));
    let allowed = word.chars().count().div_ceil(3).max(1);
    measured.filter(|(distance, _)| *distance <= allowed).min().map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (to, pair) in b.iter().zip(row.windows(2)) {
            let &[diagonal, above] = pair else { continue };
            let left = next.last().copied().unwrap_or_default();
            next.push((diagonal + usize::from(from != *to)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{edits, nearest};

    #[test]
    fn slips_find_the_word_that_was_meant() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(nearest("listne", ["listen", "workers"]), Some("listen"));
        assert_eq!(nearest("burts", ["burst", "rate"]), Some("burst"));
        assert_eq!(nearest("zebra", ["listen", "workers"]), None);
    }
}
