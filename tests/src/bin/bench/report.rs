use crate::machine::Machine;
use crate::plot::Plot;
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

/// The results of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) quick: bool,
    /// The time of the run, in seconds since the Unix epoch.
    pub(crate) started: u64,
    pub(crate) machine: Machine,
    pub(crate) sections: Vec<Section>,
}

/// The results of one part.
#[derive(Debug, Serialize)]
pub(crate) struct Section {
    pub(crate) part: &'static str,
    pub(crate) seconds: f64,
    pub(crate) title: &'static str,
    /// The description of the method, in paragraphs of Markdown.
    pub(crate) method: Vec<String>,
    pub(crate) budgets: Vec<Budget>,
    /// Every figure as measured.
    pub(crate) figures: Value,
    #[serde(skip)]
    pub(crate) tables: Vec<Table>,
    #[serde(skip)]
    pub(crate) plots: Vec<Plot>,
}

impl Section {
    pub(crate) fn new(title: &'static str, method: impl IntoIterator<Item = String>, figures: Value) -> Self {
        Self {
            part: "",
            seconds: 0.0,
            title,
            method: method.into_iter().collect(),
            budgets: Vec::new(),
            figures,
            tables: Vec::new(),
            plots: Vec::new(),
        }
    }
}

/// A budget of the design, and whether this run met it.
#[derive(Debug, Serialize)]
pub(crate) struct Budget {
    what: String,
    /// `None` if noise hides it.
    measured: Option<f64>,
    budget: f64,
    unit: &'static str,
    /// `None` if the run cannot decide it.
    met: Option<bool>,
}

impl Budget {
    pub(crate) fn at_most(
        what: impl Into<String>,
        measured: impl Into<Option<f64>>,
        budget: f64,
        unit: &'static str,
    ) -> Self {
        let measured = measured.into();
        Self { what: what.into(), measured, budget, unit, met: measured.map(|measured| measured <= budget) }
    }

    pub(crate) fn at_least(what: impl Into<String>, measured: f64, budget: f64, unit: &'static str) -> Self {
        Self { what: what.into(), measured: Some(measured), budget, unit, met: Some(measured >= budget) }
    }

    /// Removes the verdict. The figures of a quick run have no meaning.
    pub(crate) fn leave_open(&mut self) {
        self.met = None;
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) caption: String,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Report {
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("{}", path.display()))
        };
        std::fs::create_dir_all(folder)?;
        write("report.json", &(serde_json::to_string_pretty(self)? + "\n"))?;
        for plot in self.sections.iter().flat_map(|section| &section.plots) {
            write(&plot.file(), &plot.svg())?;
        }
        write("report.md", &self.markdown()?)
    }

    fn markdown(&self) -> Result<String> {
        let Machine { cpu, cores, memory_gb, kernel, envoy, load_before } = &self.machine;
        let mut text = String::from("# Keystile: measured\n\n");
        if self.quick {
            text += "**A quick run, to check that the benchmark works. Its figures have no meaning.**\n\n";
        }
        writeln!(
            text,
            "Measured on {cores} cores of {cpu}, {memory_gb:.0} GB, Linux {kernel}, Envoy {envoy}; the load average was {load_before} when it \
             began. Every figure is beside those of its peers, measured in the same run. All traffic is on loopback. The \
             raw figures are in [report.json](report.json).\n"
        )?;
        text += "## Budgets\n\nThe budgets of the design, and the results of this run.\n\n";
        let budgets = self.sections.iter().flat_map(|section| &section.budgets);
        let rows = budgets.map(|Budget { what, measured, budget, unit, met }| {
            let with_unit = |number: f64| format!("{} {unit}", format_short(number)).trim_end().to_owned();
            let met = match met {
                Some(true) => "met",
                Some(false) => "**missed**",
                None => "not judged",
            };
            let measured = measured.map_or_else(|| "lost in the noise".to_owned(), with_unit);
            vec![what.clone(), with_unit(*budget), measured, met.into()]
        });
        let columns = vec!["what", "budget", "measured", ""];
        write_table(&mut text, &Table { caption: String::new(), columns, rows: rows.collect() })?;
        for section in &self.sections {
            let Section { part, seconds, title, method, tables, plots, .. } = section;
            writeln!(text, "## {title}\n")?;
            for paragraph in method {
                writeln!(text, "{paragraph}\n")?;
            }
            for table in tables {
                write_table(&mut text, table)?;
            }
            for plot in plots {
                writeln!(text, "![{}]({})\n", plot.title, plot.file())?;
            }
            writeln!(text, "`make bench ONLY={part}` measures this part alone; it took {seconds:.0} s.\n")?;
        }
        Ok(text)
    }
}

fn write_table(text: &mut String, table: &Table) -> Result<()> {
    let Table { caption, columns, rows } = table;
    if !caption.is_empty() {
        writeln!(text, "{caption}\n")?;
    }
    writeln!(text, "| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()))?;
    for row in rows {
        writeln!(text, "| {} |", row.join(" | "))?;
    }
    text.push('\n');
    Ok(())
}

/// Formats a number with three significant digits.
fn format_short(number: f64) -> String {
    match number.abs() {
        large if large >= 100.0 => format!("{number:.0}"),
        middle if middle >= 10.0 => format!("{number:.1}"),
        _ => format!("{number:.2}"),
    }
}
