//! Faults that tests put into parts of the process that they run. Not in the product.

use std::{collections::BTreeSet, sync::LazyLock};

use tokio::sync::watch;

/// What happens to a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Panic,
    End,
}

/// A part's name, and what happens to it.
type Struck = Option<(String, Fault)>;

static STRUCK: LazyLock<watch::Sender<Struck>> = LazyLock::new(watch::Sender::default);
static BEGUN: LazyLock<watch::Sender<BTreeSet<&'static str>>> = LazyLock::new(watch::Sender::default);

/// Whatever runs under this name in this test's process has this fault from now on.
pub(crate) fn strike(part: &str, fault: Fault) {
    STRUCK.send_replace(Some((part.to_owned(), fault)));
}

/// Waits until all of `parts` run, and gives the names of all that this test's process has begun.
pub(crate) async fn begun(parts: &BTreeSet<&'static str>) -> BTreeSet<&'static str> {
    let mut begun = BEGUN.subscribe();
    // The sender is never dropped.
    begun.wait_for(|begun| begun.is_superset(parts)).await.map(|begun| begun.clone()).unwrap_or_default()
}

/// `part`, until it is struck; `None` where it was made to end.
pub(super) async fn open_to<T>(name: &'static str, part: impl Future<Output = T>) -> Option<T> {
    BEGUN.send_if_modified(|begun| begun.insert(name));
    let mut struck = STRUCK.subscribe();
    let fault = async {
        let is_ours = |struck: &Struck| struck.as_ref().is_some_and(|(part, _)| part == name);
        // The sender is never dropped.
        let fault =
            struck.wait_for(is_ours).await.ok().and_then(|struck| struck.as_ref().map(|(_, fault)| *fault));
        // In here, while `part` still has all that it holds, as with a panic of its own.
        assert!(fault != Some(Fault::Panic), "struck by the test");
    };
    tokio::select! {
        biased;
        () = fault => None,
        ended = part => Some(ended),
    }
}
