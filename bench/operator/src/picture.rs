//! A picture: how long the storm took, beside the scripts.

use std::fmt::Write as _;

use crate::results::Run;

const WIDTH: f64 = 860.0;
const ROW: f64 = 24.0;
const TOP: f64 = 44.0;
const LEFT: f64 = 330.0;
const RIGHT: f64 = 90.0;
/// Colours that can be told apart with any eyes (Okabe and Ito).
const COLOURS: [&str; 3] = ["#999999", "#e69f00", "#0072b2"];
const MILLISECONDS: f64 = 1_000.0;

/// Milliseconds a function, of both scripts and of the storm.
#[expect(clippy::cast_precision_loss, reason = "counts of this size are exact")]
pub(crate) fn storm(runs: &[&Run]) -> String {
    let mut bars = Vec::new();
    for run in runs {
        let each = |seconds: f64| seconds * MILLISECONDS / run.functions.max(1) as f64;
        let name = |what: &str| format!("{} functions: {what}", run.functions);
        if let Some(script) = &run.script {
            bars.push((name("script, only children"), each(script.children_seconds), COLOURS[0]));
            bars.push((name("script, same objects"), each(script.everything_seconds), COLOURS[1]));
        }
        bars.push((name("operator, all ready"), each(run.storm.ready_seconds), COLOURS[2]));
    }
    let most = bars.iter().map(|(_, value, _)| *value).fold(f64::MIN_POSITIVE, f64::max);
    let height = TOP + ROW * bars.len() as f64 + ROW / 2.0;
    let title = "Milliseconds a function";
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" role=\"img\">\n\
         <title>{title}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"24\" font-size=\"15\" fill=\"#333333\">{title}</text>\n"
    );
    for (place, (name, value, colour)) in bars.iter().enumerate() {
        let y = TOP + ROW * place as f64;
        let width = (WIDTH - LEFT - RIGHT) * value / most;
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\" font-size=\"12\" fill=\"#333333\">{name}</text>\n\
             <rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"{:.0}\" fill=\"{colour}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.0}\" font-size=\"12\" fill=\"#333333\">{value:.1}</text>",
            LEFT - 8.0,
            y + 14.0,
            ROW - 6.0,
            LEFT + width + 6.0,
            y + 14.0,
        );
    }
    svg + "</svg>\n"
}
