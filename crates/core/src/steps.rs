//! What reading a page takes, counted in tests: bytes looked at and entries gone through.
//!
//! A page is a tenant's, so each loop over one says how many steps it takes, and a property test
//! holds the sum against the size of the page. Counting is deterministic, as time is not. Outside
//! of the tests of this crate nothing is counted.

#[cfg(test)]
thread_local! {
    static TAKEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Notes that so many steps are taken.
#[inline(always)]
#[cfg_attr(not(test), allow(clippy::missing_const_for_fn))]
pub(crate) fn take(steps: usize) {
    #[cfg(test)]
    TAKEN.with(|taken| taken.set(taken.get() + steps));
    #[cfg(not(test))]
    let _ = steps;
}

/// The steps that `work` takes, and what comes of it.
#[cfg(test)]
pub(crate) fn of<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = TAKEN.get();
    let result = work();
    (TAKEN.get() - before, result)
}
