//! The demo, compressed to ten seconds: zero to many and back, with the real engine.

use demo::{self, DemoOptions};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_model_is_woken_by_its_first_request_and_sleeps_in_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("made/on/the/way/report.html");
    let summary = demo::run(DemoOptions { fast: true, report: report.clone() }).await.unwrap();

    assert!(summary.pushes >= 1, "{summary:?}");
    // The gateway is scraped every 100 ms; the rest is room for a busy machine.
    assert!(summary.queue_to_replica.is_some_and(|milliseconds| milliseconds < 1000.0), "{summary:?}");
    assert!(summary.most_replicas > 1 && summary.ended_at_zero, "{summary:?}");
    assert!(summary.replica_seconds < summary.always_on_replica_seconds, "{summary:?}");
    let accounted = summary.served as u64 + summary.refused + summary.lost;
    assert_eq!(accounted, summary.arrived, "{summary:?}");
    assert_eq!(summary.failed_calls, 0, "{summary:?}");

    let page = std::fs::read_to_string(report).unwrap();
    assert_eq!(page.matches("<svg").count(), 5);
    // Self-contained: the only address in it is SVG's namespace.
    assert_eq!(page.matches("http").count(), page.matches("http://www.w3.org/2000/svg").count());
    assert!(!page.contains("<script") && !page.contains("NaN"));
}
