//! Columns of text, as kubectl sets them: a header in capitals, three spaces between columns.

use crate::plain::plain;

#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(header: &[&str]) -> Self {
        Self {
            rows: vec![header.iter().map(|&cell| cell.to_owned()).collect()],
        }
    }

    /// For lines that say themselves what they are.
    pub const fn without_header() -> Self {
        Self { rows: Vec::new() }
    }

    /// Whatever a cell has in it, it stays in its row.
    pub fn row(&mut self, cells: Vec<String>) {
        let cells = cells.iter().map(|cell| plain(cell).into_owned());
        self.rows.push(cells.collect());
    }

    /// A line for the header and each row.
    pub fn text(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let line: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:width$}"))
                .collect();
            text.push_str(line.join("   ").trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["NAME", "TYPE"]);
        table.row(vec!["np-svc".to_owned(), "NodePort".to_owned()]);
        table.row(vec!["a".to_owned(), String::new()]);
        assert_eq!(table.text(), "NAME     TYPE\nnp-svc   NodePort\na\n");
    }

    #[test]
    fn a_cell_forges_no_row() {
        let mut table = Table::new(&["NAME"]);
        table.row(vec!["a\nforged   \u{1b}[2J".to_owned()]);
        assert_eq!(table.text(), "NAME\na\\nforged   \\u001b[2J\n");
    }
}
