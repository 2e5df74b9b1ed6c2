//! `ha demo`: three nodes as real processes, and everything that can happen to them.
//!
//! Decides what is shown and what must hold. Everything that happens is real: agents, heartbeats on loopback, a lock area in a file, programs, and
//! signals that end or stop them. Leaves the times to the machine: no verdict depends on how long something took.

mod client;
mod relay;
mod report;
mod service;
mod stage;
mod steps;
mod witness;

use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::stage::{Stage, Wrong, lease};
use crate::exit::{Exit, Failure};
use crate::words::{BAD, GOOD, styled};

pub(crate) use service::{ServiceArgs, serve};

/// Of `ha demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Keep the directory with the nodes' files and logs
    #[arg(long)]
    keep: bool,
}

/// Runs the service of the demonstration's hierarchies.
pub(crate) fn service_main(args: &ServiceArgs) -> ExitCode {
    match serve(args) {
        Ok(()) => Exit::Done.into(),
        Err(error) => {
            eprintln!("the service cannot run at {args:?}: {error}");
            Exit::System.into()
        }
    }
}

/// Plays the demonstration, and takes down what it set up, however it ends.
pub(crate) async fn demo(args: &DemoArgs) -> Result<Exit, Failure> {
    let failed = |what: String| Failure::new(Exit::System, what);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|e| failed(e.to_string()))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| failed(e.to_string()))?;
    let mut stage = Stage::set(args.keep).await.map_err(failed)?;
    let lease = lease().map_err(failed)?;
    say(&format!(
        "Three nodes, alpha, beta and gamma, serve three hierarchies: web, mail and db. Each node is a real agent process with its own\n\
         warden; heartbeats go over loopback every 50 ms, and silence of 400 ms means that contact is lost. Claims are leases in a lock\n\
         area, renewed every {} ms: a dead node's are free {} ms after its last sign of life, which is most of T_recover below.\n\
         A client of each hierarchy asks every 3 ms. Files and logs: {}\n",
        lease.renew().as_millis(),
        lease.expires_after().as_millis(),
        stage.dir().display(),
    ));
    let played = tokio::select! {
        played = steps::play(&mut stage) => played,
        _ = interrupt.recv() => return Err(failed("interrupted: everything is taken down".to_owned())),
        _ = terminate.recv() => return Err(failed("ended: everything is taken down".to_owned())),
    };
    conclude(&stage, played, args)
}

fn conclude(
    stage: &Stage,
    (played, stopped): (Vec<report::Played>, Option<Wrong>),
    args: &DemoArgs,
) -> Result<Exit, Failure> {
    let mut wrong: usize = played.iter().map(|p| p.wrong.len()).sum();
    say(&report::table(&played));
    match witness::check(&stage.witness()) {
        Ok((stamps, found)) if found.is_empty() => {
            say(&format!(
                "\nwitness: {stamps} stamps of the services themselves, no two nodes at once, epochs always grew\n"
            ));
        }
        Ok((_, found)) => {
            wrong += found.len();
            found.iter().for_each(|f| say(&format!("{}\n", styled(BAD, f))));
        }
        Err(error) => {
            wrong += 1;
            say(&format!("{}\n", styled(BAD, error)));
        }
    }
    for (hierarchy, client) in &stage.clients {
        for what in client.wrong() {
            wrong += 1;
            say(&format!("{} client of {hierarchy}: {what}\n", styled(BAD, "WRONG:")));
        }
    }
    if let Some(stopped) = stopped {
        for node in stage::NODES {
            say(&format!("\n--- the end of {node}'s log\n{}\n", stage.log_end(node)));
        }
        let help = if args.keep { "the directory is kept" } else { "run it with --keep to look at the nodes' files" };
        return Err(Failure::new(Exit::Refused, format!("the demonstration could not go on: {stopped}")).help(help));
    }
    if wrong > 0 {
        return Err(Failure::new(Exit::Refused, format!("{wrong} things were not as they must be")));
    }
    say(&format!("{}\n", styled(GOOD, "everything was as it must be")));
    Ok(Exit::Done)
}

fn say(text: &str) {
    use std::io::Write as _;
    // Somebody who reads only the beginning is no reason to leave processes behind.
    let mut out = anstream::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
