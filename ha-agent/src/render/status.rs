//! `ha status`: problems first, then the nodes, then the hierarchies.

use std::fmt::Write as _;

use anstyle::Style;
use ha_core::contact::AnnouncedPhase;

use super::table::{Cell, table};
use crate::view::{ClusterView, HierarchyStatus, NodeAnswer, NodeStatus, Place, Problem, Says, Severity, Source};
use crate::words::{BAD, DIM, GOOD, HEAD, WARN, ago, hanging, styled};

/// The whole status, for a terminal of so many columns.
pub(crate) fn status(view: &ClusterView, width: Option<usize>) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "cluster {}, seen from {}", styled(HEAD, &view.cluster), view.asked);
    if !view.problems.is_empty() {
        out.push('\n');
        out.push_str(&problems(&view.problems, width));
    }
    out.push('\n');
    let nodes: Vec<Vec<Cell>> = view.nodes.iter().map(node_row).collect();
    out.push_str(&table(&["NODE", "CONTACT", "HEARD", "VERSION", "LEASES"], &nodes, width));
    out.push('\n');
    if view.hierarchies.is_empty() {
        out.push_str("  no hierarchies are defined: put them into hierarchies/*.ron, then `ha reload`\n");
    } else {
        let rows: Vec<Vec<Cell>> = view.hierarchies.iter().map(|h| hierarchy_row(h, view)).collect();
        out.push_str(&table(&["HIERARCHY", "STATE", "ON", "EPOCH", "FOR", "NODES"], &rows, width));
    }
    out
}

/// Where the text of a problem begins.
const INDENT: usize = 10;

/// Problems, one to a paragraph, the worst first.
pub(crate) fn problems(problems: &[Problem], width: Option<usize>) -> String {
    let mut out = String::new();
    for problem in problems {
        let (style, word) = match problem.severity {
            Severity::Error => (BAD, "error  "),
            Severity::Warning => (WARN, "warning"),
            Severity::Note => (DIM, "note   "),
        };
        let what = format!("{}: {}", problem.about, problem.what);
        let _ = writeln!(out, "  {} {}", styled(style, word), hanging(INDENT, &what, Style::new(), width));
        if let Some(help) = &problem.help {
            let _ = writeln!(out, "{:INDENT$}{}", "", hanging(INDENT, help, DIM, width));
        }
    }
    out
}

fn node_row(node: &NodeStatus) -> Vec<Cell> {
    let style = match node.heard.as_str() {
        "here" | "alive" => GOOD,
        "lost" => BAD,
        _ => WARN,
    };
    let mut contact = node.heard.clone();
    if node.standby.is_some() && node.heard != "left" {
        contact.push_str(", standby");
    }
    if matches!(node.answer, NodeAnswer::Missing(_)) {
        contact.push_str(", no answer");
    }
    let leases: Vec<String> = node
        .leases
        .iter()
        .map(|lease| match lease.good_for_ms {
            Some(ms) => format!("{} good for {}", lease.name, ago(ms)),
            None => format!("{} not held", lease.name),
        })
        .collect();
    vec![
        Cell::plain(node.node.as_str()),
        Cell::in_style(style, contact),
        Cell::plain(node.heard_ms_ago.map(|ms| format!("{} ago", ago(ms))).unwrap_or_default()),
        Cell::plain(&node.version),
        Cell::plain(leases.join(", ")),
    ]
}

fn hierarchy_row(hierarchy: &HierarchyStatus, view: &ClusterView) -> Vec<Cell> {
    let (style, state) = state(hierarchy);
    let on = match &hierarchy.place {
        Place::Disputed(nodes) => nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join("+"),
        place => place.node().map(ToString::to_string).unwrap_or_default(),
    };
    let nodes: Vec<String> = hierarchy.nodes.iter().filter(|n| !n.holds()).map(|n| in_short(n, view)).collect();
    vec![
        Cell::plain(hierarchy.name.as_str()),
        Cell::in_style(style, state),
        Cell::plain(on),
        Cell::plain(hierarchy.epoch.to_string()),
        Cell::plain(hierarchy.for_ms.map(ago).unwrap_or_default()),
        Cell::plain(nodes.join(", ")),
    ]
}

fn state(hierarchy: &HierarchyStatus) -> (Style, String) {
    let directive = &hierarchy.directive;
    let (style, mut state) = match &hierarchy.place {
        Place::InService(_) => (GOOD, "in service".to_owned()),
        Place::Changing(_, AnnouncedPhase::StopFailed) => (BAD, AnnouncedPhase::StopFailed.to_string()),
        Place::Changing(_, phase) => (WARN, phase.to_string()),
        Place::Disputed(_) => (BAD, "DISPUTED".to_owned()),
        Place::Out if directive.quarantined.is_some() => (BAD, "quarantined".to_owned()),
        Place::Out if directive.stopped => (DIM, "stopped".to_owned()),
        Place::Out => (BAD, "out of service".to_owned()),
    };
    if let (Some(detail), Place::Changing(..)) = (&hierarchy.detail, &hierarchy.place) {
        state = format!("{state}: {detail}");
    }
    if directive.maintenance {
        state.push_str(", maintenance");
    }
    if directive.pin.is_some() {
        state.push_str(", pinned");
    }
    (style, state)
}

/// What comes before the details of a reason, such as "not ready" of "it is not ready: no device".
fn beginning(why: &str) -> &str {
    let short = why.split([':', '(']).next().unwrap_or(why).trim_end();
    ["it is ", "its ", "it "].iter().find_map(|prefix| short.strip_prefix(prefix)).unwrap_or(short)
}

/// A node that does not have the hierarchy, in two words.
fn in_short(says: &Says, view: &ClusterView) -> String {
    let heard = view.node(&says.node).map_or("lost", |n| n.heard.as_str());
    let word = match (&says.source, says.phase, &says.ineligible) {
        (_, None, None) | (Source::LastHeard, None, _) => "not heard",
        (Source::LastHeard, ..) => heard,
        (_, _, Some(why)) => beginning(why),
        (_, Some(AnnouncedPhase::Waiting), _) => "waiting",
        (_, Some(AnnouncedPhase::Claiming), _) => "claiming",
        _ if says.definition_differs => "differs",
        _ => "ready",
    };
    let utility =
        if says.utility.get() < 100 && word == "ready" { format!(" ({})", says.utility) } else { String::new() };
    format!("{} {word}{utility}", says.node)
}
