//! The log: one line on the standard error for each event.
//!
//! The one rule: whatever a message has in it, it is one line (`plain`). Names of objects, words of API servers and of files
//! come here from everywhere.

use std::{
    fmt::Write as _,
    io::{self, IsTerminal},
};

use tracing::field::Field;
use tracing_subscriber::{
    EnvFilter,
    field::MakeExt,
    fmt::{FormatFields, MakeWriter, SubscriberBuilder, format},
};

use crate::plain::Plain;

/// The client library says of each attempt what the source of Services says once.
const FILTER: &str = "info,kube_client=off";

/// Begins to log, as `RUST_LOG` has it.
pub fn init() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    one_line_each(tracing_subscriber::fmt())
        .with_writer(io::stderr)
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

fn one_line_each<W>(
    builder: SubscriberBuilder<
        format::DefaultFields,
        format::Format,
        tracing::level_filters::LevelFilter,
        W,
    >,
) -> SubscriberBuilder<
    impl for<'a> FormatFields<'a> + Send + Sync + 'static,
    format::Format,
    tracing::level_filters::LevelFilter,
    W,
>
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
}
