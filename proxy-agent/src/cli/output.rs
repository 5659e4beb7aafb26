//! Rows of one kind, in the form that was asked for.

use std::{
    io::{self, Write},
    process::ExitCode,
};

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

/// The group and version of all documents.
pub const API_VERSION: &str = "portside/v1";

/// What a command lists.
pub trait Row: Serialize {
    /// Of one row as a document.
    const KIND: &'static str;
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
    /// Whether a table has a header.
    pub header: bool,
    /// Whether each row says what became of it, as `kubectl --output-watch-events` has it.
    pub events: bool,
}

/// What became of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Added,
    Modified,
    Deleted,
}

impl Event {
    const fn text(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Items<'a, R> {
    api_version: &'static str,
    kind: String,
    items: &'a [R],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One<'a, R> {
    api_version: &'static str,
    kind: &'static str,
    #[serde(flatten)]
    row: &'a R,
}

#[derive(Serialize)]
struct Watched<'a, R> {
    r#type: &'static str,
    object: One<'a, R>,
}

impl Output {
    pub const fn of(format: Option<Format>) -> Self {
        Self {
            format,
            skip: 0,
            header: true,
            events: false,
        }
    }

    /// A document or a table of all rows.
    pub fn text<R: Row>(self, rows: &[R]) -> Result<String> {
        let items = Items {
            api_version: API_VERSION,
            kind: format!("{}List", R::KIND),
            items: rows,
        };
        Ok(match self.format {
            None | Some(Format::Wide) => {
                let rows = rows.iter().map(|row| (Event::Added, row));
                self.table(rows, self.header)
            }
            Some(Format::Json) => serde_json::to_string_pretty(&items)? + "\n",
            Some(Format::Yaml) => serde_saphyr::to_string(&items)?,
        })
    }

    /// The rows one by one, as they go on after a table or between other documents.
    pub fn more<R: Row>(self, rows: &[(Event, &R)]) -> Result<String> {
        let mut text = String::new();
        match self.format {
            None | Some(Format::Wide) => text = self.table(rows.iter().copied(), false),
            Some(Format::Json) => {
                for (event, row) in rows {
                    text += &(self.document(
                        *event,
                        *row,
                        |one| Ok(serde_json::to_string(&one)?),
                        |one| Ok(serde_json::to_string(&one)?),
                    )? + "\n");
                }
            }
            Some(Format::Yaml) => {
                for (event, row) in rows {
                    let document = self.document(
                        *event,
                        *row,
                        |one| Ok(serde_saphyr::to_string(&one)?),
                        |one| Ok(serde_saphyr::to_string(&one)?),
                    )?;
                    text += &format!("---\n{document}");
                }
            }
        }
        Ok(text)
    }

    fn document<'a, R: Row>(
        self,
        event: Event,
        row: &'a R,
        plain: impl FnOnce(One<'a, R>) -> Result<String>,
        watched: impl FnOnce(Watched<'a, R>) -> Result<String>,
    ) -> Result<String> {
        let object = One {
            api_version: API_VERSION,
            kind: R::KIND,
            row,
        };
        match self.events {
            false => plain(object),
            true => watched(Watched {
                r#type: event.text(),
                object,
            }),
        }
    }

    fn table<'a, R: Row + 'a>(
        self,
        rows: impl Iterator<Item = (Event, &'a R)>,
        header: bool,
    ) -> String {
        let shown = match self.format {
            Some(Format::Wide) => R::COLUMNS.len(),
            _ => R::COLUMNS.len() - R::WIDE,
        };
        let mut names = R::COLUMNS[self.skip..shown].to_vec();
        if self.events {
            names.insert(0, "EVENT");
        }
        let mut table = Table::new(&names);
        for (event, row) in rows {
            let mut cells = row.cells();
            cells.truncate(shown);
            let mut cells = cells.split_off(self.skip);
            if self.events {
                cells.insert(0, event.text().to_owned());
            }
            table.row(cells);
        }
        let text = table.text();
        match header {
            true => text,
            false => text.split_inclusive('\n').skip(1).collect(),
        }
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

/// The same as it is, for other programs; the exit code of a command that does nothing else.
pub fn print_raw(bytes: &[u8]) -> Result<ExitCode> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
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
        const KIND: &'static str = "Fruit";
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
        let output = Output {
            skip,
            ..Output::of(format)
        };
        let more = output.more(&[(Event::Deleted, &PEAR)]);
        (output.text(&[PEAR]).unwrap(), more.unwrap())
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
    fn a_row_says_what_became_of_it_where_that_is_asked_for() {
        let watching = |format| {
            let output = Output {
                events: true,
                header: false,
                ..Output::of(format)
            };
            output.more(&[(Event::Deleted, &PEAR)]).unwrap()
        };
        assert_eq!(watching(None), "DELETED   tree    pear\n");
        let document: serde_json::Value =
            serde_json::from_str(&watching(Some(Format::Json))).unwrap();
        assert_eq!(document["type"], "DELETED");
        assert_eq!(document["object"]["kind"], "Fruit");
        assert_eq!(document["object"]["grams"], 180);
    }

    #[test]
    fn documents_have_every_field_and_say_what_they_are() {
        let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let pear = serde_json::json!({"place": "tree", "name": "pear", "grams": 180});
        let list =
            serde_json::json!({"apiVersion": API_VERSION, "kind": "FruitList", "items": [pear]});
        let mut alone = pear.clone();
        alone["apiVersion"] = API_VERSION.into();
        alone["kind"] = "Fruit".into();
        let (all, one) = output(Some(Format::Json), 1);
        assert_eq!(json(&all), list);
        assert_eq!(json(&one), alone);
        let (all, one) = output(Some(Format::Yaml), 1);
        let yaml = |text: &str| serde_saphyr::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(yaml(&all), list);
        assert!(one.starts_with("---\n"), "{one}");
        assert_eq!(yaml(&one), alone);
    }
}
