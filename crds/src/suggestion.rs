//! "Did you mean": the known name that is nearest to one that is not known.

/// Names further away than a third of their length are no help.
const DISTANCE_DIVISOR: usize = 3;
/// How many known names are listed when none is near.
const LISTED_MAX: usize = 6;

/// The known name nearest to `unknown`, if it is near enough to be a slip of the hand.
pub(crate) fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (unknown.chars().count() / DISTANCE_DIVISOR).max(1);
    let lower = unknown.to_lowercase();
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&lower, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// `did you mean "order"?`, or a list of what there is, or `otherwise` if there is nothing.
pub(crate) fn advice<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>, otherwise: &str) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    if let Some(name) = nearest(unknown, known.iter().copied()) {
        return format!("did you mean {name:?}?");
    }
    if known.is_empty() {
        return otherwise.to_owned();
    }
    let listed = known.iter().take(LISTED_MAX).map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    let more = if known.len() > LISTED_MAX { ", ..." } else { "" };
    format!("known: {listed}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["order", "payment", "inventory"];
        assert_eq!(nearest("ordr", known), Some("order"));
        assert_eq!(nearest("Order", known), Some("order"));
        assert_eq!(nearest("invnetory", known), Some("inventory"));
        assert_eq!(nearest("cart", known), None);
        assert_eq!(advice("cart", known, "x"), "known: \"order\", \"payment\", \"inventory\"");
        assert_eq!(advice("cart", [], "declare it"), "declare it");
    }
}
