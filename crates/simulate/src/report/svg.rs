//! Charts as SVG by hand: text keeps its size at any width, colours are CSS variables.

use std::fmt::Write as _;

use super::scale::Scale;

/// How wide the curves' own coordinates are; they are stretched to the chart.
const ACROSS: f64 = 1000.0;
/// Pixels under the curves for the labels of the horizontal axis.
const UNDER: f64 = 24.0;

/// A chart that is drawn into: first axes and grid, then whatever is added, in that order.
#[derive(Clone, Debug)]
pub struct Chart {
    x: Scale,
    y: Scale,
    /// Of the curves, in pixels.
    height: f64,
    /// What is stretched to the width.
    curves: String,
    /// What is only moved with it: text and dots.
    marks: String,
}

/// Which side of its place a label stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

impl Chart {
    #[must_use]
    pub fn new(height: f64, x: Scale, y: Scale) -> Self {
        Self { x, y, height, curves: String::new(), marks: String::new() }
    }

    fn across(&self, x: f64) -> f64 {
        self.x.share(x) * ACROSS
    }

    fn down(&self, y: f64) -> f64 {
        (1.0 - self.y.share(y)) * self.height
    }

    fn path(&self, points: impl IntoIterator<Item = (f64, f64)>) -> String {
        let mut path = String::new();
        for (x, y) in points {
            let letter = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{} {}", short(self.across(x)), short(self.down(y)));
        }
        path
    }

    /// A line through points; `class` names its colour and dashes.
    pub fn line(&mut self, points: impl IntoIterator<Item = (f64, f64)>, class: &str) {
        let path = self.path(points);
        if !path.is_empty() {
            let _ = write!(self.curves, "<path class=\"line {class}\" d=\"{path}\"/>");
        }
    }

    /// The area between points and the bottom.
    pub fn area(&mut self, points: &[(f64, f64)], class: &str) {
        if let (Some(first), Some(last)) = (points.first(), points.last()) {
            let path = self.path(points.iter().copied());
            let (left, right, bottom) =
                (short(self.across(first.0)), short(self.across(last.0)), short(self.height));
            let _ = write!(
                self.curves,
                "<path class=\"area {class}\" d=\"{path}L{right} {bottom}L{left} {bottom}Z\"/>"
            );
        }
    }

    /// A dot, with what is shown where a pointer rests on it.
    pub fn dot(&mut self, (x, y): (f64, f64), radius: f64, class: &str, title: &str) {
        let _ = write!(
            self.marks,
            "<circle class=\"dot {class}\" cx=\"{}%\" cy=\"{}\" r=\"{radius}\"><title>{}</title></circle>",
            short(self.x.share(x) * 100.0),
            short(self.down(y)),
            escaped(title)
        );
    }

    /// A label beside a place.
    pub fn label(&mut self, (x, y): (f64, f64), side: Side, class: &str, text: &str) {
        let (anchor, shift) = match side {
            Side::Left => ("end", -8),
            Side::Right => ("start", 8),
        };
        let _ = write!(
            self.marks,
            "<text class=\"{class}\" x=\"{}%\" y=\"{}\" dx=\"{shift}\" dy=\"4\" text-anchor=\"{anchor}\">{}</text>",
            short(self.x.share(x) * 100.0),
            short(self.down(y)),
            escaped(text)
        );
    }

    fn grid(&self) -> String {
        let mut grid = String::new();
        for (value, label) in self.y.ticks() {
            let y = short(self.down(*value));
            let _ = write!(
                grid,
                "<line class=\"grid\" x1=\"0\" x2=\"100%\" y1=\"{y}\" y2=\"{y}\"/>\
                 <text class=\"tick\" x=\"0\" y=\"{y}\" dx=\"-7\" dy=\"4\" text-anchor=\"end\">{}</text>",
                escaped(label)
            );
        }
        for (value, label) in self.x.ticks() {
            let share = self.x.share(*value);
            // The outermost labels stay inside.
            let anchor = if share > 0.985 { "end" } else { "middle" };
            let x = short(share * 100.0);
            let bottom = short(self.height);
            let _ = write!(
                grid,
                "<line class=\"grid\" x1=\"{x}%\" x2=\"{x}%\" y1=\"{bottom}\" y2=\"{}\"/>\
                 <text class=\"tick\" x=\"{x}%\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
                short(self.height + 4.0),
                short(self.height + 18.0),
                escaped(label)
            );
        }
        grid
    }

    /// The chart's elements: what is inside `<svg>`, at the given place and width of it.
    fn elements(&self, place: &str) -> String {
        format!(
            "<svg {place} height=\"{total}\" overflow=\"visible\">{grid}\
             <svg width=\"100%\" height=\"{height}\" viewBox=\"0 0 {ACROSS} {height}\" preserveAspectRatio=\"none\" \
             overflow=\"visible\">{curves}</svg>{marks}</svg>",
            total = short(self.height + UNDER),
            grid = self.grid(),
            height = short(self.height),
            curves = self.curves,
            marks = self.marks,
        )
    }

