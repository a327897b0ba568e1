use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Moment {
    Moment::from_unix(Duration::from_secs(1_000 + seconds))
}

fn counted(count: f64, sum: f64) -> Histogram {
    Histogram { count, sum, buckets: vec![] }
}

fn window(span: u64, samples: &[(u64, f64, f64)]) -> Window {
    let mut window = Window::new(Duration::from_secs(span));
    for &(when, count, sum) in samples {
        window.push(at(when), &Cumulative::from(&counted(count, sum)));
    }
    window
}

#[test]
fn one_sample_is_no_delta() {
    assert!(window(60, &[]).delta().is_none());
    assert!(window(60, &[(0, 5.0, 5.0)]).delta().is_none());
}

#[test]
fn two_samples_answer_and_say_that_they_warm_up() {
    let window = window(60, &[(0, 5.0, 10.0), (1, 8.0, 25.0)]);
    let delta = window.delta().unwrap();
    assert_eq!(delta.increase(), counted(3.0, 15.0));
    assert!(delta.warming_up);
    assert_eq!(delta.covered, Duration::from_secs(1));
}

#[test]
fn a_full_window_forgets_what_is_older_than_its_span() {
    let samples: Vec<_> = (0..200).map(|s: u32| (u64::from(s), f64::from(s), f64::from(2 * s))).collect();
    let window = window(60, &samples);
    let delta = window.delta().unwrap();
    assert!(!delta.warming_up);
    let covered = delta.covered.as_secs_f64();
    assert!((57.0..=60.0).contains(&covered), "{covered}");
    assert!((delta.count() - covered).abs() < 1e-9);
}

#[test]
fn a_reset_is_no_negative_work() {
    // 10 → 14, restart, 0 → 3: four and three more.
    let window = window(60, &[(0, 10.0, 10.0), (1, 14.0, 14.0), (2, 0.0, 0.0), (3, 3.0, 3.0)]);
    assert_eq!(window.delta().unwrap().increase(), counted(7.0, 7.0));
}

#[test]
fn samples_out_of_order_are_dropped() {
    let window = window(60, &[(5, 10.0, 10.0), (7, 12.0, 12.0), (6, 99.0, 99.0), (7, 99.0, 99.0)]);
    assert_eq!(window.delta().unwrap().increase(), counted(2.0, 2.0));
}

#[test]
fn a_long_silence_does_not_stretch_the_window() {
    assert!(window(60, &[(0, 10.0, 10.0), (1_000, 500.0, 500.0)]).delta().is_none());
}

#[test]
fn buckets_are_differenced_bound_by_bound() {
    let page = |counts: [f64; 3]| Histogram {
        count: counts[2],
        sum: counts[2],
        buckets: [0.1, 1.0, f64::INFINITY].into_iter().zip(counts).collect(),
    };
    let mut window = Window::new(Duration::from_secs(60));
    window.push(at(0), &Cumulative::from(&page([1.0, 2.0, 3.0])));
    window.push(at(1), &Cumulative::from(&page([2.0, 5.0, 9.0])));
    let buckets = window.delta().unwrap().increase().buckets;
    assert_eq!(buckets, vec![(0.1, 1.0), (1.0, 3.0), (f64::INFINITY, 6.0)]);
}

proptest! {
    /// Against a naive sum over every sample, for runs shorter than the span.
    #[test]
    fn agrees_with_a_naive_sum_of_increases(
        steps in proptest::collection::vec((1_u64..5, 0_u32..50), 2..80),
    ) {
        let mut window = Window::new(Duration::from_secs(1_000));
        let (mut now, mut naive, mut last) = (0, 0_u32, None);
        for (gap, raw) in steps {
            now += gap;
            window.push(at(now), &Cumulative::of_count(f64::from(raw)));
            naive += match last {
                None => 0,
                Some(last) if raw < last => raw,
                Some(last) => raw - last,
            };
            last = Some(raw);
        }
        prop_assert_eq!(window.delta().unwrap().count(), f64::from(naive));
        prop_assert!(window.slots.len() <= SLOTS as usize + 3);
    }
}

fn series(id: u64, count: f64, sum: f64) -> Series {
    Series { id, count, sum, buckets: vec![] }
}

fn page(series: &[Series]) -> Cumulative {
    Cumulative { bounds: vec![], series: series.to_vec() }
}

/// A window over pages a second apart.
fn over(pages: &[&[Series]]) -> Window {
    let mut window = Window::new(Duration::from_secs(60));
    for (second, one) in (0..).zip(pages) {
        window.push(at(second), &page(one));
    }
    window
}

