//! Discovery against an API server that the test plays, in virtual time.

mod api;
mod feed;
mod run;

use serde_json::{Value, json};

fn pod(name: &str, uid: &str, version: &str) -> Value {
    json!({
        "metadata": {
            "namespace": "team-a",
            "name": name,
            "uid": uid,
            "resourceVersion": version,
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"inferenceset.kaito.sh/created-by": "demo"},
        },
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    })
}

fn inference_set(name: &str, replicas: u32, version: &str) -> Value {
    let metadata = json!({"namespace": "team-a", "name": name, "resourceVersion": version});
    json!({"metadata": metadata, "spec": {"replicas": replicas}})
}

/// What is logged by this thread while the guard lives.
fn logs() -> (tracing::subscriber::DefaultGuard, impl Fn() -> String) {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let page = Page::default();
    let writer = page.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let read = move || String::from_utf8(page.0.lock().unwrap().clone()).unwrap();
    (tracing::subscriber::set_default(subscriber), read)
}