    /// For a page: as wide as its container, which leaves room for the labels at its left.
    #[must_use]
    pub fn inline(&self, name: &str) -> String {
        self.elements(&format!("role=\"img\" aria-label=\"{}\" width=\"100%\"", escaped(name)))
    }

    /// A file of its own, `width` pixels wide, with a title and a legend of classes and names.
    #[must_use]
    pub fn file(&self, width: f64, title: &str, axes: (&str, &str), legend: &[(&str, &str)]) -> String {
        const LEFT: f64 = 62.0;
        const RIGHT: f64 = 24.0;
        let mut head = format!("<text class=\"title\" x=\"16\" y=\"30\">{}</text>", escaped(title));
        let (mut x, mut y) = (16.0, 54.0);
        for (class, name) in legend {
            // Seven pixels a character are enough for the font that browsers take.
            let room = 26.0 + name.chars().count() as f64 * 7.0 + 14.0;
            if x + room > width {
                x = 16.0;
                y += 20.0;
            }
            let _ = write!(
                head,
                "<line class=\"line {class}\" x1=\"{x}\" x2=\"{}\" y1=\"{}\" y2=\"{}\"/>\
                 <text class=\"key\" x=\"{}\" y=\"{y}\">{}</text>",
                x + 18.0,
                y - 4.0,
                y - 4.0,
                x + 24.0,
                escaped(name)
            );
            x += room;
        }
        let _ = write!(head, "<text class=\"tick\" x=\"16\" y=\"{}\">{}</text>", y + 24.0, escaped(axes.1));
        let top = y + 38.0;
        let height = top + self.height + UNDER + 30.0;
        let chart =
            self.elements(&format!("x=\"{LEFT}\" y=\"{top}\" width=\"{}\"", short(width - LEFT - RIGHT)));
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">\n<style>\n{STYLE}</style>\n\
             <rect class=\"card\" x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"10\"/>{head}\n{chart}\n\
             <text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n</svg>\n",
            width - 1.0,
            height - 1.0,
            short(LEFT + (width - LEFT - RIGHT) / 2.0),
            short(height - 14.0),
            escaped(axes.0),
            title = escaped(title),
        )
    }
}

/// Colours and strokes of charts, for a page and for a file.
pub const STYLE: &str = include_str!("chart.css");

/// A coordinate with at most one digit behind the point.
fn short(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Text that can't become markup.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Points of a line that keeps its value until the next.
#[must_use]
pub fn stepped(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut steps = Vec::with_capacity(points.len() * 2);
    for (index, (at, value)) in points.iter().enumerate() {
        if index > 0 {
            let before = points[index - 1].1;
            if before != *value {
                steps.push((*at, before));
            } else if index + 1 < points.len() {
                continue;
            }
        }
        steps.push((*at, *value));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::{super::scale::number, *};

    fn chart() -> Chart {
        Chart::new(100.0, Scale::time(0.0, 600.0), Scale::from_zero(10.0, number))
    }

    #[test]
    fn curves_are_stretched_and_text_is_not() {
        let mut chart = chart();
        chart.line([(0.0, 0.0), (600.0, 10.0)], "one");
        chart.area(&[(0.0, 5.0), (300.0, 5.0)], "two");
        chart.dot((300.0, 5.0), 4.0, "three", "a < b");
        let svg = chart.inline("load");
        assert!(svg.contains("d=\"M0 100L1000 0\""), "{svg}");
        assert!(svg.contains("d=\"M0 50L500 50L500 100L0 100Z\""), "{svg}");
        assert!(svg.contains("cx=\"50%\" cy=\"50\"") && svg.contains("a &lt; b"), "{svg}");
        assert!(svg.contains("preserveAspectRatio=\"none\""), "{svg}");
    }

    #[test]
    fn a_file_brings_its_own_colours() {
        let svg = chart().file(800.0, "\"R&D\"", ("x", "y"), &[("one", "ours")]);
        assert!(svg.starts_with("<svg xmlns="), "{svg}");
        assert!(svg.contains("prefers-color-scheme: dark") && svg.contains("&quot;R&amp;D&quot;"), "{svg}");
        assert!(!svg.contains("<script") && !svg.contains("href"), "{svg}");
    }

    #[test]
    fn a_step_keeps_its_value_until_the_next() {
        let steps = stepped(&[(0.0, 1.0), (1.0, 1.0), (2.0, 3.0), (5.0, 0.0)]);
        assert_eq!(steps, [(0.0, 1.0), (2.0, 1.0), (2.0, 3.0), (5.0, 3.0), (5.0, 0.0)]);
    }
}