/// Two engines of one pod: a thousand requests of a hundred seconds each long ago, and one that
/// starts anew.
#[test]
fn one_series_that_starts_anew_does_not_bring_back_the_lifetime_of_another() {
    let long_ago = series(1, 1_000.0, 100_000.0);
    let window = over(&[
        &[long_ago.clone(), series(2, 10.0, 50.0)],
        &[long_ago.clone(), series(2, 20.0, 90.0)],
        &[long_ago.clone(), series(2, 5.0, 5.0)],
    ]);
    let delta = window.delta().unwrap();
    assert_eq!((delta.count(), delta.sum()), (15.0, 45.0));
    assert_eq!(delta.sum() / delta.count(), 3.0);
    assert_eq!(delta.per_second(), 7.5);
}

#[test]
fn a_series_that_is_gone_is_no_work_and_neither_is_its_return() {
    let a = |count| series(1, count, 0.0);
    let b = |count| series(2, count, 0.0);
    // (pages, increase)
    let cases: [(&[&[Series]], f64); 7] = [
        (&[&[a(7.0), b(1_000.0)], &[a(7.0)]], 0.0),
        (&[&[a(7.0), b(1_000.0)], &[a(8.0)], &[a(8.0), b(1_002.0)]], 3.0),
        (&[&[a(7.0), b(1_000.0)], &[], &[a(7.0), b(1_000.0)]], 0.0),
        // It comes back from the start.
        (&[&[a(7.0), b(1_000.0)], &[a(7.0)], &[a(7.0), b(4.0)]], 4.0),
        // One that is new began at 0, for a page ago it was not there: a first refusal counts.
        (&[&[a(7.0)], &[a(7.0), b(1.0)]], 1.0),
        (&[&[], &[b(1.0)]], 1.0),
        // But of the first page nothing is known.
        (&[&[a(7.0), b(1_000.0)], &[a(7.0), b(1_000.0)]], 0.0),
    ];
    for (pages, increase) in cases {
        assert_eq!(over(pages).delta().unwrap().count(), increase, "{pages:?}");
    }
}

#[test]
fn buckets_of_another_version_are_compared_among_themselves() {
    let histogram = |bounds: &[f64], buckets: &[f64]| Cumulative {
        bounds: bounds.to_vec(),
        series: vec![Series { id: 1, count: buckets[1], sum: 0.0, buckets: buckets.to_vec() }],
    };
    let (old, new) = ([0.1, f64::INFINITY], [0.5, f64::INFINITY]);
    let mut window = Window::new(Duration::from_secs(60));
    let mut push = |second, bounds: &[f64], buckets: &[f64]| {
        window.push(at(second), &histogram(bounds, buckets));
        window.delta().map(|delta| (delta.count(), delta.increase().buckets))
    };
    assert_eq!(push(0, &old, &[1.0, 5.0]), None);
    assert_eq!(push(1, &old, &[2.0, 8.0]), Some((3.0, vec![(0.1, 1.0), (f64::INFINITY, 3.0)])));
    // What was counted holds; of these bounds there is one page so far, at the end of the window.
    assert_eq!(push(2, &new, &[1.0, 2.0]), Some((5.0, vec![])));
    for second in 3..=70 {
        push(second, &new, &[1.0, 2.0]);
    }
    assert_eq!(push(71, &new, &[3.0, 4.0]), Some((2.0, vec![(0.5, 2.0), (f64::INFINITY, 2.0)])));
    // A labelled histogram has no bounds before its first series, whose buckets began at 0.
    let mut window = Window::new(Duration::from_secs(60));
    window.push(at(0), &Cumulative::default());
    window.push(at(1), &histogram(&old, &[2.0, 8.0]));
    window.push(at(2), &Cumulative::default());
    let delta = window.delta().unwrap().increase();
    assert_eq!((delta.count, delta.buckets), (8.0, vec![(0.1, 2.0), (f64::INFINITY, 8.0)]));
}

#[test]
fn series_that_come_and_go_without_end_take_bounded_memory() {
    let mut window = Window::new(Duration::from_secs(60));
    for second in 0..200 {
        let new = (0..200).map(|n| series(second * 200 + n, 1.0, 0.0));
        window.push(at(second), &page(&new.collect::<Vec<_>>()));
        assert!(window.last.len() <= KEPT + 200);
    }
    assert!(window.last.len() <= KEPT);
}

proptest! {
    /// Against a naive sum over every sample and series, for runs shorter than the span.
    #[test]
    fn each_series_has_its_own_increase(
        pages in proptest::collection::vec(proptest::collection::btree_map(0_u64..6, 0_u32..50, 0..6), 2..40),
    ) {
        let mut window = Window::new(Duration::from_secs(1_000));
        let (mut naive, mut last) = (0_u32, std::collections::BTreeMap::new());
        for (second, counts) in (0..).zip(&pages) {
            let raw: Vec<_> = counts.iter().map(|(id, count)| series(*id, f64::from(*count), 0.0)).collect();
            window.push(at(second), &page(&raw));
            for (id, count) in counts {
                match last.insert(*id, *count) {
                    Some(before) if *count >= before => naive += count - before,
                    None if second == 0 => {}
                    _ => naive += count,
                }
            }
        }
        prop_assert_eq!(window.delta().unwrap().count(), f64::from(naive));
    }
}
