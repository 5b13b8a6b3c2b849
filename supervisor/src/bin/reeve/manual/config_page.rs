//! The configuration's comments as a manual page, `reeve.toml(5)`.
//!
//! The file is read as its style is: `# --- Title ---` opens a section, lines of comment are text,
//! and a setting that is commented out, with its default, ends the text that explains it.

/// One part of the file.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Section(&'a str),
    Text(Vec<&'a str>),
    /// Explained by the text before it.
    Setting {
        key: &'a str,
        default: &'a str,
        text: Vec<&'a str>,
    },
}

/// The page as roff.
pub(super) fn render(configuration: &str, version: &str) -> String {
    let mut page = format!(".TH reeve.toml 5 \"\" \"reeve {version}\"\n.SH NAME\nreeve.toml \\- ");
    page.push_str(
        "configuration of reeved(8)\n.SH SYNOPSIS\n/etc/reeve/reeve.toml\n.SH DESCRIPTION\n",
    );
    for part in parse(configuration) {
        match part {
            Part::Section(title) => {
                page.push_str(&format!(".SH {}\n", escape(&title.to_uppercase())));
            }
            Part::Text(text) => {
                page.push_str(".PP\n");
                push_lines(&mut page, &text);
            }
            Part::Setting { key, default, text } => {
                page.push_str(&format!(".TP\n\\fB{}\\fR\n", escape(key)));
                push_lines(&mut page, &text);
                page.push_str(&format!(".br\nDefault: {}\n", escape(default)));
            }
        }
    }
    page.push_str(".SH SEE ALSO\nreeved(8), reeve(1)\n");
    page
}

fn push_lines(page: &mut String, lines: &[&str]) {
    for line in lines {
        page.push_str(&escape(line));
        page.push('\n');
    }
}

/// Text that roff takes for nothing else.
fn escape(text: &str) -> String {
    let escaped = text.replace('\\', "\\e").replace('-', "\\-");
    match escaped.chars().next() {
        Some('.' | '\'') => format!("\\&{escaped}"),
        _ => escaped,
    }
}

fn parse(configuration: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut text: Vec<&str> = Vec::new();
    // A setting right below another one shares what is said above the first.
    let mut shared: Vec<&str> = Vec::new();
    for line in configuration.lines() {
        if let Some((key, default)) = setting(line) {
            if !text.is_empty() {
                shared = std::mem::take(&mut text);
            }
            let text = shared.clone();
            parts.push(Part::Setting { key, default, text });
            continue;
        }
        let comment = line.strip_prefix('#').map(str::trim).unwrap_or_default();
        if let Some(title) = comment.strip_prefix("--- ") {
            flush(&mut parts, &mut text);
            parts.push(Part::Section(title.trim_end_matches('-').trim()));
        } else if comment.is_empty() {
            flush(&mut parts, &mut text);
        } else {
            text.push(comment);
        }
    }
    flush(&mut parts, &mut text);
    parts
}

fn flush<'a>(parts: &mut Vec<Part<'a>>, text: &mut Vec<&'a str>) {
    if !text.is_empty() {
        parts.push(Part::Text(std::mem::take(text)));
    }
}

/// `#key = default`.
fn setting(line: &str) -> Option<(&str, &str)> {
    let (key, default) = line.strip_prefix('#')?.split_once(" = ")?;
    let name = |c: char| c.is_ascii_lowercase() || c == '_';
    (!key.is_empty() && key.chars().all(name)).then_some((key, default))
}

#[cfg(test)]
mod tests {
    use reeved::config::Config;

    use super::*;

    #[test]
    fn every_setting_is_on_the_page_with_its_text_and_default() {
        let parts = parse(super::super::CONFIGURATION);
        let settings: Vec<&str> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Setting { key, default, text } => {
                    assert!(!text.is_empty() && !default.is_empty(), "{key}");
                    Some(*key)
                }
                _ => None,
            })
            .collect();
        let known = toml::Table::try_from(Config::default()).unwrap();
        for key in known.keys() {
            assert!(settings.contains(&key.as_str()), "{key}");
        }
        // Those that have no default of their own.
        assert_eq!(settings.len(), known.len() + 8, "{settings:?}");
    }

    #[test]
    fn what_roff_would_take_for_a_request_is_text() {
        let page = render("# --- One ---\n# .so x\n# a-b\n#key = \"x\\y\"\n", "1");
        assert!(
            page.contains(".SH ONE\n.TP\n\\fBkey\\fR\n\\&.so x\na\\-b\n"),
            "{page}"
        );
        assert!(
            page.ends_with("Default: \"x\\ey\"\n.SH SEE ALSO\nreeved(8), reeve(1)\n"),
            "{page}"
        );
    }
}
