//! The record of traffic: a file of JSON lines that `simulate` can replay.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::{
    fs::{self, File, OpenOptions},
    io::AsyncWriteExt,
    sync::mpsc,
};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use scaler_core::endpoint::traffic::RecordLine;

/// The least that a file may hold before another is begun, in bytes.
pub const LEAST_LIMIT: u64 = 1 << 20;
/// Minutes that may wait for the disk.
const WAITING: usize = 4;

/// Where traffic is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordOptions {
    pub file: PathBuf,
    /// Bytes after which the file becomes FILE.1, in place of the one before, and another is
    /// begun. So about twice as much is kept: a minute is not divided.
    pub limit: u64,
}

/// The file can't be opened.
#[derive(Debug, thiserror::Error)]
#[error("failed to open the record of traffic {}", path.display())]
pub struct RecordError {
    path: PathBuf,
    source: io::Error,
}

/// Writes what it is handed. Ends when nobody can hand it anything any more.
#[derive(Debug)]
pub struct Recorder {
    options: RecordOptions,
    /// `None` after it could not be opened anew.
    file: Option<File>,
    size: u64,
    lines: mpsc::Receiver<Vec<RecordLine>>,
    failing: bool,
}

impl Recorder {
    /// Opens the file and starts to write what comes through the sender; `None` where nothing is
    /// to be recorded.
    pub async fn begin(
        options: Option<RecordOptions>,
        tasks: &TaskTracker,
    ) -> Result<Option<mpsc::Sender<Vec<RecordLine>>>, RecordError> {
        let Some(options) = options else { return Ok(None) };
        let (recorder, sender) = Self::open(options).await?;
        tasks.spawn(recorder.run());
        Ok(Some(sender))
    }

    /// Opens the file, and goes on at its end. Lines are handed over through the sender.
    pub async fn open(options: RecordOptions) -> Result<(Self, mpsc::Sender<Vec<RecordLine>>), RecordError> {
        let failed = |source| RecordError { path: options.file.clone(), source };
        let file = append(&options.file).await.map_err(failed)?;
        let size = file.metadata().await.map_err(failed)?.len();
        let (sender, lines) = mpsc::channel(WAITING);
        info!(file = %options.file.display(), size, "traffic is recorded");
        Ok((Self { options, file: Some(file), size, lines, failing: false }, sender))
    }

    /// Writes until the senders are gone.
    async fn run(mut self) {
        let mut text = String::new();
        while let Some(lines) = self.lines.recv().await {
            text.clear();
            for line in &lines {
                line.write_to(&mut text);
            }
            let written = self.write(text.as_bytes()).await;
            match &written {
                Ok(()) if self.failing => info!("traffic is recorded again"),
                Err(error) if !self.failing => {
                    warn!(%error, file = %self.options.file.display(), "traffic is not recorded");
                }
                _ => {}
            }
            self.failing = written.is_err();
        }
    }

    async fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let added = text.len() as u64;
        if self.size > 0 && self.size + added > self.options.limit {
            self.rotate().await?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(append(&self.options.file).await?),
        };
        // Counted before it is written: of a write that fails some may be there.
        self.size += added;
        file.write_all(text).await?;
        file.flush().await
    }

    async fn rotate(&mut self) -> io::Result<()> {
        self.file = None;
        fs::rename(&self.options.file, earlier(&self.options.file)).await?;
        self.size = 0;
        Ok(())
    }
}

async fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).await
}

/// The file that was full: `traffic.jsonl` becomes `traffic.jsonl.1`.
fn earlier(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    name.into()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use scaler_core::{endpoint::traffic::Traffic, time::Moment};

    use super::*;

    fn line(minute: u64) -> RecordLine {
        RecordLine {
            namespace: "team-a".into(),
            scaled_object: "demo".into(),
            traffic: Traffic {
                at: Moment::from_unix(Duration::from_secs(1_764_064_980 + minute * 60)),
                length: Duration::from_secs(60),
                arrivals: Some(60.0),
                prompt_tokens: Some(1_000.0),
                generation_tokens: Some(200.0),
            },
            replicas: Some(1),
            values: Vec::new(),
        }
    }

    fn options(folder: &tempfile::TempDir, limit: u64) -> RecordOptions {
        RecordOptions { file: folder.path().join("traffic.jsonl"), limit }
    }

    async fn record(options: &RecordOptions, minutes: std::ops::Range<u64>) {
        let (recorder, sender) = Recorder::open(options.clone()).await.unwrap();
        let running = TaskTracker::new().spawn(recorder.run());
        for minute in minutes {
            sender.send(vec![line(minute)]).await.unwrap();
        }
        drop(sender);
        running.await.unwrap();
    }

    fn read(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn lines_are_appended_and_a_restart_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(&folder, LEAST_LIMIT);
        record(&options, 0..2).await;
        record(&options, 2..3).await;
        let lines = read(&options.file);
        assert_eq!(lines.len(), 3);
        assert!(lines[2].contains("\"time\":\"2025-11-25T10:05:00Z\""), "{lines:?}");
    }

    #[tokio::test]
    async fn no_more_than_twice_the_limit_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(&folder, 1_000);
        record(&options, 0..100).await;
        let (newer, older) = (read(&options.file), read(&earlier(&options.file)));
        assert!(!newer.is_empty() && older.len() >= 4, "{newer:?} {older:?}");
        let size = |path: &Path| std::fs::metadata(path).unwrap().len();
        assert!(size(&options.file) <= 1_000 && size(&earlier(&options.file)) <= 1_000);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(newer.last().unwrap().contains("T11:42:00Z"), "{newer:?}");
    }

    #[tokio::test]
    async fn a_file_that_can_not_be_opened_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let options = RecordOptions { file: folder.path().to_owned(), limit: LEAST_LIMIT };
        let error = Recorder::open(options).await.unwrap_err().to_string();
        assert!(error.starts_with("failed to open the record of traffic /"), "{error}");
    }

    #[tokio::test]
    async fn a_disk_that_comes_back_is_written_to_again() {
        let folder = tempfile::tempdir().unwrap();
        let options = options(&folder, 400);
        let (mut recorder, _sender) = Recorder::open(options.clone()).await.unwrap();
        let text = [b'x'; 300];
        recorder.write(&text).await.unwrap();
        // It can't become FILE.1 while that is a folder with something in it.
        let obstacle = earlier(&options.file);
        std::fs::create_dir_all(obstacle.join("full")).unwrap();
        recorder.write(&text).await.unwrap_err();
        std::fs::remove_dir_all(&obstacle).unwrap();
        recorder.write(&text).await.unwrap();
        assert_eq!((std::fs::metadata(&options.file).unwrap().len(), recorder.size), (300, 300));
    }
}
