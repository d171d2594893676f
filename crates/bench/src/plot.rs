//! What was found as a picture: one panel for each section, one bar for each figure that is to be seen.
//!
//! Plain SVG without a library: text and rectangles, in colours that are read on light and dark ground.

use std::fmt::Write;

use crate::report::{Report, Row, number};

const WIDTH: f64 = 860.0;
const LABEL_WIDTH: f64 = 400.0;
const BAR_WIDTH: f64 = WIDTH - LABEL_WIDTH - 150.0;
const BAR_HEIGHT: f64 = 16.0;
const TITLE_HEIGHT: f64 = 34.0;
const OWN: &str = "#2f7d5d";
const OTHER: &str = "#8a8f98";

/// The picture. Bars of a section are to the scale of its greatest, unit by unit.
pub(crate) fn svg(report: &Report) -> String {
    let mut body = String::new();
    let (mut height, mut section) = (8.0, "");
    let rows: Vec<&Row> = report.plotted().collect();
    for row in &rows {
        if row.section != section {
            section = &row.section;
            height += TITLE_HEIGHT;
            let title = escaped(section);
            let _ = writeln!(body, r#"<text x="8" y="{:.0}" font-weight="bold">{title}</text>"#, height - 10.0);
        }
        let alike = rows.iter().filter(|other| other.section == row.section && other.unit == row.unit);
        let most = alike.map(|other| other.value).fold(f64::MIN_POSITIVE, f64::max);
        let (length, colour) =
            ((row.value / most * BAR_WIDTH).max(1.0), if row.what.contains("Cairn") { OWN } else { OTHER });
        let (middle, what) = (height + BAR_HEIGHT - 4.0, escaped(&row.what));
        let _ = writeln!(body, r#"<text x="{:.0}" y="{middle:.0}" text-anchor="end">{what}</text>"#, LABEL_WIDTH - 8.0);
        let thick = BAR_HEIGHT - 4.0;
        let _ = writeln!(
            body,
            r#"<rect x="{LABEL_WIDTH}" y="{:.0}" width="{length:.1}" height="{thick}" fill="{colour}"/>"#,
            height + 2.0
        );
        let (at, value, unit) = (LABEL_WIDTH + length + 6.0, number(row.value), escaped(&row.unit));
        let _ = writeln!(body, r#"<text x="{at:.1}" y="{middle:.0}">{value} {unit}</text>"#);
        height += BAR_HEIGHT;
    }
    height += 8.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::svg;
    use crate::report::{Report, Row};

    #[test]
    fn the_greatest_of_a_unit_fills_the_panel_and_text_is_text() {
        let mut report = Report::new(Vec::new());
        report.add(Row::new("a < b", "Cairn", 50.0, "MB/s").plotted());
        report.add(Row::new("a < b", "other", 100.0, "MB/s").plotted());
        report.add(Row::new("a < b", "not seen", 1000.0, "MB/s"));
        let picture = svg(&report);
        assert!(picture.contains("a &lt; b") && !picture.contains("not seen"), "{picture}");
        assert!(picture.contains("width=\"155.0\"") && picture.contains("width=\"310.0\""), "{picture}");
    }
}
