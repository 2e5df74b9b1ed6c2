//! `ha status` and `ha why`: looking, without changing anything.

use std::time::Duration;

use clap::Args;
use ha_core::name::{HierarchyName, NodeName};

use super::{hierarchy_name, node_name, say, say_json};
use crate::api::WhyView;
use crate::api::client::Client;
use crate::exit::{Exit, Failure};
use crate::render;
use crate::view::ClusterView;
use crate::words;

/// Of `ha status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Show it again every second, until interrupted
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

/// Of `ha why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The hierarchy
    #[arg(value_parser = hierarchy_name)]
    hierarchy: HierarchyName,
    /// The node whose reasons are wanted [default: this one]
    #[arg(long, value_name = "NODE", value_parser = node_name)]
    on: Option<NodeName>,
    /// As JSON, for programs
    #[arg(long)]
    json: bool,
}

const WATCH_EVERY: Duration = Duration::from_secs(1);
/// Cursor home; then, after the text, clear what is left of the earlier one (ECMA-48 CUP, ED). No flicker that way.
const HOME: &str = "\x1b[H";
const CLEAR_REST: &str = "\x1b[J";
const CLEAR_LINE_END: &str = "\x1b[K\n";

/// `ha status`.
pub(crate) async fn status(client: &Client, args: &StatusArgs) -> Result<Exit, Failure> {
    if args.watch {
        return watch(client).await;
    }
    let view: ClusterView = client.get("/v1/status").await?;
    if args.json {
        say_json(&view)?;
    } else {
        say(render::status::status(&view, columns()))?;
    }
    Ok(Exit::Done)
}

async fn watch(client: &Client) -> Result<Exit, Failure> {
    use std::io::IsTerminal as _;
    let terminal = std::io::stdout().is_terminal();
    if terminal {
        raw("\x1b[2J")?;
    }
    loop {
        // An agent that is being restarted is worth waiting for.
        let text = match client.get::<ClusterView>("/v1/status").await {
            Ok(view) => render::status::status(&view, columns()),
            Err(failure) if failure.exit == Exit::Unreachable => {
                format!("{}\n{}\n", failure.what, failure.help.unwrap_or_default())
            }
            Err(failure) => return Err(failure),
        };
        if terminal {
            raw(HOME)?;
            raw(&fitting(&text, words::terminal().map(|(_, lines)| lines)).replace('\n', CLEAR_LINE_END))?;
            raw(CLEAR_REST)?;
        } else {
            say(text + "\n")?;
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

fn columns() -> Option<usize> {
    words::terminal().map(|(columns, _)| columns)
}

/// As much as a terminal of so many lines shows without scrolling, and how much that leaves out.
fn fitting(text: &str, lines: Option<usize>) -> String {
    let count = text.lines().count();
    match lines {
        Some(lines) if count >= lines && lines > 2 => {
            let shown: Vec<&str> = text.lines().take(lines - 2).collect();
            format!("{}\n… {} more lines: `ha status` shows all\n", shown.join("\n"), count - shown.len())
        }
        _ => text.to_owned(),
    }
}

fn raw(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::new(Exit::System, format!("the terminal cannot be written: {e}")))
}

/// `ha why`.
pub(crate) async fn why(client: &Client, args: &WhyArgs) -> Result<Exit, Failure> {
    let on = args.on.as_ref().map(|node| format!("?on={node}")).unwrap_or_default();
    let view: WhyView = client.get(&format!("/v1/why/{}{on}", args.hierarchy)).await?;
    if args.json {
        say_json(&view)?;
    } else {
        say(render::why::why(&view.node, &view.hierarchy, &view.problems, columns()))?;
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_watched_does_not_scroll() {
        let text = "1\n2\n3\n4\n5\n";
        assert_eq!(fitting(text, Some(6)), text);
        assert_eq!(fitting(text, Some(5)), "1\n2\n3\n… 2 more lines: `ha status` shows all\n");
        assert_eq!(fitting(text, None), text);
    }
}
