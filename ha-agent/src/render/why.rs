//! `ha why`: the conclusion of one node about one hierarchy, with the facts in order.

use std::fmt::Write as _;

use anstyle::Style;
use ha_core::engine::HierarchyView;
use ha_core::name::NodeName;

use super::table::{Cell, table};
use crate::view::Problem;
use crate::words::{BAD, DIM, GOOD, HEAD, WARN, ago, clean, hanging, styled};

/// The answer to "why".
pub(crate) fn why(node: &NodeName, view: &HierarchyView, problems: &[Problem], width: Option<usize>) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{} on {node}: {} for {}, epoch {}",
        styled(HEAD, &view.name),
        view.phase,
        ago(view.phase_for_ms),
        view.epoch
    );
    if let Some(detail) = &view.detail {
        let _ = writeln!(out, "  {}", hanging(2, detail, Style::new(), width));
    }
    for problem in problems {
        let _ = writeln!(out, "  {}", hanging(2, &problem.what, WARN, width));
        if let Some(help) = &problem.help {
            let _ = writeln!(out, "    {}", hanging(4, help, Style::new(), width));
        }
    }
    let _ = writeln!(out, "\n{node} is {}, because", styled(HEAD, clean(&view.standing.to_string())));
    for (i, fact) in view.reasons.iter().enumerate() {
        let _ = writeln!(out, "  {}. {}", i + 1, hanging(5, &fact.0, Style::new(), width));
    }
    if !view.utility_facts.is_empty() {
        let _ = writeln!(out, "\nutility {} here: {}", view.utility, clean(&view.utility_facts));
    }
    if view.failures.count > 0 {
        let _ = writeln!(out, "\nearly failures on successive tenures: {}", view.failures.count);
    }
    out.push('\n');
    let rows: Vec<Vec<Cell>> = view
        .resources
        .iter()
        .map(|r| {
            let style = match r.state.as_str() {
                "up" => GOOD,
                "failed" | "stuck" => BAD,
                "down" => DIM,
                _ => WARN,
            };
            vec![
                Cell::plain(r.name.as_str()),
                Cell::plain(&r.kind),
                Cell::in_style(style, &r.state),
                Cell::plain(r.trouble.as_deref().unwrap_or_default()),
            ]
        })
        .collect();
    out.push_str(&table(&["RESOURCE", "KIND", "STATE", "LAST TROUBLE"], &rows, width));
    out
}
