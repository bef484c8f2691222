//! Bar charts as SVG: groups of bars with the extremes of their rounds.

use std::fmt::Write as _;

use crate::summary::Spread;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 74.0;
const BOTTOM: f64 = 34.0;
const TICKS: u32 = 5;
/// Room between groups, as a share of the room of a group.
const GAP: f64 = 0.24;
/// Above its bar.
const VALUE_RISE: f64 = 4.0;
/// Colours that can be told apart with any eyes (Okabe and Ito), by place of the series.
const COLOURS: [&str; 7] = ["#0072b2", "#e69f00", "#56b4e9", "#999999", "#009e73", "#cc79a7", "#d55e00"];

/// A bar chart.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// Above it.
    pub(crate) title: String,
    /// Below it.
    pub(crate) groups: Vec<String>,
    /// One bar in each group; absent where nothing was measured.
    pub(crate) series: Vec<Series>,
}

/// The bars of one colour.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    /// In the legend.
    pub(crate) name: String,
    /// By group.
    pub(crate) values: Vec<Option<Spread>>,
}

impl Chart {
    /// The picture.
    #[expect(clippy::cast_precision_loss, reason = "a chart has a few bars")]
    pub(crate) fn svg(&self) -> String {
        let values = self.series.iter().flat_map(|series| series.values.iter().flatten());
        let top = round_up(values.map(|spread| spread.max).fold(0.0, f64::max));
        let mut svg = String::new();
        self.frame(&mut svg, top);
        let group_width = (WIDTH - LEFT - RIGHT) / self.groups.len().max(1) as f64;
        let bar_width = group_width * (1.0 - GAP) / self.series.len().max(1) as f64;
        for (group, name) in self.groups.iter().enumerate() {
            let left = LEFT + group_width * group as f64;
            text(&mut svg, (left + group_width / 2.0, HEIGHT - BOTTOM / 2.0), "middle", 12, name);
            for (place, series) in self.series.iter().enumerate() {
                let Some(spread) = series.values.get(group).copied().flatten() else { continue };
                let at = left + group_width * GAP / 2.0 + bar_width * place as f64;
                bar(&mut svg, at, bar_width, spread, top, COLOURS[place % COLOURS.len()]);
            }
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn frame(&self, svg: &mut String, top: f64) {
        let _ = writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" role=\"img\">\n\
             <title>{}</title>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>",
            escaped(&self.title)
        );
        text(svg, (LEFT, 22.0), "start", 15, &self.title);
        let mut at = LEFT;
        for (place, series) in self.series.iter().enumerate() {
            const MARK: f64 = 11.0;
            const LETTER: f64 = 7.0;
            let colour = COLOURS[place % COLOURS.len()];
            let _ =
                writeln!(svg, "<rect x=\"{at:.1}\" y=\"38\" width=\"{MARK}\" height=\"{MARK}\" fill=\"{colour}\"/>");
            text(svg, (at + MARK + 4.0, 48.0), "start", 12, &series.name);
            at += MARK + 20.0 + LETTER * f64::from(u32::try_from(series.name.chars().count()).unwrap_or(0));
        }
        for tick in 0..=TICKS {
            let value = top * f64::from(tick) / f64::from(TICKS);
            let y = height_of(value, top);
            let right = WIDTH - RIGHT;
            let _ =
                writeln!(svg, "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#dddddd\"/>");
            text(svg, (LEFT - 6.0, y + 4.0), "end", 11, &short(value));
        }
    }
}

fn bar(svg: &mut String, at: f64, width: f64, spread: Spread, top: f64, colour: &str) {
    const BETWEEN: f64 = 1.5;
    let (y, low, high) = (height_of(spread.median, top), height_of(spread.min, top), height_of(spread.max, top));
    let (wide, tall, middle) = (width - BETWEEN, height_of(0.0, top) - y, at + width / 2.0);
    let _ = writeln!(
        svg,
        "<rect x=\"{at:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{tall:.1}\" fill=\"{colour}\"/>\n\
         <line x1=\"{middle:.1}\" y1=\"{low:.1}\" x2=\"{middle:.1}\" y2=\"{high:.1}\" stroke=\"#333333\"/>"
    );
    text(svg, (middle, high - VALUE_RISE), "middle", 10, &short(spread.median));
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, size: u32, words: &str) {
    let words = escaped(words);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-size=\"{size}\" fill=\"#333333\">{words}</text>"
    );
}

fn height_of(value: f64, top: f64) -> f64 {
    let bottom = HEIGHT - BOTTOM;
    if top > 0.0 { bottom - (bottom - TOP) * value / top } else { bottom }
}

/// The least number with one digit, or two and a five, that is not below `value`.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|step| *step >= value).unwrap_or(value)
}

/// `12.3k`.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value >= 10_000.0 => format!("{:.0}k", value / 1_000.0),
        value if value >= 1_000.0 => format!("{:.1}k", value / 1_000.0),
        value if value >= 10.0 => format!("{value:.0}"),
        value => format!("{value:.2}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_is_a_bar_of_its_height() {
        let spread = |median| Spread { median, min: median, max: median };
        let values = vec![Some(spread(50.0)), None, Some(spread(100.0))];
        let groups = ["a", "b", "c & d"].map(str::to_owned).to_vec();
        let series = vec![Series { name: "x<y".to_owned(), values }];
        let svg = Chart { title: "t".to_owned(), groups, series }.svg();
        assert!(svg.contains(&format!("height=\"{:.1}\"", HEIGHT - TOP - BOTTOM)), "{svg}");
        assert!(svg.contains(&format!("height=\"{:.1}\"", (HEIGHT - TOP - BOTTOM) / 2.0)), "{svg}");
        let marks = svg.lines().filter(|line| line.starts_with("<rect x"));
        assert_eq!(marks.count(), 3, "a mark of the legend and two bars: {svg}");
        assert!(svg.contains("x&lt;y") && svg.contains("c &amp; d"));
        assert!(svg.ends_with("</svg>\n"));
    }

    #[test]
    fn axis_ends_at_a_round_number() {
        for (value, expected) in [(0.0, 1.0), (51_234.0, 60_000.0), (0.26, 0.3), (100.0, 100.0), (1_501.0, 2_000.0)] {
            assert!((round_up(value) - expected).abs() < expected * 1e-9, "{value}: {}", round_up(value));
        }
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 0.256, 12.3, 1_234.0, 51_234.0].map(short), ["0", "0.26", "12", "1.2k", "51k"]);
    }
}
