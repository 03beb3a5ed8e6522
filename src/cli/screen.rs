//! What goes to standard output and standard error, and in which form.
//!
//! Owns tables, colour and JSON. Colour goes to terminals only, and nowhere if `NO_COLOR` is set; names that
//! come from Redis are escaped by who hands them in.

use std::fmt::{self, Display};
use std::io::{self, IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::cli::Output;
use crate::cli::failure::{ExitCode, Failure};

#[derive(Serialize)]
struct Nothing<'a> {
    event: &'static str,
    message: &'a str,
}

/// Where results go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Screen {
    output: Output,
}

impl Screen {
    pub(super) fn new(output: Output) -> Self {
        Self { output }
    }

    /// Whether results are JSON.
    pub(super) fn is_json(self) -> bool {
        self.output == Output::Json
    }

    /// Whether progress may be drawn over itself.
    pub(super) fn may_draw(self) -> bool {
        !self.is_json() && io::stderr().is_terminal()
    }

    /// Prints a result: the text for people, or the document.
    pub(super) fn result(self, text: impl Display, document: &impl Serialize) -> Result<(), Failure> {
        match self.output {
            Output::Text => self.line(text),
            Output::Json => self.json(document),
        }
    }

    /// Prints text for people; nothing where results are JSON.
    pub(super) fn text(self, text: impl Display) -> Result<(), Failure> {
        if self.is_json() { Ok(()) } else { self.line(text) }
    }

    /// Prints text for people, if there is any.
    pub(super) fn text_if_any(self, text: Option<String>) -> Result<(), Failure> {
        text.map_or(Ok(()), |text| self.text(text))
    }

    /// Says that there is nothing to do, and why.
    pub(super) fn nothing(self, why: &str) -> Result<(), Failure> {
        self.result(why, &Nothing { event: "nothing", message: why })
    }

    /// Prints one JSON object on one line; nothing where results are text.
    pub(super) fn event(self, event: &impl Serialize) -> Result<(), Failure> {
        if self.is_json() { self.json(event) } else { Ok(()) }
    }

    fn json(self, document: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(document).map_err(|error| Failure::new(ExitCode::NotDone, error))?;
        self.line(text)
    }

    #[allow(clippy::unused_self, reason = "a screen is what prints")]
    fn line(self, text: impl Display) -> Result<(), Failure> {
        let written = writeln!(anstream::stdout().lock(), "{text}");
        // A reader that has seen enough, such as head, is no failure of ours.
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new(ExitCode::NotDone, format!("standard output can't be written: {error}")))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

/// Says something on standard error, beside the results.
pub(super) fn say(text: impl Display) {
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// Text in a colour, which disappears where there is none.
pub(super) fn coloured(text: impl Display, colour: AnsiColor) -> impl Display {
    let style = Style::new().fg_color(Some(colour.into()));
    Painted { text: text.to_string(), style }
}

struct Painted {
    text: String,
    style: Style,
}

impl Display for Painted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.style.render(), self.text, self.style.render_reset())
    }
}

/// Rows under headings, lined up; columns of numbers to the right.
pub(super) fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if !headings.is_empty() {
        table.set_header(headings);
    }
    let is_number = |text: &String| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == ',');
    for row in rows {
        table.add_row(row.into_iter().map(|text| {
            let alignment = if is_number(&text) { CellAlignment::Right } else { CellAlignment::Left };
            Cell::new(text).set_alignment(alignment)
        }));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A number with separators: `1,234,567`.
pub(super) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with what is counted: `1 entry`, `2,000 entries`.
pub(super) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(count), if count == 1 { one } else { many })
}

/// Bytes as people write them: `512 B`, `1.4 MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
    for (unit, shift) in UNITS {
        if count >= 1 << shift {
            let tenths = (u128::from(count) * 10) >> shift;
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes_read_well() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1023, 1536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!(counted(1, "entry", "entries"), "1 entry");
    }

    #[test]
    fn tables_line_up() {
        let rows = vec![vec!["a".into(), "1,000".into()], vec!["long name".into(), "7".into()]];
        assert_eq!(table(&["NAME", "COUNT"], rows), "NAME       COUNT\na          1,000\nlong name      7");
    }
}
