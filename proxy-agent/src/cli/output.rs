//! Rows of one kind, in the form that was asked for.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

use super::table::Table;
use crate::plain::plain_lines;

/// In place of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// The table with all its columns.
    Wide,
    Json,
    Yaml,
}

/// What a command lists.
pub trait Row: Serialize {
    const COLUMNS: &'static [&'static str];
    /// How many of the last columns `-o wide` alone shows.
    const WIDE: usize = 0;

    /// One for each column.
    fn cells(&self) -> Vec<String>;
}

/// How rows are shown.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub format: Option<Format>,
    /// How many of the first columns a table leaves out.
    pub skip: usize,
}

#[derive(Serialize)]
struct Items<'a, R> {
    items: &'a [R],
}

impl Output {
    pub const fn of(format: Option<Format>) -> Self {
        Self { format, skip: 0 }
    }

    /// A document or a table of all rows.
    pub fn text<R: Row>(self, rows: &[R]) -> Result<String> {
        let items = Items { items: rows };
        Ok(match self.format {
            None | Some(Format::Wide) => self.table(rows).text(),
            Some(Format::Json) => serde_json::to_string_pretty(&items)? + "\n",
            Some(Format::Yaml) => serde_saphyr::to_string(&items)?,
        })
    }

    /// The rows one by one, as they go on after a table or between other documents.
    pub fn more<R: Row>(self, rows: &[R]) -> Result<String> {
        let mut text = String::new();
        match self.format {
            None | Some(Format::Wide) => {
                let table = self.table(rows).text();
                text.extend(table.split_inclusive('\n').skip(1));
            }
            Some(Format::Json) => {
                for row in rows {
                    text += &(serde_json::to_string(row)? + "\n");
                }
            }
            Some(Format::Yaml) => {
                for row in rows {
                    text += &format!("---\n{}", serde_saphyr::to_string(row)?);
                }
            }
        }
        Ok(text)
    }

    fn table<R: Row>(self, rows: &[R]) -> Table {
        let shown = match self.format {
            Some(Format::Wide) => R::COLUMNS.len(),
            _ => R::COLUMNS.len() - R::WIDE,
        };
        let mut table = Table::new(&R::COLUMNS[self.skip..shown]);
        for row in rows {
            let mut cells = row.cells();
            cells.truncate(shown);
            table.row(cells.split_off(self.skip));
        }
        table
    }
}

/// Writes to the standard output, a terminal perhaps; whether somebody still reads. A reader that has gone (`| head`) is no error.
pub fn print(text: &str) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out
        .write_all(plain_lines(text).as_bytes())
        .and_then(|()| out.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        done => done.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Fruit {
        place: &'static str,
        name: &'static str,
        grams: u32,
    }

    impl Row for Fruit {
        const COLUMNS: &'static [&'static str] = &["PLACE", "NAME", "GRAMS"];
        const WIDE: usize = 1;

        fn cells(&self) -> Vec<String> {
            vec![
                self.place.to_owned(),
                self.name.to_owned(),
                self.grams.to_string(),
            ]
        }
    }

    const PEAR: Fruit = Fruit {
        place: "tree",
        name: "pear",
        grams: 180,
    };

    fn output(format: Option<Format>, skip: usize) -> (String, String) {
        let output = Output { format, skip };
        (output.text(&[PEAR]).unwrap(), output.more(&[PEAR]).unwrap())
    }

    #[test]
    fn a_table_has_the_columns_that_were_asked_for() {
        assert_eq!(
            output(None, 1),
            ("NAME\npear\n".to_owned(), "pear\n".to_owned())
        );
        assert_eq!(
            output(Some(Format::Wide), 0).0,
            "PLACE   NAME   GRAMS\ntree    pear   180\n"
        );
    }

    #[test]
    fn documents_have_every_field() {
        let (all, one) = output(Some(Format::Json), 1);
        let all: serde_json::Value = serde_json::from_str(&all).unwrap();
        let pear = serde_json::json!({"place": "tree", "name": "pear", "grams": 180});
        assert_eq!(all, serde_json::json!({ "items": [pear] }));
        assert_eq!(
            one,
            format!("{pear}\n").replace(
                &pear.to_string(),
                r#"{"place":"tree","name":"pear","grams":180}"#
            )
        );
        let (all, one) = output(Some(Format::Yaml), 1);
        let all: serde_json::Value = serde_saphyr::from_str(&all).unwrap();
        assert_eq!(all["items"][0], pear);
        assert!(one.starts_with("---\n"), "{one}");
        assert_eq!(
            serde_saphyr::from_str::<serde_json::Value>(&one).unwrap(),
            pear
        );
    }
}
