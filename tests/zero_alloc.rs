//! Reading a page allocates nothing, however long the page is.

use scaler_core::exposition::{Selector, samples, select};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Blocks that each run of `work` allocates. Those of all threads are counted, and the thread of
/// the test harness allocates once in a while; it does not in every one of several runs.
fn allocations(mut work: impl FnMut()) -> u64 {
    let run = |_| {
        let before = dhat::HeapStats::get().total_blocks;
        work();
        dhat::HeapStats::get().total_blocks - before
    };
    (0..10).map(run).min().unwrap_or_default()
}

#[test]
fn neither_walk_nor_selection_allocates() {
    let page = [
        include_bytes!("data/loaded.txt").as_slice(),
        include_bytes!("data/idle-fresh.txt"),
        b"broken{\n{\"a.name\",l=\"\\\"\",m=\"}\"} 1 2 # {} 3\n\xff\xfe\nx{a=\"1\",b=\"2\",c=\"3\",d=\"4\",e=\"5\"} NaN\n",
    ]
    .concat();
    let selector =
        Selector::new(["vllm:num_requests_waiting", "vllm:time_to_first_token_seconds", "a.name", "x"]);
    let many = Selector::new((0..200).map(|n| format!("vllm:family_{n}")).chain(["x".to_owned()]));
    let _profiler = dhat::Profiler::builder().testing().build();

    let (mut read, mut labels, mut rejected) = (0, 0, 0);
    let walk = allocations(|| {
        (read, labels) = (0, 0);
        let mut walk = samples(&page);
        for sample in walk.by_ref() {
            read += 1;
            labels += sample.labels.iter().count();
            assert!(sample.labels.get("no such label").is_none());
        }
        rejected = walk.rejected();
    });
    let mut selected = 0;
    let selection = allocations(|| {
        selected = 0;
        select(&page, &selector, |sample| selected += usize::from(!sample.sample.name.is_empty()));
        select(&page, &many, |sample| selected += usize::from(!sample.sample.name.is_empty()));
    });

    assert_eq!((walk, selection), (0, 0));
    assert!(
        read > 800 && labels > 2000 && rejected == 2,
        "{read} samples, {labels} labels, {rejected} rejected"
    );
    assert_eq!(selected, 2 * 26 + 2 + 1);
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(0_u64)))), 1, "the count counts");
}
