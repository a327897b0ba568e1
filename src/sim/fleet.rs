//! Many endpoints at little cost, for benches: recorded pages with a few moving values, on
//! many loopback addresses.
