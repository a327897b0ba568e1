//! Placeholder.
use std::path::PathBuf;
#[derive(Debug)] pub struct DemoOptions { pub fast: bool, pub report: PathBuf }
pub async fn run(_o: DemoOptions) -> anyhow::Result<()> { Ok(()) }
