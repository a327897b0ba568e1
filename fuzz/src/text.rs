//! Maps of texts out of bytes, and what a message may look like.

/// The pairs in lines of `key=value`. `\n` in a value is a line feed, so that lists in YAML fit.
#[must_use]
pub fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    let pair = |line: &str| {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        (key.replace("\\n", "\n"), value.replace("\\n", "\n"))
    };
    text.split('\n').filter(|line| !line.is_empty()).map(pair).collect()
}

/// Asserts that `message` can stand in a log line, a terminal and an event: what somebody
/// wrote is escaped in it and cut. `parts` says of how many messages it is made.
pub fn assert_presentable(message: &str, parts: usize) {
    let control = message.chars().find(|character| character.is_control());
    assert_eq!(control, None, "a control character in {message:?}");
    assert!(message.len() <= 2048 * parts.max(1), "{} bytes: {message}", message.len());
}
