//! The endpoints file: nothing that is written there panics, lists an endpoint twice, or gets
//! into a message unescaped.

use std::{collections::HashSet, time::Duration};

use scaler_core::{fleet::endpoints_file::EndpointsDocument, time::Moment};

use crate::text::assert_presentable;

pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let document = match EndpointsDocument::parse(text) {
        Ok(document) => document,
        Err(problem) => return assert_presentable(&problem, 1),
    };
    let now = Moment::from_unix(Duration::from_secs(1));
    let sets = document.into_inference_sets(|_| now);
    let keys: HashSet<_> = sets.iter().map(|set| &set.key).collect();
    assert_eq!(keys.len(), sets.len(), "{text}");
    for set in &sets {
        let uids: HashSet<_> = set.endpoints.iter().map(|endpoint| &endpoint.uid).collect();
        assert_eq!(uids.len(), set.endpoints.len(), "{text}");
        let count = i32::MAX.unsigned_abs();
        assert!(set.replicas <= count && set.ready_replicas <= count, "{text}");
    }
}
