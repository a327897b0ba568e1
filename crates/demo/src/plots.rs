//! The report's plots, as SVG whose colours are the page's CSS variables.

use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    history::{Frame, History},
    scenario::Scenario,
};
use sim::keda::{Cause, Event};

/// Colours that [`themed`] turns into CSS variables; as colours they mean nothing.
mod ink {
    use plotters::style::RGBColor;

    pub(super) const TEXT: RGBColor = RGBColor(1, 2, 3);
    pub(super) const GRID: RGBColor = RGBColor(1, 2, 4);
    pub(super) const ONE: RGBColor = RGBColor(1, 2, 5);
    pub(super) const TWO: RGBColor = RGBColor(1, 2, 6);
    pub(super) const THREE: RGBColor = RGBColor(1, 2, 7);
    pub(super) const FOUR: RGBColor = RGBColor(1, 2, 8);
}

const VARIABLES: [(&str, &str); 6] = [
    ("#010203", "var(--text)"),
    ("#010204", "var(--grid)"),
    ("#010205", "var(--one)"),
    ("#010206", "var(--two)"),
    ("#010207", "var(--three)"),
    ("#010208", "var(--four)"),
];

fn themed(svg: &str) -> String {
    let svg = svg.replace("font-family=\"sans-serif\"", "font-family=\"inherit\"");
    VARIABLES.iter().fold(svg, |svg, (colour, variable)| svg.replace(colour, variable))
}

/// Why a plot could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("failed to draw the plot of {plot}: {reason}")]
pub(crate) struct PlotError {
    plot: &'static str,
    reason: String,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

const SIZE: (u32, u32) = (960, 230);

/// Draws one plot onto a fresh area of the given size.
fn plot(
    name: &'static str,
    size: (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> Drawn,
) -> Result<String, PlotError> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
    let drawn = draw(&area).and_then(|()| area.present());
    drop(area);
    drawn.map_err(|error| PlotError { plot: name, reason: error.to_string() })?;
    Ok(themed(&svg))
}

/// What the plots are drawn from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub history: &'a History,
    pub scenario: &'a Scenario,
}

impl Source<'_> {
    fn length(self) -> f64 {
        self.history.length().max(0.1)
    }

    fn series(self, of: impl Fn(&Frame) -> f64) -> Vec<(f64, f64)> {
        self.history.frames.iter().map(|frame| (frame.at, of(frame))).collect()
    }

    fn highest(self, of: impl Fn(&Frame) -> f64) -> f64 {
        self.history.frames.iter().map(of).fold(1.0, f64::max)
    }

    /// Axes, grid, and the names of the scenario's stretches along the top.
    fn chart<'a, 'b>(
        self,
        area: &'a Area<'b>,
        highest: f64,
    ) -> Result<Chart<'a, 'b>, DrawingAreaErrorKind<std::io::Error>> {
        let top = highest * 1.2;
        let mut chart = ChartBuilder::on(area)
            .margin_right(14)
            .margin_top(4)
            .x_label_area_size(26)
            .y_label_area_size(50)
            .build_cartesian_2d(0.0..self.length(), 0.0..top)?;
        let label = ("sans-serif", 12).into_font().color(&ink::TEXT);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(ink::GRID)
            .axis_style(ink::GRID)
            .label_style(label)
            .y_labels(5)
            .x_labels(11)
            .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
            .y_label_formatter(&|value| format!("{value:.0}"))
            .draw()?;
        self.stretches(&mut chart, top)?;
        Ok(chart)
    }

    fn stretches(self, chart: &mut Chart<'_, '_>, top: f64) -> Drawn {
        let style = ("sans-serif", 12).into_font().color(&ink::TEXT.mix(0.65));
        let mut begins = 0.0;
        for stretch in &self.scenario.schedule.0 {
            if begins >= self.length() {
                break;
            }
            chart.plotting_area().draw(&PathElement::new(vec![(begins, 0.0), (begins, top)], ink::GRID))?;
            chart
                .plotting_area()
                .draw(&(EmptyElement::at((begins, top)) + Text::new(stretch.name, (5, 3), style.clone())))?;
            begins += stretch.length.as_secs_f64();
        }
        Ok(())
    }

    fn filled(chart: &mut Chart<'_, '_>, points: Vec<(f64, f64)>, colour: RGBColor) -> Drawn {
        chart.draw_series(AreaSeries::new(points, 0.0, colour.mix(0.28)).border_style(line(colour)))?;
        Ok(())
    }
}

