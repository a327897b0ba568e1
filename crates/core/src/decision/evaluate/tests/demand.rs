//! Demand, and what it makes of activity.

use super::*;

#[test]
fn the_gateway_and_rejections_are_demand() {
    let zero = set(0);
    let queued = Observed { gateway: Some(3.0), ..observed(&zero, &[]) };
    let snapshot = decide(&trigger(&[]), &queued);
    assert_eq!((snapshot.activity, value(&snapshot)), (Activity::Active(Cause::Demand), Ok(0.0)));

    let mut refusing = pod(0, Is::Waiting(0.0));
    for (after, rejected_total) in [(1, 0.0), (2, 1.0)] {
        let demand = PodDemand { waiting: Some(0.0), running: Some(0.0), rejected_total };
        let sample = PodSample { demand, engine: true, ..PodSample::default() };
        refusing.sampled(NOW + Duration::from_secs(after), PageKind::Filtered, sample);
    }
    let one = set(1);
    let snapshot = decide(&trigger(&[]), &observed(&one, &[refusing]));
    assert_eq!(snapshot.demand.amount, 1.0);
}
