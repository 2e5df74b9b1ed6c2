//! What was probably meant.
//!
//! Decides how alike two names must be for one to be suggested for the other.

/// How many characters of a name are compared: a name is 63 at most.
const COMPARED: usize = 64;

/// The known name that is probably meant, as a phrase: "did you mean `interface`?". `None` if no known name is near.
pub fn suggest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let best = known.into_iter().map(|k| (edit_distance(name, k), k)).min_by_key(|(distance, _)| *distance);
    best.filter(|(distance, k)| *distance <= 1 + k.chars().count() / 3).map(|(_, k)| format!("did you mean `{k}`?"))
}

/// How many letters have to be changed, added, removed or exchanged with their neighbour, whatever their case (the restricted
/// Damerau-Levenshtein distance).
fn edit_distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(COMPARED).flat_map(char::to_lowercase).collect();
    let b: Vec<char> = b.chars().take(COMPARED).flat_map(char::to_lowercase).collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                let best = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(rows[i - 1][j - 1] + same);
                if swapped { best.min(rows[i - 2][j - 2] + 1) } else { best }
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_finger_is_understood_and_a_stranger_is_not() {
        let known = ["interface", "address", "at"];
        assert_eq!(suggest("interfcae", known).as_deref(), Some("did you mean `interface`?"));
        assert_eq!(suggest("Adress", known).as_deref(), Some("did you mean `address`?"));
        assert_eq!(suggest("fstype", known), None);
        assert_eq!(suggest("anything", []), None);
    }
}