fn line(colour: RGBColor) -> ShapeStyle {
    ShapeStyle::from(colour).stroke_width(2)
}

/// Points of a line that keeps its value until the next.
fn stepped(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut steps = Vec::with_capacity(points.len() * 2);
    for (index, (at, value)) in points.iter().enumerate() {
        if index > 0 {
            steps.push((*at, points[index - 1].1));
        }
        steps.push((*at, *value));
    }
    steps
}

/// Requests per second that clients send.
pub(crate) fn demand(source: Source<'_>) -> Result<String, PlotError> {
    plot("demand", (SIZE.0, 170), |area| {
        let mut chart = source.chart(area, source.highest(|frame| frame.rate))?;
        Source::filled(&mut chart, source.series(|frame| frame.rate), ink::ONE)
    })
}

/// Where the requests are.
pub(crate) fn queue(source: Source<'_>) -> Result<String, PlotError> {
    plot("the queue", SIZE, |area| {
        let highest = |frame: &Frame| frame.held.max(frame.waiting()).max(frame.running()) as f64;
        let mut chart = source.chart(area, source.highest(highest))?;
        Source::filled(&mut chart, source.series(|frame| frame.held as f64), ink::ONE)?;
        Source::filled(&mut chart, source.series(|frame| frame.waiting() as f64), ink::TWO)?;
        chart
            .draw_series(LineSeries::new(source.series(|frame| frame.running() as f64), line(ink::THREE)))?;
        Ok(())
    })
}

/// Replicas that are wanted and that serve, with the pushes.
pub(crate) fn replicas(source: Source<'_>) -> Result<String, PlotError> {
    plot("replicas", SIZE, |area| {
        let highest = source
            .highest(|frame| f64::from(frame.wanted))
            .max(source.highest(|frame| frame.serving() as f64));
        let mut chart = source.chart(area, highest)?;
        let serving = stepped(&source.series(|frame| frame.serving() as f64));
        Source::filled(&mut chart, serving, ink::THREE)?;
        let wanted = stepped(&source.series(|frame| f64::from(frame.wanted)));
        chart.draw_series(LineSeries::new(wanted, line(ink::FOUR)))?;
        let pushes = source.history.pushes();
        chart.draw_series(
            pushes.iter().map(|at| PathElement::new(vec![(*at, 0.0), (*at, highest * 1.05)], line(ink::TWO))),
        )?;
        chart
            .draw_series(pushes.iter().map(|at| Circle::new((*at, highest * 1.05), 4, ink::TWO.filled())))?;
        Ok(())
    })
}

/// The replicas that the values ask for, beside those that plain sums would ask for; both
/// within the limit.
pub(crate) fn asked(source: Source<'_>) -> Result<String, PlotError> {
    plot("the replicas asked for", SIZE, |area| {
        let limit = source.scenario.scaled_object.max_replicas;
        let asked = |frame: &Frame| f64::from(frame.asked().unwrap_or_default().min(limit));
        let plain = |frame: &Frame| f64::from(frame.asked_by_plain_sums().min(limit));
        let highest = f64::from(limit);
        let mut chart = source.chart(area, highest)?;
        if let Some(hang) = source.scenario.hang {
            let (from, until) = (hang.from.as_secs_f64(), hang.until.as_secs_f64());
            let span = [(from, 0.0), (until.min(source.length()), highest * 1.05)];
            chart.draw_series([Rectangle::new(span, ink::FOUR.mix(0.12).filled())])?;
            let style = ("sans-serif", 12).into_font().color(&ink::FOUR);
            chart.plotting_area().draw(
                &(EmptyElement::at((from, highest * 1.05))
                    + Text::new("a metrics page hangs", (5, 4), style)),
            )?;
        }
        Source::filled(&mut chart, stepped(&source.series(asked)), ink::ONE)?;
        chart.draw_series(LineSeries::new(stepped(&source.series(plain)), line(ink::TWO)))?;
        Ok(())
    })
}

