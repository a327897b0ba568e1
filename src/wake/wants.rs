//! Which Services are to be looked up.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use scaler_core::wake::ServicePort;

/// The ports of Services that the readers of this process want to know, by reader. Cheap to
/// clone; all clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Wants(watch::Sender<BTreeMap<&'static str, BTreeSet<ServicePort>>>);

impl Wants {
    /// `reader` wants these from now on, and no others.
    pub fn set(&self, reader: &'static str, wanted: BTreeSet<ServicePort>) {
        self.0.send_if_modified(|current| {
            let news = current.get(reader).is_none_or(|before| *before != wanted);
            current.insert(reader, wanted);
            news
        });
    }

    #[must_use]
    pub fn follow(&self) -> watch::Receiver<BTreeMap<&'static str, BTreeSet<ServicePort>>> {
        self.0.subscribe()
    }
}
