//! Plots as SVG: bars, and shares over time.

use std::fmt::Write as _;

#[derive(Debug)]
pub(crate) struct Plot {
    /// The file, without `.svg`.
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    pub(crate) kind: Kind,
}

#[derive(Debug)]
pub(crate) enum Kind {
    /// Labels and values. Keystile's bars have a darker color than those of the peers.
    Bars(Vec<Bar>),
    /// For each line, the share of its values up to each value.
    Shares(Vec<(String, Vec<f64>)>),
}

#[derive(Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) ours: bool,
}

impl Plot {
    pub(crate) fn file(&self) -> String {
        format!("{}.svg", self.name)
    }

    pub(crate) fn svg(&self) -> String {
        let (height, body) = match &self.kind {
            Kind::Bars(bars) => (50 + ROW * bars.len(), self.draw_bars(bars)),
            Kind::Shares(lines) => (400 + ROW * lines.len(), self.draw_shares(lines)),
        };
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"10\" y=\"22\" font-size=\"16\">{}</text>\n{body}</svg>\n",
            escape_xml(&self.title)
        )
    }

    fn draw_bars(&self, bars: &[Bar]) -> String {
        let most = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        let mut body = String::new();
        for (bar, row) in bars.iter().zip(0usize..) {
            let Bar { label, value, ours } = bar;
            let (y, width) = (38 + ROW * row, (value.max(0.0) / most * BAR).max(1.0));
            let colour = if *ours { OURS } else { PEER };
            let _infallible = write!(
                body,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n<rect x=\"{LABELS}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>\n\
                 <text x=\"{:.1}\" y=\"{}\">{value:.1} {}</text>\n",
                LABELS - 8.0,
                y + 13,
                escape_xml(label),
                ROW - 5,
                LABELS + width + 6.0,
                y + 13,
                self.unit
            );
        }
        body
    }

    fn draw_shares(&self, lines: &[(String, Vec<f64>)]) -> String {
        let most = lines.iter().flat_map(|(_, values)| values).copied().fold(f64::MIN_POSITIVE, f64::max);
        let (left, top, width, height) = (60.0, 45.0, WIDTH - 100.0, 300.0);
        let mut body = String::new();
        for percent in [0.0, 50.0, 99.0, 100.0] {
            let y = top + height * (1.0 - percent / 100.0);
            let _infallible = write!(
                body,
                "<path d=\"M{left} {y:.1}h{width}\" stroke=\"#ddd\"/>\n{}",
                if percent == 99.0 {
                    String::new()
                } else {
                    format!(
                        "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{percent} %</text>\n",
                        left - 6.0,
                        y + 4.0
                    )
                }
            );
        }
        for quarter in 0..=4 {
            let part = f64::from(quarter) / 4.0;
            let _infallible = writeln!(
                body,
                "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{:.0} {}</text>",
                left + width * part,
                top + height + 18.0,
                most * part,
                self.unit
            );
        }
        for ((label, values), number) in lines.iter().zip(0usize..) {
            let colour = LINES[number % LINES.len()];
            let mut values = values.clone();
            values.sort_by(f64::total_cmp);
            let mut path = format!("M{left} {}", top + height);
            for (value, rank) in values.iter().zip(1usize..) {
                let share = rank as f64 / values.len() as f64;
                let _infallible =
                    write!(path, "L{:.1} {:.1}", left + width * value / most, top + height * (1.0 - share));
            }
            let y = 385 + ROW * number;
            let _infallible = write!(
                body,
                "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n<rect x=\"{left}\" y=\"{}\" width=\"20\" height=\"4\" fill=\"{colour}\"/>\n\
                 <text x=\"{}\" y=\"{y}\">{}</text>\n",
                y - 6,
                left + 28.0,
                escape_xml(label)
            );
        }
        body
    }
}

fn escape_xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const WIDTH: f64 = 860.0;
const LABELS: f64 = 330.0;
const BAR: f64 = 420.0;
const ROW: usize = 22;
const OURS: &str = "#1f5f8b";
const PEER: &str = "#b0b7bd";
const LINES: [&str; 4] = ["#1f5f8b", "#c65d21", "#5a8f29", "#7a4fa3"];
