//! What the fuzz targets check, as plain functions over bytes: a target is one line, and the
//! tests of this crate run the corpus through the same functions without a fuzzer.

pub mod annotations;
pub mod answer;
pub mod endpoints;
pub mod exposition;
pub mod text;
pub mod trigger;

/// The code under test, read from where it is: the program's own crate has two hundred
/// dependencies, and this file has three.
#[path = "../../src/scrape/answer.rs"]
pub mod http_answer;
