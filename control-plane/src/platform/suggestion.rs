//! Suggestions for misspelt names.

/// The least similarity, by Jaro-Winkler, of a name that is suggested.
const MIN_SIMILARITY: f64 = 0.7;

/// Returns the candidate that is most similar to a name, or `None` if none is similar. Case is ignored.
pub(crate) fn most_similar<T: AsRef<str>>(name: &str, candidates: impl Iterator<Item = T>) -> Option<T> {
    let name = name.to_ascii_lowercase();
    candidates
        .map(|candidate| (strsim::jaro_winkler(&name, &candidate.as_ref().to_ascii_lowercase()), candidate))
        .filter(|(similarity, _)| *similarity > MIN_SIMILARITY)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Returns the end of a message about an unknown name.
pub(crate) fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}
