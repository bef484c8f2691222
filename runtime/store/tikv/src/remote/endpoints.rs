//! Where PD can be reached: what the options say, and what its members have told since.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// More are not remembered.
const ENDPOINTS_MAX: usize = 32;

/// A list that all who talk to PD share, so that what one of them learns, or is told, counts for all. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Endpoints(Arc<Mutex<Vec<String>>>);

impl Endpoints {
    pub(crate) fn new(endpoints: Vec<String>) -> Self {
        Self(Arc::new(Mutex::new(endpoints)))
    }

    /// All of them; those that are worth trying first come first.
    pub(crate) fn all(&self) -> Vec<String> {
        self.lock().clone()
    }

    /// Whoever has to give up half way begins with another endpoint the next time.
    pub(crate) fn put_last(&self, endpoint: &str) {
        let mut known = self.lock();
        if let Some(place) = known.iter().position(|known| known == endpoint) {
            known[place..].rotate_left(1);
        }
    }

    /// Members that were not among the endpoints may be the only ones left later.
    pub(crate) fn remember(&self, urls: &[String]) {
        let mut known = self.lock();
        for url in urls {
            let endpoint = url.split_once("://").map_or(&url[..], |(_, endpoint)| endpoint);
            if known.len() < ENDPOINTS_MAX && !known.iter().any(|known| known == endpoint) {
                known.push(endpoint.to_owned());
            }
        }
    }

    /// What somebody says now counts more than what was known; it stays behind it, in case that nobody is there.
    pub(crate) fn put_first(&self, endpoints: &[String]) {
        let mut known = self.lock();
        known.retain(|known| !endpoints.contains(known));
        known.splice(0..0, endpoints.iter().cloned());
        known.truncate(ENDPOINTS_MAX);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        // Nothing panics while it is locked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(endpoints: &[&str]) -> Vec<String> {
        endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect()
    }

    #[test]
    fn what_is_said_later_comes_first_and_nothing_is_there_twice() {
        let endpoints = Endpoints::new(texts(&["a:1", "b:1"]));
        endpoints.remember(&texts(&["http://b:1", "http://c:1"]));
        assert_eq!(endpoints.all(), ["a:1", "b:1", "c:1"]);
        endpoints.put_last("a:1");
        assert_eq!(endpoints.all(), ["b:1", "c:1", "a:1"]);
        endpoints.put_first(&texts(&["d:1", "a:1"]));
        assert_eq!(endpoints.all(), ["d:1", "a:1", "b:1", "c:1"]);
    }

    #[test]
    fn not_more_are_remembered_than_is_useful() {
        let endpoints = Endpoints::new(texts(&["a:1"]));
        let many: Vec<String> = (0..2 * ENDPOINTS_MAX).map(|number| format!("http://m{number}:1")).collect();
        endpoints.remember(&many);
        assert_eq!(endpoints.all().len(), ENDPOINTS_MAX);
        endpoints.put_first(&texts(&["z:1"]));
        assert_eq!(endpoints.all().len(), ENDPOINTS_MAX);
        assert_eq!(endpoints.all()[0], "z:1");
    }
}
