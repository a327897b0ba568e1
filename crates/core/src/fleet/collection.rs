//! The index of one kind of object: all of them by name, and by what they are looked up by.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    hash::Hash,
};

use serde::de::DeserializeOwned;

use super::ObjectName;

/// An object of the Kubernetes API, with as much of it as is used: what is left out costs no
/// memory, and a change of it is no change.
pub trait Object: Clone + fmt::Debug + PartialEq {
    /// The fields that are read, as the API writes them.
    type Raw: DeserializeOwned;
    /// What objects of this kind are looked up by, such as the InferenceSet that owns a pod.
    type Key: Clone + fmt::Debug + Ord + Hash;

    /// `None` for an object that plays no part, which is as good as none.
    fn read(raw: Self::Raw) -> Option<Self>;

    /// Everything that it is found by.
    fn keys(&self) -> Vec<Self::Key>;
}

/// Every object of one kind, as it was last heard of.
#[derive(Debug)]
pub struct Collection<T: Object> {
    objects: HashMap<ObjectName, T>,
    by_key: HashMap<T::Key, BTreeSet<ObjectName>>,
    is_listed: bool,
}

/// The keys of objects that are new, changed or gone; one may be in it twice.
pub type Touched<T> = Vec<<T as Object>::Key>;

impl<T: Object> Default for Collection<T> {
    fn default() -> Self {
        Self { objects: HashMap::new(), by_key: HashMap::new(), is_listed: false }
    }
}

impl<T: Object> Collection<T> {
    /// Whether all there is was heard of at some time. What is missing before that may just not
    /// have come yet.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }

    #[must_use]
    pub fn get(&self, name: &ObjectName) -> Option<&T> {
        self.objects.get(name)
    }

    /// The objects that are found by `key`, by name.
    pub fn of(&self, key: &T::Key) -> impl Iterator<Item = &T> {
        self.by_key.get(key).into_iter().flatten().filter_map(|name| self.objects.get(name))
    }

    #[must_use]
    pub fn has(&self, key: &T::Key) -> bool {
        self.by_key.contains_key(key)
    }

    /// Everything that some object is found by.
    pub fn keys(&self) -> impl Iterator<Item = &T::Key> {
        self.by_key.keys()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Takes in all there is: what is missing here is gone. What comes of it is the difference
    /// to what was known.
    pub fn list(&mut self, all: impl IntoIterator<Item = (ObjectName, Option<T>)>) -> Touched<T> {
        self.is_listed = true;
        let mut touched = Vec::new();
        let mut listed = BTreeSet::new();
        for (name, object) in all {
            touched.append(&mut self.apply(name.clone(), object));
            listed.insert(name);
        }
        let gone: Vec<_> = self.objects.keys().filter(|name| !listed.contains(*name)).cloned().collect();
        for name in gone {
            touched.append(&mut self.apply(name, None));
        }
        touched
    }

    /// Takes in one object as it is now; `None` where it is gone, or plays no part.
    pub fn apply(&mut self, name: ObjectName, object: Option<T>) -> Touched<T> {
        let before = self.objects.remove(&name);
        if before == object {
            self.objects.extend(object.map(|object| (name, object)));
            return Vec::new();
        }
        let mut touched = Vec::new();
        for key in before.iter().flat_map(Object::keys) {
            if let Some(names) = self.by_key.get_mut(&key) {
                names.remove(&name);
                if names.is_empty() {
                    self.by_key.remove(&key);
                }
            }
            touched.push(key);
        }
        if let Some(object) = object {
            for key in object.keys() {
                self.by_key.entry(key.clone()).or_default().insert(name.clone());
                touched.push(key);
            }
            self.objects.insert(name, object);
        }
        touched
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Found by each of its letters.
    #[derive(Clone, Debug, PartialEq)]
    struct Word(String);

    impl Object for Word {
        type Raw = String;
        type Key = char;

        fn read(raw: String) -> Option<Self> {
            (!raw.is_empty()).then_some(Self(raw))
        }

        fn keys(&self) -> Vec<char> {
            self.0.chars().collect()
        }
    }

    fn name(number: u8) -> ObjectName {
        ObjectName::new("team-a", &number.to_string())
    }

    fn word(text: &str) -> Option<Word> {
        Word::read(text.to_owned())
    }

    #[test]
    fn a_change_touches_what_it_was_and_what_it_is_found_by() {
        let mut words = Collection::default();
        for (number, text, touched) in [
            (1, "ab", "ab"),
            (1, "ab", ""),
            (2, "b", "b"),
            (1, "bc", "abbc"),
            (3, "", ""),
            (1, "", "bc"),
            (1, "", ""),
        ] {
            let found: String = words.apply(name(number), word(text)).into_iter().collect();
            assert_eq!(found, touched, "{number} {text:?}");
        }
        assert_eq!(words.keys().copied().collect::<Vec<_>>(), ['b']);
        assert_eq!(words.of(&'b').collect::<Vec<_>>(), [&Word("b".into())]);
        assert!(!words.is_listed());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Apply(u8, String),
        List(Vec<(u8, String)>),
    }

    proptest! {
        /// However it came about, the index holds what there is, and what was touched covers
        /// every difference.
        #[test]
        fn the_index_is_of_what_there_is(steps in vec(prop_oneof![
            (0..4_u8, "[a-c]{0,2}").prop_map(|(number, text)| Step::Apply(number, text)),
            vec((0..4_u8, "[a-c]{0,2}"), 0..4).prop_map(Step::List),
        ], 0..20)) {
            let mut words = Collection::default();
            let mut truth: BTreeMap<u8, Word> = BTreeMap::new();
            for step in steps {
                let before = truth.clone();
                let touched: BTreeSet<char> = match step {
                    Step::Apply(number, text) => {
                        truth.remove(&number);
                        truth.extend(word(&text).map(|word| (number, word)));
                        words.apply(name(number), word(&text)).into_iter().collect()
                    }
                    Step::List(all) => {
                        let all: BTreeMap<_, _> = all.into_iter().collect();
                        truth = all.iter().filter_map(|(at, text)| Some((*at, word(text)?))).collect();
                        let all = all.into_iter().map(|(number, text)| (name(number), word(&text)));
                        let touched = words.list(all).into_iter().collect();
                        prop_assert!(words.is_listed());
                        touched
                    }
                };
                for letter in 'a'..='c' {
                    let of = |truth: &BTreeMap<u8, Word>| -> Vec<Word> {
                        truth.values().filter(|word| word.0.contains(letter)).cloned().collect()
                    };
                    prop_assert_eq!(words.of(&letter).cloned().collect::<Vec<_>>(), of(&truth));
                    prop_assert_eq!(words.has(&letter), !of(&truth).is_empty());
                    prop_assert!(touched.contains(&letter) || of(&before) == of(&truth));
                }
                prop_assert_eq!(words.len(), truth.len());
            }
        }
    }
}