/// The lanes of the plot of events, from the top.
const LANES: [&str; 4] = ["push received", "KEDA wakes", "HPA scales", "KEDA sleeps"];

/// What KEDA and the HPA did when.
pub(crate) fn events(source: Source<'_>) -> Result<String, PlotError> {
    plot("events", (SIZE.0, 170), |area| {
        let lanes = LANES.len() as f64;
        let mut chart = ChartBuilder::on(area)
            .margin_right(14)
            .margin_top(4)
            .x_label_area_size(26)
            .y_label_area_size(110)
            .build_cartesian_2d(0.0..source.length(), 0.0..lanes)?;
        let label = ("sans-serif", 12).into_font().color(&ink::TEXT);
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(ink::GRID)
            .axis_style(ink::GRID)
            .label_style(label)
            .y_labels(0)
            .x_labels(11)
            .x_label_formatter(&|seconds| format!("{seconds:.0} s"))
            .draw()?;
        let name = ("sans-serif", 12).into_font().color(&ink::TEXT).pos(Pos::new(HPos::Right, VPos::Center));
        for (lane, text) in LANES.iter().enumerate() {
            let height = lanes - lane as f64 - 0.5;
            let line = PathElement::new(vec![(0.0, height), (source.length(), height)], ink::GRID);
            chart.plotting_area().draw(&line)?;
            chart.plotting_area().draw(
                &(EmptyElement::at((0.0, height)) + Text::new((*text).to_owned(), (-10, 0), name.clone())),
            )?;
        }
        // Labels of neighbours go above and below in turn, so that none covers another.
        let mut labelled: (f64, bool) = (f64::NEG_INFINITY, false);
        let number = ("sans-serif", 12).into_font().color(&ink::TEXT).pos(Pos::new(HPos::Left, VPos::Bottom));
        for (at, event) in &source.history.events {
            let (lane, colour, text) = match event {
                Event::Pushed { active: true, .. } => (0, ink::TWO, String::new()),
                Event::Scaled { from, to, cause } => {
                    let lane = match cause {
                        Cause::Push | Cause::Poll => 1,
                        Cause::Hpa => 2,
                        Cause::Cooldown => 3,
                    };
                    (lane, ink::FOUR, format!("{from}→{to}"))
                }
                _ => continue,
            };
            let spot = (source.history.seconds(*at), lanes - f64::from(lane) - 0.5);
            if !text.is_empty() {
                let near = spot.0 - labelled.0 < source.length() / 30.0;
                labelled = (spot.0, near && !labelled.1);
            }
            let offset = if labelled.1 { 16 } else { -3 };
            chart.plotting_area().draw(
                &(EmptyElement::at(spot)
                    + Circle::new((0, 0), 5, colour.filled())
                    + Text::new(text, (6, offset), number.clone())),
            )?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_keeps_its_value_until_the_next() {
        let steps = stepped(&[(0.0, 1.0), (2.0, 3.0), (5.0, 0.0)]);
        assert_eq!(steps, [(0.0, 1.0), (2.0, 1.0), (2.0, 3.0), (5.0, 3.0), (5.0, 0.0)]);
    }

    #[test]
    fn no_marker_colour_is_left_and_text_is_escaped() {
        let svg = plot("test", (100, 100), |area| {
            let style = ("sans-serif", 12).into_font().color(&ink::TEXT);
            for colour in [ink::GRID, ink::ONE, ink::TWO, ink::THREE, ink::FOUR] {
                area.draw(&Circle::new((50, 50), 5, colour.filled()))?;
            }
            area.draw(&Text::new("a < b", (10, 10), style))
        });
        let svg = svg.unwrap();
        assert!(!svg.contains("#0102"), "{svg}");
        assert!(svg.contains("var(--four)") && svg.contains("a &lt; b"), "{svg}");
    }
}
