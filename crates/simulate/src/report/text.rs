//! The table of a comparison, for terminals and for Markdown.

use std::fmt::Write as _;

use super::{
    group::{Cell, Group},
    scale::number,
};

/// The columns: their names, and whether they are text.
const COLUMNS: [(&str, bool); 12] = [
    ("policy", true),
    ("missed", false),
    ("TTFT p50", false),
    ("p95", false),
    ("p99", false),
    ("hours", false),
    ("× best", false),
    ("loading", false),
    ("refused", false),
    ("lost", false),
    ("up/down", false),
    ("reversals", false),
];

/// The cells of a row of the table.
#[must_use]
pub fn row(cell: &Cell<'_>, group: &Group<'_>) -> [String; 12] {
    let seconds = |value: f64| format!("{} s", number(value));
    let hours = group.hours();
    [
        group.name(),
        percent(group.violations()),
        seconds(group.mean(|run| run.ttft_p50)),
        seconds(group.mean(|run| run.ttft_p95)),
        seconds(group.mean(|run| run.ttft_p99)),
        number(hours),
        cell.relative(hours).map_or_else(|| "-".to_owned(), |times| format!("{times:.2}")),
        number(group.mean(|run| run.loading_hours)),
        number(group.mean(|run| run.refused as f64).round()),
        number(group.mean(|run| run.lost as f64).round()),
        format!(
            "{}/{}",
            number(group.mean(|run| run.scale_ups as f64).round()),
            number(group.mean(|run| run.scale_downs as f64).round())
        ),
        number(group.mean(|run| run.reversals as f64)),
    ]
}

/// The names of the columns.
#[must_use]
pub fn header() -> [&'static str; 12] {
    COLUMNS.map(|(name, _)| name)
}

/// A share as a percentage that tells 99.9 from 100.
#[must_use]
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = if percent >= 9.95 {
        0
    } else if percent >= 0.995 || percent == 0.0 {
        1
    } else {
        2
    };
    format!("{percent:.digits$}%")
}

/// The comparison of every cell as aligned text.
#[must_use]
pub fn table(cells: &[Cell<'_>]) -> String {
    let mut text = String::new();
    for cell in cells {
        let rows: Vec<[String; 12]> = cell.groups.iter().map(|group| row(cell, group)).collect();
        let width = |column: usize| {
            let own = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
            own.max(COLUMNS[column].0.chars().count())
        };
        let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
        let _ = writeln!(text, "{}", cell.title());
        line(&mut text, &widths, &header().map(str::to_owned));
        for row in &rows {
            line(&mut text, &widths, row);
        }
        text.push('\n');
    }
    text
}

fn line(text: &mut String, widths: &[usize], fields: &[String; 12]) {
    let mut line = String::new();
    for ((field, width), (_, is_text)) in fields.iter().zip(widths).zip(COLUMNS) {
        let room = " ".repeat(width.saturating_sub(field.chars().count()));
        let _ = if is_text { write!(line, "  {field}{room}") } else { write!(line, "  {room}{field}") };
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::{
        super::{group::cells, testing::outcome},
        *,
    };

    #[test]
    fn the_columns_are_aligned() {
        let outcomes = [
            outcome("azure", "waiting", "threshold=10", 100.0, 0.52, 10.0),
            outcome("azure", "clairvoyant", "", 100.0, 0.9987, 8.0),
        ];
        let expected = "\
azure, cold start 100 s
  policy                missed  TTFT p50    p95    p99  hours  × best  loading  refused  lost  up/down  reversals
  waiting:threshold=10     48%    0.21 s  1.4 s  6.2 s     10    1.25      0.5       12     0      9/8          3
  clairvoyant            0.13%    0.21 s  1.4 s  6.2 s      8    1.00      0.4       12     0      9/8          3

";
        assert_eq!(table(&cells(&outcomes)), expected);
    }

    #[test]
    fn shares_close_to_none_are_told_from_none() {
        assert_eq!([0.0, 0.0004, 0.0123, 0.48].map(percent), ["0.0%", "0.04%", "1.2%", "48%"]);
    }
}
