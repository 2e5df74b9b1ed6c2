//! A plain table: columns as wide as their widest cell, two spaces between.

use anstyle::Style;

use crate::words::{HEAD, clean, hanging, styled};

/// One cell: its text, and the style it is shown in.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// A plain cell.
    pub(crate) fn plain(text: impl AsRef<str>) -> Self {
        Self::in_style(Style::new(), text)
    }

    /// A cell in a style.
    pub(crate) fn in_style(style: Style, text: impl AsRef<str>) -> Self {
        Self { text: clean(text.as_ref()), style }
    }

    fn width(&self) -> usize {
        self.text.chars().count()
    }
}

/// Renders rows under headings, indented by two spaces. The last column is broken into several lines if it does not fit into `width`; no
/// line ends in spaces.
pub(crate) fn table(headings: &[&str], rows: &[Vec<Cell>], width: Option<usize>) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|h| h.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    let heading: Vec<Cell> = headings.iter().map(|h| Cell::in_style(HEAD, h)).collect();
    let mut out = String::new();
    for row in std::iter::once(&heading).chain(rows) {
        let filled = row.iter().rposition(|cell| cell.width() > 0).map_or(0, |last| last + 1);
        let mut column = 2;
        out.push_str("  ");
        for (i, (cell, wide)) in row.iter().zip(&widths).enumerate().take(filled) {
            if i + 1 == row.len() {
                out.push_str(&hanging(column, &cell.text, cell.style, width));
            } else {
                out.push_str(&styled(cell.style, &cell.text));
            }
            if i + 1 < filled {
                out.extend(std::iter::repeat_n(' ', wide.saturating_sub(cell.width()) + 2));
            }
            column += wide + 2;
        }
        out.push('\n');
    }
    out
}
