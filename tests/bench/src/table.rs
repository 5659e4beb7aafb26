//! A table of figures, for a terminal or for docs/.

pub struct Table {
    pub title: String,
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(title: &str, columns: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            columns: columns.iter().map(|&name| name.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub fn render(&self, markdown: bool) -> String {
        let lines = || std::iter::once(&self.columns).chain(&self.rows);
        let width = |column: usize| {
            lines()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let render = |line: &Vec<String>| {
            let cells = line
                .iter()
                .enumerate()
                .map(|(n, cell)| format!("{cell:<0$}", width(n)));
            if markdown {
                format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
            } else {
                format!("  {}\n", cells.collect::<Vec<_>>().join("   ").trim_end())
            }
        };
        let mut text = format!("{}\n\n", self.title);
        text += &render(&self.columns);
        if markdown {
            text += &format!("|{}\n", "---|".repeat(self.columns.len()));
        }
        text + &self.rows.iter().map(render).collect::<String>()
    }
}

/// The last three cells of a row: what was measured, what it may be, and whether it is.
pub fn judged(measured: f64, bar: Option<f64>, decimals: usize) -> [String; 3] {
    let (bar, verdict) = match bar {
        None => (String::new(), ""),
        Some(bar) if measured <= bar => (format!("{bar:.decimals$}"), "pass"),
        Some(bar) => (format!("{bar:.decimals$}"), "SHORT"),
    };
    [format!("{measured:.decimals$}"), bar, verdict.to_owned()]
}
