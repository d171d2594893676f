//! A bounded memory by key: past its bound what was remembered longest ago is forgotten. What several parts of the gateway keep between calls
//! (states, tasks, traces, what may be repeated) lies in one of these each.

use std::collections::{HashMap, VecDeque};

/// Values by key, at most so many.
#[derive(Debug)]
pub(crate) struct Recent<V> {
    by_key: HashMap<String, V>,
    oldest_first: VecDeque<String>,
    most: usize,
}

impl<V> Recent<V> {
    pub(crate) fn new(most: usize) -> Self {
        Self { by_key: HashMap::new(), oldest_first: VecDeque::new(), most }
    }

    /// Remembers a value in the place of the one before; gives what is forgotten for it. A key keeps its age.
    pub(crate) fn put(&mut self, key: String, value: V) -> Option<(String, V)> {
        if self.by_key.insert(key.clone(), value).is_none() {
            self.oldest_first.push_back(key);
        }
        if self.oldest_first.len() <= self.most {
            return None;
        }
        let oldest = self.oldest_first.pop_front()?;
        self.by_key.remove_entry(&oldest)
    }

    pub(crate) fn get(&self, key: &str) -> Option<&V> {
        self.by_key.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        self.by_key.get_mut(key)
    }

    /// Forgets a key.
    pub(crate) fn take(&mut self, key: &str) -> Option<V> {
        let found = self.by_key.remove(key)?;
        self.oldest_first.retain(|known| known != key);
        Some(found)
    }

    /// Forgets all of which that is so.
    pub(crate) fn take_where(&mut self, is_so: impl Fn(&V) -> bool) -> Vec<V> {
        let keys: Vec<String> =
            self.by_key.iter().filter(|(_, value)| is_so(value)).map(|(key, _)| key.clone()).collect();
        let found = keys.iter().filter_map(|key| self.by_key.remove(key)).collect();
        if !keys.is_empty() {
            self.oldest_first.retain(|key| self.by_key.contains_key(key));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_remembered_longest_ago_is_forgotten_first() {
        let mut recent = Recent::new(3);
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            assert_eq!(recent.put(name.to_owned(), number), None);
        }
        // Another value is no other age.
        assert_eq!(recent.put("a".to_owned(), 7), None);
        assert_eq!(recent.put("d".to_owned(), 3), Some(("a".to_owned(), 7)));
        assert_eq!((recent.get("a"), recent.get("b")), (None, Some(&1)));
        assert_eq!((recent.take("b"), recent.take("b")), (Some(1), None));
        assert_eq!(recent.put("e".to_owned(), 4), None, "there is room again");
        assert_eq!(recent.take_where(|value| value.is_multiple_of(2)).len(), 2, "c and e");
        assert_eq!((recent.put("f".to_owned(), 5), recent.put("g".to_owned(), 6)), (None, None));
        assert_eq!(recent.put("h".to_owned(), 8), Some(("d".to_owned(), 3)));
    }
}
