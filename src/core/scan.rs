//! stub
#[derive(Debug)]
pub struct Scan {
    pub families: Vec<u8>,
    pub rejected: usize,
}
#[must_use]
pub fn scan(_: &[u8], _: &[String]) -> Scan {
    Scan { families: vec![], rejected: 0 }
}
