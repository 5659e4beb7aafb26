//! The log: one line on the standard error for each event.
//!
//! The one rule: whatever a message has in it, it is one line (`plain`). Names of objects, words of API servers and of files
//! come here from everywhere.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal},
};

use clap::ValueEnum;

use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    fmt::{FormatFields, MakeWriter, SubscriberBuilder, format},
};

use crate::plain::Plain;

/// The client library says of each attempt what the source of Services says once.
const QUIET: &str = "kube_client=off";

#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub struct Args {
    /// What the log tells, and what is more severe; without it, what the variable RUST_LOG says, else `info`
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub log_level: Option<Level>,
    /// How each line of the log is written
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    pub log_format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Format {
    /// For people: time, level, message
    #[default]
    Text,
    /// For collectors: an object with `timestamp`, `level`, `message` and further fields
    Json,
}

impl Level {
    fn filter(self) -> String {
        let level = match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        };
        format!("{level},{QUIET}")
    }
}

/// Begins to log.
pub fn init(args: &Args) {
    let filter = match args.log_level {
        Some(level) => EnvFilter::new(level.filter()),
        None => EnvFilter::try_from_default_env()
            .unwrap_or_else(|_| EnvFilter::new(Level::Info.filter())),
    };
    let builder = tracing_subscriber::fmt();
    match args.log_format {
        Format::Text => one_line_each(builder)
            .with_writer(io::stderr)
            .with_env_filter(filter)
            .with_ansi(colours(
                env::var("NO_COLOR").ok().as_deref(),
                io::stderr().is_terminal(),
            ))
            .init(),
        Format::Json => object_each(builder)
            .with_writer(io::stderr)
            .with_env_filter(filter)
            .init(),
    }
}

/// Only a terminal has colours, and none where `NO_COLOR` has a value (no-color.org).
fn colours(no_color: Option<&str>, terminal: bool) -> bool {
    terminal && no_color.is_none_or(str::is_empty)
}

type Builder<F, E, W> = SubscriberBuilder<F, E, tracing::level_filters::LevelFilter, W>;

/// JSON escapes what would end a line.
fn object_each<W>(
    builder: Builder<format::DefaultFields, format::Format, W>,
) -> Builder<format::JsonFields, format::Format<format::Json>, W> {
    builder
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_target(false)
}

fn one_line_each<W>(
    builder: Builder<format::DefaultFields, format::Format, W>,
) -> Builder<impl for<'a> FormatFields<'a> + Send + Sync + 'static, format::Format, W>
where
    W: for<'a> MakeWriter<'a> + 'static,
{
    let fields = format::debug_fn(|writer, field: &Field, value| match field.name() {
        "message" => write!(Plain(writer), "{value:?}"),
        name => write!(Plain(writer), "{name}={value:?}"),
    });
    builder.with_target(false).fmt_fields(fields.delimited(" "))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = one_line_each(tracing_subscriber::fmt())
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let name = "a\n2026-01-01T00:00:00Z ERROR forged\u{1b}[2J";
            tracing::warn!(object = %name, "Service {name}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        assert!(text.ends_with('\n') && !text.contains('\u{1b}'), "{text:?}");
        assert!(
            text.contains("WARN Service a\\n2026-01-01T00:00:00Z ERROR forged\\u001b[2J"),
            "{text:?}"
        );
        assert!(text.contains("object=a\\n"), "{text:?}");
    }

    #[test]
    fn as_json_each_event_is_an_object_of_one_line() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = object_each(tracing_subscriber::fmt())
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let name = "a\nb\u{1b}";
            tracing::warn!(object = %name, "Service {name}");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text:?}");
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["level"], "WARN");
        assert_eq!(event["message"], "Service a\nb\u{1b}");
        assert_eq!(event["object"], "a\nb\u{1b}");
        assert!(event["timestamp"].is_string(), "{text}");
    }

    #[test]
    fn colours_are_for_terminals_and_can_be_refused() {
        for (no_color, terminal, colours) in [
            (None, true, true),
            (Some(""), true, true),
            (Some("1"), true, false),
            (None, false, false),
        ] {
            assert_eq!(super::colours(no_color, terminal), colours, "{no_color:?}");
        }
    }
}
