//! The text of a Kubernetes event.

/// What the API server takes as an event's note, in bytes.
const NOTE_LIMIT: usize = 1024;

/// A note that the API server takes: of one that is too long, the start.
#[must_use]
pub fn shortened(note: &str) -> String {
    if note.len() <= NOTE_LIMIT {
        return note.to_owned();
    }
    let limit = NOTE_LIMIT - '…'.len_utf8();
    let end = note.char_indices().map(|(at, _)| at).take_while(|&at| at <= limit).last().unwrap_or(0);
    format!("{}…", &note[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_fits_into_an_event() {
        assert_eq!(shortened("short"), "short");
        for long in ["x".repeat(1024), "x".repeat(1025), "é".repeat(1024), format!("x{}", "é".repeat(1024))]
        {
            let shortened = shortened(&long);
            assert!(shortened.len() <= NOTE_LIMIT && shortened.len() > NOTE_LIMIT - 6, "{}", shortened.len());
            assert_eq!(shortened == long, long.len() <= NOTE_LIMIT);
        }
    }
}
