//! The budget as a table of docs/kernels.md.

use std::{collections::BTreeSet, iter};

use super::Budget;

/// A row for each program, a column for each kernel; each cell has instructions, stack and size.
pub fn render(budget: &Budget) -> String {
    let series = budget.series();
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let kernels = series
        .iter()
        .map(|entry| entry.kernel.trim_end_matches("-cloud-amd64").to_owned());
    let mut text = row(iter::once("program".to_owned()).chain(kernels).collect());
    text += &format!("|---|{}\n", "---:|".repeat(series.len()));
    let programs: BTreeSet<_> = series
        .iter()
        .flat_map(|entry| entry.programs.keys())
        .collect();
    for program in programs {
        let figures = series.iter().map(|entry| {
            entry.programs.get(program).map_or_else(String::new, |at| {
                format!("{} / {} / {}", at.instructions, at.stack, at.size)
            })
        });
        text += &row(iter::once(format!("`{program}`")).chain(figures).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::verifier::{Figures, Report};

    #[test]
    fn a_program_that_one_kernel_lacks_has_an_empty_cell() {
        let figures = |instructions| Figures {
            instructions,
            stack: 8,
            size: 16,
        };
        let mut budget = Budget::default();
        let old = Report([("a".to_owned(), figures(7))].into());
        let new = Report([("a".to_owned(), figures(5)), ("b".to_owned(), figures(6))].into());
        budget.set("newest", "7.2.1+deb14-cloud-amd64", new);
        budget.set("5.10", "5.10.0-35-cloud-amd64", old);
        assert_eq!(
            render(&budget),
            "| program | 5.10.0-35 | 7.2.1+deb14 |\n|---|---:|---:|\n\
             | `a` | 7 / 8 / 16 | 5 / 8 / 16 |\n| `b` |  | 6 / 8 / 16 |\n"
        );
    }
}
