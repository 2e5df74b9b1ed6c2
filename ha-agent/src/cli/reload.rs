//! `ha reload`: shows what going over to the files as they are now would do, then does it.

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Write as _};

use clap::Args;

use super::{say, say_json};
use crate::api::client::Client;
use crate::api::{ReloadMode, ReloadRequest, ReloadView};
use crate::exit::{Exit, Failure};
use crate::words::{WARN, clean, styled};

/// Of `ha reload`.
#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Do it without asking
    #[arg(long)]
    yes: bool,
    /// As JSON, for programs; shows the plan only, unless --yes is given
    #[arg(long)]
    json: bool,
}

/// `ha reload`.
pub(crate) async fn reload(client: &Client, args: &ReloadArgs) -> Result<Exit, Failure> {
    let plan: ReloadView = client.post("/v1/reload", &ReloadRequest { apply: ReloadMode::Plan }).await?;
    if args.json && !args.yes {
        say_json(&plan)?;
        return Ok(Exit::Done);
    }
    if !args.json {
        say(render(&plan))?;
    }
    // Without a change of hierarchies there may be one of keys, which is never an interruption.
    if !plan.changes.is_empty() && !args.yes && !confirmed()? {
        return Err(Failure::new(Exit::Refused, "nothing was changed").help("`ha reload --yes` does it without asking"));
    }
    let done: ReloadView = client.post("/v1/reload", &ReloadRequest { apply: ReloadMode::Apply }).await?;
    if args.json {
        say_json(&done)?;
    } else {
        say("reloaded\n")?;
    }
    Ok(Exit::Done)
}

fn render(plan: &ReloadView) -> String {
    let mut out = String::new();
    if plan.changes.is_empty() {
        out.push_str("no hierarchy changes\n");
    }
    for change in &plan.changes {
        let _ = writeln!(out, "  {}", clean(change));
    }
    for part in &plan.needs_restart {
        let _ = writeln!(
            out,
            "  {} {} changed: takes effect when the agent is restarted",
            styled(WARN, "agent.ron:"),
            clean(part)
        );
    }
    out
}

fn confirmed() -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    let failed = |e: std::io::Error| Failure::new(Exit::System, format!("the terminal cannot be used: {e}"));
    eprint!("Do it? [y/N] ");
    std::io::stderr().flush().map_err(failed)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
