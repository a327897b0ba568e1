use super::*;

const LOADED: &[u8] = include_bytes!("../../../tests/data/loaded.txt");

#[test]
fn walks_a_real_page() {
    let mut walk = samples(LOADED);
    let waiting: Vec<_> =
        walk.by_ref().filter(|s| s.name == "vllm:num_requests_waiting").map(|s| s.value).collect();
    assert_eq!(waiting, [11.0]);
    assert_eq!(walk.rejected(), 0);
}
