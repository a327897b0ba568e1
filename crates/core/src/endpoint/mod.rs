//! What one endpoint is: its phase, what its counters did lately, for how long a sample speaks
//! for it, and when and how it is scraped next.

pub mod cadence;
pub mod page_choice;
pub mod pod;
pub mod staleness;
pub mod traffic;
pub mod window;
