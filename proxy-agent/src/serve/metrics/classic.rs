//! The older text format of Prometheus (`text/plain; version=0.0.4`), for who does not ask for OpenMetrics: promtool, and
//! scrapers of other makes.
//!
//! The two differ in the lines about a family alone. A counter's family has the suffix of its samples here, an info is a
//! gauge, there are no units, and no mark stands at the end.

/// The same metrics as `open`, which is OpenMetrics text.
pub fn text(open: &str) -> String {
    let mut text = String::with_capacity(open.len() + 1024);
    let mut help: Option<&str> = None;
    for line in open.lines() {
        if line.starts_with("# HELP ") {
            // The type, which says what the family is called, comes next.
            help = Some(line);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "unknown"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                other => ("", other),
            };
            let said = help.take().and_then(|line| line.splitn(4, ' ').nth(3));
            if let Some(said) = said {
                text.push_str(&format!("# HELP {name}{suffix} {said}\n"));
            }
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Does a client that accepts these types want OpenMetrics? What names no type gets it, as it always did.
pub fn wants_open_metrics(accept: &str) -> bool {
    let mut types = accept.split(',').map(str::trim);
    accept.trim().is_empty() || types.any(|one| one.starts_with("application/openmetrics-text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_named_as_their_samples_and_samples_stay() {
        let open = "# HELP a Things.\n# TYPE a counter\na_total{x=\"# TYPE\"} 1\n\
                    # HELP b Bytes of it.\n# TYPE b gauge\n# UNIT b bytes\nb 2\n\
                    # HELP c What it is.\n# TYPE c info\nc_info{version=\"1\"} 1\n# EOF\n";
        assert_eq!(
            text(open),
            "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"# TYPE\"} 1\n\
             # HELP b Bytes of it.\n# TYPE b gauge\nb 2\n\
             # HELP c_info What it is.\n# TYPE c_info gauge\nc_info{version=\"1\"} 1\n"
        );
    }

    #[test]
    fn who_names_open_metrics_or_nothing_gets_it() {
        let prometheus =
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
        assert!(wants_open_metrics(prometheus));
        assert!(wants_open_metrics(""));
        assert!(!wants_open_metrics("text/plain;version=0.0.4"));
        assert!(!wants_open_metrics("*/*"));
    }
}
